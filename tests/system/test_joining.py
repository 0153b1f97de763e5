"""A second stop of all during the first, on real processes: its answer includes the instances started since."""

import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from tests import python
from tests.system.conftest import Start, StartWorker
from tests.system.processes import ROOT, Novita, Service, wait_until

NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0", "WEB_WORKERS": "1"}
LATE = "0123456789abcdef"
STOP_ALL = [sys.executable, "manage.py", "stop_all", "--yes"]


@pytest.fixture
def stubborn(novita: Novita) -> str:
    """The only running instance of 25. Novita accepts its stops and never carries them out."""
    id_ = min(novita.get_truth())
    novita.change(set={id_: {"status": "running"}}, remove=[other for other in novita.get_truth() if other != id_])
    novita.fault("stop", "ignore", instanceId=id_)
    return id_


def start_late(novita: Novita) -> None:
    novita.change(add=[{"id": LATE, "name": "late", "status": "running"}])


def run_stop_all(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return python.run(
        [*STOP_ALL, *options],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def press_at_once(services: list[Service]) -> list[dict[str, Any]]:
    barrier, answers = threading.Barrier(len(services)), []

    def press(service: Service) -> None:
        barrier.wait()
        answers.append(service.stop_all())

    threads = [threading.Thread(target=press, args=(service,)) for service in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_answer_of_a_second_stop_includes_instances_started_since(
    start_service: Start, start_worker: StartWorker, novita: Novita, stubborn: str
) -> None:
    service = start_service(**NO_SYNC, NOVITA_STOP_DEADLINE="6").wait_until_alive()
    start_worker()
    first = service.stop_all()
    start_late(novita)

    second = service.stop_all()

    assert LATE in novita.list_stops(), "the answer came before the request"
    assert second["operationId"] == first["operationId"]
    assert second["count"] == 2
    assert second["total"] == 2
    operation = service.wait_until_finished(second)
    assert operation["success"] is False
    assert operation["result"] == "1 of 2 is still running."
    states = {target["instanceId"]: target["state"] for target in operation["targets"]}
    assert states == {stubborn: "stillRunning", LATE: "confirmed"}
    assert novita.list_stops().count(LATE) == 1


def test_command_that_joins_requests_instances_started_since_and_keeps_its_deadline(
    start_service: Start, environment: dict[str, str], novita: Novita, stubborn: str
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    first = service.stop_all()
    start_late(novita)
    began = time.monotonic()

    done = run_stop_all(environment, "--timeout", "4")

    assert 4 <= time.monotonic() - began < 30
    assert done.returncode == 1, done.stdout
    assert "Joined the operation" in done.stderr
    assert re.search(rf"\({stubborn}\): Stop requested; not yet stopped\.$", done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 of 2 verified as stopped after 4 s. The operation goes on until ")
    assert novita.list_stops().count(LATE) == 1
    shown = service.get_operation(first)
    assert shown["state"] == "verifying"
    assert shown["counts"]["confirmed"] == 1


def test_command_with_a_longer_deadline_than_the_running_operation_keeps_it(
    start_service: Start, environment: dict[str, str], novita: Novita, stubborn: str
) -> None:
    service = start_service(**NO_SYNC, NOVITA_STOP_DEADLINE="30").wait_until_alive()
    first = service.stop_all()
    command = python.start([*STOP_ALL, "--timeout", "600"], cwd=ROOT, env=environment)

    try:
        wait_until(lambda: service.get_operation(first)["deadlineAt"] > _add_seconds(first, 500), "it is moved")
    finally:
        command.kill()
        command.wait()

    assert service.get("/api/operations").json()["total"] == 1


def _add_seconds(ordered: dict[str, Any], seconds: int) -> str:
    begun = time.mktime(time.strptime(ordered["timestamp"], "%Y-%m-%dT%H:%M:%SZ"))
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.localtime(begun + seconds))


def test_overdue_operation_without_a_worker_is_ended_and_running_instances_are_requested(
    start_service: Start, novita: Novita, stubborn: str
) -> None:
    service = start_service(**NO_SYNC, NOVITA_STOP_DEADLINE="1").wait_until_alive()
    first = service.stop_all()
    start_late(novita)
    time.sleep(1.5)  # Past the deadline; no process concludes the operation.

    second = service.stop_all()

    assert second["operationId"] != first["operationId"]
    assert second["count"] == 2
    assert second["total"] == 2
    assert sorted(novita.list_stops()) == sorted([stubborn, stubborn, LATE])
    shown = service.get_operation(first)
    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert shown["result"].startswith("1 of 1 is still running.")


def test_simultaneous_joins_request_each_instance_once(
    start_service: Start, start_worker: StartWorker, novita: Novita, stubborn: str
) -> None:
    services = [start_service(**NO_SYNC), start_service(**NO_SYNC)]
    for service in services:
        service.wait_until_alive()
    start_worker()
    first = services[0].stop_all()
    novita.change(add=[{"id": f"{number:016x}", "name": f"more-{number}", "status": "running"} for number in range(20)])

    answers = press_at_once(services * 2)

    assert {answer["operationId"] for answer in answers} == {first["operationId"]}
    assert {(answer["count"], answer["total"]) for answer in answers} == {(21, 21)}
    # The first one is requested again when it has not stopped after a while.
    others = sorted(id_ for id_ in novita.get_truth() if id_ != stubborn)
    assert sorted(id_ for id_ in novita.list_stops() if id_ != stubborn) == others


@pytest.mark.usefixtures("impatient")
def test_stop_does_not_wait_for_a_sleeping_process_that_holds_the_claim(start_service: Start, novita: Novita) -> None:
    novita.change(running=True)
    novita.fault("stop", "delay", seconds=1)
    sleeper = start_service(**NO_SYNC, NOVITA_CONCURRENCY="2").wait_until_alive()
    service = start_service(**NO_SYNC).wait_until_alive()
    threading.Thread(target=lambda: _forget_answer(sleeper), daemon=True).start()
    wait_until(lambda: len(novita.list_stops()) >= 4, "it is in the middle")
    sleeper.signal(signal.SIGSTOP)
    novita.clear_faults()
    start_late(novita)
    answers: list[dict[str, Any]] = []
    person = threading.Thread(target=lambda: answers.append(service.stop_all()))
    began = time.monotonic()
    person.start()

    wait_until(lambda: LATE in novita.list_stops(), "what was started since is requested")

    assert time.monotonic() - began < 10, "it waited for the claim to end"
    person.join()
    assert time.monotonic() - began < 20
    assert answers[0]["count"] == 26, "the rest is taken over within the answer"
    assert answers[0]["total"] == 26, "the rest is taken over within the answer"
    sleeper.signal(signal.SIGCONT)
    assert sorted(novita.list_stops()) == sorted(novita.get_truth()), "each was requested once"


def _forget_answer(service: Service) -> None:
    """Send a stop to a suspended service."""
    try:
        service.stop_all()
    except OSError:
        return
