"""The account's balance, read by a worker every 5 minutes and shared through Redis, and how long it lasts."""

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from django.utils import timezone

from instances import redis_client
from instances.errors import CacheUnavailable, NovitaError, NovitaRejectedKey
from instances.instance import format_time, parse_time
from instances.novita.client import get_novita
from instances.outgoing.deadline import Budget
from instances.redis_client import get_redis, redis_errors

log = logging.getLogger(__name__)

# A little less than the 5 minutes, since a worker looks every half minute.
READ_EVERY_SECONDS: Final = 290
CALL_SECONDS: Final = 30
NO_RIGHT: Final = "The API key may not read the balance."


@dataclass(frozen=True)
class Reading:
    """The balance as it was last read, in USD, and the burn rate then. `read_at` is the last success."""

    available: Decimal | None = None
    credit_limit: Decimal | None = None
    read_at: datetime | None = None
    per_hour: Decimal | None = None
    error: str = ""

    def find_hours_left(self, per_hour: Decimal | None) -> Decimal | None:
        """Return how long the balance lasts at a burn rate; None when it is unknown, and when nothing costs."""
        if self.available is None or not per_hour:
            return None
        return max(Decimal(0), self.available / per_hour)


def read() -> Reading:
    """Return the last reading. Raises CacheUnavailable."""
    with redis_errors():
        text = get_redis().get(redis_client.BALANCE)
    try:
        document = json.loads(text or "{}")
        amounts = {
            name: None if document.get(name) is None else Decimal(document[name])
            for name in ("available", "credit_limit", "per_hour")
        }
        read_at = parse_time(document["read_at"]) if document.get("read_at") else None
        return Reading(**amounts, read_at=read_at, error=str(document.get("error", "Not read yet.")))
    except (ValueError, TypeError, AttributeError, InvalidOperation, RecursionError):
        return Reading(error="Not read yet.")


def refresh(per_hour: Decimal | None) -> None:
    """Read the balance at Novita, unless a worker did so lately. `per_hour` is the present burn rate.

    Raises CacheUnavailable. A balance that can't be read is unknown; a key without the right is reported once.
    """
    if not redis_client.take_turn(redis_client.BALANCE_TURN, READ_EVERY_SECONDS):
        return
    before = _read_or_none()
    try:
        found = get_novita().read_balance(Budget(CALL_SECONDS))
        reading = Reading(found.available, found.credit_limit, timezone.now(), per_hour)
    except NovitaError as exc:
        error = NO_RIGHT if isinstance(exc, NovitaRejectedKey) else exc.message
        reading = Reading(read_at=before.read_at, per_hour=per_hour, error=error)
        log.log(logging.DEBUG if error == before.error else logging.WARNING, "balance not read: %s", error)
    _share(reading)


def _read_or_none() -> Reading:
    try:
        return read()
    except CacheUnavailable:
        # A damaged value is replaced.
        return Reading()


def _share(reading: Reading) -> None:
    document = {
        "available": _show(reading.available),
        "credit_limit": _show(reading.credit_limit),
        "per_hour": _show(reading.per_hour),
        "read_at": format_time(reading.read_at) if reading.read_at else None,
        "error": reading.error,
    }
    with redis_errors():
        get_redis().set(redis_client.BALANCE, json.dumps(document), ex=redis_client.KEEP_SECONDS)


def _show(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)
