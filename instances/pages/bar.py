"""What the dashboard's bar says: how fresh the page is, and what a stop of all instances stops and saves.

live-state.js and stop-all.js say the same in the open page.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from instances.errors import NovitaRejectedKey, NovitaTimeout, NovitaUnavailable
from instances.health import Health
from instances.instance import GROUPS

# The state of a panel whose last synchronization failed, by the code of the error.
_FAILURES: Final = {
    NovitaUnavailable.code: "Novita unreachable",
    NovitaTimeout.code: "Novita unreachable",
    NovitaRejectedKey.code: "API key rejected",
}


HALF_DAY: Final = timedelta(hours=12)


@dataclass(frozen=True)
class Live:
    """The state of the page's data: a kind that decides the dot's look, a word, and the time that belongs to it."""

    kind: str
    word: str
    detail: str = ""


def describe_live(found: Health, *, has_script: bool) -> Live:
    """Return the state at the time of the answer; a page without a script never refreshes."""
    state = found.state
    if state is None:
        return Live("trouble", "Redis unreachable")
    synced = f" · synced {_say_clock(state.last_sync)}" if state.last_sync else ""
    if state.error:
        return Live("trouble", _FAILURES.get(state.code, "Synchronization failing"), synced)
    as_of = state.freshness.as_of
    if as_of is None:
        return Live("waiting", "Not synchronized")
    if state.freshness.is_stale:
        return Live("stale", "Stale", f" since {_say_clock(as_of)}")
    return Live("live", "Live", synced) if has_script else Live("paused", "Not live", synced)


def _say_clock(moment: datetime) -> str:
    return f"{moment:%H:%M} UTC" if timezone.now() - moment < HALF_DAY else f"{moment:%b %-d, %H:%M} UTC"


@dataclass(frozen=True)
class StopAll:
    """What a stop of all instances stops: `count` and `money` stand in the button, `title` is the whole sentence."""

    count: str = ""
    money: str = ""
    title: str = ""


def describe_stop_all(instances: Sequence[Mapping[str, Any]], protected: Collection[str]) -> StopAll:
    """Return what the button says for a complete inventory."""
    billed = [one for one in instances if GROUPS[one["group"]].needs_stop]
    targets = [one for one in billed if one["id"] not in protected]
    if not targets:
        return StopAll(title=_say_nothing_to_stop(instances, len(billed)))
    # Prepaid instances cost nothing per hour, and neither do those that Novita doesn't charge for yet.
    costs = [one["costPerHour"] for one in targets if not one["prepaid"] and one["costPerHour"] != 0]
    prices = [cost for cost in costs if cost is not None]
    unknown = len(costs) - len(prices)
    saved = f"${sum(prices):,.2f}/h"
    words = f"{len(targets):,} instance{'' if len(targets) == 1 else 's'}"
    parts = [saved if prices else "", f"{unknown:,} unknown" if unknown else ""]
    saves = " + ".join(part for part in parts if part)
    return StopAll(
        count=f"{len(targets):,}",
        money=f" · {saved}{'+' if unknown else ''}" if prices else "",
        title=f"Stops {words}. {f'Saves {saves}.' if saves else 'Saves nothing now.'}",
    )


def _say_nothing_to_stop(instances: Sequence[Mapping[str, Any]], protected: int) -> str:
    stopping = sum(one["group"] == "stopping" for one in instances)
    parts = [f"{stopping:,} stopping" if stopping else "", f"{protected:,} protected" if protected else ""]
    rest = ", ".join(part for part in parts if part) or "no instance is running"
    # Even a fresh list may lack an instance that has just started, so the button is never disabled.
    return f"By this list nothing is to stop: {rest}. Pressing reads the account anew."
