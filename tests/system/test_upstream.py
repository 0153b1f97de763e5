"""Novita slow, silent or broken, and a large account, over real HTTP."""

import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Novita, Service, wait_until

LIST_FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "soon"}},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 200, "body": "<html>"},
    {"kind": "status", "status": 200, "body": None},
    {"kind": "status", "status": 302, "headers": {"Location": "http://127.0.0.1:1/"}, "body": ""},
    {"kind": "reset"},
    {"kind": "cut"},
    {"kind": "hang"},
    {"kind": "drip", "seconds": 0.1, "part": "body"},
    {"kind": "drip", "seconds": 0.1, "part": "head"},
    {"kind": "gzip_bomb", "megabytes": 200},
    {"kind": "null"},
    {"kind": "rows", "rows": [{"name": "no id"}]},
]


@pytest.fixture
def service(start_service: Start, novita: Novita) -> Service:
    """A service with the inventory of an idle account, short limits, and only the syncs that the test requests."""
    novita.change(running=True)
    return start_service(
        NOVITA_SYNC_INTERVAL="0", NOVITA_READ_TIMEOUT="1", NOVITA_CONNECT_TIMEOUT="0.5", NOVITA_SYNC_DEADLINE="12"
    ).wait_until_ready()


def test_failed_listing_keeps_the_inventory(service: Service, novita: Novita) -> None:
    before = service.get("/api/instances").content
    for fault in LIST_FAULTS:
        novita.fault("list", **fault)

        began = time.monotonic()
        answer = service.post("/api/instances/sync")

        assert answer.json()["code"].startswith("NOVITA_"), fault
        assert time.monotonic() - began < 15, fault
        assert service.get("/api/instances").content == before, fault
        health = service.get("/health").json()
        assert health["status"] == "degraded", fault
        assert health["sync"]["lastError"], fault
        novita.clear_faults()

    assert service.post("/api/instances/sync").ok
    health = service.get("/health").json()
    assert health["status"] == "healthy", health["warnings"]
    assert "FAKE-SECRET" not in service.log


def test_instance_missing_in_a_listing_is_removed_only_when_novita_reports_it_gone(
    service: Service, novita: Novita
) -> None:
    ids = sorted(novita.get_truth())
    novita.change(remove=ids[:2])
    novita.fault("list", "hide", fraction=0.9)

    answer = service.post("/api/instances/sync").json()

    assert answer["deleted"] == 2
    assert answer["unconfirmed"] == 0
    assert service.list_ids() == set(ids[2:])
    novita.fault("get", "status", status=500)
    novita.change(remove=ids[2:4])
    assert service.post("/api/instances/sync").json()["deleted"] == 0
    assert service.list_ids() == set(ids[2:])


def test_simultaneous_syncs_are_one(service: Service, novita: Novita) -> None:
    novita.fault("list", "delay", seconds=0.8)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: service.post("/api/instances/sync"), range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert all(answer.headers["Retry-After"] for answer in answers if answer.status_code == 409)


def test_health_answers_while_all_calls_to_novita_are_slow(start_service: Start, novita: Novita) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0", WEB_WORKERS="1").wait_until_ready()
    running = [id_ for id_, row in novita.get_truth().items() if row["status"] == "running"]
    novita.fault("get", "delay", seconds=3)
    novita.fault("start", "delay", seconds=3)
    callers = [
        threading.Thread(target=lambda id_=id_: service.post(f"/api/instances/{id_}/start"))
        for id_ in (running * 2)[:16]
    ]
    for caller in callers:
        caller.start()
    time.sleep(0.3)

    seconds = [service.get("/health").elapsed.total_seconds() for _ in range(30)]

    assert statistics.median(seconds) < 0.5
    for caller in callers:
        caller.join()


def test_inventory_follows_an_action_until_the_instance_is_at_rest(start_service: Start, novita: Novita) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="3600").wait_until_ready()
    running = next(id_ for id_, row in novita.get_truth().items() if row["status"] == "running")

    answer = service.post(f"/api/instances/{running}/stop")

    assert answer.status_code == 202
    assert answer.json()["status"] == "toStop"
    assert service.get(f"/api/instances/{running}").json()["group"] == "stopping"
    wait_until(lambda: service.get(f"/api/instances/{running}").json()["status"] == "exited", "it is seen stopped")
    assert novita.count_syncs() == 1


def test_ignored_stop_is_not_shown_as_stopped(start_service: Start, novita: Novita) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="3600").wait_until_ready()
    running = next(id_ for id_, row in novita.get_truth().items() if row["status"] == "running")
    novita.fault("stop", "ignore")

    assert service.post(f"/api/instances/{running}/stop").status_code == 202

    seen = set()
    for _ in range(60):
        seen.add(service.get(f"/api/instances/{running}").json()["status"])
        if "running" in seen:
            break
        time.sleep(0.2)
    assert seen == {"toStop", "running"}


def test_lost_answer_to_a_stop_is_resolved_by_reading(service: Service, novita: Novita) -> None:
    running = next(id_ for id_, row in novita.get_truth().items() if row["status"] == "running")
    novita.fault("stop", "lost")

    answer = service.post(f"/api/instances/{running}/stop")

    assert answer.status_code == 202
    assert answer.json()["status"] in {"toStop", "stopping", "exited"}
    assert novita.count_calls("stop") == 1


def test_ten_thousand_instances_are_synced_listed_and_searched(
    service: Service, environment: dict[str, str], novita: Novita
) -> None:
    novita.change(add=[{"id": f"{number:016x}", "name": f"bulk-{number:05}"} for number in range(10_000)])

    done = python.run(
        [sys.executable, "manage.py", "sync_instances"], cwd=ROOT, env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert "10,025 instances: 10,000 new" in done.stdout, done.stderr
    assert len(service.list_ids()) == 10_025
    found = service.get("/api/instances?search=bulk-0999&ordering=name&page=1&pageSize=5").json()
    assert found["total"] == 10
    assert [one["name"] for one in found["instances"]][:2] == ["bulk-09990", "bulk-09991"]
    page = service.get("/api/instances", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert len(page.content) < 1_000_000
