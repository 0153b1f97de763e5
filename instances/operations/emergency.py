"""Operations as callers see them, whether the database works or not: a stop is sent, verified and answered without it.

What can't be recorded runs in this process's memory by the same code (`standby`), and is recorded later (`journal`).
Only stops are done so: a start or restart that nobody records can wait.
"""

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, Final

from django.db import DatabaseError, connections

from instances import redis_client
from instances.access.audit import Actor
from instances.errors import CacheUnavailable, DatabaseUnavailable, OperationNotFound, PanelError
from instances.fallback import database, journal, standby
from instances.models import Operation, Protection, Target
from instances.operations import orders, protections, rounds, wording
from instances.operations.orders import Begun, Wish
from instances.redis_client import get_redis, redis_errors

log = logging.getLogger(__name__)

# A caller has an answer within 20 s, of which the look at the database took some.
ANSWER_SECONDS: Final = 13
CANCEL_SECONDS: Final = 3
TICK_SECONDS: Final = 5
NO_PROTECTION_KNOWN: Final = (
    "Which instances are protected is not known: the database can't be read, and no copy of its protections is left. "
    "Protected instances are stopped, too."
)

NOT_KEPT: Final = (
    "No copy of it could be kept in Redis or in FALLBACK_DIR either: its record is lost if this process ends before "
    "the database can be written."
)

journal.after_recording.append(orders.note_recorded)

_followed: set[uuid.UUID] = set()
_lock = threading.Lock()
_ticked_at = float("-inf")


# --- Ordering


def order(wish: Wish) -> tuple[dict[str, Any], bool]:
    """Do what `orders.order` does; returns the answer, and whether it is settled: all that runs is requested.

    Raises DatabaseError only for what isn't a stop.
    """
    wish, warnings = _shorten_reason(wish)
    trouble = _find_trouble(wish)
    if not trouble:
        try:
            body, is_settled = _order(_link_recorded(wish), orders.ANSWER_SECONDS)
            body["warnings"] = [*warnings, *body["warnings"]]
            return body, is_settled
        except DatabaseError as exc:
            trouble = _explain(wish, exc)
    with journal.held(), standby.used():
        warnings += [wording.say_unrecorded(trouble), *_take_protections()]
        journal.start()
        body, is_settled = _order(wish, ANSWER_SECONDS)
        _follow_all()
        journal.start()
        # The answer promises the operation, so it must outlive this process.
        warnings += [] if journal.keep_now() else [NOT_KEPT]
        body["warnings"] = [*warnings, *body["warnings"]]
    return body, is_settled


def _shorten_reason(wish: Wish) -> tuple[Wish, list[str]]:
    """Cut a reason that is too long, with a warning: a note must not decide whether a stop is sent."""
    length = len(wish.reason)
    if length <= orders.MAX_REASON_LENGTH:
        return wish, []
    warning = f"The reason has {length} characters; the first {orders.MAX_REASON_LENGTH} are recorded."
    return replace(wish, reason=wish.reason[: orders.MAX_REASON_LENGTH]), [warning]


def _link_recorded(wish: Wish) -> Wish:
    """Drop the link to a retried operation that the database doesn't hold yet: it would refuse the new one."""
    if wish.retry_of is None or Operation.objects.filter(pk=wish.retry_of.pk).exists():
        return wish
    return replace(wish, retry_of=None)


def _order(wish: Wish, seconds: float) -> tuple[dict[str, Any], bool]:
    begun = orders.order(wish, run, seconds)
    with routed(begun.operation.pk):
        begun.operation.refresh_from_db()
        return orders.describe_order(wish, begun), begun.is_settled


def preview(wish: Wish) -> dict[str, Any]:
    """Return what an order would do."""
    wish, warnings = _shorten_reason(wish)
    trouble = _find_trouble(wish)
    if not trouble:
        try:
            body = orders.describe_preview(wish, orders.preview(wish))
            body["warnings"] = [*warnings, *body["warnings"]]
            return body
        except DatabaseError as exc:
            trouble = _explain(wish, exc)
    with standby.used():
        warnings += [wording.say_unrecorded(trouble), *_take_protections()]
        body = orders.describe_preview(wish, orders.preview(wish))
        body["warnings"] = [*warnings, *body["warnings"]]
        return body


def _find_trouble(wish: Wish) -> str:
    """Return why the database can't record a stop, "" when it can; what isn't a stop finds out by itself."""
    return database.find_trouble(max_age_seconds=2) if wish.kind == "stop" else ""


def _explain(wish: Wish, error: DatabaseError) -> str:
    """Say what a failure means for a stop; raises it again for what isn't one."""
    if wish.kind != "stop":
        raise error
    log.warning("a stop goes on without the database: %s", error)
    return database.explain(error)


def _take_protections() -> list[str]:
    """Let the database in memory know the protections; returns warnings about what isn't known of them."""
    found, warnings = protections.read_in_time(), []
    if found is None:
        known = protections.find_known()
        found = known.found if known else {}
        since = f"as they were at {known.at:%Y-%m-%d %H:%M:%S} UTC: {len(found)}." if known else ""
        warnings = [f"The protections can't be read; they are taken {since}" if known else NO_PROTECTION_KNOWN]
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


def record() -> bool:
    """Record what this process and those before it could not, as it ends; False when its own is left unrecorded."""
    is_recorded = not database.find_trouble() and (not standby.exists() or journal.record_own())
    journal.end()
    if is_recorded:
        journal.record_left_behind()
    return is_recorded or not standby.exists()


# --- Moving on


def run(begun: Begun, ends_at: float) -> None:
    """Do what `orders.run` does, in a thread; a stop that the database fails under goes on in memory."""
    operation = begun.operation
    targets: list[Target] = []
    try:
        try:
            targets = list(operation.targets.all())
            if standby.is_used():
                # Kept before it is requested: a killed process loses nothing that it has begun.
                journal.keep_now()
            orders.run(begun, ends_at)
        except DatabaseError as exc:
            _go_on_in_memory(operation, targets, exc)
    except Exception:
        log.exception("operation %s: a round failed", operation.pk)
    finally:
        connections.close_all()


def advance(operation_id: uuid.UUID) -> bool:
    """Move an operation on by a round, as a worker does; False when somebody else does, or it has ended."""
    operation = Operation.objects.filter(pk=operation_id).first()
    if operation is None or is_in_memory(operation_id):
        return False
    targets: list[Target] = []
    try:
        claim = rounds.take_claim(operation)
        if claim is None:
            return False
        targets = list(operation.targets.all())
        rounds.run_round(operation.pk, claim, None)
    except DatabaseError as exc:
        _go_on_in_memory(operation, targets, exc)
    return True


def drive(begun: Begun, ends_at: float, is_left: threading.Event) -> dict[str, Any] | None:
    """Do what `orders.drive` does; returns the operation as the API shows it when it has ended."""
    operation = begun.operation
    while time.monotonic() < ends_at and not is_left.is_set():
        try:
            with routed(operation.pk):
                orders.drive(begun, ends_at, is_left)
                operation = Operation.objects.get(pk=operation.pk)
                return orders.describe(operation) if operation.finished_at else None
        except DatabaseError as exc:
            _go_on_in_memory(operation, [], exc)
            begun = Begun(operation)
            time.sleep(orders.WAIT_SECONDS)
    return None


def _go_on_in_memory(operation: Operation, targets: list[Target], error: DatabaseError) -> None:
    """Take over a stop that the database has failed under; raises its error again for what isn't one."""
    if operation.kind != "stop":
        raise error
    if not is_in_memory(operation.pk):
        log.warning("operation %s goes on without the database: %s", operation.pk, error)
        _take_over(operation, targets)


def _take_over(operation: Operation, targets: list[Target]) -> None:
    """Go on in memory with what the database knew last; its first round looks what became of each target."""
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
                        # Who had it reserved may have been this process.
                        target.next_request_at = None
                Target.objects.bulk_create(targets, batch_size=500)
        journal.start()
        journal.keep_now()
        rounds.advance(operation.pk)
        _follow_all()


def _follow_all() -> None:
    """Move on what runs in memory, each operation in a thread until it has ended."""
    with _lock:
        for operation in Operation.objects.filter(finished_at=None).exclude(pk__in=_followed):
            _followed.add(operation.pk)
            for work in (_follow, _listen):
                threading.Thread(target=standby.carry(work, operation), name="emergency", daemon=True).start()


def _follow(operation: Operation) -> None:
    try:
        drive(Begun(operation), float("inf"), threading.Event())
    except Operation.DoesNotExist:
        log.debug("operation %s has ended and is recorded", operation.pk)
    except Exception:
        log.exception("operation %s: nobody follows it any more", operation.pk)
    finally:
        _followed.discard(operation.pk)
        connections.close_all()


def _listen(operation: Operation) -> None:
    """Cancel the operation when another process is told to."""
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
    """Let the block's queries go where the operation is: to the memory when this process moves it on there."""
    with standby.used() if is_in_memory(operation_id) else nullcontext():
        yield


def is_in_memory(operation_id: uuid.UUID) -> bool:
    if not standby.exists():
        return False
    with standby.used():
        return Operation.objects.filter(pk=operation_id).exists()


# --- Reading and cancelling


def describe(operation_id: str) -> dict[str, Any]:
    """Return the answer of GET /api/operations/<id>. Raises OperationNotFound."""
    found = _find_unrecorded(operation_id)
    return found if found else orders.describe(orders.get(operation_id))


def find_retried(operation_id: str) -> tuple[Operation, list[str]]:
    """Return an operation, recorded or not, and the instances that it left unconfirmed.

    Raises OperationNotFound, and NothingToRetry also while it runs.
    """
    try:
        pk = uuid.UUID(operation_id)
    except ValueError as exc:
        raise OperationNotFound from exc
    with journal.held(), routed(pk):
        if not standby.is_used():
            for copy in journal.read_copies():
                for operation in copy.operations:
                    if operation.pk == pk and copy.name != journal.get_name():
                        return operation, orders.list_unconfirmed(operation, copy.find_targets(operation))
        operation = orders.get(pk)
        return operation, orders.list_unconfirmed(operation)


def find(operation: Operation) -> dict[str, Any] | None:
    """Return an operation as the API shows it; None when the database doesn't tell."""
    try:
        return describe(str(operation.pk))
    except (DatabaseError, PanelError) as exc:
        log.debug("operation %s can't be read: %s", operation.pk, exc)
        return None


def _find_unrecorded(operation_id: str) -> dict[str, Any] | None:
    return next((one for one in _list_unrecorded() if one["id"] == operation_id.lower()), None)


def _list_unrecorded() -> list[dict[str, Any]]:
    """Return what isn't recorded yet, of this process and of others, as the API shows it, the newest first."""
    found: dict[str, dict[str, Any]] = {}
    for copy in journal.read_copies():
        if copy.name != journal.get_name():
            for operation in copy.operations:
                found[str(operation.pk)] = orders.describe(operation, copy.find_targets(operation))
    if standby.exists():
        with standby.used():
            found |= {str(operation.pk): orders.describe(operation) for operation in Operation.objects.all()}
    return sorted(found.values(), key=lambda one: str(one["createdAt"]), reverse=True)


def list_all(state: str | None, page: int, page_size: int) -> dict[str, Any]:
    """Return the answer of GET /api/operations: what isn't recorded yet stands first."""
    shown = [
        {name: value for name, value in one.items() if name != "targets"}
        for one in _list_unrecorded()
        if state in {None, one["state"]}
    ]
    try:
        recorded, total = orders.list_recorded(state, page, page_size)
        described = orders.describe_all(recorded)
    except DatabaseError:
        if not shown:
            raise
        described, total = [], 0
    ids = {one["id"] for one in shown}
    first = shown if page == 1 else []
    rest = [one for one in described if one["id"] not in ids]
    return {"operations": [*first, *rest][:page_size], "total": total + len(shown) - (len(described) - len(rest))}


def cancel(operation_id: str, *, actor: Actor) -> dict[str, Any]:
    """End the asking, wherever the operation runs. Raises OperationNotFound and OperationEnded."""
    try:
        pk = uuid.UUID(operation_id)
    except ValueError as exc:
        raise OperationNotFound from exc
    if is_in_memory(pk):
        with journal.held(), standby.used():
            described = orders.describe(orders.cancel(pk, actor=actor))
            journal.keep_now()
            return described
    if _find_unrecorded(operation_id):
        return _cancel_elsewhere(operation_id.lower(), actor)
    return orders.describe(orders.cancel(pk, actor=actor))


def _cancel_elsewhere(operation_id: str, actor: Actor) -> dict[str, Any]:
    """Tell the process that has it in memory, and wait for it."""
    try:
        with redis_errors():
            get_redis().set(f"{redis_client.CANCEL}{operation_id}", actor.name.encode("utf-8", "replace"), ex=60)
    except CacheUnavailable as exc:
        log.warning("operation %s: its process can't be told to cancel it: %s", operation_id, exc)
    ends_at = time.monotonic() + CANCEL_SECONDS
    while time.monotonic() < ends_at:
        found = _find_unrecorded(operation_id)
        if found is None:
            return orders.describe(orders.get(operation_id))
        if found["state"] == Operation.State.CANCELLED:
            return found
        time.sleep(0.2)
    raise DatabaseUnavailable("The process that runs this operation does not answer, and the database can't be used.")


# --- In the background


def tick() -> None:
    """Do what is due after a failure of the database, and keep what a next one will need; called every second or so."""
    global _ticked_at
    if time.monotonic() - _ticked_at < TICK_SECONDS:
        return
    _ticked_at = time.monotonic()
    protections.read_in_time()
    journal.record_left_behind()
