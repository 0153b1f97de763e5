"""Stop-all through the API, on real processes: failures, kills, suspended processes, and double requests."""

import collections
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests import python
from tests.system.conftest import Start, StartWorker
from tests.system.processes import PATIENCE_SECONDS, ROOT, Novita, Redis, Service, wait_until

# Only the operation calls Novita.
NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0", "WEB_WORKERS": "1"}
# By then, the claim of a killed process has expired.
TAKEN_OVER_SECONDS = 60


@pytest.fixture(autouse=True)
def all_running(novita: Novita) -> None:
    """25 running instances."""
    novita.change(running=True)


def press_at_once(services: list[Service], times: int) -> list[dict[str, Any]]:
    """Send so many stop-alls to each service, all at the same moment."""
    barrier, answers = threading.Barrier(len(services) * times), []

    def press(service: Service) -> None:
        barrier.wait()
        answers.append(service.stop_all())

    threads = [threading.Thread(target=press, args=(service,)) for service in services * times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def list_targets(operation: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {target["instanceId"]: target for target in operation["targets"]}


def list_states(operation: Mapping[str, Any]) -> dict[str, int]:
    """Return how many targets are in each state."""
    return {state: count for state, count in operation["counts"].items() if count}


def count_failed(novita: Novita) -> int:
    return novita.count_fired("status")


# --- The outcome


def test_all_stops_are_requested_and_then_verified(
    start_service: Start, start_worker: StartWorker, novita: Novita
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    start_worker()

    ordered = service.stop_all(reason="over budget")

    assert ordered["success"] is True
    assert ordered["count"] == 25
    assert ordered["total"] == 25
    assert {result["state"] for result in ordered["results"]} == {"requested"}
    operation = service.wait_until_finished(ordered)
    assert operation["success"] is True
    assert operation["result"] == "All 25 are stopped."
    assert novita.are_all("exited")
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())


def test_stop_that_novita_accepts_and_ignores_is_never_confirmed(
    start_service: Start, start_worker: StartWorker, novita: Novita
) -> None:
    stubborn = min(novita.get_truth())
    novita.fault("stop", "ignore", instanceId=stubborn)
    service = start_service(**NO_SYNC, NOVITA_STOP_DEADLINE="12").wait_until_alive()
    start_worker()

    ordered = service.stop_all()

    novita.change(set={stubborn: {"status": "stopping"}})
    wait_until(lambda: list_targets(service.get_operation(ordered))[stubborn]["status"] == "stopping", "it is seen so")
    novita.change(set={stubborn: {"status": "running"}})
    seen = set()
    while not (operation := service.get_operation(ordered))["finishedAt"]:
        seen.add(list_targets(operation)[stubborn]["state"])
        time.sleep(0.1)
    target = list_targets(operation)[stubborn]
    assert target["state"] == "stillRunning"
    assert target["status"] == "running"
    assert target["confirmedAt"] is None
    assert "confirmed" not in seen
    assert operation["success"] is False
    assert operation["result"] == "1 of 25 is still running."
    assert list_states(operation) == {"confirmed": 24, "stillRunning": 1}


def test_failed_stops_are_requested_again_until_all_are_verified(
    start_service: Start, start_worker: StartWorker, novita: Novita
) -> None:
    novita.fault("stop", "status", status=500, every=2, times=12)
    service = start_service(**NO_SYNC).wait_until_alive()
    start_worker()

    ordered = service.stop_all()

    failed = [result for result in ordered["results"] if not result["success"]]
    assert ordered["success"] is False
    assert ordered["count"] == 13
    assert len(failed) == 12
    assert all(result["error"] for result in failed)
    operation = service.wait_until_finished(ordered)
    assert operation["success"] is True
    assert list_states(operation) == {"confirmed": 25}
    assert len(novita.list_stops()) == 25 + count_failed(novita)


@pytest.mark.parametrize("kind", ["lost", "refuse_but_do"])
def test_misleading_answer_causes_no_second_request(
    start_service: Start, start_worker: StartWorker, novita: Novita, kind: str
) -> None:
    novita.fault("stop", kind, every=2)
    service = start_service(**NO_SYNC).wait_until_alive()
    start_worker()

    ordered = service.stop_all()

    assert ordered["success"] is True
    assert ordered["count"] == 25
    assert service.wait_until_finished(ordered)["success"]
    assert max(collections.Counter(novita.list_stops()).values()) == 1


def test_instance_that_runs_again_after_another_stop_is_requested(
    start_service: Start, start_worker: StartWorker, novita: Novita
) -> None:
    id_ = min(novita.get_truth())
    novita.change(set={id_: {"status": "toStop"}})
    service = start_service(**NO_SYNC).wait_until_alive()
    ordered = service.stop_all(ids=[id_])
    assert novita.list_stops() == []

    novita.change(set={id_: {"status": "running"}})
    start_worker()

    assert service.wait_until_finished(ordered)["success"]
    assert novita.list_stops() == [id_]


def test_instance_started_meanwhile_is_stopped_too(
    start_service: Start, start_worker: StartWorker, novita: Novita
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    ordered = service.stop_all()
    novita.change(add=[{"id": "0123456789abcdef", "name": "latecomer"}])
    start_worker()

    operation = service.wait_until_finished(ordered)

    assert operation["success"] is True
    assert operation["result"] == "All 26 are stopped."
    assert novita.are_all("exited")


# --- Slow, or silent


def test_long_stop_is_answered_in_time_and_continues_without_a_worker(start_service: Start, novita: Novita) -> None:
    """The answer comes after 4 s, when half of the stops are requested."""
    novita.fault("stop", "delay", seconds=1)
    service = start_service(
        **NO_SYNC, NOVITA_CONCURRENCY="3", DJANGO_SETTINGS_MODULE="tests.system.brief_settings"
    ).wait_until_alive()

    answer = service.post("/api/instances/stop-all", json={})

    ordered = answer.json()
    assert answer.status_code == 202
    assert answer.elapsed.total_seconds() < 7
    assert ordered["total"] == 25
    assert ordered["success"] is True
    assert {result["state"] for result in ordered["results"]} == {"requested", "pending"}
    wait_until(lambda: not service.get_operation(ordered)["counts"]["pending"], "all are asked")
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())
    assert novita.count_most_at_once() == 3


def test_stop_uses_the_inventory_when_novita_lists_nothing(start_service: Start, novita: Novita) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0").wait_until_ready()
    novita.fault("list", "hang")

    answer = service.post("/api/instances/stop-all", json={})

    assert answer.elapsed.total_seconds() < 20
    assert answer.status_code == 202
    assert answer.json()["source"] == "cache"
    assert answer.json()["success"] is False
    assert "from the cached inventory" in " ".join(answer.json()["warnings"])
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())


def test_stop_is_answered_in_time_when_novita_is_silent(start_service: Start, novita: Novita) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0").wait_until_ready()
    novita.fault("any", "hang")

    answer = service.post("/api/instances/stop-all", json={})

    assert answer.elapsed.total_seconds() < 20
    assert answer.status_code == 202
    assert {result["state"] for result in answer.json()["results"]} == {"pending"}


def test_stop_without_listing_and_inventory_never_reports_that_nothing_runs(
    start_service: Start, novita: Novita
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    novita.fault("list", "hang")
    barrier, answers = threading.Barrier(2), []

    def press() -> None:
        barrier.wait()
        answers.append(service.post("/api/instances/stop-all", json={}))

    threads = [threading.Thread(target=press) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for answer in answers:
        assert answer.json()["success"] is False, answer.text
        assert "Nothing is running" not in answer.text
        assert answer.elapsed.total_seconds() < 20


# --- At once


def test_two_simultaneous_stops_get_one_operation(start_service: Start, novita: Novita) -> None:
    services = [start_service(**NO_SYNC), start_service(**NO_SYNC)]
    for service in services:
        service.wait_until_alive()

    answers = press_at_once(services, times=3)

    assert len({answer["operationId"] for answer in answers}) == 1
    assert {(answer["count"], answer["total"]) for answer in answers} == {(25, 25)}, "each sees the whole"
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())
    assert services[0].get("/api/operations").json()["total"] == 1


def test_simultaneous_command_and_api_stop_make_one_operation(
    start_service: Start, environment: dict[str, str], novita: Novita
) -> None:
    novita.fault("stop", "delay", seconds=0.3)
    service = start_service(**NO_SYNC, NOVITA_CONCURRENCY="2").wait_until_alive()
    command = python.start([sys.executable, "manage.py", "stop_all", "--yes"], cwd=ROOT, env=environment)
    wait_until(lambda: novita.list_stops(), "the command asks")

    ordered = service.stop_all()

    assert command.wait(60) == 0
    assert service.wait_until_finished(ordered)["success"]
    assert service.get("/api/operations").json()["total"] == 1
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())


# --- Deaths


@pytest.mark.usefixtures("impatient")
def test_worker_continues_for_a_killed_web_process(
    start_service: Start, start_worker: StartWorker, novita: Novita
) -> None:
    novita.fault("stop", "delay", seconds=0.5)
    victim = start_service(**NO_SYNC, NOVITA_CONCURRENCY="2").wait_until_alive()
    start_worker()
    threading.Thread(target=lambda: _forget_answer(victim.stop_all), daemon=True).start()
    wait_until(lambda: len(novita.list_stops()) >= 6, "it is in the middle")

    victim.signal(signal.SIGKILL)

    service = start_service(**NO_SYNC).wait_until_alive()
    (operation,) = service.get("/api/operations").json()["operations"]
    ordered = {"operationUrl": f"/api/operations/{operation['id']}"}
    operation = service.wait_until_finished(ordered, TAKEN_OVER_SECONDS)
    assert operation["success"] is True
    assert operation["result"] == "All 25 are stopped."
    assert sorted(novita.list_stops()) == sorted(novita.get_truth()), "each was asked once"


@pytest.mark.usefixtures("impatient")
def test_worker_continues_for_a_killed_worker(start_service: Start, start_worker: StartWorker, novita: Novita) -> None:
    novita.fault("stop", "status", status=500, every=2, times=12)
    service = start_service(**NO_SYNC).wait_until_alive()
    ordered = service.stop_all()
    asked = len(novita.list_stops())
    novita.fault("stop", "delay", seconds=1)
    victim = start_worker(NOVITA_CONCURRENCY="2")
    wait_until(lambda: len(novita.list_stops()) >= asked + 4, "the worker asks again")

    victim.signal(signal.SIGKILL)
    start_worker()

    operation = service.wait_until_finished(ordered, TAKEN_OVER_SECONDS)
    assert operation["success"] is True
    assert list_states(operation) == {"confirmed": 25}
    assert len(novita.list_stops()) == 25 + count_failed(novita), "what was stopped was asked again"


@pytest.mark.usefixtures("impatient")
def test_process_suspended_while_another_finished_changes_nothing(
    start_service: Start, start_worker: StartWorker, novita: Novita
) -> None:
    novita.fault("stop", "delay", seconds=1)
    sleeper = start_service(**NO_SYNC, NOVITA_CONCURRENCY="4").wait_until_alive()
    answered = threading.Thread(target=lambda: _forget_answer(sleeper.stop_all), daemon=True)
    answered.start()
    wait_until(lambda: len(novita.list_stops()) >= 6, "it is in the middle")
    sleeper.signal(signal.SIGSTOP)
    service = start_service(**NO_SYNC).wait_until_alive()
    start_worker()
    (operation,) = service.get("/api/operations").json()["operations"]
    ordered = {"operationUrl": f"/api/operations/{operation['id']}"}
    before = service.wait_until_finished(ordered, TAKEN_OVER_SECONDS)

    sleeper.signal(signal.SIGCONT)
    answered.join(PATIENCE_SECONDS)
    assert not answered.is_alive(), "it never answered"

    assert service.get_operation(ordered) == before
    assert list_states(before) == {"confirmed": 25}
    # The other process may repeat the four requests that were in flight at the suspension, and no other.
    stops = novita.list_stops()
    assert set(stops) == set(novita.get_truth()) and len(stops) <= 25 + 4


def _forget_answer(call: Callable[[], object]) -> None:
    """Make a call whose server dies meanwhile."""
    try:
        call()
    except OSError:
        return


# --- No worker, no Redis, no database


def test_stop_without_a_worker_warns_and_a_second_stop_verifies(start_service: Start, novita: Novita) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    assert service.get_worker() == "down"

    ordered = service.stop_all()

    assert ordered["count"] == 25
    assert "No worker is running" in " ".join(ordered["warnings"])
    wait_until(lambda: novita.are_all("exited"), "all are stopped")
    assert service.get_operation(ordered)["state"] == "verifying"
    again = service.stop_all()
    assert again["operationId"] == ordered["operationId"]
    assert service.get_operation(ordered)["result"] == "All 25 are stopped."
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_stop_needs_no_redis(start_service: Start, redis_process: Redis, novita: Novita, how: str) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0").wait_until_ready()
    redis_process.signal(signal.SIGKILL if how == "stopped" else signal.SIGSTOP)

    answer = service.post("/api/instances/stop-all", json={})

    assert answer.status_code == 200
    assert answer.json()["count"] == 25
    assert answer.elapsed.total_seconds() < 8
    assert "stop_all" in " ".join(answer.json()["warnings"])
    wait_until(lambda: novita.are_all("exited"), "all are stopped")
    assert service.stop_all()["operationId"] == answer.json()["operationId"]
    assert service.get_operation(answer.json())["result"] == "All 25 are stopped."


def test_stop_waits_for_a_locked_database(
    start_service: Start, start_worker: StartWorker, environment: dict[str, str], novita: Novita
) -> None:
    novita.fault("stop", "delay", seconds=0.3)
    service = start_service(**NO_SYNC, NOVITA_CONCURRENCY="2").wait_until_alive()
    answers: list[dict[str, Any]] = []
    person = threading.Thread(target=lambda: answers.append(service.stop_all()))
    person.start()
    wait_until(lambda: len(novita.list_stops()) >= 4, "it is in the middle")

    locker = sqlite3.connect(environment["DATABASE_URL"].removeprefix("sqlite:///"), isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    time.sleep(3)
    locker.execute("ROLLBACK")
    locker.close()

    person.join()
    assert answers[0]["count"] == 25, "it stopped asking"
    start_worker()
    operation = service.wait_until_finished(answers[0])
    assert operation["success"] is True
    assert list_states(operation) == {"confirmed": 25}
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())
