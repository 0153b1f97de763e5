"""A second request while an operation is running: it requests the currently running instances within its answer."""

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections
from django.test import Client
from django.utils import timezone
from fakeredis import FakeServer

from instances.access.audit import Actor
from instances.models import Operation, Target
from instances.operations import emergency, joining, orders, requesting, rounds
from tests.conftest import ApiClient
from tests.novita_answers import Account, NovitaAnswers, make_refusal, make_row
from tests.operation_steps import (
    OPERATIONS,
    STOP_ALL,
    Json,
    cancel,
    move_on,
    order,
    order_at_once,
    pass_deadline,
    show,
    show_states,
    show_target,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

NEVER_STOPS = (200, {}, "{}")


@pytest.fixture
def account(novita: NovitaAnswers) -> Account:
    """Holds "a", whose stops are accepted and never carried out."""
    account = novita.holds(make_row("a"))
    account.answers("stop a", NEVER_STOPS)
    return account


def hold_claim(answer: Json, *, seconds: float = 60) -> None:
    """Let another process, which does nothing, hold the operation's claim."""
    until = timezone.now() + timedelta(seconds=seconds)
    Operation.objects.filter(pk=answer["operationId"]).update(claim="another", claimed_until=until)


def list_requested(answer: Json) -> dict[str, str]:
    return {result["instanceId"]: result["state"] for result in answer["results"]}


# --- What runs now is requested and counted


def test_second_stop_requests_and_counts_newly_started_instances(client: Client, account: Account) -> None:
    first = order(client)
    account.change("c", "running")

    second = order(client)

    assert second["operationId"] == first["operationId"]
    assert second["count"] == 2
    assert second["total"] == 2
    assert second["message"] == "Stop initiated for 2 of 2 running instances"
    assert list_requested(second) == {"a": "requested", "c": "requested"}
    assert account.orders == ["stop a", "stop c"]
    assert show(client, second)["counts"]["requested"] == 2
    account.change("a", "exited")
    account.settle()
    move_on(second)
    assert show(client, second)["result"] == "All 2 are stopped."


def reopen_confirmed(client: Client, account: Account, first: Json) -> None:
    """It was verified as stopped, and runs again."""
    account.change("b", "exited")
    move_on(first)
    assert show_states(client, first)["b"] == "confirmed"
    account.change("b", "running")


def remove_protection(client: Client, account: Account, first: Json) -> None:
    assert show_states(client, first)["b"] == "skipped"
    client.delete("/api/instances/b/protect")


def exhaust(client: Client, account: Account, first: Json) -> None:
    account.change("b", "running")
    Target.objects.filter(instance_id="b").update(attempts=Target.MAX_ATTEMPTS)
    account.calls.clear()
    move_on(first, 2)
    assert "stop b" not in account.orders


def fail_hopelessly(client: Client, account: Account, first: Json) -> None:
    account.change("b", "running")
    Target.objects.filter(instance_id="b").update(state="failed", error_code="NOVITA_REJECTED_KEY", error="refused")


def fail_for_a_while(client: Client, account: Account, first: Json) -> None:
    account.change("b", "running")
    pause = timezone.now() + timedelta(seconds=60)
    Target.objects.filter(instance_id="b").update(
        state="failed", error_code="NOVITA_UNAVAILABLE", next_request_at=pause
    )


def leave_to_another(client: Client, account: Account, first: Json) -> None:
    """It was stopping by somebody else's order when it became a target, and runs again."""
    account.change("b", "running")
    Target.objects.filter(instance_id="b").update(attempts=0, requested_at=None, next_request_at=None)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("prepare", "is_claim_held"),
    [
        (reopen_confirmed, True),
        (reopen_confirmed, False),
        (remove_protection, True),
        (exhaust, True),
        (fail_hopelessly, True),
        (fail_for_a_while, True),
        (leave_to_another, True),
        (leave_to_another, False),
    ],
)
def test_second_stop_requests_known_instances_that_no_round_would_request(
    prepare: Callable[[Client, Account, Json], None],
    is_claim_held: bool,
    client: Client,
    account: Account,
) -> None:
    account.change("b", "running")
    if prepare is remove_protection:
        client.post("/api/instances/b/protect", {"reason": "the demo"})
    first = order(client)
    prepare(client, account, first)
    account.calls.clear()
    if is_claim_held:
        hold_claim(first)

    second = order(client)

    assert account.orders == ["stop b"]
    assert second["operationId"] == first["operationId"]
    assert list_requested(second)["b"] == "requested"
    assert second["count"] == 2
    assert second["total"] == 2
    assert second["skipped"] == []


def test_open_target_is_not_requested_twice(client: Client, account: Account) -> None:
    order(client)

    order(client)

    assert account.orders == ["stop a"]


def test_stop_requests_at_once_while_another_process_holds_the_claim(client: Client, account: Account) -> None:
    first = order(client)
    hold_claim(first)
    account.change("c", "running")
    began = time.monotonic()

    second = order(client)

    assert time.monotonic() - began < 10
    assert account.orders == ["stop a", "stop c"]
    assert second["count"] == 2
    assert second["total"] == 2


def test_simultaneous_joins_request_each_instance_once(client: Client, account: Account) -> None:
    first = order(client)
    hold_claim(first)
    for id_ in "bcde":
        account.change(id_, "running")

    answers = order_at_once(4)

    assert account.orders == [f"stop {id_}" for id_ in "abcde"]
    assert {answer["operationId"] for answer in answers} == {first["operationId"]}
    assert set(show_states(client, first).values()) == {"requested"}


def test_old_page_does_not_reopen_a_verified_target(client: Client, account: Account) -> None:
    account.change("b", "running")
    first = order(client)
    account.change("b", "exited")
    move_on(first)
    rows = [account.rows["a"], {**account.rows["b"], "status": "running"}]
    account.answers("list", (200, {}, json.dumps({"instances": rows, "total": 2})))
    account.calls.clear()

    order(client)

    assert account.orders == []
    assert show_states(client, first)["b"] == "confirmed"


def share_is_on_its_way(client: Client, account: Account) -> None:
    """Another process that has joined sends the request, and a round reads the account before it is answered."""
    assert joining.join(Operation.objects.get(), None, 600, 5)
    account.change("c", "toStop")
    rounds.advance(Operation.objects.get().pk)


def somebody_stops_it(client: Client, account: Account) -> None:
    """It becomes a target that is stopping by another's request."""
    account.change("c", "toStop")
    order(ApiClient())


@pytest.mark.parametrize("stop_meanwhile", [share_is_on_its_way, somebody_stops_it])
def test_old_page_does_not_repeat_a_request_on_its_way(
    stop_meanwhile: Callable[[Client, Account], None], client: Client, account: Account
) -> None:
    first = order(client)
    account.change("c", "running")
    page = (200, {}, json.dumps({"instances": list(account.rows.values()), "total": 2}))

    def read_slowly() -> Any:
        thread = threading.Thread(target=lambda: (stop_meanwhile(client, account), connections.close_all()))
        thread.start()
        thread.join()
        return page

    account.answers("list", read_slowly, None)

    order(client)

    assert account.orders == ["stop a"]
    assert show_states(client, first)["c"] == "requested"


def test_request_that_is_not_answered_yet_is_not_repeated(client: Client, account: Account) -> None:
    order(client)
    account.change("c", "running")
    share_is_on_its_way(client, account)
    account.change("c", "running")  # An old page.

    order(client)

    assert account.orders == ["stop a"]


def test_older_read_does_not_confirm_a_request(client: Client, account: Account) -> None:
    ids = [f"i{number:02}" for number in range(12)]
    for id_ in ids:
        account.change(id_, "running")
        account.answers(f"stop {id_}", NEVER_STOPS)
    first = order(client, ids=ids)
    account.change("i00", "exited")
    move_on(first)
    assert show_states(client, first)["i00"] == "confirmed"

    def read_slowly() -> Any:
        page = json.dumps({"instances": list(account.rows.values()), "total": len(account.rows)})
        account.change("i00", "running")
        order(ApiClient(), ids=ids)
        return 200, {}, page

    account.answers("list", read_slowly, None)
    move_on(first)

    assert account.rows["i00"]["status"] == "running"
    assert show_states(client, first)["i00"] == "requested"


def test_stop_of_some_never_replaces_a_stop_of_all(client: Client, account: Account) -> None:
    account.change("b", "running")
    whole = order(client)
    # By the rule of the deadline it can be joined for half a second more.
    begun_at = timezone.now() - timedelta(seconds=settings.NOVITA_STOP_DEADLINE - 0.5)
    Operation.objects.update(created_at=begun_at)
    pass_deadline(whole, seconds=-60)

    def look_slowly(execute: Any, sql: str, *rest: Any) -> Any:
        found = execute(sql, *rest)
        if "COUNT(" in sql and "instances_target" in sql:
            time.sleep(0.6)
        return found

    with connection.execute_wrapper(look_slowly):
        some = order(client, ids=["b"])

    assert some["operationId"] != whole["operationId"]
    assert show(client, whole)["finishedAt"] is None


def test_answer_after_the_end_leaves_a_verified_target(client: Client, account: Account) -> None:
    first = order(client)

    def end_meanwhile() -> Any:
        for id_ in ("a", "c"):
            account.change(id_, "exited")
        rounds.advance(Operation.objects.get().pk)
        return NEVER_STOPS

    account.change("c", "running")
    account.answers("stop c", end_meanwhile)

    order(client)

    assert show(client, first)["success"] is True
    assert show_states(client, first) == {"a": "confirmed", "c": "confirmed"}
    assert show_target(client, first, "c")["attempts"] == 1


def test_request_that_a_cancellation_overtakes_is_verified(client: Client, account: Account) -> None:
    first = order(client)

    def cancel_meanwhile() -> None:
        account.change("a", "exited")
        assert cancel(ApiClient(), first).status_code == 200
        rounds.advance(Operation.objects.get().pk)

    account.change("c", "running")
    account.answers("stop c", cancel_meanwhile, None)

    order(client)
    account.settle()
    move_on(first)

    assert show_states(client, first) == {"a": "confirmed", "c": "confirmed"}
    assert show(client, first)["finishedAt"]


def test_result_waits_for_targets_added_meanwhile(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)
    account.settle()

    def join() -> None:
        # During the last read, which shows less than this one.
        account.change("c", "running")
        thread = threading.Thread(target=lambda: (order(ApiClient()), connections.close_all()))
        thread.start()
        while Target.objects.filter(instance_id="c", state="requested").count() == 0:
            time.sleep(0.05)
        threads.append(thread)

    threads: list[threading.Thread] = []
    page = (200, {}, json.dumps({"instances": [{**account.rows["a"], "status": "exited"}], "total": 1}))
    account.answers("list", lambda: join() or page, None)

    move_on(first)
    threads[0].join()

    assert show(client, first)["finishedAt"] is None
    assert show_states(client, first) == {"a": "confirmed", "c": "requested"}
    account.settle()
    move_on(first)
    assert show(client, first)["result"] == "All 2 are stopped."


def test_targets_reserved_by_a_dead_process_are_requested_by_the_next_round(client: Client, account: Account) -> None:
    first = order(client)
    account.change("c", "running")
    joined = joining.join(Operation.objects.get(), None, 600, 5)
    assert joined and [target.instance_id for target in joined.share.targets] == ["c"]

    rounds.advance(Operation.objects.get().pk)
    assert "stop c" not in account.orders, "it is reserved"
    move_on(first)  # When the reservation is over.

    assert account.orders.count("stop c") == 1


def test_share_of_a_suspended_process_requests_nothing(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(client)
    account.change("c", "running")
    operation = Operation.objects.get()
    joined = joining.join(operation, None, 600, 5)
    assert joined
    monkeypatch.setattr("instances.operations.claims.CLAIM_SECONDS", -1)

    requesting.request_share(operation, joined.share, joined.observed)

    assert account.orders == ["stop a"]


def test_cancelling_ends_the_requests_of_a_joined_process(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.operations.claims.HEARTBEAT_SECONDS", 0.05)
    first = order(client)
    hold_claim(first)
    ids = [f"i{number:02}" for number in range(20)]
    for id_ in ids:
        account.change(id_, "running")

        def cancel() -> None:
            ApiClient().post(f"{first['operationUrl']}/cancel")
            time.sleep(0.6)

        account.answers(f"stop {id_}", cancel)

    order(client)

    assert len(account.orders) <= 1 + 8, "no more than were under way at once"
    assert show(client, first)["counts"]["pending"] == 0


# --- Novita can't be read on joining


def test_inventory_names_started_instances_without_a_listing(client: Client, account: Account) -> None:
    first = order(client)
    account.change("c", "running")
    assert client.post("/api/instances/sync").status_code == 200
    account.answers("list", 500)

    second = order(client)

    assert second["operationId"] == first["operationId"]
    assert account.orders == ["stop a", "stop c"]
    assert any("from the cached inventory" in warning for warning in second["warnings"])


def test_answer_without_listing_and_inventory_names_what_is_not_covered(client: Client, account: Account) -> None:
    first = order(client)
    account.change("c", "running")
    account.answers("list", 500)

    answer = client.post(STOP_ALL)

    body = answer.json()
    assert answer.status_code == 202
    assert body["success"] is False
    assert body["operationId"] == first["operationId"]
    assert any(warning.startswith("Novita could not be read again:") for warning in body["warnings"])
    account.answers("list", None)
    account.change("a", "exited")
    move_on(first)
    assert account.orders == ["stop a", "stop c"]


def test_empty_inventory_does_not_show_that_nothing_is_running(client: Client, account: Account) -> None:
    account.change("a", "exited")
    assert client.post("/api/instances/sync").status_code == 200
    account.change("a", "running")
    account.answers("list", 500)

    answer = client.post(STOP_ALL)

    assert answer.status_code == 202
    assert answer.json()["success"] is False
    assert answer.json()["message"] == "It is not known whether anything is running"


def test_unreadable_instance_that_the_inventory_shows_stopped_is_requested(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a", status="exited"))
    assert client.post("/api/instances/sync").status_code == 200
    account.change("a", "running")
    account.answers("read a", 500)

    answer = order(client, ids=["a"])

    assert account.orders == ["stop a"]
    assert list_requested(answer) == {"a": "requested"}


def test_joining_needs_no_redis(client: Client, account: Account, redis_server: FakeServer) -> None:
    order(client)
    account.change("c", "running")
    redis_server.connected = False

    order(client)

    assert account.orders == ["stop a", "stop c"]


# --- What can't be joined


@pytest.mark.parametrize("seconds", [1, 3000])
@pytest.mark.parametrize("is_claim_held", [False, True], ids=["free", "held"])
def test_overdue_operation_is_ended_and_a_new_one_requests_running_instances(
    seconds: float, is_claim_held: bool, client: Client, account: Account
) -> None:
    account.change("b", "running")
    first = order(client)
    account.change("b", "exited")
    account.change("c", "running")
    pass_deadline(first, seconds)
    if is_claim_held:
        hold_claim(first)
    account.calls.clear()

    answer = client.post(STOP_ALL)

    second = answer.json()
    assert second["operationId"] != first["operationId"]
    assert answer.status_code == 200
    assert account.orders == ["stop a", "stop c"]
    assert second["count"] == 2
    assert second["total"] == 2
    shown = show(client, first)
    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert shown["finishedAt"][-1] == "Z"
    assert {one["instanceId"]: one["state"] for one in shown["targets"]} == {"a": "stillRunning", "b": "confirmed"}
    why = "Abandoned: no worker was running." if seconds > 60 else "Replaced by a newer operation."
    assert shown["result"] == f"1 of 2 is still running. {why}"


def test_new_operation_follows_the_requests_of_an_overdue_one(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)
    pass_deadline(first)
    account.change("a", "stopping")

    second = order(client)

    assert list_requested(second) == {"a": "requested"}
    assert show(client, first)["result"] == "1 of 1 is still stopping. Replaced by a newer operation."
    account.change("a", "running")
    move_on(second)
    assert account.orders == ["stop a", "stop a"]


def test_overdue_operation_with_every_target_stopped_is_a_success(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)
    pass_deadline(first)
    account.settle()

    second = order(client)

    assert show(client, first)["success"] is True
    assert show(client, first)["result"] == "The instance is stopped."
    assert second["message"] == "Nothing is running"


def test_overdue_operation_ends_even_when_nothing_can_be_read(client: Client, account: Account) -> None:
    first = order(client)
    pass_deadline(first)
    account.answers("list", 500)

    answer = client.post(STOP_ALL)

    assert answer.status_code == 502
    assert show(client, first)["state"] == "finished"
    assert show_states(client, first) == {"a": "unknown"}


@pytest.mark.parametrize("kind", ["start", "restart"])
def test_overdue_start_is_not_joined(kind: str, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited" if kind == "start" else "running"))
    first = order(client, OPERATIONS, kind=kind, ids=["a"])
    pass_deadline(first)
    account.change("a", "exited" if kind == "start" else "running")

    second = order(client, OPERATIONS, kind=kind, ids=["a"])

    assert second["operationId"] != first["operationId"]
    assert account.orders == [f"{kind} a"] * 2
    assert show(client, first)["state"] == "finished"


def test_cancelled_operation_is_not_joined_while_it_verifies(client: Client, account: Account) -> None:
    first = order(client)
    assert client.post(f"{first['operationUrl']}/cancel").json()["finishedAt"] is None
    account.change("c", "running")

    second = order(client)

    assert second["operationId"] != first["operationId"]
    assert list_requested(second) == {"a": "requested", "c": "requested"}


def test_operation_whose_process_died_before_listing_is_replaced(client: Client, account: Account) -> None:
    dead = Operation.objects.create(
        kind="stop",
        is_whole_account=True,
        selection="stop:all",
        deadline_at=timezone.now() + timedelta(seconds=600),
        claim="killed",
        claimed_until=timezone.now() + timedelta(seconds=0.5),
    )

    answer = order(client)

    assert account.orders == ["stop a"]
    assert answer["count"] == 1
    dead.refresh_from_db()
    assert dead.state == "finished"
    assert dead.success is False
    assert dead.result == "Nothing was done. The process ended before anything was requested."


def test_selection_is_not_given_to_an_overdue_stop_of_all(client: Client, account: Account) -> None:
    whole = order(client)
    pass_deadline(whole)

    answer = order(client, ids=["a"])

    assert answer["operationId"] != whole["operationId"]
    assert account.orders == ["stop a", "stop a"]


# --- Selections


def test_repeated_selection_requests_instances_that_are_running_again(client: Client, account: Account) -> None:
    account.change("b", "running")
    first = order(client, OPERATIONS, kind="stop", ids=["a", "b"])
    account.change("b", "exited")
    move_on(first)
    account.change("b", "running")
    account.calls.clear()

    second = order(client, OPERATIONS, kind="stop", ids=["b", "a"])

    assert second["operationId"] == first["operationId"]
    assert account.orders == ["stop b"]


def test_selection_joining_a_stop_of_all_requests_instances_running_again(client: Client, account: Account) -> None:
    account.change("b", "running")
    whole = order(client)
    account.change("b", "exited")
    move_on(whole)
    account.change("b", "running")
    account.calls.clear()

    answer = order(client, ids=["b"])

    assert answer["operationId"] == whole["operationId"]
    assert account.orders == ["stop b"]


def test_repeated_start_starts_instances_stopped_meanwhile(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"), make_row("b", status="exited"))
    account.answers("start b", (400, {}, json.dumps(make_refusal(400, "INSUFFICIENT_RESOURCE", ""))), None)
    first = order(client, OPERATIONS, kind="start", ids=["a", "b"])
    Target.objects.filter(instance_id="b").update(next_request_at=timezone.now() + timedelta(seconds=60))
    account.settle()
    rounds.advance(Operation.objects.get().pk)
    Operation.objects.update(next_round_at=timezone.now())
    assert show_states(client, first) == {"a": "confirmed", "b": "failed"}
    account.change("a", "exited")
    account.calls.clear()

    order(client, OPERATIONS, kind="start", ids=["a", "b"])

    assert account.orders == ["start a", "start b"]


def test_repeated_restart_restarts_once(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    first = order(client, OPERATIONS, kind="restart", ids=["a", "b"])
    account.change("a", "running", lastStartedAt="1760009999")
    move_on(first)
    assert show_states(client, first) == {"a": "confirmed", "b": "requested"}

    order(client, OPERATIONS, kind="restart", ids=["a", "b"])

    assert account.orders == ["restart a", "restart b"]


# --- The deadline


def find_seconds_left() -> float:
    return (Operation.objects.latest("created_at").deadline_at - timezone.now()).total_seconds()


def wish(seconds: float) -> orders.Wish:
    return orders.Wish(kind="stop", ids=None, actor=Actor("x"), deadline_seconds=seconds)


@pytest.mark.parametrize(("first", "second", "left"), [(60, 600, 600), (600, 60, 600), (600, 600, 600)])
def test_joining_extends_the_deadline_and_never_shortens_it(
    first: float, second: float, left: float, account: Account
) -> None:
    emergency.run_and_answer(wish(first), orders.ANSWER_SECONDS)

    emergency.run_and_answer(wish(second), orders.ANSWER_SECONDS)

    assert Operation.objects.count() == 1
    assert left - 5 < find_seconds_left() <= left


def test_operation_joined_for_twice_its_time_is_replaced(client: Client, account: Account) -> None:
    first = order(client)
    Operation.objects.update(
        created_at=timezone.now() - timedelta(seconds=601), deadline_at=timezone.now() + timedelta(seconds=590)
    )

    second = order(client)

    assert second["operationId"] != first["operationId"]
    assert account.orders == ["stop a", "stop a"]
    assert show(client, first)["result"] == "1 of 1 is still running. Replaced by a newer operation."
    assert 590 < find_seconds_left() <= 600


# --- 200 means that all that runs was requested


def test_answer_is_202_while_something_is_pending_on_joining_too(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(client)
    account.change("c", "running")
    monkeypatch.setattr("instances.operations.orders.ANSWER_SECONDS", 0.5)
    go_on = threading.Event()
    account.answers("stop c", lambda: go_on.wait(20) and None)

    answer = client.post(STOP_ALL)

    assert answer.status_code == 202
    assert list_requested(answer.json()) == {"a": "requested", "c": "pending"}
    go_on.set()
    while any(thread.name == "operation" for thread in threading.enumerate()):
        time.sleep(0.05)
    assert show_states(client, answer.json()) == {"a": "requested", "c": "requested"}


def test_answer_claims_nothing_while_another_process_reads_the_account(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.operations.orders.ANSWER_SECONDS", 0.1)
    Operation.objects.create(
        kind="stop",
        is_whole_account=True,
        selection="stop:all",
        deadline_at=timezone.now() + timedelta(seconds=600),
        claim="another",
        claimed_until=timezone.now() + timedelta(seconds=60),
    )

    answer = client.post(STOP_ALL)

    assert answer.status_code == 202
    assert answer.json()["success"] is False
    assert answer.json()["message"] == "The account is still being read"


# --- The reason of a result


def test_reason_of_a_result_is_not_an_unrelated_note(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b", name="other", status="migrating"))
    first = order(client)
    account.settle()
    page, end = ((200, {}, json.dumps({"instances": rows, "total": 5})) for rows in ([*account.rows.values()], []))
    account.answers("list", page, end, end, end, page, end)

    move_on(first)

    shown = show(client, first)
    assert (
        shown["result"]
        == "The instance is stopped. Novita counts 3 more instances than it lists. Check Novita's console."
    )
    assert any("in another status (migrating)" in note for note in shown["notes"])


def test_error_of_a_target_survives_a_round(client: Client, account: Account) -> None:
    """A round stores what it has seen, and no more."""
    first = order(client)
    hold_claim(first, seconds=-1)

    def request_elsewhere() -> Any:
        Target.objects.update(state="requested", attempts=7, error="")
        return None

    Target.objects.update(state="pending", attempts=0, next_request_at=timezone.now() + timedelta(seconds=30))
    account.answers("read a", request_elsewhere)
    rounds.advance(Operation.objects.get().pk)

    assert show_target(client, first)["state"] == "requested"
    assert show_target(client, first)["attempts"] == 7
