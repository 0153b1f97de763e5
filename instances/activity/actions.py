"""What people did, by the audit entries. Those of an operation's targets are left out: the operation is one event."""

from collections.abc import Iterator
from typing import Final

from django.db.models import Q

from instances.access import audit
from instances.activity.events import Event, Filter, Kind, Place
from instances.models import Action, AuditEntry, Operation
from instances.operations import history

SOURCE: Final = 0

_KINDS: Final[dict[str, Kind]] = {
    Action.LOGIN: "login",
    Action.LOGOUT: "login",
    Action.SYNC: "sync",
    Action.CLEAR_CACHE: "sync",
    Action.START_INSTANCE: "action",
    Action.STOP_INSTANCE: "action",
    Action.RESTART_INSTANCE: "action",
    Action.SET_PROTECTION: "action",
    Action.REMOVE_PROTECTION: "action",
    Action.SET_ANNOTATION: "action",
    Action.FREEZE_STARTS: "action",
    Action.UNFREEZE_STARTS: "action",
    Action.SNOOZE: "policy",
    Action.UNSNOOZE: "policy",
    Action.CANCEL_OPERATION: "operation",
    Action.DISMISS_OPERATION: "operation",
}
_ON_INSTANCE: Final = {*history.ACTIONS, Action.SNOOZE, Action.UNSNOOZE}
# An operation is an event of its own.
_LEFT_OUT: Final = (Action.START_OPERATION, Action.STOP_OPERATION, Action.RESTART_OPERATION)
# The words for what somebody did or tried; {} is the target. The name of an instance follows.
_WORDS: Final[dict[str, str]] = {
    Action.LOGIN: "Log in",
    Action.LOGOUT: "Log out",
    Action.SYNC: "Synchronize",
    Action.CLEAR_CACHE: "Clear the cache",
    Action.START_INSTANCE: "Start",
    Action.STOP_INSTANCE: "Stop",
    Action.RESTART_INSTANCE: "Restart",
    Action.SET_PROTECTION: "Protect",
    Action.REMOVE_PROTECTION: "Remove the protection of",
    Action.SET_ANNOTATION: "Set owner and project of",
    Action.FREEZE_STARTS: "Freeze starts",
    Action.UNFREEZE_STARTS: "End the freeze of starts",
    Action.CANCEL_OPERATION: "Cancel an operation",
    Action.DISMISS_OPERATION: "Dismiss the result of an operation",
    Action.ADD_USER: "Add the user {}",
    Action.CHANGE_USER: "Change the user {}",
    Action.CHANGE_PASSWORD: "Change the password of {}",
    Action.DELETE_USER: "Delete the user {}",
    Action.CREATE_TOKEN: "Create the token {}",
    Action.REVOKE_TOKEN: "Revoke the token {}",
    Action.CHANGE_RULES: "Change the owner rule {}",
    Action.RESEND_WEBHOOK: "Send a webhook again",
    Action.ADD_POLICY: "Add the policy {}",
    Action.CHANGE_POLICY: "Change the policy {}",
    Action.DELETE_POLICY: "Delete the policy {}",
    Action.CONFIRM_POLICY: "Confirm that the policy {} may stop instances",
    Action.SWITCH_POLICIES: "Switch all policies",
    Action.CHANGE_CHANNELS: "Change the notification channel {}",
    Action.SNOOZE: "Snooze",
    Action.UNSNOOZE: "End the snooze of",
}

# What these say after the change is their result.
_WITH_RESULT: Final = {Action.FREEZE_STARTS, Action.SNOOZE, Action.SWITCH_POLICIES}


def read(wanted: Filter, limit: int) -> Iterator[Event]:
    for entry in AuditEntry.objects.filter(_find_condition(wanted))[:limit]:
        yield _describe(entry)


def _find_condition(wanted: Filter) -> Q:
    condition = wanted.find_condition(SOURCE, "at") & wanted.find_actor(AuditEntry, "actor") & ~Q(action__in=_LEFT_OUT)
    if wanted.kind == "settings":
        condition &= ~Q(action__in=_KINDS)
    elif wanted.kind is not None:
        condition &= Q(action__in=[action for action, kind in _KINDS.items() if kind == wanted.kind])
    if wanted.instance_id:
        condition &= Q(target=wanted.instance_id)
    # Operations that a shell began have no request.
    requests = Operation.objects.exclude(request_id="").values("request_id")
    return condition & ~(Q(action__startswith="instance.") & (Q(request_id__in=requests) | Q(request_id="")))


def _describe(entry: AuditEntry) -> Event:
    kind: Kind = _KINDS.get(entry.action, "settings")
    is_done = entry.outcome == audit.DONE
    is_on_instance = entry.action in _ON_INSTANCE
    return Event(
        Place(entry.at, SOURCE, entry.pk),
        kind,
        _say_what(entry),
        _say_result(entry) if is_done else entry.error or entry.outcome,
        ("auditentry", str(entry.pk)),
        "done" if is_done else "failed",
        entry.actor,
        entry.reason,
        entry.target if is_on_instance else "",
        entry.target_name if is_on_instance else "",
    )


def _say_what(entry: AuditEntry) -> str:
    if entry.action.startswith("command."):
        return f"Command {entry.action.removeprefix('command.')} {entry.target}".rstrip()
    return _WORDS.get(entry.action, entry.action).format(entry.target_name or entry.target)


def _say_result(entry: AuditEntry) -> str:
    if entry.action in history.ACTIONS:
        return history.say_action(entry)
    return entry.after if entry.action in _WITH_RESULT and entry.after else "Done."
