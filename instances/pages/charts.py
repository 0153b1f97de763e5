"""Charts as SVG: pure functions that turn points into markup.

Colours come from classes, so that both themes and forced colours work. Positions across are shares of the width: a
chart has any width, and its texts keep their size. A value of None was not observed: a gap, and never 0.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

# Width and height in the coordinates of a line, which is stretched to the size of its chart. Those of the small one are
# short: it is a part of each visit.
LINE_SIZE: Final = (1000, 100)
SPARK_SIZE: Final = (240, 50)
PLOT_HEIGHT: Final = 144
# Above the plot: the highest value's label has room.
TOP: Final = 16
AXIS_HEIGHT: Final = 24
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
_STEPS: Final = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10)
# Labels that are closer than this share of the width would overlap.
LABEL_SHARE: Final = 0.3
# The space between ticks, for each longest period that it suits.
_TICKS: Final = (
    (30 * HOUR_MS, 4 * HOUR_MS),
    (3 * DAY_MS, 12 * HOUR_MS),
    (8 * DAY_MS, DAY_MS),
    (20 * DAY_MS, 2 * DAY_MS),
    (45 * DAY_MS, 5 * DAY_MS),
    (100 * DAY_MS, 10 * DAY_MS),
)
# Beyond these, months: so many labels fit into half a page.
MAX_MONTHS: Final = 12
# More columns than this are too narrow for a space between them.
MAX_WIDE_COLUMNS: Final = 100


@dataclass(frozen=True)
class Point:
    """A value from a time until the next point."""

    at_ms: int
    value: float | None


@dataclass(frozen=True)
class Tick:
    """A place on the time axis, as a share of its length. A narrow chart leaves the minor ones out."""

    share: float
    label: str
    is_minor: bool


@dataclass(frozen=True)
class Column:
    """One day of stacked values, from the lowest to the highest; `titles` tell each."""

    label: str
    values: Sequence[float]
    titles: Sequence[str]


def find_top(values: Sequence[float | None]) -> float:
    """Return a round number that is at least as high as each value: the upper end of a scale that begins at 0."""
    highest = max((value for value in values if value is not None), default=0.0)
    if highest <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(highest))
    return next(step * size for step in _STEPS if step * size >= highest * (1 - 1e-9))


def draw_paths(
    points: Sequence[Point], begin_ms: int, end_ms: int, top: float, size: tuple[int, int] = LINE_SIZE
) -> tuple[str, str]:
    """Return the path of the line and that of the area below it. Each gap ends both."""
    width, height = size
    line, area = [], []

    def scale(at_ms: int) -> int:
        return round(width * (at_ms - begin_ms) / (end_ms - begin_ms))

    for run in _split(points):
        xs = [scale(point.at_ms) for point, _ in run]
        ys = [round(height * (1 - (point.value or 0) / top)) for point, _ in run]
        end = scale(run[-1][1] if run[-1][1] is not None else end_ms)
        steps = "".join(f"H{x}V{y}" for x, y, before in zip(xs[1:], ys[1:], ys, strict=False) if y != before)
        path = f"M{xs[0]} {ys[0]}{steps}H{end}"
        line.append(path)
        area.append(f"{path}V{height}H{xs[0]}Z")
    return "".join(line), "".join(area)


def _split(points: Sequence[Point]) -> Iterator[list[tuple[Point, int | None]]]:
    """Yield the runs of points without a gap, each point with its end; None is the end of the chart."""
    ends: list[int | None] = [*(point.at_ms for point in points[1:]), None]
    run: list[tuple[Point, int | None]] = []
    for point, end in zip(points, ends, strict=False):
        if point.value is not None:
            run.append((point, end))
        elif run:
            yield run
            run = []
    if run:
        yield run


def draw_spark(
    points: Sequence[Point], begin_ms: int, end_ms: int, sentence: str, top: float | None = None
) -> SafeString:
    """Return a small line without axes, from 0 to `top`, or to its highest value."""
    top = top or max((point.value for point in points if point.value), default=1.0)
    line, area = draw_paths(points, begin_ms, end_ms, top, SPARK_SIZE)
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img"><title>{}</title>'
        '<path class="chart-line" d="{}"/><path class="chart-area" d="{}"/></svg>',
        *SPARK_SIZE,
        sentence,
        line,
        area,
    )


def draw_line(
    points: Sequence[Point], begin_ms: int, end_ms: int, *, sentence: str, say: Callable[[float], str]
) -> SafeString:
    """Return a line over time with its axes; `say` writes a value. Labels are the last value and the highest one."""
    top = find_top([point.value for point in points])
    line, area = draw_paths(points, begin_ms, end_ms, top)
    plot = format_html(
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" y="{}" width="100%" height="{}">'
        '<path class="chart-area" d="{}"/><path class="chart-line" d="{}"/></svg>',
        *LINE_SIZE,
        TOP,
        PLOT_HEIGHT,
        area,
        line,
    )
    labels = _draw_labels(points, begin_ms, end_ms, top, say)
    scale = (say(top), say(top / 2))
    return _draw_frame(find_ticks(begin_ms, end_ms), plot + labels, sentence, scale)


def _draw_labels(
    points: Sequence[Point], begin_ms: int, end_ms: int, top: float, say: Callable[[float], str]
) -> SafeString:
    known = [(number, point.value) for number, point in enumerate(points) if point.value is not None]
    if not known:
        return format_html('<text x="50%" y="{}">Not observed</text>', TOP + PLOT_HEIGHT // 2)

    def find_share(number: int) -> float:
        return (points[number].at_ms - begin_ms) / (end_ms - begin_ms)

    (number, last), (highest, peak) = known[-1], max(known, key=lambda one: one[1])
    share = 1.0 if number == len(points) - 1 else find_share(number + 1)
    # The label of the last value stands above the line that leads to it.
    near = max([last, *(value for at, value in known if share - find_share(at) < LABEL_SHARE / 2)])
    marks = [(share, last, near)]
    if peak > near and share - find_share(highest) > LABEL_SHARE:
        marks.append((find_share(highest), peak, peak))
    texts = format_html_join(
        "",
        '<text class="chart-value{}" x="{}%" y="{}">{}</text>',
        ((_find_anchor(at), _percent(at), _find_y(height, top) - 6, say(value)) for at, value, height in marks),
    )
    end = format_html('<circle class="chart-end" cx="{}%" cy="{}" r="3"/>', _percent(share), _find_y(last, top))
    return end + texts


def _find_anchor(share: float) -> str:
    return " is-last" if share > 0.9 else " is-first" if share < 0.1 else ""


def _find_y(value: float, top: float) -> int:
    return TOP + round(PLOT_HEIGHT * (1 - value / top))


def draw_columns(columns: Sequence[Column], *, sentence: str, say: Callable[[float], str]) -> SafeString:
    """Return stacked columns, one for each day, with axes; `say` writes a value."""
    top = find_top([sum(column.values) for column in columns])
    slot = 1 / max(1, len(columns))
    is_dense = len(columns) > MAX_WIDE_COLUMNS
    # Dense columns overlap a little: between edges at parts of a pixel the ground would shine through.
    before, width = (0.0, 1.2) if is_dense else (0.1, 0.8)
    parts = []
    for number, column in enumerate(columns):
        below = 0.0
        for series, (value, title) in enumerate(zip(column.values, column.titles, strict=True), 1):
            if value <= 0:
                continue
            y, base = _find_y(below + value, top), _find_y(below, top)
            below += value
            parts.append((series, _percent((number + before) * slot), _percent(width * slot), y, base - y, title))
    rects = format_html_join(
        "",
        '<rect class="series-{}" x="{}%" width="{}%" y="{}" height="{}"><title>{}</title></rect>',
        parts,
    )
    every = max(1, math.ceil(len(columns) / 8))
    ticks = [
        Tick((number + 0.5) / len(columns), column.label, number // every % 2 == 1)
        for number, column in enumerate(columns)
        if number % every == 0
    ]
    scale = (say(top), say(top / 2))
    return _draw_frame(ticks, rects, sentence, scale, kind="is-dense" if is_dense else "is-columns")


def find_ticks(begin_ms: int, end_ms: int) -> list[Tick]:
    """Return round times (UTC) in a period: hours of a day or two, else days, or months."""
    length = end_ms - begin_ms
    space = next((space for longest, space in _TICKS if length <= longest), None)
    if space is None:
        found = _list_months(begin_ms, end_ms)
    else:
        form = "%H:%M" if space < 12 * HOUR_MS else "%a %H:%M" if space < DAY_MS else "%-d %b"
        first = -(-begin_ms // space) * space
        found = [(at, f"{datetime.fromtimestamp(at / 1000, UTC):{form}}") for at in range(first, end_ms, space)]
    # A label at either end would be cut.
    places = [(at, label) for at, label in found if 0.03 < (at - begin_ms) / length < 0.97]
    return [Tick((at - begin_ms) / length, label, number % 2 == 1) for number, (at, label) in enumerate(places)]


def _list_months(begin_ms: int, end_ms: int) -> list[tuple[int, str]]:
    """Return the beginnings of months in a period with their names: January has the year instead."""
    first, last = (datetime.fromtimestamp(at / 1000, UTC) for at in (begin_ms, end_ms))
    numbers = range(12 * first.year + first.month, 12 * last.year + last.month)
    every = math.ceil(len(numbers) / MAX_MONTHS)
    months = [datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in numbers if number % every == 0]
    return [(round(1000 * month.timestamp()), f"{month:%Y}" if month.month == 1 else f"{month:%b}") for month in months]


def _draw_frame(
    ticks: Sequence[Tick],
    inside: SafeString,
    sentence: str,
    scale: tuple[str, str],
    *,
    kind: str = "is-line",
) -> SafeString:
    """Return the chart's SVG: the lines of the scale at its top, half and 0, the content, the labels, the axis."""
    base = TOP + PLOT_HEIGHT
    grid = format_html_join(
        "",
        '<line class="chart-grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>',
        ((y,) for y in (TOP, TOP + PLOT_HEIGHT // 2, base)),
    )
    steps = format_html_join(
        "",
        '<text class="chart-scale" y="{}">{}</text>',
        ((y - 4, label) for y, label in zip((TOP, TOP + PLOT_HEIGHT // 2), scale, strict=True)),
    )
    lines = ticks if kind == "is-line" else ()
    marks = format_html_join(
        "",
        '<line class="chart-grid{0}" x1="{1}%" x2="{1}%" y1="{2}" y2="{3}"/>',
        ((" is-minor" if tick.is_minor else "", _percent(tick.share), base, base + 4) for tick in lines),
    )
    labels = format_html_join(
        "",
        '<text class="chart-tick{}" x="{}%" y="{}">{}</text>',
        ((" is-minor" if tick.is_minor else "", _percent(tick.share), base + 18, tick.label) for tick in ticks),
    )
    return format_html(
        '<svg class="chart-plot {}" width="100%" height="{}" role="img"><title>{}</title>{}{}{}{}{}</svg>',
        kind,
        base + AXIS_HEIGHT,
        sentence,
        grid,
        inside,
        steps,
        marks,
        labels,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".")
