"""What policies found: each step of a finding. A snooze, which a person makes, is an action (actions.py)."""

from collections.abc import Iterator
from typing import Final

from django.db.models import Q

from instances.activity.events import Event, Filter, Place
from instances.models import FindingState, FindingStep

SOURCE: Final = 5
# A policy acts by its name with this in front.
ACTOR: Final = "policy:"


def read(wanted: Filter, limit: int) -> Iterator[Event]:
    condition = wanted.find_condition(SOURCE, "at") & Q(by="")
    if wanted.actor:
        if not wanted.actor.startswith(ACTOR):
            return
        condition &= Q(finding__policy_name=wanted.actor.removeprefix(ACTOR))
    if wanted.instance_id:
        condition &= Q(finding__instance_id=wanted.instance_id)
    steps = FindingStep.objects.filter(condition).select_related("finding").order_by("-at", "-pk")
    for step in steps[:limit]:
        finding = step.finding
        yield Event(
            Place(step.at, SOURCE, step.pk),
            "policy",
            f"Policy {finding.policy_name}: {step.get_state_display()}",
            step.reason,
            ("finding", str(finding.pk)),
            "failed" if step.state in (FindingState.WARNED, FindingState.DUE) else "done",
            f"{ACTOR}{finding.policy_name}",
            instance_id=finding.instance_id,
            instance_name=finding.name,
        )
