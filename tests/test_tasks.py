"""The background work as a worker does it: what is due is found in the database and moved on."""

import logging
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from fakeredis import FakeServer

from instances import tasks
from instances.models import (
    HourSums,
    LedgerState,
    MeteredInstance,
    Operation,
    UsageInterval,
    WebhookDelivery,
)
from novita_site.celery import app
from tests.novita_answers import API, NovitaAnswers, make_row
from tests.operation_steps import Json, order, show

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_broker(no_pauses: None) -> Iterator[None]:
    """A task that is sent runs at once; and no pauses."""
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    yield
    app.conf.update(task_always_eager=False, task_eager_propagates=False)


def make_due(body: Json, *, seconds: float = 1) -> None:
    due_at = timezone.now() - timedelta(seconds=seconds)
    Operation.objects.filter(pk=body["operationId"]).update(next_round_at=due_at)


def test_tick_advances_due_operations(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    first, second = order(client, ids=["a"]), order(client, ids=["b"])
    account.settle()
    make_due(first)
    make_due(second)

    tasks.move_operations()

    assert [show(client, body)["success"] for body in (first, second)] == [True, True]


def test_tick_skips_operations_that_are_not_due(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    make_due(body, seconds=-60)
    account.calls.clear()

    tasks.move_operations()

    assert account.calls == []


def test_tick_skips_operations_of_another_process(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    make_due(body)
    Operation.objects.update(claim="another", claimed_until=timezone.now() + timedelta(seconds=10))
    account.calls.clear()

    tasks.move_operations()

    assert account.calls == []


def test_tick_records_that_a_worker_is_running(client: Client) -> None:
    assert client.get("/health").json()["services"]["worker"] == "down"

    tasks.move_operations()

    assert client.get("/health").json()["services"]["worker"] == "up"


def test_tick_advances_operations_without_redis(
    client: Client, novita: NovitaAnswers, redis_server: FakeServer
) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    make_due(body)
    redis_server.connected = False

    tasks.move_operations()

    assert show(client, body)["success"] is True


def test_repeated_task_acts_once(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()

    tasks.move_operation(body["operationId"])
    shown = show(client, body)
    account.calls.clear()
    tasks.move_operation(body["operationId"])

    assert shown["success"] is True
    assert show(client, body) == shown
    assert account.calls == []


def test_task_for_an_unknown_operation_does_nothing() -> None:
    tasks.move_operation("00000000-0000-4000-8000-000000000000")


def test_tick_delivers_due_webhooks(client: Client, novita: NovitaAnswers) -> None:
    novita.holds()
    operation = Operation.objects.get(pk=order(client)["operationId"])
    now = timezone.now()
    due = WebhookDelivery.objects.create(
        operation=operation, message_id="msg_1", state="due", sealed_url="unreadable", next_attempt_at=now
    )

    tasks.deliver_webhooks()

    due.refresh_from_db()
    assert due.attempts.get().error == "SECRET_KEY has changed, so the stored URL can't be decrypted."
    assert due.next_attempt_at is not None and due.next_attempt_at > now


def test_expired_sessions_are_deleted() -> None:
    now = timezone.now()
    for key, hours in (("ended", -1), ("open", 1)):
        Session.objects.create(session_key=key, session_data="", expire_date=now + timedelta(hours=hours))

    tasks.forget_sessions()

    assert set(Session.objects.values_list("session_key", flat=True)) == {"open"}


# --- The ticks


class Ticks(threading.Event):
    """Ends the ticks after so many."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def wait(self, timeout: float | None = None) -> bool:
        self.count -= 1
        if self.count <= 0:
            self.set()
        return self.is_set()


def test_failures_do_not_end_the_ticks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    failures: list[Exception] = [OperationalError("gone"), OperationalError("gone"), RuntimeError("a bug")]
    broken = lambda: (_ for _ in ()).throw(failures.pop(0))  # noqa: E731 - a function that raises
    monkeypatch.setattr(tasks, "SCHEDULE", [(broken, 0), (lambda: done.append(1), 0)])

    tasks.tick_until(Ticks(3))

    assert not failures and len(done) == 3
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "database is unavailable: gone",
        "worker: finding due work failed",
    ]


def test_clock_set_back_does_not_stop_the_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr(tasks, "SCHEDULE", [(lambda: done.append(1), 0)])
    times = iter(range(10_000, 0, -60))
    monkeypatch.setattr("time.time", lambda: next(times))

    tasks.tick_until(Ticks(3))

    assert len(done) == 3


def test_daily_work_runs_at_the_start_and_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[float] = []
    times = [5.0, 40_000.0, 86_405.0, 90_000.0]
    monkeypatch.setattr(tasks, "SCHEDULE", [(lambda: done.append(times[0]), 86400)])
    ticks = Ticks(4)
    ticks_wait = ticks.wait
    monkeypatch.setattr(ticks, "wait", lambda timeout: (times.pop(0), ticks_wait(timeout)))

    tasks.tick_until(ticks, lambda: times[0])

    assert done == [5.0, 86_405.0]


def test_price_list_reaches_the_inventory(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))
    client.post("/api/instances/sync")
    novita.mock.get(f"{API}/products", json={"data": [{"id": "4090.16c62g", "price": "35000"}]})

    tasks.refresh_prices()

    assert client.get("/api/instances/a").json()["pricePerHour"] == 0.35


def test_worker_sums_the_hours_of_the_ledger() -> None:
    hour = 3_600_000
    instance = MeteredInstance.objects.create(instance_id="a")
    UsageInterval.objects.create(instance=instance, state=1, began_ms=hour, ended_ms=3 * hour, price=10**10, gpus=2)
    LedgerState.objects.create(observed_ms=3 * hour, digest="x")

    tasks.sum_hours()

    assert list(HourSums.objects.values_list("began_ms", flat=True)) == [hour, 2 * hour]


def test_price_list_waits_for_redis(redis_server: FakeServer) -> None:
    redis_server.connected = False

    tasks.refresh_prices()
