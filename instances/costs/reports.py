"""What the ledger says about a time: cost and GPU hours by hour or day, by instance, owner, project, GPU or region.

Sums are exact: of whole numbers, and rounded only where they are shown.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from django.db.models import Q
from django.utils import timezone

from instances.costs import ledger
from instances.costs.labels import Labels, read_book
from instances.costs.ledger import State
from instances.costs.recording import get_longest_pause_ms
from instances.models import LedgerState, MeteredInstance, UsageInterval
from instances.models.usage import PRICE_UNITS_PER_USD

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
# The groups of a report that are not times.
GROUPS: Final = ("instance", "owner", "project", "gpu", "region")


class Piece(NamedTuple):
    """A part of an interval within a report's time."""

    instance: int
    state: int
    began_ms: int
    ended_ms: int
    price: int | None
    gpus: int
    is_inferred: bool


@dataclass(slots=True)
class Sums:
    """Exact sums: 1e-10 USD × ms per hour, GPUs × ms, and milliseconds."""

    cost: int = 0
    gpu: int = 0
    gap: int = 0
    inferred: int = 0
    # Charged, at a price that is not known.
    unpriced: int = 0

    def add(self, rates: "Rates", milliseconds: int) -> None:
        self.cost += rates.cost * milliseconds
        self.gpu += rates.gpu * milliseconds
        self.gap += rates.gap * milliseconds
        self.inferred += rates.inferred * milliseconds
        self.unpriced += rates.unpriced * milliseconds

    def merge(self, other: "Sums") -> None:
        self.add(Rates(other.cost, other.gpu, other.gap, other.inferred, other.unpriced), 1)

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


class Rates(NamedTuple):
    """What a piece adds per millisecond to each of the sums."""

    cost: int
    gpu: int
    gap: int
    inferred: int
    unpriced: int


def find_rates(piece: Piece) -> Rates:
    is_charged = piece.state in {State.GPU, State.STORAGE}
    return Rates(
        cost=piece.price or 0 if is_charged else 0,
        gpu=piece.gpus,
        gap=int(piece.state == State.GAP),
        inferred=int(piece.is_inferred),
        unpriced=int(is_charged and piece.price is None),
    )


def read_pieces(from_ms: int, to_ms: int) -> Iterator[Piece]:
    """Yield all intervals within a time, cut to it.

    An open interval lasts until the last observation; a gap follows when that was too long ago.
    """
    now_ms = min(to_ms, ledger.to_ms(timezone.now()))
    observed_ms = LedgerState.objects.values_list("observed_ms", flat=True).order_by("pk").first() or 0
    is_stale = now_ms - observed_ms > get_longest_pause_ms()
    rows = UsageInterval.objects.filter(Q(ended_ms__gt=from_ms) | Q(ended_ms=None), began_ms__lt=to_ms).order_by()
    fields = ("instance_id", "state", "began_ms", "ended_ms", "price", "gpus", "is_inferred")
    for instance, state, began_ms, ended_ms, price, gpus, is_inferred in rows.values_list(*fields):
        begin, end = max(began_ms, from_ms), min(observed_ms if ended_ms is None else ended_ms, to_ms)
        if begin < end:
            yield Piece(instance, state, begin, end, price, gpus, is_inferred)
        if ended_ms is None and is_stale and (begin := max(observed_ms, from_ms)) < now_ms:
            yield Piece(instance, State.GAP, begin, now_ms, None, 0, False)


@dataclass(frozen=True)
class Point:
    at_ms: int
    sums: Sums


def read_history(from_ms: int, to_ms: int, step_ms: int) -> list[Point]:
    """Return the sums of each hour or day (UTC) until now. The first and the last one may be parts."""
    to_ms = min(to_ms, ledger.to_ms(timezone.now()))
    first = from_ms // step_ms
    count = max(0, -(-to_ms // step_ms) - first)
    buckets = [Sums() for _ in range(count)]
    # The rates that begin and end with a bucket, for the buckets that a piece fills whole.
    begins = [Sums() for _ in range(count + 1)]
    for piece in read_pieces(from_ms, to_ms):
        rates = find_rates(piece)
        one, last = piece.began_ms // step_ms - first, (piece.ended_ms - 1) // step_ms - first
        if one == last:
            buckets[one].add(rates, piece.ended_ms - piece.began_ms)
            continue
        buckets[one].add(rates, (first + one + 1) * step_ms - piece.began_ms)
        buckets[last].add(rates, piece.ended_ms - (first + last) * step_ms)
        if last > one + 1:
            begins[one + 1].add(rates, 1)
            begins[last].add(rates, -1)
    running = Sums()
    for bucket, begin in zip(buckets, begins, strict=False):
        running.merge(begin)
        bucket.add(Rates(running.cost, running.gpu, running.gap, running.inferred, running.unpriced), step_ms)
    return [Point(max(from_ms, (first + number) * step_ms), sums) for number, sums in enumerate(buckets)]


@dataclass(frozen=True)
class Used:
    """The sums of one instance, with what is known of it."""

    instance: MeteredInstance
    labels: Labels
    sums: Sums = field(default_factory=Sums)


def read_instances(from_ms: int, to_ms: int) -> list[Used]:
    """Return the sums of each instance that existed within a time, the most expensive first."""
    found: dict[int, Sums] = {}
    for piece in read_pieces(from_ms, to_ms):
        sums = found.get(piece.instance)
        if sums is None:
            sums = found[piece.instance] = Sums()
        sums.add(find_rates(piece), piece.ended_ms - piece.began_ms)
    book = read_book()
    instances = _read_metered(list(found))
    used = [Used(one, book.find(one.instance_id, one.name), found[one.pk]) for one in instances]
    return sorted(used, key=lambda one: (-one.sums.cost, one.instance.name, one.instance.instance_id))


def _read_metered(pks: Sequence[int]) -> list[MeteredInstance]:
    # A list of thousands of keys is longer than databases accept.
    wanted = set(pks)
    return [one for one in MeteredInstance.objects.order_by() if one.pk in wanted]


def sum_by(used: Sequence[Used], group: str) -> dict[str, Sums]:
    """Return the sums by one of GROUPS, the most expensive first; "" collects those without."""
    name: Callable[[Used], str | None] = {
        "instance": lambda one: one.instance.instance_id,
        "owner": lambda one: one.labels.owner,
        "project": lambda one: one.labels.project,
        "gpu": lambda one: one.instance.gpu,
        "region": lambda one: one.instance.region,
    }[group]
    found: dict[str, Sums] = {}
    for one in used:
        found.setdefault(name(one) or "", Sums()).merge(one.sums)
    return dict(sorted(found.items(), key=lambda item: (-item[1].cost, item[0])))
