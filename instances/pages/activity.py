"""The page of the activity: a timeline, the newest first."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from itertools import groupby
from typing import Any, Final
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from instances.activity import timeline
from instances.activity.events import KINDS, Event, Filter, read_cursor
from instances.errors import InvalidRequest
from instances.instance import clean_text, say_times
from instances.pages.frame import viewers_only

LABELS: Final = {
    "action": "Actions",
    "operation": "Operations",
    "policy": "Policies",
    "change": "Changes",
    "sync": "Synchronization",
    "login": "Logins",
    "settings": "Settings",
}


@dataclass(frozen=True)
class Wish:
    """What an address asks for. With a `problem` the page begins with the newest events."""

    wanted: Filter
    query: Mapping[str, str]
    problem: str = ""


@viewers_only
def activity(request: HttpRequest) -> HttpResponse:
    wish = _read_wish(request.GET)
    wanted = wish.wanted
    page = timeline.read(wanted)
    actors = timeline.list_actors()
    context = {
        "page": "activity",
        "wanted": wanted,
        "problem": wish.problem,
        "kinds": [(kind, label, _link(wish, kind=kind or None)) for kind, label in {"": "All", **LABELS}.items()],
        "actors": actors if not wanted.actor or wanted.actor in actors else [wanted.actor, *actors],
        "days": _group_by_day(page.events),
        "is_filtered": bool(wanted.kind or wanted.actor or wanted.instance_id),
        "newest": _link(wish) if wanted.before else "",
        "older": _link(wish, before=page.next.encode()) if page.next else "",
    }
    return render(request, "pages/activity.html", context, status=400 if wish.problem else 200)


def _read_wish(given: QueryDict) -> Wish:
    """Read the query. A bad place is explained; an unknown kind counts as absent."""
    kind = next((kind for kind in KINDS if kind == given.get("kind")), None)
    actor, instance_id = (clean_text(str(given.get(name, "")).strip(), 150) for name in ("actor", "instance"))
    query = {"kind": kind or "", "actor": actor, "instance": instance_id}
    cursor, problem = str(given.get("before", "")), ""
    try:
        before = read_cursor(cursor) if cursor else None
    except InvalidRequest:
        before, problem = None, "The address names no place in the activity. The newest events are shown."
    return Wish(Filter(kind, actor, instance_id, before), {name: text for name, text in query.items() if text}, problem)


def _link(wish: Wish, **changes: str | None) -> str:
    query = {**wish.query, **changes}
    return urlencode({name: text for name, text in query.items() if text})


def _group_by_day(events: Any) -> list[dict[str, Any]]:
    today = timezone.now().astimezone(UTC).date()
    groups = groupby(events, key=lambda event: event.place.at.astimezone(UTC).date())
    return [
        {
            "title": f"{day:%A, %-d %B %Y}" if day != today else f"Today, {day:%-d %B %Y}",
            "events": [_describe(event) for event in found],
        }
        for day, found in groups
    ]


def _describe(event: Event) -> dict[str, Any]:
    model, key = event.record
    return {
        "event": event,
        "at": event.place.at.astimezone(UTC),
        "result": say_times(event.result),
        "label": LABELS[event.kind],
        "record": reverse(f"admin:instances_{model}_change", args=[key]),
    }
