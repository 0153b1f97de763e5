"""Stops what is due, by operations, and follows them to their verified end. All that keeps a stop back is here.

A finding is marked as stopping, with the id of its operation, before the operation begins: no two workers act on it,
and after a kill it is known whether the operation began.
"""

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import groupby
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from instances.access.audit import Actor
from instances.errors import OperationEnded, PanelError
from instances.instance import parse_time
from instances.models import Finding, FindingState, FindingStep, Operation, Policy, Snooze, Target
from instances.operations import emergency, orders, protections
from instances.operations.orders import Wish
from instances.policies import lifecycle, selection, telling, watch
from instances.policies.judging import Account
from instances.policies.lifecycle import Moment
from instances.utilization.reading import Reading
from novita_site.log import Fields

log = logging.getLogger(__name__)

Shown = Mapping[str, Any]
# Metrics that are older are read again before a stop.
MAX_READING_AGE: Final = timedelta(minutes=5)
LIMIT_SECONDS: Final = 3600.0
# An operation that did not begin within this time never will: its process was killed.
BEGIN_SECONDS: Final = 120.0

IS_OFF: Final = "Not stopped: acting is switched off."
HAS_JUST_STARTED: Final = "Not stopped yet: the service has just started."
NEEDS_METRICS: Final = "Not stopped yet: its metrics are read once more."
NOTHING_TO_STOP: Final = "Not stopped: no instance that may be stopped costs anything."
NOT_CONFIRMED: Final = "Not stopped: no admin has confirmed that this budget may stop instances."


def act(
    due: Sequence[Finding],
    listed: Sequence[Shown],
    readings: Mapping[str, Reading],
    account: Account,
    at: Moment,
    uptime_seconds: float,
) -> None:
    """Stop what is due and allowed; the rest says why it is not stopped."""
    by_policy = sorted((one for one in due if one.policy), key=lambda one: (one.policy_id, one.warned_watch, one.pk))
    for _, group in groupby(by_policy, key=lambda one: one.policy_id):
        findings = list(group)
        policy = findings[0].policy
        assert policy is not None  # noqa: S101 - for the type checker: filtered above
        obstacle = _find_general_obstacle(uptime_seconds)
        if obstacle != IS_OFF:
            findings = _warn_after_switch(findings, at)
        if obstacle:
            _hold(findings, obstacle)
        elif policy.rule == Policy.Rule.BUDGET:
            for finding in findings:
                _act_on_budget(policy, finding, listed, account, at)
        else:
            _act_on_instances(policy, findings, readings, at)


def _find_general_obstacle(uptime_seconds: float) -> str:
    if not settings.POLICIES or watch.read_state().is_switched_off:
        return IS_OFF
    return HAS_JUST_STARTED if uptime_seconds < 60 * settings.POLICIES_START_MINUTES else ""


def _warn_after_switch(findings: Sequence[Finding], at: Moment) -> list[Finding]:
    """Warn anew of what was due while acting was switched off; return the rest. People no longer expect these stops."""
    _warn_again([one for one in findings if one.obstacle == IS_OFF], "", at)
    return [one for one in findings if one.state == FindingState.DUE]


def _warn_again(findings: Sequence[Finding], reason: str, at: Moment) -> None:
    """Begin again with a warning, which people are told. Without a reason, that of each finding stays."""
    for finding in findings:
        assert finding.policy is not None  # noqa: S101 - for the type checker: what is due has a policy
        before = finding.state
        lifecycle.warn_again(finding, finding.policy, reason or finding.reason, at)
        _save(finding, before)
    telling.tell(findings, is_again=True)


def _act_on_instances(policy: Policy, findings: Sequence[Finding], readings: Mapping[str, Reading], at: Moment) -> None:
    ready = [one for one in findings if policy.rule != Policy.Rule.IDLE or _is_fresh(readings.get(one.instance_id), at)]
    _hold([one for one in findings if one not in ready], NEEDS_METRICS)
    room = _count_room(policy, at)
    _hold(ready[room:], _say_limit(policy))
    _stop(policy, ready[:room], {one.instance_id: one.started for one in ready[:room]}, at)


def _is_fresh(reading: Reading | None, at: Moment) -> bool:
    return reading is not None and abs(at.now - reading.read_at) <= MAX_READING_AGE


def _act_on_budget(policy: Policy, finding: Finding, listed: Sequence[Shown], account: Account, at: Moment) -> None:
    """Stop the most expensive instances first, until the account is within its budget."""
    if not policy.stop_confirmed_by:
        _hold([finding], NOT_CONFIRMED)
        return
    protected = protections.read()
    snoozed = set(_find_snoozes(policy, at).values_list("instance_id", flat=True))
    candidates = [one for one in selection.select(policy, listed, protected) if one["costPerHour"]]
    candidates = [one for one in candidates if one["id"] not in snoozed]
    candidates.sort(key=lambda one: (-one["costPerHour"], one["id"]))
    warned = [one for one in candidates if _ran_at_warning(one, finding)]
    chosen = list(_choose(policy, warned, account))[: _count_room(policy, at)]
    if chosen:
        _stop(policy, [finding], {one["id"]: one["lastStartedAt"] or "" for one in chosen}, at)
    elif warned:
        _hold([finding], _say_limit(policy))
    elif any(one["lastStartedAt"] for one in candidates):
        _warn_again([finding], finding.reason, at)
    else:
        _hold([finding], NOTHING_TO_STOP)


def _ran_at_warning(shown: Shown, finding: Finding) -> bool:
    """Tell whether an instance was running when people were warned. Whoever has started it since was not."""
    started = shown["lastStartedAt"]
    return bool(started and finding.warned_at and parse_time(started) <= finding.warned_at)


def _choose(policy: Policy, candidates: Sequence[Shown], account: Account) -> Iterator[Shown]:
    rate = account.usd_per_hour
    if rate is None:
        return
    allowed = [policy.max_usd_per_hour] if policy.max_usd_per_hour is not None else []
    if policy.min_runway_hours and account.hours_left is not None:
        allowed.append(account.hours_left * rate / policy.min_runway_hours)
    for one in candidates:
        if not allowed or rate <= min(allowed):
            return
        rate -= one["costPerHour"]
        yield one


def _say_limit(policy: Policy) -> str:
    limit = policy.max_stops_per_hour
    return f"Not stopped: this policy may stop {limit} instances an hour. Stop it by hand, or snooze it."


def _count_room(policy: Policy, at: Moment) -> int:
    """Return how many instances the policy may still stop within an hour of the watch."""
    recent = FindingStep.objects.filter(finding__policy=policy, watch__gt=at.watch - LIMIT_SECONDS)
    stopped = sum(recent.values_list("stopped", flat=True))
    return max(0, policy.max_stops_per_hour - stopped)


def _find_snoozes(policy: Policy, at: Moment) -> Any:
    in_force = Snooze.objects.filter(until__gt=at.now, removed_at=None)
    return in_force.filter(Q(policy=None) | Q(policy=policy))


def _hold(findings: Sequence[Finding], obstacle: str) -> None:
    asked = []
    for finding in findings:
        if finding.obstacle != obstacle:
            finding.obstacle = obstacle
            Finding.objects.filter(pk=finding.pk, state=FindingState.DUE).update(obstacle=obstacle)
            if obstacle not in (HAS_JUST_STARTED, NEEDS_METRICS):
                asked.append(finding)
    telling.ask(asked, obstacle)


def _stop(policy: Policy, findings: Sequence[Finding], started: Mapping[str, str], at: Moment) -> None:
    """Mark the findings, then begin the operation. What somebody has snoozed or changed meanwhile is left out.

    `started` has the last start of each instance that is judged.
    """
    operation_id = uuid.uuid4()
    counts = [1 if one.instance_id else len(started) for one in findings]
    marked = [one for one, n in zip(findings, counts, strict=True) if _mark(policy, one, operation_id, n, at)]
    wanted = [one.instance_id for one in marked if one.instance_id] or (list(started) if marked else [])
    if not wanted:
        return
    reason = marked[0].reason if len(marked) == 1 else f"Policy {policy.name}: {len(wanted)} instances."
    wish = Wish("stop", wanted, Actor(f"policy:{policy.name}"), reason[:500], id=operation_id, started=started)
    log.info("policy %s stops %d instances%s", policy.name, len(wanted), Fields(operation=operation_id))
    try:
        emergency.run_and_answer(wish, orders.ANSWER_SECONDS)
    except PanelError as exc:
        _warn_again(marked, f"The stop failed: {exc.message}", at)


def _mark(policy: Policy, finding: Finding, operation_id: uuid.UUID, count: int, at: Moment) -> bool:
    with transaction.atomic():
        # The lock keeps another worker, whose turn began meanwhile, from using the same room.
        unchanged = Policy.objects.filter(pk=policy.pk, version=policy.version, is_on=True, mode=Policy.Mode.STOP)
        if not unchanged.select_for_update().exists() or count > _count_room(policy, at):
            return False
        if _find_snoozes(policy, at).filter(instance_id=finding.instance_id).exists():
            return False
        marked = Finding.objects.filter(pk=finding.pk, state=FindingState.DUE, ended_at=None).update(
            state=FindingState.STOPPING,
            stopping_at=at.now,
            stopping_watch=at.watch,
            operation_id=operation_id,
            obstacle="",
        )
        if marked:
            finding.state, finding.operation_id = FindingState.STOPPING, operation_id
            finding.stopping_at, finding.stopping_watch = at.now, at.watch
            step = FindingStep(finding=finding, state=finding.state, reason=finding.reason)
            step.watch, step.stopped = at.watch, count
            step.save()
    return bool(marked)


# --- The end of a stop


def cancel(policy: Policy | None = None, *, actor: Actor) -> int:
    """Cancel the stops of a policy, or of all, that are not requested yet. Return how many there were."""
    begun = Operation.objects.filter(
        state__in=Operation.RUNNING, selection__startswith=Operation.POLICY_SELECTION, kind="stop"
    )
    if policy is not None:
        stopping = Finding.objects.filter(policy=policy, state=FindingState.STOPPING)
        begun = begun.filter(pk__in=stopping.values("operation_id"))
    count = 0
    for operation in begun:
        left = operation.targets.filter(state__in=(Target.State.PENDING, Target.State.FAILED)).count()
        with suppress(OperationEnded):
            emergency.cancel(str(operation.pk), actor=actor)
            count += left
    return count


def settle(stopping: Sequence[Finding], at: Moment, changed: list[tuple[Finding, str]]) -> None:
    """End the findings whose operations have ended; a stop that failed begins again with a warning."""
    ids = {one.operation_id for one in stopping if one.operation_id}
    operations = {one.pk: one for one in Operation.objects.filter(pk__in=ids)} if ids else {}
    for finding in stopping:
        if _settle(finding, operations.get(finding.operation_id) if finding.operation_id else None, at):
            changed.append((finding, FindingState.STOPPING))


def _settle(finding: Finding, operation: Operation | None, at: Moment) -> bool:
    if operation is None:
        has_begun = at.watch - (finding.stopping_watch or 0) < BEGIN_SECONDS
        return not has_begun and _fail(finding, "The stop did not begin: its worker ended.", at)
    if operation.finished_at is None:
        return False
    if not finding.instance_id:
        return (
            lifecycle.note_stopped(finding, operation.result, at)
            if operation.success
            else _fail(finding, operation.result, at)
        )
    target = operation.targets.filter(instance_id=finding.instance_id).first()
    if target is not None and target.state == Target.State.CONFIRMED:
        return lifecycle.note_stopped(finding, "Stopped (verified).", at)
    if target is None or target.state == Target.State.SKIPPED:
        return lifecycle.clear(finding, (target and target.error) or operation.result, at)
    return _fail(finding, target.error or operation.result, at)


def _fail(finding: Finding, reason: str, at: Moment) -> bool:
    if finding.policy is None:
        return lifecycle.clear(finding, reason, at)
    return lifecycle.warn_again(finding, finding.policy, f"The stop failed: {reason}", at)


def _save(finding: Finding, before: str) -> None:
    values = {
        name: getattr(finding, name)
        for name in (
            "state",
            "reason",
            "warned_at",
            "warned_watch",
            "stops_at",
            "operation_id",
            "stopping_at",
            "due_at",
            "obstacle",
        )
    }
    if Finding.objects.filter(pk=finding.pk, state=before).update(**values):
        FindingStep.objects.create(finding=finding, state=finding.state, reason=finding.reason)
