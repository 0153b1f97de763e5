"""The dashboard's table as the server renders it: its columns, rows and pages, in the words of the script (rows.js)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final
from urllib.parse import urlencode

from instances.instance import get_status, parse_time
from instances.inventory import queries

PAGE_SIZE: Final = 100


@dataclass(frozen=True)
class Column:
    """A column: its heading, the API's ordering by it, and whether its first order is the descending one."""

    title: str
    ordering: str
    is_descending_first: bool = False
    tooltip: str = ""


# The name in the address and in the style sheet (table.css), which says from which width on it is shown.
COLUMNS: Final = {
    "name": Column("Name", "name"),
    "status": Column("Status", "status"),
    "gpu": Column("GPU", "productName"),
    "price": Column("$/h", "costPerHour", is_descending_first=True),
    "up": Column("Up for", "upFor", is_descending_first=True),
    "spent": Column(
        "Since start",
        "spent",
        is_descending_first=True,
        tooltip="≈ its price times the time since its last start",
    ),
    "created": Column("Created", "createdAt", is_descending_first=True),
    "owner": Column("Owner", "owner"),
    "project": Column("Project", "project"),
    "region": Column("Region", "region"),
    "billing": Column("Billing", "billingMode"),
}
ORDERINGS: Final = frozenset(column.ordering for column in COLUMNS.values())
BILLING: Final = {"onDemand": "On-demand", "spot": "Spot", "monthly": "Monthly"}
NONE: Final = "–"


def describe_columns(query: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describe the headings: the present order, and the address that sorts by it, reverses it, or takes it back."""
    given = query.get("ordering", "")
    described = []
    for name, column in COLUMNS.items():
        first, second = column.ordering, f"-{column.ordering}"
        if column.is_descending_first:
            first, second = second, first
        following = second if given == first else "" if given == second else first
        without_order = {key: value for key, value in query.items() if key not in {"ordering", "page"}}
        described.append(
            {
                "name": name,
                "column": column,
                "sort": "none" if given.removeprefix("-") != column.ordering else _name_direction(given),
                "link": urlencode({**without_order, **({"ordering": following} if following else {})}),
            }
        )
    return described


def _name_direction(ordering: str) -> str:
    return "descending" if ordering.startswith("-") else "ascending"


def find_hidden(query: Mapping[str, Any]) -> list[str] | None:
    """Return the columns that the address leaves out; None where the width of the window decides."""
    return [name for name in COLUMNS if name not in query["columns"].split(",")] if "columns" in query else None


def describe_rows(
    shown: Sequence[Mapping[str, Any]],
    protections: Sequence[Mapping[str, Any]],
    now: datetime,
    query: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Describe the cells of each row, the reason of its protection, and the address that shows its instance."""
    reasons = {one["instanceId"]: one["reason"] for one in protections}
    return [
        {
            **_describe_row(one, now),
            "protection": reasons.get(one["id"], ""),
            "link": urlencode({**query, "instance": one["id"]}),
        }
        for one in shown
    ]


def _describe_row(one: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    error, start, spent = one["statusError"] or {}, queries.find_start(one), queries.find_spent(one, now)
    created_at = one["createdAt"]
    return {
        "id": one["id"],
        "name": one["name"] or one["id"],
        "status": one["status"],
        "group": one["group"],
        "label": get_status(one["status"]).label,
        "error": error.get("message") or error.get("state") or "",
        "gpu": f"{one['gpuNum']} × {one['productName']}" if one["gpuNum"] else one["productName"],
        "price": say_price(one),
        "is_money": not one["prepaid"] and one["costPerHour"] is not None,
        "up": NONE if start is None else say_span(now.timestamp() - start),
        "spent": NONE if spent is None else say_money(spent),
        "created": f"{say_span((now - parse_time(created_at)).total_seconds())} ago" if created_at else NONE,
        "created_at": created_at or "",
        "owner": one["owner"] or NONE,
        "project": one["project"] or NONE,
        "region": one["region"],
        "billing": BILLING.get(one["billingMode"], one["billingMode"] or NONE),
    }


def say_price(one: Mapping[str, Any]) -> str:
    """Say what an instance costs per hour in its present status."""
    if one["prepaid"]:
        return "prepaid"
    cost = one["costPerHour"]
    return "unknown" if cost is None else f"{_round(cost, '0.01'):,}"


def say_money(amount: float) -> str:
    return f"${_round(amount, '0.01' if amount < 100 else '1'):,}"


def _round(amount: float, step: str) -> Decimal:
    # As the browser does.
    return Decimal(amount).quantize(Decimal(step), ROUND_HALF_UP)


def say_span(seconds: float) -> str:
    """Say a time in its largest unit."""
    if seconds < 60:
        return "< 1 min"
    unit, size = ("min", 60) if seconds < 3600 else ("h", 3600) if seconds < 172_800 else ("d", 86_400)
    return f"{math.floor(seconds / size)} {unit}"


def say_matches(number: int, total: int) -> str:
    return f"{number:,} of {total:,} match" if number != total else f"{total:,} instance{'' if total == 1 else 's'}"


def describe_pager(query: Mapping[str, Any], total: int) -> dict[str, Any]:
    pages = max(1, math.ceil(total / PAGE_SIZE))
    page = min(query["page"], pages)
    return {
        "page": page,
        "pages": f"{pages:,}",
        "is_needed": pages > 1,
        "fields": {name: value for name, value in query.items() if name != "page"},
        "previous": urlencode({**query, "page": page - 1}) if page > 1 else "",
        "next": urlencode({**query, "page": page + 1}) if page < pages else "",
    }
