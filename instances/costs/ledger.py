"""The rules of the ledger: what an observation of an instance says about the time since the one before. Pure.

A state that was observed twice within the longest pause lasted in between, unless Novita's times of the last start and
stop tell otherwise. Everything else that these times don't tell is a gap. Times are in milliseconds since 1970.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from instances.instance import FREE, MAX_GPUS, Instance, parse_time
from instances.models.usage import PRICE_UNITS_PER_USD, UsageInterval

State = UsageInterval.State

# Novita's times are cut to whole seconds.
SECOND_MS: Final = 1000
HOUR_MS: Final = 3_600_000
_STATES: Final = {"gpu": State.GPU, "storage": State.STORAGE, "nothing": State.NOTHING, None: State.GAP}


@dataclass(frozen=True, slots=True)
class Span:
    """An interval as it is stored. Without an end it lasts until the last observation."""

    state: State
    began_ms: int
    ended_ms: int | None
    price: int | None = None
    gpus: int = 0
    is_inferred: bool = False

    def continues(self, earlier: "Span") -> bool:
        """Tell whether the two are one interval."""
        return (
            earlier.ended_ms == self.began_ms
            and replace(earlier, began_ms=self.began_ms, ended_ms=self.ended_ms) == self
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What one observation tells about an instance. Prices are in 1e-10 USD per hour; None: not known."""

    state: State
    gpu_price: int | None
    storage_price: int | None
    gpus: int
    created_ms: int | None
    started_ms: int | None
    stopped_ms: int | None

    def make_span(self, state: State, began_ms: int, ended_ms: int | None) -> Span:
        price, gpus = None, 0
        if state == State.GPU:
            price, gpus = self.gpu_price, self.gpus
        elif state == State.STORAGE:
            price = self.storage_price
        return Span(state, began_ms, ended_ms, price, gpus)


def read_facts(instance: Instance) -> Facts | None:
    """Return what the ledger records of an instance; None of one that is removed."""
    if instance.group == "gone":
        return None
    return Facts(
        state=_STATES[instance.charge],
        gpu_price=to_units(FREE if instance.is_prepaid else instance.price_per_hour),
        storage_price=to_units(FREE if instance.is_prepaid else instance.storage_cost_per_hour),
        gpus=min(max(0, instance.gpu_num or 0), MAX_GPUS),
        created_ms=_read_ms(instance.created_at),
        started_ms=_read_ms(instance.last_started_at),
        stopped_ms=_read_ms(instance.last_stopped_at),
    )


def to_units(price: Decimal | None) -> int | None:
    return None if price is None else round(price * PRICE_UNITS_PER_USD)


def to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _read_ms(text: str | None) -> int | None:
    return to_ms(parse_time(text)) if text else None


def advance(before: Span | None, facts: Facts | None, last_ms: int, now_ms: int, *, is_gap: bool) -> list[Span]:
    """Return an instance's intervals from its open one (`before`) on, after an observation at `now_ms`.

    `facts` is None when the instance is gone, `last_ms` is the time of the observation before (`now_ms` if there is
    none), and `is_gap` tells that it was too long ago to count as continuous.
    """
    spans = []
    if before is not None:
        spans = [replace(before, ended_ms=last_ms), *_bridge(before, facts, last_ms, now_ms, is_gap=is_gap)]
    elif facts and facts.created_ms is not None and facts.created_ms + SECOND_MS > last_ms:
        began_ms = min(max(facts.created_ms, last_ms), now_ms)
        spans += _bridge(Span(State.NOTHING, began_ms, None), facts, began_ms, now_ms, is_gap=is_gap)
    if facts:
        spans.append(facts.make_span(facts.state, now_ms, None))
    return _join(spans)


def _bridge(before: Span, facts: Facts | None, last_ms: int, now_ms: int, *, is_gap: bool) -> list[Span]:
    """Return the intervals between two observations."""
    if facts is None:
        return [Span(State.GAP, last_ms, now_ms)]
    events = _list_events(before.state, facts, last_ms, now_ms)
    first_ms = events[0][0] if events else now_ms
    pieces = []
    leading = _find_leading(before.state, facts, [state for _, state in events], is_gap=is_gap)
    if leading == before.state:
        pieces.append(replace(before, began_ms=last_ms, ended_ms=first_ms))
    else:
        pieces.append(facts.make_span(leading, last_ms, first_ms))
    for number, (at, state) in enumerate(events, 1):
        is_last = number == len(events)
        told = State.GAP if is_last and state != facts.state else state
        pieces.append(facts.make_span(told, at, now_ms if is_last else events[number][0]))
    if is_gap:
        pieces = [replace(piece, is_inferred=piece.state != State.GAP) for piece in pieces]
    return pieces


def _list_events(before: State, facts: Facts, last_ms: int, now_ms: int) -> list[tuple[int, State]]:
    """Return the last start and the last stop, as far as they were between the two observations, in their order.

    One in the second of the observation before counts when it explains the present state, or the other one after it.
    """
    times = ((facts.started_ms, State.GPU), (facts.stopped_ms, State.STORAGE))
    told = [(at, state) for at, state in times if at is not None and last_ms - SECOND_MS < at <= now_ms]
    is_followed = any(at > last_ms for at, _ in told)
    events = [
        (max(at, last_ms), state)
        for at, state in told
        if at > last_ms or (before != state and (is_followed or state == facts.state))
    ]
    return sorted(events, key=lambda event: (event[0], event[1] == facts.state))


def _find_leading(before: State, facts: Facts, events: Sequence[State], *, is_gap: bool) -> State:
    """Return the state from the observation before until the first event, or until now."""
    if before not in {State.GPU, State.STORAGE}:
        is_told = not events and before == facts.state and (not is_gap or before == State.GAP)
    elif not events:
        # In a gap, a later start or stop would have left its time.
        known = facts.started_ms if before == State.GPU else facts.started_ms or facts.stopped_ms
        is_told = before == facts.state and (not is_gap or known is not None)
    elif len(events) == 1:
        # A start of a running instance is a restart; a stop of a stopped one contradicts itself.
        is_told = (before, events[0]) != (State.STORAGE, State.STORAGE)
    else:
        # Earlier starts and stops may have left no time.
        is_told = not is_gap
    return before if is_told else State.GAP


def _join(spans: Sequence[Span]) -> list[Span]:
    """Return the spans without empty ones, and with equal neighbours as one."""
    joined: list[Span] = []
    for span in spans:
        if span.ended_ms is not None and span.ended_ms <= span.began_ms:
            continue
        if joined and span.continues(joined[-1]):
            joined[-1] = replace(joined[-1], ended_ms=span.ended_ms)
        else:
            joined.append(span)
    return joined
