"""Whether the service is ready and healthy, from what is already known. A probe never calls Novita."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection

from instances import redis_client
from instances.costs import balance
from instances.errors import CacheUnavailable, NovitaRejectedKey
from instances.fallback import database
from instances.instance import format_time
from instances.inventory import store
from instances.inventory.sharing import Shared
from instances.models import WebhookDelivery

log = logging.getLogger(__name__)

# How long an answer of Redis about itself is reused.
POLICY_SECONDS: Final = 5
# A database that hangs must not delay a probe.
WAIT_SECONDS: Final = 1.0
# Less than the second that kubelets wait for an answer.
READY_SECONDS: Final = 0.5
# Other codes say nothing about Novita: they come from the lease, Redis or a shutdown.
_NOVITA_CODES: Final = "NOVITA_"
_NO_WORKER: Final = (
    "No worker is running: operations are not verified, and webhooks are not delivered. "
    "Start one: celery -A novita_site worker"
)
_UNAPPLIED: Final = (
    "The database lacks migrations of this version (%d), so parts of the panel fail. Run manage.py migrate."
)
# Two queries of the ORM take longer than the rest of a probe.
_WORK: Final = """
    SELECT EXISTS(SELECT 1 FROM instances_operation WHERE finished_at IS NULL)
    OR EXISTS(SELECT 1 FROM instances_webhookdelivery WHERE state = %s)
"""


@dataclass(frozen=True)
class Health:
    """The status of the whole, of each service, and a sentence for each problem. Without Redis `state` is None."""

    status: str
    services: dict[str, str]
    warnings: list[str]
    unapplied_migrations: list[str]
    state: store.State | None


# A database that had all migrations of this process's code keeps them.
_is_migrated = False


def is_ready() -> bool:
    """Tell whether the inventory is not stale, and the database lacks no migration.

    The database is asked until it was once complete. One that can't be used makes nothing unready: reads and stops
    work without it.
    """
    global _is_migrated
    try:
        if store.read_state().freshness.is_stale:
            return False
    except CacheUnavailable:
        return False
    if not _is_migrated:
        _, unapplied = database.find_state(READY_SECONDS)
        _is_migrated = unapplied == []
        return not unapplied
    return True


def check() -> Health:
    """Check every part: "unhealthy" without Redis, "degraded" when anything else is wrong or stale."""
    return _share(None)


def _check() -> Health:
    try:
        state = store.read_state()
    except CacheUnavailable as exc:
        return _judge(None, [f"{exc.message} Stops still work. Check Redis."])
    return _judge(state, list(_find_warnings(state)))


_share: Final = Shared[None, Health](lambda asked: [_check()] * len(asked))


def _judge(state: store.State | None, warnings: list[str]) -> Health:
    trouble, unapplied = database.find_state(WAIT_SECONDS)
    if trouble:
        warnings.append(f"The database can't be used: {trouble}. Stops are still sent, and recorded later.")
    elif state and not state.has_worker and _has_work():
        warnings.append(_NO_WORKER)
    if unapplied and not trouble:
        warnings.append(_UNAPPLIED % len(unapplied))
    return Health(
        status="unhealthy" if state is None else "degraded" if warnings else "healthy",
        services={
            "redis": "up" if state else "down",
            "novita": _find_novita(state),
            "database": "down" if trouble else "up",
            "worker": _find_worker(state),
        },
        warnings=warnings,
        unapplied_migrations=unapplied or [],
        state=state,
    )


def _find_warnings(state: store.State) -> list[str]:
    """Return a sentence for each problem. The dashboard shows them unchanged."""
    warnings = []
    if state.error:
        since = f" since {format_time(state.failing_since)}" if state.failing_since else ""
        warnings.append(f"Sync has been failing{since}: {state.error}{_find_cure(state)}")
    if state.freshness.as_of is None and state.cleared_at:
        warnings.append("The cache was cleared. The next synchronization fills it.")
    elif state.freshness.as_of is None and state.last_sync:
        warnings.append("The cached inventory was lost. The next synchronization restores it.")
    elif state.freshness.as_of is None:
        warnings.append("The account has not been synchronized yet.")
    elif state.freshness.is_stale and not state.error:
        read_at = format_time(state.freshness.as_of)
        warnings.append(f"The data is stale: it was read at {read_at}. Synchronize, or check NOVITA_SYNC_INTERVAL.")
    policy = _find_policy()
    if policy and policy != "noeviction":
        warnings.append(f"Redis may evict the inventory: its maxmemory-policy is {policy}. Set it to noeviction.")
    if low := _find_low_balance():
        warnings.append(low)
    return warnings


def _find_cure(state: store.State) -> str:
    if state.code == NovitaRejectedKey.code:
        return f" {NovitaRejectedKey.suggestion}"
    return " Retrying." if settings.NOVITA_SYNC_INTERVAL else ""


def _find_novita(state: store.State | None) -> str:
    """Return what the last synchronization found: "up", "down", or "unknown"."""
    if state is None or state.attempt_at is None:
        return "unknown"
    if not state.code:
        return "up"
    return "down" if state.code.startswith(_NOVITA_CODES) else "unknown"


def _has_work() -> bool:
    """Tell whether a worker has anything to do. Otherwise a missing worker needs no warning."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_WORK, [WebhookDelivery.State.DUE])
            return bool(cursor.fetchone()[0])
    except DatabaseError as exc:
        log.debug("database: %s", exc)
        return False


def _find_worker(state: store.State | None) -> str:
    """Return "up" when a worker ran lately, "down", or "unknown" without Redis, which records that."""
    return "unknown" if state is None else "up" if state.has_worker else "down"


def _remember(seconds: float, function: Callable[[], str | None]) -> Callable[[], str | None]:
    """Reuse the function's last answer for some seconds."""
    read_at, answer = float("-inf"), None

    def remembered() -> str | None:
        nonlocal read_at, answer
        if time.monotonic() - read_at > seconds:
            try:
                answer = function()
            except CacheUnavailable as exc:
                log.debug("eviction policy of Redis unknown: %s", exc)
                answer = None
            read_at = time.monotonic()
        return answer

    return remembered


_find_policy = _remember(POLICY_SECONDS, redis_client.find_eviction_policy)


def _say_low_balance() -> str | None:
    """Say that the balance will soon be used up, at the burn rate of its last reading."""
    reading = balance.read()
    hours = reading.find_hours_left(reading.per_hour)
    if hours is None or reading.available is None or hours >= settings.BALANCE_WARN_HOURS:
        return None
    left = f"{hours:.1f} hours" if hours >= 1 else "less than an hour"
    return f"The balance of ${reading.available:,.2f} lasts for {left} at the present burn rate."


_find_low_balance = _remember(POLICY_SECONDS, _say_low_balance)
