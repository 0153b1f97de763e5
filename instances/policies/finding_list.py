"""Reads findings for people: each with its snooze and one sentence that says what happens next."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.db.models import Case, Count, F, Q, QuerySet, Sum, When
from django.utils import timezone

from instances.instance import format_time
from instances.models import Finding, FindingState, Policy, Snooze

OPEN: Final = "open"
SUMMED: Final = timedelta(days=30)
# A snoozed instance needs nobody, and one that isn't judged may be busy.
IDLE_STATES: Final = (FindingState.WARNED, FindingState.DUE)
_IS_IDLE: Final = Q(ended_at=None, policy__rule=Policy.Rule.IDLE, state__in=IDLE_STATES)


@dataclass(frozen=True)
class Described:
    finding: Finding
    snooze: Snooze | None
    message: str


@dataclass(frozen=True)
class Page:
    findings: Sequence[Described]
    total: int


def read(
    *, state: str | None = None, policy: int | None = None, instance: str | None = None, page: int = 1, size: int = 50
) -> Page:
    """Return a page of findings, the newest first. Raises DatabaseError."""
    found = Finding.objects.all()
    if state == OPEN:
        found = found.filter(ended_at=None)
    elif state:
        found = found.filter(state=state)
    if policy is not None:
        found = found.filter(policy=policy)
    if instance is not None:
        found = found.filter(instance_id=instance)
    shown = list(found.select_related("policy")[(page - 1) * size : page * size])
    return Page(_describe_all(shown), found.count())


def find_open() -> QuerySet[Finding]:
    """Return the findings that have not ended: first those of policies that stop, in the order of their stops."""
    return Finding.objects.filter(ended_at=None).order_by(
        Case(When(mode=Policy.Mode.STOP, then=0), default=1), F("stops_at").asc(nulls_last=True), "-pk"
    )


def list_open(limit: int) -> list[Described]:
    """Return the first of the findings that have not ended. Raises DatabaseError."""
    return _describe_all(list(find_open().select_related("policy")[:limit]))


def find_idle(query: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of the instances that are idle, if a query selects these. Raises DatabaseError."""
    if query.get("attention") != "idle":
        return frozenset()
    return frozenset(Finding.objects.filter(_IS_IDLE).values_list("instance_id", flat=True))


def is_idle(finding: Finding) -> bool:
    """Tell whether an open finding says that its instance is idle."""
    return finding.state in IDLE_STATES and finding.policy is not None and finding.policy.rule == Policy.Rule.IDLE


def map_idle(without: Collection[str] = ()) -> dict[str, datetime | None]:
    """Return since when each idle instance is idle, except for some. Raises DatabaseError."""
    found = Finding.objects.filter(_IS_IDLE).order_by("-since").values_list("instance_id", "since")
    return {id_: since for id_, since in found if id_ not in without}


def mark_open() -> dict[str, int | None]:
    """Return values that change with the open findings, and with the idle ones among them. Raises DatabaseError."""
    return Finding.objects.filter(ended_at=None).aggregate(
        open=Count("pk"), sum=Sum("pk"), idle=Sum("pk", filter=_IS_IDLE)
    )


@dataclass(frozen=True)
class Found:
    """What a policy has found: open findings, what they cost an hour, and what came of it within SUMMED.

    `missed_usd` was spent on instances after they were due: what a policy that doesn't stop would have saved. An
    instance without a known cost adds nothing.
    """

    open: int = 0
    usd_per_hour: Decimal = Decimal(0)
    stopped: int = 0
    missed_usd: Decimal = Decimal(0)


def sum_up() -> dict[int, Found]:
    """Return what each policy has found, by its id. Raises DatabaseError."""
    now = timezone.now()
    recent = Finding.objects.filter(Q(ended_at=None) | Q(ended_at__gt=now - SUMMED), policy__isnull=False).order_by()
    found: dict[int, Found] = defaultdict(Found)
    for policy_id, state, usd, due_at, ended_at in recent.values_list(
        "policy", "state", "usd_per_hour", "due_at", "ended_at"
    ):
        one, usd = found[policy_id], usd or Decimal(0)
        hours = max(0.0, ((ended_at or now) - max(due_at, now - SUMMED)).total_seconds() / 3600) if due_at else 0.0
        found[policy_id] = Found(
            one.open + (ended_at is None),
            one.usd_per_hour + (usd if ended_at is None else 0),
            one.stopped + (state == FindingState.STOPPED),
            one.missed_usd + usd * Decimal(hours),
        )
    return dict(found)


def say_found(policy: Policy, found: Found) -> str:
    """Return "3 open, $2.06/h; would have saved $12.40 in 30 days"."""
    parts = [f"{found.open:,} open, ${found.usd_per_hour:,.2f}/h" if found.open else "nothing open"]
    if policy.mode != Policy.Mode.STOP:
        parts.append(f"would have saved ${found.missed_usd:,.2f} in {SUMMED.days} days")
    elif found.stopped:
        parts.append(f"stopped {found.stopped:,} in {SUMMED.days} days")
    return "; ".join(parts)


def describe(finding: Finding) -> Described:
    return _describe_all([finding])[0]


def _describe_all(findings: Sequence[Finding]) -> list[Described]:
    snoozed = [one.instance_id for one in findings if one.state == FindingState.SNOOZED]
    in_force = Snooze.objects.filter(removed_at=None, until__gt=timezone.now(), instance_id__in=snoozed)
    snoozes = list(in_force) if snoozed else []
    described = []
    for finding in findings:
        snooze = next((one for one in snoozes if _covers(one, finding)), None)
        described.append(Described(finding, snooze, say(finding, snooze)))
    return described


def _covers(snooze: Snooze, finding: Finding) -> bool:
    is_own = snooze.policy_id in (None, finding.policy_id)
    return finding.state == FindingState.SNOOZED and is_own and snooze.instance_id == finding.instance_id


def say(finding: Finding, snooze: Snooze | None = None) -> str:
    """Return the sentence on a finding: "Stops at 2026-01-15T18:30:00Z: no work above 5 % since 17:00."."""
    reason = finding.reason
    match finding.state:
        case FindingState.WARNED if finding.stops_at:
            return f"{_say_plan(finding)} at {format_time(finding.stops_at)}: {reason}"
        case FindingState.DUE:
            return finding.obstacle or f"{_say_due(finding)}: {reason}"
        case FindingState.STOPPING:
            return f"Stopping: {reason}"
        case FindingState.SNOOZED if snooze:
            why = f": {snooze.reason}" if snooze.reason else "."
            return f"Snoozed until {format_time(snooze.until)} by {snooze.by}{why}"
        case FindingState.UNKNOWN:
            return f"Not judged: {reason}"
    return reason


def _say_plan(finding: Finding) -> str:
    return {Policy.Mode.STOP: "Stops", Policy.Mode.OBSERVE: "Would stop"}.get(Policy.Mode(finding.mode), "Due")


def _say_due(finding: Finding) -> str:
    return {Policy.Mode.STOP: "Stops next", Policy.Mode.OBSERVE: "Would be stopped by now"}.get(
        Policy.Mode(finding.mode), "Due"
    )
