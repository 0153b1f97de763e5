"""Measure the reads of the API beside the floor and the peer: `python -m benchmarks.reads [--peer FOLDER]`.

16 connections, two web processes. Every round measures each case in turn, so that a drift of the machine meets all.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import peer
from benchmarks.load import Load, is_open, measure
from benchmarks.syncing import Setting, synchronize
from tests.system.processes import ROOT, Process, find_free_port, wait_until

GZIP = "Accept-Encoding: gzip\r\n"
# What 16 dashboards, of people who look for different things, ask for.
PAGE = "/api/instances?search=v1-&ordering=-name&page=3&pageSize=100"

# Runs in `manage.py shell`: a viewer with a login and with a token.
MAKE_VIEWER = """
import json
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client
from instances.models import Token
user = User.objects.create_user("viewer", password="correct horse")
user.groups.add(Group.objects.get_or_create(name="viewer")[0])
client = Client()
client.force_login(user)
cookie = client.cookies[settings.SESSION_COOKIE_NAME]
token = Token.objects.create(user=user, name="bench", role="viewer")[1]
headers = {"session": f"Cookie: {cookie.key}={cookie.value}", "token": f"Authorization: Bearer {token}"}
print(json.dumps(headers))
"""

# The name of a case → what it measures.
Cases = dict[str, tuple[int, str, str]]


@contextmanager
def run_cases(instances: int, peer_folder: Path | None) -> Iterator[Cases]:
    """Start everything. Yields the port, path and headers of each case."""
    with ExitStack() as stack:
        setting = Setting(stack, instances, latency_seconds=0)
        service = setting.start_service(WEB_WORKERS="2", NOVITA_STALE_AFTER="604800")
        synchronize(service)
        logged_in = setting.start_service(WEB_WORKERS="2", NOVITA_STALE_AFTER="604800", REQUIRE_LOGIN="1")
        known = f"If-None-Match: {service.get('/api/instances').headers['ETag']}\r\n"
        one = f"/api/instances/{sorted(service.list_ids())[instances // 2]}"
        command = [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", MAKE_VIEWER]
        made = subprocess.run(command, cwd=ROOT, env=setting.environment, check=True, stdout=subprocess.PIPE)
        viewer = json.loads(made.stdout.splitlines()[-1])
        cases = {
            "floor": (_run_floor(stack, setting), "/", ""),
            "list, plain": (service.port, "/api/instances", ""),
            "list, gzip": (service.port, "/api/instances", GZIP),
            "list, 304": (service.port, "/api/instances", known),
            "list, 304, with a session": (logged_in.port, "/api/instances", f"{known}{viewer['session']}\r\n"),
            "list, 304, with a token": (logged_in.port, "/api/instances", f"{known}{viewer['token']}\r\n"),
            "/health": (service.port, "/health", ""),
            "/livez": (service.port, "/livez", ""),
            "one instance": (service.port, one, ""),
            "a page of 100, searched and sorted": (service.port, PAGE, ""),
        }
        if peer_folder:
            port = stack.enter_context(peer.run(peer_folder, setting.folder, setting.novita.url))
            cases |= {"peer: list": (port, "/api/instances", ""), "peer: /health": (port, "/health", "")}
        yield cases


def _run_floor(stack: ExitStack, setting: Setting) -> int:
    port = find_free_port()
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "20", "--log-level", "warning"]
    command += ["--bind", f"127.0.0.1:{port}", "benchmarks.floor:app"]
    process = Process(command, setting.environment, setting.folder / "floor.log")
    stack.callback(process.end)
    wait_until(lambda: is_open(port), "the floor listens")
    return port


def measure_reads(
    instances: int, *, rounds: int = 3, seconds: float = 2.0, peer_folder: Path | None = None
) -> dict[str, Load]:
    """Return the load of each case: the median of its rounds. Raises SystemExit when a case answers with an error."""
    loads: dict[str, list[Load]] = {}
    with run_cases(instances, peer_folder) as cases:
        for port, path, headers in cases.values():
            measure(port, path, headers, seconds=0.5)
        for _ in range(rounds):
            for name, (port, path, headers) in cases.items():
                loads.setdefault(name, []).append(measure(port, path, headers, seconds=seconds))
    return {name: _take_median(name, all_) for name, all_ in loads.items()}


def _take_median(name: str, loads: list[Load]) -> Load:
    expected = frozenset({304 if "304" in name else 200})
    if any(load.statuses != expected for load in loads):
        raise SystemExit(f"{name} answered {set().union(*(load.statuses for load in loads))}")
    figures = ([getattr(load, field) for load in loads] for field in ("per_second", "p50", "p99"))
    return Load(*(statistics.median(values) for values in figures), expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="the folder of a comparable program")
    options = parser.parse_args()
    loads = measure_reads(options.instances, rounds=options.rounds, peer_folder=options.peer)
    floor = loads["floor"].per_second
    for name, load in loads.items():
        print(f"{name:<38}{load.per_second:>10,.0f}/s{load.per_second / floor:>8.2f} floor{load.p99:>10,.1f} ms p99")


if __name__ == "__main__":
    main()
