"""Which instances need attention, and why. The page's script (cards/attention.js) applies the same rules.

The policies know which instances are idle: their ids come in as `idle`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

from django.conf import settings
from django.utils import timezone

from instances.instance import parse_time

Reason = Literal["error", "idle", "longRunning", "spotReclaim"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
# The status of a spot instance that Novita neither reclaims nor has reclaimed.
SPOT_RUNNING: Final = "running"


def needs(shown: Mapping[str, Any], reason: Reason, now: datetime, idle: Collection[str] = ()) -> bool:
    """Tell whether an instance, as the API shows it, needs attention for a reason."""
    if shown["group"] == "gone":
        return False
    match reason:
        case "error":
            return shown["statusError"] is not None
        case "longRunning":
            return _is_long_running(shown, now)
        case "spotReclaim":
            return shown["spotStatus"] not in {None, SPOT_RUNNING}
        case "idle":
            return shown["id"] in idle


def _is_long_running(shown: Mapping[str, Any], now: datetime) -> bool:
    """An instance that is prepaid by the month may run: stopping it saves nothing."""
    days, started_at = settings.LONG_RUNNING_DAYS, shown["lastStartedAt"]
    if not days or shown["group"] != "running" or shown["prepaid"] or started_at is None:
        return False
    return now - parse_time(started_at) > timedelta(days=days)


def select(
    instances: Sequence[Mapping[str, Any]], reason: Reason, idle: Collection[str] = ()
) -> list[Mapping[str, Any]]:
    """Return the instances that need attention for a reason now."""
    now = timezone.now()
    return [one for one in instances if needs(one, reason, now, idle)]


def count(instances: Sequence[Mapping[str, Any]], idle: Collection[str] = ()) -> tuple[int, dict[Reason, int]]:
    """Return how many instances need attention, and how many for each reason. An instance can have several."""
    now = timezone.now()
    found = [[needs(one, reason, now, idle) for reason in REASONS] for one in instances]
    return sum(map(any, found)), {reason: sum(row[at] for row in found) for at, reason in enumerate(REASONS)}
