"""The signs of life of the workers.

A worker finds its tasks in its database, so a worker with another database does nothing for this panel.
"""

import socket
import time
from datetime import datetime

from instances import redis_client as keys
from instances.fallback import database
from instances.inventory.freshness import to_time
from instances.redis_client import get_redis, redis_errors


def note_worker() -> None:
    """Record that a worker is running, here and at all; it counts as up for the next seconds."""
    with redis_errors(), get_redis().pipeline(transaction=False) as all_:
        for key in (get_worker_key(), _get_key_on(socket.gethostname())):
            all_.set(key, "up", ex=keys.WORKER_SECONDS)
        all_.set(_get_seen_key(), round(time.time() * 1000), ex=keys.KEEP_SECONDS)
        all_.execute()


def has_worker_on(host: str) -> bool:
    """Tell whether a worker on the machine or in the container of this name ran lately. Raises CacheUnavailable."""
    with redis_errors():
        # A key that stays longer is damage.
        return 0 < get_redis().pttl(_get_key_on(host)) <= keys.WORKER_SECONDS * 1000


def read_last_sign() -> datetime | None:
    """Return when a worker last gave a sign, by its own clock; None when none is known. Raises CacheUnavailable."""
    with redis_errors():
        value = get_redis().get(_get_seen_key())
    is_time = isinstance(value, bytes) and value.isdigit() and len(value) <= 15 and int(value) <= keys.MAX_NUMBER
    return to_time(int(value)) if is_time and value else None


def get_worker_key() -> str:
    return f"{keys.WORKER}:{database.find_id()}"


def _get_key_on(host: str) -> str:
    return f"{keys.WORKER_ON}{host}:{database.find_id()}"


def _get_seen_key() -> str:
    return f"{keys.WORKER_SEEN}{database.find_id()}"
