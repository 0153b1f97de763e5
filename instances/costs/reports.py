"""What the ledger says about a time: cost and GPU hours by hour or day, by instance, owner, project, GPU or region.

Sums are exact: of whole numbers, and rounded only where they are shown.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from typing import Final

from django.db.models import Q
from django.utils import timezone

from instances.costs import ledger
from instances.costs.labels import Labels, read_book
from instances.costs.ledger import State
from instances.costs.recording import get_longest_pause_ms
from instances.models import HourSums, LedgerState, MeteredInstance, UsageInterval
from instances.models.usage import PRICE_UNITS_PER_USD

HOUR_MS: Final = ledger.HOUR_MS
DAY_MS: Final = 24 * HOUR_MS
# The groups of a report that are not times.
GROUPS: Final = ("instance", "owner", "project", "gpu", "region")


# A part of an interval within a report's time: instance, state, begin, end, price, GPUs, whether it is inferred. Plain
# tuples, since a ledger has many.
Piece = tuple[int, int, int, int, int | None, int, bool]
# What a piece adds per millisecond to each of the sums, in their order. HourSums stores them so: when they change, a
# migration must delete its rows and `summed_ms`.
Rates = tuple[int, int, int, int, int, int]
# Comparing with members of an enumeration takes longer than all the rest.
_GAP, _NOTHING = int(State.GAP), int(State.NOTHING)


@dataclass(slots=True)
class Sums:
    """Exact sums: 1e-10 USD × ms per hour, GPUs × ms, and milliseconds."""

    cost: int = 0
    gpu: int = 0
    gap: int = 0
    inferred: int = 0
    # Charged, at a price that is not known.
    unpriced: int = 0
    # The time of all instances without their gaps.
    known: int = 0

    def add(self, rates: Rates, milliseconds: int) -> None:
        cost, gpu, gap, inferred, unpriced, known = rates
        if known:
            self.known += known * milliseconds
        if cost:
            self.cost += cost * milliseconds
        if gpu:
            self.gpu += gpu * milliseconds
        if gap or inferred or unpriced:
            self.gap += gap * milliseconds
            self.inferred += inferred * milliseconds
            self.unpriced += unpriced * milliseconds

    def merge(self, other: "Sums") -> None:
        self.add(other.get_rates(), 1)

    def get_rates(self) -> Rates:
        return (self.cost, self.gpu, self.gap, self.inferred, self.unpriced, self.known)

    @property
    def usd(self) -> Decimal:
        return Decimal(self.cost) / (PRICE_UNITS_PER_USD * HOUR_MS)

    @property
    def known_usd(self) -> Decimal | None:
        """The cost; None when no part of it is known."""
        return None if self.unpriced and not self.cost else self.usd

    @property
    def gpu_hours(self) -> Decimal:
        return Decimal(self.gpu) / HOUR_MS


def find_beginning() -> int | None:
    """Return the time since which the ledger knows of the account; None when that is not known."""
    return LedgerState.objects.values_list("began_ms", flat=True).order_by("pk").first()


def find_rates(piece: Piece) -> Rates:
    _, state, _, _, price, gpus, is_inferred = piece
    if state == _GAP:
        return (0, 0, 1, 0, 0, 0)
    is_unpriced = price is None and state != _NOTHING
    return (price or 0, gpus, 0, int(is_inferred), int(is_unpriced), 1)


def read_observed_ms() -> int:
    """Return when the account was last observed; 0 for never."""
    return LedgerState.objects.values_list("observed_ms", flat=True).order_by("pk").first() or 0


def read_pieces(from_ms: int, to_ms: int, instance_id: str | None = None) -> Iterator[Piece]:
    """Yield all intervals within a time, cut to it; or those of one instance.

    An open interval lasts until the last observation; a gap follows when that was too long ago.
    """
    now_ms = min(to_ms, ledger.to_ms(timezone.now()))
    observed_ms = read_observed_ms()
    is_stale = now_ms - observed_ms > get_longest_pause_ms()
    rows = UsageInterval.objects.filter(Q(ended_ms__gt=from_ms) | Q(ended_ms=None), began_ms__lt=to_ms).order_by()
    if instance_id is not None:
        rows = rows.filter(instance__instance_id=instance_id)
    fields = ("instance_id", "state", "began_ms", "ended_ms", "price", "gpus", "is_inferred")
    for instance, state, began_ms, ended_ms, price, gpus, is_inferred in rows.values_list(*fields):
        begin = began_ms if began_ms > from_ms else from_ms
        end = observed_ms if ended_ms is None else ended_ms
        end = end if end < to_ms else to_ms
        if begin < end:
            yield (instance, state, begin, end, price, gpus, is_inferred)
        if ended_ms is None and is_stale and (begin := max(observed_ms, from_ms)) < now_ms:
            yield (instance, _GAP, begin, now_ms, None, 0, False)


@dataclass(frozen=True)
class Point:
    at_ms: int
    length_ms: int
    sums: Sums


def read_history(from_ms: int, to_ms: int, step_ms: int) -> list[Point]:
    """Return the sums of each hour or day (UTC) until now. The first and the last one may be parts.

    Hours that a worker has summed are read instead of their intervals: a month of a large account has millions.
    """
    summed_ms = LedgerState.objects.values_list("summed_ms", flat=True).order_by("pk").first() or 0
    first_ms, last_ms = -(-from_ms // HOUR_MS) * HOUR_MS, min(to_ms // HOUR_MS * HOUR_MS, summed_ms)
    if first_ms >= last_ms:
        return sum_by_time(read_pieces(from_ms, to_ms), from_ms, to_ms, step_ms)
    pieces = chain(read_pieces(from_ms, first_ms), read_pieces(last_ms, to_ms))
    points = sum_by_time(pieces, from_ms, to_ms, step_ms)
    hours = HourSums.objects.filter(began_ms__gte=first_ms, began_ms__lt=last_ms)
    for began_ms, sums in hours.values_list("began_ms", "sums").order_by():
        points[began_ms // step_ms - from_ms // step_ms].sums.add(tuple(sums), 1)
    return points


def sum_by_time(pieces: Iterable[Piece], from_ms: int, to_ms: int, step_ms: int) -> list[Point]:
    """Return the sums of pieces by step, until now."""
    to_ms = min(to_ms, ledger.to_ms(timezone.now()))
    first = from_ms // step_ms
    count = max(0, -(-to_ms // step_ms) - first)
    buckets = [Sums() for _ in range(count)]
    # What begins with a bucket, per millisecond, less what ends: of the buckets that a piece fills whole.
    starts = [Sums() for _ in range(count + 1)]
    for piece in pieces:
        began_ms, ended_ms = piece[2], piece[3]
        rates = find_rates(piece)
        one, last = began_ms // step_ms - first, (ended_ms - 1) // step_ms - first
        if one == last:
            buckets[one].add(rates, ended_ms - began_ms)
            continue
        buckets[one].add(rates, (first + one + 1) * step_ms - began_ms)
        buckets[last].add(rates, ended_ms - (first + last) * step_ms)
        if last > one + 1:
            starts[one + 1].add(rates, 1)
            starts[last].add(rates, -1)
    running = Sums()
    for bucket, start in zip(buckets, starts, strict=False):
        running.merge(start)
        bucket.add(running.get_rates(), step_ms)
    points = []
    for number, sums in enumerate(buckets, first):
        at_ms = max(from_ms, number * step_ms)
        points.append(Point(at_ms, min(to_ms, (number + 1) * step_ms) - at_ms, sums))
    return points


@dataclass(frozen=True)
class Used:
    """The sums of one instance, with what is known of it."""

    instance: MeteredInstance
    labels: Labels
    sums: Sums = field(default_factory=Sums)


def read_instances(from_ms: int, to_ms: int, instance_id: str | None = None) -> list[Used]:
    """Return the sums of each instance that existed within a time, or of one; the most expensive first."""
    return sum_by_instance(read_pieces(from_ms, to_ms, instance_id))


def sum_by_instance(pieces: Iterable[Piece]) -> list[Used]:
    found: dict[int, Sums] = {}
    for piece in pieces:
        sums = found.get(piece[0])
        if sums is None:
            sums = found[piece[0]] = Sums()
        sums.add(find_rates(piece), piece[3] - piece[2])
    book = read_book()
    instances = _read_metered(list(found))
    used = [Used(one, book.find(one.instance_id, one.name), found[one.pk]) for one in instances]
    return sorted(used, key=lambda one: (-one.sums.cost, one.instance.name, one.instance.instance_id))


def _read_metered(pks: Sequence[int]) -> list[MeteredInstance]:
    if len(pks) == 1:
        return list(MeteredInstance.objects.filter(pk=pks[0]))
    # A list of thousands of keys is longer than databases accept.
    wanted = set(pks)
    return [one for one in MeteredInstance.objects.order_by() if one.pk in wanted]


_NAMES: Final[dict[str, Callable[[Used], str | None]]] = {
    "instance": lambda one: one.instance.instance_id,
    "owner": lambda one: one.labels.owner,
    "project": lambda one: one.labels.project,
    "gpu": lambda one: one.instance.gpu,
    "region": lambda one: one.instance.region,
}


def get_name(one: Used, group: str) -> str:
    """Return what one of GROUPS an instance belongs to; "" for none."""
    return _NAMES[group](one) or ""


def sum_by(used: Sequence[Used], group: str) -> dict[str, Sums]:
    """Return the sums by one of GROUPS, the most expensive first; "" collects those without."""
    found: dict[str, Sums] = {}
    for one in used:
        found.setdefault(get_name(one, group), Sums()).merge(one.sums)
    return dict(sorted(found.items(), key=lambda item: (-item[1].cost, item[0])))
