"""Stop, start or restart many instances, and prove it: begin an operation, cancel it, describe it.

An operation is written down before anything is asked, and that record is the truth; `rounds` moves it on.
"""

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError, IntegrityError
from django.db.models import Count
from django.utils import timezone

from instances import clock
from instances.access import audit
from instances.access.audit import Actor
from instances.errors import (
    CacheUnavailable,
    NothingToRetry,
    NovitaUnavailable,
    OperationEnded,
    OperationNotFound,
    PanelError,
)
from instances.fallback import standby
from instances.instance import ActionName, clean_text, format_time
from instances.inventory import store
from instances.inventory.queries import NaturalKey, get_natural_key
from instances.models import Action, Operation, Target
from instances.notifications import webhooks
from instances.operations import joining, single, wording
from instances.operations.rounds import (
    MAX_ROUND_PAUSE_SECONDS,
    Claim,
    advance,
    conclude,
    find_claim_end,
    find_doubt,
    is_from_copy,
    request_share,
    run_round,
    take_claim,
)
from instances.operations.targets import FIRST_LISTING_SECONDS, Look, choose_targets, write_targets

log = logging.getLogger(__name__)

# A caller has an answer within 20 s.
ANSWER_SECONDS: Final = 18
MAX_REASON_LENGTH: Final = 500
KEEP_DAYS: Final = 400
# Of the time for an answer, what is kept for requesting when another reading of the account precedes it.
REQUEST_SECONDS: Final = 2

WAIT_SECONDS: Final = 0.2
MAX_SUPERSEDED: Final = 100
WHOLE_ACCOUNT: Final = "stop:all"


@dataclass(frozen=True)
class Wish:
    """What somebody wants done. `ids` None: with all that may be billed."""

    kind: ActionName
    ids: Sequence[str] | None
    actor: Actor
    reason: str = ""
    webhook_url: str = ""
    origin: str = ""
    deadline_seconds: float | None = None
    retry_of: Operation | None = None
    # Of the operation, if it becomes a new one: a second attempt at the same wish, elsewhere, is no second operation.
    id: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def seconds(self) -> float:
        """Return after how many seconds a result is wanted."""
        return settings.NOVITA_STOP_DEADLINE if self.deadline_seconds is None else self.deadline_seconds

    @property
    def selection(self) -> str:
        """Return what is equal for two wishes that want the same."""
        if self.ids is None:
            return f"{self.kind}:all"
        return f"{self.kind}:{hashlib.sha256(chr(0).join(sorted(set(self.ids))).encode()).hexdigest()[:40]}"


# --- Beginning


@dataclass(frozen=True)
class Begun:
    """An operation that was begun, or joined, and what this process is to do for it."""

    operation: Operation
    # Of a new one only, with what the beginning saw of Novita.
    claim: Claim | None = None
    look: Look | None = None
    replaced: joining.Replaced | None = None
    # Of a joined one. None with no claim: nobody has listed the account yet, and its process may still do.
    joined: joining.Joined | None = None

    @property
    def is_new(self) -> bool:
        return self.claim is not None

    @property
    def warnings(self) -> list[str]:
        return self.joined.warnings if self.joined else []

    @property
    def is_settled(self) -> bool:
        """Tell whether nothing more is to be requested for this order."""
        targets = list(self.operation.targets.all())
        is_pending = any(target.state == Target.State.PENDING for target in targets)
        return self.operation.finished_at is not None or not (is_pending or find_gap(self, targets))


def find_gap(begun: Begun, targets: Sequence[Target]) -> str:
    """Say why not all that runs is known to be requested, or verified once the operation has ended; "" when it is.

    The promise of each order's answer is kept here: it is a success only when Novita has listed the whole account since
    the request (where that is meant), and every instance that may be billed by that listing is requested, or pending:
    then the answer isn't settled, and the status 202 says so. An ended operation has to be a success: it was verified
    by a last look.
    """
    operation = begun.operation
    look = begun.joined.look if begun.joined else begun.look
    if operation.success:
        return ""
    if operation.listed_at is None and not operation.result:
        return wording.STILL_READING
    if operation.finished_at:
        return operation.result
    if operation.state == Operation.State.CANCELLED:
        return wording.CANCELLED_MEANWHILE
    is_doubtful = operation.is_whole_account and look is not None and find_doubt(look)
    if is_from_copy(operation) or is_doubtful or (begun.joined and begun.joined.error):
        return wording.NOT_KNOWN if not targets else wording.NOT_ALL_KNOWN
    held = sum(_is_held_back(target, look) for target in targets) if look and operation.kind == "stop" else 0
    return wording.say_still_running(held) if held else ""


def _is_held_back(target: Target, look: Look) -> bool:
    """Tell whether a read that began after Novita took the request to stop it shows that it still runs."""
    instance = look.instances.get(target.instance_id)
    if target.state != Target.State.REQUESTED or instance is None or not instance.meaning.needs_stop:
        return False
    return target.requested_at is None or target.requested_at < look.began_at


def order(wish: Wish, run: Callable[[Begun, float], None], seconds: float = ANSWER_SECONDS) -> Begun:
    """Begin what is wished for, or join the operation that does so already; request, and wait for it 18 s at most.

    `run` is called in a thread, and does what the function of that name here does.

    What is not requested by then is requested in the background, and `is_settled` is False. Raises InvalidRequest for a
    webhook that is refused, before anything is requested, and NovitaError when there is neither a fresh listing nor a
    copy.
    """
    ends_at = time.monotonic() + seconds
    begun = begin(wish, ends_at)
    thread = threading.Thread(target=standby.carry(run, begun, ends_at), name="operation", daemon=True)
    thread.start()
    thread.join(max(0.0, ends_at - time.monotonic()))
    return begun


def run(begun: Begun, ends_at: float) -> None:
    """Do what the beginning left to this process: request its share, and move the operation on by a round.

    While others request at this moment, that is waited for until `ends_at`: their answer is this one's, too.
    """
    operation = begun.operation
    if begun.joined and begun.joined.share.targets:
        request_share(operation, begun.joined.share, begun.joined.look)
    claim, look, has_run = begun.claim or take_claim(operation), begun.look, False
    while True:
        if claim:
            run_round(operation.pk, claim, look)
            has_run = True
        current = Operation.objects.get(pk=operation.pk)
        if current.state != Operation.State.REQUESTING or time.monotonic() >= ends_at:
            break
        time.sleep(WAIT_SECONDS)
        look = None
        claim = take_claim(current) if not has_run or current.next_round_at <= timezone.now() else None
    if begun.replaced:
        joining.end_replaced(begun.replaced, begun.look)


def drive(begun: Begun, ends_at: float, is_left: threading.Event) -> None:
    """Move an operation on until it has ended, it is left, or `ends_at` of the monotonic clock; others may, too.

    Raises DatabaseError: what was requested is requested, and the next round looks what became of it.
    """
    run(begun, time.monotonic())
    while time.monotonic() < ends_at and not is_left.is_set():
        current = Operation.objects.get(pk=begun.operation.pk)
        if current.finished_at:
            return
        if not clock.is_due(current.next_round_at, MAX_ROUND_PAUSE_SECONDS) or not advance(current.pk):
            time.sleep(WAIT_SECONDS)


def begin(wish: Wish, ends_at: float | None = None) -> Begun:
    """Store the operation and its targets, or join the one that does the same by the rule of `joining`.

    Waits until `ends_at` of the monotonic clock for another process that is reading the account for it. Raises as
    `order` does.
    """
    ends_at = time.monotonic() + ANSWER_SECONDS if ends_at is None else ends_at
    if wish.webhook_url:
        webhooks.check_url(wish.webhook_url)
    while True:
        running = find_running(wish)
        if running is not None and joining.is_joinable(running, wish.seconds):
            begun = _join(wish, running, ends_at)
        else:
            begun = _create(wish, running, ends_at)
        if begun is not None:
            return begun
        # It has ended meanwhile, or somebody else has begun one: look again.
        if time.monotonic() >= ends_at:
            raise PanelError("Operations begin and end faster than this one can.")


def _join(wish: Wish, running: Operation, ends_at: float) -> Begun | None:
    """Join an operation, once its process has listed the account; None when it has ended."""
    while running.listed_at is None:
        if claim := take_claim(running):
            # Its process has died before it had requested anything.
            with claim:
                running.claim = claim.token
                conclude(running, None, reason=wording.NEVER_BEGAN)
            return None
        if time.monotonic() >= ends_at:
            return Begun(running)
        time.sleep(WAIT_SECONDS)
        running.refresh_from_db()
        if running.finished_at:
            if time.monotonic() >= ends_at - REQUEST_SECONDS:
                raise NovitaUnavailable(running.result)
            return None
    joined = joining.join(running, wish.ids, wish.seconds, _find_read_seconds(ends_at))
    if joined is None:
        return None
    entry = audit.make_entry(wish.actor, Action(f"operation.{wish.kind}"), str(running.pk), reason=wish.reason)
    added = joining.describe_added(wish.kind, joined.share.targets)
    entry.after = f"joined the one that was running: {added or 'nothing more to request'}"
    audit.save([entry])
    _note_order(wish, running)
    return Begun(running, joined=joined)


def _find_read_seconds(ends_at: float) -> float:
    return max(1.0, min(FIRST_LISTING_SECONDS, ends_at - time.monotonic() - REQUEST_SECONDS))


def _create(wish: Wish, running: Operation | None, ends_at: float) -> Begun | None:
    """Store a new operation with its targets, in the place of one that can't be joined; None when somebody else has."""
    now = timezone.now()
    operation = Operation(
        id=wish.id,
        kind=wish.kind,
        is_whole_account=wish.ids is None,
        selection=wish.selection,
        reason=clean_text(wish.reason),
        requested_by=wish.actor.name[:150],
        address=wish.actor.address[:45],
        request_id=wish.actor.request_id[:32],
        origin=wish.origin[:300],
        created_at=now,
        deadline_at=now + timedelta(seconds=wish.seconds),
        claim=uuid.uuid4().hex,
        claimed_until=find_claim_end(),
        retry_of=wish.retry_of,
    )
    replaced = None
    try:
        with standby.atomic():
            if running is not None and (replaced := joining.replace(running, uuid.uuid4().hex)) is None:
                return None
            operation.save(force_insert=True)
            if replaced:
                Operation.objects.filter(pk=replaced.operation.pk).update(superseded_by=operation)
            if wish.webhook_url:
                webhooks.register(operation, wish.webhook_url)
    except IntegrityError:
        # Somebody else pressed at the same moment: theirs is found at the next turn.
        return None
    with audit.recorded(wish.actor, Action(f"operation.{wish.kind}"), str(operation.pk), reason=wish.reason) as entry:
        try:
            followed = joining.list_followed(replaced) if replaced else ()
            look = write_targets(operation, wish.ids, also=followed, seconds=_find_read_seconds(ends_at))
        except PanelError as exc:
            conclude(operation, None, reason=exc.message)
            if replaced:
                joining.end_replaced(replaced, None)
            raise
        count = operation.targets.exclude(state=Target.State.SKIPPED).count()
        entry.after = f"{count} targets"
    figures = f"kind={wish.kind} by={wish.actor.name} source={operation.source} targets={count}"
    log.info("operation began id=%s %s", operation.pk, figures)
    _note_order(wish, operation)
    return Begun(operation, Claim(operation.pk, operation.claim), look, replaced)


def _note_order(wish: Wish, operation: Operation) -> None:
    if wish.kind == "stop":
        single.withdraw_starts(wish.ids)
    _supersede(operation)


def note_recorded(operation: Operation) -> None:
    """Do to other operations what ordering this one would have done, now that it is recorded."""
    if operation.kind == "stop":
        ids = None if operation.is_whole_account else operation.targets.values_list("instance_id", flat=True)
        single.withdraw_starts(None if ids is None else list(ids), before=operation.created_at)
    _supersede(operation)


def _supersede(operation: Operation) -> None:
    """Note of finished operations that this one covers all that they left unconfirmed: it tells what is true now."""
    try:
        older = Operation.objects.filter(
            kind=operation.kind,
            success=False,
            superseded_by=None,
            finished_at__lte=operation.finished_at or timezone.now(),
        ).exclude(pk=operation.pk)
        if not (operation.is_whole_account and operation.kind == "stop"):
            older = Operation.objects.filter(pk__in=_list_covered(operation, list(older[:MAX_SUPERSEDED])))
        older.update(superseded_by=operation)
    except DatabaseError as exc:
        # Which result a page shows must not keep a stop from being sent.
        log.warning("operation %s: not noted what it supersedes: %s", operation.pk, exc)


def _list_covered(operation: Operation, older: Sequence[Operation]) -> list[uuid.UUID]:
    covering = set(
        operation.targets.exclude(state=Target.State.SKIPPED).values_list("instance_id", flat=True),
    )
    left: dict[uuid.UUID, set[str]] = {one.pk: set() for one in older}
    unconfirmed = Target.objects.filter(operation__in=list(left), state__in=Target.UNCONFIRMED).order_by()
    for pk, instance_id in unconfirmed.values_list("operation", "instance_id"):
        left[pk].add(instance_id)
    return [
        one.pk
        for one in older
        if one.pk == operation.retry_of_id
        or one.selection == operation.selection
        or (left[one.pk] and left[one.pk] <= covering)
    ]


def list_unconfirmed(operation: Operation, targets: Sequence[Target] | None = None) -> list[str]:
    """Return the instances that a finished operation left unconfirmed. Raises NothingToRetry when there are none."""
    if operation.finished_at is None:
        raise NothingToRetry(
            "This operation is still running, and retries by itself.",
            suggestion="Wait for its result; a new POST /api/instances/stop-all adds what is running now.",
        )
    targets = list(operation.targets.all()) if targets is None else targets
    if ids := [target.instance_id for target in targets if target.state in Target.UNCONFIRMED]:
        return ids
    raise NothingToRetry


def find_running(wish: Wish) -> Operation | None:
    """Return the running operation that does what is wished for: the same one, or a stop of all that covers it."""
    running = Operation.objects.filter(state__in=Operation.RUNNING, kind=wish.kind)
    same = running.filter(selection=wish.selection).first()
    if same or wish.ids is None or wish.kind != "stop":
        return same
    whole = running.filter(selection=WHOLE_ACCOUNT, listed_at__isnull=False).first()
    ids = set(wish.ids)
    if whole is None or not joining.is_joinable(whole, wish.seconds):
        return None
    covered = whole.targets.filter(instance_id__in=ids).exclude(state=Target.State.SKIPPED)
    return whole if covered.count() == len(ids) else None


@dataclass(frozen=True)
class Preview:
    """What would be done."""

    source: str
    targets: list[Target]
    notes: list[str]
    warnings: list[str]


def preview(wish: Wish) -> Preview:
    """Return what would be done, and change nothing. Raises as `begin` does."""
    if wish.webhook_url:
        webhooks.check_url(wish.webhook_url)
    operation = Operation(kind=wish.kind, is_whole_account=wish.ids is None)
    targets, look = choose_targets(operation, wish.ids)
    warnings = _warn_of_losses(wish.kind, [target for target in targets if target.state == Target.State.PENDING], look)
    return Preview(operation.source, targets, operation.notes, warnings)


def _warn_of_losses(kind: str, targets: Sequence[Target], look: Look) -> list[str]:
    if kind == "start" or not targets:
        return []
    if kind == "restart":
        return [wording.RESTART_ENDS_JOBS]
    seen = [look.instances[target.instance_id] for target in targets if target.instance_id in look.instances]
    monthly = sorted((one.name or one.id for one in seen if one.billing_mode == "monthly"), key=get_natural_key)
    warnings = [wording.DATA_MAY_BE_LOST, wording.MAY_NOT_START]
    return [*warnings, wording.say_prepaid(monthly)] if monthly else warnings


# --- What is recorded


def cancel(operation_id: uuid.UUID | str, *, actor: Actor) -> Operation:
    """End the asking; what was asked is still verified. Raises OperationNotFound, and OperationEnded."""
    operation = get(operation_id)
    with audit.recorded(actor, Action.CANCEL_OPERATION, str(operation.pk), before=operation.state) as entry:
        running = Operation.objects.filter(pk=operation.pk, state__in=Operation.RUNNING)
        is_cancelled = running.update(state=Operation.State.CANCELLED, next_round_at=timezone.now())
        operation.refresh_from_db()
        entry.after = operation.state
        if not is_cancelled and operation.state != Operation.State.CANCELLED:
            raise OperationEnded(f"It has finished already: {operation.result}")
        pending = operation.targets.filter(state=Target.State.PENDING)
        pending.update(state=Target.State.SKIPPED, error=wording.say_cancelled(operation.kind))
    log.info("operation cancelled id=%s by=%s", operation.pk, actor.name)
    if not operation.targets.filter(state=Target.State.REQUESTED).exists():
        advance(operation.pk)
    operation.refresh_from_db()
    return operation


def get(operation_id: uuid.UUID | str) -> Operation:
    """Return an operation. Raises OperationNotFound."""
    try:
        return Operation.objects.get(pk=uuid.UUID(str(operation_id)))
    except (Operation.DoesNotExist, ValueError) as exc:
        raise OperationNotFound from exc


def list_recorded(state: str | None, page: int, page_size: int) -> tuple[list[Operation], int]:
    """Return a page of the operations, the newest first, and how many there are."""
    found = Operation.objects.filter(state=state) if state else Operation.objects.all()
    start = (page - 1) * page_size
    return list(found[start : start + page_size]), found.count()


def forget_old() -> None:
    Operation.objects.filter(finished_at__lt=timezone.now() - timedelta(days=KEEP_DAYS)).delete()


# --- In the API's words


def describe(operation: Operation, targets: Sequence[Target] | None = None) -> dict[str, Any]:
    """Return the answer of GET /api/operations/<id>."""
    targets = _sort(operation.targets.all() if targets is None else targets)
    counts = dict.fromkeys(Target.State.values, 0)
    for target in targets:
        counts[target.state] += 1
    return {
        **_describe_head(operation),
        "counts": counts,
        "targets": [_describe_target(operation, target) for target in targets],
    }


def describe_all(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """Return operations without their targets, as GET /api/operations lists them."""
    counted = Target.objects.filter(operation__in=operations).values_list("operation", "state").annotate(Count("pk"))
    counts = {operation.pk: dict.fromkeys(Target.State.values, 0) for operation in operations}
    for pk, state, number in counted.order_by():
        counts[pk][state] = number
    return [{**_describe_head(operation), "counts": counts[operation.pk]} for operation in operations]


def _describe_head(operation: Operation) -> dict[str, Any]:
    return {
        "id": str(operation.pk),
        "kind": operation.kind,
        "state": operation.state,
        "success": operation.success,
        "result": operation.result,
        "isWholeAccount": operation.is_whole_account,
        "reason": operation.reason,
        "requestedBy": operation.requested_by,
        "source": operation.source,
        "createdAt": format_time(operation.created_at),
        "deadlineAt": format_time(operation.deadline_at),
        "finishedAt": _find_time(operation.finished_at),
        "notes": operation.notes,
        "retryOf": str(operation.retry_of_id) if operation.retry_of_id else None,
        "supersededBy": str(operation.superseded_by_id) if operation.superseded_by_id else None,
    }


def _sort(targets: Iterable[Target]) -> list[Target]:
    """Put targets in the order of their names as people read them, as the list of the instances is."""
    return sorted(targets, key=get_target_key)


def get_target_key(target: Target) -> tuple[NaturalKey, NaturalKey]:
    return get_natural_key(target.name), get_natural_key(target.instance_id)


def _describe_target(operation: Operation, target: Target) -> dict[str, Any]:
    return {
        "instanceId": target.instance_id,
        "name": target.name,
        "state": target.state,
        "status": target.status,
        "attempts": target.attempts,
        "requestedAt": _find_time(target.requested_at),
        "confirmedAt": _find_time(target.confirmed_at),
        "readAt": _find_time(target.read_at),
        "message": wording.say_target(operation, target),
        "error": target.error or None,
    }


def _find_time(moment: datetime | None) -> str | None:
    return format_time(moment) if moment else None


def describe_order(wish: Wish, begun: Begun) -> dict[str, Any]:
    """Return the answer of POST /api/instances/stop-all: what was asked so far, a result for each target.

    Raises NovitaError when it has ended without a target, and what runs is not known.
    """
    operation = begun.operation
    targets = _sort(operation.targets.all())
    gap = find_gap(begun, targets)
    if gap and operation.finished_at and not targets and operation.state != Operation.State.CANCELLED:
        look = begun.joined.look if begun.joined else begun.look
        error = (look and look.error) or NovitaUnavailable()
        error.message = gap
        raise error
    warnings = list(dict.fromkeys([*operation.notes, *begun.warnings]))
    warnings += _find_worker_warning() if operation.finished_at is None else []
    if not begun.is_new:
        warnings.append(wording.say_joined(operation))
    if not begun.is_new and wish.webhook_url:
        warnings.append(wording.NO_NEW_WEBHOOK)
    return {
        **_describe_results(operation, targets, warnings, gap=gap),
        "operationId": str(operation.pk),
        "operationUrl": f"/api/operations/{operation.pk}",
        "source": operation.source,
    }


def describe_preview(wish: Wish, found: Preview) -> dict[str, Any]:
    """Return a dry run's answer: the shape of an order's, of what would be asked."""
    warnings = [*found.warnings, *found.notes, *_find_worker_warning()]
    targets = _sort(found.targets)
    is_guess = wish.ids is None and found.source == Operation.Source.CACHE and not targets
    gap = wording.NOT_KNOWN if is_guess else ""
    scratch = Operation(kind=wish.kind, is_whole_account=wish.ids is None)
    answer = _describe_results(scratch, targets, warnings, gap=gap, is_dry_run=True)
    return {**answer, "operationId": None, "operationUrl": None, "source": found.source}


def _describe_results(
    operation: Operation,
    targets: Sequence[Target],
    warnings: list[str],
    *,
    gap: str,
    is_dry_run: bool = False,
) -> dict[str, Any]:
    kind, is_whole_account = operation.kind, operation.is_whole_account
    meant = [target for target in targets if target.state != Target.State.SKIPPED]
    say = wording.say_planned if is_dry_run else wording.say_target
    good = {Target.State.REQUESTED, Target.State.CONFIRMED}
    if is_dry_run:
        good = {Target.State.PENDING}
    counted = [target for target in meant if target.state in good]
    count = len(counted)
    what = wording.name_targets(counted if is_dry_run else meant, is_whole_account=is_whole_account)
    if gap and not meant:
        message = gap.removesuffix(".")
    elif not meant:
        message = "Nothing is running" if is_whole_account and not targets else f"Nothing to {kind}"
    elif is_dry_run:
        message = f"Would {kind} {count} {what}"
    else:
        message = wording.say_ordered(kind, count, len(meant), what)
    bad = {Target.State.FAILED, Target.State.STILL_RUNNING, Target.State.UNKNOWN}
    return {
        "success": not gap and not any(target.state in bad for target in meant),
        "message": message,
        "count": count,
        # A dry run of all counts what would be requested; instances that are stopping already are only followed.
        "total": count if is_dry_run and is_whole_account else len(meant),
        "results": [
            {
                "instanceId": target.instance_id,
                "name": target.name,
                "success": target.state in good and not is_dry_run,
                "status": target.status,
                "state": target.state,
                "message": say(operation, target),
                "error": target.error or None,
            }
            for target in meant
        ],
        "skipped": [
            {"instanceId": target.instance_id, "name": target.name, "reason": target.error}
            for target in targets
            if target.state == Target.State.SKIPPED
        ],
        "warnings": [*warnings, gap] if gap and meant else warnings,
        "timestamp": format_time(timezone.now()),
    }


def _find_worker_warning() -> list[str]:
    if standby.is_used():  # This process verifies by itself.
        return []
    try:
        return [] if store.read_state().has_worker else [wording.NO_WORKER]
    except CacheUnavailable as exc:
        return [wording.say_no_worker(exc)]
