"""What an operation changes in cost per hour, by the prices in the inventory. A dead Redis makes them unknown.

A finished operation keeps what it saved or costs: its record must not follow later prices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from instances.instance import FREE, find_charge, get_status
from instances.models import Operation, Target
from instances.operations.observing import read_copy

# Targets in these states are, or are about to be, as requested.
_COUNTED = (Target.State.PENDING, Target.State.REQUESTED, Target.State.CONFIRMED)


@dataclass(frozen=True)
class Money:
    """The USD per hour that a stop saves or a start costs, without unknown prices and prepaid instances.

    `per_hour` is None when all that counts is unknown.
    """

    per_hour: Decimal | None = FREE
    unknown_prices: int = 0
    prepaid: int = 0


def find(operation: Operation, targets: Sequence[Target]) -> Money:
    """Return what an operation saves or costs: as recorded at its end, before that by the present prices."""
    if operation.unknown_prices is None or operation.prepaid is None:
        return _estimate(operation.kind, targets)
    return Money(operation.usd_per_hour, operation.unknown_prices, operation.prepaid)


def note(operation: Operation, targets: Sequence[Target]) -> None:
    """Set the fields of an operation that ends."""
    found = _estimate(operation.kind, targets)
    operation.usd_per_hour, operation.unknown_prices = found.per_hour, found.unknown_prices
    operation.prepaid = found.prepaid


def _estimate(kind: str, targets: Sequence[Target]) -> Money:
    """Sum the prices of the targets whose cost the operation changes."""
    ids = [
        target.instance_id
        for target in targets
        if target.state in _COUNTED and _changes_cost(kind, target.first_status)
    ]
    known = (read_copy(ids) if ids else None) or {}
    prepaid = sum(one.is_prepaid for one in known.values())
    prices = [one.price_per_hour for one in known.values() if not one.is_prepaid and one.price_per_hour is not None]
    unknown = len(ids) - len(prices) - prepaid
    return Money(None if unknown and not prices else sum(prices, FREE), unknown, prepaid)


def _changes_cost(kind: str, first_status: str) -> bool:
    """Tell whether the request changes what an instance in a status costs. A restart changes nothing."""
    group = get_status(first_status).group
    if kind == "stop":
        return group != "stopping" and find_charge(first_status) not in ("nothing", "storage")
    return kind == "start" and group not in ("running", "starting")
