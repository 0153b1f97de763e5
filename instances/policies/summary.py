"""The summary of a day: what was spent, what stood idle, what runs longest, and what policies saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from django.conf import settings
from django.utils import timezone

from instances.costs import reports
from instances.instance import parse_time
from instances.inventory import store
from instances.models import Event, EventKind, Finding, FindingState, Operation, Policy, Target
from instances.notifications import events

MAX_SHOWN: Final = 3


@dataclass(frozen=True)
class Idle:
    """Hours that idle policies found, and what they cost; instances without a known cost add no cost."""

    hours: float
    usd: Decimal


def tell_when_due(now: datetime) -> None:
    """Tell the summary of yesterday (UTC) once: at its hour, or later in the day if nothing could tell it then.

    The first one of all comes at its hour. Raises CacheUnavailable and DatabaseError.
    """
    hour, day = settings.NOTIFY_SUMMARY_HOUR, now.date() - timedelta(days=1)
    told = Event.objects.filter(kind=EventKind.DAILY_SUMMARY)
    if hour < 0 or now.hour < hour or told.filter(key=day.isoformat()).exists():
        return
    # A summary adds up a day of the ledger, twice a minute, until it is recorded.
    if (now.hour == hour or told.exists()) and events.is_heard(EventKind.DAILY_SUMMARY):
        tell(day)


def tell(day: date) -> None:
    """Tell the summary of a day (UTC). Raises CacheUnavailable and DatabaseError."""
    began = datetime.combine(day, time(), UTC)
    ended = began + timedelta(days=1)
    lines = [_say_spent(began, ended), _say_idle(began, ended), _say_saved(began, ended), *_list_longest()]
    events.tell(EventKind.DAILY_SUMMARY, day.isoformat(), f"Summary of {day}", lines, "/costs/")


def _say_spent(began: datetime, ended: datetime) -> str:
    used = reports.read_instances(round(began.timestamp() * 1000), round(ended.timestamp() * 1000))
    spent = sum((one.sums.usd for one in used), Decimal(0))
    unknown = sum(one.sums.known_usd is None for one in used)
    return f"Spent: ${spent:,.2f}{f', without {unknown} instances of unknown price' if unknown else ''}."


def _say_idle(began: datetime, ended: datetime) -> str:
    found = measure_idle(began, ended)
    return f"Idle, as far as policies watched: {found.hours:.1f} hours, ${found.usd:,.2f}."


def measure_idle(began: datetime, ended: datetime) -> Idle:
    """Return the hours within a time in which idle policies had an open finding. An instance counts once."""
    overlapping = Finding.objects.filter(policy__rule=Policy.Rule.IDLE, began_at__lt=ended, since__isnull=False)
    spans: dict[str, tuple[datetime, datetime, Decimal]] = {}
    hours, usd = 0.0, Decimal(0)
    for one in overlapping.exclude(ended_at__lte=began).order_by("instance_id", "since"):
        begin = max(began, one.since or began, spans[one.instance_id][1] if one.instance_id in spans else began)
        end = min(ended, one.ended_at or timezone.now())
        if end <= begin:
            continue
        spans[one.instance_id] = (begin, end, one.usd_per_hour or Decimal(0))
        length = (end - begin).total_seconds() / 3600
        hours += length
        usd += (one.usd_per_hour or Decimal(0)) * Decimal(str(length))
    return Idle(hours, usd)


def _say_saved(began: datetime, ended: datetime) -> str:
    """Say how many runs policies have ended. Two policies that stop the same run end it once."""
    stopped = Finding.objects.filter(state=FindingState.STOPPED, stopping_at__gte=began, stopping_at__lt=ended)
    runs = {(one.instance_id, one.started): one.usd_per_hour or Decimal(0) for one in stopped if one.instance_id}
    count, per_hour = len(runs), sum(runs.values(), Decimal(0))
    # A finding on the account's spending has its instances in its operation.
    for operation in Operation.objects.filter(pk__in=[one.operation_id for one in stopped if not one.instance_id]):
        count += operation.targets.filter(state=Target.State.CONFIRMED).count()
        per_hour += operation.usd_per_hour or Decimal(0)
    return f"Stopped by policies: {count} instance{'' if count == 1 else 's'}, which saves ${per_hour:,.2f}/h."


def _list_longest() -> Sequence[str]:
    """Return a line for each of the instances that have run longest."""
    running = [one for one in store.read_listing().instances if one["group"] == "running" and one["lastStartedAt"]]
    running.sort(key=lambda one: (one["lastStartedAt"], one["id"]))
    now = timezone.now()
    return [
        f"Running for {(now - parse_time(one['lastStartedAt'])).days} days: {one['name'] or one['id']}"
        for one in running[:MAX_SHOWN]
    ]
