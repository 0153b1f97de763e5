"""The export in the columns of FOCUS 1.0, held against the text of the specification.

https://github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, tag v1.0.
"""

import csv
import io
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from instances.costs import ledger
from instances.models import Annotation, LedgerState, MeteredInstance, UsageInterval

pytestmark = pytest.mark.django_db

State = UsageInterval.State
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)

# The columns of FOCUS 1.0, as published.
FOCUS_COLUMNS = [
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


# "Allows nulls: False", and the columns that must not be null when ChargeCategory is "Usage".
NEVER_NULL = [
    "BilledCost",
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
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
]
# ChargeClass is for corrections; without a commitment discount, all of its columns are null.
ALWAYS_NULL = [
    "ChargeClass",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "SubAccountId",
    "SubAccountName",
]
NUMBERS = [
    "BilledCost",
    "ConsumedQuantity",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "ListCost",
    "ListUnitPrice",
    "PricingQuantity",
]
TIMES = ["BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"]
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning", "Compute", "Storage", "Other"},
}


def record(
    id_: str, *intervals: tuple[State, float, float, float | None], mode: str = "onDemand", gpus: int = 1
) -> None:
    """Add intervals of an instance: state, begin and end in hours before noon, USD per hour."""
    instance = MeteredInstance.objects.create(
        instance_id=id_, name=f"name-{id_}", product_id="4090", gpu="RTX 4090", region="US-1", billing_mode=mode
    )
    noon = ledger.to_ms(NOON)
    for state, begin, end, price in intervals:
        UsageInterval.objects.create(
            instance=instance,
            state=state,
            began_ms=noon - round(begin * 3_600_000),
            ended_ms=noon - round(end * 3_600_000),
            price=None if price is None else round(price * 10**10),
            gpus=gpus if state == State.GPU else 0,
        )


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The export of instances of every kind: over midnight, with a new price, spot, prepaid, stopped, in a gap."""
    monkeypatch.setattr(timezone, "now", lambda: NOON)
    LedgerState.objects.create(pk=1, observed_ms=ledger.to_ms(NOON), digest="x")
    Annotation.objects.create(instance_id="a", owner="Ada “A”", project="llm")
    record("a", (State.GPU, 20.123, 6.3, 2.8), (State.GPU, 6.3, 3, 3.2), gpus=8)
    record("b", (State.GPU, 3, 2, 0.35), mode="spot")
    record("c", (State.GPU, 3, 2, 0), mode="monthly")
    record("d", (State.STORAGE, 30, 2, 40 * 0.005 / 24), (State.STORAGE, 2, 1, 0))
    record("e", (State.GAP, 3, 2, None), (State.NOTHING, 2, 1.5, None), (State.GPU, 1.5, 1, None))
    out = io.StringIO()
    call_command("costs", "--format", "focus", stdout=out)
    return list(csv.DictReader(io.StringIO(out.getvalue())))


def find(rows: list[dict[str, str]], id_: str) -> list[dict[str, str]]:
    return [row for row in rows if row["ResourceId"] == id_]


def test_columns_are_those_of_the_specification(rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == FOCUS_COLUMNS


def test_columns_that_must_not_be_null_have_a_value(rows: list[dict[str, str]]) -> None:
    assert {name for row in rows for name in NEVER_NULL if not row[name].strip()} == set()


def test_columns_that_must_be_null_have_none(rows: list[dict[str, str]]) -> None:
    assert {name for row in rows for name in ALWAYS_NULL if row[name]} == set()


def test_values_are_allowed(rows: list[dict[str, str]]) -> None:
    for name, allowed in ALLOWED.items():
        assert {row[name] for row in rows} <= allowed


def test_numbers_are_plain(rows: list[dict[str, str]]) -> None:
    assert {row[name] for row in rows for name in NUMBERS if not re.fullmatch(r"\d+(\.\d+)?", row[name])} == set()


def test_times_are_in_utc_and_whole_seconds(rows: list[dict[str, str]]) -> None:
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert {row[name] for row in rows for name in TIMES if not re.fullmatch(form, row[name])} == set()


def test_units_have_the_form_of_the_specification(rows: list[dict[str, str]]) -> None:
    assert {row[name] for row in rows for name in ("PricingUnit", "ConsumedUnit")} == {"GPU-Hours", "GB-Days"}


def test_tags_are_a_flat_json_object(rows: list[dict[str, str]]) -> None:
    assert json.loads(find(rows, "a")[0]["Tags"]) == {"owner": "Ada “A”", "project": "llm"}
    assert {row["Tags"] for row in rows if row["ResourceId"] != "a"} == {"{}"}


def test_unit_price_times_quantity_is_the_cost(rows: list[dict[str, str]]) -> None:
    for row in rows:
        for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
            product = Decimal(row[price]) * Decimal(row["PricingQuantity"])
            assert abs(product - Decimal(row[cost])) < Decimal("1e-8")


def test_sku_price_has_one_unit_price_and_one_sku(rows: list[dict[str, str]]) -> None:
    found: dict[str, set[Any]] = {}
    for row in rows:
        found.setdefault(row["SkuPriceId"], set()).add(row["SkuId"])

    assert found == {
        "4090/onDemand": {"4090"},
        "4090/spot": {"4090"},
        "4090/monthly": {"4090"},
        "containerDisk": {"containerDisk"},
    }


def test_service_has_one_category(rows: list[dict[str, str]]) -> None:
    assert {(row["ServiceName"], row["ServiceCategory"]) for row in rows} == {
        ("GPU Instances", "Compute"),
        ("Container Disks", "Storage"),
    }


def test_spot_prices_are_dynamic(rows: list[dict[str, str]]) -> None:
    assert {row["PricingCategory"] for row in find(rows, "b")} == {"Dynamic"}
    assert {row["PricingCategory"] for row in find(rows, "a")} == {"Standard"}


def test_row_is_a_day_at_one_price(rows: list[dict[str, str]]) -> None:
    shown = [(row["ChargePeriodStart"], row["ListUnitPrice"], row["PricingQuantity"]) for row in find(rows, "a")]

    assert shown == [
        ("2026-01-30T00:00:00Z", "0.35", "64.984"),
        ("2026-01-31T00:00:00Z", "0.35", "45.6"),
        ("2026-01-31T00:00:00Z", "0.4", "26.4"),
    ]


def test_periods_are_the_day_and_the_month(rows: list[dict[str, str]]) -> None:
    row = find(rows, "b")[0]

    assert [row[name] for name in TIMES] == [
        "2026-02-01T00:00:00Z",
        "2026-01-01T00:00:00Z",
        "2026-02-01T00:00:00Z",
        "2026-01-31T00:00:00Z",
    ]


def test_storage_is_priced_by_gigabyte_and_day(rows: list[dict[str, str]]) -> None:
    found = find(rows, "d")

    assert {row["ListUnitPrice"] for row in found} == {"0.005"}
    quantity = sum(Decimal(row["PricingQuantity"]) for row in found)
    assert abs(quantity - Decimal(40 * 28) / 24) < Decimal("1e-5")


def test_time_without_a_price_has_no_row(rows: list[dict[str, str]]) -> None:
    assert find(rows, "e") == []


def test_costs_are_those_of_the_ledger(rows: list[dict[str, str]]) -> None:
    out = io.StringIO()
    call_command("costs", "--json", stdout=out)

    total = sum(row["cost"] or 0 for row in json.loads(out.getvalue())["rows"])
    assert abs(sum(float(row["BilledCost"]) for row in rows) - total) < 0.0001
