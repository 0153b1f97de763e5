"""The requests of an operation through the API: dry runs, failures of Novita, and an outage of Redis."""

import json
import threading
import time
from typing import Any

import pytest
import requests
from django.db import connections
from django.test import Client
from fakeredis import FakeServer

from instances.inventory import heartbeat
from instances.models import AuditEntry, Operation, Target
from instances.operations import joining
from tests.conftest import ApiClient
from tests.novita_answers import INVALID_STATE_CHANGE, NovitaAnswers, make_row
from tests.operation_steps import (
    OPERATIONS,
    STOP_ALL,
    cancel,
    move_on,
    order,
    protect,
    show,
    show_states,
    show_target,
    sync,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


# --- Dry run


def test_dry_run_reports_and_changes_nothing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="train"), make_row("b"), make_row("c", status="exited"))
    sync(client, account)
    protect(client, "b")
    entries = AuditEntry.objects.count()
    heartbeat.note_worker()

    body = order(client, dryRun=True)

    assert body.pop("timestamp")[-1] == "Z"
    assert body == {
        "success": True,
        "message": "Would stop 1 running instance",
        "count": 1,
        "total": 1,
        "results": [
            {
                "instanceId": "a",
                "name": "train",
                "success": False,
                "status": "running",
                "state": "pending",
                "message": "Would be stopped.",
                "error": None,
            }
        ],
        "skipped": [{"instanceId": "b", "name": "name-b", "reason": "Protected: the demo runs on it"}],
        "warnings": [
            "Data on local disks may be lost; Novita keeps it for up to 7 days.",
            "A stopped instance may not start again: its GPU can be taken meanwhile.",
        ],
        "savesPerHour": None,
        "costsPerHour": None,
        "unknownPrices": 1,
        "prepaid": 0,
        "operationId": None,
        "operationUrl": None,
        "source": "novita",
    }
    assert account.calls == ["list"]
    assert Operation.objects.count() == 0
    assert Target.objects.count() == 0
    assert AuditEntry.objects.count() == entries
    assert client.get("/api/instances/a").json()["status"] == "running"


def test_dry_run_warns_of_prepaid_instances(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", name="train", billingMode="monthly"), make_row("b"))

    warnings = order(client, dryRun=True)["warnings"]

    assert "Prepaid by the month: stopping saves nothing for train." in warnings


def test_dry_run_warns_without_a_worker(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"))

    assert any(warning.startswith("No worker is running") for warning in order(client, dryRun=True)["warnings"])


def test_dry_run_of_nothing_warns_of_no_loss(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"))
    heartbeat.note_worker()

    body = order(client, dryRun=True)

    assert body["message"] == "Nothing is running"
    assert body["results"] == []
    assert body["warnings"] == []


def test_dry_run_counts_would_be_requests(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"), make_row("b"))

    assert order(client, dryRun=True, ids=["a", "b"])["message"] == "Would stop 1 instance"


# --- Novita can't be listed


def test_inventory_names_the_targets_without_a_listing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b", status="exited"))
    sync(client, account)
    account.answers("list", 500)

    body = order(client)

    assert body["source"] == "cache"
    assert account.orders == ["stop a"]
    assert show_states(client, body) == {"a": "requested"}
    assert any("from the cached inventory" in warning for warning in body["warnings"])
    assert show(client, body)["source"] == "cache"


def test_inventory_alone_confirms_nothing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    sync(client, account)
    account.change("a", "running")
    account.answers("list", 500)
    account.answers("read a", 500)

    everything, one = order(client), order(client, ids=["a"])

    assert show(client, everything)["success"] is None
    assert show(client, everything)["state"] == "verifying"
    assert show_states(client, one) == {"a": "requested"}
    account.answers("read a", None)
    move_on(one)
    assert account.orders == ["stop a"]
    account.answers("list", None)
    account.settle()
    move_on(everything)
    assert show(client, everything)["success"] is True


def test_nothing_is_requested_without_listing_and_inventory(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("list", 500)

    answer = client.post(STOP_ALL)

    assert answer.status_code == 502
    assert answer.json()["code"] == "NOVITA_UNAVAILABLE"
    assert account.orders == []
    (shown,) = client.get(OPERATIONS).json()["operations"]
    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert shown["result"] == "Nothing was done. Novita returned an error (HTTP 500)."
    assert AuditEntry.objects.get(action="operation.stop").outcome == "NOVITA_UNAVAILABLE"
    account.answers("list", None)
    assert order(client)["count"] == 1


def test_joining_an_operation_that_never_began_begins_a_new_one_and_returns_the_error(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = novita.holds(make_row("a"))
    joined: list[Any] = []
    is_joining, is_joinable = threading.Event(), joining.is_joinable
    monkeypatch.setattr(joining, "is_joinable", lambda *args: (is_joining.set(), is_joinable(*args))[1])

    def join_and_fail() -> int:
        thread = threading.Thread(target=lambda: (joined.append(ApiClient().post(STOP_ALL)), connections.close_all()))
        thread.start()
        assert is_joining.wait(20)
        threads.append(thread)
        return 401

    threads: list[threading.Thread] = []
    account.answers("list", join_and_fail, 401)

    client.post(STOP_ALL)
    began = time.monotonic()
    threads[0].join()

    assert time.monotonic() - began < 10
    assert joined[0].status_code == 502
    assert joined[0].json()["code"] == "NOVITA_REJECTED_KEY"
    assert joined[0].json()["message"] == "Novita's edge refuses us (HTTP 401)."
    assert account.calls.count("list") == 2


# --- Requests


def test_each_instance_has_its_own_result(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    account.answers("stop b", 500)

    answer = client.post(STOP_ALL)

    body = answer.json()
    assert answer.status_code == 200
    assert body["success"] is False
    assert body["count"] == 1
    assert body["total"] == 2
    results = {one["instanceId"]: (one["success"], one["state"], one["error"]) for one in body["results"]}
    assert results["a"] == (True, "requested", None)
    assert results["b"] == (False, "failed", "Novita returned an error (HTTP 500). The instance is running.")


@pytest.mark.parametrize("headers", [{}, pytest.param({"Retry-After": "1"}, marks=pytest.mark.thorough)])
def test_rate_limit_is_waited_out_and_counts_as_one_attempt(
    headers: dict[str, str], client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", (429, headers, ""), None)
    began = time.monotonic()

    body = order(client)

    assert time.monotonic() - began >= (1 if headers else 0.5)
    assert account.orders == ["stop a", "stop a"]
    assert show_target(client, body)["attempts"] == 1
    assert show_states(client, body) == {"a": "requested"}


def test_retry_after_of_an_hour_is_not_waited_out(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", (429, {"Retry-After": "3600"}, ""), None)
    began = time.monotonic()

    body = order(client)

    assert time.monotonic() - began < 10
    assert show_states(client, body) == {"a": "failed"}
    assert show_target(client, body)["error"] == "Novita limits the rate of our requests."
    move_on(body)
    assert show_states(client, body) == {"a": "requested"}


@pytest.mark.parametrize("lost", [requests.ReadTimeout("silence"), 502, (400, {}, json.dumps(INVALID_STATE_CHANGE))])
def test_lost_answer_is_resolved_by_a_read(lost: Any, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    def take_and_lose() -> Any:
        account.change("a", "stopping")
        return lost

    account.answers("stop a", take_and_lose)

    body = order(client)

    target = show_target(client, body)
    assert target["state"] == "requested"
    assert target["status"] == "stopping"
    assert target["attempts"] == 1
    assert account.orders == ["stop a"]


def test_rejected_key_is_not_tried_again(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", 401)

    body = order(client)

    shown = show(client, body)
    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert shown["counts"]["failed"] == 1
    assert account.orders == ["stop a"]


def test_key_rejected_for_every_request_ends_the_operation_at_once(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    sync(client, account)
    account.answers("list", 401)
    account.answers("stop a", 401)

    shown = show(client, order(client))

    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert account.orders == ["stop a"]


def test_slow_answer_names_the_pending_targets(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.operations.orders.ANSWER_SECONDS", 0.5)
    account = novita.holds(make_row("a"))
    go_on = threading.Event()
    account.answers("stop a", lambda: go_on.wait(20) and None)

    answer = client.post(STOP_ALL)

    assert answer.status_code == 202
    assert answer.json()["results"][0]["state"] == "pending"
    assert answer.json()["count"] == 0
    go_on.set()
    deadline = time.monotonic() + 5
    while show(client, answer.json())["state"] == "requesting" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert show_states(client, answer.json()) == {"a": "requested"}
    while any(thread.name == "operation" for thread in threading.enumerate()):
        time.sleep(0.05)


# --- Redis away


def test_stop_all_needs_no_redis(client: Client, novita: NovitaAnswers, redis_server: FakeServer) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    redis_server.connected = False

    body = order(client)

    assert account.orders == ["stop a", "stop b"]
    assert body["count"] == 2
    assert any(warning.startswith("Redis can't be reached. Without Redis no worker") for warning in body["warnings"])
    assert show_states(client, body) == {"a": "requested", "b": "requested"}
    assert client.get(OPERATIONS).json()["total"] == 1
    account.settle()
    move_on(body)
    assert show(client, body)["success"] is True


def test_cancelling_needs_no_redis(client: Client, novita: NovitaAnswers, redis_server: FakeServer) -> None:
    novita.holds(make_row("a"))
    redis_server.connected = False
    body = order(client)

    assert cancel(client, body).json()["state"] == "cancelled"


def test_nothing_is_requested_without_redis_and_a_listing(
    client: Client, novita: NovitaAnswers, redis_server: FakeServer
) -> None:
    account = novita.holds(make_row("a"))
    sync(client, account)
    redis_server.connected = False
    account.answers("list", 500)

    assert client.post(STOP_ALL).json()["code"] == "NOVITA_UNAVAILABLE"
