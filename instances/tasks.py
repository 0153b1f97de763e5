"""The background work, for Celery. What is due stands in the database; a task only moves it on, and can run twice."""

import logging
import uuid

from celery import shared_task
from django.contrib.sessions.backends.db import SessionStore

from instances import audit, cache, operations, rounds, webhooks
from instances.errors import CacheUnavailable

log = logging.getLogger(__name__)


@shared_task
def move_operations() -> None:
    """Move every operation on that is due; also the sign that a worker works."""
    try:
        cache.note_worker()
    except CacheUnavailable as exc:
        log.debug("worker not noted: %s", exc)
    for operation_id in rounds.list_unfinished():
        move_operation.delay(str(operation_id))


@shared_task
def move_operation(operation_id: str) -> None:
    rounds.advance(uuid.UUID(operation_id))


@shared_task
def deliver_webhooks() -> None:
    for delivery_id in webhooks.list_due():
        deliver_webhook.delay(delivery_id)


@shared_task
def deliver_webhook(delivery_id: int) -> None:
    webhooks.deliver(delivery_id)


@shared_task
def forget_old() -> None:
    """Delete the records that nobody needs any more."""
    operations.forget_old()
    audit.forget_old()


@shared_task
def forget_sessions() -> None:
    """Delete the sessions that have ended. A single sign-on that is begun leaves one, and anybody can begin many."""
    SessionStore.clear_expired()
