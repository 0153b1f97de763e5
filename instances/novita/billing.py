"""The balance and the bills of the account. Novita's unit of money is 1e-4 USD; amounts are in USD here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from instances.errors import NovitaBadAnswer
from instances.novita.rows import read_integer

MONEY_UNITS_PER_USD: Final = 10_000


@dataclass(frozen=True)
class Balance:
    available: Decimal
    credit_limit: Decimal | None


@dataclass(frozen=True)
class Bill:
    """What one instance or disk was billed for a period, before vouchers."""

    began_at: datetime
    amount: Decimal


def parse_balance(body: Any) -> Balance:
    """Raises NovitaBadAnswer."""
    available = _read_money(body.get("availableBalance")) if isinstance(body, dict) else None
    if available is None:
        raise NovitaBadAnswer("Novita's answer has no balance.")
    return Balance(available, _read_money(body.get("creditLimit")))


def parse_bills(body: Any) -> Sequence[Bill]:
    """Raises NovitaBadAnswer, also for a bill without a time or an amount: a part is not the whole."""
    rows = body.get("bills") if isinstance(body, dict) else None
    if not isinstance(rows, list | None) or (rows is None and not isinstance(body, dict)):
        raise NovitaBadAnswer("Novita's answer has no list of bills.")
    return [_parse_bill(row) for row in rows or ()]


def _parse_bill(row: Any) -> Bill:
    seconds = read_integer(row.get("startTime")) if isinstance(row, dict) else None
    amount = _read_money(row.get("amount")) if isinstance(row, dict) else None
    if seconds is None or amount is None:
        raise NovitaBadAnswer("One of Novita's bills has no time or no amount.")
    try:
        return Bill(datetime.fromtimestamp(seconds, UTC), amount)
    except (ValueError, OverflowError, OSError) as exc:
        raise NovitaBadAnswer("One of Novita's bills has an impossible time.") from exc


def _read_money(value: object) -> Decimal | None:
    units = read_integer(value)
    return None if units is None else Decimal(units) / MONEY_UNITS_PER_USD
