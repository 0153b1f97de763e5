"""Synchronizes the inventory with Novita: lease, listing, confirmation, comparison, publication, record.

Readers see nothing of a synchronization until one script publishes it. When a synchronization dies before that, readers
keep the previous inventory, and its draft expires.
"""

import random
import time
from collections.abc import Callable, Mapping, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings

from instances.errors import CacheUnavailable, NotFoundAtNovita, NovitaError, PanelError, SyncInProgress
from instances.instance import Instance
from instances.inventory import encoding, lease, publishing, rows, store
from instances.inventory.additions import Additions, price_first, read_additions
from instances.inventory.difference import compare
from instances.inventory.report import SyncReport, record
from instances.novita.client import Novita, get_novita
from instances.novita.paging import say_missing_rows
from instances.novita.parallel import call_each
from instances.outgoing.deadline import Budget, cancellable

MAX_DIRECT_READS: Final = 200

OnProgress = Callable[[str], None]


def synchronize(
    trigger: str,
    *,
    requested_by: str = "",
    on_progress: OnProgress | None = None,
    dry_run: bool = False,
    is_due: Callable[[store.State], bool] | None = None,
) -> SyncReport:
    """Synchronize the inventory with the account at Novita, and return what that changed.

    A dry run only reads and compares: it takes no lease, and publishes and records nothing. `is_due` is called with the
    lease held: another process may have synchronized since the caller decided to. Raises SyncInProgress when another
    synchronization runs or has just ended, NovitaError, CacheUnavailable, LeaseLost, ShuttingDown. After each of these
    readers keep the previous inventory.
    """
    report = SyncReport(trigger, requested_by, dry_run)
    budget = Budget(settings.NOVITA_SYNC_DEADLINE)
    began = time.monotonic()
    earlier_failures = 0
    error: PanelError | None = None
    try:
        with ExitStack() as stack:
            # Before the lease: a shutdown in between would leave the lease held until it expires.
            stack.enter_context(cancellable(budget))
            held = None if dry_run else stack.enter_context(lease.acquire(trigger))
            state = store.read_state()
            if is_due and not is_due(state):
                raise SyncInProgress
            earlier_failures = 0 if dry_run else state.failures
            report.last_sync = state.freshness.as_of
            _run(report, held, state.now, get_novita(), budget, on_progress or (lambda _: None))
    except SyncInProgress:
        raise
    except PanelError as exc:
        error = exc
    report.calls, report.retries = budget.calls, budget.retries
    report.duration_ms = _measure_ms(began)
    if not dry_run:
        # After the lease is released: a database that hangs must not keep other processes from synchronizing.
        record(report, error, earlier_failures)
    if error:
        raise error
    return report


def try_to_synchronize(trigger: str, *, requested_by: str) -> tuple[bool, str]:
    """Synchronize for a person. Return whether it succeeded, and a sentence for the person."""
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
    """Take the steps, and note in the report how far they came."""
    report.read_began = now
    stored, additions = store.read_stored(), read_additions()
    report.redis_instances = len(stored.rows)

    began = time.monotonic()
    listing = novita.list_kept(
        additions.encode, budget, lambda known, total: on_progress(_describe_progress(known, total))
    )
    report.fetch_ms = _measure_ms(began)
    report.pages, report.novita_instances = listing.pages, len(listing.instances)
    if listing.missing_rows:
        report.errors.append(say_missing_rows(listing.missing_rows))

    began = time.monotonic()
    unlisted = [id_ for id_ in stored.rows if id_ not in listing.instances]
    missing = [id_ for id_ in unlisted if rows.parse(id_.encode(), stored.rows[id_])]
    if len(missing) < len(unlisted):
        stored = stored.without(set(unlisted) - set(missing))
    if missing:
        on_progress(f"confirming {len(missing)} missing instances")
    confirmation = _confirm(missing, novita, additions, budget)
    report.pages += confirmation.pages
    report.confirm_ms = _measure_ms(began)

    found = {**listing.instances, **confirmation.alive}
    report.difference = compare(stored.rows, found, confirmation.unconfirmed, now, additions)
    report.rows, report.unconfirmed = found, confirmation.unconfirmed
    if held is None:
        return

    budget.check()
    began = time.monotonic()
    on_progress("publishing")
    _publish(stored, found, publishing.Source(held, report.trigger))
    report.publish_ms = _measure_ms(began)
    if stored.generation is None and not additions.has_prices:
        report.rows = price_first(found)


def _publish(stored: store.Stored, new: Mapping[str, bytes], source: publishing.Source) -> None:
    moving = [id_ for id_, row in new.items() if encoding.is_moving(row)]
    generation = stored.generation if new == stored.rows else None
    if generation is not None and publishing.note_unchanged(generation, moving, source):
        return
    # A reader of this process that comes in between would read all rows once more.
    with store.rendering:
        revision = publishing.publish(new, moving, source)
        # Rendered now, so that no reader has to do it.
        with suppress(CacheUnavailable):
            if revision is None:
                store.read_body()
            else:
                store.render_revision(revision, new)


@dataclass(frozen=True)
class Confirmation:
    """What became of the instances that the listing lacked. Those in neither field are gone."""

    alive: Mapping[str, bytes]
    unconfirmed: Set[str]
    pages: int = 0


def _confirm(missing: list[str], novita: Novita, additions: Additions, budget: Budget) -> Confirmation:
    """Find out what became of the stored instances that the listing lacks: only Novita's own "not found" removes one.

    Pages are no snapshot, so an instance that they lack may well exist. When too many are missing to read each of them,
    the account is listed once more. Instances that both listings lack are removed if a random sample of them is gone
    without exception.
    """
    alive: dict[str, bytes] = {}
    pages = 0
    if len(missing) > MAX_DIRECT_READS:
        again = novita.list_kept(additions.encode, budget)
        pages = again.pages
        alive = {id_: again.instances[id_] for id_ in missing if id_ in again.instances}
    unlisted = [id_ for id_ in missing if id_ not in alive]
    is_sample = len(unlisted) > MAX_DIRECT_READS
    sample = random.sample(unlisted, MAX_DIRECT_READS) if is_sample else unlisted
    gone = set()
    for id_, outcome in call_each(lambda id_: novita.get_instance(id_, budget), sample, novita.concurrency):
        if _is_gone(outcome):
            gone.add(id_)
        elif isinstance(outcome, Instance):
            alive[id_] = additions.encode(outcome)
    if is_sample:
        gone = set(unlisted) if len(gone) == len(sample) else set()
    return Confirmation(alive, set(unlisted) - gone - alive.keys(), pages)


def _is_gone(outcome: Instance | NovitaError) -> bool:
    return isinstance(outcome, NotFoundAtNovita) or (isinstance(outcome, Instance) and outcome.group == "gone")


def _describe_progress(known: int, total: int | None) -> str:
    return f"{known} instances read" if total is None else f"{known} of {total} instances read"


def _measure_ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
