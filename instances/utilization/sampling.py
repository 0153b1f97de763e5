"""Reads metrics, one instance a call, spread evenly and within a limit that all workers share.

Metrics are less important than everything else: while an operation runs, or after Novita refused a call for its rate,
no metrics are read; a call is sent once, and a run of calls has a deadline.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from django.conf import settings

from instances import redis_client
from instances.errors import CacheUnavailable, NovitaError, NovitaRateLimited, ShuttingDown
from instances.models import Operation
from instances.novita.client import get_novita
from instances.outgoing.deadline import Budget, cancellable
from instances.redis_client import get_redis, redis_errors
from instances.utilization import readings
from instances.utilization.reading import Reading

log = logging.getLogger(__name__)

SLOT_SECONDS: Final[int] = settings.METRICS_SLOT_SECONDS
RUN_SECONDS: Final = 20.0
# Novita is about a minute late.
LAG: Final = timedelta(seconds=60)
SHORTEST: Final = timedelta(minutes=60)
INTERVAL_SECONDS: Final = 60
# Of a longer time, fewer samples are read.
MAX_SAMPLES: Final = 240
PAUSE_SECONDS: Final = 60
WATCHED_SECONDS: Final = 120

_running: Final = threading.Lock()
get_time: Callable[[], float] = time.time


def watch(instance_id: str) -> None:
    """Note that somebody looks at an instance's metrics: they are read soon. Raises CacheUnavailable."""
    until = get_time() + WATCHED_SECONDS
    with redis_errors(), get_redis().pipeline(transaction=True) as pipeline:
        pipeline.zadd(redis_client.METRICS_WATCHED, {instance_id: until})
        pipeline.expire(redis_client.METRICS_WATCHED, WATCHED_SECONDS)
        pipeline.execute()


def list_watched() -> list[str]:
    """Return the instances that somebody looks at. Raises CacheUnavailable."""
    with redis_errors():
        found = get_redis().zrangebyscore(redis_client.METRICS_WATCHED, get_time(), "+inf")
    return [id_.decode() if isinstance(id_, bytes) else str(id_) for id_ in found]


def sample(ids: Sequence[str], window: timedelta) -> int:
    """Read the metrics of these instances, the first ones first, as far as the limit allows. Return how many were read.

    Raises CacheUnavailable: without Redis the limit is not known, and nothing is read.
    """
    if not _running.acquire(blocking=False):
        return 0
    try:
        if not ids:
            return 0
        budget = Budget(RUN_SECONDS)
        count = 0
        with cancellable(budget):
            for instance_id in ids:
                # An operation that begins meanwhile comes first, too.
                if _has_more_important_work() or not _take_call():
                    break
                if not _read(instance_id, max(window, SHORTEST), budget):
                    break
                count += 1
        return count
    finally:
        _running.release()


def _has_more_important_work() -> bool:
    with redis_errors():
        is_paused = bool(get_redis().exists(redis_client.METRICS_PAUSE))
    return is_paused or Operation.objects.filter(state__in=Operation.RUNNING).exists()


def _take_call() -> bool:
    """Count a call in the present slot; False when the slot is full."""
    limit = settings.METRICS_CALLS_PER_MINUTE * SLOT_SECONDS / 60
    slot = int(get_time() // SLOT_SECONDS)
    # A limit of 7 a minute is 1 in most slots, and 2 in some: slots share what is left over.
    allowed = int(limit * (slot % 6 + 1)) - int(limit * (slot % 6))
    key = f"{redis_client.METRICS_SLOT}{slot}"
    with redis_errors(), get_redis().pipeline(transaction=True) as pipeline:
        pipeline.incr(key)
        pipeline.expire(key, 2 * SLOT_SECONDS)
        count, _ = pipeline.execute()
    return int(count) <= allowed


def _read(instance_id: str, window: timedelta, budget: Budget) -> bool:
    """Read and store one instance's metrics, or why they can't be read; False when no more should be read now."""
    now = datetime.now(UTC)
    ended = now - LAG
    # A minute more than the window: the first sample may lie a little later than asked.
    began = ended - window - timedelta(seconds=INTERVAL_SECONDS)
    interval = max(INTERVAL_SECONDS, round(window.total_seconds() / MAX_SAMPLES))
    reading = Reading(now, began, ended, interval)
    try:
        found = get_novita().read_metrics(instance_id, began, ended, interval, budget)
    except ShuttingDown:
        return False
    except NovitaRateLimited as exc:
        _pause(exc.retry_after)
        return False
    except NovitaError as exc:
        log.debug("metrics of %s not read: %s", instance_id, exc)
        readings.write(instance_id, replace(reading, error=exc.message))
        return budget.remaining_seconds > 0
    readings.write(
        instance_id,
        replace(
            reading,
            gpus=found.gpus,
            gpu_average=found.gpu_average,
            gpu_memory=found.gpu_memory,
            cpu=found.cpu,
            memory=found.memory,
        ),
    )
    return True


def _pause(seconds: float | None) -> None:
    log.info("metrics are not read for a while: Novita limits the rate")
    try:
        with redis_errors():
            get_redis().set(redis_client.METRICS_PAUSE, "1", ex=max(1, min(int(seconds or PAUSE_SECONDS), 3600)))
    except CacheUnavailable as exc:
        log.debug("the pause is not stored: %s", exc)
