"""The connection to Redis, the names of all keys, and Redis's failures as our errors.

All keys share one hash tag with the account's identity, `{novita:<id>}`. So one script may use them together, and two
accounts on one Redis stay apart. The Lua scripts get their keys from here.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import redis
import redis.sentinel
from django.conf import settings
from django_redis import get_redis_connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from instances.errors import CacheUnavailable
from novita_site import redis_urls

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
WORKER_ON: Final = f"{_TAG}:worker-on:"
# When a worker gave its last sign of life, for longer than that sign counts.
WORKER_SEEN: Final = f"{_TAG}:worker-seen:"
RATE: Final = f"{_TAG}:rate:"
KNOWN: Final = f"{_TAG}:known:"
PRODUCTS: Final = f"{_TAG}:products"
PRODUCTS_TURN: Final = f"{_TAG}:products-turn"
BALANCE: Final = f"{_TAG}:balance"
BALANCE_TURN: Final = f"{_TAG}:balance-turn"
BILLS: Final = f"{_TAG}:bills:"
# The last metrics of each instance.
METRICS: Final = f"{_TAG}:metrics:"
# How many calls for metrics were sent in a slot of time, and when the next may be sent after a refusal.
METRICS_SLOT: Final = f"{_TAG}:metrics-slot:"
# Whether people were told that synchronizations fail.
TOLD_FAILING: Final = f"{_TAG}:told-failing"
METRICS_PAUSE: Final = f"{_TAG}:metrics-pause"
# The instances whose metrics somebody looks at, each until a time.
METRICS_WATCHED: Final = f"{_TAG}:metrics-watched"
PROBE: Final = f"{_TAG}:probe"
# Who looks whether Novita answers again.
NOVITA_TURN: Final = f"{_TAG}:novita-turn"
# What all processes have counted for /metrics, and the last batch that each process added.
COUNTERS: Final = f"{_TAG}:counters"
COUNTED: Final = f"{_TAG}:counted:"
# Records that the database could not store, by the database's id.
KEPT: Final = f"{_TAG}:kept:"
CANCEL: Final = f"{_TAG}:cancel:"

# Unused keys expire, for example the inventory of an account whose API key was rotated. Each synchronization, action
# and read renews them. The oldest data that can count as fresh is 7 days old.
KEEP_SECONDS: Final = 30 * 86400
LEASE_SECONDS: Final = 30
# A draft that is no longer written to has been abandoned.
DRAFT_SECONDS: Final = 120
# Redis runs one command or script at a time. A thousand rows take it 1 to 3 ms.
ROWS_AT_ONCE: Final = 1000
# Rendered answers of a revision with different fields: the whole list, that of the page, and those of some scripts.
KEPT_BODIES: Final = 4
# A sentinel answers from its memory. Those that don't are asked one after the other.
SENTINEL_OPTIONS: Final = {"socket_connect_timeout": 0.3, "socket_timeout": 0.3, "retry": Retry(NoBackoff(), 0)}
TURN_SECONDS: Final = 25
WORKER_SECONDS: Final[int] = settings.WORKER_SIGN_SECONDS
# Longer than a process sends the same counts again.
COUNTED_SECONDS: Final = 86400
# The last millisecond of the year 9999. A larger number is damage: it is not used as a time, and not incremented.
MAX_NUMBER: Final = 253402300799999
# The format of a generation. Increment it when an older version could not read a new one; a new field of an instance
# with a default needs no new number. Readers ignore an inventory of another format.
FORMAT: Final = 2


class Pool(redis.ConnectionPool):
    """Connections that raise RedisError for every failure, including a bad parameter in REDIS_URL."""

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Any:
        """Return a pool; for a URL with sentinels, one that gets the primary's address from them."""
        parts = redis_urls.split_sentinels(url)
        if parts is None:
            return super().from_url(url, **options)
        sentinels = Sentinels([redis.Redis.from_url(one, **SENTINEL_OPTIONS) for one in parts.urls])
        options |= redis.connection.parse_url(parts.server_url)  # type: ignore[no-untyped-call]  # redis-py's own
        is_tls = options.pop("connection_class", None) is not None
        del options["host"], options["port"]
        options["connection_class"] = TLSPrimaryConnection if is_tls else PrimaryConnection
        return SentinelPool(parts.service, sentinels, **options)  # type: ignore[no-untyped-call]  # likewise

    def get_connection(self, *args: Any, **options: Any) -> Any:
        try:
            return super().get_connection(*args, **options)
        except (TypeError, ValueError, OverflowError) as exc:
            # Without the exception's text, which may contain a password.
            raise redis.exceptions.RedisError(f"REDIS_URL: {type(exc).__name__}") from None


class NoPrimary(redis.ConnectionError):
    """The sentinels name no primary at present. It has our message and suggestion."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.message, self.suggestion = message, suggestion


class Sentinels:
    """The sentinels of one service, for all threads. redis-py's own class may lose some of them: its threads exchange
    elements of one list.
    """

    def __init__(self, clients: Sequence[redis.Redis]) -> None:
        self._clients = tuple(clients)

    def discover_master(self, service: str) -> tuple[str, int]:
        """Return the primary's address. Raises NoPrimary."""
        reasons: set[tuple[str, str | None]] = set()
        for client in self._clients:
            try:
                state = client.execute_command("SENTINEL MASTER", service)  # type: ignore[no-untyped-call]  # likewise
            except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError):
                reasons.add(("Redis's sentinels refused the login.", "Check sentinel_password in REDIS_URL."))
            except redis.exceptions.ResponseError:
                reasons.add((f"Redis's sentinels don't know the service {service!r}.", "Check its name in REDIS_URL."))
            except redis.exceptions.RedisError:
                continue
            else:
                if state["is_master"] and not state["is_sdown"] and not state["is_odown"]:
                    # A sentinel that is silent costs each new connection a wait: begin with this one.
                    self._clients = (client, *(one for one in self._clients if one is not client))
                    return state["ip"], state["port"]
                reasons = {("Redis has no primary at present.", "Its sentinels choose one within seconds.")}
        if reasons:
            raise NoPrimary(*min(reasons))
        raise NoPrimary("None of Redis's sentinels can be reached.")


class PrimaryConnection(redis.sentinel.SentinelManagedConnection):
    """A connection to the primary. It ends when that has become a replica; the next one goes to the new primary."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            # Not the parent's: it sees no such error inside a script.
            return redis.Connection.read_response(self, *args, **options)
        except redis.exceptions.ResponseError as exc:
            # Redis 6 reports what fails inside a script as a plain error.
            if "read only replica" not in str(exc):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]  # likewise
            raise NoPrimary("Redis has another primary now.", "The next call goes there.") from exc


class TLSPrimaryConnection(PrimaryConnection, redis.sentinel.SentinelManagedSSLConnection):
    """The same over TLS."""


class SentinelPool(Pool, redis.sentinel.SentinelConnectionPool):
    """Connections to the primary that the sentinels name. A change of the primary ends those to the old one."""


# Django makes a client for each thread, which takes it 8 us to find. All share one pool of connections.
@cache
def get_redis() -> redis.Redis:
    client: redis.Redis = get_redis_connection("default")
    return client


def take_turn(key: str, seconds: int) -> bool:
    """Take a turn that lasts so many seconds. Return False when another process has it. Raises CacheUnavailable."""
    with redis_errors():
        if get_redis().set(key, "1", nx=True, ex=seconds):
            return True
        # A turn without an end is damage.
        if 0 <= get_redis().ttl(key) <= seconds:
            return False
        return bool(get_redis().set(key, "1", ex=seconds))


def end_turn(key: str, pause_seconds: float) -> None:
    """Allow the next turn after a pause, which is shorter than a turn lasts. Raises CacheUnavailable."""
    with redis_errors():
        get_redis().pexpire(key, int(pause_seconds * 1000))


def read_time() -> datetime:
    """Return Redis's time. Raises CacheUnavailable."""
    with redis_errors():
        seconds, microseconds = get_redis().time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def takes_writes() -> bool:
    """Tell whether Redis accepts writes. A full Redis and a read-only replica can still be read."""
    try:
        with redis_errors():
            get_redis().set(PROBE, "1", ex=1)
    except CacheUnavailable:
        return False
    return True


def find_eviction_policy() -> str | None:
    """Return Redis's `maxmemory-policy`; None where Redis doesn't say."""
    with redis_errors():
        info: dict[str, Any] = get_redis().info("memory")
    return info.get("maxmemory_policy")


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn redis-py's exceptions into CacheUnavailable, which says what is wrong and what to do."""
    try:
        yield
    except redis.exceptions.AuthenticationError as exc:
        raise CacheUnavailable("Redis refused the login.", suggestion="Check the password in REDIS_URL.") from exc
    except redis.exceptions.BusyLoadingError as exc:
        raise CacheUnavailable("Redis is still loading its data.", suggestion="Try again when it has loaded.") from exc
    except NoPrimary as exc:
        raise CacheUnavailable(exc.message, suggestion=exc.suggestion) from exc
    except redis.exceptions.TimeoutError as exc:
        raise CacheUnavailable("Redis did not answer in time.") from exc
    except redis.exceptions.ConnectionError as exc:
        raise _name_broken_connection(str(exc)) from exc
    except redis.exceptions.RedisError as exc:
        raise _name_refusal(str(exc)) from exc


def _name_broken_connection(reason: str) -> CacheUnavailable:
    if refused := re.search(r"certificate verify failed: (.+?)\.? \(_ssl", reason):
        return CacheUnavailable(
            f"Redis's certificate is not trusted, so nothing was sent to it: {refused[1]}.",
            suggestion="Add your CA to REDIS_URL, as in rediss://host:6379/0?ssl_ca_certs=/path/ca.pem, and use the "
            "host name in the certificate.",
        )
    return CacheUnavailable()


# A word of Redis's error, our message, what to do. An error inside a script arrives as a plain ResponseError, so its
# class says nothing.
_REFUSALS: Final = (
    ("maxmemory", "Redis is out of memory.", "Raise its maxmemory, or free memory."),
    ("read only replica", "Redis is a read-only replica.", "Point REDIS_URL at the primary."),
    ("MISCONF", "Redis can't write to its disk.", "Free disk space, or turn off its snapshots."),
    ("REDIS_URL", "REDIS_URL has a wrong parameter.", "Check the parameters in REDIS_URL."),
    ("permission", "Redis's ACL forbids it.", "Give the user in REDIS_URL the rules in docs/operations.md."),
    ("executing the script", "Redis's ACL forbids it.", "Give the user in REDIS_URL the rules in docs/operations.md."),
    ("WRONGTYPE", "Redis has values of another program under our keys.", "POST /api/cache/clear, then synchronize."),
)


def _name_refusal(reason: str) -> CacheUnavailable:
    for word, message, suggestion in _REFUSALS:
        if word in reason:
            return CacheUnavailable(message, suggestion=suggestion)
    return CacheUnavailable(f"Redis refused a command: {reason[:120]}")
