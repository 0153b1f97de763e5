"""The timeline: all sources as one list, by pages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from instances.activity import actions, events, operations, policies, syncs
from instances.activity.events import Event, Filter, Place
from instances.models import AuditEntry

PAGE_SIZE: Final = 50
# Whose actions are looked through for the names that a filter offers.
RECENT_ENTRIES: Final = 2000


@dataclass(frozen=True)
class Page:
    """The newest first. `next` is the place of the last event when there are more."""

    events: Sequence[Event]
    next: Place | None


def read(wanted: Filter, size: int = PAGE_SIZE) -> Page:
    """Read a page, by one query for each kind of record, one for the names in it with a filter, and one for targets."""
    # Each source returns its newest ones, so the newest of all are among them.
    found = events.sort([event for event in _read_sources(wanted, size + 1) if _is_beyond(event, wanted.before)])
    shown = found[:size]
    return Page(shown, shown[-1].place if len(found) > size else None)


def _read_sources(wanted: Filter, limit: int) -> Iterator[Event]:
    if wanted.wants("action", "login", "sync", "settings", "operation", "policy"):
        yield from actions.read(wanted, limit)
    if wanted.wants("operation"):
        yield from operations.read(wanted, limit)
    if wanted.wants("policy"):
        yield from policies.read(wanted, limit)
    if wanted.wants("change"):
        yield from syncs.read_changes(wanted, limit)
    # They concern no single instance.
    if wanted.wants("sync") and not wanted.instance_id:
        yield from syncs.read_failures(wanted, limit)


def _is_beyond(event: Event, before: Place | None) -> bool:
    return before is None or event.place.order > before.order


def list_actors() -> list[str]:
    """Return who was active lately, without the names of their tokens."""
    recent = AuditEntry.objects.values_list("actor", flat=True)[:RECENT_ENTRIES]
    return sorted({actor.partition(" (token ")[0] for actor in recent} - {""}, key=str.lower)
