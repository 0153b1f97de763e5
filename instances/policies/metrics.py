"""Whose metrics are read, and in which order: what is about to be stopped, what somebody looks at, then the oldest."""

from datetime import timedelta
from operator import itemgetter

from django.utils import timezone

from instances.inventory import store
from instances.models import Finding, FindingState, Policy
from instances.operations import protections
from instances.policies import selection
from instances.utilization import readings, sampling

# A finding is urgent when its stop is due, or planned within this time.
URGENT = timedelta(minutes=3)
# Metrics that are younger are not read again.
FRESH = timedelta(seconds=50)


def sample() -> int:
    """Read the metrics that are wanted, as far as the limit allows. Raises CacheUnavailable and DatabaseError."""
    policies = list(Policy.objects.filter(is_on=True, rule=Policy.Rule.IDLE))
    watched = sampling.list_watched()
    if not policies and not watched:
        return 0
    window = timedelta(minutes=max((policy.window_minutes for policy in policies), default=60))
    return sampling.sample(_list_wanted(policies, watched), window)


def _list_wanted(policies: list[Policy], watched: list[str]) -> list[str]:
    listing = store.read_listing()
    if listing.freshness.as_of is None:
        return []
    listed, protected = list(listing.instances), protections.read()
    running = {shown["id"] for shown in listed if shown["group"] == "running"}
    covered = {shown["id"] for policy in policies for shown in selection.select(policy, listed, protected)}
    wanted = running & (covered | set(watched))
    urgent = _list_urgent() & wanted
    last = readings.read_times(list(wanted))
    now = timezone.now()
    # The lowest first: urgent, watched, never read, read longest ago.
    order = [
        (id_ not in urgent, id_ not in watched, last[id_].timestamp() if id_ in last else 0.0, id_)
        for id_ in wanted
        if id_ not in last or not timedelta(0) <= now - last[id_] < FRESH
    ]
    return list(map(itemgetter(3), sorted(order)))


def _list_urgent() -> set[str]:
    open_ones = Finding.objects.filter(ended_at=None, policy__rule=Policy.Rule.IDLE)
    due = open_ones.filter(state=FindingState.DUE) | open_ones.filter(
        state=FindingState.WARNED, stops_at__lte=timezone.now() + URGENT
    )
    return set(due.values_list("instance_id", flat=True))
