"""Evaluates all policies: judge each instance, bring the findings up to date, then stop what is due.

One pass reads the inventory, the metrics, the findings, snoozes and protections once, and writes what changed.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from instances.costs import balance, burn
from instances.inventory import store
from instances.models import Finding, FindingState, FindingStep, Policy, Snooze, SnoozeLink, old
from instances.operations import protections
from instances.policies import acting, judging, lifecycle, selection, telling, watch
from instances.policies.judging import Account, Judgement
from instances.policies.lifecycle import Moment
from instances.utilization import readings
from instances.utilization.reading import Reading

log = logging.getLogger(__name__)

Shown = Mapping[str, Any]
# An older balance says nothing about now.
MAX_BALANCE_AGE: Final = timedelta(minutes=30)
STALE: Final = "The inventory is stale, so its state is not known."
NOT_RUNNING: Final = "It is no longer running, or the policy no longer applies to it."
STARTED_AGAIN: Final = "It was started again."
SWITCHED_OFF: Final = "The policy was switched off or deleted."

_watch: watch.Watch | None = None


@dataclass
class Facts:
    """What an evaluation knows. `listed` is None when the inventory is stale or missing."""

    at: Moment
    listed: Sequence[Shown] | None
    protected: Mapping[str, Any]
    readings: Mapping[str, Reading]
    account: Account
    snoozes: Sequence[Snooze]

    def find_snooze(self, policy: Policy, instance_id: str) -> Snooze | None:
        for one in self.snoozes:
            if one.instance_id == instance_id and one.policy_id in (None, policy.pk):
                return one
        return None


@dataclass
class Outcome:
    """What an evaluation changed: findings with a new state, with what was written before."""

    created: list[Finding] = field(default_factory=list)
    changed: list[tuple[Finding, str]] = field(default_factory=list)
    touched: list[Finding] = field(default_factory=list)


def run() -> None:
    """Evaluate the policies when it is this worker's turn. Raises CacheUnavailable and DatabaseError."""
    global _watch
    _watch = _watch or watch.Watch()
    with _watch.turn() as at:
        if at is None:
            return
        if Policy.objects.filter(is_on=True).exists() or Finding.objects.filter(ended_at=None).exists():
            evaluate(read_facts(at), uptime_seconds=_watch.uptime_seconds)


def forget_old() -> None:
    """Delete the findings that ended long ago, and used or expired links."""
    days = settings.KEEP_FINDINGS_DAYS
    old.delete(old.list_old(Finding.objects.all(), "ended_at", days))
    old.delete(old.list_old(Snooze.objects.all(), "until", days))
    old.delete(old.list_old(SnoozeLink.objects.all(), "expires_at", 0))


def evaluate(facts: Facts, *, uptime_seconds: float) -> None:
    """Judge everything, write what has changed, and stop what is due."""
    at = facts.at
    policies = list(Policy.objects.filter(is_on=True))
    open_findings = list(Finding.objects.filter(ended_at=None).select_related("policy"))
    outcome = Outcome()
    by_key = {(one.policy_id, one.instance_id): one for one in open_findings}
    for policy in policies:
        for instance_id, shown, judgement in _judge(policy, facts):
            finding = by_key.pop((policy.pk, instance_id), None)
            _advance(finding, policy, shown, judgement, facts, outcome)
    kept = {policy.pk: policy for policy in policies}
    for finding in by_key.values():
        _end_left(finding, kept.get(finding.policy_id or 0), facts, outcome)
    acting.settle([one for one in open_findings if one.state == FindingState.STOPPING], at, outcome.changed)
    written = _write(outcome)
    failed = {one.pk for one, before in outcome.changed if before == FindingState.STOPPING}
    telling.tell([one for one in written if one.pk not in failed])
    telling.tell([one for one in written if one.pk in failed], is_again=True)
    due = [one for one in open_findings if one.state == FindingState.DUE and one.mode == Policy.Mode.STOP]
    if due and facts.listed is not None:
        acting.act(due, facts.listed, facts.readings, facts.account, at, uptime_seconds)


def read_facts(at: Moment) -> Facts:
    """Raises CacheUnavailable and DatabaseError."""
    listing = store.read_listing()
    listed = None if listing.freshness.as_of is None or listing.freshness.is_stale else list(listing.instances)
    found = burn.find(listing.revision, listing.instances) if listed is not None else None
    in_force = Snooze.objects.filter(until__gt=at.now, removed_at=None)
    has_idle = Policy.objects.filter(is_on=True, rule=Policy.Rule.IDLE).exists()
    running = [shown["id"] for shown in listed or () if shown["group"] == "running"]
    return Facts(
        at=at,
        listed=listed,
        protected=protections.read(),
        readings=readings.read_many(running) if has_idle else {},
        account=_read_account(found, at),
        snoozes=list(in_force),
    )


def _read_account(found: burn.Burn | None, at: Moment) -> Account:
    if found is None:
        return Account(None, None)
    per_hour = found.total.per_hour
    reading = balance.read()
    is_old = reading.read_at is None or abs(at.now - reading.read_at) > MAX_BALANCE_AGE
    hours_left = None if is_old else reading.find_hours_left(per_hour)
    if per_hour == 0 and not is_old:
        hours_left = Decimal("Infinity")
    return Account(
        None if per_hour is None else float(per_hour),
        None if hours_left is None else float(hours_left),
        found.total.unknown,
    )


def _judge(policy: Policy, facts: Facts) -> Sequence[tuple[str, Shown | None, Judgement]]:
    """Return a judgement for each instance that the policy applies to; for a budget one, for the account."""
    if facts.listed is None:
        return []
    if policy.rule == Policy.Rule.BUDGET:
        return [("", None, judging.judge_budget(policy, facts.account))]
    found = facts.readings if policy.rule == Policy.Rule.IDLE else {}
    return [
        (shown["id"], shown, judging.judge(policy, shown, found.get(shown["id"]), facts.at.now))
        for shown in selection.select(policy, facts.listed, facts.protected)
    ]


def _advance(
    finding: Finding | None,
    policy: Policy,
    shown: Shown | None,
    judgement: Judgement,
    facts: Facts,
    outcome: Outcome,
) -> None:
    instance_id = shown["id"] if shown else ""
    snooze = facts.find_snooze(policy, instance_id)
    if finding is None:
        if judgement.is_broken:
            outcome.created.append(lifecycle.begin(policy, shown, judgement, snooze, facts.at))
        return
    before, planned = finding.state, finding.stops_at
    if before != FindingState.STOPPING and finding.started != lifecycle.find_start(shown):
        # Whoever started it was not warned.
        lifecycle.clear(finding, STARTED_AGAIN, facts.at)
        outcome.changed.append((finding, before))
    elif lifecycle.advance(finding, policy, judgement, snooze, facts.at):
        outcome.changed.append((finding, before))
    elif finding.stops_at != planned:
        outcome.touched.append(finding)


def _end_left(finding: Finding, policy: Policy | None, facts: Facts, outcome: Outcome) -> None:
    """End a finding whose instance was not judged. On stale data nothing is known: its warning begins again later."""
    before = finding.state
    if before == FindingState.STOPPING:
        return
    if policy is None:
        changed = lifecycle.clear(finding, SWITCHED_OFF, facts.at)
    elif facts.listed is None:
        changed = lifecycle.advance(finding, policy, judging.unknown(STALE), None, facts.at)
    elif protection := facts.protected.get(finding.instance_id):
        changed = lifecycle.clear(finding, f"Protected: {protection.reason}", facts.at)
    else:
        changed = lifecycle.clear(finding, NOT_RUNNING, facts.at)
    if changed:
        outcome.changed.append((finding, before))


_WRITTEN: Final = (
    *("state", "reason", "obstacle", "since", "warned_at", "stops_at", "due_at", "stopping_at", "ended_at"),
    *("operation_id", "warned_watch"),
)


def _write(outcome: Outcome) -> list[Finding]:
    """Write what has changed, and return it. A finding that somebody has changed meanwhile stays as it is."""
    with transaction.atomic():
        Finding.objects.bulk_create(outcome.created, batch_size=500)
        written = list(outcome.created)
        for finding, before in outcome.changed:
            if _update(finding, before):
                written.append(finding)
        for finding in outcome.touched:
            _update(finding, finding.state)
        FindingStep.objects.bulk_create(
            [FindingStep(finding=one, state=one.state, reason=one.reason) for one in written], batch_size=500
        )
    for finding in written:
        log.info(
            "policy %s: %s is %s: %s", finding.policy_name, finding.instance_id or "-", finding.state, finding.reason
        )
    return written


def _update(finding: Finding, before: str) -> bool:
    values = {name: getattr(finding, name) for name in _WRITTEN}
    return bool(Finding.objects.filter(pk=finding.pk, state=before, ended_at=None).update(**values))
