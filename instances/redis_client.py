"""The connection to Redis, the names of all keys, and Redis's failures in our words.

All keys carry one hash tag with the account's identity, `{novita:<id>}`: one script may touch them together, and two
accounts on one Redis stay apart. No script names a key itself.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import redis
from django.conf import settings
from django_redis import get_redis_connection

from instances.errors import CacheUnavailable

_TAG: Final = settings.REDIS_KEY_TAG
CURRENT: Final = f"{_TAG}:current"
GENERATION: Final = f"{_TAG}:gen:"
BODY: Final = f"{_TAG}:body:"
REVISION: Final = f"{_TAG}:revision"
TOUCHED: Final = f"{_TAG}:touched"
MOVING: Final = f"{_TAG}:moving"
SYNC: Final = f"{_TAG}:sync"
LEASE: Final = f"{_TAG}:lease"
FENCE: Final = f"{_TAG}:fence"
MOVING_TURN: Final = f"{_TAG}:moving-turn"
WORKER: Final = f"{_TAG}:worker"
RATE: Final = f"{_TAG}:rate:"
KNOWN: Final = f"{_TAG}:known:"
PROBE: Final = f"{_TAG}:probe"
# What the database could not take, by a mark of the database.
KEPT: Final = f"{_TAG}:kept:"
CANCEL: Final = f"{_TAG}:cancel:"

# What a panel no longer uses ends by itself, the copy of an account whose key was rotated, say. Who syncs, acts or
# reads renews it; the oldest data that can count as fresh is 7 days old.
KEEP_SECONDS: Final = 30 * 86400
LEASE_SECONDS: Final = 30
TURN_SECONDS: Final = 25
WORKER_SECONDS: Final = 15
# The last millisecond of the year 9999: a larger number is damage. It must be no time, and nothing counts on from it.
MAX_NUMBER: Final = 253402300799999
# The format of a generation. Increment it when an older version could not read a new one; a new field of an instance
# with a default needs no new number. Readers ignore an inventory of another format.
FORMAT: Final = 2


class Pool(redis.ConnectionPool):
    """Connections whose failures are all Redis's own, those that a parameter in REDIS_URL causes, too."""

    def get_connection(self, *args: Any, **options: Any) -> Any:
        try:
            return super().get_connection(*args, **options)
        except (TypeError, ValueError, OverflowError) as exc:
            # Without its words, which may hold a password.
            raise redis.exceptions.RedisError(f"REDIS_URL: {type(exc).__name__}") from None


def get_redis() -> redis.Redis:
    client: redis.Redis = get_redis_connection("default")
    return client


def read_time() -> datetime:
    """Return Redis's time. Raises CacheUnavailable."""
    with redis_errors():
        seconds, microseconds = get_redis().time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def takes_writes() -> bool:
    """Tell whether Redis takes a write; one that is full, or a read-only replica, is read all the same."""
    try:
        with redis_errors():
            get_redis().set(PROBE, "1", ex=1)
    except CacheUnavailable:
        return False
    return True


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn what redis-py raises into CacheUnavailable, which says what is wrong and what to do."""
    try:
        yield
    except redis.exceptions.AuthenticationError as exc:
        raise CacheUnavailable("Redis refuses the login.", suggestion="Check the password in REDIS_URL.") from exc
    except redis.exceptions.BusyLoadingError as exc:
        raise CacheUnavailable("Redis is still loading its data.", suggestion="Wait for it.") from exc
    except redis.exceptions.TimeoutError as exc:
        raise CacheUnavailable("Redis does not answer in time.") from exc
    except redis.exceptions.ConnectionError as exc:
        raise _name_broken_connection(str(exc)) from exc
    except redis.exceptions.RedisError as exc:
        raise _name_refusal(str(exc)) from exc


def _name_broken_connection(reason: str) -> CacheUnavailable:
    if refused := re.search(r"certificate verify failed: (.+?)\.? \(_ssl", reason):
        return CacheUnavailable(
            f"Redis's certificate is not trusted, so nothing was sent to it: {refused[1]}.",
            suggestion="Name your CA in REDIS_URL, rediss://host:6379/0?ssl_ca_certs=/path/ca.pem, and the host as in "
            "the certificate.",
        )
    return CacheUnavailable()


# A word of Redis's error, the message, what to do. An error inside a script comes as a plain ResponseError, so the
# class does not tell.
_REFUSALS: Final = (
    ("maxmemory", "Redis is out of memory.", "Raise its maxmemory, or free some."),
    ("read only replica", "Redis is a read-only replica.", "Point REDIS_URL at the primary."),
    ("MISCONF", "Redis can't write to its disk.", "Free disk space, or turn its saving off."),
    ("REDIS_URL", "No connection to Redis can be made.", "Check the parameters in REDIS_URL."),
    ("WRONGTYPE", "Redis holds something foreign under our keys.", "POST /api/cache/clear, then synchronize."),
)


def _name_refusal(reason: str) -> CacheUnavailable:
    for word, message, suggestion in _REFUSALS:
        if word in reason:
            return CacheUnavailable(message, suggestion=suggestion)
    return CacheUnavailable(f"Redis refused a command: {reason[:120]}")
