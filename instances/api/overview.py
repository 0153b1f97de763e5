"""The overview: what an open dashboard polls, except for the list. A mark changes with everything it shows.

A dashboard sends the mark every three seconds. While it is the same, the answer costs one script in Redis, and one read
of the database for all readers of a process within a moment.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final, TypeVar

from django.db import DatabaseError
from django.db.models import Count, Max
from django.utils import timezone

from instances.api import inventory, operations
from instances.api.findings import show_acting, show_finding
from instances.health import Health
from instances.instance import format_time
from instances.models import EvaluationState, Protection
from instances.operations import emergency, freezing, records
from instances.policies import finding_list, watch
from novita_site.roles import Role

T = TypeVar("T")

log = logging.getLogger(__name__)

SHOWN_FINDINGS: Final = 200
# A dashboard shows a success for half a minute, and looks for an operation whose start was not answered for a minute.
RECENT: Final = timedelta(minutes=2)
# Within this time, all readers of a process share one read of the database.
SHARED_SECONDS: Final = 0.05
# What the page shows of an operation at rest. It reads a running one by itself.
_SHOWN_FIELDS: Final = ("pk", "state", "listed_at", "finished_at", "superseded_by_id", "dismissed_at")

_last: tuple[float, str] = (float("-inf"), "")


@dataclass(frozen=True)
class Overview:
    """The body of the answer; None for a reader who knows the mark."""

    mark: str
    body: dict[str, Any] | None

    @property
    def etag(self) -> str:
        return f'W/"{self.mark}"'


def read(found: Health, known_marks: Sequence[str] = ()) -> Overview:
    """Read the overview. Raises nothing: what can't be read is null, and the health says why."""
    # The mark is read first: a change in between changes the mark of the next answer.
    mark = _read_mark(found)
    return Overview(mark, None if mark in known_marks else _describe(found))


def _read_mark(found: Health) -> str:
    state = found.state
    is_filling = state is not None and state.freshness.as_of is None and state.lease is not None
    times = (state.revision, state.freshness.as_of, state.last_sync) if state else None
    records = _read_unrecorded_mark() if _has_no_database(found) else _read_shared_mark()
    parts = (times, is_filling, found.status, found.services, found.warnings, records)
    return blake2b(repr(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _read_shared_mark() -> str:
    global _last
    read_at, mark = _last
    if time.monotonic() - read_at > SHARED_SECONDS:
        began = time.monotonic()
        mark = _read_recorded_mark()
        _last = (began, mark)
    return mark


def _read_recorded_mark() -> str:
    try:
        shown = records.list_shown(timezone.now() - RECENT)
        protections = Protection.objects.aggregate(Count("pk"), Max("pk"), Max("protected_at"))
        freeze = freezing.find()
        findings = list(finding_list.find_open().values_list("pk", "state", "stops_at", "obstacle")[:SHOWN_FINDINGS])
        hidden = finding_list.mark_open() if len(findings) == SHOWN_FINDINGS else None
        acting = list(EvaluationState.objects.values_list("is_switched_off", "switched_at"))
    except DatabaseError as exc:
        log.warning("the overview can't be read from the database: %s", exc)
        return "unknown"
    fields = [[getattr(one, name) for name in _SHOWN_FIELDS] for one in shown]
    return repr((fields, protections, freeze and (freeze.pk, freeze.ends_at), findings, hidden, acting))


def _read_unrecorded_mark() -> str:
    return repr([(one.operation.pk, one.operation.state) for one in emergency.list_unrecorded()])


def _has_no_database(found: Health) -> bool:
    return found.services["database"] == "down"


def _describe(found: Health) -> dict[str, Any]:
    findings = _read(found, "findings", lambda: finding_list.list_open(SHOWN_FINDINGS))
    return {
        "revision": found.state.revision if found.state else None,
        "health": inventory.show_health(found, Role.VIEWER),
        "operations": _list_operations(found),
        "protections": _read(found, "protections", lambda: operations.show_protections(Protection.objects.all())),
        "findings": None if findings is None else [show_finding(one) for one in findings],
        **_describe_hidden(found, findings),
        "policies": _read(found, "policies", lambda: show_acting(watch.read_state())),
        "startFreeze": None if _has_no_database(found) else operations.show_freeze(freezing.find()),
    }


def _list_operations(found: Health) -> list[dict[str, Any]] | None:
    """Return the operations that a dashboard shows. Without a database these are the unrecorded ones."""
    if _has_no_database(found):
        return operations.show_summaries(emergency.list_unrecorded()[: records.MAX_SHOWN]) or None
    return _read(found, "operations", lambda: operations.show_summaries(emergency.list_shown(timezone.now() - RECENT)))


def _describe_hidden(found: Health, listed: Sequence[finding_list.Described] | None) -> dict[str, Any]:
    """Return how many findings are open, and the idle instances that are not listed. Few findings are all listed."""
    if listed is None:
        return {"openFindings": None, "moreIdle": None}
    if len(listed) < SHOWN_FINDINGS:
        return {"openFindings": len(listed), "moreIdle": {}}
    shown = {one.finding.instance_id for one in listed if finding_list.is_idle(one.finding)}
    more = _read(found, "findings", lambda: finding_list.map_idle(shown))
    return {
        "openFindings": _read(found, "findings", lambda: finding_list.find_open().count()),
        "moreIdle": more and {id_: since and format_time(since) for id_, since in more.items()},
    }


def _read(found: Health, what: str, read: Callable[[], T]) -> T | None:
    """Return what is read from the database; None while that fails."""
    if _has_no_database(found):
        return None
    try:
        return read()
    except DatabaseError as exc:
        log.warning("%s can't be read: %s", what, exc)
        return None
