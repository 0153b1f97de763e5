"""The life of a finding: warned → due → stopping → stopped, or snoozed, unknown, cleared. Pure.

A stop is only ever due after a warning, and a full grace period of the watch without a moment of activity, of not
knowing, of snoozing, and without a change of the policy: each of these starts the warning again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from instances.instance import clean_text
from instances.models import Finding, FindingState, Policy, Snooze
from instances.policies.judging import Judgement, Verdict

# A planned time that moves by less is not written again.
_PLAN_SLACK: Final = timedelta(seconds=90)


@dataclass(frozen=True)
class Moment:
    """The time of an evaluation: by the wall clock, for people, and by the watch, in seconds, for grace periods."""

    now: datetime
    watch: float


def begin(
    policy: Policy, shown: Mapping[str, Any] | None, judgement: Judgement, snooze: Snooze | None, at: Moment
) -> Finding:
    """Return a new finding on a broken rule: a warning, unless it is snoozed. None in `shown`: on the whole account."""
    cost = shown["costPerHour"] if shown else None
    finding = Finding(
        policy=policy,
        policy_name=policy.name,
        policy_version=policy.version,
        mode=policy.mode,
        instance_id=shown["id"] if shown else "",
        name=clean_text(shown["name"], 255) if shown else "",
        started=find_start(shown),
        usd_per_hour=None if cost is None else Decimal(str(cost)),
        began_at=at.now,
        reason=judgement.reason,
        since=judgement.since,
    )
    if snooze:
        finding.state = FindingState.SNOOZED
    else:
        _warn(finding, policy, at)
    return finding


def find_start(shown: Mapping[str, Any] | None) -> str:
    """Return the start that a finding is about; "" when it isn't known, and for the account."""
    return (shown and shown["lastStartedAt"]) or ""


def advance(finding: Finding, policy: Policy, judgement: Judgement, snooze: Snooze | None, at: Moment) -> bool:
    """Bring an open finding up to date, and return whether its state has changed. A stop that is requested goes on."""
    before = finding.state
    if before == FindingState.STOPPING:
        return False
    if finding.policy_version != policy.version:
        return clear(finding, "The policy was changed.", at)
    if judgement.verdict == Verdict.KEPT:
        return clear(finding, judgement.reason, at)
    finding.reason = judgement.reason
    if snooze:
        finding.state = FindingState.SNOOZED
    elif judgement.verdict == Verdict.UNKNOWN:
        finding.state = FindingState.UNKNOWN
    else:
        finding.since = _earlier(finding.since, judgement.since)
        if before not in (FindingState.WARNED, FindingState.DUE):
            _warn(finding, policy, at)
        _await_grace(finding, policy, at)
    if finding.state in (FindingState.SNOOZED, FindingState.UNKNOWN):
        finding.stops_at = finding.due_at = None
        finding.obstacle = ""
    return finding.state != before


def _warn(finding: Finding, policy: Policy, at: Moment) -> None:
    finding.state = FindingState.WARNED
    finding.warned_at, finding.warned_watch = at.now, at.watch
    finding.stops_at = at.now + timedelta(minutes=policy.warning_minutes)
    finding.due_at, finding.obstacle = None, ""


def _await_grace(finding: Finding, policy: Policy, at: Moment) -> None:
    """Let a warning become due when its grace period has passed; otherwise plan its end."""
    left = policy.warning_minutes * 60 - (at.watch - finding.warned_watch)
    if finding.state != FindingState.WARNED:
        return
    if left <= 0:
        finding.state, finding.due_at = FindingState.DUE, at.now
        return
    planned = at.now + timedelta(seconds=left)
    if finding.stops_at is None or abs(planned - finding.stops_at) > _PLAN_SLACK:
        finding.stops_at = planned


def _earlier(first: datetime | None, second: datetime | None) -> datetime | None:
    return min(filter(None, (first, second)), default=None)


def clear(finding: Finding, reason: str, at: Moment) -> bool:
    """End a finding without a stop of the policy."""
    return _end(finding, FindingState.CLEARED, reason, at)


def note_stopped(finding: Finding, reason: str, at: Moment) -> bool:
    """End a finding whose stop is verified."""
    return _end(finding, FindingState.STOPPED, reason, at)


def warn_again(finding: Finding, policy: Policy, reason: str, at: Moment) -> bool:
    """Begin again with a warning, after a stop that failed."""
    _warn(finding, policy, at)
    finding.reason, finding.operation_id, finding.stopping_at = reason, None, None
    return True


def _end(finding: Finding, state: FindingState, reason: str, at: Moment) -> bool:
    finding.state, finding.reason, finding.ended_at = state, reason, at.now
    finding.stops_at, finding.obstacle = None, ""
    return True
