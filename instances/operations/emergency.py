"""Operations for the API, the commands and the worker, with the database or without: nothing prevents a stop.

An operation that the database can't record runs in this process's memory by the same code (`standby`), and is recorded
later (`journal`). That is so for stops alone: an unrecorded start or restart can wait.
"""

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connections

from instances import redis_client
from instances.access.audit import Actor
from instances.errors import CacheUnavailable, DatabaseUnavailable, NothingToRestore, PanelError
from instances.fallback import database, journal, standby
from instances.models import Operation, Protection, Target
from instances.operations import orders, protections, records, rounds, wording
from instances.operations.claims import take_claim
from instances.operations.observing import read_account
from instances.operations.orders import Answer, Begun, Wish
from instances.operations.records import Snapshot, Summary
from instances.operations.targets import FIRST_LISTING_SECONDS
from instances.outgoing.deadline import Budget
from instances.redis_client import get_redis, redis_errors

log = logging.getLogger(__name__)

# A caller has an answer within 20 s, of which the test of the database took some.
ANSWER_SECONDS: Final = 13
CANCEL_SECONDS: Final = 3
TICK_SECONDS: Final[float] = 2.5 * settings.WORKER_TICK_SECONDS
# How old the last test of the database may be.
TEST_SECONDS: Final = 2

journal.after_recording.append(orders.note_recorded)

_followed: set[uuid.UUID] = set()
_lock = threading.Lock()
_ticked_at = float("-inf")


# --- Ordering


def order(wish: Wish) -> Answer:
    """Begin an operation or join the running one, request for 18 s at most, and return what was done until then.

    The rest is requested in the background, and the answer is not settled. Raises as `orders.begin` does, and
    DatabaseError only for starts and restarts.
    """
    wish, warnings = _shorten_reason(wish)
    trouble = _find_trouble(wish)
    if not trouble:
        try:
            return _warn(run_and_answer(_link_recorded(wish), orders.ANSWER_SECONDS), warnings)
        except DatabaseError as exc:
            trouble = _explain(wish, exc)
    with journal.held(), standby.used():
        warnings += [wording.say_unrecorded(trouble), *_take_protections()]
        journal.start()
        answer = run_and_answer(wish, ANSWER_SECONDS)
        _follow_all()
        journal.start()
        # The answer promises the operation, so it must outlive this process.
        warnings += [] if journal.keep_now() else [wording.NOT_KEPT]
        return _warn(answer, warnings)


def run_and_answer(wish: Wish, seconds: float) -> Answer:
    """Begin an operation, run it in a thread for so many seconds at most, and return its state then."""
    ends_at = time.monotonic() + seconds
    begun = orders.begin(wish, ends_at)
    thread = threading.Thread(target=standby.carry(run, begun, ends_at), name="operation", daemon=True)
    thread.start()
    thread.join(max(0.0, ends_at - time.monotonic()))
    with routed(begun.operation.pk):
        begun.operation.refresh_from_db()
        return orders.read_answer(wish, begun)


def _warn(answer: Answer, warnings: list[str]) -> Answer:
    return replace(answer, warnings=[*warnings, *answer.warnings])


def preview(wish: Wish) -> Answer:
    """Return what a request would do."""
    wish, warnings = _shorten_reason(wish)
    trouble = _find_trouble(wish)
    if not trouble:
        try:
            return _warn(orders.preview(wish), warnings)
        except DatabaseError as exc:
            trouble = _explain(wish, exc)
    with standby.used():
        warnings += [wording.say_unrecorded(trouble), *_take_protections()]
        return _warn(orders.preview(wish), warnings)


def begin(wish: Wish) -> tuple[Begun, list[str]]:
    """Do what `orders.begin` does, in memory when the database can't record it; with warnings about that."""
    wish, warnings = _shorten_reason(wish)
    trouble = _find_trouble(wish)
    if not trouble:
        try:
            return orders.begin(wish), warnings
        except DatabaseError as exc:
            trouble = _explain(wish, exc)
    with standby.used():
        warnings += [wording.say_unrecorded(trouble), *_take_protections()]
        begun = orders.begin(wish)
        journal.start()
        journal.keep_now()
        return begun, warnings


def _shorten_reason(wish: Wish) -> tuple[Wish, list[str]]:
    """Cut a reason that is too long, with a warning: its length must not prevent a stop."""
    length, limit = len(wish.reason), orders.MAX_REASON_LENGTH
    if length <= limit:
        return wish, []
    return replace(wish, reason=wish.reason[:limit]), [wording.say_cut(length, limit)]


def _link_recorded(wish: Wish) -> Wish:
    """Drop the link to a retried operation that the database doesn't hold yet: it would refuse the new one."""
    if wish.retry_of is None or Operation.objects.filter(pk=wish.retry_of.pk).exists():
        return wish
    return replace(wish, retry_of=None)


def _find_trouble(wish: Wish) -> str:
    """Return why the database can't record a stop; "" when it can. Starts and restarts fail in the database itself."""
    return database.find_trouble(max_age_seconds=TEST_SECONDS) if wish.kind == "stop" else ""


def _explain(wish: Wish, error: DatabaseError) -> str:
    """Return a failure of the database in words for a stop; raise it again for a start or restart."""
    if wish.kind != "stop":
        raise error
    log.warning("a stop goes on without the database: %s", error)
    return database.explain(error)


def _take_protections() -> list[str]:
    """Copy the protections into the database in memory; returns a warning when they are old or not known."""
    found, warnings = protections.read_in_time(), []
    if found is None:
        known = protections.find_known()
        found = known.found if known else {}
        warnings = [wording.say_protections_as_of(known.at, len(found)) if known else wording.PROTECTIONS_NOT_KNOWN]
    with standby.atomic():
        Protection.objects.all().delete()
        Protection.objects.bulk_create(
            Protection(
                instance_id=one.instance_id,
                name=one.name,
                reason=one.reason,
                protected_by=one.protected_by,
                protected_at=one.protected_at,
            )
            for one in found.values()
        )
    return warnings


def record() -> bool:
    """Record the operations that this process and earlier ones could not; False when this process's are still not."""
    is_recorded = not database.find_trouble() and (not standby.exists() or journal.record_own())
    journal.end()
    if is_recorded:
        journal.record_left_behind()
    return is_recorded or not standby.exists()


# --- Advancing


def run(begun: Begun, ends_at: float) -> None:
    """Do what `orders.run` does, in a thread; when the database fails, a stop goes on in memory."""
    operation = begun.operation
    targets: list[Target] = []
    try:
        try:
            targets = list(operation.targets.all())
            if standby.is_used():
                # Kept before the first request, so that a killed process loses no operation.
                journal.keep_now()
            orders.run(begun, ends_at)
        except DatabaseError as exc:
            _go_on_in_memory(operation, targets, exc)
    except Exception:
        log.exception("operation %s: a round failed", operation.pk)
    finally:
        connections.close_all()


def advance(operation_id: uuid.UUID) -> bool:
    """Advance an operation by a round, as a worker does; False when another process does, or it has finished."""
    operation = Operation.objects.filter(pk=operation_id).first()
    if operation is None or is_in_memory(operation_id):
        return False
    targets: list[Target] = []
    try:
        claim = take_claim(operation)
        if claim is None:
            return False
        targets = list(operation.targets.all())
        rounds.run_round(operation.pk, claim, None)
    except DatabaseError as exc:
        _go_on_in_memory(operation, targets, exc)
    return True


def drive(begun: Begun, ends_at: float, is_left: threading.Event) -> Snapshot | None:
    """Do what `orders.drive` does; returns the operation when it has finished."""
    operation = begun.operation
    while time.monotonic() < ends_at and not is_left.is_set():
        try:
            with routed(operation.pk):
                orders.drive(begun, ends_at, is_left)
                operation = Operation.objects.get(pk=operation.pk)
                return records.get_snapshot(operation) if operation.finished_at else None
        except DatabaseError as exc:
            _go_on_in_memory(operation, [], exc)
            begun = Begun(operation)
            time.sleep(orders.WAIT_SECONDS)
    return None


def _go_on_in_memory(operation: Operation, targets: list[Target], error: DatabaseError) -> None:
    """Continue a stop in memory after the database failed; raise the error again for a start or restart."""
    if operation.kind != "stop":
        raise error
    if not is_in_memory(operation.pk):
        log.warning("operation %s goes on without the database: %s", operation.pk, error)
        _take_over(operation, targets)


def _take_over(operation: Operation, targets: list[Target]) -> None:
    """Continue in memory from the last known record; the first round reads what became of each target."""
    with journal.held(), standby.used():
        _take_protections()
        if not Operation.objects.filter(pk=operation.pk).exists():
            operation.notes = [*operation.notes, wording.DATABASE_FAILED]
            operation.claim, operation.claimed_until = "", None
            operation.finished_at, operation.next_round_at = None, operation.created_at
            with standby.atomic():
                operation.save(force_insert=True)
                for target in targets:
                    target.pk = None
                    if target.state == Target.State.PENDING:
                        # This process may have reserved it.
                        target.next_request_at = None
                Target.objects.bulk_create(targets, batch_size=500)
        journal.start()
        journal.keep_now()
        rounds.advance(operation.pk)
        _follow_all()


def _follow_all() -> None:
    """Advance each operation that is running in memory, in a thread until it has finished."""
    with _lock:
        for operation in Operation.objects.filter(finished_at=None).exclude(pk__in=_followed):
            _followed.add(operation.pk)
            for work in (_follow, _listen):
                threading.Thread(target=standby.carry(work, operation), name="emergency", daemon=True).start()


def _follow(operation: Operation) -> None:
    try:
        drive(Begun(operation), float("inf"), threading.Event())
    except Operation.DoesNotExist:
        log.debug("operation %s has finished and is recorded", operation.pk)
    except Exception:
        log.exception("operation %s: no longer advanced by this process", operation.pk)
    finally:
        _followed.discard(operation.pk)
        connections.close_all()


def _listen(operation: Operation) -> None:
    """Cancel the operation when a request to cancel it reached another process."""
    try:
        while operation.pk in _followed:
            time.sleep(1)
            with suppress(CacheUnavailable), redis_errors():
                name = get_redis().getdel(f"{redis_client.CANCEL}{operation.pk}")
                if isinstance(name, bytes):
                    orders.cancel(operation.pk, actor=Actor(name.decode("utf-8", "replace")))
    except PanelError as exc:
        log.info("operation %s: not cancelled: %s", operation.pk, exc)
    finally:
        connections.close_all()


@contextmanager
def routed(operation_id: uuid.UUID) -> Iterator[None]:
    """Send the block's queries to the database that holds the operation: this process's memory, or the real one."""
    with standby.used() if is_in_memory(operation_id) else nullcontext():
        yield


def is_in_memory(operation_id: uuid.UUID) -> bool:
    if not standby.exists():
        return False
    with standby.used():
        return Operation.objects.filter(pk=operation_id).exists()


# --- Reading and cancelling


@dataclass(frozen=True)
class Page:
    """Some operations, the newest first, and how many there are on all pages."""

    operations: list[Summary]
    total: int


def get(operation_id: str) -> Snapshot:
    """Return an operation with its targets, recorded or not. Raises OperationNotFound."""
    found = _find_unrecorded(operation_id)
    return found or records.get_snapshot(records.get(operation_id))


def find(operation: Operation) -> Snapshot | None:
    """Return an operation with its targets; None when it can't be read now."""
    try:
        return get(str(operation.pk))
    except (DatabaseError, PanelError) as exc:
        log.debug("operation %s can't be read: %s", operation.pk, exc)
        return None


def find_retried(operation_id: str) -> tuple[Operation, list[str]]:
    """Return an operation, recorded or not, and the instances that it left unconfirmed.

    Raises OperationNotFound, and NothingToRetry also while it runs.
    """
    snapshot = _get_anywhere(operation_id)
    return snapshot.operation, records.list_unconfirmed(snapshot)


def list_stopped(operation_id: str) -> list[str]:
    """Return the instances that a finished stop, recorded or not, has stopped and that still exist.

    Raises OperationNotFound and NothingToRestore.
    """
    ids = records.list_stopped(_get_anywhere(operation_id))
    observed = read_account(ids, Budget(FIRST_LISTING_SECONDS), is_whole=False)
    removed = observed.gone | {id_ for id_, one in observed.instances.items() if one.group == "gone"}
    existing = [id_ for id_ in ids if id_ not in removed]
    if not existing:
        raise NothingToRestore
    return existing


def _get_anywhere(operation_id: str) -> Snapshot:
    pk = records.parse_id(operation_id)
    with journal.held(), routed(pk):
        elsewhere = [] if standby.is_used() else [one for one in _list_elsewhere() if one.operation.pk == pk]
        return elsewhere[0] if elsewhere else records.get_snapshot(records.get(pk))


def _list_elsewhere() -> list[Snapshot]:
    """Return the operations that other processes could not record yet."""
    return [
        records.get_snapshot(operation, copy.find_targets(operation))
        for copy in journal.read_copies()
        if copy.name != journal.get_name()
        for operation in copy.operations
    ]


def _find_unrecorded(operation_id: str) -> Snapshot | None:
    return next((one for one in _list_unrecorded() if str(one.operation.pk) == operation_id.lower()), None)


def _list_unrecorded() -> list[Snapshot]:
    """Return the operations that are not recorded yet, of this process and of others, the newest first."""
    found = {one.operation.pk: one for one in _list_elsewhere()}
    if standby.exists():
        with standby.used():
            found |= {operation.pk: records.get_snapshot(operation) for operation in Operation.objects.all()}
    return sorted(found.values(), key=lambda one: one.operation.created_at, reverse=True)


def list_unrecorded() -> list[Summary]:
    """Return the operations that are not recorded yet, the newest first. It needs no database."""
    return [Summary(one.operation, one.counts) for one in _list_unrecorded()]


def list_all(state: str | None, page: int, page_size: int) -> Page:
    """Return a page of the operations, those that are not recorded yet first."""
    unrecorded = [one for one in list_unrecorded() if state in {None, one.operation.state}]
    try:
        recorded, total = records.list_summaries(state, page, page_size)
    except DatabaseError:
        if not unrecorded:
            raise
        recorded, total = [], 0
    ids = {one.operation.pk for one in unrecorded}
    first = unrecorded if page == 1 else []
    rest = [one for one in recorded if one.operation.pk not in ids]
    return Page([*first, *rest][:page_size], total + len(unrecorded) - (len(recorded) - len(rest)))


def list_shown(since: datetime) -> list[Summary]:
    """Do what `records.list_shown` does, with the operations that are not recorded yet first."""
    unrecorded = list_unrecorded()
    ids = {one.operation.pk for one in unrecorded}
    recorded = [operation for operation in records.list_shown(since) if operation.pk not in ids]
    return [*unrecorded, *records.summarize(recorded)][: records.MAX_SHOWN]


def cancel(operation_id: str, *, actor: Actor) -> Snapshot:
    """Cancel the remaining requests of an operation in any process. Raises OperationNotFound and OperationEnded."""
    pk = records.parse_id(operation_id)
    if is_in_memory(pk):
        with journal.held(), standby.used():
            snapshot = records.get_snapshot(orders.cancel(pk, actor=actor))
            journal.keep_now()
            return snapshot
    if _find_unrecorded(operation_id):
        return _cancel_elsewhere(operation_id.lower(), actor)
    return records.get_snapshot(orders.cancel(pk, actor=actor))


def dismiss(operation_id: str, *, actor: Actor) -> Snapshot:
    """Remove a result from every dashboard. Raises OperationNotFound, OperationRunning, and DatabaseUnavailable for an
    operation that the database doesn't hold yet.
    """
    if _find_unrecorded(operation_id):
        raise DatabaseUnavailable(
            "The operation is not recorded yet, because the database could not be written.",
            suggestion="Dismiss it when the database works again and the operation is recorded.",
        )
    return records.get_snapshot(records.dismiss(operation_id, actor=actor))


def _cancel_elsewhere(operation_id: str, actor: Actor) -> Snapshot:
    """Tell the process that has the operation in memory to cancel it, and wait for that."""
    try:
        with redis_errors():
            get_redis().set(f"{redis_client.CANCEL}{operation_id}", actor.name.encode("utf-8", "replace"), ex=60)
    except CacheUnavailable as exc:
        log.warning("operation %s: its process can't be told to cancel it: %s", operation_id, exc)
    ends_at = time.monotonic() + CANCEL_SECONDS
    while time.monotonic() < ends_at:
        found = _find_unrecorded(operation_id)
        if found is None:
            return records.get_snapshot(records.get(operation_id))
        if found.operation.state == Operation.State.CANCELLED:
            return found
        time.sleep(0.2)
    raise DatabaseUnavailable(
        "The process that runs this operation does not answer, and the database can't be used, so that the operation "
        "may not be cancelled."
    )


# --- In the background


def tick() -> None:
    """Record unrecorded operations, and keep the protections for the next outage; called every second or so."""
    global _ticked_at
    if time.monotonic() - _ticked_at < TICK_SECONDS:
        return
    _ticked_at = time.monotonic()
    protections.read_in_time()
    journal.record_left_behind()
