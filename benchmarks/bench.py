"""Measure the service: `make bench [PEER=folder]`.

Starts a Redis, the simulator and the service, all on loopback, and prints medians of several rounds. Absolute figures
Starts a Redis, the simulator and the service, all on loopback, and prints medians of several rounds. Absolute
same routes (`npm install` done, `node server.js` starts it), both are measured in turn in the same run.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

os.environ["DJANGO_SETTINGS_MODULE"] = "novita_site.settings"
import django

django.setup()

from instances import simulator
from tests.system.processes import ROOT, Process, Redis, Service, find_free_port, wait_until

ROUNDS = 5
ROUND_SECONDS = 2.0
CLIENTS = 4


def count_per_second(port: int, path: str, headers: str = "") -> float:
    """Ask as fast as possible from a few kept-alive connections; return the answers a second."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n{headers}\r\n".encode()
    counts = [0] * CLIENTS
    ends_at = time.monotonic() + ROUND_SECONDS

    def ask(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as answers:
            while time.monotonic() < ends_at:
                sock.sendall(request)
                read_answer(answers)
                counts[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def read_answer(answers: object) -> int:
    """Read one answer off a connection; return its status."""
    readline, read = answers.readline, answers.read  # type: ignore[attr-defined]  # a socket's file
    status = int(readline().split()[1])
    length = 0
    while (line := readline()) not in {b"\r\n", b""}:
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    read(length)
    return status


def measure_rounds(measures: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Take each measure in turn, round after round, so that a drift of the machine meets all of them."""
    results: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(ROUNDS):
        for name, measure in measures.items():
            results[name].append(measure())
    return results


def show(title: str, results: dict[str, list[float]], unit: str) -> None:
    print(f"\n{title}")
    for name, values in results.items():
        spread = f"{min(values):,.1f} to {max(values):,.1f}"
        print(f"  {name:<44}{statistics.median(values):>10,.1f} {unit}  ({spread})")


def time_call(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return (time.monotonic() - began) * 1000


@contextmanager
def run_service(folder: Path, redis: Redis, novita: str) -> Iterator[Service]:
    environment = {
        **os.environ,
        "SECRET_KEY": "x" * 50,
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "REDIS_URL": redis.url,
        "NOVITA_API_KEY": "bench",
        "NOVITA_BASE_URL": novita,
        "NOVITA_SYNC_INTERVAL": "0",
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
    service = Service(environment, folder)
    try:
        yield service.wait_until_ready()
    finally:
        service.end()


@contextmanager
def run_peer(peer: Path, folder: Path, novita: str) -> Iterator[int]:
    """Start the comparable program with a Redis of its own; returns its port once it holds a listing."""
    redis_port, port = find_free_port(), find_free_port()
    redis = Redis(folder, "--port", str(redis_port), "--bind", "127.0.0.1")
    variables = {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/1",
        "NOVITA_BASE_URL": novita,
        "NOVITA_API_KEY": "bench",
        "PORT": str(port),
        "WORKERS": "2",
    }
    process = Process(["node", "server.js"], {**os.environ, **variables}, folder / "peer.log", cwd=peer)
    try:
        wait_until(lambda: is_open(port), "the peer listens")
        post(port, "/api/instances/sync")
        yield port
    finally:
        process.end()
        redis.end()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as answers:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        status = read_answer(answers)
    if status != 200:
        raise SystemExit(f"{path} answered {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that each call to Novita takes")
    parser.add_argument("--peer", type=Path, help="the folder of a comparable program")
    options = parser.parse_args()

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        account = simulator.Account(instances=options.instances, step_seconds=0.1)
        novita = stack.enter_context(simulator.start(account, port=0, latency_seconds=options.latency))
        redis = Redis(folder)
        stack.callback(redis.end)
        service = stack.enter_context(run_service(folder, redis, novita.url))
        print(f"{options.instances} instances, {options.latency * 1000:.0f} ms a call to Novita, {ROUNDS} rounds")

        etag = service.get("/api/instances").headers["ETag"]
        reads = {
            "list, gzipped": lambda: count_per_second(service.port, "/api/instances", "Accept-Encoding: gzip\r\n"),
            "list, plain": lambda: count_per_second(service.port, "/api/instances"),
            "list, 304": lambda: count_per_second(service.port, "/api/instances", f"If-None-Match: {etag}\r\n"),
            "list, search, page of 100": lambda: count_per_second(service.port, "/api/instances?search=a&page=1"),
            "health": lambda: count_per_second(service.port, "/health"),
        }
        syncs = {
            "sync, nothing changed": lambda: time_call(lambda: post(service.port, "/api/instances/sync")),
            "sync, all new": lambda: time_new_sync(service),
        }
        if options.peer:
            peer_folder = folder / "peer"
            peer_folder.mkdir()
            peer = stack.enter_context(run_peer(options.peer, peer_folder, novita.url))
            reads["peer: list"] = lambda: count_per_second(peer, "/api/instances")
            reads["peer: health"] = lambda: count_per_second(peer, "/health")
            syncs["peer: sync"] = lambda: time_call(lambda: post(peer, "/api/instances/sync"))
        show("Answers a second", measure_rounds(reads), "/s")
        show("A sync", measure_rounds(syncs), "ms")


def time_new_sync(service: Service) -> float:
    service.post("/api/cache/clear")
    return time_call(lambda: post(service.port, "/api/instances/sync"))


if __name__ == "__main__":
    main()
