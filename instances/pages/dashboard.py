"""The dashboard as the server renders it; its rows can be read without the script."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render

from instances import health
from instances.access.roles import find_role
from instances.api import overview
from instances.instance import GROUPS, STATUSES, get_status
from instances.inventory import attention, queries, store
from instances.pages import bar, cards, details
from instances.pages.frame import viewers_only

PAGE_SIZE = 100
FILTERS = ("search", "region", "owner", "project")
COLUMNS = {
    "name": "Name",
    "status": "Status",
    "region": "Region",
    "productName": "GPU",
    "costPerHour": "Cost",
    "createdAt": "Created",
}

# The table of statuses for the page's script (statuses.js): its groups, each with the words for its statuses. What is
# false is left out, since each byte is a part of every visit.
_GROUPS: Final = {
    group: {
        "label": meaning.label,
        **({"isMoving": True} if meaning.is_moving else {}),
        **({"needsStop": True} if meaning.needs_stop else {}),
        "requestable": meaning.requestable,
        "statuses": {name: status.label for name, status in STATUSES.items() if status.group == group},
    }
    for group, meaning in GROUPS.items()
}

_INDENTATION: Final = re.compile(rb"(?<=\n)\s+")


@viewers_only
def dashboard(request: HttpRequest) -> HttpResponse:
    found = health.check()
    state = overview.read(found)
    listing = store.read_listing() if found.state else None
    instances = listing.instances if listing else []
    query = _read_query(request.GET)
    # Without its script the page asks for the rows by this parameter, and again on the next visit.
    is_off = request.GET.get("script") == "off"
    has_script = request.COOKIES.get(settings.SCRIPT_COOKIE_NAME) == "1" and not is_off
    matches, total = queries.select(instances, {**query, "pageSize": PAGE_SIZE})
    context = {
        "page": "instances",
        "bar_part": "instances/dashboard/bar.html",
        "bar_menu": "instances/dashboard/bar_menu.html",
        "live": bar.describe_live(found, has_script=has_script),
        "stop_all": _describe_stop_all(listing, state),
        "role": find_role(request).label,
        "cards": cards.describe(listing, found),
        "warnings": found.warnings,
        "statuses": _GROUPS,
        "overview": {"etag": state.etag, "overview": state.body},
        "query": query,
        "groups": [
            {"name": group, "label": meaning.label, "count": sum(one["group"] == group for one in instances)}
            for group, meaning in GROUPS.items()
        ],
        "regions": _list_values("region", instances, query),
        "owners": _list_values("owner", instances, query),
        "projects": _list_values("project", instances, query),
        "columns": [_describe_column(name, title, query) for name, title in COLUMNS.items()],
        "has_script": has_script,
        "script_cookie": settings.SCRIPT_COOKIE_NAME,
        "without_script": urlencode({**query, "script": "off"}),
        "rows": [] if has_script else _describe_rows(matches, state),
        "details": None if has_script else _describe_details(request.GET.get("instance", ""), instances),
        "without_details": urlencode(query),
        "matches": f"{total} of {len(instances)} match" if total != len(instances) else "",
        "nothing": _say_nothing(listing),
        "pager": _describe_pager(query, total),
    }
    response = render(request, "instances/dashboard.html", context)
    response.content = _INDENTATION.sub(b"", response.content)
    if is_off:
        response.delete_cookie(settings.SCRIPT_COOKIE_NAME, samesite="Lax")
    return response


def _read_query(query_dict: QueryDict) -> dict[str, Any]:
    """Read the page's query; an invalid value counts as absent."""
    # The first of several values counts, as in the page's script.
    given = {name: values[0] for name, values in query_dict.lists() if values}
    query: dict[str, Any] = {name: given[name][:200] for name in FILTERS if given.get(name)}
    if given.get("group") in GROUPS:
        query["group"] = given["group"]
    if given.get("attention") in attention.REASONS:
        query["attention"] = given["attention"]
    if given.get("ordering", "").removeprefix("-") in COLUMNS:
        query["ordering"] = given["ordering"]
    page = given.get("page", "")
    query["page"] = int(page) if page.isascii() and page.isdecimal() and 0 < len(page) < 7 and int(page) else 1
    return query


def _say_instance_cost(shown: Mapping[str, Any]) -> str:
    if shown["prepaid"]:
        return "prepaid"
    return "not known" if shown["costPerHour"] is None else f"${shown['costPerHour']:,.2f}/h"


def _describe_details(instance_id: str, instances: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    return details.describe(instance_id, instances) if instance_id else None


def _describe_stop_all(listing: store.Listing | None, state: overview.Overview) -> bar.StopAll:
    """Describe the button; without a list that is up to date it names no number, and it works."""
    if listing is None or listing.freshness.as_of is None or listing.freshness.is_stale:
        return bar.StopAll()
    protections = (state.body or {}).get("protections") or []
    return bar.describe_stop_all(listing.instances, {one["instanceId"] for one in protections})


def _describe_rows(shown: Sequence[Mapping[str, Any]], state: overview.Overview) -> list[dict[str, Any]]:
    """Return the rows, each with the label of its status and the reason of its protection.

    The rows are shown without the database, too; a warning then says that it is away.
    """
    protections = (state.body or {}).get("protections") or []
    reasons = {one["instanceId"]: one["reason"] for one in protections}
    return [
        {
            **one,
            "label": get_status(one["status"]).label,
            "protection": reasons.get(one["id"], ""),
            "cost": _say_instance_cost(one),
        }
        for one in shown
    ]


def _list_values(name: str, instances: Sequence[Mapping[str, Any]], query: Mapping[str, Any]) -> list[str]:
    """Return the choices of a filter: the values of a field, and the chosen one."""
    values = {one[name] or "" for one in instances} | {query.get(name, "")}
    return sorted(values - {""}, key=lambda value: (queries.get_natural_key(value), value))


def _describe_column(name: str, title: str, query: Mapping[str, Any]) -> dict[str, str]:
    """Describe a column's heading: its current order, and the address that sorts by it or reverses the order."""
    ordering = query.get("ordering", queries.DEFAULT_ORDERING)
    is_descending = ordering == f"-{name}"
    sort = "descending" if is_descending else "ascending" if ordering == name else "none"
    link = urlencode({**query, "page": 1, "ordering": name if sort != "ascending" else f"-{name}"})
    return {"name": name, "title": title, "sort": sort, "link": link}


def _describe_pager(query: Mapping[str, Any], total: int) -> dict[str, Any]:
    page, pages = query["page"], max(1, math.ceil(total / PAGE_SIZE))
    return {
        "page": page,
        "pages": pages,
        "previous": urlencode({**query, "page": min(page - 1, pages)}) if page > 1 else "",
        "next": urlencode({**query, "page": page + 1}) if page < pages else "",
    }


def _say_nothing(listing: store.Listing | None) -> str:
    """Say why there are no rows."""
    if listing is None:
        return "Redis can't be reached, so no instances can be shown. The service reconnects automatically."
    if listing.freshness.as_of is None:
        return "The cache is empty. A synchronization fills it."
    return "There are no instances in the account." if not listing.instances else "No instances match."
