"""The worker: its state in /health, its end, and its independence of Redis."""

import signal
import subprocess
import sys
import time

import pytest

from tests import python
from tests.system.conftest import Start, StartWorker
from tests.system.processes import ROOT, Novita, Redis, wait_until

NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0", "WEB_WORKERS": "1"}


@pytest.fixture(autouse=True)
def all_running(novita: Novita) -> None:
    """25 running instances."""
    novita.change(running=True)


def check_worker(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "check_worker"]
    return python.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)


def test_health_and_check_worker_show_whether_a_worker_works(
    start_service: Start, start_worker: StartWorker, environment: dict[str, str], redis_process: Redis
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    assert service.get_worker() == "down"

    worker = start_worker()
    wait_until(lambda: service.get_worker() == "up", "it is up", 15)
    up = check_worker(environment)

    worker.signal(signal.SIGKILL)
    wait_until(lambda: service.get_worker() == "down", "it is down", 20)
    down = check_worker(environment)
    # It accepts connections and answers nothing.
    redis_process.signal(signal.SIGSTOP)
    silent = check_worker(environment)

    assert up.returncode == 0
    assert up.stdout.startswith("A worker runs on ")
    assert down.returncode == 1
    assert down.stderr.startswith("CommandError: No worker on ")
    assert silent.returncode == 1
    assert silent.stderr.startswith("CommandError: Redis did not answer in time.")


def test_worker_ends_soon_while_novita_hangs_and_another_takes_the_operation(
    start_service: Start, start_worker: StartWorker, novita: Novita
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    ordered = service.stop_all()
    listings = novita.count_syncs()
    novita.fault("any", "hang")
    worker = start_worker()
    wait_until(lambda: novita.count_syncs() > listings, "it looks")

    worker.popen.send_signal(signal.SIGTERM)

    assert worker.wait(10) == 0, worker.log
    assert "Traceback" not in worker.log
    novita.clear_faults()
    start_worker()
    # The worker has released its claim, so no process must wait until the claim expires.
    assert service.wait_until_finished(ordered, 12)["success"]


def test_two_workers_request_nothing_twice(start_service: Start, start_worker: StartWorker, novita: Novita) -> None:
    novita.fault("stop", "status", status=500, every=2, times=12)
    novita.fault("stop", "delay", seconds=0.4)
    for _ in range(2):
        start_worker(NOVITA_CONCURRENCY="2")
    service = start_service(**NO_SYNC).wait_until_alive()
    wait_until(lambda: service.get_worker() == "up", "one works")

    operation = service.wait_until_finished(service.stop_all())

    assert operation["success"]
    assert len(novita.list_stops()) == 25 + novita.count_fired("status")


def test_worker_started_without_redis_works_before_and_after_redis_comes(
    start_service: Start, start_worker: StartWorker, redis_process: Redis
) -> None:
    Redis.end(redis_process)
    service = start_service(**NO_SYNC).wait_until_alive()
    ordered = service.stop_all()
    worker = start_worker()
    time.sleep(5)
    assert worker.popen.poll() is None, worker.log

    # The worker needs only the database.
    assert service.wait_until_finished(ordered, 60)["success"]

    redis_process.start()

    wait_until(lambda: service.get_worker() == "up", "it is seen", 5)


def test_worker_continues_when_redis_comes_back_empty(
    start_service: Start, start_worker: StartWorker, redis_process: Redis
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    worker = start_worker()
    wait_until(lambda: service.get_worker() == "up", "it is up")

    Redis.end(redis_process)
    time.sleep(3)
    redis_process.start()

    assert worker.popen.poll() is None, worker.log
    assert service.wait_until_finished(service.stop_all(), 60)["success"], worker.log
    assert service.get_worker() == "up"


def test_worker_continues_after_redis_was_silent(
    start_service: Start, start_worker: StartWorker, redis_process: Redis
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    worker = start_worker()
    wait_until(lambda: service.get_worker() == "up", "it is up")

    redis_process.signal(signal.SIGSTOP)
    time.sleep(4)
    redis_process.signal(signal.SIGCONT)

    assert service.wait_until_finished(service.stop_all(), 60)["success"], worker.log


def test_worker_leaves_no_file_behind(start_worker: StartWorker, redis_process: Redis) -> None:
    before = {path.name for path in ROOT.iterdir()}
    start_worker()
    wait_until(lambda: redis_process.find("worker:*"), "it works")

    assert {path.name for path in ROOT.iterdir()} <= before


def test_invalid_setting_ends_the_worker_with_its_name_and_no_traceback(start_worker: StartWorker) -> None:
    worker = start_worker(NOVITA_CONCURRENCY="many")

    assert worker.wait(30) != 0
    assert worker.log.startswith("NOVITA_CONCURRENCY: ")
    assert "Traceback" not in worker.log
