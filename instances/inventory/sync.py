"""Make the copy true: lock, fetch, compare, confirm, publish, record.

Until the one script that publishes has run, nothing of a sync is visible; one that dies leaves the listing as it was
and a draft that ends by itself.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict

from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from instances.errors import CacheUnavailable, NotFoundAtNovita, PanelError, ShuttingDown, SyncInProgress
from instances.instance import Instance, clean_text, format_time, get_meaning, parse_time
from instances.inventory import lease, store
from instances.models import SyncRun
from instances.novita.client import Novita, get_novita
from instances.novita.paging import Listing
from instances.novita.parallel import call_each
from instances.outgoing.deadline import Budget, cancellable

log = logging.getLogger(__name__)

MAX_DIRECT_READS: Final = 200
KEEP_RUNS_DAYS: Final = 90

OnProgress = Callable[[str], None]


class Named(TypedDict):
    id: str
    name: str


class Changed(TypedDict):
    id: str
    name: str
    fields: dict[str, tuple[Any, Any]]


@dataclass
class SyncReport:
    """What a sync did; counts are of instances, durations in ms."""

    trigger: str
    requested_by: str = ""
    is_dry_run: bool = False
    started_at: datetime = field(default_factory=timezone.now)
    novita_instances: int | None = None
    redis_instances: int | None = None
    added: list[Named] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)
    unchanged: int = 0
    removed: list[Named] = field(default_factory=list)
    unconfirmed: list[Named] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    pages: int = 0
    calls: int = 0
    retries: int = 0
    fetch_ms: int = 0
    confirm_ms: int = 0
    publish_ms: int = 0
    duration_ms: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the answer of POST /api/instances/sync and of `sync_instances --json`."""
        return {
            "success": True,
            "message": "Dry run: nothing was changed" if self.is_dry_run else "Synchronization completed successfully",
            "novitaInstances": self.novita_instances,
            "redisInstances": self.redis_instances,
            "synchronized": self.novita_instances,
            "deleted": len(self.removed),
            "errors": self.errors,
            "timestamp": format_time(timezone.now()),
            "duration": self.duration_ms,
            "added": len(self.added),
            "changed": len(self.changed),
            "unconfirmed": len(self.unconfirmed),
        }

    def summarize(self) -> str:
        """Say it in words: "5 instances: 1 new, 1 gone, 3 unchanged, 0.4 s"."""
        counts = say_counts(len(self.added), len(self.changed), len(self.removed), len(self.unconfirmed))
        unchanged = f"{self.unchanged} unchanged" if self.unchanged else ""
        words = ", ".join(filter(None, [counts, unchanged, f"{self.duration_ms / 1000:.1f} s"]))
        return f"{self.novita_instances} instance{'' if self.novita_instances == 1 else 's'}: {words}"


def say_counts(added: int, changed: int, removed: int, unconfirmed: int) -> str:
    """Say what a sync found, as far as there is something to say: "1 new, 1 gone"."""
    counts = {"new": added, "changed": changed, "gone": removed, "not confirmed as gone": unconfirmed}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


@dataclass
class _Plan:
    """What is to be published: the rows, which of them move, and whether anything differs from what stands there."""

    rows: dict[str, bytes] = field(default_factory=dict)
    moving: list[str] = field(default_factory=list)
    is_changed: bool = False


def synchronize(
    trigger: str, *, requested_by: str = "", on_progress: OnProgress | None = None, dry_run: bool = False
) -> SyncReport:
    """Copy the account from Novita into Redis, and return what that changed.

    A dry run reads and compares only: it takes no lock, publishes and records nothing. Raises SyncInProgress when
    another sync runs, NovitaError, CacheUnavailable, LeaseLost, ShuttingDown; after each of these readers have what
    they had.
    """
    report = SyncReport(trigger, requested_by, dry_run)
    budget = Budget(settings.NOVITA_SYNC_DEADLINE)
    began = time.monotonic()
    earlier_failures = 0
    error: PanelError | None = None
    try:
        with ExitStack() as stack:
            # Before the lock: a shutdown that comes between would leave it held until it expires.
            stack.enter_context(cancellable(budget))
            held = None if dry_run else stack.enter_context(lease.acquire(trigger))
            state = store.read_state()
            earlier_failures = 0 if dry_run else state.failures
            _run(report, held, state.now, get_novita(), budget, on_progress or (lambda _: None))
    except SyncInProgress:
        raise
    except PanelError as exc:
        error = exc
    report.calls, report.retries = budget.calls, budget.retries
    report.duration_ms = _measure_ms(began)
    if not dry_run:
        # After the lock is released: a database that hangs must not keep others from syncing.
        _record(report, error, earlier_failures)
    if error:
        raise error
    return report


def try_to_synchronize(trigger: str, *, requested_by: str) -> tuple[bool, str]:
    """Synchronize for a person: returns whether it was done, and words for what it did or why it could not."""
    try:
        return True, synchronize(trigger, requested_by=requested_by).summarize()
    except PanelError as exc:
        return False, f"{exc.message} {exc.suggestion or ''}".strip()


def _run(
    report: SyncReport,
    held: lease.Lease | None,
    now: datetime,
    novita: Novita,
    budget: Budget,
    on_progress: OnProgress,
) -> None:
    stored = store.read_stored()
    report.redis_instances = len(stored.rows)

    began = time.monotonic()
    listing = novita.list_instances(budget, lambda known, total: on_progress(_say_progress(known, total)))
    report.pages = listing.pages
    report.fetch_ms = _measure_ms(began)
    report.novita_instances = len(listing.instances)
    if listing.missing_rows:
        report.errors.append(f"Novita counts {listing.missing_rows} instances more than it lists.")

    plan = _compare(stored, listing, report, now)

    began = time.monotonic()
    missing = {id_: value for id_, value in stored.rows.items() if id_ not in listing.instances}
    if missing:
        on_progress(f"confirming {len(missing)} that are missing")
        _confirm(missing, plan, report, now, novita, budget)
    report.confirm_ms = _measure_ms(began)

    if held is None:
        return
    budget.check()
    began = time.monotonic()
    on_progress("publishing")
    source = store.Source(held.token, held.fence, held.began_ms, report.trigger)
    if plan.is_changed or stored.generation is None or not store.note_unchanged(stored.generation, plan.moving, source):
        store.publish(plan.rows, plan.moving, source)
        with suppress(CacheUnavailable):
            # Rendered now, so that no reader waits for it.
            store.read_body()
    report.publish_ms = _measure_ms(began)


def _compare(stored: store.Stored, listing: Listing, report: SyncReport, now: datetime) -> _Plan:
    """Sort what Novita listed into added, changed and unchanged; an unchanged instance stays as it is stored."""
    plan = _Plan()
    for instance in listing.instances.values():
        _add_to_plan(plan, instance, stored.rows.get(instance.id), report, now)
    return plan


def _add_to_plan(plan: _Plan, instance: Instance, old: bytes | None, report: SyncReport, now: datetime) -> None:
    encoded = store.encode(instance)
    if instance.meaning.is_moving:
        plan.moving.append(instance.id)
    if old is not None and old.startswith(encoded):
        plan.rows[instance.id] = old
        report.unchanged += 1
        return
    plan.is_changed = True
    before = store.parse_stored(old) if old is not None else None
    fields = compare_fields(before, instance.to_json()) if before else {}
    # Another version may have stored the same in other words: it is written anew, and nothing has changed.
    changed_at = parse_time(before["changedAt"]) if before and not fields else now
    plan.rows[instance.id] = store.seal(encoded, changed_at)
    if before is None:
        report.added.append({"id": instance.id, "name": instance.name})
    elif fields:
        report.changed.append({"id": instance.id, "name": instance.name, "fields": fields})
    else:
        report.unchanged += 1


def compare_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, each with its old and its new value; what follows from the status is left out."""
    derived = {"group", "actions", "changedAt"}
    return {
        name: (before.get(name), value)
        for name, value in after.items()
        if name not in derived and before.get(name) != value
    }


def _confirm(
    missing: Mapping[str, bytes], plan: _Plan, report: SyncReport, now: datetime, novita: Novita, budget: Budget
) -> None:
    """Decide of each instance that the copy has and the listing lacks: only Novita's own word removes it.

    Pages are no snapshot, so what a listing lacks may well exist. When too many are missing to ask for each, the
    account is listed once more; what both listings lack is removed if a random sample of it is gone without exception.
    """
    wanted = list(missing)
    if len(missing) > MAX_DIRECT_READS:
        again = novita.list_instances(budget)
        report.pages += again.pages
        for id_ in missing.keys() & again.instances.keys():
            _add_to_plan(plan, again.instances[id_], missing[id_], report, now)
        wanted = [id_ for id_ in missing if id_ not in again.instances]
    sample = wanted if len(wanted) <= MAX_DIRECT_READS else random.sample(wanted, MAX_DIRECT_READS)
    gone: set[str] = set()
    alive: set[str] = set()
    for id_, outcome in call_each(lambda id_: novita.get_instance(id_, budget), sample, novita.concurrency):
        if isinstance(outcome, NotFoundAtNovita) or (isinstance(outcome, Instance) and outcome.group == "gone"):
            gone.add(id_)
        elif isinstance(outcome, Instance):
            alive.add(id_)
            _add_to_plan(plan, outcome, missing[id_], report, now)
    if len(sample) < len(wanted) and gone == set(sample):
        gone = set(wanted)
    elif len(sample) < len(wanted):
        gone = set()
    for id_ in wanted:
        if id_ in gone:
            report.removed.append(_name(id_, missing[id_]))
            plan.is_changed = True
        elif id_ not in alive:
            report.unconfirmed.append(_name(id_, missing[id_]))
            plan.rows[id_] = missing[id_]
            stored = store.parse_stored(missing[id_])
            if stored and get_meaning(stored["status"]).is_moving:
                plan.moving.append(id_)


def _name(id_: str, stored: bytes) -> Named:
    return {"id": id_, "name": str((store.parse_stored(stored) or {}).get("name", ""))}


def _say_progress(known: int, total: int | None) -> str:
    return f"{known} instances read" if total is None else f"{known} of {total} instances read"


def _measure_ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


# --- The record


def _record(report: SyncReport, error: PanelError | None, earlier_failures: int) -> None:
    """Keep what became of a sync: in Redis for everybody's next decision, in the log, and in the database."""
    # Redis itself can't be told that it failed, and a shutdown is no failure.
    if error and not isinstance(error, CacheUnavailable | ShuttingDown):
        try:
            earlier_failures = store.note_failure(error.code, error.message, report.trigger) - 1
        except CacheUnavailable as exc:
            log.debug("the failure is not noted in Redis: %s", exc)
    # A warning when it begins to fail and one when it is well again, not one for each try between.
    _log(logging.WARNING if error and not earlier_failures else logging.INFO, report, error)
    if earlier_failures and not error:
        log.warning("sync is well again after %d failed", earlier_failures)
    try:
        _save(report, error)
    except DatabaseError as exc:
        log.warning("sync not recorded in the database: %s", exc)


def _log(level: int, report: SyncReport, error: PanelError | None) -> None:
    """Write the one line of a sync."""
    figures = {
        "trigger": report.trigger,
        "by": report.requested_by or "-",
        "instances": report.novita_instances,
        "before": report.redis_instances,
        "added": len(report.added),
        "changed": len(report.changed),
        "removed": len(report.removed),
        "unconfirmed": len(report.unconfirmed),
        "pages": report.pages,
        "calls": report.calls,
        "retries": report.retries,
        "fetch_ms": report.fetch_ms,
        "confirm_ms": report.confirm_ms,
        "publish_ms": report.publish_ms,
        "duration_ms": report.duration_ms,
    }
    words = " ".join(f"{name}={value}" for name, value in figures.items())
    if error:
        log.log(level, "sync failed %s code=%s error=%r", words, error.code, error.message)
    else:
        log.log(level, "sync done %s%s", words, "".join(f" note={note!r}" for note in report.errors))


def _save(report: SyncReport, error: PanelError | None) -> None:
    SyncRun.objects.create(
        started_at=report.started_at,
        trigger=report.trigger,
        requested_by=report.requested_by,
        outcome=SyncRun.Outcome.FAILED if error else SyncRun.Outcome.SUCCEEDED,
        error_code=error.code if error else "",
        error=error.message if error else " ".join(report.errors),
        novita_instances=report.novita_instances,
        redis_instances=report.redis_instances,
        added=_clean(report.added),
        changed=_clean(report.changed),
        removed=_clean(report.removed),
        unconfirmed=_clean(report.unconfirmed),
        added_count=len(report.added),
        changed_count=len(report.changed),
        removed_count=len(report.removed),
        unconfirmed_count=len(report.unconfirmed),
        pages=report.pages,
        calls=report.calls,
        retries=report.retries,
        fetch_ms=report.fetch_ms,
        confirm_ms=report.confirm_ms,
        publish_ms=report.publish_ms,
        duration_ms=report.duration_ms,
    )
    SyncRun.objects.filter(started_at__lt=timezone.now() - timedelta(days=KEEP_RUNS_DAYS)).delete()


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
