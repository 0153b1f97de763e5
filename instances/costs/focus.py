"""The ledger in the columns of FOCUS 1.0 (June 2024), the FinOps Foundation's open format for cost data.

Source of names, order, units and allowed values: https://github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, tag
v1.0, specification/columns and specification/attributes.

A row is what one instance was charged on one day (UTC) at one price. The ledger is an estimate, so billed, effective,
contracted and list cost are equal. Times at a price that is not known have no row: the format has no unknown cost. The
hours of instances that are paid by the month cost 0: the ledger doesn't have the purchase that covers them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.conf import settings

from instances.costs import reports
from instances.costs.labels import LabelBook, read_book
from instances.costs.ledger import State
from instances.costs.prices import ON_DEMAND, SPOT
from instances.costs.reports import DAY_MS, HOUR_MS
from instances.instance import PREPAID_MODE, STORAGE_USD_PER_GB_DAY, format_time
from instances.models import MeteredInstance
from instances.models.usage import PRICE_UNITS_PER_USD

COLUMNS: Final = [
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
]
PROVIDER: Final = "Novita AI"
STORAGE_SKU: Final = "containerDisk"
# By Novita's billing mode. Novita may change the price of a spot instance at any time.
PRICING_CATEGORIES: Final = {SPOT: "Dynamic", PREPAID_MODE: "Other"}


@dataclass(frozen=True, order=True)
class _Charge:
    """What a row is about. The price is in 1e-10 USD per hour, of all GPUs."""

    day: int
    instance: int
    state: int
    price: int
    gpus: int


def list_rows(from_ms: int, to_ms: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a time, each with all columns; an empty text stands for null."""
    found: dict[_Charge, int] = {}
    for pk, state, began_ms, ended_ms, price, gpus, _ in reports.read_pieces(from_ms, to_ms):
        # Storage within the free part is not charged.
        if price is None or not (state == State.GPU or (state == State.STORAGE and price)):
            continue
        for day in range(began_ms // DAY_MS, (ended_ms - 1) // DAY_MS + 1):
            charge = _Charge(day, pk, state, price, gpus)
            milliseconds = min(ended_ms, (day + 1) * DAY_MS) - max(began_ms, day * DAY_MS)
            found[charge] = found.get(charge, 0) + milliseconds
    instances = {one.pk: one for one in MeteredInstance.objects.order_by()}
    book = read_book()
    for charge, milliseconds in sorted(found.items()):
        yield _make_row(instances[charge.instance], charge, milliseconds, book)


def _make_row(instance: MeteredInstance, charge: _Charge, milliseconds: int, book: LabelBook) -> dict[str, Any]:
    begin = datetime.fromtimestamp(charge.day * DAY_MS / 1000, UTC)
    month = begin.replace(day=1)
    next_month = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    labels = book.find(instance.instance_id, instance.name)
    cost = Decimal(charge.price * milliseconds) / (PRICE_UNITS_PER_USD * HOUR_MS)
    kind = _describe_gpu if charge.state == State.GPU else _describe_storage
    return dict.fromkeys(COLUMNS, "") | {
        "BilledCost": _write(cost),
        "BillingAccountId": settings.ACCOUNT_ID,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": format_time(next_month),
        "BillingPeriodStart": format_time(month),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": format_time(datetime.fromtimestamp((charge.day + 1) * DAY_MS / 1000, UTC)),
        "ChargePeriodStart": format_time(begin),
        "ContractedCost": _write(cost),
        "EffectiveCost": _write(cost),
        "InvoiceIssuerName": PROVIDER,
        "ListCost": _write(cost),
        "ProviderName": PROVIDER,
        "PublisherName": PROVIDER,
        "RegionId": instance.region,
        "RegionName": instance.region,
        "ResourceId": instance.instance_id,
        "ResourceName": instance.name,
        "ResourceType": "GPU instance",
        "Tags": json.dumps(
            {name: value for name, value in labels._asdict().items() if value},
            ensure_ascii=False,
            separators=(",", ":"),
        ),
        **kind(instance, charge, cost, Decimal(milliseconds) / HOUR_MS),
    }


def _describe_gpu(instance: MeteredInstance, charge: _Charge, cost: Decimal, hours: Decimal) -> dict[str, str]:
    # Only an instance that is paid by the month has a price of 0. Of the others, the last mode is known.
    mode = PREPAID_MODE if not charge.price else SPOT if instance.billing_mode == SPOT else ON_DEMAND
    gpus = max(1, charge.gpus)
    price = Decimal(charge.price) / PRICE_UNITS_PER_USD / gpus
    return {
        "ChargeDescription": f"{instance.gpu or 'GPU'} instance, {mode}",
        "PricingCategory": PRICING_CATEGORIES.get(mode, "Standard"),
        "ServiceCategory": "Compute",
        "ServiceName": "GPU Instances",
        "SkuId": instance.product_id,
        "SkuPriceId": f"{instance.product_id}/{mode}" if instance.product_id else "",
        **_describe_quantity(hours * gpus, "GPU-Hours", price),
    }


def _describe_storage(instance: MeteredInstance, charge: _Charge, cost: Decimal, hours: Decimal) -> dict[str, str]:
    return {
        "ChargeDescription": "Container disk of a stopped instance, beyond the free part",
        "PricingCategory": "Standard",
        "ServiceCategory": "Storage",
        "ServiceName": "Container Disks",
        "SkuId": STORAGE_SKU,
        "SkuPriceId": STORAGE_SKU,
        **_describe_quantity(cost / STORAGE_USD_PER_GB_DAY, "GB-Days", STORAGE_USD_PER_GB_DAY),
    }


def _describe_quantity(quantity: Decimal, unit: str, price: Decimal) -> dict[str, str]:
    return {
        "ConsumedQuantity": _write(quantity),
        "ConsumedUnit": unit,
        "ContractedUnitPrice": _write(price),
        "ListUnitPrice": _write(price),
        "PricingQuantity": _write(quantity),
        "PricingUnit": unit,
    }


def _write(amount: Decimal) -> str:
    return f"{amount:.10f}".rstrip("0").rstrip(".")
