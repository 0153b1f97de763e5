"""How old the inventory is, by Redis's clock: those of the hosts differ, and people see the ages."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from django.conf import settings

# How far the time of a read may lie in the future. Beyond that a clock was set back, and the age is unknown.
CLOCK_SLACK_MS: Final = 2000


@dataclass(frozen=True)
class Freshness:
    """`as_of` is when the last complete read of Novita began.

    Without an inventory `as_of` is None. An age of None beside a time means that the clock was set back since.
    """

    as_of: datetime | None = None
    age_seconds: float | None = None

    @property
    def is_stale(self) -> bool:
        return self.age_seconds is None or self.age_seconds > settings.NOVITA_STALE_AFTER


def measure(now_ms: int, as_of_ms: int) -> Freshness:
    age_ms = now_ms - as_of_ms
    return Freshness(to_time(as_of_ms), max(0, age_ms) / 1000 if age_ms >= -CLOCK_SLACK_MS else None)


def to_time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
