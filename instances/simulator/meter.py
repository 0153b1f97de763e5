"""The account's own meter: what each instance was charged, when. Bills and the balance come from it.

An amount is in 1e-5 USD. Times are Unix seconds, counted in milliseconds. The rules are Novita's: GPUs from "pulling"
until the instance is stopped, storage beyond the free part while it is stopped, and nothing for an instance that is
paid by the month.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from instances.simulator.answers import Row
from instances.simulator.rows import PRODUCTS

UNCHARGED = frozenset({"pending", "toCreate", "creating", "removed"})
FREE_STORAGE_GB = 60
STORAGE_UNITS_PER_GB_DAY = 500
# The price of a product that the list no longer has (invented).
OTHER_PRICE_UNITS = 30_000
HOUR, DAY = 3600, 86_400
STEPS = {"Hour": HOUR, "Day": DAY, "Week": 7 * DAY, "Month": 30 * DAY}
# How long after its end a period is billed (invented; Novita bills "some hours later").
BILLED_AFTER_SECONDS = 2 * HOUR
# The first balance lasts for some days, so that it falls and nothing warns of it (invented).
LEAST_BALANCE_UNITS = 100_000_000
BALANCE_HOURS = 100
_PRODUCTS = {product["id"]: product for product in PRODUCTS}


@dataclass
class Charge:
    """One price of one instance. Without an end it lasts."""

    began_at: float
    ended_at: float | None
    units_per_hour: Fraction

    def measure(self, begin: float, end: float, now: float) -> Fraction:
        """Return the units within a time."""
        seconds = min(end, now if self.ended_at is None else self.ended_at) - max(begin, self.began_at)
        return self.units_per_hour * round(seconds * 1000) / (1000 * HOUR) if seconds > 0 else Fraction(0)


def find_units_per_hour(row: Row) -> Fraction:
    """Return what an instance is charged in its present status."""
    status = row["status"]
    if status in UNCHARGED or row["billingMode"] == "monthly":
        return Fraction(0)
    if status == "exited":
        gigabytes = max(0, _read_number(row["rootfsSize"]) - FREE_STORAGE_GB)
        return Fraction(STORAGE_UNITS_PER_GB_DAY * gigabytes, 24)
    return Fraction(find_price_units(row) * _read_number(row["gpuNum"]))


def find_price_units(row: Row) -> int:
    """Return the price per GPU and hour: the row's own, or that of its product."""
    listed = _PRODUCTS.get(row["productId"], {}).get("spotPrice" if row["billingMode"] == "spot" else "price")
    return _read_number(row.get("instancePrice")) or _read_number(listed) or OTHER_PRICE_UNITS


def _read_number(value: object) -> int:
    """Read a number or a text; 0 for any other value, which a test may set."""
    text = str(value)
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


class Meter:
    """The charges of all instances, those that are removed included."""

    def __init__(self) -> None:
        self._first_balance = Fraction(LEAST_BALANCE_UNITS)
        self._charges: dict[str, list[Charge]] = {}
        self._rows: dict[str, Row] = {}

    def pay_in(self) -> None:
        """Set the balance by what is charged now."""
        charges = [one[-1].units_per_hour for one in self._charges.values()]
        self._first_balance = max(self._first_balance, BALANCE_HOURS * sum(charges, Fraction(0)))

    def note(self, row: Row, at: float) -> None:
        """Record what an instance is charged from now on."""
        units = find_units_per_hour(row)
        charges = self._charges.setdefault(row["id"], [])
        self._rows[row["id"]] = row
        if not charges or charges[-1].ended_at is not None or charges[-1].units_per_hour != units:
            self.end(row["id"], at)
            charges.append(Charge(at, None, units))

    def end(self, instance_id: str, at: float) -> None:
        charges = self._charges.get(instance_id)
        if charges and charges[-1].ended_at is None:
            charges[-1].ended_at = max(at, charges[-1].began_at)

    def measure(self, instance_id: str, begin: float, end: float, now: float) -> Fraction:
        """Return the units of one instance within a time."""
        charges = self._charges.get(instance_id, ())
        return sum((charge.measure(begin, end, now) for charge in charges), Fraction(0))

    def measure_all(self, begin: float, end: float, now: float) -> Fraction:
        return sum((self.measure(id_, begin, end, now) for id_ in self._charges), Fraction(0))

    def describe_balance(self, now: float) -> dict[str, str]:
        """Return the balance as Novita describes it, in 1e-4 USD."""
        left = self._first_balance - self.measure_all(0, now, now)
        cash = str(round(left / 10))
        return {"availableBalance": cash, "cashBalance": cash, "creditLimit": "0", "outstandingInvoices": "0"}

    def list_bills(self, cycle: str, category: str, begin: int, end: int, now: float) -> Iterator[Row]:
        """Yield the bills of the periods that begin within a time and are billed already."""
        step = STEPS[cycle]
        first = begin // step * step
        for start in range(first if first >= begin else first + step, end, step):
            if start + step + BILLED_AFTER_SECONDS > now:
                return
            for id_, row in self._rows.items():
                # The difference of two rounded sums: the bills of hours are together those of their day.
                amount, before = (round(self.measure(id_, 0, end, now) / 10) for end in (start + step, start))
                if amount > before and category == "gpu":
                    yield _make_bill(row, start, start + step, amount - before)


def _make_bill(row: Row, start: int, end: int, amount: int) -> Row:
    return {
        "userId": "FAKE-user",
        "startTime": str(start),
        "endTime": str(end),
        "billingMethod": row["billingMode"],
        "productName": row["productName"],
        "category": "gpu",
        "ownerID": row["id"],
        "billNum0": str(end - start),
        "billNum1": row["gpuNum"],
        "basePrice0": str(find_price_units(row)),
        "basePrice1": "0",
        "discountPrice0": str(find_price_units(row)),
        "discountPrice1": "0",
        "amount": str(amount),
        "voucherAmount": "0",
        "payAmount": str(amount),
        "pricePrecision": "4",
        "productId": row["productId"],
    }
