"""Synchronizations: what they found changed, when they began to fail, and when they worked again."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.db.models import OuterRef, Q, Subquery

from instances.activity.events import Event, Filter, Place
from instances.inventory.difference import say_counts
from instances.models import SyncRun
from instances.models.fields import quote_id

CHANGES: Final = 2
FAILURES: Final = 3
RECOVERIES: Final = 4
NAMED: Final = 3
_LISTS: Final = ("outside", "added", "changed", "removed")
_CHANGED: Final = Q(added_count__gt=0) | Q(changed_count__gt=0) | Q(removed_count__gt=0)


def read_changes(wanted: Filter, limit: int) -> Iterator[Event]:
    condition = _CHANGED & wanted.find_condition(CHANGES, "started_at") & wanted.find_actor(SyncRun, "requested_by")
    if wanted.instance_id:
        condition &= Q(words__contains=quote_id(wanted.instance_id))
    for run in SyncRun.objects.filter(condition)[:limit]:
        counts = say_counts(run.added_count, run.changed_count, run.removed_count, 0)
        outside = f"{run.outside_count:,} outside this panel" if run.outside_count else ""
        yield Event(
            Place(run.started_at, CHANGES, run.pk),
            "change",
            f"Instances: {counts}",
            "; ".join(filter(None, [_say_names(run), outside])),
            ("syncrun", str(run.pk)),
            actor=run.requested_by,
        )


def _say_names(run: SyncRun) -> str:
    """Name the first instances, those that were changed outside first."""
    lists: Sequence[list[dict[str, Any]]] = [getattr(run, name) for name in _LISTS]
    names = list(dict.fromkeys(str(one["name"] or one["id"]) for listed in lists for one in listed))
    total = run.added_count + run.changed_count + run.removed_count
    more = f" and {total - NAMED:,} more" if total > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def read_failures(wanted: Filter, limit: int) -> Iterator[Event]:
    """Yield the first failure of each series, and the synchronization that worked again.

    Series follow one another, so the newest ones have the newest recoveries.
    """
    before = SyncRun.objects.filter(started_at__lt=OuterRef("started_at")).order_by("-started_at").values("outcome")
    after = SyncRun.objects.filter(outcome=SyncRun.Outcome.SUCCEEDED, started_at__gt=OuterRef("started_at"))
    after = after.order_by("started_at")
    first = (
        SyncRun.objects.filter(outcome=SyncRun.Outcome.FAILED)
        .annotate(outcome_before=Subquery(before[:1]))
        .filter(Q(outcome_before=None) | Q(outcome_before=SyncRun.Outcome.SUCCEEDED))
        .annotate(recovered_at=Subquery(after.values("started_at")[:1]), recovery=Subquery(after.values("pk")[:1]))
    )
    if wanted.before:
        first = first.filter(started_at__lte=wanted.before.at)
    for run in first.filter(wanted.find_actor(SyncRun, "requested_by"))[:limit]:
        yield Event(
            Place(run.started_at, FAILURES, run.pk),
            "sync",
            "Synchronization began to fail",
            run.error,
            ("syncrun", str(run.pk)),
            "failed",
            run.requested_by,
        )
        if run.recovered_at:
            minutes = round((run.recovered_at - run.started_at).total_seconds() / 60)
            yield Event(
                Place(run.recovered_at, RECOVERIES, run.recovery),
                "sync",
                "Synchronization works again",
                f"After {minutes} min." if minutes else "After less than a minute.",
                ("syncrun", str(run.recovery)),
            )
