"""Operations through the API: the targets, the answer, and the list of operations."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instances.inventory import heartbeat
from instances.models import Operation, Target
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import (
    OPERATIONS,
    STOP_ALL,
    Json,
    move_on,
    move_on_at_once,
    order,
    protect,
    show,
    show_states,
    show_target,
    sync,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


# --- What is chosen, and the answer


def test_stop_all_answers_each_request(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="train"), make_row("b", status="exited"))
    sync(client, account)
    heartbeat.note_worker()

    answer = client.post(STOP_ALL, {"reason": "weekend"})

    body = answer.json()
    id_ = body["operationId"]
    assert answer.status_code == 200
    assert body.pop("timestamp")[-1] == "Z"
    assert str(uuid.UUID(id_)) == id_
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
        "savesPerHour": None,
        "costsPerHour": None,
        "unknownPrices": 1,
        "prepaid": 0,
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
        "savesPerHour": None,
        "costsPerHour": None,
        "unknownPrices": 1,
        "prepaid": 0,
        "isWholeAccount": True,
        "reason": "weekend",
        "requestedBy": "local-owner",
        "source": "novita",
        "notes": [],
        "retryOf": None,
        "supersededBy": None,
        "dismissedBy": "",
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


def test_stop_all_includes_running_and_starting_instances(client: Client, novita: NovitaAnswers) -> None:
    asked = ["pending", "pulling", "running", "toStart"]
    others = ["exited", "removed", "migrating", "brand-new-status"]
    account = novita.holds(*(make_row(status, status=status) for status in (*asked, *others)))

    body = order(client)

    assert sorted(result["instanceId"] for result in body["results"]) == asked
    assert account.orders == [f"stop {status}" for status in asked]
    assert not any("meanwhile" in warning for warning in body["warnings"])


@pytest.mark.parametrize("status", ["migrating", "brand-new-status"])
def test_instance_in_an_unknown_status_is_named(status: str, client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status=status))

    assert any(status in warning for warning in order(client)["warnings"])


def test_nothing_running_is_a_success_by_a_fresh_listing(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"))

    body = order(client)

    assert body["success"] is True
    assert body["message"] == "Nothing is running"
    assert body["count"] == 0
    assert body["total"] == 0
    shown = show(client, body)
    assert shown["state"] == "finished"
    assert shown["success"] is True
    assert shown["result"] == "Nothing was running."


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

    assert body["message"] == "Nothing to stop"
    assert len(body["skipped"]) == 1
    assert account.orders == []
    assert show(client, body)["result"] == "There was nothing to do."


# --- Some by their ids


def test_ids_limit_a_stop(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"), make_row("c"))

    body = order(client, ids=["a", "c", "a"])

    assert body["message"] == "Stop initiated for 2 of 2 instances"
    assert account.orders == ["stop a", "stop c"]


def test_unknown_id_fails_and_the_others_are_stopped(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    body = order(client, ids=["gone", "a"])

    assert body["success"] is False
    assert body["message"] == "Stop initiated for 1 of 2 instances"
    assert account.orders == ["stop a"]
    assert {one["instanceId"]: (one["state"], one["error"]) for one in body["results"]} == {
        "a": ("requested", None),
        "gone": ("failed", "Not found at Novita."),
    }
    account.settle()
    move_on(body)
    assert show(client, body)["state"] == "finished"
    assert show(client, body)["success"] is False
    assert account.orders == ["stop a"]


def test_more_than_ten_instances_are_read_by_one_listing(client: Client, novita: NovitaAnswers) -> None:
    ids = [f"i{number:02}" for number in range(12)]
    account = novita.holds(*(make_row(id_) for id_ in ids[:-1]))

    body = order(client, ids=ids)

    assert account.calls.count("list") == 1
    assert [call for call in account.calls if call.startswith("read")] == ["read i11"]
    assert body["count"] == 11
    assert body["total"] == 12


def test_stopped_instance_is_confirmed_without_a_request(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))

    body = order(client, ids=["a"])

    target = show_target(client, body)
    assert target["state"] == "confirmed"
    assert target["attempts"] == 0
    assert account.orders == []
    assert target["confirmedAt"] and show(client, body)["success"] is True


def test_stopping_instance_is_followed_and_requested_when_it_is_running_again(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a", status="stopping"))
    body = order(client, ids=["a"])
    assert show_states(client, body) == {"a": "requested"}
    assert account.orders == []

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

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert answer.json().keys() == {"success", "code", "message", "suggestion", "requestId", "timestamp", "fields"}
    assert not account.calls and not Operation.objects.exists()


@pytest.mark.parametrize("is_dry_run", [False, True])
def test_reason_that_is_too_long_is_cut_and_the_stop_is_sent(
    is_dry_run: bool, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))

    answer = client.post(STOP_ALL, {"reason": "x" * 501, "dryRun": is_dry_run})

    assert answer.status_code == 200
    assert account.orders == ([] if is_dry_run else ["stop a"])
    assert "The reason has 501 characters; the first 500 are recorded." in answer.json()["warnings"]
    assert [one.reason for one in Operation.objects.all()] == ([] if is_dry_run else ["x" * 500])


def test_form_of_another_site_stops_nothing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    answer = client.post(STOP_ALL, "ids=a", content_type="application/x-www-form-urlencoded")

    assert answer.status_code == 415 and not account.calls


def test_strange_id_is_not_found_at_novita(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    for id_ in ("a/b", "../a", "a b", "a\r\nX-Evil: 1", "🚀", "<script>", "%00"):
        answer = client.post(STOP_ALL, {"ids": [id_]})

        assert account.orders == [], id_
        assert answer.status_code == 400 or answer.json()["results"][0]["state"] == "failed", id_


@pytest.mark.parametrize("url", ["https://127.0.0.1/hook", "http://example.com/", "ftp://x", "nonsense"])
@pytest.mark.parametrize("is_dry", [True, False])
def test_webhook_is_refused_before_any_request(url: str, is_dry: bool, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    answer = client.post(STOP_ALL, {"webhookUrl": url, "dryRun": is_dry})

    assert answer.status_code == 400
    assert list(answer.json()["fields"]) == ["webhookUrl"]
    assert not account.calls and not Operation.objects.exists()


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

    assert first["total"] == 25
    assert len(first["operations"]) == 20
    assert first["operations"][0]["reason"] == "0"
    assert [one["reason"] for one in second["operations"]] == [str(number) for number in range(10, 20)]
    assert "targets" not in first["operations"][0]
    assert client.get(OPERATIONS, {"page": 99}).json() == {"operations": [], "total": 25}


def test_operations_are_filtered_by_state(client: Client) -> None:
    make_operations(2)
    make_operations(1, state="cancelled")

    found = client.get(OPERATIONS, {"state": "cancelled"}).json()

    assert found["total"] == 1
    assert found["operations"][0]["state"] == "cancelled"


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
    few_for_the_list = count_queries(client, OPERATIONS)
    few_for_one = count_queries(client, f"{OPERATIONS}/{operations[0].pk}")
    operations = make_operations(50, kind="start")
    Target.objects.bulk_create(
        Target(operation=operations[0], instance_id=f"i{number}", state="confirmed") for number in range(1000)
    )

    assert count_queries(client, OPERATIONS) == few_for_the_list
    assert count_queries(client, f"{OPERATIONS}/{operations[0].pk}") == few_for_one
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
