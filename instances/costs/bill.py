"""The ledger's estimate of each day against the amount that Novita billed."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from django.utils import timezone

from instances import redis_client
from instances.costs import ledger, reports
from instances.costs.period import Period
from instances.errors import CacheUnavailable
from instances.novita.client import get_novita
from instances.outgoing.deadline import Budget
from instances.redis_client import get_redis, redis_errors

log = logging.getLogger(__name__)

MAX_DAYS: Final = 31
CALL_SECONDS: Final = 15
CACHED_SECONDS: Final = 300
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

    @property
    def difference(self) -> Decimal | None:
        return None if self.billed is None else self.billed - self.estimated


def compare(period: Period) -> list[Day]:
    """Return each day (UTC) of a period of whole days. Raises NovitaError."""
    begin = datetime.combine(period.begin.date(), time.min, UTC)
    end = datetime.combine((period.end - timedelta(microseconds=1)).date(), time.min, UTC) + timedelta(days=1)
    billed = _read_billed(begin, end)
    points = reports.read_history(ledger.to_ms(begin), ledger.to_ms(end), reports.DAY_MS)
    today = timezone.now().date()
    last = max(billed, default=date.min)
    days = []
    for point in points:
        day = datetime.fromtimestamp(point.at_ms / 1000, UTC).date()
        is_billed = day < today and (day <= last or today - day > BILLED_AFTER)
        days.append(Day(day, point.sums.usd, billed.get(day, Decimal(0)) if is_billed else None))
    return days


def _read_billed(begin: datetime, end: datetime) -> Mapping[date, Decimal]:
    """Return the sum of each day's bills. Readers within five minutes share one read of Novita."""
    key = f"{redis_client.BILLS}{begin:%Y%m%d}-{end:%Y%m%d}"
    try:
        with redis_errors():
            text = get_redis().get(key)
        if isinstance(text, bytes):
            return {date.fromisoformat(day): Decimal(amount) for day, amount in json.loads(text).items()}
    except (CacheUnavailable, ValueError) as exc:
        log.debug("bills not read from Redis: %s", exc)
    budget = Budget(CALL_SECONDS)
    found: dict[date, Decimal] = {}
    for category in CATEGORIES:
        for bill in get_novita().list_bills(category, begin, end, budget):
            day = bill.began_at.date()
            found[day] = found.get(day, Decimal(0)) + bill.amount
    try:
        with redis_errors():
            document = {day.isoformat(): str(amount) for day, amount in found.items()}
            get_redis().set(key, json.dumps(document), ex=CACHED_SECONDS)
    except CacheUnavailable as exc:
        log.debug("bills not kept in Redis: %s", exc)
    return found
