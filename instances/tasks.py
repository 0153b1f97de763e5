"""The worker's tasks. The database holds the due work; a task only advances it, and may run twice."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Final

from celery import shared_task
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError, InterfaceError, close_old_connections
from django.utils import timezone

from instances import alarms, outages
from instances.access import audit
from instances.costs import balance, burn, hours, products, recording
from instances.errors import CacheUnavailable
from instances.inventory import additions, heartbeat, report, store
from instances.models import Token, old
from instances.notifications import events, sealing, sending, webhooks
from instances.operations import emergency, records, rounds
from instances.policies import evaluation, metrics, summary
from instances.utilization import sampling

log = logging.getLogger(__name__)

TICK_SECONDS: Final[float] = settings.WORKER_TICK_SECONDS

# Set when this worker is told to end: work that it leaves is due at once, for another worker.
is_ending: Final = threading.Event()


def tick_until(is_ended: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
    """Begin the due work every few seconds of a monotonic clock, until the event; a failure doesn't end it."""
    begun_at: dict[int, float] = {}
    while not is_ended.is_set():
        for number, (begin, seconds) in enumerate(SCHEDULE):
            if clock() - begun_at.get(number, float("-inf")) >= seconds:
                begun_at[number] = clock()
                _try(begin)
        is_ended.wait(TICK_SECONDS)


def _try(begin: Callable[[], object]) -> None:
    try:
        begin()
    except (DatabaseError, InterfaceError) as exc:
        outages.note_database_error(exc)
    except Exception:
        log.exception("worker: finding due work failed")
    finally:
        close_old_connections()


@shared_task
def move_operations() -> None:
    """Advance every due operation; also the sign that a worker is running."""
    try:
        heartbeat.note_worker()
        outages.redis.note_success()
    except CacheUnavailable as exc:
        outages.note_redis_error(exc)
    emergency.tick()
    for operation_id in rounds.list_unfinished():
        move_operation.delay(str(operation_id))


@shared_task
def move_operation(operation_id: str) -> None:
    if not is_ending.is_set():
        emergency.advance(uuid.UUID(operation_id))


@shared_task
def deliver_webhooks() -> None:
    for delivery_id in webhooks.list_due():
        deliver_webhook.delay(delivery_id)


@shared_task
def deliver_webhook(delivery_id: int) -> None:
    if not is_ending.is_set():
        webhooks.deliver(delivery_id)


@shared_task
def refresh_prices() -> None:
    """Read the price list when its turn has come, and then give the cached instances their prices and labels."""
    try:
        if products.refresh() is not None:
            additions.refresh()
    except CacheUnavailable as exc:
        outages.note_redis_error(exc)


@shared_task
def read_balance() -> None:
    """Read the balance when its turn has come."""
    try:
        listing = store.read_listing()
        rate = burn.find(listing.revision, listing.instances).total.per_hour
        balance.refresh(rate if listing.freshness.as_of else None)
    except CacheUnavailable as exc:
        outages.note_redis_error(exc)


@shared_task
def sum_hours() -> None:
    """Sum the hours of the ledger that are over."""
    hours.sum_up()


@shared_task
def send_notifications() -> None:
    for message_id in sending.list_due():
        send_notification.delay(message_id)


@shared_task
def send_notification(message_id: int) -> None:
    if not is_ending.is_set():
        sending.send(message_id)


@shared_task
def watch_alarms() -> None:
    """Tell people what has begun to fail; when it is due, the summary of yesterday."""
    try:
        alarms.watch()
        summary.tell_when_due(timezone.now())
    except CacheUnavailable as exc:
        outages.note_redis_error(exc)


@shared_task
def sample_metrics() -> None:
    """Read the metrics that policies and open pages want, as far as the limit allows."""
    if is_ending.is_set():
        return
    try:
        metrics.sample()
    except CacheUnavailable as exc:
        outages.note_redis_error(exc)


@shared_task
def evaluate_policies() -> None:
    """Judge what the policies apply to, and stop what is due, when it is this worker's turn."""
    try:
        evaluation.run()
    except CacheUnavailable as exc:
        outages.note_redis_error(exc)


@shared_task
def forget_old() -> None:
    """Delete old records and expired tokens, a limited number each time."""
    for forget in (
        report.forget_old,
        records.forget_old,
        audit.forget_old,
        recording.forget_old,
        evaluation.forget_old,
        events.forget_old,
    ):
        if is_ending.is_set():
            return
        forget()
    old.delete(Token.objects.filter(expiry__lt=timezone.now()))


@shared_task
def seal_again() -> None:
    """Encrypt with a new SECRET_KEY what the previous one encrypted."""
    sealing.seal_again()


@shared_task
def forget_sessions() -> None:
    """Delete expired sessions. Each single sign-on that is begun leaves one, and anybody can begin many."""
    SessionStore.clear_expired()


# The work that each tick begins, and the seconds between two runs of it.
SCHEDULE: Final[list[tuple[Callable[[], object], float]]] = [
    (move_operations, 0),
    (deliver_webhooks, 0),
    (send_notifications, 0),
    (watch_alarms.delay, 30),
    (refresh_prices.delay, 60),
    (read_balance.delay, 30),
    (sum_hours.delay, 60),
    (sample_metrics.delay, sampling.SLOT_SECONDS),
    (evaluate_policies.delay, settings.POLICIES_EVALUATE_SECONDS),
    (forget_sessions.delay, 600),
    (forget_old.delay, 600),
    (seal_again.delay, 86400),
]
