"""Weekly hours in a named time zone: "Mon-Fri 08:00-20:00, Sat 10:00-14:00", correct when clocks change.

An hour that occurs twice is inside or outside both times; hours may pass midnight: "Fri 20:00-02:00".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# Hours that are looked at around a moment: a week, and the days whose hours pass midnight.
_REACH_DAYS: Final = 9
MAX_EXCEPTED_DAYS: Final = 1000
_HOURS: Final = re.compile(
    r"(?P<first>[a-z]{3})(?:\s*-\s*(?P<last>[a-z]{3}))?\s+(?P<begin>\d{1,2}:\d\d)\s*-\s*(?P<end>\d{1,2}:\d\d)",
    re.IGNORECASE,
)


class WrongSchedule(ValueError):
    """The text is no schedule; the message says what would be valid."""


@dataclass(frozen=True)
class Hours:
    """The allowed hours of some weekdays (Monday is 0). An end at or before the begin lies on the next day."""

    days: frozenset[int]
    begin: time
    # None: midnight at the end of the day.
    end: time | None


@dataclass(frozen=True)
class Schedule:
    hours: tuple[Hours, ...]
    zone: ZoneInfo
    excepted: frozenset[date] = frozenset()

    def is_open(self, at: datetime) -> bool:
        return any(begin <= at < end for begin, end in self._list_spans(at))

    def find_last_end(self, at: datetime) -> datetime | None:
        """Return when the allowed hours last ended; None when that was more than a week ago."""
        return max((end for _, end in self._list_spans(at) if end <= at), default=None)

    def find_next_begin(self, at: datetime) -> datetime | None:
        """Return when the allowed hours begin next; None when that is more than a week ahead."""
        return min((begin for begin, _ in self._list_spans(at) if begin > at), default=None)

    def _list_spans(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        today = at.astimezone(self.zone).date()
        for offset in range(-_REACH_DAYS, _REACH_DAYS + 1):
            day = today + timedelta(days=offset)
            if day in self.excepted:
                continue
            for hours in self.hours:
                if day.weekday() in hours.days:
                    yield self._place(day, hours)

    def _place(self, day: date, hours: Hours) -> tuple[datetime, datetime]:
        """Return the hours of one day in UTC. Where the clocks change, they begin early and end late."""
        is_next_day = hours.end is None or hours.end <= hours.begin
        end_day = day + timedelta(days=1) if is_next_day else day
        return min(self._place_time(day, hours.begin)), max(self._place_time(end_day, hours.end or time(0)))

    def _place_time(self, day: date, at: time) -> list[datetime]:
        """Return both readings of a local time that occurs twice or never; usually they are equal."""
        return [datetime.combine(day, at.replace(fold=fold), self.zone).astimezone(UTC) for fold in (0, 1)]


@lru_cache(maxsize=256)
def read(hours: str, zone: str, excepted: str = "") -> Schedule:
    """Read a schedule from its texts. Raises WrongSchedule."""
    return Schedule(_read_hours(hours), _read_zone(zone), _read_days(excepted))


def _read_hours(text: str) -> tuple[Hours, ...]:
    parts = [part.strip() for part in re.split(r"[,;]", text) if part.strip()]
    if not parts:
        raise WrongSchedule("Name the allowed hours, for example: Mon-Fri 08:00-20:00")
    return tuple(_read_part(part) for part in parts)


def _read_part(part: str) -> Hours:
    match = _HOURS.fullmatch(part)
    if not match:
        raise WrongSchedule(f'"{part[:60]}" is not like "Mon-Fri 08:00-20:00" or "Sat 10:00-14:00".')
    first, last = (_read_day(match[name] or match["first"]) for name in ("first", "last"))
    days = range(first, last + 1) if first <= last else [*range(first, 7), *range(last + 1)]
    begin, end = _read_time(match["begin"]), _read_time(match["end"])
    if begin is None:
        raise WrongSchedule(f'"{part[:60]}": hours can end at 24:00, and not begin then.')
    return Hours(frozenset(days), begin, end)


def _read_day(name: str) -> int:
    if name.capitalize() not in DAYS:
        raise WrongSchedule(f'"{name}" is not a day. Days are {", ".join(DAYS)}.')
    return DAYS.index(name.capitalize())


def _read_time(text: str) -> time | None:
    """Return a time of day; None for 24:00."""
    hour, minute = map(int, text.split(":"))
    if (hour, minute) == (24, 0):
        return None
    try:
        return time(hour, minute)
    except ValueError as exc:
        raise WrongSchedule(f'"{text}" is not a time between 00:00 and 24:00.') from exc


def _read_zone(name: str) -> ZoneInfo:
    if not name:
        raise WrongSchedule("Name the time zone, for example: Europe/Berlin")
    if name not in available_timezones():
        raise WrongSchedule(f'"{name[:60]}" is not a time zone. Use a name such as Europe/Berlin, or UTC.')
    return ZoneInfo(name)


def _read_days(text: str) -> frozenset[date]:
    days: set[date] = set()
    for part in filter(None, map(str.strip, re.split(r"[,;]", text))):
        first, _, last = (piece.strip() for piece in part.partition(".."))
        try:
            begin = date.fromisoformat(first)
            end = date.fromisoformat(last) if last else begin
        except ValueError as exc:
            raise WrongSchedule(f'"{part[:60]}" is not like "2026-12-24" or "2026-12-31..2027-01-01".') from exc
        if not begin <= end:
            raise WrongSchedule(f'"{part[:60]}": the first day is after the last.')
        if (end - begin).days + len(days) > MAX_EXCEPTED_DAYS:
            raise WrongSchedule(f"Name at most {MAX_EXCEPTED_DAYS} days.")
        days.update(begin + timedelta(days=offset) for offset in range((end - begin).days + 1))
    return frozenset(days)
