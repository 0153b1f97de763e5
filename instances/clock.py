"""Compares times in the database with a clock that people, NTP and suspended machines set forward and back.

A time further ahead than anything is ever planned is due, too: the clock was set back since. A call too early costs a
call, and a call an hour late costs an hour of running machines.
"""

import time
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from django.db.models import Q
from django.utils import timezone

# How much the clocks of the hosts may differ.
SKEW_SECONDS: Final = 60.0


def is_due(moment: datetime, longest_seconds: float) -> bool:
    """Tell whether a time has come that was planned at most `longest_seconds` ahead."""
    ahead = (moment - timezone.now()).total_seconds()
    return ahead <= 0 or ahead > longest_seconds + SKEW_SECONDS


def find_due(field: str, longest_seconds: float) -> Q:
    """Return `is_due` as a condition on a field."""
    now = timezone.now()
    limit = now + timedelta(seconds=longest_seconds + SKEW_SECONDS)
    return Q(**{f"{field}__lte": now}) | Q(**{f"{field}__gt": limit})


def seconds_until(moment: datetime) -> float:
    """Return the seconds until a moment; negative when it has passed.

    A process reads the clock when it first gets the moment, and then counts by a steady clock: setting the time does
    not end a deadline.
    """
    return _find_end(moment) - steady()


@lru_cache(maxsize=4096)
def _find_end(moment: datetime) -> float:
    return steady() + (moment - timezone.now()).total_seconds()


def steady() -> float:
    """Return the seconds of a clock that can't be set. On Linux it continues while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
