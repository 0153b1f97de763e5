"""Records are deleted after the days of their setting, a few at a time; what is open, unfinished or needed stays."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from instances import tasks
from instances.costs import ledger, reports
from instances.models import (
    AuditEntry,
    Event,
    Finding,
    FindingStep,
    HourSums,
    LedgerState,
    Message,
    MeteredInstance,
    Operation,
    Snooze,
    SyncRun,
    Target,
    UsageInterval,
    WebhookDelivery,
    old,
)
from tests.test_admin_records import make_delivery, make_operation

pytestmark = pytest.mark.django_db

DAY_MS = 86_400_000
Make = Callable[[datetime], Any]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old, "PAUSE_SECONDS", 0)


def days_ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


def make_run(at: datetime) -> Any:
    return SyncRun.objects.create(started_at=at, trigger="interval", outcome="succeeded")


def make_ended(at: datetime) -> Any:
    return make_operation({"instance_id": "a"}, created_at=at, finished_at=at)


def make_entry(at: datetime) -> Any:
    return AuditEntry.objects.create(action="instance.stop", outcome="done", at=at)


def make_login(at: datetime) -> Any:
    return AuditEntry.objects.create(action="login", outcome="done", at=at)


def make_finding(at: datetime) -> Any:
    finding = Finding.objects.create(
        policy_name="nights", policy_version=1, mode="observe", state="cleared", instance_id="a", ended_at=at
    )
    finding.steps.create(state="cleared")
    return finding


def make_snooze(at: datetime) -> Any:
    return Snooze.objects.create(instance_id="a", until=at, by="ann")


def make_event(at: datetime) -> Any:
    event = Event.objects.create(kind="test", key="k", title="A test", created_at=at)
    event.messages.create(service="slack", message_id=f"m{event.pk}", state="sent")
    return event


def make_webhook(at: datetime) -> Any:
    operation = make_operation({"instance_id": "a"}, created_at=timezone.now(), finished_at=timezone.now())
    return make_delivery(operation, message_id=f"m{operation.pk.hex}", created_at=at, ended_at=at)


@pytest.mark.parametrize(
    ("setting", "make"),
    [
        ("KEEP_SYNCS_DAYS", make_run),
        ("KEEP_OPERATIONS_DAYS", make_ended),
        ("KEEP_ACTIVITY_DAYS", make_entry),
        ("KEEP_LOGINS_DAYS", make_login),
        ("KEEP_FINDINGS_DAYS", make_finding),
        ("KEEP_FINDINGS_DAYS", make_snooze),
        ("KEEP_MESSAGES_DAYS", make_event),
        ("KEEP_MESSAGES_DAYS", make_webhook),
    ],
)
def test_record_is_deleted_after_the_days_of_its_setting(setting: str, make: Make, settings: Settings) -> None:
    setattr(settings, setting, 30)
    kept = make(days_ago(29))
    make(days_ago(31))

    tasks.forget_old()

    assert list(type(kept).objects.all()) == [kept]


def test_what_belongs_to_a_record_is_deleted_with_it() -> None:
    make_delivery(make_ended(days_ago(401)), ended_at=days_ago(401)).attempts.create(milliseconds=5)
    make_finding(days_ago(401))
    make_event(days_ago(91))

    tasks.forget_old()

    for model in (Target, WebhookDelivery, FindingStep, Message):
        assert not model._base_manager.exists(), model


def test_other_records_keep_their_place_without_an_operation_that_was_deleted() -> None:
    retry = make_operation({"instance_id": "a"}, retry_of=make_ended(days_ago(401)))

    tasks.forget_old()

    retry.refresh_from_db()
    assert retry.retry_of is None


# --- Open and unfinished


def test_unfinished_operation_stays() -> None:
    make_operation({"state": "pending"}, state="verifying", created_at=days_ago(900), finished_at=None, success=None)

    tasks.forget_old()

    assert Operation.objects.get().targets.count() == 1


def test_operation_stays_while_its_webhook_waits() -> None:
    make_delivery(make_ended(days_ago(900)), state="due", created_at=days_ago(900), ended_at=None)

    tasks.forget_old()

    assert WebhookDelivery.objects.get().operation


def test_open_finding_stays() -> None:
    Finding.objects.create(
        policy_name="n", policy_version=1, mode="observe", state="warned", instance_id="a", began_at=days_ago(900)
    )

    tasks.forget_old()

    assert Finding.objects.exists()


def test_event_stays_while_a_message_is_due() -> None:
    event = make_event(days_ago(900))
    event.messages.create(service="mail", message_id="due")

    tasks.forget_old()

    assert event.messages.count() == 2


# --- The ledger of costs


@pytest.fixture
def now_ms() -> int:
    return ledger.to_ms(timezone.now()) // ledger.HOUR_MS * ledger.HOUR_MS


def make_ledger(now_ms: int, *, summed_ms: int) -> LedgerState:
    lost, kept = (MeteredInstance.objects.create(instance_id=id_) for id_ in ("lost", "kept"))
    for instance, days in ((lost, 401), (kept, 401), (kept, 399)):
        ended = now_ms - days * DAY_MS
        UsageInterval.objects.create(instance=instance, state=1, began_ms=ended - 1, ended_ms=ended)
    UsageInterval.objects.create(instance=kept, state=1, began_ms=now_ms - 500 * DAY_MS)
    for days in (401, 399):
        HourSums.objects.create(began_ms=now_ms - days * DAY_MS, sums=[])
    return LedgerState.objects.create(began_ms=now_ms - 900 * DAY_MS, observed_ms=now_ms, summed_ms=summed_ms)


def test_ledger_keeps_its_days_and_what_is_still_open(now_ms: int) -> None:
    make_ledger(now_ms, summed_ms=now_ms)

    tasks.forget_old()

    assert [one.instance_id for one in MeteredInstance.objects.all()] == ["kept"]
    assert UsageInterval.objects.count() == 2
    assert HourSums.objects.get().began_ms == now_ms - 399 * DAY_MS


def test_reports_say_that_the_ledger_begins_where_its_kept_days_begin(now_ms: int) -> None:
    make_ledger(now_ms, summed_ms=now_ms)

    tasks.forget_old()

    beginning = reports.find_beginning()
    assert beginning is not None
    assert 0 <= beginning - (now_ms - 400 * DAY_MS) <= 2 * ledger.HOUR_MS


def test_intervals_stay_until_their_hours_are_summed(now_ms: int) -> None:
    make_ledger(now_ms, summed_ms=now_ms - 500 * DAY_MS)

    tasks.forget_old()

    assert UsageInterval.objects.count() == 4


# --- A few at a time


def test_run_deletes_a_limited_number_in_small_batches() -> None:
    for _ in range(10):
        make_run(days_ago(91))

    with CaptureQueriesContext(
        connection,
    ) as queries:
        count = old.delete(SyncRun.objects.all(), batch_rows=2, batches=3)

    assert count == 6
    assert SyncRun.objects.count() == 4
    assert sum(one["sql"].startswith("DELETE") for one in queries) == 3


def test_next_run_deletes_the_rest() -> None:
    for _ in range(5):
        make_run(days_ago(91))

    old.delete(SyncRun.objects.all(), batch_rows=2, batches=2)
    old.delete(SyncRun.objects.all(), batch_rows=2, batches=2)

    assert not SyncRun.objects.exists()


def test_row_that_changed_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a delivery that somebody sends again between the batches."""
    first, second = make_webhook(days_ago(91)), make_webhook(days_ago(91))
    ended = WebhookDelivery.objects.exclude(ended_at=None)

    def send_again(seconds: float) -> None:
        WebhookDelivery.objects.filter(pk=second.pk).update(ended_at=None)

    monkeypatch.setattr("time.sleep", send_again)
    old.delete(ended.order_by("pk"), batch_rows=1)

    assert not WebhookDelivery.objects.filter(pk=first.pk).exists()
    assert WebhookDelivery.objects.filter(pk=second.pk).exists()
