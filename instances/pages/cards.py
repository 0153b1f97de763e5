"""The cards of the dashboard: what runs, what it costs, what needs attention; its script uses the same words."""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings
from django.db import DatabaseError
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances import health
from instances.costs import balance, burn, ledger, reports, trend
from instances.errors import CacheUnavailable
from instances.instance import GROUPS, format_time
from instances.inventory import attention, store
from instances.pages import charts

log = logging.getLogger(__name__)

SHOWN_GPUS: Final = 3
STALE: Final = "stale data"
SYNC_RUNS: Final = "admin:instances_syncrun_changelist"
LINE_MS: Final = reports.DAY_MS
MIN_LINE_STEPS: Final = 3
NO_CENTS_USD: Final = 1000
LINE_STEP_MS: Final = reports.HOUR_MS
# The line of a day is drawn once a minute and process.
LINE_SECONDS: Final = 60
# The segments of the bar, from the left.
SEGMENTS: Final = ("running", "starting", "stopping", "other", "stopped", "gone")

_last_line: tuple[float, int, SafeString] = (float("-inf"), 0, SafeString(""))


def describe(listing: store.Listing | None, found: health.Health, idle: Collection[str] = ()) -> dict[str, Any]:
    """Return what the cards show; without an inventory no figure is known."""
    is_known = listing is not None and listing.freshness.as_of is not None
    instances = listing.instances if listing and is_known else []
    groups = Counter(one["group"] for one in instances)
    burning = burn.find(listing.revision, instances) if listing and is_known else burn.Burn()
    per_hour = burning.total.per_hour
    is_stale = bool(listing and is_known and listing.freshness.is_stale)
    number, reasons = attention.count(instances, idle)
    last_sync = found.state.last_sync if found.state else None
    return {
        "is_known": is_known,
        "total": f"{len(instances):,}",
        "running": f"{groups['running']:,}",
        "moving": _say_moving(groups["starting"], groups["stopping"]),
        "gpus": _count_gpus(instances),
        "segments": _describe_segments(groups, len(instances)),
        # Without any known price, the sum is unknown, too.
        "per_hour": "" if per_hour is None or not is_known else _say_rate(per_hour),
        "notes": " · ".join(_list_notes(burning, is_stale=is_stale)) if is_known else "",
        "by_gpu": _describe_gpus(burning),
        "attention": f"{number:,}" if number else "",
        "reasons": [*_list_reasons(reasons), *([(STALE, reverse(SYNC_RUNS))] if is_stale else [])],
        "long_running_days": settings.LONG_RUNNING_DAYS,
        "redis": found.services["redis"],
        "as_of": format_time(last_sync) if last_sync else "",
        "trend": draw_trend(),
    }


def _count_gpus(instances: Iterable[Mapping[str, Any]]) -> str:
    number = sum(one["gpuNum"] or 0 for one in instances if one["group"] == "running")
    return f"{number:,}\N{NO-BREAK SPACE}GPU{'' if number == 1 else 's'}"


def say_usd(amount: Decimal) -> str:
    return f"${amount:,.2f}"


def _say_rate(per_hour: Decimal) -> str:
    """Return the burn rate; the figure of a high one has no room for cents."""
    return say_usd(per_hour) if per_hour < NO_CENTS_USD else f"${per_hour:,.0f}"


def _list_notes(burning: burn.Burn, *, is_stale: bool) -> Iterator[str]:
    """Yield what belongs to the burn rate: the cost of a day, and why both are not exact."""
    if burning.total.per_hour is not None:
        yield f"≈ ${burning.total.per_hour * 24:,.0f}/day"
    if unknown := burning.total.unknown:
        yield f"{unknown:,} price{'' if unknown == 1 else 's'} unknown"
    if is_stale:
        yield "stale"


def _list_reasons(counts: Mapping[attention.Reason, int]) -> Iterator[tuple[str, str]]:
    """Yield the words and the address of each reason for attention."""
    for reason, number in counts.items():
        if number:
            yield _say_reason(reason, number), f"?{urlencode({'attention': reason})}"


def _say_reason(reason: attention.Reason, number: int) -> str:
    days, plural = settings.LONG_RUNNING_DAYS, "" if number == 1 else "s"
    return {
        "error": f"{number:,} error{plural}",
        "longRunning": f"{number:,} up > {days} day{'' if days == 1 else 's'}",
        "spotReclaim": f"{number:,} spot reclaim{plural}",
        "idle": f"{number:,} idle",
    }[reason]


def _say_moving(starting: int, stopping: int) -> str:
    if starting and stopping:
        return f"{starting + stopping:,} moving"
    return f"{starting:,} starting" if starting else f"{stopping:,} stopping" if stopping else ""


def _describe_segments(groups: Mapping[str, int], total: int) -> dict[str, Any]:
    """Return the bar of the groups: where each begins, its width in percent, and a sentence."""
    parts, begin = [], 0.0
    for group in SEGMENTS:
        width = 100 * groups.get(group, 0) / total if total else 0.0
        if width:
            parts.append({"group": group, "begin": f"{begin:.2f}", "width": f"{width:.2f}"})
        begin += width
    counts = [(groups.get(group, 0), GROUPS[group].label.lower()) for group in GROUPS]
    return {"parts": parts, "sentence": ", ".join(f"{number:,} {label}" for number, label in counts if number)}


def _describe_gpus(burning: burn.Burn) -> list[dict[str, Any]]:
    """Return the most expensive products, each with its share of the most expensive one."""
    known = [(name or "", one.per_hour) for name, one in burning.by["gpu"].items() if one.per_hour]
    shown = sorted(known, key=lambda item: (-item[1], item[0]))[:SHOWN_GPUS]
    return [
        {
            "name": name or "Unknown GPU",
            "link": urlencode({"gpu": name}),
            "per_hour": say_usd(amount),
            "width": f"{100 * amount / shown[0][1]:.1f}",
        }
        for name, amount in shown
    ]


def draw_trend() -> SafeString:
    """Return the burn rate of the last 24 hours as a line, and how long a low balance lasts."""
    global _last_line
    drawn_at, observed_ms, line = _last_line
    try:
        observed_now = reports.read_observed_ms()
        if observed_now != observed_ms or time.monotonic() - drawn_at > LINE_SECONDS:
            line = _draw_line()
            _last_line = (time.monotonic(), observed_now, line)
    except DatabaseError as exc:
        log.debug("no burn rate over time: %s", exc)
        line = SafeString("")
    return line + _say_runway()


def _draw_line() -> SafeString:
    begin_ms = ledger.to_ms(timezone.now()) - LINE_MS
    pieces = list(reports.read_pieces(begin_ms, begin_ms + LINE_MS))
    levels = trend.find_levels(pieces, begin_ms, LINE_STEP_MS)
    known = [one.usd_per_hour for one in levels if one.usd_per_hour is not None]
    # A shorter line looks like a stain.
    if len(known) < MIN_LINE_STEPS:
        return SafeString("")
    sentence = (
        f"Burn rate of the last 24 hours: between ${min(known):,.2f} and ${max(known):,.2f} per hour, "
        f"${known[-1]:,.2f} last."
    )
    points = [charts.Point(one.at_ms, one.usd_per_hour) for one in levels]
    return charts.draw_spark(points, begin_ms, trend.find_end(pieces, begin_ms), sentence)


def _say_runway() -> SafeString:
    """Say how long the balance lasts, if that is known and not long."""
    try:
        reading = balance.read()
    except CacheUnavailable as exc:
        log.debug("balance unknown: %s", exc)
        return SafeString("")
    hours = reading.find_hours_left(reading.per_hour)
    if hours is None or hours >= settings.BALANCE_WARN_HOURS:
        return SafeString("")
    return format_html('<span class="runway">balance lasts {}</span>', say_hours(hours))


def say_hours(hours: Decimal) -> str:
    if hours < 1:
        return "less than an hour"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"
