"""The page of costs, and the parts of pages that stay fresh: charts, and the comparison with the bill."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.http import conditional_page

from instances.costs import balance, bill, burn, ledger, reports, trend
from instances.costs.period import Period, read_period
from instances.costs.reports import Piece, Sums, Used
from instances.errors import CacheUnavailable, InvalidRequest
from instances.instance import format_time
from instances.inventory import store
from instances.pages import cards, charts
from instances.pages.frame import viewers_only

PRESETS: Final = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "month": "This month"}
DEFAULT_PRESET: Final = "7d"
GROUPS: Final = {"gpu": "GPU", "owner": "Owner", "project": "Project"}
MAX_SERIES: Final = 6
SHOWN_ROWS: Final = 100
# Column → heading, and whether its cells are numbers.
COLUMNS: Final = {
    "name": ("Instance", False),
    "cost": ("Cost", True),
    "gpuHours": ("GPU hours", True),
    "gpu": ("GPU", False),
    "owner": ("Owner", False),
    "project": ("Project", False),
    "inferred": ("Inferred", True),
    "gap": ("Not observed", True),
}
DEFAULT_SORT: Final = "-cost"


@dataclass(frozen=True)
class Wish:
    """What an address asks for. With problems, by field, its period is replaced by the default one."""

    period: Period
    query: Mapping[str, str]
    preset: str
    group: str
    sort: str
    problems: Mapping[str, str] = field(default_factory=dict)


@viewers_only
def costs(request: HttpRequest) -> HttpResponse:
    wish = read_wish(request.GET)
    pieces, used = _read(wish)
    context = {
        "page": "costs",
        "begin": wish.period.begin,
        "end": wish.period.end,
        # A field keeps what was typed, also when it makes no period.
        "from": request.GET.get("from") if wish.problems else wish.query.get("from", f"{wish.period.begin:%Y-%m-%d}"),
        "to": wish.query.get("to", f"{wish.period.end - timedelta(microseconds=1):%Y-%m-%d}"),
        **_describe_choices(wish),
        "presets": [(name, words, _link(wish, range=name)) for name, words in PRESETS.items()],
        "charts": _describe_charts(wish, pieces, used),
        "charts_link": urlencode(wish.query),
        **_describe_table(wish, used, is_whole=request.GET.get("rows") == "all"),
        "bill": _describe_bill(wish, is_patient=request.GET.get("bill") == "read"),
        "bill_link": _link(wish, bill="read"),
        "csv": urlencode({"from": format_time(wish.period.begin), "to": format_time(wish.period.end)}),
        "csv_bill": urlencode(_find_bill_days(wish.period)),
    }
    return render(request, "pages/costs.html", context, status=400 if wish.problems else 200)


@viewers_only
@conditional_page
def cost_charts(request: HttpRequest) -> HttpResponse:
    """Answer the figures and charts of the page again."""
    wish = read_wish(request.GET)
    context = {"charts": _describe_charts(wish, *_read(wish)), **_describe_choices(wish)}
    return render(request, "pages/costs/charts.html", context)


@viewers_only
@conditional_page
def cost_bill(request: HttpRequest) -> HttpResponse:
    """Answer the comparison with Novita's bill, which may take seconds to read."""
    wish = read_wish(request.GET)
    return render(request, "pages/costs/bill.html", {"bill": _describe_bill(wish, is_patient=True)})


@viewers_only
@conditional_page
def cost_trend(request: HttpRequest) -> HttpResponse:
    """Answer the chart of the dashboard's card."""
    return HttpResponse(cards.draw_trend())


# --- The address


def read_wish(given: QueryDict) -> Wish:
    """Read the query. A bad period is explained; other values that make no sense count as absent."""
    group = given.get("by", "")
    sort = given.get("sort", "")
    query = {
        "by": group if group in GROUPS else "gpu",
        "sort": sort if sort.removeprefix("-") in COLUMNS else DEFAULT_SORT,
    }
    texts = {name: str(given[name])[:40] for name in ("from", "to") if given.get(name)}
    preset = given.get("range", "")
    preset = preset if preset in PRESETS else "" if texts else DEFAULT_PRESET
    problems: dict[str, str] = {}
    try:
        period = _read_preset(preset) if preset else read_period(texts.get("from"), texts.get("to"))
    except InvalidRequest as exc:
        problems = {name: f"{name.capitalize()} {words[0].lower()}{words[1:]}" for name, words in exc.fields.items()}
        period = _read_preset(DEFAULT_PRESET)
    query |= {"range": preset} if preset else texts
    return Wish(period, query, preset, query["by"], query["sort"], problems)


def _read_preset(preset: str) -> Period:
    now = timezone.now()
    match preset:
        case "24h":
            return Period(now - timedelta(days=1), now)
        case "month":
            return Period(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0), now)
    return read_period(None, None, days=30 if preset == "30d" else 7)


def _link(wish: Wish, **changes: str) -> str:
    query = {**wish.query, **changes}
    if "range" in changes:
        query = {name: value for name, value in query.items() if name not in {"from", "to"}}
    return urlencode(query)


# --- The parts


def _describe_choices(wish: Wish) -> dict[str, Any]:
    return {"wish": wish, "groups": [(name, words, _link(wish, by=name)) for name, words in GROUPS.items()]}


def _read(wish: Wish) -> tuple[list[Piece], list[Used]]:
    pieces = list(reports.read_pieces(wish.period.began_ms, wish.period.ended_ms))
    return pieces, reports.sum_by_instance(pieces)


def _describe_charts(wish: Wish, pieces: Sequence[Piece], used: Sequence[Used]) -> dict[str, Any]:
    begin_ms = wish.period.began_ms
    end_ms = max(trend.find_end(pieces, begin_ms), begin_ms + 1)
    whole = Sums()
    for one in used:
        whole.merge(one.sums)
    levels = trend.find_levels(pieces, begin_ms, trend.choose_step(end_ms - begin_ms))
    return {
        "is_empty": not pieces,
        "cost": whole.known_usd,
        "gpu_hours": whole.gpu_hours,
        "unobserved": say_hours(whole.gap),
        "inferred": say_hours(whole.inferred),
        "unpriced": say_hours(whole.unpriced),
        **_describe_balance(),
        "burn": _draw_levels(levels, [one.usd_per_hour for one in levels], begin_ms, end_ms, "Burn rate", _say_rate),
        "gpus": _draw_levels(levels, [one.gpus for one in levels], begin_ms, end_ms, "Running GPUs", _say_count),
        **_describe_days(wish, pieces, used),
    }


def _describe_balance() -> dict[str, Any]:
    try:
        reading, listing = balance.read(), store.read_listing()
    except CacheUnavailable as exc:
        return {"balance": balance.Reading(error=exc.message), "runway": None}
    hours = reading.find_hours_left(burn.find(listing.revision, listing.instances).total.per_hour)
    return {"balance": reading, "runway": None if hours is None else cards.say_hours(hours)}


def _draw_levels(
    levels: Sequence[trend.Level],
    values: Sequence[float | None],
    begin_ms: int,
    end_ms: int,
    title: str,
    say: Callable[[float], str],
) -> SafeString:
    known = [value for value in values if value is not None]
    sentence = f"{title} over time: not observed."
    if known:
        last, most, least = (say(value) for value in (known[-1], max(known), min(known)))
        sentence = f"{title} over time, UTC: last {last}, at most {most}, at least {least}."
        sentence += " With gaps: times that were not observed." if None in values else ""
    points = [charts.Point(level.at_ms, value) for level, value in zip(levels, values, strict=True)]
    return charts.draw_line(points, begin_ms, end_ms, sentence=sentence, say=say)


def _say_rate(value: float) -> str:
    return f"{_say_usd(value)}/h"


def _say_usd(value: float) -> str:
    return f"${value:,.2f}".removesuffix(".00")


def _say_count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")


def _describe_days(wish: Wish, pieces: Sequence[Piece], used: Sequence[Used]) -> dict[str, Any]:
    """Return the chart of the cost per day, its key, and the same as a table."""
    found = trend.split(pieces, used, wish.group, wish.period.began_ms, wish.period.ended_ms, most=MAX_SERIES)
    since_ms = reports.find_beginning() or 0
    names = [_name_series(one.name, wish.group) for one in found]
    days = [datetime.fromtimestamp(point.at_ms / 1000, UTC) for point in found[0].points] if found else []
    rows = [[series.points[at].sums.usd for series in found] for at in range(len(days))]
    columns = [
        charts.Column(
            f"{day:%-d %b}",
            [float(value) for value in row],
            [f"{day:%-d %b}, {name}: {cards.say_usd(value)}" for name, value in zip(names, row, strict=True)],
        )
        for day, row in zip(days, rows, strict=True)
    ]
    total = sum((series.total.usd for series in found), Decimal(0))
    shares: list[dict[str, Any]] = [
        {
            "name": name,
            "total": series.total.known_usd,
            "percent": f"{100 * series.total.usd / total:.0f}" if total else "0",
        }
        for name, series in zip(names, found, strict=True)
    ]
    most = ", ".join(f"{one['name']} {cards.say_usd(one['total'] or Decimal(0))}" for one in shares[:3])
    sentence = f"Cost per day by {GROUPS[wish.group]}, UTC: {cards.say_usd(total)} in {len(days)} days. {most}."
    return {
        "days": charts.draw_columns(columns, sentence=sentence, say=_say_usd),
        "key": shares,
        "day_names": names,
        "day_rows": [
            (f"{day:%Y-%m-%d}", row, sum(row, Decimal(0)) if is_recorded else None)
            for day, row in zip(days, rows, strict=True)
            for is_recorded in [ledger.to_ms(day) + reports.DAY_MS > since_ms]
        ],
        "since": datetime.fromtimestamp(since_ms / 1000, UTC) if since_ms > wish.period.began_ms else None,
    }


def _name_series(name: str | None, group: str) -> str:
    if name is None:
        return "Others"
    return name or f"No {GROUPS[group].lower()}" if group != "gpu" else name or "Unknown GPU"


def _describe_table(wish: Wish, used: Sequence[Used], *, is_whole: bool) -> dict[str, Any]:
    name = wish.sort.removeprefix("-")
    keys = {
        "name": lambda one: (one.instance.name.lower(), one.instance.instance_id),
        "gpu": lambda one: one.instance.gpu.lower(),
        "owner": lambda one: (one.labels.owner or "").lower(),
        "project": lambda one: (one.labels.project or "").lower(),
        "gpuHours": lambda one: one.sums.gpu,
        "cost": lambda one: one.sums.cost,
        "inferred": lambda one: one.sums.inferred,
        "gap": lambda one: one.sums.gap,
    }
    ordered = sorted(used, key=keys[name], reverse=wish.sort.startswith("-"))
    shown = ordered if is_whole else ordered[:SHOWN_ROWS]
    return {
        "rows": [
            {
                "id": one.instance.instance_id,
                "name": one.instance.name or one.instance.instance_id,
                "gpu": one.instance.gpu,
                "owner": one.labels.owner or "",
                "project": one.labels.project or "",
                "gpu_hours": one.sums.gpu_hours,
                "cost": one.sums.known_usd,
                "inferred": say_hours(one.sums.inferred),
                "gap": say_hours(one.sums.gap),
            }
            for one in shown
        ],
        "columns": [_describe_column(wish, column, *meaning) for column, meaning in COLUMNS.items()],
        "hidden_rows": len(ordered) - len(shown),
        "all_rows": _link(wish, rows="all"),
    }


def _describe_column(wish: Wish, column: str, title: str, is_number: bool) -> dict[str, Any]:
    is_sorted = wish.sort.removeprefix("-") == column
    is_descending = is_sorted and wish.sort.startswith("-")
    # The first press sorts numbers from the highest, and texts from A.
    other = f"-{column}" if (is_number and not is_descending) or (is_sorted and not is_descending) else column
    return {
        "title": title,
        "is_number": is_number,
        "sort": "descending" if is_descending else "ascending" if is_sorted else "none",
        "link": _link(wish, sort=other),
    }


def _find_bill_days(period: Period) -> dict[str, str]:
    """Return the days of a comparison: the last 31 at most."""
    last = (period.end - timedelta(microseconds=1)).date()
    first = max(period.begin.date(), last - timedelta(days=bill.MAX_DAYS - 1))
    return {"from": first.isoformat(), "to": last.isoformat()}


def _describe_bill(wish: Wish, *, is_patient: bool) -> dict[str, Any] | None:
    """Return the comparison with Novita's bill; None while nobody has read it lately, unless this may wait for it."""
    days = _find_bill_days(wish.period)
    period = read_period(days["from"], days["to"])
    found = bill.compare(period) if is_patient else bill.find_known(period)
    if found is None:
        return None
    return {
        "days": [
            {
                "date": one.date,
                "estimated": one.estimated if one.is_recorded else None,
                "billed": one.billed,
                "difference": "" if one.difference is None else _say_difference(one.difference),
            }
            for one in reversed(found.days)
        ],
        "error": found.error,
        "is_cut": days["from"] > f"{wish.period.begin:%Y-%m-%d}",
    }


def _say_difference(amount: Decimal) -> str:
    return f"{'−' if amount < 0 else '+'}{cards.say_usd(abs(amount))}"


def say_hours(milliseconds: int) -> str:
    """Say a time of instances; "" for none."""
    hours = milliseconds / reports.HOUR_MS
    if not milliseconds:
        return ""
    if hours >= 0.1:
        return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else "< 1 min"
