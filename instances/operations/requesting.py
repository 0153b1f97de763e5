"""Sends the requests of an operation, several at once, and records each outcome as it arrives."""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connections
from django.db.models import F
from django.utils import timezone

from instances import clock
from instances.errors import (
    InstanceNotFound,
    InvalidStateChange,
    NotFoundAtNovita,
    NovitaError,
    NovitaRateLimited,
    NovitaTimeout,
    ShuttingDown,
)
from instances.fallback import standby
from instances.instance import REMOVED_STATUS, ActionName, Instance, clean_text
from instances.models import EvaluationState, Finding, Operation, Target
from instances.novita.client import MAX_RETRY_AFTER_SECONDS, Novita, get_novita
from instances.novita.parallel import call_each
from instances.operations import freezing, protections, single, wording
from instances.operations.claims import Claim, Share, find_unreserved
from instances.operations.observing import Observation, confirm, fail_as_missing, read_copy
from instances.outgoing.deadline import Budget, cancellable

log = logging.getLogger(__name__)

MAX_RATE_LIMIT_WAITS: Final = 20
MAX_TARGET_PAUSE_SECONDS: Final = 60.0
# The last read, after the deadline, decides the result.
LAST_READ_SECONDS: Final = 30

_GONE: Final = "gone"
_SENT: Final = ("attempts", "requested_at")
_OUTCOME: Final = ("state", "status", "read_at", "confirmed_at", "next_request_at", "error_code", "error")


def find_budget_seconds(operation: Operation) -> float:
    """Return how long a round may take."""
    return max(LAST_READ_SECONDS, clock.seconds_until(operation.deadline_at))


def request_share(operation: Operation, share: Share, observed: Observation) -> None:
    """Request a share's targets, each once. Raises DatabaseError when an outcome could not be recorded."""
    with share:
        budget = Budget(find_budget_seconds(operation))
        with cancellable(budget):
            try:
                request_due(operation, share.targets, observed, share, budget)
            except (ShuttingDown, NovitaTimeout):
                log.info("operation %s: the rest is left to the next round", operation.pk)
    if share.error:
        raise share.error
    if Operation.objects.filter(pk=operation.pk, state=Operation.State.CANCELLED, finished_at=None).exists():
        skip_pending(operation)
    record_all_requested(operation)


def skip_pending(operation: Operation) -> None:
    """Skip the pending targets of a cancelled operation, except those whose requests a share may be sending."""
    pending = operation.targets.filter(find_unreserved(), state=Target.State.PENDING)
    pending.update(state=Target.State.SKIPPED, error=wording.say_cancelled(operation.kind))


def record_all_requested(operation: Operation) -> None:
    """Let an operation without pending targets count as verifying."""
    if not Target.objects.filter(operation=operation.pk, state=Target.State.PENDING).exists():
        requesting = Operation.objects.filter(pk=operation.pk, state=Operation.State.REQUESTING)
        requesting.update(state=Operation.State.VERIFYING)


def request_due(
    operation: Operation, targets: Sequence[Target], observed: Observation, claim: Claim, budget: Budget
) -> int:
    """Send a request for each target that is due; returns how many were sent."""
    kind = operation.kind
    known = _find_instances(operation, targets, observed)
    due = _choose_due(operation, targets, known, observed.began_at)
    sender = _Sender(kind, known, claim, budget)
    requested = 0
    for target, outcome in call_each(sender.send, due, sender.novita.concurrency):
        # A process that was suspended meanwhile must not overwrite what another has recorded since.
        if outcome is not None and claim.is_held():
            requested += 1
            _record_outcome(kind, target, outcome, claim)
    budget.check()
    return requested


# --- Due targets


def _find_instances(operation: Operation, targets: Sequence[Target], observed: Observation) -> Mapping[str, Instance]:
    """Return the instances as last read; the inventory serves for those that the read lacks."""
    unread = [target.instance_id for target in targets if target.instance_id not in observed.instances]
    if not unread or operation.kind == "restart" or operation.is_by_policy:
        # Only a fresh read before a restart can show later that the instance has restarted. A policy stops nothing
        # whose present state is not known.
        return observed.instances
    return {**observed.instances, **(read_copy(unread) or {})}


def _choose_due(
    operation: Operation, targets: Sequence[Target], known: Mapping[str, Instance], read_at: datetime
) -> list[Target]:
    """Return the targets to request now, and mark those as skipped that may no longer be requested."""
    kind = operation.kind
    protected = protections.read() if kind != "start" else {}
    freeze = freezing.find() if kind != "stop" else None
    obstacle = wording.say_frozen(freeze) if freeze else _find_policy_obstacle(operation)
    due = []
    for target in targets:
        if target.instance_id not in known or not _is_due(target, known[target.instance_id], read_at):
            continue
        if protection := protected.get(target.instance_id):
            _skip(target, wording.say_protected(protection))
        elif operation.is_by_policy and _is_another_run(target, known[target.instance_id]):
            _skip(target, wording.say_another_run(known[target.instance_id]))
        elif not obstacle:
            due.append(target)
        elif target.state != Target.State.REQUESTED:
            _skip(target, obstacle)
    # Possible actions come first: a refusal takes two reads and a pause to be sure of.
    due.sort(key=lambda target: kind not in known[target.instance_id].actions)
    return due


def _find_policy_obstacle(operation: Operation) -> str:
    """Say why a policy's stop may no longer be requested; "" when it may, and for other operations."""
    if not operation.is_by_policy:
        return ""
    if not settings.POLICIES or EvaluationState.is_off():
        return wording.POLICIES_OFF
    # It may have been changed when its stop was decided, and had not begun: nothing was there to cancel.
    unchanged = Finding.objects.filter(operation_id=operation.pk, policy_version=F("policy__version"))
    return "" if unchanged.filter(policy__is_on=True).exists() else wording.POLICY_CHANGED


def _is_another_run(target: Target, instance: Instance) -> bool:
    """Tell whether an instance is no longer in the run that a policy has judged: somebody has started it since."""
    return instance.group != "running" or (instance.last_started_at or "") != target.started_before


def _skip(target: Target, why: str) -> None:
    target.state, target.error = Target.State.SKIPPED, why
    target.save(update_fields=["state", "error"])


def _is_due(target: Target, instance: Instance, read_at: datetime) -> bool:
    is_time = target.next_request_at is None or clock.is_due(target.next_request_at, MAX_TARGET_PAUSE_SECONDS)
    is_possible = target.operation.kind in instance.actions
    if target.state == Target.State.PENDING:
        # A time in the future reserves it for a process that has joined.
        return is_time
    if target.is_exhausted or not target.is_open:
        return False
    if target.error_code == InvalidStateChange.code:
        # Novita refused it for its status: it is requested again once the status allows the action.
        return target.next_request_at is not None and is_time and is_possible
    if target.state == Target.State.FAILED:
        return is_time
    if target.requested_at is not None and target.requested_at >= read_at:
        # The read is older than the request, so it doesn't show the effect.
        return False
    # Novita accepted it, and has not carried it out. A second restart would end what the first has started.
    return target.operation.kind != "restart" and is_time and is_possible


# --- One request


class _Gate:
    """Holds all requests back while Novita limits the rate."""

    def __init__(self) -> None:
        self._opens_at = 0.0

    def close(self, seconds: float) -> None:
        self._opens_at = max(self._opens_at, time.monotonic() + seconds)

    def wait(self, claim: Claim, budget: Budget) -> None:
        while (pause := self._opens_at - time.monotonic()) > 0 and claim.may_request():
            budget.pause(min(pause, 0.5))


class _Sender:
    """What the requests of one round share."""

    def __init__(self, kind: ActionName, known: Mapping[str, Instance], claim: Claim, budget: Budget) -> None:
        self.novita: Novita = get_novita()
        self._kind, self._known, self._claim, self._budget = kind, known, claim, budget
        self._gate, self._copy = _Gate(), single.Copy()

    def send(self, target: Target) -> Instance | str | None:
        """Request the action; returns the instance, or _GONE, or None when the request may not be sent any more."""
        for waits in range(MAX_RATE_LIMIT_WAITS + 1):
            self._gate.wait(self._claim, self._budget)
            if not self._claim.may_request() or self._is_withheld(target):
                return None
            try:
                return single.send(self._kind, self._known[target.instance_id], self.novita, self._budget, self._copy)
            except NovitaRateLimited as exc:
                # Novita did not accept it, so that sending it again is no second request.
                if waits == MAX_RATE_LIMIT_WAITS or (exc.retry_after or 0) > MAX_RETRY_AFTER_SECONDS:
                    raise
                self._gate.close(max(exc.retry_after or 0, min(0.5 * 2.0**waits, 8)) * random.uniform(1, 1.2))
            except (NotFoundAtNovita, InstanceNotFound):
                return _GONE
            except ShuttingDown:
                return None
        return None

    def _is_withheld(self, target: Target) -> bool:
        """Tell whether a stop, a freeze or a protection has come since the round began, which may be minutes ago.

        The next round skips the target with the reason. A restart is left to an operation that has replaced this one.
        """
        if self._kind == "stop":
            return target.instance_id in self._claim.protected
        try:
            open_ = Target.objects.filter(pk=target.pk, state__in=Target.OPEN)
            own = open_.exclude(operation__selection__startswith=Operation.REPLACED_SELECTION)
            if not own.exists() or freezing.find():
                return True
            return self._kind == "restart" and protections.find(target.instance_id) is not None
        except DatabaseError as exc:
            log.warning("operation %s: %s not requested: %s", target.operation_id, target.instance_id, exc)
            return True
        finally:
            connections.close_all()


def _record_outcome(kind: str, target: Target, outcome: Instance | str | NovitaError, claim: Claim) -> None:
    """Store the outcome of one request; a failed write is the claim's error, and the other requests go on."""
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
        confirm(target, now)
    else:
        fail_as_missing(target)
    if claim.error:
        # Waiting for the database once more would delay the other requests.
        return
    try:
        _store_outcome(target)
    except DatabaseError as exc:
        log.warning("operation %s: request of %s not recorded: %s", target.operation_id, target.instance_id, exc)
        claim.error = exc


def _store_outcome(target: Target) -> None:
    """Store the outcome of a request, and the new state unless the operation has ended or a stop has cancelled it."""
    own = Target.objects.filter(pk=target.pk)
    with standby.atomic():
        # The lock keeps the operation from ending between the look and the write.
        running = Operation.objects.select_for_update().filter(pk=target.operation_id, finished_at=None)
        open_ = own.exclude(state=Target.State.SKIPPED, error=wording.OPPOSED) if running.exists() else own.none()
        if not open_.update(**{name: getattr(target, name) for name in (*_SENT, *_OUTCOME)}):
            own.update(**{name: getattr(target, name) for name in _SENT})


def find_failure_pause(attempts: int) -> float:
    """Return the seconds until a failed request is sent again: 2, 4, 8, … a minute at most."""
    return min(settings.OPERATION_PAUSE_SECONDS * 2.0 ** (attempts - 1), MAX_TARGET_PAUSE_SECONDS)


def find_patience(attempts: int) -> float:
    """Return the seconds that Novita has to carry an accepted request out before it is sent again."""
    return min(settings.OPERATION_PATIENCE_SECONDS * attempts, MAX_TARGET_PAUSE_SECONDS)
