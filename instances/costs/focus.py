"""The ledger in the columns of FOCUS 1.0, the FinOps Foundation's open format for cost data.

https://focus.finops.org/focus-specification/ - a row for each instance, day (UTC) and kind of charge. The ledger is an
estimate, so billed, effective, contracted and list cost are equal. Hours at an unknown price are not written: the
format has no unknown cost.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.conf import settings

from instances.costs import reports
from instances.costs.labels import LabelBook, read_book
from instances.costs.ledger import State
from instances.costs.reports import DAY_MS, HOUR_MS, Sums
from instances.instance import format_time
from instances.models import MeteredInstance

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


def list_rows(from_ms: int, to_ms: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a time, each with all columns; an empty text stands for null."""
    found: dict[tuple[int, int, int], Sums] = {}
    for piece in reports.read_pieces(from_ms, to_ms):
        pk, state, began_ms, ended_ms, price, _, _ = piece
        if price is None or state not in {State.GPU, State.STORAGE}:
            continue
        for day in range(began_ms // DAY_MS, (ended_ms - 1) // DAY_MS + 1):
            milliseconds = min(ended_ms, (day + 1) * DAY_MS) - max(began_ms, day * DAY_MS)
            sums = found.setdefault((day, pk, state), Sums())
            sums.add(reports.find_rates(piece), milliseconds)
            # The hours of a stopped instance are counted like those of GPUs.
            sums.gpu += milliseconds * (state == State.STORAGE)
    instances = {one.pk: one for one in MeteredInstance.objects.order_by()}
    book = read_book()
    for (day, pk, state), sums in sorted(found.items()):
        yield _make_row(instances[pk], day, State(state), sums, book)


def _make_row(instance: MeteredInstance, day: int, state: State, sums: Sums, book: LabelBook) -> dict[str, Any]:
    begin = datetime.fromtimestamp(day * DAY_MS / 1000, UTC)
    month = begin.replace(day=1)
    next_month = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    labels = book.find(instance.instance_id, instance.name)
    tags = {name: value for name, value in labels._asdict().items() if value}
    is_gpu = state == State.GPU
    hours = Decimal(sums.gpu) / HOUR_MS
    cost, price = _write(sums.usd), _write(sums.usd / hours) if hours else ""
    return dict.fromkeys(COLUMNS, "") | {
        "BilledCost": cost,
        "BillingAccountId": settings.ACCOUNT_ID,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": format_time(next_month),
        "BillingPeriodStart": format_time(month),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{instance.gpu or 'GPU'} instance" if is_gpu else "Disk of a stopped instance",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": format_time(datetime.fromtimestamp((day + 1) * DAY_MS / 1000, UTC)),
        "ChargePeriodStart": format_time(begin),
        "ConsumedQuantity": _write(hours),
        "ConsumedUnit": "GPU Hours" if is_gpu else "Hours",
        "ContractedCost": cost,
        "ContractedUnitPrice": price,
        "EffectiveCost": cost,
        "InvoiceIssuerName": PROVIDER,
        "ListCost": cost,
        "ListUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingQuantity": _write(hours),
        "PricingUnit": "GPU Hours" if is_gpu else "Hours",
        "ProviderName": PROVIDER,
        "PublisherName": PROVIDER,
        "RegionId": instance.region,
        "RegionName": instance.region,
        "ResourceId": instance.instance_id,
        "ResourceName": instance.name,
        "ResourceType": "GPU instance",
        "ServiceCategory": "Compute" if is_gpu else "Storage",
        "ServiceName": "GPU Instances",
        "SkuId": instance.product_id,
        "SkuPriceId": instance.product_id,
        "Tags": json.dumps(tags, ensure_ascii=False, separators=(",", ":")),
    }


def _write(amount: Decimal) -> str:
    return f"{amount:.10f}".rstrip("0").rstrip(".")
