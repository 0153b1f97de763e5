"""Operations through the API: the targets, requests and answers when Novita, Redis or the caller is difficult."""

import json
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from fakeredis import FakeServer

from instances.inventory import store
from instances.models import AuditEntry, Operation, Target
from tests.conftest import ApiClient
from tests.novita_answers import INVALID_STATE_CHANGE, Account, NovitaAnswers, make_row
from tests.operation_steps import (
    STOP_ALL,
    Json,
    move_on,
    move_on_at_once,
    order,
    pass_deadline,
    show,
    show_states,
    show_target,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

OPERATIONS = "/api/operations"


def sync(client: Client, account: Account) -> None:
    """Fill the inventory, and clear the list of calls to Novita."""
    assert client.post("/api/instances/sync").status_code == 200
    account.calls.clear()


def protect(client: Client, id_: str, reason: str = "the demo runs on it") -> None:
    assert client.post(f"/api/instances/{id_}/protect", {"reason": reason}).status_code == 200


# --- What is chosen, and the answer


def test_stop_all_answers_each_request(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="train"), make_row("b", status="exited"))
    sync(client, account)
    store.note_worker()

    answer = client.post(STOP_ALL, {"reason": "weekend"})

    body = answer.json()
    id_ = body["operationId"]
    assert (answer.status_code, body.pop("timestamp")[-1], str(uuid.UUID(id_))) == (200, "Z", id_)
    assert body == {
        "success": True,
        "message": "Stop initiated for 1 of 1 running instance",
        "count": 1,
        "total": 1,
        "results": [
            {
                "instanceId": "a",
                "name": "train",
                "success": True,
                "status": "toStop",
                "state": "requested",
                "message": "Stop requested; not yet stopped.",
                "error": None,
            }
        ],
        "skipped": [],
        "warnings": [],
        "operationId": id_,
        "operationUrl": f"/api/operations/{id_}",
        "source": "novita",
    }
    assert account.orders == ["stop a"]
    shown = client.get("/api/instances").json()["instances"]
    assert {one["id"]: one["status"] for one in shown} == {"a": "toStop", "b": "exited"}


def test_operation_is_shown_with_its_targets(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", name="train"))

    shown = show(client, order(client, reason="weekend"))

    (target,) = shown.pop("targets")
    assert {name: shown[name] for name in shown if not name.endswith("At") and name != "id"} == {
        "kind": "stop",
        "state": "verifying",
        "success": None,
        "result": "",
        "isWholeAccount": True,
        "reason": "weekend",
        "requestedBy": "local-owner",
        "source": "novita",
        "notes": [],
        "retryOf": None,
        "supersededBy": None,
        "counts": {
            "pending": 0,
            "requested": 1,
            "confirmed": 0,
            "stillRunning": 0,
            "failed": 0,
            "skipped": 0,
            "unknown": 0,
        },
    }
    assert shown["finishedAt"] is None and shown["deadlineAt"] > shown["createdAt"]
    assert target.pop("requestedAt") and target.pop("readAt")
    assert target == {
        "instanceId": "a",
        "name": "train",
        "state": "requested",
        "status": "toStop",
        "attempts": 1,
        "confirmedAt": None,
        "message": "Stop requested; not yet stopped.",
        "error": None,
    }


def test_stop_all_uses_a_fresh_listing_and_not_the_inventory(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b", status="exited"))
    sync(client, account)
    account.change("a", "exited")
    account.change("b", "running")
    account.change("new", "running")

    body = order(client)

    assert [result["instanceId"] for result in body["results"]] == ["b", "new"]
    assert account.orders == ["stop b", "stop new"]


@pytest.mark.parametrize(
    ("status", "is_asked"),
    [
        ("running", True),
        ("pulling", True),
        ("toStart", True),
        ("pending", True),
        ("exited", False),
        ("removed", False),
        ("migrating", False),
        ("brand-new-status", False),
    ],
)
def test_stop_all_includes_running_and_starting_instances(
    status: str, is_asked: bool, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a", status=status))

    body = order(client)

    assert ([result["instanceId"] for result in body["results"]], account.orders) == (
        (["a"], ["stop a"]) if is_asked else ([], [])
    )
    assert not any("meanwhile" in warning for warning in body["warnings"])


@pytest.mark.parametrize("status", ["migrating", "brand-new-status"])
def test_instance_in_an_unknown_status_is_named(status: str, client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status=status))

    assert any(status in warning for warning in order(client)["warnings"])


def test_nothing_running_is_a_success_by_a_fresh_listing(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"))

    body = order(client)

    assert (body["success"], body["message"], body["count"], body["total"]) == (True, "Nothing is running", 0, 0)
    shown = show(client, body)
    assert (shown["state"], shown["success"], shown["result"]) == ("finished", True, "Nothing was running.")


def test_warning_names_instances_that_novita_counts_but_does_not_list(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    # One page, and no second one.
    first = (200, {}, json.dumps({"instances": [make_row("a")], "total": 3}))
    behind = (200, {}, json.dumps({"instances": [], "total": 3}))
    account.answers("list", first, behind, behind, behind, first, behind)

    assert "Novita counts 2 more instances than it lists." in order(client)["warnings"]


def test_empty_account_is_a_success(client: Client, novita: NovitaAnswers) -> None:
    novita.holds()

    assert show(client, order(client))["success"] is True


def test_protected_instances_are_skipped_with_the_reason(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b", name="demo"))
    sync(client, account)
    protect(client, "b", "the demo runs on it")

    body = order(client)

    assert account.orders == ["stop a"]
    assert body["skipped"] == [{"instanceId": "b", "name": "demo", "reason": "Protected: the demo runs on it"}]
    assert [result["instanceId"] for result in body["results"]] == ["a"]
    assert show_states(client, body) == {"a": "requested", "b": "skipped"}


def test_answer_for_protected_instances_only_does_not_claim_that_nothing_is_running(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    sync(client, account)
    protect(client, "a")

    body = order(client)

    assert (body["message"], len(body["skipped"]), account.orders) == ("Nothing to stop", 1, [])
    assert show(client, body)["result"] == "There was nothing to do."


# --- Some by their ids


def test_ids_limit_a_stop(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"), make_row("c"))

    body = order(client, ids=["a", "c", "a"])

    assert (body["message"], account.orders) == ("Stop initiated for 2 of 2 instances", ["stop a", "stop c"])


def test_unknown_id_fails_and_the_others_are_stopped(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    body = order(client, ids=["gone", "a"])

    assert (body["success"], body["message"], account.orders) == (
        False,
        "Stop initiated for 1 of 2 instances",
        ["stop a"],
    )
    assert {one["instanceId"]: (one["state"], one["error"]) for one in body["results"]} == {
        "a": ("requested", None),
        "gone": ("failed", "Not found at Novita."),
    }
    account.settle()
    move_on(body)
    assert (show(client, body)["state"], show(client, body)["success"]) == ("finished", False)
    assert account.orders == ["stop a"]


def test_more_than_ten_instances_are_read_by_one_listing(client: Client, novita: NovitaAnswers) -> None:
    ids = [f"i{number:02}" for number in range(12)]
    account = novita.holds(*(make_row(id_) for id_ in ids[:-1]))

    body = order(client, ids=ids)

    assert (account.calls.count("list"), [call for call in account.calls if call.startswith("read")]) == (
        1,
        ["read i11"],
    )
    assert (body["count"], body["total"]) == (11, 12)


def test_stopped_instance_is_confirmed_without_a_request(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))

    body = order(client, ids=["a"])

    target = show_target(client, body)
    assert (target["state"], target["attempts"], account.orders) == ("confirmed", 0, [])
    assert target["confirmedAt"] and show(client, body)["success"] is True


def test_stopping_instance_is_followed_and_requested_when_it_is_running_again(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a", status="stopping"))
    body = order(client, ids=["a"])
    assert (show_states(client, body), account.orders) == ({"a": "requested"}, [])

    account.change("a", "running")
    move_on(body)

    assert account.orders == ["stop a"]


@pytest.mark.parametrize(
    ("path", "wish"),
    [
        (STOP_ALL, {"ids": []}),
        (STOP_ALL, {"ids": "a"}),
        (STOP_ALL, {"ids": None}),
        (STOP_ALL, {"ids": [["a"]]}),
        (STOP_ALL, {"ids": [None]}),
        (STOP_ALL, {"ids": [""]}),
        (STOP_ALL, {"ids": ["a\x00"]}),
        (STOP_ALL, {"ids": ["x" * 10_000]}),
        (STOP_ALL, {"ids": [f"{number:016x}" for number in range(3000)]}),
        (STOP_ALL, {"dryRun": "perhaps"}),
        (STOP_ALL, {"dryrun": True}),
        (STOP_ALL, {"reason": {}}),
        (STOP_ALL, {"webhookUrl": 5}),
        (STOP_ALL, ["a"]),
        (STOP_ALL, "{"),
        (STOP_ALL, '{"ids": ["\\ud800"]}'),
        (STOP_ALL, '{"ids": ' + "[" * 20_000),
        (OPERATIONS, {"ids": ["a"]}),
        (OPERATIONS, {"kind": "stop"}),
        (OPERATIONS, {"kind": "delete", "ids": ["a"]}),
        (OPERATIONS, {"kind": "stop", "ids": []}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_invalid_body_is_refused_before_any_request(
    path: str, wish: Any, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))

    answer = client.post(path, wish)

    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
    assert answer.json().keys() == {"success", "code", "message", "suggestion", "requestId", "timestamp", "fields"}
    assert not account.calls and not Operation.objects.exists()


@pytest.mark.parametrize("is_dry_run", [False, True])
def test_reason_that_is_too_long_is_cut_and_the_stop_is_sent(
    is_dry_run: bool, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))

    answer = client.post(STOP_ALL, {"reason": "x" * 501, "dryRun": is_dry_run})

    assert (answer.status_code, account.orders) == (200, [] if is_dry_run else ["stop a"])
    assert "The reason has 501 characters; the first 500 are recorded." in answer.json()["warnings"]
    assert [one.reason for one in Operation.objects.all()] == ([] if is_dry_run else ["x" * 500])


def test_form_of_another_site_stops_nothing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    answer = client.post(STOP_ALL, "ids=a", content_type="application/x-www-form-urlencoded")

    assert answer.status_code == 415 and not account.calls


@pytest.mark.parametrize("id_", ["a/b", "../a", "a b", "a\r\nX-Evil: 1", "🚀", "<script>", "%00"])
def test_strange_id_is_not_found_at_novita(id_: str, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    answer = client.post(STOP_ALL, {"ids": [id_]})

    assert account.orders == []
    assert answer.status_code == 400 or answer.json()["results"][0]["state"] == "failed"


@pytest.mark.parametrize("url", ["https://127.0.0.1/hook", "http://example.com/", "ftp://x", "nonsense"])
@pytest.mark.parametrize("is_dry", [True, False])
def test_webhook_is_refused_before_any_request(url: str, is_dry: bool, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    answer = client.post(STOP_ALL, {"webhookUrl": url, "dryRun": is_dry})

    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["webhookUrl"])
    assert not account.calls and not Operation.objects.exists()


# --- Dry run


def test_dry_run_reports_and_changes_nothing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="train"), make_row("b"), make_row("c", status="exited"))
    sync(client, account)
    protect(client, "b")
    entries = AuditEntry.objects.count()
    store.note_worker()

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
        "operationId": None,
        "operationUrl": None,
        "source": "novita",
    }
    assert account.calls == ["list"]
    assert (Operation.objects.count(), Target.objects.count(), AuditEntry.objects.count()) == (0, 0, entries)
    assert client.get("/api/instances/a").json()["status"] == "running"


def test_dry_run_warns_of_prepaid_instances(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", name="train", billingMode="monthly"), make_row("b"))

    warnings = order(client, dryRun=True)["warnings"]

    assert "Prepaid by the month, so that stopping saves nothing: train." in warnings


def test_dry_run_warns_without_a_worker(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"))

    assert any(warning.startswith("No worker is running") for warning in order(client, dryRun=True)["warnings"])


def test_dry_run_of_nothing_warns_of_no_loss(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"))
    store.note_worker()

    body = order(client, dryRun=True)

    assert (body["message"], body["results"], body["warnings"]) == ("Nothing is running", [], [])


def test_dry_run_counts_would_be_requests(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"), make_row("b"))

    assert order(client, dryRun=True, ids=["a", "b"])["message"] == "Would stop 1 instance"


# --- Novita can't be listed


def test_inventory_names_the_targets_without_a_listing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b", status="exited"))
    sync(client, account)
    account.answers("list", 500)

    body = order(client)

    assert (body["source"], account.orders, show_states(client, body)) == ("cache", ["stop a"], {"a": "requested"})
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

    assert (answer.status_code, answer.json()["code"], account.orders) == (502, "NOVITA_UNAVAILABLE", [])
    (shown,) = client.get(OPERATIONS).json()["operations"]
    assert (shown["state"], shown["success"]) == ("finished", False)
    assert shown["result"] == "Nothing was done. Novita returned an error (HTTP 500)."
    assert AuditEntry.objects.get(action="operation.stop").outcome == "NOVITA_UNAVAILABLE"
    account.answers("list", None)
    assert order(client)["count"] == 1


def test_joining_an_operation_that_never_began_begins_a_new_one_and_returns_the_error(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    joined: list[Any] = []

    def join_and_fail() -> int:
        thread = threading.Thread(target=lambda: (joined.append(ApiClient().post(STOP_ALL)), connections.close_all()))
        thread.start()
        time.sleep(1)
        threads.append(thread)
        return 401

    threads: list[threading.Thread] = []
    account.answers("list", join_and_fail, 401)

    client.post(STOP_ALL)
    began = time.monotonic()
    threads[0].join()

    assert time.monotonic() - began < 5
    assert (joined[0].status_code, joined[0].json()["code"], joined[0].json()["message"]) == (
        502,
        "NOVITA_REJECTED_KEY",
        "Novita's edge refuses us (HTTP 401).",
    )
    assert account.calls.count("list") == 2


# --- Asking


def test_each_instance_has_its_own_result(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    account.answers("stop b", 500)

    answer = client.post(STOP_ALL)

    body = answer.json()
    assert (answer.status_code, body["success"], body["count"], body["total"]) == (200, False, 1, 2)
    results = {one["instanceId"]: (one["success"], one["state"], one["error"]) for one in body["results"]}
    assert results["a"] == (True, "requested", None)
    assert results["b"] == (False, "failed", "Novita returned an error (HTTP 500). The instance is running.")


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}])
def test_rate_limit_is_waited_out_and_counts_as_one_attempt(
    headers: dict[str, str], client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", (429, headers, ""), None)
    began = time.monotonic()

    body = order(client)

    assert time.monotonic() - began >= (1 if headers else 0.5)
    assert (account.orders, show_target(client, body)["attempts"]) == (["stop a", "stop a"], 1)
    assert show_states(client, body) == {"a": "requested"}


def test_retry_after_of_an_hour_is_not_waited_out(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", (429, {"Retry-After": "3600"}, ""), None)
    began = time.monotonic()

    body = order(client)

    assert time.monotonic() - began < 10
    assert (show_states(client, body), show_target(client, body)["error"]) == (
        {"a": "failed"},
        "Novita limits the rate of our requests.",
    )
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
    assert (target["state"], target["status"], target["attempts"], account.orders) == (
        "requested",
        "stopping",
        1,
        ["stop a"],
    )


def test_rejected_key_is_not_tried_again(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", 401)

    body = order(client)

    shown = show(client, body)
    assert (shown["state"], shown["success"], shown["counts"]["failed"]) == ("finished", False, 1)
    assert account.orders == ["stop a"]


def test_key_rejected_for_every_request_ends_the_operation_at_once(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    sync(client, account)
    account.answers("list", 401)
    account.answers("stop a", 401)

    shown = show(client, order(client))

    assert (shown["state"], shown["success"]) == ("finished", False)
    assert account.orders == ["stop a"]


def test_slow_answer_names_the_pending_targets(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.operations.orders.ANSWER_SECONDS", 0.5)
    account = novita.holds(make_row("a"))
    go_on = threading.Event()
    account.answers("stop a", lambda: go_on.wait(20) and None)

    answer = client.post(STOP_ALL)

    assert (answer.status_code, answer.json()["results"][0]["state"], answer.json()["count"]) == (202, "pending", 0)
    go_on.set()
    deadline = time.monotonic() + 5
    while show(client, answer.json())["state"] == "requesting" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert show_states(client, answer.json()) == {"a": "requested"}
    while any(thread.name == "operation" for thread in threading.enumerate()):
        time.sleep(0.05)


# --- One operation for one wish


def test_second_request_joins_the_first(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)

    again = client.post(STOP_ALL)

    assert (again.status_code, again.json()["operationId"]) == (200, first["operationId"])
    assert account.orders == ["stop a"]


def test_two_simultaneous_requests_get_one_operation(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    client.get(OPERATIONS)
    answers: list[Json] = []
    barrier = threading.Barrier(3)

    def press() -> None:
        barrier.wait()
        answers.append(order(ApiClient()))
        connections.close_all()

    people = [threading.Thread(target=press) for _ in range(3)]
    for person in people:
        person.start()
    for person in people:
        person.join()

    assert len({answer["operationId"] for answer in answers}) == 1 == Operation.objects.count()
    assert account.orders == ["stop a", "stop b"]
    assert all(answer["count"] == 2 for answer in answers)


def test_other_ids_are_another_operation(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"), make_row("b"), make_row("a b"))

    ids = {order(client, ids=wanted)["operationId"] for wanted in (["a"], ["b"], ["a", "b"], ["b", "a"], ["a b"])}

    assert len(ids) == 4


def test_ids_covered_by_a_running_stop_of_all_join_it(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"), make_row("c", status="exited"))
    whole = order(client)

    assert order(client, ids=["b"])["operationId"] == whole["operationId"]
    assert order(client, ids=["b", "c"])["operationId"] != whole["operationId"]
    assert account.orders == ["stop a", "stop b"]


def test_instance_skipped_by_a_stop_of_all_can_be_stopped_by_its_id(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    sync(client, account)
    protect(client, "b")
    order(client)
    client.delete("/api/instances/b/protect")

    order(client, ids=["b"])

    assert account.orders == ["stop a", "stop b"]


def test_new_operation_begins_after_the_result(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)
    account.settle()
    move_on(first)
    assert show(client, first)["state"] == "finished"

    assert order(client)["operationId"] != first["operationId"]


def test_abandoned_operation_is_ended_and_a_new_one_begins(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)
    pass_deadline(first, 120)
    account.change("a", "running")

    second = order(client)

    shown = show(client, first)
    assert (shown["state"], shown["success"], shown["counts"]["stillRunning"]) == ("finished", False, 1)
    assert shown["notes"] == ["Abandoned: no worker was running."]
    assert shown["result"] == "1 of 1 is still running. Abandoned: no worker was running."
    assert second["operationId"] != first["operationId"] and account.orders == ["stop a", "stop a"]


# --- Cancel


def cancel(client: Client, body: Json) -> Any:
    return client.post(f"{body['operationUrl']}/cancel")


def test_cancelled_operation_sends_no_request_and_verifies_those_sent(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    body = order(client)
    Target.objects.filter(instance_id="b").update(state="pending", attempts=0)
    account.change("b", "running")

    answer = cancel(client, body)

    assert (answer.status_code, answer.json()["state"], answer.json()["finishedAt"]) == (200, "cancelled", None)
    assert show_states(client, body) == {"a": "requested", "b": "skipped"}
    assert cancel(client, body).json() == answer.json()
    account.settle()
    move_on(body)
    shown = show(client, body)
    assert (shown["state"], shown["success"], shown["finishedAt"][-1]) == ("cancelled", False, "Z")
    assert show_states(client, body) == {"a": "confirmed", "b": "skipped"}
    assert account.orders == ["stop a", "stop b"]
    assert cancel(client, body).json() == shown
    assert order(client)["operationId"] != body["operationId"]


def test_cancelled_operation_without_accepted_requests_ends_at_once(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", 500)
    body = order(client)

    shown = cancel(client, body).json()

    assert (shown["state"], shown["success"], shown["counts"]["failed"]) == ("cancelled", False, 1)
    assert shown["finishedAt"] and shown["result"].startswith("Cancelled.")


def test_cancelling_during_the_requests_ends_them(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.operations.claims.HEARTBEAT_SECONDS", 0.05)
    ids = [f"i{number:02}" for number in range(20)]
    account = novita.holds(*(make_row(id_) for id_ in ids))

    def cancel_it() -> None:
        operation = Operation.objects.get()
        cancel(ApiClient(), {"operationUrl": f"/api/operations/{operation.pk}"})
        time.sleep(0.6)

    for id_ in ids:
        account.answers(f"stop {id_}", cancel_it)

    body = order(client)

    requested = len(account.orders)
    assert 1 <= requested <= 8, "no more than were under way at once"
    account.settle()
    move_on(body)
    shown = show(client, body)
    assert (shown["counts"]["confirmed"], shown["counts"]["skipped"]) == (requested, 20 - requested)
    assert shown["finishedAt"] and shown["success"] is False


def test_cancelling_during_the_listing_prevents_every_request(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    def cancel_it() -> None:
        operation = Operation.objects.get()
        cancel(ApiClient(), {"operationUrl": f"/api/operations/{operation.pk}"})

    account.answers("list", cancel_it)

    body = order(client)

    shown = show(client, body)
    assert (account.orders, shown["state"], shown["counts"]["skipped"], shown["success"]) == ([], "cancelled", 1, False)
    assert shown["finishedAt"]


def test_finished_operation_cannot_be_cancelled(client: Client, novita: NovitaAnswers) -> None:
    novita.holds()
    body = order(client)

    answer = cancel(client, body)

    assert (answer.status_code, answer.json()["code"]) == (409, "INVALID_STATE")
    assert "Nothing was running." in answer.json()["message"]


@pytest.mark.parametrize("id_", ["36c4b369-fd14-4ede-bdc5-787cd692088a", "nonsense", "%00", "x" * 5000, "1"])
def test_unknown_operation_is_not_found(id_: str, client: Client) -> None:
    for answer in (client.get(f"{OPERATIONS}/{id_}"), client.post(f"{OPERATIONS}/{id_}/cancel")):
        assert (answer.status_code, answer.json()["code"]) == (404, "OPERATION_NOT_FOUND")


# --- Starts and restarts


def test_start_is_confirmed_when_the_instance_is_running(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"), make_row("b"), make_row("c", status="exited"))

    body = order(client, OPERATIONS, kind="start", ids=["a", "b"])

    assert (body["message"], account.orders) == ("Start initiated for 2 of 2 instances", ["start a"])
    assert show_states(client, body) == {"a": "requested", "b": "confirmed"}
    move_on(body)
    assert show_states(client, body)["a"] == "requested"
    account.settle()
    move_on(body)
    shown = show(client, body)
    assert (shown["success"], shown["result"]) == (True, "All 2 are running.")


def test_start_without_a_free_gpu_fails_with_that_reason(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    account.answers("start a", (400, {}, '{"code": 400, "reason": "INSUFFICIENT_RESOURCE", "message": ""}'))
    body = order(client, OPERATIONS, kind="start", ids=["a"])
    pass_deadline(body)

    move_on(body)

    shown = show(client, body)
    assert (shown["success"], shown["targets"][0]["state"]) == (False, "failed")
    assert shown["targets"][0]["error"] == "Novita has no free GPU for this instance."
    assert shown["result"] == "1 of 1 did not start."


def test_removed_instance_is_not_started_although_the_inventory_has_it(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    sync(client, account)
    account.answers("start a", 500)
    body = order(client, OPERATIONS, kind="start", ids=["a"])
    del account.rows["a"]

    move_on(body)

    shown = show(client, body)
    assert (account.orders, shown["state"], shown["success"]) == (["start a"], "finished", False)
    assert shown["targets"][0]["error"] == "No longer exists."


def test_restart_is_confirmed_by_a_new_start_time_only(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client, OPERATIONS, kind="restart", ids=["a"])

    # Accepted, and not begun yet.
    account.change("a", "running")
    move_on(body, 3)
    assert show_states(client, body) == {"a": "requested"}
    account.change("a", "running", lastStartedAt="1760009999")
    move_on(body)

    assert (show(client, body)["success"], account.orders) == (True, ["restart a"])


def test_restart_is_confirmed_after_a_read_of_it_restarting(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", lastStartedAt=None))
    body = order(client, OPERATIONS, kind="restart", ids=["a"])

    move_on(body)
    assert show_states(client, body) == {"a": "requested"}
    account.change("a", "running")
    move_on(body)

    assert show(client, body)["result"] == "The instance has restarted."


def test_slow_restart_is_not_requested_twice(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    body = order(client, OPERATIONS, kind="restart", ids=["a", "b"])
    account.rows["b"]["status"] = "restarting"
    account.settle()

    move_on(body, 3)

    assert show_states(client, body) == {"a": "confirmed", "b": "requested"}
    assert account.orders == ["restart a", "restart b"]


def test_restart_of_an_instance_unreadable_at_first_needs_a_new_start_time(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    account.answers("read a", 500, 500, 500, 500, None)
    body = order(client, OPERATIONS, kind="restart", ids=["a", "b"])
    assert (show_states(client, body)["a"], account.orders) == ("failed", ["restart b"])

    move_on(body)
    account.change("a", "running")
    move_on(body)

    assert (show_states(client, body)["a"], account.orders) == ("requested", ["restart a", "restart b"])


def test_restart_of_a_stopped_instance_is_skipped(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))

    body = order(client, OPERATIONS, kind="restart", ids=["a"])

    assert body["skipped"][0]["reason"] == "Can't be restarted while it is stopped."
    assert (body["message"], account.orders) == ("Nothing to restart", [])


# --- Redis away


def test_stop_all_needs_no_redis(client: Client, novita: NovitaAnswers, redis_server: FakeServer) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    redis_server.connected = False

    body = order(client)

    assert (account.orders, body["count"]) == (["stop a", "stop b"], 2)
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


# --- The list


def make_operations(number: int, **fields: Any) -> list[Operation]:
    now = timezone.now()
    return Operation.objects.bulk_create(
        Operation(
            **{
                "kind": "stop",
                "is_whole_account": False,
                "selection": f"stop:{index}",
                "state": "finished",
                "created_at": now - timedelta(minutes=index),
                "deadline_at": now,
                "reason": str(index),
                **fields,
            }
        )
        for index in range(number)
    )


def test_operations_are_listed_newest_first_and_by_pages(client: Client) -> None:
    make_operations(25)

    first = client.get(OPERATIONS).json()
    second = client.get(OPERATIONS, {"page": 2, "pageSize": 10}).json()

    assert (first["total"], len(first["operations"]), first["operations"][0]["reason"]) == (25, 20, "0")
    assert [one["reason"] for one in second["operations"]] == [str(number) for number in range(10, 20)]
    assert "targets" not in first["operations"][0]
    assert client.get(OPERATIONS, {"page": 99}).json() == {"operations": [], "total": 25}


def test_operations_are_filtered_by_state(client: Client) -> None:
    make_operations(2)
    make_operations(1, state="cancelled")

    found = client.get(OPERATIONS, {"state": "cancelled"}).json()

    assert (found["total"], found["operations"][0]["state"]) == (1, "cancelled")


@pytest.mark.parametrize("query", [{"state": "x"}, {"page": 0}, {"page": "x"}, {"pageSize": 101}, {"other": "1"}])
def test_invalid_query_is_refused(query: Json, client: Client) -> None:
    assert client.get(OPERATIONS, query).status_code == 400


def count_queries(client: Client, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    return len(captured)


def test_more_operations_and_targets_cost_no_more_queries(client: Client) -> None:
    operations = make_operations(1)
    Target.objects.create(operation=operations[0], instance_id="x")
    client.get(OPERATIONS)
    few = count_queries(client, OPERATIONS), count_queries(client, f"{OPERATIONS}/{operations[0].pk}")
    operations = make_operations(50, kind="start")
    Target.objects.bulk_create(
        Target(operation=operations[0], instance_id=f"i{number}", state="confirmed") for number in range(1000)
    )

    assert (count_queries(client, OPERATIONS), count_queries(client, f"{OPERATIONS}/{operations[0].pk}")) == few
    (counted,) = [one for one in client.get(OPERATIONS).json()["operations"] if one["counts"]["confirmed"]]
    assert counted["counts"] == {
        "pending": 0,
        "requested": 0,
        "confirmed": 1000,
        "stillRunning": 0,
        "failed": 0,
        "skipped": 0,
        "unknown": 0,
    }


def test_early_round_repeats_no_request(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.change("a", "running")

    move_on_at_once(body)

    assert account.orders == ["stop a"]
