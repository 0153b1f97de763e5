"""The burn rate: what all instances cost per hour now. Pure; sums are exact, and rounded where they are shown.

A sum is None, and not 0, when it contains unknown costs alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from instances.instance import FREE, FREE_STORAGE_GB, PRICE_UNITS_PER_USD, STORAGE_USD_PER_GB_DAY, find_charge

# The field of an instance that each breakdown goes by.
BREAKDOWNS: Final = {"gpu": "productName", "region": "region", "owner": "owner", "project": "project"}


@dataclass(slots=True)
class Sum:
    """What some instances cost: the GPUs in 1e-5 USD per hour, and the gigabytes of stopped instances."""

    gpu_units: int = 0
    storage_gb: int = 0
    # Instances whose cost is not known: of stopped ones their storage, of others their GPUs.
    unknown_gpu: int = 0
    unknown_storage: int = 0
    # With GPUs that are charged or prepaid.
    instances: int = 0
    gpus: int = 0

    @property
    def gpu_per_hour(self) -> Decimal | None:
        if self.unknown_gpu and not self.gpu_units:
            return None
        return Decimal(self.gpu_units) / PRICE_UNITS_PER_USD

    @property
    def storage_per_hour(self) -> Decimal | None:
        if self.unknown_storage and not self.storage_gb:
            return None
        return self.storage_gb * STORAGE_USD_PER_GB_DAY / 24

    @property
    def per_hour(self) -> Decimal | None:
        if (self.unknown_gpu or self.unknown_storage) and not (self.gpu_units or self.storage_gb):
            return None
        return (self.gpu_per_hour or FREE) + (self.storage_per_hour or FREE)

    @property
    def unknown(self) -> int:
        return self.unknown_gpu + self.unknown_storage


@dataclass
class Burn:
    total: Sum = field(default_factory=Sum)
    prepaid: int = 0
    # Breakdown → name → sum. The name is None for instances without an owner or a project.
    by: dict[str, dict[str | None, Sum]] = field(default_factory=lambda: {name: {} for name in BREAKDOWNS})


def compute(instances: Sequence[Mapping[str, Any]]) -> Burn:
    """Return the burn rate of instances as the API shows them.

    An instance whose cost is not known is counted, and adds nothing to the sums.
    """
    burn = Burn()
    for one in instances:
        is_running = find_charge(one["status"]) == "gpu"
        burn.prepaid += one["prepaid"]
        units = gigabytes = 0
        is_unknown, is_stopped = one["costPerHour"] is None, one["group"] == "stopped"
        if is_unknown:
            pass
        elif not one["prepaid"] and is_running:
            units = round(one["pricePerHour"] * PRICE_UNITS_PER_USD)
        elif not one["prepaid"] and is_stopped:
            gigabytes = max(0, one["rootfsSizeGb"] - FREE_STORAGE_GB)
        if not is_running and not gigabytes and not is_unknown:
            continue
        gpus = max(0, one["gpuNum"] or 0) if is_running else 0
        sums = [burn.total]
        for name, key in BREAKDOWNS.items():
            found, value = burn.by[name], one[key] or None
            sums.append(found.get(value) or found.setdefault(value, Sum()))
        for each in sums:
            each.gpu_units += units
            each.storage_gb += gigabytes
            each.unknown_gpu += is_unknown and not is_stopped
            each.unknown_storage += is_unknown and is_stopped
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
