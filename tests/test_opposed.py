"""A stop while a start or a restart of the same instances runs: the stop has the last word."""

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from instances.models import Operation
from instances.novita.client import get_novita
from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_refusal, make_row
from tests.operation_steps import (
    OPERATIONS,
    STOP_ALL,
    move_on,
    order,
    pass_deadline,
    protect,
    show,
    show_states,
    wait_for_no_round,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

NO_GPU = (400, {}, json.dumps(make_refusal(400, "INSUFFICIENT_RESOURCE", "")))


def stop_everything(client: Client) -> None:
    order(client, STOP_ALL)


def stop_some(client: Client) -> None:
    order(client, STOP_ALL, ids=["a"])


def stop_one(client: Client) -> None:
    client.post("/api/instances/sync")
    assert client.post("/api/instances/a/stop").status_code == 202


@pytest.mark.parametrize("stop", [stop_everything, stop_some, stop_one])
def test_start_is_not_repeated_after_a_later_stop(stop: Any, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    start = order(client, OPERATIONS, kind="start", ids=["a"])
    account.change("a", "running")
    stop(client)
    account.settle()

    move_on(start, 3)

    assert account.orders == ["start a", "stop a"]
    shown = show(client, start)
    assert shown["finishedAt"]
    assert shown["counts"]["confirmed"] == 0


def test_start_waiting_for_a_gpu_is_cancelled_by_a_stop_of_all(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"), make_row("b"))
    account.answers("start a", NO_GPU, None)
    start = order(client, OPERATIONS, kind="start", ids=["a"])
    assert show_states(client, start) == {"a": "failed"}

    order(client)
    assert show_states(client, start) == {"a": "skipped"}
    move_on(start, 2)

    assert account.orders == ["start a", "stop b"]
    assert show(client, start)["state"] == "cancelled"
    assert show(client, start)["success"] is False


def test_stop_of_some_instances_keeps_the_start_of_others(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"), make_row("b", status="exited"))
    account.answers("start b", NO_GPU, None)
    start = order(client, OPERATIONS, kind="start", ids=["a", "b"])
    account.change("a", "running")

    order(client, ids=["a"])
    move_on(start)

    assert account.orders == ["start a", "start b", "start b", "stop a"]
    assert show_states(client, start) == {"a": "skipped", "b": "requested"}


def test_joining_a_stop_of_all_cancels_later_starts(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("c", status="exited"))
    order(client)
    start = order(client, OPERATIONS, kind="start", ids=["c"])
    account.change("c", "running")

    order(client)

    assert account.orders == ["start c", "stop a", "stop c"]
    assert show(client, start)["state"] == "cancelled"


def test_dry_run_cancels_nothing(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"))
    start = order(client, OPERATIONS, kind="start", ids=["a"])

    order(client, dryRun=True)

    assert show(client, start)["state"] == "verifying"


def test_stop_goes_on_beside_a_start_of_others(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b", status="exited"))
    stop = order(client, ids=["a"])
    order(client, OPERATIONS, kind="start", ids=["b"])
    pass_deadline(stop)
    account.settle()

    move_on(stop)

    assert show(client, stop)["result"] == "The instance is stopped."


@pytest.mark.parametrize("outcome", [(200, {}, "{}"), NO_GPU], ids=["accepted", "refused"])
def test_late_answer_to_a_start_does_not_reopen_it_after_a_stop(
    outcome: Any, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a", status="exited"))

    def stop_meanwhile() -> Any:
        account.change("a", "running")
        order(ApiClient(), ids=["a"])
        account.settle()
        return outcome

    account.answers("start a", stop_meanwhile, None)

    start = order(client, OPERATIONS, kind="start", ids=["a"])
    move_on(start, 3)

    assert account.orders == ["start a", "stop a"]
    assert show_states(client, start) == {"a": "skipped"}
    assert show(client, start)["finishedAt"]


@pytest.mark.parametrize("stop_meanwhile", [stop_some, stop_everything])
def test_start_that_waits_for_its_turn_is_not_sent_after_a_stop(
    stop_meanwhile: Any, monkeypatch: pytest.MonkeyPatch, client: Client, novita: NovitaAnswers
) -> None:
    monkeypatch.setattr(get_novita(), "concurrency", 1)
    wait_for_no_round(monkeypatch)
    account = novita.holds(make_row("0", status="exited"), make_row("a", status="exited"))
    account.answers("start 0", lambda: stop_meanwhile(ApiClient()), None)

    start = order(client, OPERATIONS, kind="start", ids=["0", "a"])
    move_on(start, 3)

    assert "start a" not in account.orders


def test_restart_that_waits_for_its_turn_is_not_sent_after_a_protection(
    monkeypatch: pytest.MonkeyPatch, client: Client, novita: NovitaAnswers
) -> None:
    monkeypatch.setattr(get_novita(), "concurrency", 1)
    wait_for_no_round(monkeypatch)
    account = novita.holds(make_row("0"), make_row("a"))
    account.answers("restart 0", lambda: protect(ApiClient(), "a"), None)

    restart = order(client, OPERATIONS, kind="restart", ids=["0", "a"])
    move_on(restart)

    assert account.orders == ["restart 0"]
    assert show_states(client, restart) == {"0": "requested", "a": "skipped"}


def test_stop_that_waits_for_its_turn_is_not_sent_after_a_protection(
    monkeypatch: pytest.MonkeyPatch, client: Client, novita: NovitaAnswers
) -> None:
    monkeypatch.setattr("instances.operations.claims.HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(get_novita(), "concurrency", 1)
    wait_for_no_round(monkeypatch)
    account = novita.holds(make_row("0"), make_row("a"))

    def protect_slowly() -> None:
        protect(ApiClient(), "a")
        time.sleep(0.3)

    account.answers("stop 0", protect_slowly, None)

    stop = order(client)
    move_on(stop)

    assert account.orders == ["stop 0"]
    assert show_states(client, stop) == {"0": "requested", "a": "skipped"}


@pytest.mark.parametrize("path", [OPERATIONS, "/api/instances/a/stop"], ids=["operation", "single"])
def test_start_is_not_sent_while_a_stop_reads_the_instance(path: str, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    account.answers("start a", NO_GPU, None)
    start = order(client, OPERATIONS, kind="start", ids=["a"])

    def start_meanwhile() -> Any:
        row = json.dumps(account.rows["a"])
        move_on(start)
        return 200, {}, row

    account.answers("read a", start_meanwhile, None)

    assert client.post(path, {"kind": "stop", "ids": ["a"]} if path == OPERATIONS else {}).status_code == 200
    move_on(start)

    assert account.orders == ["start a"]
    assert show_states(client, start) == {"a": "skipped"}


def test_start_that_reads_the_account_is_cancelled_by_a_stop(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"), make_row("b", status="exited"))

    def stop_meanwhile() -> None:
        order(ApiClient(), ids=["a", "c"])

    account.answers("read a", stop_meanwhile, None)

    start = order(client, OPERATIONS, kind="start", ids=["a", "b"])

    assert account.orders == ["start b"]
    assert show_states(client, start) == {"a": "skipped", "b": "requested"}
    (skipped,) = [one for one in show(client, start)["targets"] if one["instanceId"] == "a"]
    assert skipped["message"] == "Cancelled by a later stop."
    assert skipped["name"] == "name-a"


def test_start_that_joins_another_one_is_cancelled_by_a_stop(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    account.answers("start a", NO_GPU, None)
    start = order(client, OPERATIONS, kind="start", ids=["a"])

    def stop_meanwhile() -> None:
        order(ApiClient(), ids=["a"])

    account.answers("read a", stop_meanwhile, None)

    assert order(client, OPERATIONS, kind="start", ids=["a"])["operationId"] == start["operationId"]
    move_on(start)

    assert account.orders == ["start a"]
    assert show_states(client, start) == {"a": "skipped"}


def test_start_after_a_stop_is_sent(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"), make_row("b", status="exited"))
    account.answers("start a", NO_GPU, None)
    start = order(client, OPERATIONS, kind="start", ids=["a", "b"])
    order(client, ids=["a"])

    assert order(client, OPERATIONS, kind="start", ids=["a", "b"])["operationId"] == start["operationId"]

    assert account.orders == ["start a", "start a", "start b"]


def test_restart_that_waits_for_its_turn_is_not_sent_by_a_replaced_operation(
    monkeypatch: pytest.MonkeyPatch, client: Client, novita: NovitaAnswers
) -> None:
    monkeypatch.setattr(get_novita(), "concurrency", 1)
    account = novita.holds(make_row("0"), make_row("a"))

    def replace_meanwhile() -> None:
        # By the rule of the deadline it can't be joined any more.
        now = timezone.now()
        began = now - timedelta(seconds=settings.NOVITA_STOP_DEADLINE + 1)
        Operation.objects.update(created_at=began, deadline_at=now + timedelta(seconds=60))
        order(ApiClient(), OPERATIONS, kind="restart", ids=["0", "a"])

    account.answers("restart 0", replace_meanwhile, None)

    order(client, OPERATIONS, kind="restart", ids=["0", "a"])

    assert Operation.objects.count() == 2
    assert account.orders.count("restart a") == 1
