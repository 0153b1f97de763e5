"""Novita's price list, and the price of an instance from it. An unknown price is None, never 0.

Units are 1e-5 USD per GPU and hour.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from instances.instance import Instance, find_hourly_price
from instances.novita.catalog import Product
from instances.novita.rows import read_price_units

# Novita's billing modes that have a price per hour; an instance without a mode is on demand.
ON_DEMAND: Final = "onDemand"
SPOT: Final = "spot"


@dataclass(frozen=True)
class PriceList:
    """The units by product and billing mode, for those that are known."""

    units: Mapping[str, Mapping[str, int]]

    def find(self, instance: Instance) -> Decimal | None:
        """Return the USD per hour of an instance; None when its product or its billing mode has no hourly price."""
        units = self.units.get(instance.product_id, {}).get(instance.billing_mode or ON_DEMAND)
        return find_hourly_price(units, instance.gpu_num)

    def encode(self) -> str:
        return json.dumps(self.units)


def make_price_list(products: Sequence[Product]) -> PriceList:
    listed = {one.id: {ON_DEMAND: one.price_units, SPOT: one.spot_price_units} for one in products if one.id}
    return PriceList({id_: {mode: units for mode, units in modes.items() if units} for id_, modes in listed.items()})


def decode(text: bytes | str) -> PriceList | None:
    """Read what `PriceList.encode` wrote; None for anything else."""
    try:
        document = json.loads(text)
        listed = {
            str(id_): {str(mode): read_price_units(units) for mode, units in modes.items()}
            for id_, modes in document.items()
        }
    except (ValueError, AttributeError, RecursionError):
        return None
    return PriceList({id_: {mode: units for mode, units in modes.items() if units} for id_, modes in listed.items()})
