"""Which changes of a synchronization nobody requested here: starts, stops, creations and deletions made elsewhere.

"Elsewhere" is Novita's console, another tool with the team's key, or Novita itself, which reclaims spot instances and
stops an account without balance.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict

from django.db.models import Q

from instances.instance import get_status
from instances.inventory.difference import Difference
from instances.models import AuditEntry, Target
from instances.models.sync_run import OutsideChange

# An accepted request takes effect within this time before the last synchronization.
REQUEST_AGE: Final = timedelta(hours=1)
_CHUNK: Final = 500
# The actions of this panel that explain a change.
_EXPLAINED_BY: Final[Mapping[str, Collection[str]]] = {
    OutsideChange.STARTED: ("start", "restart"),
    OutsideChange.STOPPED: ("stop", "restart"),
    OutsideChange.RESTARTED: ("restart",),
}
# The groups before and after. From "starting" to "stopped" a start has failed, and from "stopping" to "running" a stop
# was not carried out: nobody requested anything.
_STARTS: Final = {("stopped", "starting"), ("stopped", "running"), ("stopping", "starting")}
_STOPS: Final = {("running", "stopping"), ("running", "stopped"), ("starting", "stopping")}


class Outside(TypedDict):
    id: str
    name: str
    change: str


def find_outside(difference: Difference, last_sync: datetime | None) -> list[Outside]:
    """Return the changes that nobody requested here, since the last synchronization.

    Without an inventory before (None) nothing is known of what changed. Raises DatabaseError.
    """
    if last_sync is None:
        return []
    changes = [
        Outside(id=one["id"], name=one["name"], change=change)
        for one in difference.changed
        if (change := find_change(one["fields"]))
    ]
    requested = _list_requested([one["id"] for one in changes], last_sync - REQUEST_AGE) if changes else set()
    return [
        *(_make(one, OutsideChange.CREATED) for one in difference.added),
        *(one for one in changes if not any((one["id"], act) in requested for act in _EXPLAINED_BY[one["change"]])),
        *(_make(one, OutsideChange.DELETED) for one in difference.removed),
    ]


def find_change(fields: Mapping[str, tuple[Any, Any]]) -> OutsideChange | None:
    """Return what the changed fields of an instance say about its run; None when they say nothing new.

    A request of this panel has written its first status to the inventory at once, so its effect is no change from up to
    down or back.
    """
    if "status" not in fields:
        # A field that Novita sends only sometimes is no event.
        return OutsideChange.RESTARTED if all(fields.get("lastStartedAt", (None,))) else None
    before, after = (get_status(status or "").group for status in fields["status"])
    if (before, after) in _STOPS:
        return OutsideChange.STOPPED
    return OutsideChange.STARTED if (before, after) in _STARTS else None


def _make(one: Mapping[str, Any], change: OutsideChange) -> Outside:
    return Outside(id=one["id"], name=one["name"], change=change)


def _list_requested(ids: list[str], since: datetime) -> set[tuple[str, str]]:
    """Return what this panel requested since then, as pairs of instance and action, also with an unclear outcome.

    A running operation may be waiting for the answer to a request that has taken effect.
    """
    is_under_way = Q(operation__finished_at=None, state__in=Target.OPEN)
    requested: set[tuple[str, str]] = set()
    for chunk in _cut(ids):
        targets = Target.objects.filter(Q(attempts__gt=0) | is_under_way, instance_id__in=chunk)
        targets = targets.filter(operation__created_at__gte=since)
        requested.update(targets.values_list("instance_id", "operation__kind"))
        entries = AuditEntry.objects.filter(target__in=chunk, at__gte=since, action__startswith="instance.")
        requested.update(
            (id_, action.removeprefix("instance.")) for id_, action in entries.values_list("target", "action")
        )
    return requested


def _cut(ids: list[str]) -> Iterable[list[str]]:
    return (ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK))
