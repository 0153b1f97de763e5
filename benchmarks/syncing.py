"""Measure synchronizations: `python -m benchmarks.syncing [--quick]`.

Their time, CPU and memory, how long readers wait meanwhile, and how soon the service answers after its start. Redis,
the simulator and the service are processes of their own, on loopback. Each function returns plain numbers.
"""

import argparse
import http.client
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import readers
from tests.system.processes import ROOT, Novita, Process, Redis, Service, find_free_port, wait_until

PAGE_SIZE, CONCURRENCY = 100, 8
LATENCY_SECONDS = 0.05
READERS = 4


@contextmanager
def run_simulator(folder: Path, instances: int, latency_seconds: float = LATENCY_SECONDS) -> Iterator[Novita]:
    """Run an account whose instances have the image v1, and ids from 0. All of them are running."""
    port = find_free_port()
    command = [sys.executable, "manage.py", "novita_simulator", "--instances", "0"]
    command += ["--port", str(port), "--latency", str(latency_seconds)]
    process = Process(command, dict(os.environ), folder / f"simulator-{port}.log")
    novita = Novita(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: novita.list_calls() == [], "the simulator answers")
        novita.change(add=[{"id": readers.get_id(number), "imageUrl": "v1"} for number in range(instances)])
        yield novita
    finally:
        novita.end()
        process.end()


def make_environment(folder: Path, redis_url: str, novita_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "novita_site.settings",
        "SECRET_KEY": "x" * 50,
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "REDIS_URL": redis_url,
        "NOVITA_API_KEY": "bench",
        "NOVITA_BASE_URL": novita_url,
        "NOVITA_PAGE_SIZE": str(PAGE_SIZE),
        "NOVITA_CONCURRENCY": str(CONCURRENCY),
        "NOVITA_SYNC_INTERVAL": "0",
        "NOVITA_SYNC_ON_STARTUP": "0",
        "WEB_WORKERS": "1",
        "FALLBACK_DIR": str(folder / "fallback"),
    }


class Setting:
    """A Redis, a simulated account and a database for one measurement."""

    def __init__(self, stack: ExitStack, instances: int, latency_seconds: float = LATENCY_SECONDS) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.redis = Redis(self.folder)
        stack.callback(self.redis.end)
        self.novita = stack.enter_context(run_simulator(self.folder, instances, latency_seconds))
        self.environment = make_environment(self.folder, self.redis.url, self.novita.url)
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=self.environment, check=True)
        self._stack = stack

    def start_service(self, **variables: str) -> Service:
        service = Service({**self.environment, **variables}, self.folder)
        self._stack.callback(service.end)
        return service.wait_until_alive()


def synchronize(service: Service) -> float:
    """Synchronize by a request; return its seconds."""
    began = time.monotonic()
    answer = service.post("/api/instances/sync", timeout=600)
    if not answer.ok:
        raise SystemExit(answer.text)
    return time.monotonic() - began


def measure_time(instances: int = 10_000, rounds: int = 3) -> dict[str, float]:
    """Return the ms of a synchronization with all instances new and with nothing changed, and the least possible.

    The least is the time of the listing's pages at Novita, as many at once as the settings allow.
    """
    with ExitStack() as stack:
        setting = Setting(stack, instances)
        service = setting.start_service()
        times: dict[str, list[float]] = {"all_new": [], "unchanged": []}
        for _ in range(rounds):
            service.post("/api/cache/clear")
            times["all_new"].append(synchronize(service))
            times["unchanged"].append(synchronize(service))
    least = instances / PAGE_SIZE * LATENCY_SECONDS / CONCURRENCY
    return {"least_ms": least * 1000} | {f"{name}_ms": statistics.median(all_) * 1000 for name, all_ in times.items()}


def measure_cost(instances: int) -> dict[str, float]:
    """Return the CPU ms per instance of a synchronization, and the peak memory of the process that ran it, in MB."""
    with ExitStack() as stack:
        setting = Setting(stack, instances, latency_seconds=0)
        found = {}
        for name in ("all_new", "unchanged", "all_changed"):
            if name == "all_changed":
                setting.novita.change(set={readers.get_id(number): {"imageUrl": "v2"} for number in range(instances)})
            cost = run_sync_apart(setting.environment, instances)
            found |= {f"{name}_{key}": value for key, value in cost.items()}
        return found


def run_sync_apart(environment: dict[str, str], instances: int) -> dict[str, float]:
    command = [sys.executable, "-c", f"from benchmarks import syncing; syncing.report_sync({instances})"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def report_sync(instances: int) -> None:
    """Synchronize in this process, and print what that cost."""
    from instances.inventory import sync

    began, idle = time.process_time(), read_peak_mb(os.getpid())
    report = sync.synchronize("command")
    if report.novita_instances != instances:
        raise SystemExit(f"{report.novita_instances} instances, not {instances}")
    cpu_ms = (time.process_time() - began) * 1000 / instances
    print(json.dumps({"cpu_ms": cpu_ms, "peak_mb": read_peak_mb(os.getpid()), "idle_mb": idle}))


def read_peak_mb(pid: int) -> float:
    """Return the peak memory of a process. That of getrusage begins with the peak of the parent."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the system doesn't tell the peak memory of a process")


def measure_readers(instances: int = 100_000) -> dict[str, float]:
    """Return how long readers wait while a synchronization replaces every row, and how many listings were mixed.

    Four clients read one instance every 20 ms, in a process of their own. Another one reads the whole listing every
    100 ms, and once more at the end. The synchronization runs in the only web process, which answers the readers, too.
    """
    with ExitStack() as stack:
        setting = Setting(stack, instances)
        service = setting.start_service()
        first = synchronize(service)
        changes = {readers.get_id(number): {"imageUrl": "v2"} for number in range(instances)}
        pipes = [readers.start(stack, readers.read_one, service.port, instances) for _ in range(READERS)]
        lists = readers.start(stack, readers.read_listings, service.port)
        time.sleep(3)
        quiet = [value for pipe in pipes for value in readers.collect(pipe)]
        setting.novita.change(set=changes)
        for pipe in [*pipes, lists]:
            readers.collect(pipe)
        second = synchronize(service)
        busy = [value for pipe in pipes for value in readers.collect(pipe)]
        versions = readers.collect(lists) + readers.collect(lists)
        worker = find_child(service.popen.pid)
        peak = read_peak_mb(worker)
        service.get("/api/instances?search=v2-&ordering=-name&pageSize=1", timeout=60)
        return {
            "quiet_p50_ms": quantile(quiet, 0.5),
            "quiet_p99_ms": quantile(quiet, 0.99),
            "p50_ms": quantile(busy, 0.5),
            "p99_ms": quantile(busy, 0.99),
            "max_ms": max(busy),
            "reads": len(busy),
            "listings": len(versions),
            "mixed": sum(kind not in {"old", "new"} for kind in versions),
            "new_listings": sum(kind == "new" for kind in versions),
            "first_sync_s": first,
            "sync_s": second,
            "web_peak_mb": peak,
            "web_peak_with_search_mb": read_peak_mb(worker),
        }


def find_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.floor(len(values) * share))]


def measure_boot(rounds: int = 5) -> dict[str, float]:
    """Return the ms from the start to the first answer of /livez: all well, Novita silent, Redis refused."""
    with ExitStack() as stack:
        setting = Setting(stack, 25, latency_seconds=0)
        silent = stack.enter_context(run_silent_novita())
        situations = {
            "well": {},
            "novita_silent": {"NOVITA_BASE_URL": silent},
            "redis_refused": {"REDIS_URL": f"redis://127.0.0.1:{find_free_port()}/0"},
        }
        times: dict[str, list[float]] = {name: [] for name in situations}
        for _ in range(rounds):
            for name, variables in situations.items():
                times[name].append(time_boot(setting, variables))
    return {f"{name}_ms": statistics.median(all_) * 1000 for name, all_ in times.items()}


def time_boot(setting: Setting, variables: dict[str, str]) -> float:
    usual = {"NOVITA_SYNC_ON_STARTUP": "1", "NOVITA_SYNC_INTERVAL": "60", "WEB_WORKERS": "2"}
    setting.redis.client.flushall()
    began = time.monotonic()
    service = Service({**setting.environment, **usual, **variables}, setting.folder)
    try:
        while time.monotonic() < began + 60:
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
            try:
                connection.request("GET", "/livez")
                if connection.getresponse().status == 200:
                    return time.monotonic() - began
            except OSError:
                time.sleep(0.005)
            finally:
                connection.close()
        raise SystemExit(service.log)
    finally:
        service.end()


@contextmanager
def run_silent_novita() -> Iterator[str]:
    """Listen, and never answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, and 10,000 instances at most")
    parser.add_argument("--only", choices=["time", "cost", "readers", "boot"])
    quick, only = (options := parser.parse_args()).quick, options.only
    measures = {
        "time": lambda: measure_time(rounds=1 if quick else 3),
        "cost": lambda: {count: measure_cost(count) for count in ([1_000, 10_000] + ([] if quick else [100_000]))},
        "readers": lambda: measure_readers(10_000 if quick else 100_000),
        "boot": lambda: measure_boot(rounds=1 if quick else 5),
    }
    for name, measure in measures.items():
        if only in {None, name}:
            print(name, json.dumps(measure(), indent=2), flush=True)


if __name__ == "__main__":
    main()
