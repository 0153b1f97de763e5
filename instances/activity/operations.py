"""Operations: one event each, at its start, with its result."""

import uuid
from collections.abc import Iterator
from typing import Final

from django.db.models import Count, Q

from instances.activity.events import Event, Filter, Outcome, Place
from instances.models import Operation, Target

SOURCE: Final = 1


def read(wanted: Filter, limit: int) -> Iterator[Event]:
    key = uuid.UUID(int=wanted.before.key % 2**128) if wanted.before else None
    condition = wanted.find_condition(SOURCE, "created_at", key) & wanted.find_actor(Operation, "requested_by")
    if wanted.instance_id:
        condition &= Q(pk__in=Target.objects.filter(instance_id=wanted.instance_id).values("operation"))
    operations = list(Operation.objects.filter(condition)[:limit])
    counted = Target.objects.filter(operation__in=operations).exclude(state=Target.State.SKIPPED).order_by()
    totals = dict(counted.values_list("operation").annotate(Count("pk")))
    for operation in operations:
        yield _describe(operation, totals.get(operation.pk, 0))


def _describe(operation: Operation, total: int) -> Event:
    outcome: Outcome = "running" if operation.finished_at is None else "done" if operation.success else "failed"
    scope = "all" if operation.is_whole_account else "a selection"
    return Event(
        Place(operation.created_at, SOURCE, operation.pk.int),
        "operation",
        f"{operation.kind.capitalize()} of {scope}: {total} instance{'' if total == 1 else 's'}",
        "Running." if outcome == "running" else operation.result,
        ("operation", str(operation.pk)),
        outcome,
        operation.requested_by,
        operation.reason,
    )
