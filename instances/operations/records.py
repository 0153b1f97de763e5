"""Operations as the database holds them: find, list, annotate, dismiss and delete them."""

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from instances.access import audit
from instances.access.audit import Actor
from instances.errors import NothingToRestore, NothingToRetry, OperationNotFound, OperationRunning
from instances.instance import clean_texts
from instances.inventory.queries import NaturalKey, get_natural_key
from instances.models import Action, Operation, Target, old

log = logging.getLogger(__name__)

MAX_SUPERSEDED: Final = 100
MAX_SHOWN: Final = 20


@dataclass(frozen=True)
class Snapshot:
    """An operation and its targets, as they were read together."""

    operation: Operation
    targets: Sequence[Target]

    @property
    def counts(self) -> dict[str, int]:
        """Return how many targets are in each state."""
        counts = dict.fromkeys(Target.State.values, 0)
        for target in self.targets:
            counts[target.state] += 1
        return counts

    @property
    def total(self) -> int:
        """Return how many targets were not skipped."""
        return sum(target.state != Target.State.SKIPPED for target in self.targets)


@dataclass(frozen=True)
class Summary:
    """An operation without its targets: how many are in each state."""

    operation: Operation
    counts: Mapping[str, int]


def parse_id(operation_id: uuid.UUID | str) -> uuid.UUID:
    """Raise OperationNotFound for a text that is no operation's id."""
    try:
        return uuid.UUID(str(operation_id))
    except ValueError as exc:
        raise OperationNotFound from exc


def get(operation_id: uuid.UUID | str) -> Operation:
    """Return an operation. Raises OperationNotFound."""
    try:
        return Operation.objects.get(pk=parse_id(operation_id))
    except Operation.DoesNotExist as exc:
        raise OperationNotFound from exc


def get_snapshot(operation: Operation, targets: Iterable[Target] | None = None) -> Snapshot:
    """Return an operation with its targets, as the database holds them or as given, in the order of their names."""
    return Snapshot(operation, sort_targets(operation.targets.all() if targets is None else targets))


def sort_targets(targets: Iterable[Target]) -> list[Target]:
    """Sort targets by name as people read them: "worker-2" before "worker-10"."""
    return sorted(targets, key=get_target_key)


def get_target_key(target: Target) -> tuple[NaturalKey, NaturalKey]:
    return get_natural_key(target.name), get_natural_key(target.instance_id)


def list_summaries(state: str | None, page: int, page_size: int) -> tuple[list[Summary], int]:
    """Return a page of the operations, the newest first, and how many there are on all pages."""
    found = Operation.objects.filter(state=state) if state else Operation.objects.all()
    start = (page - 1) * page_size
    return summarize(list(found[start : start + page_size])), found.count()


def list_shown(since: datetime) -> list[Operation]:
    """Return what a dashboard shows, the newest first: the running operations, those that ended since then, and the
    failures that nobody has dismissed and no retry supersedes.

    An operation that was cancelled is a failure only if a request had been sent and is not verified.
    """
    recent = Operation.objects.filter(Q(finished_at=None) | Q(finished_at__gt=since))
    is_unverified = Exists(Target.objects.filter(operation=OuterRef("pk"), state__in=Target.UNCONFIRMED))
    failures = Operation.objects.filter(success=False, superseded_by=None, dismissed_at=None)
    failures = failures.filter(~Q(state=Operation.State.CANCELLED) | is_unverified)
    found = {*recent[:MAX_SHOWN], *failures[:MAX_SHOWN]}
    return sorted(found, key=lambda operation: (operation.created_at, operation.pk), reverse=True)[:MAX_SHOWN]


def summarize(operations: Sequence[Operation]) -> list[Summary]:
    """Return operations with the numbers of their targets in each state."""
    counted = Target.objects.filter(operation__in=operations).values_list("operation", "state").annotate(Count("pk"))
    counts = {operation.pk: dict.fromkeys(Target.State.values, 0) for operation in operations}
    for pk, state_, number in counted.order_by():
        counts[pk][state_] = number
    return [Summary(operation, counts[operation.pk]) for operation in operations]


def list_unconfirmed(snapshot: Snapshot) -> list[str]:
    """Return the instances that a finished operation left unconfirmed. Raises NothingToRetry when there are none."""
    if snapshot.operation.finished_at is None:
        raise NothingToRetry(
            "This operation is still running; it repeats failed requests itself.",
            suggestion="Wait for its result. POST /api/instances/stop-all adds the instances that are running now.",
        )
    if ids := [target.instance_id for target in snapshot.targets if target.state in Target.UNCONFIRMED]:
        return ids
    raise NothingToRetry


def list_stopped(snapshot: Snapshot) -> list[str]:
    """Return the instances that a finished stop has stopped. Raises NothingToRestore when there are none."""
    if snapshot.operation.finished_at is None:
        raise NothingToRestore("This operation is still running.", suggestion="Wait for its result.")
    confirmed = [
        target.instance_id for target in snapshot.targets if target.state == Target.State.CONFIRMED and target.attempts
    ]
    if snapshot.operation.kind != "stop" or not confirmed:
        raise NothingToRestore
    return confirmed


def dismiss(operation_id: uuid.UUID | str, *, actor: Actor) -> Operation:
    """Remove the result from every dashboard; it stays recorded. The first dismissal counts.

    Raises OperationNotFound and OperationRunning.
    """
    operation = get(operation_id)
    if operation.dismissed_at is None:
        with audit.recorded(actor, Action.DISMISS_OPERATION, str(operation.pk), before=operation.result):
            if operation.finished_at is None:
                raise OperationRunning
            shown = Operation.objects.filter(pk=operation.pk, dismissed_at=None)
            shown.update(dismissed_at=timezone.now(), dismissed_by=actor.name[:150])
        operation.refresh_from_db()
    return operation


def add_notes(stored: QuerySet[Operation], notes: Sequence[str]) -> None:
    """Store the notes that an operation doesn't have yet, beside those that other processes stored."""
    held = stored.values_list("notes", flat=True).first() or []
    merged = list(dict.fromkeys([*held, *clean_texts(list(notes))]))
    if merged != held:
        stored.update(notes=merged)


def forget_old() -> None:
    """Delete the operations that ended long ago, with their targets and webhooks."""
    has_no_webhook_to_send = Q(webhook=None) | Q(webhook__ended_at__isnull=False)
    ended = Operation.objects.filter(has_no_webhook_to_send)
    # One at a time, since one may have 10,000 targets.
    old.delete(old.list_old(ended, "finished_at", settings.KEEP_OPERATIONS_DAYS), batch_rows=1, batches=100)


# --- Later operations in place of earlier ones


def supersede(operation: Operation) -> None:
    """Link the finished operations whose unconfirmed targets this one covers to it: its result replaces theirs."""
    try:
        older = Operation.objects.filter(
            kind=operation.kind,
            success=False,
            superseded_by=None,
            finished_at__lte=operation.finished_at or timezone.now(),
        ).exclude(pk=operation.pk)
        if not operation.is_whole_account:
            older = Operation.objects.filter(pk__in=_list_covered(operation, list(older[:MAX_SUPERSEDED])))
        older.update(superseded_by=operation)
    except DatabaseError as exc:
        # The link decides only which result the page shows; the stop goes on without it.
        log.warning("operation %s: links to superseded operations not stored: %s", operation.pk, exc)


def _list_covered(operation: Operation, older: Sequence[Operation]) -> list[uuid.UUID]:
    covering = set(operation.targets.exclude(state=Target.State.SKIPPED).values_list("instance_id", flat=True))
    left: dict[uuid.UUID, set[str]] = {one.pk: set() for one in older}
    unconfirmed = Target.objects.filter(operation__in=list(left), state__in=Target.UNCONFIRMED).order_by()
    for pk, instance_id in unconfirmed.values_list("operation", "instance_id"):
        left[pk].add(instance_id)
    return [
        one.pk
        for one in older
        if one.pk == operation.retry_of_id
        or one.selection == operation.selection
        or (left[one.pk] and left[one.pk] <= covering)
    ]
