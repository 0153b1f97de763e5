"""Advances an operation by rounds until it has a result.

The process that holds the operation's claim runs a round: the one that began it, a worker, or the command. Each round
reads before it requests, so a takeover never repeats a request. Only a fresh read confirms a target.
"""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db.models import F, QuerySet
from django.utils import timezone

from instances import clock
from instances.errors import NovitaError, NovitaRejectedKey, NovitaTimeout, ShuttingDown
from instances.fallback import standby
from instances.instance import Instance
from instances.models import Operation, Target
from instances.operations import protections, wording
from instances.operations.claims import Claim, find_free, take_claim
from instances.operations.observing import MAX_DIRECT_READS, Observation, read_account, record_observed
from instances.operations.records import add_notes
from instances.operations.requesting import find_budget_seconds, record_all_requested, request_due, skip_pending
from instances.operations.results import conclude
from instances.operations.targets import FIRST_LISTING_SECONDS, choose_targets, make_target, write_targets
from instances.outgoing.deadline import Budget, cancellable

log = logging.getLogger(__name__)

FIRST_ROUND_PAUSE_SECONDS: Final[float] = settings.OPERATION_PAUSE_SECONDS
MAX_ROUND_PAUSE_SECONDS: Final = 8.0


def list_unfinished() -> list[uuid.UUID]:
    """Return the operations that are due and that no process advances at this moment."""
    free = Operation.objects.filter(find_free(), finished_at=None)
    due = free.filter(clock.find_due("next_round_at", MAX_ROUND_PAUSE_SECONDS))
    return list(due.order_by("next_round_at").values_list("pk", flat=True)[:50])


def advance(operation_id: uuid.UUID) -> bool:
    """Advance an operation by one round; False when another process does, or it has finished."""
    operation = Operation.objects.filter(pk=operation_id).first()
    claim = take_claim(operation) if operation else None
    if claim is None:
        return False
    run_round(operation_id, claim, None)
    return True


def run_round(operation_id: uuid.UUID, claim: Claim, observed: Observation | None) -> None:
    """Advance an operation by one round; `observed` is what the beginning has just read.

    Raises DatabaseError, also when only an outcome could not be recorded: the next round reads what became of it.
    """
    with claim:
        operation = Operation.objects.filter(pk=operation_id, claim=claim.token).first()
        # Otherwise another process has taken it over.
        if operation is not None:
            _run_round(operation, claim, observed)
    if claim.error:
        raise claim.error


def _run_round(operation: Operation, claim: Claim, observed: Observation | None) -> None:
    budget = Budget(find_budget_seconds(operation))
    with cancellable(budget):
        try:
            _advance(_Round(operation, claim, budget), observed)
        except ShuttingDown:
            log.info("operation %s: left to another process, since this one ends", operation.pk)
        except NovitaTimeout:
            # The deadline passed during a request; the next round concludes.
            _plan_next_round(operation)


# --- The steps of a round


class _Round:
    """One round of an operation, by the operation's state when the round began."""

    def __init__(self, operation: Operation, claim: Claim, budget: Budget) -> None:
        self.operation, self.claim, self.budget = operation, claim, budget
        self.is_cancelled = operation.state == Operation.State.CANCELLED
        self.is_over = clock.seconds_until(operation.deadline_at) <= 0

    @property
    def own(self) -> QuerySet[Operation]:
        """The operation, unless another process has taken its claim."""
        return Operation.objects.filter(pk=self.operation.pk, claim=self.claim.token)

    def list_targets(self) -> list[Target]:
        """Return the targets that may change, as they are stored now."""
        return [target for target in self.operation.targets.all() if self.may_change(target)]

    def may_change(self, target: Target) -> bool:
        """Tell whether a target is open; a failed one is not requested again after a cancellation."""
        return target.is_open and not (self.is_cancelled and target.state == Target.State.FAILED)


def _advance(round_: _Round, observed: Observation | None) -> None:
    """List if no process has; observe; request; then plan the next round, or conclude."""
    operation, claim = round_.operation, round_.claim
    if operation.listed_at is None and not (observed := _list_late(round_)):
        return
    if round_.is_cancelled:
        skip_pending(operation)
    # The answer said that the account could not be listed: the instances that the inventory lacks are requested soon.
    is_listing_owed = observed is None and is_from_copy(operation) and not round_.is_cancelled
    if observed is None and not (observed := _observe(round_)):
        return
    targets = round_.list_targets()
    requested = _request(round_, targets, observed)
    if not claim.is_held():
        return
    if is_listing_owed and not round_.is_over:
        targets += _request_unlisted(round_)
    if any(round_.may_change(target) for target in targets) and not round_.is_over:
        _plan_next_round(operation)
    else:
        _finish(round_, observed, requested)


def _list_late(round_: _Round) -> Observation | None:
    """List the account in place of a process that ended before it had; None when this round can do no more."""
    operation = round_.operation
    if round_.is_cancelled or not operation.is_whole_account:
        conclude(operation, None, reason=wording.NEVER_BEGAN)
        return None
    try:
        choice = choose_targets(operation.kind, None)
    except NovitaError as exc:
        if round_.is_over:
            conclude(operation, None, reason=exc.message)
        else:
            _plan_next_round(operation)
        return None
    return choice.observed if write_targets(operation, choice) else None


def _observe(round_: _Round) -> Observation | None:
    """Read the open targets and record what the read shows; None when the claim was lost meanwhile."""
    before = {target.instance_id: target for target in round_.list_targets()}
    observed = read_account(list(before), round_.budget, is_whole=False)
    if not round_.claim.is_held():
        # The read is old by now, and another process may have requested since.
        return None
    with standby.atomic():
        # First a write: it keeps out others who join or record an outcome until this is stored.
        if not round_.own.update(rounds=F("rounds")):
            return None
        read = [one for one in round_.list_targets() if not _is_reopened(one, before.get(one.instance_id))]
        record_observed(round_.operation.kind, read, observed)
    return observed


def _is_reopened(target: Target, before: Target | None) -> bool:
    """Tell whether a process that joined during the read has opened a target again: a read tells nothing of later."""
    if before is None:
        return True
    return before.state != Target.State.PENDING and (before.state, before.attempts) != (target.state, target.attempts)


def _request(round_: _Round, targets: Sequence[Target], observed: Observation) -> int:
    """Request the due targets; returns how many were requested."""
    if round_.is_over or round_.is_cancelled:
        return 0
    return request_due(round_.operation, targets, observed, round_.claim, round_.budget)


def is_from_copy(operation: Operation) -> bool:
    """Tell whether the targets of a stop of everything are from the inventory, so that a listing is still owed."""
    return operation.is_whole_account and operation.source == Operation.Source.CACHE


def _request_unlisted(round_: _Round) -> list[Target]:
    """List the account, which failed before, and request what the inventory lacked; returns the new targets."""
    operation = round_.operation
    listing_budget = Budget(FIRST_LISTING_SECONDS)
    with cancellable(listing_budget):
        observed = read_account((), listing_budget, is_whole=True)
    if not observed.is_listing or not round_.claim.is_held():
        return []
    started = _add_started(round_, observed)
    request_due(operation, started, observed, round_.claim, round_.budget)
    # Unless somebody has joined meanwhile: then a listing is owed to them.
    own = Operation.objects.filter(pk=operation.pk, claim=operation.claim, listed_at=operation.listed_at)
    if own.update(source=Operation.Source.NOVITA):
        operation.source = Operation.Source.NOVITA
    return started


def _finish(round_: _Round, observed: Observation, requested: int) -> None:
    """Conclude, or request what a last listing of the whole account shows to have been started meanwhile."""
    operation = round_.operation
    if not operation.is_whole_account or round_.is_cancelled:
        conclude(operation, observed)
        return
    is_listed = observed.is_listing and not requested
    last = observed if is_listed else read_account((), round_.budget, is_whole=True)
    started = _add_started(round_, last)
    is_worth_a_try = last.error and not isinstance(last.error, NovitaRejectedKey)
    if (is_worth_a_try or started) and not round_.is_over:
        request_due(operation, started, last, round_.claim, round_.budget)
        _plan_next_round(operation)
    else:
        conclude(operation, observed.updated(last), reason=last.find_doubt())


def _plan_next_round(operation: Operation) -> None:
    pause = min(FIRST_ROUND_PAUSE_SECONDS * (1 + operation.rounds / 4), MAX_ROUND_PAUSE_SECONDS)
    next_round_at = min(timezone.now() + timedelta(seconds=pause), max(operation.deadline_at, timezone.now()))
    with standby.atomic():
        own = Operation.objects.filter(pk=operation.pk, claim=operation.claim)
        # An operation that somebody has joined meanwhile is due at once.
        own.filter(listed_at=operation.listed_at).update(next_round_at=next_round_at)
        own.update(rounds=operation.rounds + 1)
    record_all_requested(operation)


# --- Instances that were started meanwhile


@dataclass(frozen=True)
class _Started:
    """Billed instances of a listing: those that are no targets yet, and confirmed targets that are running again."""

    new: list[Instance]
    again: list[tuple[Target, Instance]]


def _find_started(round_: _Round, last: Observation) -> _Started:
    billed = {id_: one for id_, one in last.instances.items() if one.meaning.is_billed}
    known = {target.instance_id: target for target in round_.operation.targets.all()}
    new = [one for id_, one in billed.items() if id_ not in known]
    again = [id_ for id_ in billed if id_ in known and known[id_].state == Target.State.CONFIRMED]
    if again:
        # Read directly first: a confirmed target must not be requested again because of an old page.
        direct = read_account(again[:MAX_DIRECT_READS], round_.budget, is_whole=False)
        billed.update((id_, one) for id_, one in direct.instances.items() if id_ in billed)
        again = [id_ for id_ in again if id_ not in direct.gone and billed[id_].meaning.is_billed]
    return _Started(new, [(known[id_], billed[id_]) for id_ in again])


def _add_started(round_: _Round, last: Observation) -> list[Target]:
    """Make open targets of the instances that were started meanwhile; returns them.

    Those that somebody who joined has added or reopened meanwhile are left to them.
    """
    operation, found = round_.operation, _find_started(round_, last)
    protected = protections.read()
    with standby.atomic():
        # First a write: it keeps out others who join until the targets are stored.
        if not round_.own.update(rounds=F("rounds")):
            return []
        states = dict(operation.targets.values_list("instance_id", "state"))
        new = [
            make_target(operation.kind, one, last, protected.get(one.id)) for one in found.new if one.id not in states
        ]
        for target in new:
            target.operation = operation
        again = []
        for target, instance in found.again:
            if states[target.instance_id] != Target.State.CONFIRMED:
                continue
            is_stopping = "stop" in instance.meaning.under_way
            target.state = Target.State.REQUESTED if is_stopping else Target.State.PENDING
            target.confirmed_at, target.status, target.next_request_at = None, instance.status, None
            again.append(target)
        Target.objects.bulk_create(new, batch_size=500)
        fields = ["state", "confirmed_at", "status", "next_request_at"]
        Target.objects.bulk_update(again, fields, batch_size=200)
        pending = sum(target.state == Target.State.PENDING for target in [*new, *again])
        if pending and not round_.is_over:
            add_notes(round_.own, [wording.say_started_meanwhile(pending)])
    return [target for target in [*new, *again] if target.is_open]
