"""Novita's metrics of one instance: its answer as series of samples, in percent.

One call tells about one instance, about a minute late. A bad parameter is answered by the last 60 seconds, so the times
of the samples tell what an answer covers. Novita's documentation names neither the type of a timestamp (seen: seconds
in a string) nor an order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from instances.errors import NovitaBadAnswer
from instances.novita.rows import read_integer

# A larger number counts milliseconds: in seconds it is the year 5138.
_FIRST_MS: Final = 10**11
# An answer for a day has 1,440 samples a series.
MAX_SAMPLES: Final = 10_000
MAX_GPUS: Final = 64


class Sample(NamedTuple):
    """A value in percent. Out of range or not finite: Novita sent it so."""

    at: datetime
    value: float


@dataclass(frozen=True)
class Metrics:
    """The series of an answer; `gpus` has one per GPU."""

    gpus: Sequence[Sequence[Sample]]
    gpu_average: Sequence[Sample]
    gpu_memory: Sequence[Sample]
    cpu: Sequence[Sample]
    memory: Sequence[Sample]


def parse_metrics(body: Any) -> Metrics:
    """Read an answer; a sample without a time or a value counts as missing. Raises NovitaBadAnswer."""
    if not isinstance(body, dict):
        raise NovitaBadAnswer("Novita's answer has no metrics.")
    utilization, memory = (_find(body, name, {}) for name in ("gpuUtilization", "gpuMemUtilization"))
    if not isinstance(utilization, dict) or not isinstance(memory, dict):
        raise NovitaBadAnswer("Novita's metrics have another form.")
    gpus = _find(utilization, "gpuIds", [])
    if not isinstance(gpus, list) or len(gpus) > MAX_GPUS or not all(isinstance(one, dict) for one in gpus):
        raise NovitaBadAnswer("Novita's metrics have another form.")
    names = [str(one["gpuId"]) for one in gpus if one.get("gpuId") is not None]
    if len(set(names)) < len(names):
        # Of two GPUs, the one that works may be the one that is missing.
        raise NovitaBadAnswer("Novita's metrics have two series of the same GPU.")
    return Metrics(
        gpus=[_parse_series(one.get("items")) for one in gpus],
        gpu_average=_parse_series(utilization.get("avg")),
        gpu_memory=_parse_series(memory.get("avg")),
        cpu=_parse_series(body.get("cpuUtilization")),
        memory=_parse_series(body.get("memUtilization")),
    )


def _find(body: dict[str, Any], name: str, default: Any) -> Any:
    value = body.get(name)
    return default if value is None else value


def _parse_series(items: Any) -> list[Sample]:
    if items is None:
        return []
    if not isinstance(items, list) or len(items) > MAX_SAMPLES:
        raise NovitaBadAnswer("Novita's metrics have another form.")
    samples = (_parse_sample(item) for item in items)
    return sorted(sample for sample in samples if sample)


def _parse_sample(item: Any) -> Sample | None:
    if not isinstance(item, dict):
        return None
    seconds, value = read_integer(item.get("timestamp")), _parse_value(item.get("value"))
    if seconds is None or value is None:
        return None
    try:
        return Sample(datetime.fromtimestamp(seconds / 1000 if seconds >= _FIRST_MS else seconds, UTC), value)
    except (ValueError, OverflowError, OSError):
        return None


def _parse_value(value: Any) -> float | None:
    """Return a percentage as it was sent; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    # NaN can't be compared, so it could not be sorted; a negative value is as wrong.
    return -1.0 if math.isnan(number) else number
