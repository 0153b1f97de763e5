"""The ledger's estimate of each day against the amount that Novita billed."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from django.utils import timezone

from instances import redis_client
from instances.costs import reports
from instances.costs.period import Period
from instances.errors import CacheUnavailable, NovitaError
from instances.novita.client import get_novita
from instances.outgoing.deadline import Budget
from instances.redis_client import get_redis, redis_errors

log = logging.getLogger(__name__)

MAX_DAYS: Final = 31
CALL_SECONDS: Final = 15
CACHED_SECONDS: Final = 300
RETRY_SECONDS: Final = 60
# Storage may be billed by itself.
CATEGORIES: Final = ("gpu", "cloud_storage")
# A day without any bill costs nothing once it is older than this; before, it is not billed yet.
BILLED_AFTER: Final = timedelta(days=2)


@dataclass(frozen=True)
class Day:
    """`billed` is None when Novita has not billed the day yet."""

    date: date
    estimated: Decimal
    billed: Decimal | None
    # False: the ledger began later, so there is nothing to compare.
    is_recorded: bool = True

    @property
    def difference(self) -> Decimal | None:
        return self.billed - self.estimated if self.billed is not None and self.is_recorded else None


@dataclass(frozen=True)
class Bill:
    """`error` says why Novita's bill can't be read; then no day has an amount."""

    days: list[Day]
    error: str = ""


@dataclass(frozen=True)
class _Billed:
    """The sum of each day's bills, or why they can't be read."""

    amounts: Mapping[date, Decimal]
    error: str = ""

    def encode(self) -> str:
        amounts = {day.isoformat(): str(amount) for day, amount in self.amounts.items()}
        return json.dumps({"amounts": amounts, "error": self.error})


def compare(period: Period) -> Bill:
    """Return each day (UTC) of a period of whole days."""
    return _compare(period, _read_billed(period))


def find_known(period: Period) -> Bill | None:
    """Return the comparison without waiting for Novita; None if nobody has read the bill lately."""
    known = _find_shared(_make_key(period))
    return None if known is None else _compare(period, known)


def _compare(period: Period, billed: _Billed) -> Bill:
    points = reports.read_history(period.began_ms, period.ended_ms, reports.DAY_MS)
    since_ms = reports.find_beginning() or 0
    today = timezone.now().date()
    last = max(billed.amounts, default=date.min)
    days = []
    for point in points:
        day = datetime.fromtimestamp(point.at_ms / 1000, UTC).date()
        is_billed = not billed.error and day < today and (day <= last or today - day > BILLED_AFTER)
        amount = billed.amounts.get(day, Decimal(0)) if is_billed else None
        days.append(Day(day, point.sums.usd, amount, point.at_ms + reports.DAY_MS > since_ms))
    return Bill(days, billed.error)


def _read_billed(period: Period) -> _Billed:
    """Return what Novita billed. Readers within some minutes share one read of Novita."""
    key = _make_key(period)
    known = _find_shared(key)
    if known is not None:
        return known
    amounts: dict[date, Decimal] = {}
    try:
        budget = Budget(CALL_SECONDS)
        for category in CATEGORIES:
            for one in get_novita().list_bills(category, period.begin, period.end, budget):
                day = one.began_at.date()
                amounts[day] = amounts.get(day, Decimal(0)) + one.amount
        found = _Billed(amounts)
    except NovitaError as exc:
        found = _Billed({}, f"Novita's bill can't be read: {exc.message}")
    try:
        with redis_errors():
            get_redis().set(key, found.encode(), ex=RETRY_SECONDS if found.error else CACHED_SECONDS)
    except CacheUnavailable as exc:
        log.debug("bills not kept in Redis: %s", exc)
    return found


def _make_key(period: Period) -> str:
    return f"{redis_client.BILLS}{period.begin:%Y%m%d}-{period.end:%Y%m%d}"


def _find_shared(key: str) -> _Billed | None:
    try:
        with redis_errors():
            text = get_redis().get(key)
        document = json.loads(text or "null")
        amounts = {date.fromisoformat(day): Decimal(amount) for day, amount in document["amounts"].items()}
        return _Billed(amounts, str(document["error"]))
    except (CacheUnavailable, ValueError, TypeError, KeyError, AttributeError, InvalidOperation) as exc:
        log.debug("bills not read from Redis: %s", exc)
        return None
