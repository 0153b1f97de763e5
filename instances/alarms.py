"""What a worker watches and tells people: synchronizations that fail, stale data, a low balance, spot reclaims.

Each alarm is told when it begins; the events keep the same one from being told again within an hour.
"""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from django.conf import settings

from instances import redis_client
from instances.costs import balance, burn
from instances.instance import format_time
from instances.inventory import store
from instances.inventory.attention import SPOT_RUNNING
from instances.models import EventKind
from instances.notifications import events
from instances.redis_client import get_redis, redis_errors

FAILING_AFTER: Final = timedelta(minutes=10)
# Remembers that the failure was told, so that the recovery is told, too.
_REMEMBER_SECONDS: Final = 7 * 86400


def watch() -> None:
    """Tell what has begun or ended. Raises CacheUnavailable."""
    state = store.read_state()
    _watch_sync(state)
    if state.freshness.as_of is None:
        return
    listing = store.read_listing()
    if listing.freshness.is_stale:
        title = f"The inventory is stale since {format_time(state.freshness.as_of)}"
        events.tell(EventKind.DATA_STALE, "stale", title, [state.error] if state.error else [])
        return
    _watch_balance(burn.find(listing.revision, listing.instances).total.per_hour)
    for shown in listing.instances:
        if shown["spotStatus"] not in {None, SPOT_RUNNING} and shown["group"] == "running":
            _tell_reclaim(shown)


def _watch_sync(state: store.State) -> None:
    if state.failures and state.failing_since and state.now - state.failing_since >= FAILING_AFTER:
        title = f"Synchronizations have failed since {format_time(state.failing_since)}"
        if events.tell(EventKind.SYNC_FAILING, "sync", title, [state.error, "Instances may be running unseen."]):
            with redis_errors():
                get_redis().set(redis_client.TOLD_FAILING, "1", ex=_REMEMBER_SECONDS)
    elif not state.failures:
        with redis_errors():
            was_told = get_redis().delete(redis_client.TOLD_FAILING)
        if was_told:
            events.tell(EventKind.SYNC_RECOVERED, str(state.completed_at), "Synchronizations work again")


def _watch_balance(per_hour: Decimal | None) -> None:
    hours_left = balance.read().find_hours_left(per_hour)
    if settings.BALANCE_WARN_HOURS and hours_left is not None and hours_left < settings.BALANCE_WARN_HOURS:
        title = f"The balance lasts {hours_left:.1f} hours at the present burn rate"
        events.tell(EventKind.BALANCE_LOW, "balance", title, [f"The burn rate is ${per_hour:,.2f}/h."], "/costs/")


def _tell_reclaim(shown: Mapping[str, Any]) -> None:
    name = shown["name"] or shown["id"]
    title = f"Novita takes back the spot instance {name}"
    lines = [f"{shown['region']}, {shown['productName']}. Save its work now."]
    events.tell(EventKind.SPOT_RECLAIM, shown["id"], title, lines, f"/?instance={shown['id']}")
