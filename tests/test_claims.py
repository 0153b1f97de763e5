"""The claim of an operation: one process advances it, and another takes over from a dead or suspended one."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from instances import clock
from instances.fallback import standby
from instances.models import AuditEntry, Operation, Target
from instances.novita.client import get_novita
from instances.novita.rows import from_novita
from instances.operations import claims, joining, requesting, rounds
from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import (
    OPERATIONS,
    Json,
    move_on,
    move_on_at_once,
    order,
    pass_deadline,
    show,
    show_states,
    wait_for_no_round,
)
from tests.system.processes import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


def give_to_another(answer: Json, *, seconds: float) -> None:
    """Let another process hold the claim, for so many seconds more."""
    until = timezone.now() + timedelta(seconds=seconds)
    Operation.objects.filter(pk=answer["operationId"]).update(claim="another", claimed_until=until)


def wait_until_noticed() -> None:
    """Wait until the holder of a claim has noticed its loss: then its heartbeat ends."""
    wait_until(lambda: all(thread.name != "claim" for thread in threading.enumerate()), "the loss is noticed")


# --- The claim


def test_two_rounds_never_run_at_once(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.change("a", "running")
    operation = Operation.objects.get()
    second: list[bool] = []
    account.answers("read a", lambda: second.append(rounds.advance(operation.pk)))
    account.calls.clear()

    move_on(body)

    assert second == [False]
    assert account.calls == ["read a", "stop a"]


def test_round_waits_for_the_holder_of_the_claim(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    give_to_another(body, seconds=10)
    account.calls.clear()

    move_on(body)
    assert account.calls == []
    assert show(client, body)["state"] == "verifying"
    give_to_another(body, seconds=-1)
    move_on(body)

    assert show(client, body)["state"] == "finished"


def test_takeover_reads_before_it_requests(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    body = order(client)
    # The record of a process that was killed before it could store Novita's answer.
    Target.objects.update(state="pending", attempts=0, next_request_at=None)
    account.change("b", "running")

    move_on(body)

    assert account.orders == ["stop a", "stop b", "stop b"]
    assert show_states(client, body) == {"a": "requested", "b": "requested"}


def test_process_without_the_claim_requests_and_concludes_nothing(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.operations.claims.HEARTBEAT_SECONDS", 0.05)
    account = novita.holds(make_row("a"), make_row("b"))
    body = order(client)
    account.settle()
    account.change("b", "running")

    def sleep_through() -> None:
        give_to_another(body, seconds=30)
        wait_until_noticed()

    account.answers("read a", sleep_through)
    move_on(body)

    assert account.orders == ["stop a", "stop b"]
    assert show_states(client, body) == {"a": "requested", "b": "requested"}
    assert Operation.objects.get().claim == "another"


def test_takeover_during_the_requests_repeats_none(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.operations.claims.HEARTBEAT_SECONDS", 0.05)
    wait_for_no_round(monkeypatch)
    ids = [f"i{number:02}" for number in range(20)]
    account = novita.holds(*(make_row(id_) for id_ in ids))

    is_taken = threading.Lock()

    def sleep_through() -> None:
        # Once: a late one would take the claim of the next round.
        if is_taken.acquire(blocking=False):
            until = timezone.now() + timedelta(seconds=30)
            Operation.objects.update(claim="another", claimed_until=until)
        wait_until_noticed()

    for id_ in ids:
        account.answers(f"stop {id_}", sleep_through)
    body = order(client)
    # Its record now could overwrite what another process has read since. Eight at once is the limit.
    assert 1 <= len(account.orders) <= 8
    assert set(show_states(client, body).values()) == {"pending"}

    for id_ in ids:
        account.answers(f"stop {id_}", None)
    give_to_another(body, seconds=-1)
    move_on(body)

    assert sorted(account.orders) == [f"stop {id_}" for id_ in ids]
    assert set(show_states(client, body).values()) == {"requested"}


def test_process_that_loses_the_claim_at_the_end_concludes_nothing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.answers("list", lambda: give_to_another(body, seconds=30))

    move_on(body)

    shown = show(client, body)
    assert shown["state"] == "verifying"
    assert shown["success"] is None
    assert shown["finishedAt"] is None
    assert not AuditEntry.objects.filter(action="instance.stop").exists()


def test_expired_claim_does_not_conclude_for_another_process(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.calls.clear()
    operation = Operation.objects.get()
    claim = claims.take_claim(operation)
    assert claim
    give_to_another(body, seconds=30)

    rounds.run_round(operation.pk, claim, None)

    assert account.calls == []
    assert Operation.objects.get().claim == "another"


# --- A process that died early


def leave_unlisted(**fields: Any) -> Json:
    """Leave what a process leaves that was killed before it had listed the account."""
    now = timezone.now()
    operation = Operation.objects.create(
        **{
            "kind": "stop",
            "is_whole_account": True,
            "selection": "stop:all",
            "deadline_at": now + timedelta(seconds=600),
            "claim": "killed",
            "claimed_until": now - timedelta(seconds=1),
            **fields,
        }
    )
    return {"operationId": str(operation.pk), "operationUrl": f"{OPERATIONS}/{operation.pk}"}


def test_another_process_lists_and_requests_after_an_early_kill(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = leave_unlisted()

    move_on(body)
    assert account.orders == ["stop a"]
    assert show_states(client, body) == {"a": "requested"}
    account.settle()
    move_on(body)

    assert show(client, body)["success"] is True


def test_operation_killed_early_is_tried_until_its_deadline(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("list", 500)
    body = leave_unlisted()

    move_on(body, 2)
    assert show(client, body)["finishedAt"] is None
    pass_deadline(body)
    move_on(body)

    shown = show(client, body)
    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert shown["result"] == "Nothing was done. Novita returned an error (HTTP 500)."


@pytest.mark.parametrize("fields", [{"is_whole_account": False}, {"state": "cancelled"}])
def test_operation_killed_early_that_cannot_begin_is_ended(fields: Json, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = leave_unlisted(**fields)

    move_on(body)

    shown = show(client, body)
    assert account.calls == []
    assert shown["success"] is False
    assert shown["finishedAt"] and "Nothing was done." in shown["result"]


@pytest.mark.parametrize("patience_seconds", [60, -1])
def test_round_does_not_repeat_a_request_that_was_sent_during_its_read(
    patience_seconds: float, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", (200, {}, "{}"))
    body = order(client)
    Target.objects.update(state=Target.State.PENDING, attempts=0, requested_at=None, next_request_at=None)

    def request_elsewhere() -> None:
        now = timezone.now()
        fields = {"requested_at": now, "next_request_at": now + timedelta(seconds=patience_seconds)}
        Target.objects.update(state=Target.State.REQUESTED, attempts=1, **fields)

    account.answers("read a", request_elsewhere)
    move_on_at_once(body)

    assert account.orders == ["stop a"]


def take_over() -> None:
    """Another process takes the claim that has expired meanwhile, and runs a round."""
    operation = Operation.objects.get()
    Operation.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    assert rounds.advance(operation.pk)


def test_process_that_was_suspended_before_it_stored_its_targets_joins(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("list", take_over, None)

    body = order(client)

    assert account.orders == ["stop a"]
    assert show_states(client, body) == {"a": "requested"}
    assert not [one for one in body["warnings"] if "database" in one]
    assert not standby.exists()


def test_worker_that_was_suspended_before_it_stored_its_targets_leaves_them(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    body = leave_unlisted()
    account.answers("list", take_over, None)

    move_on(body)

    assert account.orders == ["stop a"]
    assert show_states(client, body) == {"a": "requested"}
    assert not standby.exists()


def test_operation_that_ended_meanwhile_gets_no_targets(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    def end() -> None:
        Operation.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
        account.answers("list", None)
        order(ApiClient())

    account.answers("list", end)

    order(client)

    first, second = Operation.objects.order_by("created_at")
    assert first.result
    assert not first.targets.exists()
    assert second.targets.get().state == "requested"
    assert account.orders == ["stop a"]


def test_takeover_repeats_no_restart_that_has_taken_effect(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client, OPERATIONS, kind="restart", ids=["a"])
    # The record of a process that was killed before it could store Novita's answer.
    Target.objects.update(state="pending", attempts=0, requested_at=None, next_request_at=None, status="running")
    account.settle()

    move_on(body, 2)

    assert account.orders == ["restart a"]
    assert show(client, body)["success"] is True


def test_restart_since_the_inventory_is_not_taken_for_the_requested_one(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_no_round(monkeypatch)
    account = novita.holds(make_row("a"))
    assert client.post("/api/instances/sync").status_code == 200
    account.change("a", "running", lastStartedAt="1760009999")
    account.answers("read a", 500)
    body = order(client, OPERATIONS, kind="restart", ids=["a"])
    account.answers("read a", None)

    move_on(body)

    assert account.orders == ["restart a"]


def test_claim_is_over_after_the_machine_was_suspended(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_novita(), "concurrency", 1)
    account = novita.holds(make_row("a"), make_row("b"))
    body = leave_unlisted()
    steady = clock.steady

    def suspend() -> None:
        # Python's monotonic clock stands still while a machine is suspended.
        monkeypatch.setattr(clock, "steady", lambda: steady() + 60)
        monkeypatch.setattr(claims.Claim, "_renew", lambda claim: None)
        give_to_another(body, seconds=30)

    account.answers("stop a", suspend)

    move_on(body)

    assert account.orders == ["stop a"]
    assert show_states(client, body) == {"a": "pending", "b": "pending"}


def test_end_of_a_share_frees_no_target_that_another_one_has_reserved_since(
    client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    order(client)
    for id_ in ("c", "d"):
        account.change(id_, "running")
    joined = joining.join(Operation.objects.get(), None, 600, 5)
    assert joined
    (sent, rest), until = joined.share.targets, timezone.now() + timedelta(seconds=15)

    with joined.share as share:
        requesting._record_outcome("stop", sent, from_novita(make_row(sent.instance_id, status="toStop")), share)
        # It has stopped and was started, and somebody else who joins is about to request it.
        Target.objects.filter(pk=sent.pk).update(state="pending", next_request_at=until)

    assert Target.objects.get(pk=sent.pk).next_request_at == until
    assert Target.objects.get(pk=rest.pk).next_request_at is None
