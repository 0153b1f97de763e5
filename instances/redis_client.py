"""The connection to Redis, the names of all keys, and Redis's failures in our words.

All keys carry the tag `{novita}`, so that one script may touch them together.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import redis
from django_redis import get_redis_connection
from redis.commands.core import Script

from instances.errors import CacheUnavailable

CURRENT: Final = "{novita}:current"
GENERATION: Final = "{novita}:gen:"
BODY: Final = "{novita}:body:"
REVISION: Final = "{novita}:revision"
TOUCHED: Final = "{novita}:touched"
MOVING: Final = "{novita}:moving"
SYNC: Final = "{novita}:sync"
LEASE: Final = "{novita}:lease"
FENCE: Final = "{novita}:fence"
MOVING_TURN: Final = "{novita}:moving-turn"
WORKER: Final = "{novita}:worker"
RATE: Final = "{novita}:rate:"
KNOWN: Final = "{novita}:known:"

# Redis's own clock: the hosts' clocks differ, and ages are shown to people. `next_number` counts up from it, so that a
# Redis that was emptied never gives a number out twice: an old ETag can't fit a new listing.
LUA_PRELUDE: Final = """
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function next_number(key)
  local number = math.max((tonumber(redis.call('GET', key)) or 0) + 1, now_ms())
  local text = string.format('%.0f', number)
  redis.call('SET', key, text)
  return text
end
"""


def get_redis() -> redis.Redis:
    client: redis.Redis = get_redis_connection("default")
    return client


@cache
def _get_script(source: str) -> Script:
    # A registered script is loaded again by itself when Redis has forgotten it.
    return get_redis().register_script(LUA_PRELUDE + source)


def run_script(source: str, keys: list[str], args: list[Any]) -> Any:
    """Run a Lua script. Raises CacheUnavailable."""
    with redis_errors():
        return _get_script(source)(keys=keys, args=args, client=get_redis())


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
    ("WRONGTYPE", "Redis holds something foreign under our keys.", "POST /api/cache/clear, then synchronize."),
)


def _name_refusal(reason: str) -> CacheUnavailable:
    for word, message, suggestion in _REFUSALS:
        if word in reason:
            return CacheUnavailable(message, suggestion=suggestion)
    return CacheUnavailable(f"Redis refused a command: {reason[:120]}")
