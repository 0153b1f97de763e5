"""What an operation changes in cost per hour, by the prices in the inventory. A dead Redis makes them unknown."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from instances.instance import FREE, get_status
from instances.models import Target
from instances.operations.observing import read_copy

# Targets in these states are, or are about to be, as requested.
_COUNTED = (Target.State.PENDING, Target.State.REQUESTED, Target.State.CONFIRMED)
# The groups of statuses in which the request changes no cost.
_UNCHANGED = {"stop": {"stopped", "gone"}, "start": {"running", "starting"}}


@dataclass(frozen=True)
class Money:
    """The USD per hour that a stop saves or a start costs, without unknown prices and prepaid instances."""

    per_hour: Decimal = FREE
    unknown_prices: int = 0
    prepaid: int = 0


def estimate(kind: str, targets: Sequence[Target]) -> Money:
    """Return what the counted targets save or cost per hour. A restart changes nothing."""
    if kind not in _UNCHANGED:
        return Money()
    ids = [
        target.instance_id
        for target in targets
        if target.state in _COUNTED and get_status(target.first_status).group not in _UNCHANGED[kind]
    ]
    known = (read_copy(ids) if ids else None) or {}
    prepaid = sum(one.is_prepaid for one in known.values())
    prices = [one.price_per_hour for one in known.values() if not one.is_prepaid and one.price_per_hour is not None]
    return Money(sum(prices, FREE), len(ids) - len(prices) - prepaid, prepaid)
