"""Moves an operation on by rounds until there is a verdict.

Whoever holds an operation's claim may: the process that began it, a worker, the command. A round looks first and asks
then, so that one that takes over from a killed process asks nobody in vain. Each outcome is saved as it comes. What no
fresh read has shown is never called confirmed.
"""

import logging
import random
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final

from django.db import DatabaseError, connections
from django.db.models import Q, QuerySet
from django.utils import timezone

from instances import clock
from instances.access import audit
from instances.access.audit import Actor
from instances.errors import (
    InstanceNotFound,
    InvalidStateChange,
    NotFoundAtNovita,
    NovitaError,
    NovitaRateLimited,
    NovitaRejectedKey,
    NovitaTimeout,
    ShuttingDown,
)
from instances.fallback import standby
from instances.instance import REMOVED_STATUS, ActionName, Instance, clean_text, clean_texts, get_meaning
from instances.models import Action, AuditEntry, Operation, Target
from instances.notifications import webhooks
from instances.novita.client import MAX_RETRY_AFTER_SECONDS, get_novita
from instances.novita.paging import say_missing_rows
from instances.novita.parallel import call_each
from instances.operations import protections, single, wording
from instances.operations.targets import (
    FIRST_LISTING_SECONDS,
    MAX_DIRECT_READS,
    Look,
    make_target,
    read_account,
    read_copy,
    write_targets,
)
from instances.outgoing.deadline import Budget, cancellable

log = logging.getLogger(__name__)

CLAIM_SECONDS: Final = 15
HEARTBEAT_SECONDS: Final = 1
MAX_RATE_LIMIT_WAITS: Final = 20
FIRST_ROUND_PAUSE_SECONDS: Final = 2.0
MAX_ROUND_PAUSE_SECONDS: Final = 8.0
MAX_TARGET_PAUSE_SECONDS: Final = 60.0
# For the look after the deadline, which the verdict rests on.
LAST_LOOK_SECONDS: Final = 30

# --- The claim


class Claim:
    """The right to move an operation on, held from `with` until the block ends or its holder dies or sleeps."""

    def __init__(self, operation_id: uuid.UUID, token: str) -> None:
        self._operation_id = operation_id
        self.token = token
        # Why the database takes nothing of this round, as far as it was told last.
        self.error: DatabaseError | None = None
        self._ended = threading.Event()
        self._is_cancelled = False
        self._renewed_at = time.monotonic()

    def __enter__(self) -> "Claim":
        # What came before the first round may have taken longer than a claim lasts.
        self._renew()
        threading.Thread(target=standby.carry(self._keep), name="claim", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._get_own().update(claim="", claimed_until=None)

    def is_held(self) -> bool:
        # A process that was stopped for a while finds its claim old before it is told that another has taken it.
        return time.monotonic() - self._renewed_at < CLAIM_SECONDS and not self._ended.is_set()

    def may_request(self) -> bool:
        """Tell whether the claim is still held, and the operation is not cancelled."""
        return self.is_held() and not self._is_cancelled

    def _keep(self) -> None:
        try:
            while not self._ended.wait(HEARTBEAT_SECONDS):
                self._renew()
        finally:
            connections.close_all()

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            is_ours = self._get_own().update(claimed_until=timezone.now() + timedelta(seconds=CLAIM_SECONDS))
            self._is_cancelled = self._get_own().filter(state=Operation.State.CANCELLED).exists()
        except DatabaseError as exc:
            log.warning("operation %s: claim not renewed", self._operation_id, exc_info=exc)
            self.error = exc
            return
        self.error = None
        if is_ours:
            self._renewed_at = began
        else:
            self._ended.set()

    def _get_own(self) -> QuerySet[Operation]:
        return Operation.objects.filter(pk=self._operation_id, claim=self.token)


def _find_free() -> Q:
    return Q(claimed_until=None) | clock.find_due("claimed_until", CLAIM_SECONDS)


def take_claim(operation: Operation) -> Claim | None:
    """Take the claim unless another process has it, or the operation has ended."""
    token = uuid.uuid4().hex
    free = Operation.objects.filter(_find_free(), pk=operation.pk, finished_at=None)
    if not free.update(claim=token, claimed_until=timezone.now() + timedelta(seconds=CLAIM_SECONDS)):
        return None
    return Claim(operation.pk, token)


class Share(Claim):
    """The right to request some pending targets of an operation, whoever holds its claim.

    `next_request_at` reserves them in the database. A share that isn't renewed in time ends for good. The next round
    takes its targets up.
    """

    def __init__(self, operation_id: uuid.UUID, targets: Sequence[Target]) -> None:
        super().__init__(operation_id, "")
        self.targets = targets

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_held = self.is_held()
        self._ended.set()
        if is_held:
            self._reserve(until=None)

    def _renew(self) -> None:
        if not self.is_held():
            self._ended.set()
            return
        began = time.monotonic()
        try:
            self._reserve(until=find_claim_end())
            cancelled = Operation.objects.filter(pk=self._operation_id, state=Operation.State.CANCELLED)
            self._is_cancelled = cancelled.exists()
        except DatabaseError as exc:
            log.warning("operation %s: share not renewed: %s", self._operation_id, exc)
            self.error = exc
            return
        self.error = None
        self._renewed_at = began

    def _reserve(self, *, until: datetime | None) -> None:
        pending = Target.objects.filter(pk__in=[target.pk for target in self.targets], state=Target.State.PENDING)
        pending.update(next_request_at=until)


def find_claim_end() -> datetime:
    """Return when a claim or a share that is taken now ends, unless it is renewed."""
    return timezone.now() + timedelta(seconds=CLAIM_SECONDS)


def request_share(operation: Operation, share: Share, look: Look) -> None:
    """Request a share's targets, each once; `look` is what was read of them."""
    with share:
        budget = Budget(_find_budget_seconds(operation))
        with cancellable(budget):
            try:
                _request_due(operation, share.targets, look, share, budget)
            except (ShuttingDown, NovitaTimeout):
                log.info("operation %s: the rest is left to the next round", operation.pk)
    if share.error:
        raise share.error
    _note_all_requested(operation.pk)


# --- A round


def list_unfinished() -> list[uuid.UUID]:
    """Return the operations that nobody moves on at this moment, and that are due."""
    free = Operation.objects.filter(_find_free(), finished_at=None)
    due = free.filter(clock.find_due("next_round_at", MAX_ROUND_PAUSE_SECONDS))
    return list(due.order_by("next_round_at").values_list("pk", flat=True)[:50])


def advance(operation_id: uuid.UUID) -> bool:
    """Move an operation on by one round; False when somebody else does, or it has ended."""
    operation = Operation.objects.filter(pk=operation_id).first()
    claim = take_claim(operation) if operation else None
    if claim is None:
        return False
    run_round(operation_id, claim, None)
    return True


def run_round(operation_id: uuid.UUID, claim: Claim, look: Look | None) -> None:
    """Move an operation on by one round. Raises DatabaseError, also when only an outcome could not be saved."""
    with claim:
        _run_round(operation_id, claim, look)
    if claim.error:
        raise claim.error


def _run_round(operation_id: uuid.UUID, claim: Claim, look: Look | None) -> None:
    operation = Operation.objects.filter(pk=operation_id, claim=claim.token).first()
    if operation is None:  # Another process has taken it over.
        return
    budget = Budget(_find_budget_seconds(operation))
    with cancellable(budget):
        try:
            _advance(operation, claim, budget, look)
        except ShuttingDown:
            log.info("operation %s: left to another process, since this one ends", operation_id)
        except NovitaTimeout:
            # The deadline came while it asked; the next round gives the verdict.
            _plan_next_round(operation)


def _find_budget_seconds(operation: Operation) -> float:
    return max(LAST_LOOK_SECONDS, clock.seconds_until(operation.deadline_at))


def _advance(operation: Operation, claim: Claim, budget: Budget, look: Look | None) -> None:
    """Look, ask, and give the verdict when it is time; `look` is what the beginning has just seen."""
    is_cancelled = operation.state == Operation.State.CANCELLED
    is_over = clock.seconds_until(operation.deadline_at) <= 0
    if operation.listed_at is None and (is_cancelled or not operation.is_whole_account):
        conclude(operation, None, reason=wording.NEVER_BEGAN)
        return
    if operation.listed_at is None:
        # Its process ended before it had listed the account.
        try:
            look = write_targets(operation, None)
        except NovitaError as exc:
            if is_over:
                conclude(operation, None, reason=exc.message)
            else:
                _plan_next_round(operation)
            return
    if is_cancelled:
        # The cancelling came while they were written down, or while they were asked.
        operation.targets.filter(state=Target.State.PENDING).update(
            state=Target.State.SKIPPED, error=wording.say_cancelled(operation.kind)
        )
    targets = [target for target in operation.targets.all() if _may_change(target, is_cancelled=is_cancelled)]
    # Somebody was told that the account could not be listed: what the copy lacks is requested as soon as it can.
    is_listing_owed = look is None and not is_cancelled and is_from_copy(operation)
    if look is None:
        look = read_account([target.instance_id for target in targets], budget, is_whole=False)
        if not claim.is_held():
            # What it saw is old by now, and another may have asked since.
            return
        note_seen(operation.kind, targets, look)
    asked = 0
    if not is_over and not is_cancelled:
        asked = _request_due(operation, targets, look, claim, budget)
    if not claim.is_held():
        return
    if is_listing_owed and not is_over:
        targets += _request_unlisted(operation, claim, budget)
    if any(_may_change(target, is_cancelled=is_cancelled) for target in targets) and not is_over:
        _plan_next_round(operation)
        return
    reason = ""
    if operation.is_whole_account and not is_cancelled:
        # The last look of all: has anything been started meanwhile?
        last = look if look.is_listing and not asked else read_account((), budget, is_whole=True)
        started = _add_started_meanwhile(operation, last, budget, is_over=is_over)
        is_worth_a_try = last.error and not isinstance(last.error, NovitaRejectedKey)
        if (is_worth_a_try or started) and not is_over:
            _request_due(operation, started, last, claim, budget)
            _plan_next_round(operation)
            return
        reason = find_doubt(last)
        look.instances.update(last.instances)
    conclude(operation, look, reason=reason)


def _may_change(target: Target, *, is_cancelled: bool) -> bool:
    """Tell whether something can still come of a target; a failed one is not requested again after a cancellation."""
    return target.is_open and not (is_cancelled and target.state == Target.State.FAILED)


def is_from_copy(operation: Operation) -> bool:
    """Tell of a stop of everything whether only the copy says what runs: Novita's listing is owed."""
    return operation.is_whole_account and operation.source == Operation.Source.CACHE


def _request_unlisted(operation: Operation, claim: Claim, budget: Budget) -> list[Target]:
    """List the account, which failed before, and request what the copy lacked; returns the new targets."""
    listing_budget = Budget(FIRST_LISTING_SECONDS)
    with cancellable(listing_budget):
        look = read_account((), listing_budget, is_whole=True)
    if not look.is_listing or not claim.is_held():
        return []
    started = _add_started_meanwhile(operation, look, budget, is_over=False)
    _request_due(operation, started, look, claim, budget)
    # Not for somebody who has joined meanwhile.
    own = Operation.objects.filter(pk=operation.pk, claim=operation.claim, listed_at=operation.listed_at)
    if own.update(source=Operation.Source.NOVITA):
        operation.source = Operation.Source.NOVITA
    return started


def find_doubt(last: Look) -> str:
    """Say why the last look at the whole account can't show that nothing runs; "" when it can."""
    if last.error:
        return wording.say_doubt(last.error)
    if last.missing_rows:
        return f"{say_missing_rows(last.missing_rows)} Check Novita's console."
    return ""


def _plan_next_round(operation: Operation) -> None:
    pause = min(FIRST_ROUND_PAUSE_SECONDS + operation.rounds / 2, MAX_ROUND_PAUSE_SECONDS)
    next_round_at = min(timezone.now() + timedelta(seconds=pause), max(operation.deadline_at, timezone.now()))
    with standby.atomic():
        own = Operation.objects.filter(pk=operation.pk, claim=operation.claim)
        # One that somebody joined meanwhile is due at once.
        own.filter(listed_at=operation.listed_at).update(next_round_at=next_round_at)
        own.update(rounds=operation.rounds + 1)
        add_notes(own, operation.notes)
    _note_all_requested(operation.pk)


def add_notes(stored: QuerySet[Operation], notes: Sequence[str]) -> list[str]:
    """Store the notes that an operation doesn't have yet, beside what others stored; returns all of them."""
    held = stored.values_list("notes", flat=True).first() or []
    merged = list(dict.fromkeys([*held, *clean_texts(list(notes))]))
    if merged != held:
        stored.update(notes=merged)
    return merged


def _note_all_requested(operation_id: uuid.UUID) -> None:
    if not Target.objects.filter(operation=operation_id, state=Target.State.PENDING).exists():
        asking = Operation.objects.filter(pk=operation_id, state=Operation.State.REQUESTING)
        asking.update(state=Operation.State.VERIFYING)


def note_seen(kind: str, targets: Sequence[Target], look: Look) -> None:
    """Write down what a look showed of these targets."""
    seen, moved = [], []
    for target in targets:
        before = target.state, target.error_code
        instance = look.instances.get(target.instance_id)
        if target.instance_id in look.gone:
            target.read_at, target.status = look.began_at, REMOVED_STATUS
            if kind == "stop":
                _confirm(target, look.began_at)
            else:
                target.state, target.error_code = Target.State.FAILED, InstanceNotFound.code
                target.error = wording.NO_LONGER_EXISTS
        elif instance is not None:
            is_reached = _is_reached(kind, target, instance)
            target.status, target.read_at = clean_text(instance.status, 64), look.began_at
            if kind == "restart" and not target.attempts:
                target.started_before = instance.last_started_at or ""
            if is_reached:
                _confirm(target, look.began_at)
            elif kind in instance.meaning.under_way and (kind != "restart" or target.attempts):
                # Taken after all, or by somebody else's order.
                target.state, target.error_code, target.error = Target.State.REQUESTED, "", ""
        else:
            continue
        seen.append(target)
        if (target.state, target.error_code) != before:
            moved.append(target)
    Target.objects.bulk_update(seen, ["status", "read_at", "started_before"], batch_size=200)
    # The state only where the look changed it: somebody who joined may have requested a pending one meanwhile.
    Target.objects.bulk_update(moved, ["state", "confirmed_at", "error_code", "error"], batch_size=200)


def _is_reached(kind: str, target: Target, instance: Instance) -> bool:
    if kind not in instance.meaning.done:
        return False
    if kind != "restart":
        return True
    # One that runs may not have restarted yet; only a later start tells, or that it was seen on its way.
    has_new_start = bool(instance.last_started_at) and instance.last_started_at != target.started_before
    # Its status is from a read only when that was later than the answer to the order.
    is_read = target.read_at and target.requested_at and target.read_at > target.requested_at
    was_under_way = bool(is_read) and kind in get_meaning(target.status).under_way
    return target.attempts > 0 and (has_new_start or was_under_way)


def _confirm(target: Target, at: datetime) -> None:
    target.state, target.confirmed_at, target.error_code, target.error = Target.State.CONFIRMED, at, "", ""


def _add_started_meanwhile(operation: Operation, last: Look, budget: Budget, *, is_over: bool) -> list[Target]:
    """Make targets of what runs or is stopping now and was not one, or was seen stopped; returns them."""
    running = {id_: one for id_, one in last.instances.items() if one.meaning.is_billed}
    known = {target.instance_id: target for target in operation.targets.all()}
    again = [id_ for id_ in running if id_ in known and known[id_].state == Target.State.CONFIRMED]
    if again:
        # Read directly first: what was seen stopped is not asked again for an old page's sake.
        direct = read_account(again[:MAX_DIRECT_READS], budget, is_whole=False)
        running.update((id_, one) for id_, one in direct.instances.items() if id_ in running)
        again = [id_ for id_ in again if id_ not in direct.gone and running[id_].meaning.is_billed]
    protected = protections.read()
    started = [
        make_target(operation.kind, running[id_], last, protected.get(id_)) for id_ in running if id_ not in known
    ]
    for target in started:
        target.operation = operation
    for id_ in again:
        target = known[id_]
        is_stopping = "stop" in running[id_].meaning.under_way
        target.state = Target.State.REQUESTED if is_stopping else Target.State.PENDING
        target.confirmed_at, target.status, target.next_request_at = None, running[id_].status, None
    found = [*started, *(known[id_] for id_ in again)]
    count = sum(target.state == Target.State.PENDING for target in found)
    if count and not is_over:
        operation.notes.append(wording.say_started_meanwhile(count))
    with standby.atomic():
        Target.objects.bulk_create(started, batch_size=500)
        fields = ["state", "confirmed_at", "status", "next_request_at"]
        Target.objects.bulk_update([known[id_] for id_ in again], fields, batch_size=200)
    return [target for target in found if target.is_open]


# --- Asking


class _Gate:
    """Holds everybody back while Novita says that we are too fast."""

    def __init__(self) -> None:
        self._opens_at = 0.0

    def close(self, seconds: float) -> None:
        self._opens_at = max(self._opens_at, time.monotonic() + seconds)

    def wait(self, claim: Claim, budget: Budget) -> None:
        while (pause := self._opens_at - time.monotonic()) > 0 and claim.may_request():
            budget.pause(min(pause, 0.5))


_GONE: Final = "gone"


def _request_due(operation: Operation, targets: Sequence[Target], look: Look, claim: Claim, budget: Budget) -> int:
    """Ask for each target whose turn it is, some at once; returns how many were. Each outcome is saved as it comes."""
    kind: ActionName = operation.kind  # type: ignore[assignment]  # one of its choices
    protected = protections.read() if kind != "start" else {}
    before = dict(look.instances)
    # A restart can be told from none only by what was read before it, so that the copy doesn't serve.
    unseen = [target.instance_id for target in targets if target.instance_id not in before and kind != "restart"]
    before.update(read_copy(unseen) or {} if unseen else {})
    due = []
    for target in targets:
        if target.instance_id not in before or not _is_due(target, before[target.instance_id]):
            continue
        if protection := protected.get(target.instance_id):
            target.state, target.error = Target.State.SKIPPED, wording.say_protected(protection)
            target.save(update_fields=["state", "error"])
        else:
            due.append(target)
    # What can be stopped now comes first: a refusal takes two reads and a pause to be sure of.
    due.sort(key=lambda target: not _allows(target, before[target.instance_id]))
    novita, gate, copy = get_novita(), _Gate(), single.Copy()

    def ask(target: Target) -> Instance | str | None:
        """Ask; None when it may not be asked any more."""
        for waits in range(MAX_RATE_LIMIT_WAITS + 1):
            gate.wait(claim, budget)
            if not claim.may_request():
                return None
            try:
                return single.ask(kind, before[target.instance_id], novita, budget, copy)
            except NovitaRateLimited as exc:
                # It was not taken, so that asking again is no second order.
                if waits == MAX_RATE_LIMIT_WAITS or (exc.retry_after or 0) > MAX_RETRY_AFTER_SECONDS:
                    raise
                gate.close(max(exc.retry_after or 0, min(0.5 * 2.0**waits, 8)) * random.uniform(1, 1.2))
            except (NotFoundAtNovita, InstanceNotFound):
                return _GONE
            except ShuttingDown:
                return None
        return None

    asked = 0
    for target, outcome in call_each(ask, due, novita.concurrency):
        # One that slept meanwhile must not write over what another has seen since.
        if outcome is not None and claim.is_held():
            asked += 1
            _note_outcome(kind, target, outcome, claim)
    budget.check()
    return asked


def _is_due(target: Target, instance: Instance) -> bool:
    is_time = target.next_request_at is None or clock.is_due(target.next_request_at, MAX_TARGET_PAUSE_SECONDS)
    if target.state == Target.State.PENDING:
        # A time in the future reserves it for somebody who has joined.
        return is_time
    if target.is_exhausted or not target.is_open:
        return False
    if target.error_code == InvalidStateChange.code:
        # Refused for its status: its turn comes when that allows the action.
        return target.next_request_at is not None and is_time and _allows(target, instance)
    if target.state == Target.State.FAILED:
        return is_time
    # Accepted, and not carried out or fallen back. A second restart would end what the first has started.
    return target.operation.kind != "restart" and is_time and _allows(target, instance)


def _allows(target: Target, instance: Instance) -> bool:
    return target.operation.kind in instance.actions


def _note_outcome(kind: str, target: Target, outcome: Instance | str | NovitaError, claim: Claim) -> None:
    """Save what came of asking for one target."""
    now = timezone.now()
    target.attempts += 1
    if isinstance(outcome, NovitaError):
        target.state, target.error_code = Target.State.FAILED, outcome.code
        target.error = clean_text(outcome.message)
        target.next_request_at = now + timedelta(seconds=find_failure_pause(target.attempts))
    elif isinstance(outcome, Instance):
        target.state, target.status, target.requested_at = Target.State.REQUESTED, clean_text(outcome.status, 64), now
        target.error_code, target.error = "", ""
        target.next_request_at = now + timedelta(seconds=find_patience(target.attempts))
    elif kind == "stop":
        target.status, target.read_at = REMOVED_STATUS, now
        _confirm(target, now)
    else:
        target.state, target.error_code = Target.State.FAILED, InstanceNotFound.code
        target.error = wording.NO_LONGER_EXISTS
    if claim.error:
        # Waiting for the database once more would keep the others from being asked.
        return
    try:
        target.save()
    except DatabaseError as exc:
        # The others are still to be asked; the next look shows what became of this one.
        log.warning(
            "operation %s: not recorded that %s was requested: %s", target.operation_id, target.instance_id, exc
        )
        claim.error = exc


def find_failure_pause(attempts: int) -> float:
    """Return after how many seconds what failed is asked again: 2, 4, 8, … a minute at most."""
    return min(2.0**attempts, MAX_TARGET_PAUSE_SECONDS)


def find_patience(attempts: int) -> float:
    """Return for how many seconds what Novita accepted may go on running before it is asked again."""
    return min(15.0 * attempts, MAX_TARGET_PAUSE_SECONDS)


# --- The verdict


def conclude(operation: Operation, look: Look | None, *, is_complete: bool | None = None, reason: str = "") -> None:
    """End an operation with a verdict on each target; what wasn't seen is unknown.

    `reason` says why the look doesn't settle it, or why it ends now; unless `is_complete`, that is no success. Nothing
    happens when the claim is lost, or somebody has joined since the operation was read: what they added is to be done.
    """
    is_complete = not reason if is_complete is None else is_complete
    if reason:
        operation.notes.append(reason)
    targets = list(operation.targets.all())
    open_ = [target for target in targets if target.state in Target.OPEN]
    for target in open_:
        _judge(operation, target, look)
    meant = [target for target in targets if target.state != Target.State.SKIPPED]
    are_confirmed = all(target.state == Target.State.CONFIRMED for target in meant)
    with standby.atomic():
        held = Operation.objects.filter(
            pk=operation.pk, claim=operation.claim, listed_at=operation.listed_at, finished_at=None
        )
        held.exclude(state=Operation.State.CANCELLED).update(state=Operation.State.FINISHED)
        operation.state = held.values_list("state", flat=True).first() or operation.state
        is_cancelled = operation.state == Operation.State.CANCELLED
        operation.success = are_confirmed and is_complete and not is_cancelled
        operation.result = wording.say_result(
            operation, meant, "" if operation.success else reason, has_skipped=len(meant) < len(targets)
        )
        operation.finished_at = timezone.now()
        operation.notes = add_notes(held, operation.notes)
        is_ours = held.update(
            success=operation.success,
            result=clean_text(operation.result),
            finished_at=operation.finished_at,
            claim="",
            claimed_until=None,
        )
        if not is_ours:
            return
        Target.objects.bulk_update(open_, ["state", "error"], batch_size=200)
        webhooks.release(operation)
    actor = Actor(operation.requested_by, operation.address, operation.request_id)
    audit.save([_make_entry(operation, target, actor) for target in meant if target.attempts])
    level = logging.INFO if operation.success else logging.WARNING
    log.log(level, "operation ended id=%s kind=%s result=%r", operation.pk, operation.kind, operation.result)


def _judge(operation: Operation, target: Target, look: Look | None) -> None:
    """Say of a target that isn't confirmed what is known of it."""
    if target.state == Target.State.FAILED:
        return
    if look is None or target.instance_id not in look.instances:
        error = (look.unread.get(target.instance_id) or look.error) if look else None
        target.state, target.error = Target.State.UNKNOWN, wording.say_unverified(error)
    else:
        is_stop = operation.kind == "stop"
        target.state = Target.State.STILL_RUNNING if is_stop else Target.State.FAILED
        target.error = wording.say_undone(operation.kind, target)


def _make_entry(operation: Operation, target: Target, actor: Actor) -> AuditEntry:
    is_confirmed = target.state == Target.State.CONFIRMED
    return audit.make_entry(
        actor,
        Action(f"instance.{operation.kind}"),
        target.instance_id,
        target_name=target.name,
        reason=operation.reason,
        before=target.first_status,
        after=target.status,
        outcome=audit.DONE if is_confirmed else target.state,
        error=target.error,
    )
