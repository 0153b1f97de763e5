"""The rules of the ledger: what one observation tells about the time since the one before."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instances.costs.ledger import Facts, Span, State, advance

GPU, STORAGE, NOTHING, GAP = State.GPU, State.STORAGE, State.NOTHING, State.GAP
T0, T1 = 100_000, 200_000
Seconds = int | None


def make_facts(state: State, *, started: Seconds = None, stopped: Seconds = None, created: Seconds = None) -> Facts:
    """Return what was read of an instance with two GPUs. Times are in seconds."""
    times = (None if at is None else at * 1000 for at in (created, started, stopped))
    return Facts(state, 70, 3, 2, *times)


def say(spans: list[Span]) -> str:
    """Say in one line: "gpu 50-100, storage 100-" in seconds; with ? where it is inferred."""
    return ", ".join(
        f"{span.state.name.lower()}{'?' * span.is_inferred} {span.began_ms // 1000}-"
        f"{'' if span.ended_ms is None else span.ended_ms // 1000}"
        for span in spans
    )


def observe(before: State | None, facts: Facts | None, *, is_gap: bool = False) -> str:
    """Say what follows from two observations at 100 s and 200 s. `before` began at 50 s."""
    gpus, price = {GPU: (2, 70), STORAGE: (0, 3)}.get(before or GAP, (0, None))
    open_span = None if before is None else Span(before, 50_000, None, price, gpus)
    return say(advance(open_span, facts, T0, T1, is_gap=is_gap))


@pytest.mark.parametrize("state", list(State))
def test_state_that_is_seen_twice_lasted(state: State) -> None:
    assert observe(state, make_facts(state, started=10)) == f"{state.name.lower()} 50-"


@pytest.mark.parametrize(
    ("before", "facts", "spans"),
    [
        (GPU, make_facts(STORAGE, started=10, stopped=150), "gpu 50-150, storage 150-"),
        (STORAGE, make_facts(GPU, started=150, stopped=20), "storage 50-150, gpu 150-"),
        (GPU, make_facts(GPU, started=160, stopped=150), "gpu 50-150, storage 150-160, gpu 160-"),
        (STORAGE, make_facts(STORAGE, started=150, stopped=160), "storage 50-150, gpu 150-160, storage 160-"),
        (GPU, make_facts(GPU, started=150, stopped=20), "gpu 50-"),
        (NOTHING, make_facts(GPU, started=150), "nothing 50-100, gap 100-150, gpu 150-"),
        (GPU, make_facts(STORAGE, started=10, stopped=100), "gpu 50-100, storage 100-"),
        (GPU, make_facts(GPU, started=150, stopped=100), "gpu 50-100, storage 100-150, gpu 150-"),
        (STORAGE, make_facts(STORAGE, started=100, stopped=150), "storage 50-100, gpu 100-150, storage 150-"),
    ],
    ids=[
        "stop",
        "start",
        "stop and start",
        "start and stop",
        "restart",
        "creation",
        "stop in the second of the observation",
        "stop in the second of the observation, and start",
        "start in the second of the observation, and stop",
    ],
)
def test_times_of_start_and_stop_are_exact(before: State, facts: Facts, spans: str) -> None:
    assert observe(before, facts) == spans


@pytest.mark.parametrize(
    ("before", "facts", "spans"),
    [
        (GPU, make_facts(STORAGE), "gpu 50-100, gap 100-200, storage 200-"),
        (NOTHING, make_facts(GPU), "nothing 50-100, gap 100-200, gpu 200-"),
        (GPU, make_facts(GAP, started=10), "gpu 50-100, gap 100-"),
        (GPU, None, "gpu 50-100, gap 100-200"),
        (GPU, make_facts(GPU, started=10, stopped=150), "gpu 50-150, gap 150-200, gpu 200-"),
        (STORAGE, make_facts(STORAGE, started=10, stopped=150), "storage 50-100, gap 100-150, storage 150-"),
    ],
    ids=["no times", "creation without times", "unknown status", "gone", "start without its time", "contradiction"],
)
def test_change_at_an_unknown_time_is_a_gap(before: State, facts: Facts | None, spans: str) -> None:
    assert observe(before, facts) == spans


@pytest.mark.parametrize(
    ("before", "facts", "spans"),
    [
        (GPU, make_facts(GPU, started=10), "gpu 50-100, gpu? 100-200, gpu 200-"),
        (STORAGE, make_facts(STORAGE, started=10, stopped=20), "storage 50-100, storage? 100-200, storage 200-"),
        (GPU, make_facts(STORAGE, started=10, stopped=150), "gpu 50-100, gpu? 100-150, storage? 150-200, storage 200-"),
        (STORAGE, make_facts(GPU, started=150, stopped=20), "storage 50-100, storage? 100-150, gpu? 150-200, gpu 200-"),
        (GPU, make_facts(GPU, started=150, stopped=20), "gpu 50-100, gpu? 100-200, gpu 200-"),
    ],
    ids=["ran on", "stayed stopped", "stopped", "started", "restarted"],
)
def test_gap_is_filled_where_the_times_tell_what_happened(before: State, facts: Facts, spans: str) -> None:
    assert observe(before, facts, is_gap=True) == spans


@pytest.mark.parametrize(
    ("before", "facts", "spans"),
    [
        (GPU, make_facts(GPU), "gpu 50-100, gap 100-200, gpu 200-"),
        (NOTHING, make_facts(NOTHING), "nothing 50-100, gap 100-200, nothing 200-"),
        (
            GPU,
            make_facts(GPU, started=160, stopped=150),
            "gpu 50-100, gap 100-150, storage? 150-160, gpu? 160-200, gpu 200-",
        ),
        (
            STORAGE,
            make_facts(STORAGE, started=150, stopped=160),
            "storage 50-100, gap 100-150, gpu? 150-160, storage? 160-200, storage 200-",
        ),
    ],
    ids=["no times", "not started", "perhaps several stops", "perhaps several starts"],
)
def test_gap_stays_where_the_times_do_not_tell(before: State, facts: Facts, spans: str) -> None:
    assert observe(before, facts, is_gap=True) == spans


@pytest.mark.parametrize(
    ("facts", "spans"),
    [
        (make_facts(GPU), "gpu 200-"),
        (make_facts(GPU, created=50, started=60), "gpu 200-"),
        (make_facts(GPU, created=130, started=150), "gap 130-150, gpu 150-"),
        (make_facts(NOTHING, created=130), "nothing 130-"),
        (make_facts(GPU, created=130), "gap 130-200, gpu 200-"),
    ],
    ids=["unknown age", "older than the ledger", "started meanwhile", "being created", "pulling"],
)
def test_new_instance_begins_with_its_creation(facts: Facts, spans: str) -> None:
    assert observe(None, facts) == spans


def test_new_price_begins_with_its_observation() -> None:
    before = Span(GPU, 50_000, None, 60, 2)

    spans = advance(before, make_facts(GPU, started=10), T0, T1, is_gap=False)

    assert [span.price for span in spans] == [60, 70]
    assert spans[1].began_ms == T1


def test_observation_at_the_same_time_opens_the_new_state() -> None:
    before = Span(GPU, 50_000, None, 70, 2)

    assert say(advance(before, make_facts(STORAGE), T0, T0, is_gap=False)) == "gpu 50-100, storage 100-"


# --- Any history


@dataclass
class Life:
    """The true states of an instance: (second, state) in order, and what Novita tells at a time."""

    changes: list[tuple[int, State]]
    created: int

    def find_state(self, at: float) -> State:
        return [state for second, state in self.changes if second <= at][-1]

    def read(self, at: int) -> Facts | None:
        if at < self.created:
            return None
        starts = [second for (_, _), (second, state) in pairwise(self.changes) if state == GPU and second <= at]
        stops = [second for second, state in self.changes if state == STORAGE and second <= at]
        return make_facts(
            self.find_state(at),
            created=self.created,
            started=max(starts, default=None),
            stopped=max(stops, default=None),
        )


@st.composite
def lives(draw: st.DrawFn) -> Life:
    created = draw(st.integers(0, 500))
    seconds = sorted(draw(st.sets(st.integers(created + 1, 1000), max_size=12)))
    states = [GPU if number % 2 == 0 else STORAGE for number in range(len(seconds))]
    return Life([(created, NOTHING), *zip(seconds, states, strict=True)], created)


@pytest.mark.thorough
@settings(max_examples=300, deadline=None)
@given(life=lives(), times=st.sets(st.integers(1, 1000), min_size=2, max_size=40), longest=st.integers(1, 400))
def test_intervals_never_overlap_and_never_contradict_the_truth(life: Life, times: set[int], longest: int) -> None:
    spans: list[Span] = []
    last = None
    for now in sorted(times):
        facts = life.read(now)
        before = spans.pop() if spans and spans[-1].ended_ms is None else None
        last_ms = now * 1000 if last is None else last
        spans += advance(before, facts, last_ms, now * 1000, is_gap=now * 1000 - last_ms > longest * 1000)
        last = now * 1000

    # Between two observations within the longest pause, a start and stop that left no time are not noticed.
    blind = {
        second
        for earlier, later in pairwise(sorted(times))
        if later - earlier <= longest and sum(earlier < second <= later for second, _ in life.changes) > 2
        for second in range(earlier, later)
    }
    for one, following in pairwise(spans):
        assert one.ended_ms is not None
        assert one.ended_ms == following.began_ms
    for span in spans:
        end = max(times) * 1000 if span.ended_ms is None else span.ended_ms
        assert span.began_ms < end or span.ended_ms is None
        if span.state in {GPU, STORAGE}:
            seconds = [second for second in range(span.began_ms // 1000, end // 1000) if second not in blind]
            assert {life.find_state(second) for second in seconds} <= {span.state}
