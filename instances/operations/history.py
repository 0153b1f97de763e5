"""What happened to one instance: what people and operations did, what was done elsewhere, what was observed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Final, Literal

from django.db.models import Q

from instances.access import audit
from instances.errors import InstanceNotFound
from instances.instance import clean_text
from instances.inventory import store
from instances.models import Action, AuditEntry, Operation, SyncRun, Target, UsageInterval
from instances.models.usage import PRICE_UNITS_PER_USD
from instances.operations import wording

LIMIT: Final = 20
# The newest synchronizations that met a change made elsewhere: so many are searched for those of the instance.
SEARCHED_RUNS: Final = 200

# Actions on one instance → the noun for one that failed.
ACTIONS: Final = {
    Action.START_INSTANCE: "Start",
    Action.STOP_INSTANCE: "Stop",
    Action.RESTART_INSTANCE: "Restart",
    Action.SET_PROTECTION: "Protection",
    Action.REMOVE_PROTECTION: "Removal of the protection",
    Action.SET_ANNOTATION: "Change of owner and project",
}
_State = UsageInterval.State


@dataclass(frozen=True)
class Event:
    """`kind` tells the source: the activity, an operation, or what synchronizations observed."""

    at: datetime
    kind: Literal["action", "operation", "change"]
    message: str
    actor: str = ""
    reason: str = ""
    operation_id: str = ""


def read(instance_id: str, limit: int = LIMIT) -> list[Event]:
    """Return the newest events, with four queries. Raises InstanceNotFound for an instance that left no trace."""
    known_id = clean_text(instance_id, 128)
    events = [
        *_read_actions(known_id, limit),
        *_read_operations(known_id, limit),
        *_read_outside(known_id),
        *_read_changes(known_id, limit),
    ]
    if not events and store.find_instance(instance_id)[1] is None:
        raise InstanceNotFound
    return sorted(events, key=lambda event: event.at, reverse=True)[:limit]


def _read_actions(instance_id: str, limit: int) -> Iterator[Event]:
    # Those of an operation's targets are told with the operation.
    operations = Operation.objects.filter(targets__instance_id=instance_id).values("request_id")
    of_targets = Q(action__startswith="instance.") & (Q(request_id="") | Q(request_id__in=operations))
    for entry in AuditEntry.objects.filter(~of_targets, target=instance_id, action__in=ACTIONS)[:limit]:
        reason = entry.reason if entry.action == Action.SET_PROTECTION else ""
        yield Event(entry.at, "action", say_action(entry), entry.actor, reason)


def say_action(entry: AuditEntry) -> str:
    noun = ACTIONS[Action(entry.action)]
    if entry.outcome != audit.DONE:
        return f"{noun} failed: {entry.error or entry.outcome}"
    match entry.action:
        case Action.SET_PROTECTION:
            return "Protected."
        case Action.REMOVE_PROTECTION:
            return "Protection removed."
        case Action.SET_ANNOTATION:
            return f"Set: {entry.after}." if entry.after else "Owner, project and note removed."
    return f"Already {wording.say_status(entry.after)}." if entry.before == entry.after else f"{noun} requested."


def _read_operations(instance_id: str, limit: int) -> Iterator[Event]:
    found = Target.objects.filter(instance_id=instance_id).select_related("operation")
    for target in found.order_by("-operation__created_at", "-pk")[:limit]:
        operation = target.operation
        scope = "all" if operation.is_whole_account else "a selection"
        yield Event(
            # A verified effect has its own time, and everything else that of the order.
            target.confirmed_at or target.requested_at or operation.created_at,
            "operation",
            f"{operation.kind.capitalize()} of {scope}: {wording.say_target(operation, target)}",
            operation.requested_by,
            operation.reason,
            str(operation.pk),
        )


def _read_outside(instance_id: str) -> Iterator[Event]:
    """Yield what was done elsewhere, at the time of the synchronization that met it."""
    runs = SyncRun.objects.filter(outside_count__gt=0).values_list("started_at", "outside")
    for at, outside in runs[:SEARCHED_RUNS]:
        for one in outside:
            if one["id"] == instance_id:
                yield Event(at, "change", f"{one['change'].capitalize()} outside this panel.")


def _read_changes(instance_id: str, limit: int) -> Iterator[Event]:
    """Yield what the ledger of costs has observed. What merely went on is no change."""
    # One more than wanted tells whether the last one is a change.
    intervals = list(UsageInterval.objects.filter(instance__instance_id=instance_id)[: limit + 1])
    for interval, earlier in zip_longest(intervals[:limit], intervals[1:]):
        message = _say_state(interval)
        if earlier is None or message != _say_state(earlier):
            inferred = " Not observed: known from Novita's times." if interval.is_inferred else ""
            yield Event(interval.began_at, "change", f"{message}{inferred}")


def _say_state(interval: UsageInterval) -> str:
    price = "not known" if interval.price is None else f"${Decimal(interval.price) / PRICE_UNITS_PER_USD:,.2f}/h"
    match interval.state:
        case _State.GPU:
            return "GPUs in use, prepaid." if interval.price == 0 else f"GPUs charged; price: {price}."
        case _State.STORAGE:
            return f"Stopped; price of the disk: {price}." if interval.price else "Stopped."
        case _State.NOTHING:
            return "Being created; nothing is charged yet."
    return "Not observed: the panel doesn't know what happened from here on."
