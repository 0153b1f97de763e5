"""Exchanges stored instances for others with the same facts: with another price, owner or project."""

from collections.abc import Sequence
from typing import Final

from instances import lua, redis_client
from instances.redis_client import get_redis, redis_errors

CHUNK: Final = 500

_EXCHANGE: Final = lua.load(__file__, "exchange")


def find_stored(instance_id: str) -> bytes | None:
    """Return an instance as it is stored. Raises CacheUnavailable."""
    with redis_errors():
        number = get_redis().get(redis_client.CURRENT)
        is_known = isinstance(number, bytes) and number.isdigit()
        value = get_redis().hget(f"{redis_client.GENERATION}{int(number or 0)}", instance_id) if is_known else None
    return value if isinstance(value, bytes) else None


def exchange(changes: Sequence[tuple[str, bytes, bytes]]) -> int:
    """Replace stored instances: each id with its old and its new stored form. Return how many were replaced.

    An instance that has been written meanwhile stays as it is.
    """
    chunks = (changes[start : start + CHUNK] for start in range(0, len(changes), CHUNK))
    return sum(int(_EXCHANGE(changes=[part for change in chunk for part in change])) for chunk in chunks)
