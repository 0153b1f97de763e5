"""The time of a report: read from texts, and checked."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final

from django.utils import timezone

from instances.costs import ledger
from instances.errors import InvalidRequest
from instances.instance import format_time

DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 400
MAX_DAYS_BY_HOUR: Final = 31
_FORM: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?Z?)?", re.ASCII)
# Within these years, a period and the days beside it are dates that Python has.
_YEARS: Final = range(2000, 3000)
_EXAMPLES: Final = "such as 2026-01-31 or 2026-01-31T10:00:00Z."


@dataclass(frozen=True)
class Period:
    """From one time until another, which is not included."""

    begin: datetime
    end: datetime

    @property
    def began_ms(self) -> int:
        return ledger.to_ms(self.begin)

    @property
    def ended_ms(self) -> int:
        return ledger.to_ms(self.end)


def read_period(
    from_text: str | None,
    to_text: str | None,
    *,
    max_days: int = MAX_DAYS,
    days: int = DEFAULT_DAYS,
    are_whole_days: bool = False,
) -> Period:
    """Return the period of a report; by default the last days until now. Raises InvalidRequest.

    A date as the end includes that day. Whole days are those (UTC) in which the period begins and ends.
    """
    now = timezone.now()
    end = _read_moment("to", to_text, is_end=True) if to_text else now
    begin = _read_moment("from", from_text, is_end=False) if from_text else _find_start(end, min(days, max_days))
    if begin >= end:
        raise InvalidRequest(fields={"from": f"Must be before the end, {format_time(end)}."})
    if begin > now:
        raise InvalidRequest(fields={"from": f"Must not be in the future; it is {format_time(now)} now."})
    if are_whole_days:
        begin, end = _find_midnight(begin), _find_midnight(end + timedelta(days=1, microseconds=-1))
    if end - begin > timedelta(days=max_days):
        raise InvalidRequest(fields={"from": f"Must be at most {max_days} days before the end, {format_time(end)}."})
    return Period(begin, end)


def _find_start(end: datetime, days: int) -> datetime:
    """Return the midnight (UTC) that begins so many days, the last one included."""
    return _find_midnight(end - timedelta(days=days - 1, microseconds=1))


def _find_midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.date(), time.min, UTC)


def _read_moment(name: str, text: str, *, is_end: bool) -> datetime:
    if not _FORM.fullmatch(text):
        raise InvalidRequest(fields={name: f"Must be a date or a time in UTC, {_EXAMPLES}"})
    if int(text[:4]) not in _YEARS:
        raise InvalidRequest(fields={name: f"Must be in the years {_YEARS[0]} to {_YEARS[-1]}."})
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
        return moment + timedelta(days=1) if is_end and "T" not in text else moment
    except ValueError as exc:
        raise InvalidRequest(fields={name: f"Must be a date that exists, {_EXAMPLES}"}) from exc
