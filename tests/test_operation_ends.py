"""Operations through the API that join, are cancelled, or start and restart instances."""

import time

import pytest
from django.test import Client

from instances.models import Operation, Target
from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import (
    OPERATIONS,
    STOP_ALL,
    cancel,
    move_on,
    order,
    order_at_once,
    pass_deadline,
    protect,
    show,
    show_states,
    sync,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


# --- One operation for equal requests


def test_second_request_joins_the_first(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)

    again = client.post(STOP_ALL)

    assert again.status_code == 200
    assert again.json()["operationId"] == first["operationId"]
    assert account.orders == ["stop a"]


def test_simultaneous_requests_get_one_operation(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    client.get(OPERATIONS)

    answers = order_at_once(3)

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
    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert shown["counts"]["stillRunning"] == 1
    assert shown["notes"] == ["Abandoned: no worker was running."]
    assert shown["result"] == "1 of 1 is still running. Abandoned: no worker was running."
    assert second["operationId"] != first["operationId"] and account.orders == ["stop a", "stop a"]


# --- Cancel


def test_cancelled_operation_sends_no_request_and_verifies_those_sent(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    body = order(client)
    Target.objects.filter(instance_id="b").update(state="pending", attempts=0, next_request_at=None)
    account.change("b", "running")

    answer = cancel(client, body)

    assert answer.status_code == 200
    assert answer.json()["state"] == "cancelled"
    assert answer.json()["finishedAt"] is None
    assert show_states(client, body) == {"a": "requested", "b": "skipped"}
    assert cancel(client, body).json() == answer.json()
    account.settle()
    move_on(body)
    shown = show(client, body)
    assert shown["state"] == "cancelled"
    assert shown["success"] is False
    assert shown["finishedAt"][-1] == "Z"
    assert show_states(client, body) == {"a": "confirmed", "b": "skipped"}
    assert account.orders == ["stop a", "stop b"]
    assert cancel(client, body).json() == shown
    assert order(client)["operationId"] != body["operationId"]


def test_cancelled_operation_without_accepted_requests_ends_at_once(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", 500)
    body = order(client)

    shown = cancel(client, body).json()

    assert shown["state"] == "cancelled"
    assert shown["success"] is False
    assert shown["counts"]["failed"] == 1
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
    assert shown["counts"]["confirmed"] == requested
    assert shown["counts"]["skipped"] == 20 - requested
    assert shown["finishedAt"] and shown["success"] is False


def test_cancelling_during_the_listing_prevents_every_request(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    def cancel_it() -> None:
        operation = Operation.objects.get()
        cancel(ApiClient(), {"operationUrl": f"/api/operations/{operation.pk}"})

    account.answers("list", cancel_it)

    body = order(client)

    shown = show(client, body)
    assert account.orders == []
    assert shown["state"] == "cancelled"
    assert shown["counts"]["skipped"] == 1
    assert shown["success"] is False
    assert shown["finishedAt"]


def test_finished_operation_cannot_be_cancelled(client: Client, novita: NovitaAnswers) -> None:
    novita.holds()
    body = order(client)

    answer = cancel(client, body)

    assert answer.status_code == 409
    assert answer.json()["code"] == "INVALID_STATE"
    assert "Nothing was running." in answer.json()["message"]


@pytest.mark.parametrize("id_", ["36c4b369-fd14-4ede-bdc5-787cd692088a", "nonsense", "%00", "x" * 5000, "1"])
def test_unknown_operation_is_not_found(id_: str, client: Client) -> None:
    for answer in (client.get(f"{OPERATIONS}/{id_}"), client.post(f"{OPERATIONS}/{id_}/cancel")):
        assert answer.status_code == 404
        assert answer.json()["code"] == "OPERATION_NOT_FOUND"


# --- Starts and restarts


def test_start_is_confirmed_when_the_instance_is_running(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"), make_row("b"), make_row("c", status="exited"))

    body = order(client, OPERATIONS, kind="start", ids=["a", "b"])

    assert body["message"] == "Start initiated for 2 of 2 instances"
    assert account.orders == ["start a"]
    assert show_states(client, body) == {"a": "requested", "b": "confirmed"}
    move_on(body)
    assert show_states(client, body)["a"] == "requested"
    account.settle()
    move_on(body)
    shown = show(client, body)
    assert shown["success"] is True
    assert shown["result"] == "All 2 are running."


def test_start_without_a_free_gpu_fails_with_that_reason(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    account.answers("start a", (400, {}, '{"code": 400, "reason": "INSUFFICIENT_RESOURCE", "message": ""}'))
    body = order(client, OPERATIONS, kind="start", ids=["a"])
    pass_deadline(body)

    move_on(body)

    shown = show(client, body)
    assert shown["success"] is False
    assert shown["targets"][0]["state"] == "failed"
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
    assert account.orders == ["start a"]
    assert shown["state"] == "finished"
    assert shown["success"] is False
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

    assert show(client, body)["success"] is True
    assert account.orders == ["restart a"]


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
    assert show_states(client, body)["a"] == "failed"
    assert account.orders == ["restart b"]

    move_on(body)
    account.change("a", "running")
    move_on(body)

    assert show_states(client, body)["a"] == "requested"
    assert account.orders == ["restart a", "restart b"]


def test_restart_of_a_stopped_instance_is_skipped(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))

    body = order(client, OPERATIONS, kind="restart", ids=["a"])

    assert body["skipped"][0]["reason"] == "Can't be restarted while it is stopped."
    assert body["message"] == "Nothing to restart"
    assert account.orders == []
