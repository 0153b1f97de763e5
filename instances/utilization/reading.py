"""One reading of an instance's metrics: what one call to Novita told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from instances.novita.metrics import Sample

__all__ = ["Reading", "Sample"]


@dataclass(frozen=True)
class Reading:
    """The samples between two times, as far as they were sent; `gpus` has a series per GPU.

    `error` says why there are none: the call failed, or its answer did not cover what was asked.
    """

    read_at: datetime
    began_at: datetime
    ended_at: datetime
    interval_seconds: int
    gpus: Sequence[Sequence[Sample]] = ()
    gpu_average: Sequence[Sample] = ()
    gpu_memory: Sequence[Sample] = ()
    cpu: Sequence[Sample] = ()
    memory: Sequence[Sample] = field(default=())
    error: str = ""
