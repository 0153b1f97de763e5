"""What people are told of findings: one message for all warnings of a policy, with a link that snoozes each."""

import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from django.conf import settings

from instances.models import EventKind, Finding, FindingState, Policy
from instances.notifications import events
from instances.policies import finding_list, snoozing

PATH: Final = "/admin/instances/finding/"
_LOUD: Final = (FindingState.WARNED, FindingState.STOPPED)


def tell(changed: Sequence[Finding], *, is_again: bool = False) -> None:
    """Tell of new warnings and verified stops. A policy in the mode `observe` tells nobody.

    `is_again`: the stop that people were told of did not come, so the new warning is not the same message.
    """
    told = [one for one in changed if one.state in _LOUD and one.mode != Policy.Mode.OBSERVE]
    told.sort(key=lambda one: (one.policy_name, one.state, one.pk or 0))
    for (policy, state), group in groupby(told, key=lambda one: (one.policy_name, one.state)):
        findings = list(group)
        count = _count(findings)
        if state == FindingState.WARNED:
            title = f"Policy {policy} warns of {count}"
            lines = [line for one in findings for line in _describe(one)]
            events.tell(EventKind.POLICY_WARNING, _key_warning(policy, findings, is_again), title, lines, PATH)
        else:
            title = f"Policy {policy} has stopped {count}"
            lines = [f"{_name(one)}: {one.reason}" for one in findings]
            events.tell(EventKind.POLICY_STOP, _key(policy, findings), title, lines, PATH)


def ask(held: Sequence[Finding], obstacle: str) -> None:
    """Ask people about instances that are due, and that the policy does not stop."""
    if not held:
        return
    policy = held[0].policy_name
    lines = [obstacle, *(f"{_name(one)}: {one.reason}" for one in held)]
    title = f"Policy {policy} did not stop {_count(held)}"
    events.tell(EventKind.POLICY_STOP, _key(f"{policy}: {obstacle}", held), title, lines, PATH)


def _describe(finding: Finding) -> list[str]:
    lines = [f"{_name(finding)}: {finding_list.say(finding)}"]
    if settings.PUBLIC_URL and events.is_heard(EventKind.POLICY_WARNING):
        lines.append(f"Snooze: {settings.PUBLIC_URL}/snooze/{snoozing.make_link(finding)}/")
    return lines


def _name(finding: Finding) -> str:
    return finding.name or finding.instance_id or "The account"


def _count(findings: Sequence[Finding]) -> str:
    if not findings[0].instance_id:
        return "the account's spending"
    return _name(findings[0]) if len(findings) == 1 else f"{len(findings)} instances"


def _key_warning(policy: str, findings: Sequence[Finding], is_again: bool) -> str:
    """Return the key of a warning. One that comes and goes is the same message: its stops only come later than told.

    After a change of the policy a stop may come sooner than told, and another run has another user.
    """
    runs = ", ".join(sorted(f"{one.policy_version} {one.instance_id} {one.started}" for one in findings))
    return _key(f"{policy}: {'again ' if is_again else ''}{runs}", findings)


def _key(policy: str, findings: Sequence[Finding]) -> str:
    ids = "\n".join(sorted(one.instance_id for one in findings))
    return hashlib.sha256(f"{policy}\n{ids}".encode("utf-8", "replace")).hexdigest()
