"""What a synchronization did: in words, in the log, and as a record."""

import hashlib
import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from instances.costs.recording import Observation, try_to_observe
from instances.errors import CacheUnavailable, PanelError, ShuttingDown
from instances.instance import clean_text
from instances.inventory import encoding, store
from instances.inventory.difference import MAX_LISTED, Difference
from instances.inventory.outside import Outside, find_outside
from instances.models import EventKind, StartFreeze, SyncRun, old
from instances.models.sync_run import OutsideChange
from instances.monitoring import counters
from instances.notifications import events
from novita_site.log import Fields

log = logging.getLogger(__name__)


@dataclass
class SyncReport:
    """How far a synchronization came. Durations are in ms."""

    trigger: str
    requested_by: str = ""
    is_dry_run: bool = False
    started_at: datetime = field(default_factory=timezone.now)
    # When the read of the account began, by Redis's clock.
    read_began: datetime | None = None
    # The last synchronization before; None when there was no inventory.
    last_sync: datetime | None = None
    novita_instances: int | None = None
    redis_instances: int | None = None
    difference: Difference = field(default_factory=Difference)
    # The inventory's new rows, and the ids of those that stay because their removal was not confirmed.
    rows: Mapping[str, bytes] = field(default_factory=dict)
    unconfirmed: Set[str] = frozenset()
    errors: list[str] = field(default_factory=list)
    pages: int = 0
    calls: int = 0
    retries: int = 0
    fetch_ms: int = 0
    confirm_ms: int = 0
    publish_ms: int = 0
    duration_ms: int = 0

    def summarize(self) -> str:
        """Return a line for people: "5 instances: 1 new, 1 gone, 3 unchanged, 0.4 s"."""
        unchanged = f"{self.difference.unchanged:,} unchanged" if self.difference.unchanged else ""
        words = ", ".join(filter(None, [self.difference.describe(), unchanged, f"{self.duration_ms / 1000:.1f} s"]))
        return f"{self.novita_instances or 0:,} instance{'' if self.novita_instances == 1 else 's'}: {words}"

    def get_figures(self) -> dict[str, Any]:
        """Return the figures of the record and of the log line."""
        difference = self.difference
        return {
            "novita_instances": self.novita_instances,
            "redis_instances": self.redis_instances,
            "added_count": len(difference.added),
            "changed_count": len(difference.changed),
            "removed_count": len(difference.removed),
            "unconfirmed_count": len(difference.unconfirmed),
            "pages": self.pages,
            "calls": self.calls,
            "retries": self.retries,
            "fetch_ms": self.fetch_ms,
            "confirm_ms": self.confirm_ms,
            "publish_ms": self.publish_ms,
            "duration_ms": self.duration_ms,
        }


def record(report: SyncReport, error: PanelError | None, earlier_failures: int) -> None:
    """Record how a synchronization ended: in Redis for the next decision of every process, in the log, as a SyncRun."""
    outcome = SyncRun.Outcome.FAILED if error else SyncRun.Outcome.SUCCEEDED
    counters.count_sync(outcome, report.duration_ms / 1000)
    # Redis can't store that it failed itself, and a shutdown is no failure.
    if error and not isinstance(error, CacheUnavailable | ShuttingDown):
        try:
            earlier_failures = store.note_failure(error.code, error.message, report.trigger) - 1
        except CacheUnavailable as exc:
            log.debug("failure not recorded in Redis: %s", exc)
    # One warning when synchronizations begin to fail and one when they succeed again, not one for each attempt.
    _log(logging.WARNING if error and not earlier_failures else logging.INFO, report, error)
    if earlier_failures and not error:
        log.warning("sync works again after %d failures", earlier_failures)
    try:
        _save(report, error)
    except DatabaseError as exc:
        # The ledger would wait for the same database; its next observation finds the gap.
        log.warning("sync not recorded in the database: %s", exc)
        return
    if error is None and report.read_began is not None:
        _observe(report, report.read_began)


def _observe(report: SyncReport, at: datetime) -> None:
    """Note in the ledger of costs what was found."""
    unconfirmed = report.unconfirmed
    found = {id_: row for id_, row in report.rows.items() if id_ not in unconfirmed}
    digest = hashlib.sha256(repr(sorted(unconfirmed)).encode("utf-8", "replace"))
    for id_ in sorted(found):
        digest.update(encoding.without_time(found[id_]))
    try_to_observe(Observation(at, digest.hexdigest(), lambda: map(encoding.read_row, found.values()), unconfirmed))


def _log(level: int, report: SyncReport, error: PanelError | None) -> None:
    """Write the one line of a synchronization."""
    figures = {"trigger": report.trigger, "by": report.requested_by or "-"}
    short = {"novita_instances": "instances", "redis_instances": "before"}
    figures |= {short.get(name, name.removesuffix("_count")): value for name, value in report.get_figures().items()}
    if error:
        log.log(level, "sync failed%s", Fields(**figures, code=error.code, error=error.message))
    else:
        notes = {"note": " ".join(report.errors)} if report.errors else {}
        log.log(level, "sync done%s", Fields(**figures, **notes))


def _save(report: SyncReport, error: PanelError | None) -> None:
    difference = report.difference
    outside = [] if error else find_outside(difference, report.last_sync)
    SyncRun.objects.create(
        started_at=report.started_at,
        trigger=report.trigger,
        requested_by=report.requested_by,
        outcome=SyncRun.Outcome.FAILED if error else SyncRun.Outcome.SUCCEEDED,
        error_code=error.code if error else "",
        error=error.message if error else " ".join(report.errors),
        added=_clean(difference.added.first),
        changed=_clean(difference.changed.first),
        removed=_clean(difference.removed.first),
        unconfirmed=_clean(difference.unconfirmed.first),
        outside=_clean(outside[:MAX_LISTED]),
        outside_count=len(outside),
        **report.get_figures(),
    )
    if outside:
        _tell(outside)


def forget_old() -> None:
    old.delete(old.list_old(SyncRun.objects.all(), "started_at", settings.KEEP_SYNCS_DAYS))


def _tell(outside: Sequence[Outside]) -> None:
    """Tell people what was changed elsewhere, also when it was started although starts are frozen."""
    lines = [f"{one['name'] or one['id']}: {one['change']}" for one in outside]
    has_start = any(one["change"] == OutsideChange.STARTED for one in outside)
    if has_start and (freeze := StartFreeze.list_in_force().first()):
        lines.insert(0, f"Starts are frozen here ({freeze.reason}), and something was started elsewhere.")
    count = len(outside)
    title = f"{count:,} instance{'' if count == 1 else 's'} changed outside the panel"
    key = hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "replace")).hexdigest()
    events.tell(EventKind.OUTSIDE_CHANGE, key, title, lines, "/activity/")


def _clean(value: Any) -> Any:
    """Replace NUL, which PostgreSQL's JSON can't hold, in every text."""
    match value:
        case str():
            return clean_text(value)
        case list() | tuple():
            return [_clean(item) for item in value]
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
    return value
