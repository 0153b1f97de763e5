"""Joining an operation that is already running, in place of a second one for the same instances.

The account is read again for each request that joins: every instance that has to be requested now becomes a pending
target, and the joining process requests it, whichever process holds the operation's claim.

The rule of the deadline: joining extends the deadline to the time that the new request allows, and never shortens it.
No operation lives forever by being joined: past its deadline, or when it would last for more than twice the time of the
new request, it is replaced. It then ends with its last known state, and a new operation begins at once.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db.models import Case, F, Value, When
from django.utils import timezone

from instances.errors import NovitaError
from instances.fallback import standby
from instances.instance import clean_text, get_meaning, parse_time
from instances.models import Operation, Target
from instances.operations import wording
from instances.operations.claims import Claim, Share, find_claim_end
from instances.operations.observing import MAX_DIRECT_READS, Observation, read_account, record_observed
from instances.operations.records import add_notes
from instances.operations.results import conclude
from instances.operations.targets import Choice, choose_targets
from instances.outgoing.deadline import Budget
from novita_site.log import Fields

log = logging.getLogger(__name__)

# An operation that is so long past its deadline had no worker to end it.
ABANDONED_AFTER: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Joined:
    """The targets that joining adds. `error` is why Novita could not be read: newly started instances are missing."""

    share: Share
    observed: Observation
    warnings: list[str]
    error: NovitaError | None = None


def is_joinable(operation: Operation, seconds: float) -> bool:
    """Tell whether a request that allows so many seconds may join, by the rule of the deadline above."""
    now, wanted = timezone.now(), timedelta(seconds=seconds)
    latest = max(operation.deadline_at, operation.created_at + 2 * wanted)
    return operation.deadline_at > now and now + wanted <= latest


def join(operation: Operation, ids: Sequence[str] | None, seconds: float, read_seconds: float) -> Joined | None:
    """Add the targets to request now, reserved for this process; None when the operation has finished meanwhile."""
    budget = Budget(read_seconds)
    withdrawn = _list_withdrawn(operation)
    choice = _choose(operation, ids, read_seconds)
    found, observed, notes = choice.targets, choice.observed, list(choice.notes)
    # The inventory names some of the running instances, so those are requested; newly started ones are missing in it.
    error = observed.error if ids is None or not found else None
    if error:
        notes.append(wording.say_not_read_again(error, operation.listed_at))
    stopped = _read_confirmed_again(operation, found, observed, budget)
    with standby.atomic():
        now = timezone.now()
        running = Operation.objects.filter(pk=operation.pk, state__in=Operation.RUNNING, deadline_at__gt=now)
        # First a write: it keeps out others who join, and the process that concludes, until this is stored.
        source = _choose_source(observed, error) if ids is None else F("source")
        if not running.update(listed_at=now, next_round_at=now, source=source):
            return None
        deadline_at = now + timedelta(seconds=seconds)
        running.filter(deadline_at__lt=deadline_at).update(deadline_at=deadline_at)
        # A stop that came during the read has the last word.
        left = {*stopped, *(_list_withdrawn(operation) - withdrawn)}
        mine = _add(operation, [target for target in found if target.instance_id not in left], observed)
        if mine:
            running.update(state=Operation.State.REQUESTING)
            notes.append(f"{describe_added(operation.kind, mine)}.")
        add_notes(running, notes)
    operation.refresh_from_db()
    log.info("operation joined%s", Fields(id=operation.pk, added=len(mine)))
    return Joined(Share(operation.pk, mine), observed, notes, error)


def _choose(operation: Operation, ids: Sequence[str] | None, seconds: float) -> Choice:
    """Choose the targets; without a listing and an inventory there are none."""
    try:
        return choose_targets(operation.kind, ids, seconds=seconds)
    except NovitaError as exc:
        return Choice([], Observation(timezone.now(), error=exc), Operation.Source.CACHE, [])


def _choose_source(observed: Observation, error: NovitaError | None) -> Any:
    if error:
        return Operation.Source.CACHE
    if not observed.is_listing:
        return F("source")
    # A listing that began before somebody else joined is too old for them.
    is_newest = When(listed_at__lt=observed.began_at, then=Value(Operation.Source.NOVITA))
    return Case(is_newest, default=F("source"))


def describe_added(kind: str, targets: Sequence[Target]) -> str:
    """Say what joining adds: "1 more to stop; 5 requested again"."""
    again = sum(target.attempts > 0 for target in targets)
    return wording.say_added(kind, len(targets) - again, again)


def _read_confirmed_again(
    operation: Operation, found: Sequence[Target], observed: Observation, budget: Budget
) -> Collection[str]:
    """Return the confirmed targets that the listing shows running, and a direct read does not.

    A listing is no snapshot: a confirmed target must not be requested again because of an old page.
    """
    if not observed.is_listing or operation.kind != "stop":
        return ()
    pending = {target.instance_id for target in found if target.state == Target.State.PENDING}
    confirmed = operation.targets.filter(state=Target.State.CONFIRMED).values_list("instance_id", flat=True)
    again = sorted(pending & set(confirmed))[:MAX_DIRECT_READS]
    if not again:
        return ()
    direct = read_account(again, budget, is_whole=False)
    return direct.gone | {id_ for id_, one in direct.instances.items() if not one.meaning.needs_stop}


def _list_withdrawn(operation: Operation) -> set[str]:
    """Return the instances whose start or restart a stop has cancelled."""
    opposed = operation.targets.filter(state=Target.State.SKIPPED, error=wording.OPPOSED)
    return set(opposed.values_list("instance_id", flat=True))


def _add(operation: Operation, found: Sequence[Target], observed: Observation) -> list[Target]:
    """Store the new targets and reopen those to request again; returns the targets reserved for this process."""
    known = {target.instance_id: target for target in operation.targets.all()}
    new = [target for target in found if target.instance_id not in known]
    again = []
    for target in found:
        old = known.get(target.instance_id)
        if old is None:
            target.operation = operation
        elif target.state == Target.State.PENDING and _is_to_be_requested_again(old, observed):
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
        target.next_request_at = None  # The stored time reserves it from other processes; this one requests it now.
    return mine


def _is_to_be_requested_again(old: Target, observed: Observation) -> bool:
    """Tell whether a target whose instance has to be requested now would not be requested by the next round."""
    is_fresh = old.instance_id in observed.instances
    match old.state:
        case Target.State.SKIPPED:
            return True
        case Target.State.CONFIRMED:
            # A second restart would end what the first has started.
            is_restart = old.operation.kind == "restart"
            return not is_restart and is_fresh and (old.confirmed_at or observed.began_at) < observed.began_at
        case Target.State.FAILED:
            # The next round requests it when it is due.
            is_due = old.next_request_at is not None and old.next_request_at <= timezone.now()
            return old.is_exhausted or not old.is_open or not is_due
        case Target.State.REQUESTED:
            if old.attempts:
                return old.is_exhausted or (is_fresh and _is_started_since(old, observed))
            # A read showed it on its way, by another request. A later read shows it running.
            is_later = old.read_at is None or old.read_at < observed.began_at
            return is_fresh and is_later and not _is_reserved(old)
    return False


def _is_reserved(target: Target) -> bool:
    """Tell whether another process sends the target's request at this moment: its outcome is not stored yet."""
    return target.next_request_at is not None and target.next_request_at > timezone.now()


def _is_started_since(old: Target, observed: Observation) -> bool:
    """Tell whether a running instance was started after Novita accepted our request to stop it."""
    instance = observed.instances[old.instance_id]
    if old.operation.kind != "stop" or not old.requested_at or observed.began_at < old.requested_at:
        return False
    # Novita accepts a stop of a running instance only, so an instance that is starting now was stopped before. Its
    # times are whole seconds.
    is_later = instance.last_started_at and parse_time(instance.last_started_at) >= old.requested_at.replace(
        microsecond=0
    )
    was_stopping = old.read_at and old.read_at > old.requested_at and "stop" in get_meaning(old.status).under_way
    return "start" in instance.meaning.under_way or bool(is_later or was_stopping)


# --- Replacing


@dataclass(frozen=True)
class Replaced:
    """An operation that a new one replaces: this process holds its claim, and ends it after reading the account."""

    operation: Operation
    claim: Claim


def replace(operation: Operation, token: str) -> Replaced | None:
    """Take an operation's place, in the transaction that stores the new one; None when it has finished meanwhile.

    This takes its claim from any other process: a dead or suspended process must not keep a stop from beginning.
    """
    now = timezone.now()
    running = Operation.objects.filter(pk=operation.pk, state__in=Operation.RUNNING, selection=operation.selection)
    if not running.update(
        selection=f"{Operation.REPLACED_SELECTION}{operation.pk}",
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


def end_replaced(replaced: Replaced, observed: Observation | None) -> None:
    """End a replaced operation with what was read when the new one began."""
    with replaced.claim as claim:
        operation = Operation.objects.filter(pk=replaced.operation.pk, claim=claim.token).first()
        if operation is None:
            return
        targets = [target for target in operation.targets.all() if target.is_open]
        if observed is not None:
            record_observed(operation.kind, targets, observed)
        is_abandoned = replaced.operation.deadline_at + ABANDONED_AFTER <= timezone.now()
        reason = wording.ABANDONED if is_abandoned else wording.REPLACED
        is_read = observed is not None and not (operation.is_whole_account and observed.find_doubt())
        is_complete = is_read and operation.listed_at is not None
        conclude(operation, observed, is_complete=is_complete, reason=reason)
