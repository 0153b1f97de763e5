"""Joining an operation that runs already, in place of a second one that requests the same.

Whoever joins has the account read again: what is to be requested now becomes a pending target, and the joining process
requests it by itself, whoever holds the operation's claim.

The rule of the deadline: joining moves an operation's deadline to that of whoever joins if that is later, so that each
has the time that was wanted. It never moves it forward: who wants a result sooner stops following, and the operation
goes on. No operation is kept alive for ever by being joined: past its deadline, and when it would live for more than
twice the wanted time, it is replaced: it ends with what is known of it, and a new one begins at once.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from django.db.models import Case, F, Value, When
from django.utils import timezone

from instances.errors import NovitaError
from instances.fallback import standby
from instances.instance import clean_text, get_meaning, parse_time
from instances.models import Operation, Target
from instances.operations import wording
from instances.operations.rounds import (
    Claim,
    Share,
    add_notes,
    conclude,
    find_claim_end,
    find_doubt,
    note_seen,
)
from instances.operations.targets import MAX_DIRECT_READS, Look, choose_targets, read_account
from instances.outgoing.deadline import Budget

log = logging.getLogger(__name__)

# An operation past its deadline for so long had no worker to end it.
ABANDONED_AFTER: Final = timedelta(seconds=60)


@dataclass
class Joined:
    """What came of joining. `error` is why Novita could not be read: what was started since is not requested."""

    share: Share
    look: Look
    warnings: list[str] = field(default_factory=list)
    error: NovitaError | None = None


def is_joinable(operation: Operation, seconds: float) -> bool:
    """Tell whether somebody who wants a result in so many seconds may join; the module says by which rule."""
    now, wanted = timezone.now(), timedelta(seconds=seconds)
    latest = max(operation.deadline_at, operation.created_at + 2 * wanted)
    return operation.deadline_at > now and now + wanted <= latest


def join(operation: Operation, ids: Sequence[str] | None, seconds: float, read_seconds: float) -> Joined | None:
    """Add what is to be requested now, and reserve it for this process; None when the operation has ended meanwhile."""
    scratch = Operation(kind=operation.kind, is_whole_account=ids is None)
    budget = Budget(read_seconds)
    try:
        found, look = choose_targets(scratch, ids, seconds=read_seconds)
    except NovitaError as exc:
        found, look = [], Look(timezone.now(), error=exc)
    # Where the copy names some of what runs, that is requested; what was started since is not in it.
    error = look.error if ids is None or not found else None
    if error:
        scratch.notes.append(wording.say_not_read_again(error, operation.listed_at))
    stopped = _read_confirmed_again(operation, found, look, budget)
    with standby.atomic():
        now = timezone.now()
        running = Operation.objects.filter(pk=operation.pk, state__in=Operation.RUNNING, deadline_at__gt=now)
        source: Any = F("source")
        if error and ids is None:
            source = Operation.Source.CACHE
        elif look.is_listing and ids is None:
            # A listing that began before somebody else joined does not serve for them.
            is_newest = When(listed_at__lt=look.began_at, then=Value(Operation.Source.NOVITA))
            source = Case(is_newest, default=F("source"))
        # First a write, which keeps others who join and whoever gives the verdict out until this is done.
        if not running.update(listed_at=now, next_round_at=now, source=source):
            return None
        running.filter(deadline_at__lt=now + timedelta(seconds=seconds)).update(
            deadline_at=now + timedelta(seconds=seconds)
        )
        mine = _add(operation, [target for target in found if target.instance_id not in stopped], look)
        if mine:
            running.update(state=Operation.State.REQUESTING)
            scratch.notes.append(f"{describe_added(operation.kind, mine)}.")
        add_notes(running, scratch.notes)
    operation.refresh_from_db()
    log.info("operation joined id=%s added=%d", operation.pk, len(mine))
    return Joined(Share(operation.pk, mine), look, scratch.notes, error)


def describe_added(kind: str, targets: Sequence[Target]) -> str:
    """Say what joining adds: "1 more to stop; 5 requested again"."""
    again = sum(target.attempts > 0 for target in targets)
    return wording.say_added(kind, len(targets) - again, again)


def _read_confirmed_again(operation: Operation, found: Sequence[Target], look: Look, budget: Budget) -> Collection[str]:
    """Return which of those that were confirmed and are listed as running again a direct read shows otherwise.

    The listing is no snapshot: what was seen stopped is not requested again for an old page's sake.
    """
    pending = [target.instance_id for target in found if target.state == Target.State.PENDING]
    if not look.is_listing or operation.kind != "stop":
        return ()
    confirmed = operation.targets.filter(state=Target.State.CONFIRMED).values_list("instance_id", flat=True)
    again = sorted(set(pending) & set(confirmed))[:MAX_DIRECT_READS]
    if not again:
        return ()
    direct = read_account(again, budget, is_whole=False)
    seen = {id_ for id_, one in direct.instances.items() if not one.meaning.needs_stop}
    return direct.gone | seen


def _add(operation: Operation, found: Sequence[Target], look: Look) -> list[Target]:
    """Store new targets and reopen those that are to be requested again; returns what is reserved for this process."""
    known = {target.instance_id: target for target in operation.targets.all()}
    new = [target for target in found if target.instance_id not in known]
    again = []
    for target in found:
        old = known.get(target.instance_id)
        if old is None:
            target.operation = operation
        elif target.state == Target.State.PENDING and _is_to_be_requested_again(old, look):
            old.state, old.status, old.confirmed_at = Target.State.PENDING, clean_text(target.status, 64), None
            old.error_code = old.error = ""
            again.append(old)
    mine = [target for target in [*new, *again] if target.state == Target.State.PENDING]
    for target in mine:
        target.next_request_at = find_claim_end()
    Target.objects.bulk_create(new, batch_size=500)
    fields = ["state", "status", "confirmed_at", "error_code", "error", "next_request_at"]
    Target.objects.bulk_update(again, fields, batch_size=200)
    for target in mine:
        target.next_request_at = None  # For whoever else reads it; this process requests it now.
    return mine


def _is_to_be_requested_again(old: Target, look: Look) -> bool:
    """Tell of a target whose instance is to be requested, as a look shows it, whether nobody else is about to."""
    is_fresh = old.instance_id in look.instances
    match old.state:
        case Target.State.SKIPPED:
            return True
        case Target.State.CONFIRMED:
            # A second restart would end what the first has started.
            return old.operation.kind != "restart" and is_fresh and (old.confirmed_at or look.began_at) < look.began_at
        case Target.State.FAILED:
            # One whose turn it is, is requested by the next round.
            is_due = old.next_request_at is not None and old.next_request_at <= timezone.now()
            return old.is_exhausted or not old.is_open or not is_due
        case Target.State.REQUESTED:
            # One that was on its way by somebody else's order, and runs, has never been requested.
            return old.is_exhausted or (is_fresh and (not old.attempts or _is_started_since(old, look)))
    return False


def _is_started_since(old: Target, look: Look) -> bool:
    """Tell whether an instance that a look shows running was started after Novita took our request to stop it."""
    instance = look.instances[old.instance_id]
    if old.operation.kind != "stop" or not old.requested_at or look.began_at < old.requested_at:
        return False
    # Novita takes a stop of what runs only, so that what is starting now has been stopped before. Its times are whole
    # seconds.
    is_later = instance.last_started_at and parse_time(instance.last_started_at) >= old.requested_at.replace(
        microsecond=0
    )
    was_stopping = old.read_at and old.read_at > old.requested_at and "stop" in get_meaning(old.status).under_way
    return "start" in instance.meaning.under_way or bool(is_later or was_stopping)


# --- Replacing


@dataclass
class Replaced:
    """An operation that a new one replaces: it has no claim but ours, and ends when the account has been read."""

    operation: Operation
    claim: Claim


def replace(operation: Operation, token: str) -> Replaced | None:
    """Take an operation's place, in the transaction that stores the new one; None when it has ended meanwhile.

    Its claim is taken whoever holds it: a dead or sleeping process must not keep a stop from beginning.
    """
    now = timezone.now()
    running = Operation.objects.filter(pk=operation.pk, state__in=Operation.RUNNING, selection=operation.selection)
    if not running.update(
        selection=f"replaced:{operation.pk}",
        claim=token,
        claimed_until=now + ABANDONED_AFTER,
        deadline_at=min(operation.deadline_at, now),
    ):
        return None
    return Replaced(operation, Claim(operation.pk, token))


def list_followed(replaced: Replaced) -> list[str]:
    """Return the instances that a replaced operation has requested, and that its successor has to verify."""
    open_ = replaced.operation.targets.filter(state__in=Target.OPEN)
    return list(open_.values_list("instance_id", flat=True))


def end_replaced(replaced: Replaced, look: Look | None) -> None:
    """End a replaced operation with what the beginning of the new one has seen."""
    with replaced.claim as claim:
        operation = Operation.objects.filter(pk=replaced.operation.pk, claim=claim.token).first()
        if operation is None:
            return
        targets = [target for target in operation.targets.all() if target.is_open]
        if look is not None:
            note_seen(operation.kind, targets, look)
        is_abandoned = replaced.operation.deadline_at + ABANDONED_AFTER <= timezone.now()
        reason = wording.ABANDONED if is_abandoned else wording.REPLACED
        is_seen = look is not None and not (operation.is_whole_account and find_doubt(look))
        is_complete = is_seen and operation.listed_at is not None
        conclude(operation, look, is_complete=is_complete, reason=reason)
