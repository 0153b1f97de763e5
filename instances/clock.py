"""Moments that stand in the database, judged by a clock that people, NTP and sleeping machines set forward and back.

Due is also what lies further ahead than anything is ever planned: the clock was set back since. Too early a look costs
a call; one that comes an hour late costs an hour of running machines.
"""

import time
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from django.db.models import Q
from django.utils import timezone

# By how much the hosts' clocks may differ.
SKEW_SECONDS: Final = 60.0


def is_due(moment: datetime, longest_seconds: float) -> bool:
    """Tell whether a moment has come that was planned for `longest_seconds` ahead at most."""
    ahead = (moment - timezone.now()).total_seconds()
    return ahead <= 0 or ahead > longest_seconds + SKEW_SECONDS


def find_due(field: str, longest_seconds: float) -> Q:
    """Return the same as a condition on a field."""
    now = timezone.now()
    limit = now + timedelta(seconds=longest_seconds + SKEW_SECONDS)
    return Q(**{f"{field}__lte": now}) | Q(**{f"{field}__gt": limit})


def seconds_until(moment: datetime) -> float:
    """Return how long it is until a moment, below 0 when it has passed.

    A process looks at the clock when it first meets the moment, and counts from there by a clock that nobody sets: a
    deadline doesn't pass because somebody sets the time.
    """
    return _find_end(moment) - _steady()


@lru_cache(maxsize=4096)
def _find_end(moment: datetime) -> float:
    return _steady() + (moment - timezone.now()).total_seconds()


def _steady() -> float:
    """Return the seconds of a clock that nobody sets; on Linux it counts on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
