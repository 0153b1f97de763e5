"""An answer is a success only when all that runs is known and requested; a result, when all is seen stopped."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from instances.models import Target
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import STOP_ALL, Json, move_on, order, show, show_states

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

NEVER_STOPS = (200, {}, "{}")


def keep_copy(client: Client) -> None:
    assert client.post("/api/instances/sync").status_code == 200


def press(client: Client, **wish: Any) -> tuple[int, Json]:
    answer = client.post(STOP_ALL, wish)
    return answer.status_code, answer.json()


# --- The account can't be listed


@pytest.mark.parametrize("status", [401, 403])
def test_empty_inventory_and_a_rejected_key_are_an_error(status: int, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    keep_copy(client)
    account.change("a", "running")
    account.answers("list", status)

    answered, body = press(client)

    assert answered == 502
    assert body["success"] is False
    assert body["code"] == "NOVITA_REJECTED_KEY"
    assert body["message"].startswith("It is not known whether anything is running. The final listing failed")
    (shown,) = client.get("/api/operations").json()["operations"]
    assert shown["success"] is False
    assert shown["result"] == body["message"]


def test_empty_listing_of_a_counted_account_is_an_error(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("list", (200, {}, json.dumps({"instances": [], "total": 1})))

    answered, body = press(client)

    assert answered == 502
    assert body["success"] is False
    assert body["message"].startswith("It is not known whether anything is running. Novita counts 1 more")


def test_stop_by_the_inventory_alone_is_no_success_and_the_next_round_requests_the_rest(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", NEVER_STOPS)
    keep_copy(client)
    account.change("b", "running")
    account.answers("list", 500)

    answered, body = press(client)

    assert answered == 202
    assert body["success"] is False
    assert account.orders == ["stop a"]
    assert "more instances may be running, and no stop is requested for them yet." in body["warnings"][-1]
    account.answers("list", None)
    account.change("a", "stopping")  # It stops slowly, and "b" does not wait for it.
    move_on(body)
    assert account.orders == ["stop a", "stop b"]
    account.calls.clear()
    move_on(body)
    assert "list" not in account.calls, "it is listed until it could be"


def test_joining_by_the_inventory_alone_is_no_success_and_the_next_round_requests_the_rest(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", NEVER_STOPS)
    keep_copy(client)
    first = order(client)
    account.change("a", "stopping")
    account.change("b", "running")
    account.answers("list", 500)

    answered, body = press(client)

    assert answered == 202
    assert body["success"] is False
    assert body["operationId"] == first["operationId"]
    assert any(one.startswith("Novita could not be read again:") for one in body["warnings"])
    account.answers("list", None)
    move_on(body)
    assert account.orders == ["stop a", "stop b"]
    assert press(client)[1]["success"] is True


def test_incomplete_listing_is_no_success(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first, behind = ((200, {}, json.dumps({"instances": rows, "total": 3})) for rows in ([make_row("a")], []))
    account.answers("list", first, behind, behind, behind, first, behind)

    answered, body = press(client)

    assert answered == 202
    assert body["success"] is False
    assert account.orders == ["stop a"]


def test_dry_run_by_the_inventory_alone_does_not_claim_that_nothing_is_running(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a", status="exited"))
    keep_copy(client)
    account.answers("list", 500)

    _, body = press(client, dryRun=True)

    assert body["success"] is False
    assert body["message"] == "It is not known whether anything is running"


# --- What was requested runs again


def start(account: Account, answer: Json) -> None:
    account.change("a", "starting")


def start_and_run(account: Account, answer: Json) -> None:
    later = datetime.now(UTC) + timedelta(seconds=1)
    account.change("a", "running", lastStartedAt=str(int(later.timestamp())))


def fall_back(account: Account, answer: Json) -> None:
    """It was seen on its way, and runs again by an unchanged start."""
    account.change("a", "stopping")
    move_on(answer)
    Target.objects.update(next_request_at=timezone.now() + timedelta(seconds=15))
    account.change("a", "running")


@pytest.mark.parametrize("start_again", [start, start_and_run, fall_back])
def test_instance_started_after_a_stop_is_requested_at_once_by_the_next_stop(
    start_again: Callable[[Account, Json], None], client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    first = order(client)
    start_again(account, first)
    account.calls.clear()

    answered, body = press(client)

    assert account.orders == ["stop a"]
    assert body["operationId"] == first["operationId"]
    # A starting instance can't be stopped yet: a round requests it once it is running.
    assert answered == 200
    assert body["success"] == (start_again is not start)


def test_accepted_stop_without_effect_is_no_success(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", NEVER_STOPS)
    order(client)

    answered, body = press(client)

    assert answered == 202
    assert body["success"] is False
    assert account.orders == ["stop a"]
    assert (
        "1 instance is still running after an accepted stop; the stop will be requested again soon." in body["warnings"]
    )


# --- What others stop


def test_stopping_instance_of_a_cancelled_stop_is_followed(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    first = order(client)
    assert client.post(f"{first['operationUrl']}/cancel").status_code == 200

    second = order(client)

    assert second["operationId"] != first["operationId"]
    assert second["message"] == "Stop initiated for 2 of 2 instances (2 stopping)"
    assert show(client, second)["success"] is None
    account.change("a", "exited")
    account.change("b", "running")
    move_on(second)
    assert show(client, second)["success"] is None
    assert account.orders == ["stop a", "stop b", "stop b"]
    account.settle()
    move_on(second)
    assert show(client, second)["result"] == "All 2 are stopped."


def test_instance_that_somebody_else_is_stopping_is_followed(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.change("b", "stopping")

    move_on(body)

    assert show(client, body)["success"] is None
    assert show_states(client, body)["b"] == "requested"
    account.change("b", "exited")
    move_on(body)
    assert show(client, body)["success"] is True
    assert account.orders == ["stop a"]


def test_dry_run_counts_requests_only(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"), make_row("b", status="toStop"))

    _, body = press(client, dryRun=True)

    assert body["message"] == "Would stop 1 running instance"
    assert body["count"] == 1
    assert body["total"] == 1
