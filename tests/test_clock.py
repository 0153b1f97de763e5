"""The clock is set back or forward by an hour: stops go on, no deadline passes by it, and synchronizations continue."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from fakeredis import FakeRedis

from instances import clock, tasks
from instances.inventory import store
from instances.models import Operation, SyncRun, WebhookDelivery
from instances.notifications import webhooks
from instances.operations import claims, rounds
from instances.refresher import Refresher
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import Json, order, show
from tests.redis_keys import name_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

HOUR = timedelta(hours=1)
READ_NOW = timezone.now


@pytest.fixture
def running_stop(client: Client, novita: NovitaAnswers) -> Json:
    """A stop of one instance that has been requested, seen by this process; the instance is stopped since."""
    account = novita.holds(make_row("a"))
    answer = order(client)
    for operation in Operation.objects.all():
        assert clock.seconds_until(operation.deadline_at) > 0
    account.settle()
    return answer


def set_clock(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Set the wall clock, and not the one that counts seconds since the machine was started."""
    monkeypatch.setattr(timezone, "now", lambda: READ_NOW() + by)


def list_due() -> list[str]:
    return [str(id_) for id_ in rounds.list_unfinished()]


def test_clock_set_forward_passes_no_deadline(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = novita.holds(make_row("a"))
    answer = order(client)

    set_clock(monkeypatch, HOUR)

    tasks.move_operation(answer["operationId"])
    assert show(client, answer)["finishedAt"] is None
    account.settle()
    tasks.move_operation(answer["operationId"])
    assert show(client, answer)["success"] is True


@pytest.mark.parametrize("by", [HOUR, -HOUR, 24 * HOUR, -24 * HOUR])
def test_stop_goes_on_and_is_verified_when_the_clock_is_set(
    by: timedelta, running_stop: Json, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    Operation.objects.update(next_round_at=READ_NOW() + timedelta(seconds=2))

    set_clock(monkeypatch, by)

    assert list_due() == [running_stop["operationId"]]
    tasks.move_operation(running_stop["operationId"])
    shown = show(client, running_stop)
    assert shown["success"] is True
    assert shown["result"] == "The instance is stopped."


def test_old_claim_expires_soon_after_the_clock_was_set_back(
    running_stop: Json, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = READ_NOW() + timedelta(seconds=claims.CLAIM_SECONDS)
    Operation.objects.update(claim="of a killed worker", claimed_until=until, next_round_at=READ_NOW())
    assert list_due() == []

    set_clock(monkeypatch, -HOUR)

    assert list_due() == [running_stop["operationId"]]
    tasks.move_operation(running_stop["operationId"])
    assert show(client, running_stop)["success"] is True


def test_deadline_still_passes_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = [100.0]
    monkeypatch.setattr(clock, "steady", lambda: steady[0])
    deadline = READ_NOW() + timedelta(seconds=600)
    assert 599 < clock.seconds_until(deadline) < 601

    set_clock(monkeypatch, -HOUR)
    steady[0] += 601

    assert clock.seconds_until(deadline) < 0


def test_deadline_before_the_start_of_the_process_has_passed() -> None:
    assert clock.seconds_until(READ_NOW() - timedelta(seconds=5)) < 0


def test_small_clock_differences_keep_claims_of_other_hosts(running_stop: Json) -> None:
    until = READ_NOW() + timedelta(seconds=claims.CLAIM_SECONDS + clock.SKEW_SECONDS - 5)
    Operation.objects.update(claim="of another host", claimed_until=until, next_round_at=READ_NOW())

    assert list_due() == []


def make_delivery(next_attempt_at: datetime, tries: int = 0) -> WebhookDelivery:
    operation = Operation.objects.create(kind="stop", is_whole_account=True, selection="", deadline_at=READ_NOW())
    return WebhookDelivery.objects.create(
        operation=operation,
        message_id="msg_1",
        state="due",
        sealed_url="x",
        next_attempt_at=next_attempt_at,
        tries=tries,
    )


def test_due_webhook_stays_due_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = make_delivery(READ_NOW())

    set_clock(monkeypatch, -HOUR)

    assert webhooks.list_due() == [delivery.pk]
    webhooks.deliver(delivery.pk)
    delivery.refresh_from_db()
    assert delivery.tries == 1
    assert webhooks.list_due() == []


def test_webhook_with_a_long_pause_is_not_sent_early() -> None:
    make_delivery(READ_NOW() + timedelta(hours=6), tries=12)

    assert webhooks.list_due() == []


def test_inventory_stays_correct_after_the_clock_of_redis_was_set_back(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, settings: Any
) -> None:
    novita.lists(make_row("a"))
    client.post("/api/instances/sync")
    settings.NOVITA_SYNC_INTERVAL = 60
    state = store.read_state()
    age = state.freshness.age_seconds
    assert age is not None
    refresher = Refresher()
    assert refresher._find_due(state) is None

    # What was written before is an hour ahead of Redis's clock now.
    raw_redis.hset(name_of("sync"), "as_of", str(round((READ_NOW() + HOUR).timestamp() * 1000)))

    assert refresher._find_due(store.read_state()) == SyncRun.Trigger.INTERVAL
