"""The burn rate: what all instances cost per hour now. Pure; sums are exact, and rounded where they are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from instances.instance import FREE_STORAGE_GB, PRICE_UNITS_PER_USD, STORAGE_USD_PER_GB_DAY, find_charge

# The field of an instance that each breakdown goes by.
BREAKDOWNS: Final = {"gpu": "productName", "region": "region", "owner": "owner", "project": "project"}


@dataclass(slots=True)
class Sum:
    """What some instances cost: the GPUs in 1e-5 USD per hour, and the gigabytes of stopped instances."""

    gpu_units: int = 0
    storage_gb: int = 0
    # With GPUs that are charged or prepaid.
    instances: int = 0
    gpus: int = 0

    @property
    def gpu_per_hour(self) -> Decimal:
        return Decimal(self.gpu_units) / PRICE_UNITS_PER_USD

    @property
    def storage_per_hour(self) -> Decimal:
        return self.storage_gb * STORAGE_USD_PER_GB_DAY / 24

    @property
    def per_hour(self) -> Decimal:
        return self.gpu_per_hour + self.storage_per_hour


@dataclass
class Burn:
    total: Sum = field(default_factory=Sum)
    unknown_prices: int = 0
    prepaid: int = 0
    # Breakdown → name → sum. The name is None for instances without an owner or a project.
    by: dict[str, dict[str | None, Sum]] = field(default_factory=lambda: {name: {} for name in BREAKDOWNS})


def compute(instances: Sequence[Mapping[str, Any]]) -> Burn:
    """Return the burn rate of instances as the API shows them.

    An instance whose cost is not known is counted, and adds nothing.
    """
    burn = Burn()
    for one in instances:
        is_running = find_charge(one["status"]) == "gpu"
        burn.prepaid += one["prepaid"]
        units = gigabytes = 0
        if one["costPerHour"] is None:
            burn.unknown_prices += 1
        elif not one["prepaid"] and is_running:
            units = round(one["pricePerHour"] * PRICE_UNITS_PER_USD)
        elif not one["prepaid"] and one["group"] == "stopped":
            gigabytes = max(0, one["rootfsSizeGb"] - FREE_STORAGE_GB)
        if not is_running and not gigabytes:
            continue
        gpus = max(0, one["gpuNum"] or 0) if is_running else 0
        sums = [burn.total]
        for name, key in BREAKDOWNS.items():
            found, value = burn.by[name], one[key] or None
            sums.append(found.get(value) or found.setdefault(value, Sum()))
        for each in sums:
            each.gpu_units += units
            each.storage_gb += gigabytes
            each.instances += is_running
            each.gpus += gpus
    return burn


# The burn rate of the last listing. Most readers need the same one.
_last: tuple[int, Burn] | None = None


def find(revision: int | None, instances: Sequence[Mapping[str, Any]]) -> Burn:
    """Return the burn rate of a listing, computed once for each revision and process."""
    global _last
    last = _last
    if revision is not None and last and last[0] == revision:
        return last[1]
    found = compute(instances)
    _last = None if revision is None else (revision, found)
    return found
