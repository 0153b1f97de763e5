"""The last reading of each instance, in Redis: shared by all processes, and gone after an hour."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from instances import redis_client
from instances.redis_client import get_redis, redis_errors
from instances.utilization.reading import Reading, Sample

KEEP_SECONDS: Final = 3600
# The series of a reading, each with its short name in Redis.
_SERIES: Final = {"gpu_average": "a", "gpu_memory": "m", "cpu": "c", "memory": "y"}


def write(instance_id: str, reading: Reading) -> None:
    """Raises CacheUnavailable."""
    document: dict[str, Any] = {
        "r": _to_ms(reading.read_at),
        "b": _to_ms(reading.began_at),
        "e": _to_ms(reading.ended_at),
        "i": reading.interval_seconds,
        "g": [_pack(series) for series in reading.gpus],
        "x": reading.error,
        **{short: _pack(getattr(reading, name)) for name, short in _SERIES.items()},
    }
    with redis_errors():
        get_redis().set(f"{redis_client.METRICS}{instance_id}", json.dumps(document), ex=KEEP_SECONDS)


def read_many(ids: Sequence[str]) -> dict[str, Reading]:
    """Return the last readings of these instances, as far as there are any. Raises CacheUnavailable."""
    if not ids:
        return {}
    with redis_errors():
        texts = get_redis().mget([f"{redis_client.METRICS}{id_}" for id_ in ids])
    found = {id_: _parse(text) for id_, text in zip(ids, texts, strict=True) if text}
    return {id_: reading for id_, reading in found.items() if reading}


def _parse(text: bytes | str) -> Reading | None:
    """Return a stored reading; None for one of another version, or for anything else under its key."""
    try:
        document = json.loads(text)
        return Reading(
            read_at=_to_time(document["r"]),
            began_at=_to_time(document["b"]),
            ended_at=_to_time(document["e"]),
            interval_seconds=int(document["i"]),
            gpus=tuple(_unpack(series) for series in document["g"]),
            error=str(document["x"]),
            **{name: _unpack(document[short]) for name, short in _SERIES.items()},
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def _pack(series: Sequence[Sample]) -> list[list[float]]:
    return [[_to_ms(at), value] for at, value in series]


def _unpack(series: Any) -> tuple[Sample, ...]:
    return tuple(Sample(_to_time(at), float(value)) for at, value in series)


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _to_time(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
