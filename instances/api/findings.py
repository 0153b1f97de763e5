"""A finding of a policy, and whether policies act, as JSON."""

from typing import Any

from django.conf import settings
from rest_framework import serializers as fields

from instances.instance import format_time
from instances.models import EvaluationState, FindingState, Policy
from instances.policies import finding_list


class FindingSerializer(fields.Serializer[Any]):
    id = fields.IntegerField()
    policy = fields.CharField(help_text="The policy's name.")
    rule = fields.ChoiceField(choices=Policy.Rule.values, allow_null=True, help_text="null: the policy was deleted.")
    policyId = fields.IntegerField(allow_null=True, help_text="null: the policy was deleted.")
    mode = fields.ChoiceField(choices=Policy.Mode.values)
    instanceId = fields.CharField(allow_null=True, help_text="null: the whole account.")
    name = fields.CharField()
    state = fields.ChoiceField(choices=FindingState.values)
    message = fields.CharField(help_text='For people: "stops at 18:30: no work above 5 % since 17:00".')
    reason = fields.CharField()
    since = fields.DateTimeField(allow_null=True)
    savesPerHour = fields.FloatField(allow_null=True)
    warnedAt = fields.DateTimeField(allow_null=True)
    stopsAt = fields.DateTimeField(allow_null=True)
    snoozedUntil = fields.DateTimeField(allow_null=True)
    snoozedBy = fields.CharField(allow_null=True)
    endedAt = fields.DateTimeField(allow_null=True)
    operationId = fields.CharField(allow_null=True)


class ActingSerializer(fields.Serializer[Any]):
    on = fields.BooleanField(help_text="Whether policies may stop instances.")
    switchedBy = fields.CharField(allow_null=True, help_text="Who switched it last; null: nobody, or POLICIES.")
    switchedAt = fields.DateTimeField(allow_null=True)
    allowed = fields.BooleanField(help_text="false: the setting POLICIES keeps them off.")
    message = fields.CharField(allow_null=True, help_text="For people: who has switched it off; null: nothing to say.")


def show_finding(described: finding_list.Described) -> dict[str, Any]:
    finding, snooze = described.finding, described.snooze
    times = {"since": finding.since, "warnedAt": finding.warned_at, "stopsAt": finding.stops_at}
    times |= {"snoozedUntil": snooze.until if snooze else None, "endedAt": finding.ended_at}
    return {
        "id": finding.pk,
        "policy": finding.policy_name,
        "rule": finding.policy.rule if finding.policy else None,
        "policyId": finding.policy_id,
        "mode": finding.mode,
        "instanceId": finding.instance_id or None,
        "name": finding.name,
        "state": finding.state,
        "message": described.message,
        "reason": finding.reason,
        "savesPerHour": None if finding.usd_per_hour is None else float(finding.usd_per_hour),
        **{name: format_time(time) if time else None for name, time in times.items()},
        "snoozedBy": snooze.by if snooze else None,
        "operationId": str(finding.operation_id) if finding.operation_id else None,
    }


def show_acting(state: EvaluationState) -> dict[str, Any]:
    """Raises DatabaseError."""
    return {
        "on": settings.POLICIES and not state.is_switched_off,
        "allowed": settings.POLICIES,
        "switchedBy": state.switched_by or None,
        "switchedAt": format_time(state.switched_at) if state.switched_at else None,
        "message": _say_off(state),
    }


def _say_off(state: EvaluationState) -> str | None:
    if not settings.POLICIES:
        # Without a policy that stops, the setting has no effect.
        has_effect = Policy.objects.filter(is_on=True, mode=Policy.Mode.STOP).exists()
        return "Policies stop nothing: POLICIES is off in the settings." if has_effect else None
    by = state.switched_by or "an admin"
    return f"Policies stop nothing: {by} has switched them off." if state.is_switched_off else None
