"""Begins an operation, or joins the one that is already running, and runs it for the time of an answer.

An operation is stored before anything is requested. The stored record is the truth; `rounds` advances it.
"""

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from instances import clock
from instances.access import audit
from instances.access.audit import Actor
from instances.errors import CacheUnavailable, NovitaUnavailable, OperationEnded, PanelError
from instances.fallback import standby
from instances.instance import ActionName, clean_text
from instances.inventory import store
from instances.inventory.queries import get_natural_key
from instances.models import Action, Operation, Target
from instances.notifications import webhooks
from instances.operations import freezing, joining, records, single, wording
from instances.operations.claims import Claim, find_claim_end, take_claim
from instances.operations.observing import Observation
from instances.operations.requesting import request_share, skip_pending
from instances.operations.results import conclude
from instances.operations.rounds import MAX_ROUND_PAUSE_SECONDS, advance, is_from_copy, run_round
from instances.operations.targets import FIRST_LISTING_SECONDS, Choice, choose_targets, write_targets
from novita_site.log import Fields

log = logging.getLogger(__name__)

# A caller has an answer within 20 s.
ANSWER_SECONDS: Final[float] = settings.OPERATION_ANSWER_SECONDS
# The part of it that is kept for the requests when the account is read again before them.
REQUEST_SECONDS: Final = 2
MAX_REASON_LENGTH: Final = 500
WAIT_SECONDS: Final = 0.2
WHOLE_ACCOUNT: Final = "stop:all"


@dataclass(frozen=True)
class Wish:
    """A request for an operation. Without `ids` it is for every instance that may be billed."""

    kind: ActionName
    ids: Sequence[str] | None
    actor: Actor
    reason: str = ""
    webhook_url: str = ""
    origin: str = ""
    deadline_seconds: float | None = None
    retry_of: Operation | None = None
    # The id of a new operation. A second attempt at the same request, without the database, makes no second operation.
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    # Of a policy's stop: each instance's last start when the policy judged it. A run that began later is not stopped.
    started: Mapping[str, str] | None = None

    @property
    def seconds(self) -> float:
        """Return the seconds until the result."""
        return settings.NOVITA_STOP_DEADLINE if self.deadline_seconds is None else self.deadline_seconds

    @property
    def selection(self) -> str:
        """Return a text that is equal for two requests for the same action on the same instances.

        A policy's stop has its own: nobody's request joins an operation that policies may leave off.
        """
        if self.started is not None:
            return f"{Operation.POLICY_SELECTION}{self.id.hex}"
        if self.ids is None:
            return f"{self.kind}:all"
        return f"{self.kind}:{hashlib.sha256(chr(0).join(sorted(set(self.ids))).encode()).hexdigest()[:40]}"


@dataclass(frozen=True)
class Begun:
    """An operation that was begun or joined, and the work that is left to this process."""

    operation: Operation
    # Of a new operation: its claim, and the first read of Novita.
    claim: Claim | None = None
    observed: Observation | None = None
    replaced: joining.Replaced | None = None
    # Of a joined one. With neither, another process is still listing the account.
    joined: joining.Joined | None = None

    @property
    def is_new(self) -> bool:
        return self.claim is not None

    @property
    def warnings(self) -> list[str]:
        return self.joined.warnings if self.joined else []

    @property
    def last_observed(self) -> Observation | None:
        return self.joined.observed if self.joined else self.observed


# --- Beginning


def begin(wish: Wish, ends_at: float | None = None) -> Begun:
    """Store the operation and its targets, or join the running one by the rule of `joining`.

    Waits for another process that is listing the account until `ends_at` of the monotonic clock. Raises InvalidRequest
    for a webhook that is refused, before anything is requested, StartsFrozen for a start or restart during a freeze,
    and NovitaError without a fresh listing and without an inventory.
    """
    ends_at = time.monotonic() + ANSWER_SECONDS if ends_at is None else ends_at
    freezing.check_start(wish.kind)
    if wish.webhook_url:
        webhooks.check_url(wish.webhook_url)
    while True:
        running = find_running(wish)
        if running is not None and joining.is_joinable(running, wish.seconds):
            begun = _join(wish, running, ends_at)
        else:
            # A stop of everything, which could be joined a moment ago, is not replaced by a stop of some.
            is_same = running is not None and running.selection == wish.selection
            begun = _create(wish, running if is_same else None, ends_at)
        if begun is not None:
            return begun
        # The operation has finished meanwhile, or somebody else has begun one: try again.
        if time.monotonic() >= ends_at:
            raise PanelError("Other operations began and ended too fast for this one to begin.")
        if Operation.objects.filter(pk=wish.id).exists():
            wish = replace(wish, id=uuid.uuid4())


def find_running(wish: Wish) -> Operation | None:
    """Return the running operation for the same request, or a stop of everything that covers it.

    A policy's stop joins none: what somebody has started since that stop of everything is not to be stopped again.
    """
    if wish.started is not None:
        return None
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


def _join(wish: Wish, running: Operation, ends_at: float) -> Begun | None:
    """Join an operation, once its process has listed the account; None when it has finished."""
    while running.listed_at is None:
        if claim := take_claim(running):
            # Its process died before it requested anything.
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
    _oppose_starts(wish)
    joined = joining.join(running, wish.ids, wish.seconds, _find_read_seconds(ends_at))
    if joined is None:
        return None
    entry = audit.make_entry(wish.actor, Action(f"operation.{wish.kind}"), str(running.pk), reason=wish.reason)
    added = joining.describe_added(wish.kind, joined.share.targets)
    entry.after = f"joined the running operation: {added or 'nothing more to request'}"
    audit.save([entry])
    _oppose_starts(wish)
    records.supersede(running)
    return Begun(running, joined=joined)


def _find_read_seconds(ends_at: float) -> float:
    return max(1.0, min(FIRST_LISTING_SECONDS, ends_at - time.monotonic() - REQUEST_SECONDS))


def _create(wish: Wish, running: Operation | None, ends_at: float) -> Begun | None:
    """Store a new operation with its targets, in place of one that can't be joined; None when somebody else has."""
    operation = _make_operation(wish)
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
        # Somebody else's request came at the same moment: the next attempt joins their operation.
        return None
    _oppose_starts(wish)
    with audit.recorded(wish.actor, Action(f"operation.{wish.kind}"), str(operation.pk), reason=wish.reason) as entry:
        try:
            followed = joining.list_followed(replaced) if replaced else ()
            choice = choose_targets(
                wish.kind, wish.ids, also=followed, seconds=_find_read_seconds(ends_at), started=wish.started
            )
        except PanelError as exc:
            conclude(operation, None, reason=exc.message)
            if replaced:
                joining.end_replaced(replaced, None)
            raise
        if not write_targets(operation, choice):
            # This process was suspended for longer than its claim: another one has listed the account, or ended this.
            entry.after = "left to another process"
            if replaced:
                joining.end_replaced(replaced, choice.observed)
            if wish.started is not None:
                raise PanelError(wording.NEVER_BEGAN)
            return None
        count = operation.targets.exclude(state=Target.State.SKIPPED).count()
        entry.after = f"{count} targets"
    figures = Fields(id=operation.pk, kind=wish.kind, by=wish.actor.name, source=str(operation.source), targets=count)
    log.info("operation began%s", figures)
    _oppose_starts(wish)
    records.supersede(operation)
    return Begun(operation, Claim(operation.pk, operation.claim), choice.observed, replaced)


def _make_operation(wish: Wish) -> Operation:
    now = timezone.now()
    return Operation(
        id=wish.id,
        kind=wish.kind,
        is_whole_account=wish.ids is None,
        selection=wish.selection,
        reason=clean_text(wish.reason),
        requested_by=wish.actor.name[:150],
        address=wish.actor.address[:45],
        request_id=wish.actor.request_id[:64],
        origin=wish.origin[:300],
        created_at=now,
        deadline_at=now + timedelta(seconds=wish.seconds),
        claim=uuid.uuid4().hex,
        claimed_until=find_claim_end(),
        retry_of=wish.retry_of,
    )


def _oppose_starts(wish: Wish) -> None:
    """Cancel the running starts before the account is read, and those that listed their targets meanwhile after it.

    A start that is sent during the read would run, and its instance count as stopped.
    """
    if wish.kind == "stop":
        single.withdraw_starts(wish.ids)


def note_recorded(operation: Operation) -> None:
    """Do what beginning this operation does to other operations, when it is recorded later than it ran."""
    if operation.kind == "stop":
        ids = None if operation.is_whole_account else operation.targets.values_list("instance_id", flat=True)
        single.withdraw_starts(None if ids is None else list(ids), before=operation.created_at)
    records.supersede(operation)


# --- Running


def run(begun: Begun, ends_at: float) -> None:
    """Request the targets that are left to this process, and advance the operation by a round.

    While other processes are requesting, this waits for them until `ends_at`: their outcomes belong to the answer.
    """
    operation = begun.operation
    if begun.joined and begun.joined.share.targets:
        request_share(operation, begun.joined.share, begun.joined.observed)
    claim, observed, has_run = begun.claim or take_claim(operation), begun.observed, False
    while True:
        if claim:
            run_round(operation.pk, claim, observed)
            has_run = True
        current = Operation.objects.get(pk=operation.pk)
        if current.state != Operation.State.REQUESTING or time.monotonic() >= ends_at:
            break
        time.sleep(WAIT_SECONDS)
        observed = None
        claim = take_claim(current) if not has_run or current.next_round_at <= timezone.now() else None
    if begun.replaced:
        joining.end_replaced(begun.replaced, begun.observed)


def drive(begun: Begun, ends_at: float, is_left: threading.Event) -> None:
    """Advance an operation until it finishes, `is_left` is set, or `ends_at` of the monotonic clock; others may, too.

    Raises DatabaseError: the requests that were sent are valid, and the next round reads what became of them.
    """
    run(begun, time.monotonic())
    while time.monotonic() < ends_at and not is_left.is_set():
        current = Operation.objects.get(pk=begun.operation.pk)
        if current.finished_at:
            return
        if not clock.is_due(current.next_round_at, MAX_ROUND_PAUSE_SECONDS) or not advance(current.pk):
            time.sleep(WAIT_SECONDS)


def cancel(operation_id: uuid.UUID | str, *, actor: Actor) -> Operation:
    """Cancel the remaining requests; those sent are still verified. Raises OperationNotFound and OperationEnded."""
    operation = records.get(operation_id)
    with audit.recorded(actor, Action.CANCEL_OPERATION, str(operation.pk), before=operation.state) as entry:
        running = Operation.objects.filter(pk=operation.pk, state__in=Operation.RUNNING)
        is_cancelled = running.update(state=Operation.State.CANCELLED, next_round_at=timezone.now())
        operation.refresh_from_db()
        entry.after = operation.state
        if not is_cancelled and operation.state != Operation.State.CANCELLED:
            raise OperationEnded(f"The operation has already finished: {operation.result}")
        skip_pending(operation)
    log.info("operation cancelled%s", Fields(id=operation.pk, by=actor.name))
    if not operation.targets.filter(state=Target.State.REQUESTED).exists():
        advance(operation.pk)
    operation.refresh_from_db()
    return operation


# --- The answer


@dataclass(frozen=True)
class Answer:
    """What a request for an operation has done so far. Of a dry run: what it would do, and nothing is stored.

    `gap` says why the targets may not be all that is running; "" when they are. `is_settled`: nothing more is to be
    requested.
    """

    operation: Operation
    targets: list[Target]
    warnings: list[str]
    gap: str = ""
    is_settled: bool = True
    is_dry_run: bool = False


def preview(wish: Wish) -> Answer:
    """Return what a request would do, and change nothing. Raises as `begin` does."""
    freezing.check_start(wish.kind)
    if wish.webhook_url:
        webhooks.check_url(wish.webhook_url)
    choice = choose_targets(wish.kind, wish.ids)
    targets = records.sort_targets(choice.targets)
    warnings = [*_find_losses(wish.kind, choice), *choice.notes, *_find_worker_warning()]
    operation = Operation(kind=wish.kind, is_whole_account=wish.ids is None, source=choice.source)
    gap = wording.NOT_KNOWN if is_from_copy(operation) and not targets else ""
    return Answer(operation, targets, warnings, gap, is_dry_run=True)


def _find_losses(kind: str, choice: Choice) -> list[str]:
    """Return the warnings of what is lost by a stop or restart of the pending targets."""
    ids = [target.instance_id for target in choice.targets if target.state == Target.State.PENDING]
    if kind == "start" or not ids:
        return []
    if kind == "restart":
        return [wording.RESTART_ENDS_JOBS]
    read = [choice.observed.instances[id_] for id_ in ids if id_ in choice.observed.instances]
    monthly = sorted((one.name or one.id for one in read if one.billing_mode == "monthly"), key=get_natural_key)
    warnings = [wording.DATA_MAY_BE_LOST, wording.MAY_NOT_START]
    return [*warnings, wording.say_prepaid(monthly)] if monthly else warnings


def read_answer(wish: Wish, begun: Begun) -> Answer:
    """Return the state of an operation that was begun or joined.

    Raises NovitaError when it has finished without targets, and it is not known whether anything is running.
    """
    operation = begun.operation
    targets = records.sort_targets(operation.targets.all())
    gap = find_gap(begun, targets)
    if gap and operation.finished_at and not targets and operation.state != Operation.State.CANCELLED:
        error = (begun.last_observed and begun.last_observed.error) or NovitaUnavailable()
        error.message = gap
        raise error
    warnings = list(dict.fromkeys([*operation.notes, *begun.warnings]))
    warnings += _find_worker_warning() if operation.finished_at is None else []
    if not begun.is_new:
        warnings.append(wording.say_joined(operation))
    if not begun.is_new and wish.webhook_url:
        warnings.append(wording.NO_NEW_WEBHOOK)
    is_pending = any(target.state == Target.State.PENDING for target in targets)
    is_settled = operation.finished_at is not None or not (is_pending or gap)
    return Answer(operation, targets, warnings, gap, is_settled)


def find_gap(begun: Begun, targets: Sequence[Target]) -> str:
    """Say why not every running instance is known to be requested, or verified once the operation has finished.

    "" when every one is. An answer is a success only when Novita has listed the whole account since the request (for a
    request for the whole account), and every billed instance of that listing is requested, or pending: then the answer
    isn't settled, and its status is 202. A finished operation must be a success: a last listing has verified it.
    """
    operation, observed = begun.operation, begun.last_observed
    if operation.success:
        return ""
    if operation.listed_at is None and not operation.result:
        return wording.STILL_READING
    if operation.finished_at:
        return operation.result
    if operation.state == Operation.State.CANCELLED:
        return wording.CANCELLED_MEANWHILE
    is_doubtful = operation.is_whole_account and observed is not None and observed.find_doubt()
    if is_from_copy(operation) or is_doubtful or (begun.joined and begun.joined.error):
        return wording.NOT_ALL_KNOWN if targets else wording.NOT_KNOWN
    if observed is None or operation.kind != "stop":
        return ""
    held = sum(_is_held_back(target, observed) for target in targets)
    return wording.say_still_running(held) if held else ""


def _is_held_back(target: Target, observed: Observation) -> bool:
    """Tell whether a later read shows an instance running although Novita had accepted its stop."""
    instance = observed.instances.get(target.instance_id)
    if target.state != Target.State.REQUESTED or instance is None or not instance.meaning.needs_stop:
        return False
    return target.requested_at is None or target.requested_at < observed.began_at


def _find_worker_warning() -> list[str]:
    if standby.is_used():  # This process verifies without a worker.
        return []
    try:
        return [] if store.read_state().has_worker else [wording.NO_WORKER]
    except CacheUnavailable as exc:
        return [wording.say_no_worker(exc)]
