"""Creates, changes and deletes policies, with their validation. Each change counts up the policy's version.

A change of the version lets every finding begin again with a warning.
"""

import logging
import math
from collections.abc import Mapping
from typing import Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from instances.access import audit
from instances.access.audit import Actor
from instances.errors import InvalidRequest, NameTaken, PolicyChanged, PolicyNotFound
from instances.instance import clean_text
from instances.models import Action, EvaluationState, Policy
from instances.policies import acting, schedule, watch
from novita_site.log import Fields

log = logging.getLogger(__name__)

# The fields that a person sets.
FIELDS: Final = (
    *("name", "mode", "is_on", "name_pattern", "region", "gpu", "owner", "project", "billing_mode", "rule"),
    *("threshold_percent", "window_minutes", "start_grace_minutes", "max_hours", "hours", "time_zone"),
    *("excepted_days", "hand_start_hours", "max_usd_per_hour", "min_runway_hours", "warning_minutes"),
    "max_stops_per_hour",
)
# Field → the lowest and the highest value that makes sense.
_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "threshold_percent": (0, 100),
    # Novita's metrics reach back a day (seen, not documented).
    "window_minutes": (10, 1380),
    "start_grace_minutes": (0, 1440),
    "max_hours": (0.1, 8784),
    "hand_start_hours": (0, 168),
    "max_usd_per_hour": (0, 1_000_000),
    "min_runway_hours": (0.1, 8784),
    "warning_minutes": (1, 10080),
    "max_stops_per_hour": (1, 10000),
}


def get(policy_id: int | str) -> Policy:
    """Raises PolicyNotFound."""
    is_id = str(policy_id).isascii() and str(policy_id).isdecimal() and len(str(policy_id)) < 19
    policy = Policy.objects.filter(pk=policy_id).first() if is_id else None
    if policy is None:
        raise PolicyNotFound
    return policy


def find_problems(policy: Policy) -> dict[str, str]:
    """Return what is wrong with a policy: a sentence for each field."""
    problems: dict[str, str] = {}
    for name, (lowest, highest) in _LIMITS.items():
        value = getattr(policy, name)
        if value is not None and not (math.isfinite(value) and lowest <= value <= highest):
            problems[name] = f"Name a number from {lowest:g} to {highest:,.10g}."
    if not policy.name.strip():
        problems["name"] = "Give the policy a name."
    # "Until tomorrow 09:00" is in the policy's time zone, whatever its rule.
    if policy.rule == Policy.Rule.SCHEDULE or policy.time_zone:
        problems |= _find_schedule_problems(time_zone=("Mon 08:00-20:00", policy.time_zone, ""))
    match policy.rule:
        case Policy.Rule.LEASE:
            if policy.max_hours is None:
                problems["max_hours"] = "Name the hours after which an instance is stopped."
        case Policy.Rule.SCHEDULE:
            texts = {
                "hours": (policy.hours, "UTC", ""),
                "excepted_days": ("Mon 08:00-20:00", "UTC", policy.excepted_days),
            }
            problems |= _find_schedule_problems(**texts)
        case Policy.Rule.BUDGET:
            if policy.max_usd_per_hour is None and policy.min_runway_hours is None:
                problems["max_usd_per_hour"] = "Name a limit: USD per hour, or hours that the balance must last."
    return problems


def _find_schedule_problems(**parts: tuple[str, str, str]) -> dict[str, str]:
    """Return what is wrong with the fields, each given with valid values for the others."""
    problems = {}
    for name, texts in parts.items():
        try:
            schedule.read(*texts)
        except schedule.WrongSchedule as exc:
            problems[name] = str(exc)
    return problems


def save(policy: Policy, *, actor: Actor) -> Policy:
    """Store a new policy, or the changes of one that is stored as it was read.

    Raises InvalidRequest with a sentence for each wrong field, NameTaken, and PolicyChanged: the fields that somebody
    else has set meanwhile would get their previous values again.
    """
    before = Policy.objects.filter(pk=policy.pk).first() if policy.pk else None
    action = Action.CHANGE_POLICY if before else Action.ADD_POLICY
    for name in FIELDS:
        if isinstance(value := getattr(policy, name), str):
            setattr(policy, name, clean_text(value.strip()))
    with audit.recorded(actor, action, policy.name, before=_say(before), after=_say(policy)):
        if problems := find_problems(policy):
            raise InvalidRequest(fields=problems)
        if _needs_confirmation(before, policy):
            # A confirmation is for what the policy was when its name was typed.
            policy.stop_confirmed_by = ""
        policy.changed_by, policy.changed_at = actor.name[:150], timezone.now()
        try:
            with transaction.atomic():
                if policy.pk:
                    _lock_as_read(policy)
                    policy.version += 1
                policy.save()
        except IntegrityError as exc:
            raise NameTaken from exc
    log.info("policy %r saved%s", policy.name, Fields(by=actor.name, version=policy.version, mode=policy.mode))
    acting.cancel(policy, actor=actor)
    return policy


def _lock_as_read(policy: Policy) -> None:
    """Keep others from changing the policy until the transaction ends. Raises PolicyChanged if one has changed it."""
    unchanged = Policy.objects.filter(pk=policy.pk, version=policy.version)
    if not unchanged.select_for_update().exists():
        raise PolicyChanged


def _needs_confirmation(before: Policy | None, policy: Policy) -> bool:
    return before is None or any(getattr(before, name) != getattr(policy, name) for name in FIELDS)


def _say(policy: Policy | None) -> str:
    if policy is None:
        return ""
    return f"{policy.rule}, {policy.mode}{'' if policy.is_on else ', switched off'}"


def delete(policy: Policy, *, actor: Actor) -> None:
    """Delete a policy. Its findings stay as records; those that are open end with the next evaluation."""
    with audit.recorded(actor, Action.DELETE_POLICY, policy.name, before=_say(policy)):
        acting.cancel(policy, actor=actor)
        policy.delete()
    log.info("policy %r deleted%s", policy.name, Fields(by=actor.name))


def confirm_stop(policy: Policy, typed: str, *, actor: Actor) -> Policy:
    """Allow a budget policy to stop instances, once an admin has typed its name.

    Raises InvalidRequest and PolicyChanged.
    """
    with audit.recorded(actor, Action.CONFIRM_POLICY, policy.name):
        if policy.rule != Policy.Rule.BUDGET:
            raise InvalidRequest(fields={"name": "Only a budget policy needs this."})
        if typed != policy.name:
            raise InvalidRequest(fields={"name": f"Type the policy's name to confirm: {policy.name}"})
        # Only for the policy as the admin saw it: another may have changed a limit meanwhile.
        unchanged = Policy.objects.filter(pk=policy.pk, version=policy.version)
        if not unchanged.update(stop_confirmed_by=actor.name[:150], version=policy.version + 1):
            raise PolicyChanged
    policy.refresh_from_db()
    return policy


def switch(*, is_off: bool, actor: Actor) -> tuple[EvaluationState, int]:
    """Switch all acting of all policies off, or on again. Return the state, and how many stops that has cancelled."""
    with audit.recorded(actor, Action.SWITCH_POLICIES) as entry:
        state = watch.write_switch(is_off=is_off, by=actor.name)
        # First the switch: what begins from now on requests nothing.
        cancelled = acting.cancel(actor=actor) if is_off else 0
        entry.after = f"off{say_cancelled(cancelled)}" if is_off else "on"
    log.warning("policies switched %s%s", "off" if is_off else "on", Fields(by=actor.name, cancelled=cancelled))
    return state, cancelled


def say_cancelled(count: int) -> str:
    return f"; {count} stop{'' if count == 1 else 's'} cancelled" if count else ""
