"""Syncs that are killed, suspended or terminated: the listing stays whole, and the next sync runs."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from instances.inventory.lease import TTL_SECONDS
from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Novita, Process, Redis, wait_until

SYNC = [sys.executable, "manage.py", "sync_instances"]


def run_sync(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return python.run([*SYNC, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def start_sync(environment: dict[str, str], tmp_path: Path) -> Process:
    return Process(SYNC, environment, tmp_path / "sync.log")


def read_rows(redis_process: Redis) -> dict[bytes, bytes]:
    """Return the current generation, as readers see it."""
    rows: dict[bytes, bytes] = {}
    for key in redis_process.find("current"):
        number = redis_process.client.get(key)
        rows = redis_process.client.hgetall(key.replace(b":current", b":gen:") + (number or b""))
    return rows


def test_command_synchronizes_the_account_and_reports_it(environment: dict[str, str], redis_process: Redis) -> None:
    done = run_sync(environment)

    assert done.returncode == 0, done.stderr
    assert "25 instances: 25 new" in done.stdout, done.stderr
    assert len(read_rows(redis_process)) == 26


# Writing so many rows takes long enough to be interrupted.
@pytest.mark.parametrize(("moment", "new"), [("fetching", 2_000), ("writing", 20_000)], ids=["fetching", "writing"])
def test_killed_sync_keeps_the_previous_listing_and_the_next_sync_runs(
    environment: dict[str, str], redis_process: Redis, novita: Novita, tmp_path: Path, moment: str, new: int
) -> None:
    run_sync(environment)
    before = read_rows(redis_process)
    novita.change(add=[{"id": f"{number:016x}", "name": f"new-{number}"} for number in range(new)])
    if moment == "fetching":
        novita.fault("list", "delay", seconds=0.5)
    process = start_sync(environment, tmp_path)
    if moment == "fetching":
        wait_until(lambda: novita.count_syncs() >= 2, "the second sync fetches")
    else:
        # Writing takes a tenth of a second.
        wait_until(lambda: len(redis_process.find("gen:*")) == 2, "it writes its generation", pause_seconds=0.002)

    process.end()

    assert read_rows(redis_process) == before
    novita.clear_faults()
    assert run_sync(environment).returncode == 3, "the killed one still has the lease"
    (lease,) = redis_process.find("lease")
    assert 0 < redis_process.client.pttl(lease) <= TTL_SECONDS * 1000
    redis_process.client.delete(lease)  # as Redis does when the lease expires
    assert run_sync(environment).returncode == 0
    assert len(read_rows(redis_process)) == 26 + new


def test_sync_that_lost_its_lease_publishes_nothing(
    environment: dict[str, str], redis_process: Redis, novita: Novita, tmp_path: Path
) -> None:
    run_sync(environment)
    ids = sorted(novita.get_truth())
    novita.change(set={ids[0]: {"name": "old"}})
    novita.fault("list", "delay", seconds=3, times=1)
    sleeper = start_sync(environment, tmp_path)
    wait_until(lambda: novita.count_syncs() == 2, "the sleeper fetches")
    sleeper.signal(signal.SIGSTOP)
    redis_process.client.delete(*redis_process.find("lease"))  # as when it expires, after 30 s
    novita.change(set={ids[0]: {"name": "new"}})
    assert run_sync(environment).returncode == 0
    newer = read_rows(redis_process)

    sleeper.signal(signal.SIGCONT)

    assert sleeper.wait() == 1
    assert "lost its lease" in sleeper.log
    assert read_rows(redis_process) == newer
    assert b'"name":"new"' in newer[ids[0].encode()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_terminated_command_releases_the_lease(
    environment: dict[str, str], redis_process: Redis, novita: Novita, tmp_path: Path, number: int
) -> None:
    novita.fault("list", "hang")
    process = start_sync(environment, tmp_path)
    wait_until(lambda: novita.count_syncs(), "it fetches")

    process.signal(number)

    assert process.wait(10) == 128 + number
    assert not redis_process.find("lease")


@pytest.mark.parametrize("trigger", ["startup", "api"])
def test_terminated_server_releases_the_lease_and_ends_soon(
    start_service: Start, redis_process: Redis, novita: Novita, trigger: str
) -> None:
    novita.fault("list", "hang")
    if trigger == "startup":
        service = start_service(WEB_WORKERS="2").wait_until_alive()
    else:
        service = start_service(
            NOVITA_SYNC_ON_STARTUP="0", NOVITA_SYNC_INTERVAL="0", WEB_WORKERS="2"
        ).wait_until_alive()
        threading.Thread(target=lambda: service.post("/api/instances/sync"), daemon=True).start()
    wait_until(lambda: redis_process.find("lease"), "a sync runs")
    wait_until(lambda: novita.count_syncs(), "it fetches")

    service.popen.terminate()

    assert service.wait(10) == 0, service.log
    assert not redis_process.find("lease")


def test_restarted_web_worker_does_not_sync_while_the_inventory_is_fresh(start_service: Start, novita: Novita) -> None:
    service = start_service(WEB_WORKERS="2").wait_until_ready()

    service.popen.send_signal(signal.SIGHUP)
    time.sleep(4)

    assert service.get("/readyz").ok
    assert novita.count_syncs() == 1


def test_no_other_command_syncs(environment: dict[str, str], novita: Novita) -> None:
    commands: list[list[Any]] = [["check"], ["migrate", "-v0"], ["help"], ["shell", "-c", "import time; time.sleep(2)"]]
    for command in commands:
        python.run([sys.executable, "manage.py", *command], cwd=ROOT, env=environment, check=True, timeout=60)

    assert novita.list_calls() == []
