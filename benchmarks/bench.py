"""Measure the service: `make bench [PEER=folder]`.

Starts a Redis, the simulator, the service and a worker, all on loopback, and prints medians of several rounds. Absolute
figures are the machine's. With the folder of a comparable program that has the same routes (`npm install` done, `node
server.js` starts it), both are measured in turn in the same run.
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

from django.conf import settings

from instances import simulator
from tests.system.processes import ROOT, Process, Redis, Service, Worker, find_free_port, wait_until

ROUNDS = 5
ROUND_SECONDS = 2.0
CLIENTS = 4
STOP_LATENCY_SECONDS = 0.2


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


def build_environment(folder: Path, redis: Redis, novita: str) -> dict[str, str]:
    return {
        **os.environ,
        "SECRET_KEY": "x" * 50,
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "REDIS_URL": redis.url,
        "NOVITA_API_KEY": "bench",
        "NOVITA_BASE_URL": novita,
        "NOVITA_SYNC_INTERVAL": "0",
    }


@contextmanager
def run_service(folder: Path, environment: dict[str, str]) -> Iterator[Service]:
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


def measure_stop_all(service: Service, account: simulator.Account, novita: simulator.Server) -> None:
    """Stop everything, once: how long until all are asked, by the least that it can take, and until the verdict."""
    account.change({"running": True})
    novita.calls.clear()
    least = len(account.list_rows()) * novita.latency_seconds / settings.NOVITA_CONCURRENCY
    began_at = time.time()
    ordered = service.stop_all()
    answered = time.time() - began_at
    operation = service.wait_until_finished(ordered, seconds=600)
    judged = time.time() - began_at
    calls = novita.calls.describe()
    asked = max(call["at"] for call in calls["calls"] if call["call"] == "stop") + novita.latency_seconds - began_at
    print(
        f"\nStop-all, once, {novita.latency_seconds * 1000:.0f} ms a call, {settings.NOVITA_CONCURRENCY} calls at once"
    )
    print(f"  answered after {answered:.1f} s")
    print(f"  all asked after {asked:.1f} s: {asked / least:.2f} times the least, {least:.1f} s")
    print(f"  result after {judged:.1f} s: {operation['result']}")
    print(f"  {calls['counts']['stop']} stops, {calls['counts']['list']} pages, {calls['counts']['get']} reads")


def measure_peer_stop_all(port: int, account: simulator.Account) -> None:
    """Do the same with the peer, which asks for all at the same moment and gives no verdict."""
    account.change({"running": True})
    post(port, "/api/instances/sync")
    print(f"  peer: answered, all asked after {time_call(lambda: post(port, '/api/instances/stop-all')) / 1000:.1f} s")


def post(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=300) as sock, sock.makefile("rb") as answers:
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
        environment = build_environment(folder, redis, novita.url)
        service = stack.enter_context(run_service(folder, environment))
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

        worker = Worker(environment, folder)
        stack.callback(worker.end)
        wait_until(lambda: service.get_worker() == "up", "the worker works")
        novita.latency_seconds = STOP_LATENCY_SECONDS
        measure_stop_all(service, account, novita)
        if options.peer:
            measure_peer_stop_all(peer, account)


def time_new_sync(service: Service) -> float:
    service.post("/api/cache/clear")
    return time_call(lambda: post(service.port, "/api/instances/sync"))


if __name__ == "__main__":
    main()
