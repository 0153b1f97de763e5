"""The last reading of each instance, in Redis: shared by all processes, and gone after an hour."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from instances import redis_client
from instances.redis_client import get_redis, redis_errors
from instances.utilization.reading import Reading, Sample

KEEP_SECONDS: Final = 3600
# What parsing a text of another version, or of anything else under the key, may raise.
_DAMAGE: Final = (ValueError, KeyError, TypeError, OverflowError, OSError)
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


class Readings(Mapping[str, Reading]):
    """The last readings of some instances. Each is parsed when it is looked up, and not kept.

    1,000 readings of eight GPUs are 540,000 samples: at once they took 60 MB, and half of an evaluation's time.
    """

    def __init__(self, texts: Mapping[str, bytes | str]) -> None:
        self._texts = texts

    def __getitem__(self, instance_id: str) -> Reading:
        reading = _parse(self._texts[instance_id])
        if reading is None:
            raise KeyError(instance_id)
        return reading

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def read_many(ids: Sequence[str]) -> Readings:
    """Return the last readings of these instances, as far as there are any. Raises CacheUnavailable."""
    return Readings(_read_texts(ids))


def read_times(ids: Sequence[str]) -> dict[str, datetime]:
    """Return when these instances were last read, as far as they were. Raises CacheUnavailable."""
    found = {id_: _parse_time(text) for id_, text in _read_texts(ids).items()}
    return {id_: read_at for id_, read_at in found.items() if read_at}


def _read_texts(ids: Sequence[str]) -> dict[str, bytes | str]:
    if not ids:
        return {}
    with redis_errors():
        texts = get_redis().mget([f"{redis_client.METRICS}{id_}" for id_ in ids])
    return {id_: text for id_, text in zip(ids, texts, strict=True) if text}


def _parse_time(text: bytes | str) -> datetime | None:
    try:
        return _to_time(json.loads(text)["r"])
    except _DAMAGE:
        return None


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
    except _DAMAGE:
        return None


def _pack(series: Sequence[Sample]) -> list[list[float]]:
    return [[_to_ms(at), value] for at, value in series]


def _unpack(series: Any) -> tuple[Sample, ...]:
    return tuple(Sample(_to_time(at), float(value)) for at, value in series)


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


# The series of a reading have the same times: of eight GPUs and 1,000 instances, half of the time to read them.
@lru_cache(maxsize=10_000)
def _to_time(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
