"""The burn rate and the running GPUs over time, by the ledger, and cost over time by GPU, owner or project."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from instances.costs import reports
from instances.costs.reports import DAY_MS, HOUR_MS, Piece, Point, Sums, Used
from instances.models.usage import PRICE_UNITS_PER_USD

QUARTER_MS: Final = HOUR_MS // 4
# The longest period, in days, for each step between the points of a line.
_STEPS: Final = ((2, QUARTER_MS), (8, HOUR_MS), (45, 6 * HOUR_MS))
# Below this share of known time, a point is a gap.
KNOWN_SHARE: Final = 0.5


@dataclass(frozen=True)
class Level:
    """The averages of one step. None means that it was not observed, which is not 0."""

    at_ms: int
    usd_per_hour: float | None
    gpus: float | None


def choose_step(length_ms: int) -> int:
    return next((step for days, step in _STEPS if length_ms <= days * DAY_MS), DAY_MS)


def find_end(pieces: Sequence[Piece], from_ms: int) -> int:
    """Return the end of the last piece. The time since the last observation is neither observed nor a gap yet."""
    return max((piece[3] for piece in pieces), default=from_ms)


def find_levels(pieces: Sequence[Piece], from_ms: int, step_ms: int) -> list[Level]:
    """Return the levels of each step until the last piece.

    A step that was observed for most of its time counts with that part of it.
    """
    to_ms = find_end(pieces, from_ms)
    since_ms = min((piece[2] for piece in pieces), default=from_ms)
    return [_find_level(point, since_ms) for point in reports.sum_by_time(pieces, from_ms, to_ms, step_ms)]


def _find_level(point: Point, since_ms: int) -> Level:
    sums = point.sums
    whole = sums.known + sums.gap
    if not whole or sums.known < KNOWN_SHARE * whole:
        return Level(point.at_ms, None, None)
    # The step in which the record begins counts from there.
    at_ms = max(point.at_ms, since_ms)
    length_ms = point.at_ms + point.length_ms - at_ms
    return Level(
        at_ms,
        sums.cost * whole / sums.known / length_ms / PRICE_UNITS_PER_USD,
        sums.gpu * whole / sums.known / length_ms,
    )


@dataclass(frozen=True)
class Series:
    """The cost of a group over time; the name is "" for instances without an owner, and None for the rest."""

    name: str | None
    points: Sequence[Point]
    total: Sums


def split(
    pieces: Sequence[Piece], used: Sequence[Used], group: str, from_ms: int, to_ms: int, *, most: int
) -> list[Series]:
    """Return the cost per day (UTC) of the most expensive groups, and of the rest as one."""
    sums = reports.sum_by(used, group)
    names = list(sums)
    shown = names if len(names) <= most else names[: most - 1]
    place = {name: at for at, name in enumerate(shown)}
    series_of = {one.instance.pk: place.get(reports.get_name(one, group), len(shown)) for one in used}
    parts: list[list[Piece]] = [[] for _ in range(len(shown) + 1)]
    for piece in pieces:
        parts[series_of[piece[0]]].append(piece)
    found = [
        Series(name, reports.sum_by_time(part, from_ms, to_ms, DAY_MS), sums[name])
        for name, part in zip(shown, parts, strict=False)
    ]
    if len(shown) < len(names):
        rest = Sums()
        for name in names[len(shown) :]:
            rest.merge(sums[name])
        found.append(Series(None, reports.sum_by_time(parts[-1], from_ms, to_ms, DAY_MS), rest))
    return found
