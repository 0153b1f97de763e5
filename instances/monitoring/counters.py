"""Counts what every process does, for `/metrics`: in memory at once, and in Redis a few seconds later.

A count costs a request half a microsecond and no call to Redis. Redis adds up what the processes send, each batch once:
a batch whose answer is lost is sent again, with the same number. A process that is killed loses its last seconds.
"""

import atexit
import logging
import os
import threading
import time
import uuid
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from instances import lua, redis_client
from instances.errors import CacheUnavailable
from instances.redis_client import get_redis, redis_errors

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 5.0
# Upper limits in seconds; the last bucket has no limit.
CALL_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
SYNC_BUCKETS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 240.0)

_ADD_COUNTS: Final = lua.load(__file__, "add_counts")
_STATUSES: Final = frozenset(map(int, HTTPStatus))

# The name of a family, then the values of its labels.
Key = tuple[str, ...]


@dataclass
class _Counts:
    """The counts of one process. `batch` was sent, and is not confirmed yet."""

    process: str = field(default_factory=lambda: uuid.uuid4().hex)
    lock: threading.Lock = field(default_factory=threading.Lock)
    flushing: threading.Lock = field(default_factory=threading.Lock)
    fresh: Counter[Key] = field(default_factory=Counter)
    batch: Counter[Key] = field(default_factory=Counter)
    number: int = 0


_counts = _Counts()


def reset() -> None:
    """Begin anew in a forked process: its parent sends what the parent has counted."""
    global _counts
    _counts = _Counts()


os.register_at_fork(after_in_child=reset)


def count_request(route: str, status: int) -> None:
    """Count an answer to a client. `route` is the name of a route, and never an address."""
    key = ("http", route, str(status))
    with _counts.lock:
        _counts.fresh[key] += 1


def count_call(call: str, code: str, seconds: float) -> None:
    """Count a call to Novita. `code` is the HTTP status, or the code of our error where no answer came."""
    if code.isdigit() and int(code) not in _STATUSES:
        code = "other"
    _count_duration("call", (call,), code, seconds, CALL_BUCKETS)


def count_sync(outcome: str, seconds: float) -> None:
    _count_duration("sync", (), outcome, seconds, SYNC_BUCKETS)


def _count_duration(family: str, labels: Key, code: str, seconds: float, buckets: Sequence[float]) -> None:
    with _counts.lock:
        _counts.fresh[(family, *labels, code)] += 1
        _counts.fresh[(f"{family}_bucket", *labels, str(bisect_left(buckets, seconds)))] += 1
        _counts.fresh[(f"{family}_ms", *labels)] += max(0, round(seconds * 1000))


def flush() -> None:
    """Add to Redis what was counted since the last time. Raises CacheUnavailable: the next call adds it, once."""
    counts = _counts
    with counts.flushing:
        if not counts.batch:
            with counts.lock:
                counts.batch, counts.fresh = counts.fresh, Counter()
            counts.number += 1
        if not counts.batch:
            return
        amounts = [part for key, amount in counts.batch.items() for part in ("|".join(key), amount)]
        _ADD_COUNTS(counted=f"{redis_client.COUNTED}{counts.process}", number=counts.number, amounts=amounts)
        counts.batch = Counter()


def read() -> Counter[Key]:
    """Return what all processes have added to Redis. Raises CacheUnavailable."""
    with redis_errors():
        found: dict[Any, Any] = get_redis().hgetall(redis_client.COUNTERS)
    counts: Counter[Key] = Counter()
    for name, value in found.items():
        # Anything else is damage.
        if value.isdigit():
            counts[tuple(name.decode("utf-8", "replace").split("|"))] = int(value)
    return counts


def begin() -> None:
    """Start the thread that sends this process's counts, and send the last ones at the process's end."""
    threading.Thread(target=_keep_flushing, name="counters", daemon=True).start()
    atexit.register(try_to_flush)


def _keep_flushing() -> None:
    while True:
        time.sleep(FLUSH_SECONDS)
        try_to_flush()


def try_to_flush() -> None:
    try:
        flush()
    except CacheUnavailable as exc:
        # Others report that Redis is away.
        log.debug("counts not sent yet: %s", exc)
