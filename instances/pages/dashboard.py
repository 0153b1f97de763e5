"""The dashboard as the server renders it; its rows can be read without the script."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from instances import health
from instances.access.roles import find_role
from instances.api import overview
from instances.instance import GROUPS, STATUSES
from instances.inventory import queries, store
from instances.pages import bar, cards, details, table, toolbar
from instances.pages.frame import viewers_only
from instances.policies import finding_list

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


# As many rows as most windows have room for. A page whose script doesn't run asks for all.
FIRST_ROWS: Final = 24


@viewers_only
def dashboard(request: HttpRequest) -> HttpResponse:
    found = health.check()
    state = overview.read(found)
    # Redis may have gone away since the check.
    listing = store.find_listing() if found.state else None
    instances = listing.instances if listing else []
    query = toolbar.read_query(request.GET)
    # Without its script the page asks for the rows by this parameter, and again on the next visit.
    is_off = request.GET.get("script") == "off"
    has_script = request.COOKIES.get(settings.SCRIPT_COOKIE_NAME) == "1" and not is_off
    # How many rows are sent: the script makes the others, too.
    limit = 0 if has_script else table.PAGE_SIZE if is_off else FIRST_ROWS
    shown = {"ordering": queries.URGENCY, **query, "pageSize": table.PAGE_SIZE}
    idle = _find_idle(state)
    matches, total = queries.select(instances, shown, idle)
    protections = (state.body or {}).get("protections") or []
    context = {
        "page": "instances",
        "bar_part": "instances/dashboard/bar.html",
        "bar_menu": "instances/dashboard/bar_menu.html",
        "live": bar.describe_live(found, has_script=has_script),
        "stop_all": _describe_stop_all(listing, protections),
        "role": find_role(request).label,
        "cards": cards.describe(listing, found, idle),
        "warnings": [*found.warnings, *_list_notices(state)],
        "statuses": _GROUPS,
        "overview": {"etag": state.etag, "overview": state.body},
        "query": query,
        "tabs": toolbar.describe_tabs(instances if listing and listing.freshness.as_of else None, query, idle),
        "filters": toolbar.describe_filters(instances, query),
        "columns": table.describe_columns(query),
        "is_old": bool(listing and listing.freshness.is_stale),
        "has_owners": any(one["owner"] for one in instances),
        "hidden_columns": table.find_hidden(query),
        "kept": [(name, query[name]) for name in ("group", "attention", "columns") if name in query],
        "csv_link": toolbar.make_csv_link(query),
        "has_script": has_script,
        "script_cookie": settings.SCRIPT_COOKIE_NAME,
        "cookie_path": settings.SESSION_COOKIE_PATH,
        "without_script": urlencode({**query, "script": "off"}),
        "rows": table.describe_rows(matches[:limit], protections, timezone.now(), query),
        "has_more_rows": len(matches) > limit,
        "details": None if has_script else _describe_details(request.GET.get("instance", ""), instances),
        "without_details": urlencode(query),
        "matches": table.say_matches(total, len(instances)) if listing and listing.freshness.as_of else "",
        "nothing": _say_nothing(listing, found),
        "pager": table.describe_pager(query, total),
    }
    response = render(request, "instances/dashboard.html", context)
    response.content = _INDENTATION.sub(b"", response.content)
    if is_off:
        response.delete_cookie(settings.SCRIPT_COOKIE_NAME, settings.SESSION_COOKIE_PATH, samesite="Lax")
    return response


def _describe_details(instance_id: str, instances: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    return details.describe(instance_id, instances) if instance_id else None


def _describe_stop_all(listing: store.Listing | None, protections: Sequence[Mapping[str, Any]]) -> bar.StopAll:
    """Describe the button; without a list that is up to date it names no number, and it works."""
    if listing is None or listing.freshness.as_of is None or listing.freshness.is_stale:
        return bar.StopAll()
    return bar.describe_stop_all(listing.instances, {one["instanceId"] for one in protections})


def _say_nothing(listing: store.Listing | None, found: health.Health) -> str:
    """Say why there are no rows, as the script does (nothing.js)."""
    if listing is None:
        return "Redis can't be reached, so no instances can be shown. The service reconnects automatically."
    if listing.freshness.as_of is None:
        is_first = found.state is not None and found.state.last_sync is None
        return "Never synchronized with Novita.ai." if is_first else "The cache is empty. A synchronization fills it."
    return "There are no instances in the account." if not listing.instances else "No instances match."


def _list_notices(state: overview.Overview) -> list[str]:
    """Return the sentences on a start freeze, policies that are off, the account's findings, and those not shown."""
    body = state.body or {}
    notices = [(body.get(name) or {}).get("message") for name in ("startFreeze", "policies")]
    spending = [
        f"Policy {one['policy']}: {one['message']}"
        for one in body.get("findings") or []
        if one["instanceId"] is None and one["mode"] != "observe" and one["state"] != "snoozed"
    ]
    return [*filter(None, notices), *spending, *_list_hidden(body)]


def _list_hidden(body: Mapping[str, Any]) -> list[str]:
    shown, number = len(body.get("findings") or []), body.get("openFindings") or 0
    return [f"Policies have {number:,} open findings. This page shows {shown:,} of them."] if number > shown else []


def _find_idle(state: overview.Overview) -> frozenset[str]:
    """Return the ids of the instances that are idle, as the script finds them (attention.js)."""
    body = state.body or {}
    found = [one for one in body.get("findings") or [] if one["rule"] == "idle"]
    listed = {one["instanceId"] for one in found if one["state"] in finding_list.IDLE_STATES}
    return frozenset({*listed, *(body.get("moreIdle") or {})})
