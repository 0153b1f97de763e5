"""The ledger of simulated days, compared with the simulator's own meter to the cent."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from itertools import groupby, pairwise
from unittest import mock

import pytest
from django.db import OperationalError
from django.utils import timezone

from instances.costs import hours, ledger, recording, reports
from instances.costs.ledger import State
from instances.instance import Instance
from instances.models import HourSums, LedgerState, MeteredInstance, UsageInterval
from instances.novita.rows import from_novita
from instances.simulator import Account

# Some days have a thousand synchronizations, which a busy machine takes minutes for.
pytestmark = [pytest.mark.django_db, pytest.mark.timeout(900)]

BEGIN = 1_765_152_000  # Monday, 2025-12-08T00:00:00Z
WEEK, DAY, HOUR = 7 * 86_400, 86_400, 3600
SYNC_SECONDS = 300
CENT = Fraction(1, 100)


class Week:
    """An account whose time the test drives, in whole seconds."""

    def __init__(self, seed: int, instances: int = 12) -> None:
        self.now = BEGIN
        self.random = random.Random(seed)
        self.account = Account(instances, seed, step_seconds=0, clock=lambda: self.now)
        self.changes = 0

    def synchronize(self, *, clock_error: int = 0) -> None:
        found = [from_novita(row) for row in self.account.list_rows()]
        priced = [one for one in found if one.price_per_hour is not None or one.is_prepaid]
        recording.observe(make_observation(priced, self.now + clock_error))

    def change(self, *, is_observed: bool = True) -> None:
        """Start, stop, restart, create, delete or rename an instance at random, or change an observed price."""
        rows = [row for row in self.account.list_rows() if row.get("instancePrice", "0") != "0"]
        row = self.random.choice(rows)
        self.changes += 1
        match self.random.randrange(12):
            case 0 if is_observed:
                self.account.change({"set": {row["id"]: {"instancePrice": str(self.random.randrange(10_000, 90_000))}}})
            case 1 if len(rows) > 10:
                self.account.change({"remove": [row["id"]]})
                again = {"name": row["name"], "instancePrice": "45000", "createdAt": str(self.now)}
                self.account.change({"add": [{**again, "lastStartedAt": str(self.now)}]})
            case 2:
                self.account.change({"set": {row["id"]: {"name": f"renamed-{self.changes}"}}})
            case 3 if is_observed and row["status"] == "running":
                self.account.act("restart", row["id"])
            case _:
                self.account.act("stop" if row["status"] == "running" else "start", row["id"])
        self.account.list_rows()


def make_observation(found: list[Instance], at: int) -> recording.Observation:
    return recording.Observation(datetime.fromtimestamp(at, UTC), str(hash(repr(found))), lambda: found)


@contextmanager
def no_database() -> Iterator[None]:
    with mock.patch.object(recording, "observe", side_effect=OperationalError("database is locked")):
        yield


def measure(week: Week, instance_id: str, begin_ms: int, end_ms: int) -> Fraction:
    """Return what the meter counted, in USD."""
    return week.account.meter.measure(instance_id, begin_ms / 1000, end_ms / 1000, week.now) / 100_000


def list_spans() -> list[tuple[str, UsageInterval, int]]:
    """Return all intervals by instance and time, each with its end."""
    observed_ms = recording.LedgerState.objects.get().observed_ms
    rows = UsageInterval.objects.select_related("instance").order_by("instance__instance_id", "began_ms")
    return [(row.instance.instance_id, row, observed_ms if row.ended_ms is None else row.ended_ms) for row in rows]


def check(week: Week) -> Fraction:
    """Compare each interval with the meter, and return the sum of those that are known."""
    total = Fraction(0)
    for _, rows in groupby(list_spans(), key=lambda item: item[0]):
        for (_, _, end), (_, following, _) in pairwise(list(rows)):
            assert end <= following.began_ms, "overlap"
    for id_, row, end in list_spans():
        if row.state in {State.GPU, State.STORAGE}:
            assert row.price is not None
            cost = Fraction(row.price * (end - row.began_ms), 10**10 * 3_600_000)
            assert abs(cost - measure(week, id_, row.began_ms, end)) < CENT / 1000, (id_, row, row.is_inferred)
            total += cost
    return total


def run(seed: int, days: float) -> Week:
    """Drive some days: changes at synchronizations and between them, missed ones, outages, and a locked database."""
    week = Week(seed)
    # Three outages of an hour or some, and a database that is locked for one.
    outages = [(8 * HOUR, 9 * HOUR), (20 * HOUR, 22 * HOUR), (30 * HOUR, 34 * HOUR)]
    locked = (40 * HOUR, 41 * HOUR)
    while week.now < BEGIN + days * DAY:
        second = week.now - BEGIN
        is_out = any(begin <= second < end for begin, end in outages) or week.random.random() < 0.02
        is_locked = locked[0] <= second < locked[1]
        if week.random.random() < 0.8:
            # Unobserved changes that leave no time of their own: a price, and a restart after a start.
            week.change(is_observed=not is_out and not is_locked)
        if is_locked:
            with no_database():
                recording.try_to_observe(make_observation([], week.now))
        elif not is_out:
            week.synchronize()
        week.now += SYNC_SECONDS
    week.now -= SYNC_SECONDS
    return week


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports are read when the week is over."""
    monkeypatch.setattr(timezone, "now", lambda: datetime.fromtimestamp(BEGIN + WEEK - SYNC_SECONDS, UTC))


@pytest.mark.usefixtures("clock")
@pytest.mark.thorough
def test_ledger_of_two_days_equals_the_meter_wherever_it_observed() -> None:
    week = run(1, 2)

    known = check(week)

    assert week.changes > 425
    # Everything else is in gaps: together they are all that the meter has.
    gaps = sum(
        (measure(week, id_, row.began_ms, end) for id_, row, end in list_spans() if row.state == State.GAP),
        Fraction(0),
    )
    priced = MeteredInstance.objects.values_list("instance_id", flat=True)
    metered = sum((measure(week, id_, BEGIN * 1000, week.now * 1000) for id_ in priced), Fraction(0))
    assert abs(metered - known - gaps) < CENT
    assert known > metered * Fraction(4, 5)


@pytest.mark.usefixtures("clock")
@pytest.mark.thorough
def test_sums_of_two_days_agree_to_the_cent() -> None:
    week = run(4, 2)
    begin, end = BEGIN * 1000, week.now * 1000

    known = check(week)

    assert hours.sum_up() == 2 * 24 - 1
    days = reports.read_history(begin, end, reports.DAY_MS)
    by_hour = reports.read_history(begin, end, reports.HOUR_MS)
    used = reports.read_instances(begin, end)
    assert len(days) == 2
    assert len(by_hour) == 2 * 24
    for sums in ([point.sums for point in days], [point.sums for point in by_hour], [one.sums for one in used]):
        assert abs(Fraction(sum(one.usd for one in sums)) - known) < CENT
        assert sum(one.gap for one in sums) == sum(one.sums.gap for one in used)
        assert sum(one.gpu for one in sums) == sum(one.sums.gpu for one in used)
    for group in reports.GROUPS:
        by_group = reports.sum_by(used, group)
        assert sum(one.cost for one in by_group.values()) == sum(one.sums.cost for one in used)


@pytest.mark.thorough
def test_time_that_repeats_after_the_clock_was_set_back_counts_once() -> None:
    week = Week(3)
    for _ in range(40):
        week.change()
        week.synchronize()
        week.now += SYNC_SECONDS
    error = -HOUR
    for _ in range(20):
        week.synchronize(clock_error=error)
        week.now += SYNC_SECONDS

    for _, rows in groupby(list_spans(), key=lambda item: item[0]):
        for (_, _, end), (_, following, _) in pairwise(list(rows)):
            assert end <= following.began_ms
    spans = list_spans()
    assert max(end for _, _, end in spans) == (week.now - SYNC_SECONDS + error) * 1000


@pytest.mark.thorough
@pytest.mark.usefixtures("clock")
def test_history_of_summed_hours_is_that_of_the_intervals() -> None:
    week = run(7, 1)
    # From and to a time within an hour.
    period = BEGIN * 1000 + 1_234_567, (BEGIN + 20 * HOUR) * 1000 + 765_432
    steps = (reports.HOUR_MS, reports.DAY_MS)
    before = [reports.read_history(*period, step) for step in steps]

    hours.sum_up()
    week.synchronize()
    # The intervals within the summed hours are no longer needed.
    inner = {"began_ms__gt": period[0] + 2 * HOUR * 1000, "ended_ms__lt": period[1] - 2 * HOUR * 1000}
    assert UsageInterval.objects.filter(**inner).delete()[0] > 100

    assert [reports.read_history(*period, step) for step in steps] == before


@pytest.mark.thorough
@pytest.mark.usefixtures("clock")
def test_hours_are_summed_once() -> None:
    week = run(8, 0.25)
    first = hours.sum_up()
    week.now += HOUR
    week.synchronize()

    assert first == 5
    assert hours.sum_up() == 1
    assert hours.sum_up() == 0


@pytest.mark.thorough
@pytest.mark.usefixtures("clock")
def test_summed_hours_that_repeat_after_the_clock_was_set_back_are_summed_again() -> None:
    week = run(9, 0.5)
    hours.sum_up()
    week.synchronize(clock_error=-6 * HOUR)
    for _ in range(2 * HOUR // SYNC_SECONDS):
        week.now += SYNC_SECONDS
        week.synchronize(clock_error=-6 * HOUR)
    period = BEGIN * 1000, (BEGIN + DAY) * 1000
    by_intervals = [point.sums for point in reports.read_history(*period, reports.HOUR_MS)]
    HourSums.objects.all().delete()
    LedgerState.objects.update(summed_ms=None)

    assert [point.sums for point in reports.read_history(*period, reports.HOUR_MS)] == by_intervals


def test_observation_that_arrives_late_is_ignored() -> None:
    week = Week(4)
    week.synchronize()
    before = list(UsageInterval.objects.values())

    week.change()
    week.synchronize(clock_error=-60)

    assert list(UsageInterval.objects.values()) == before


def test_stale_ledger_shows_a_gap_until_now(monkeypatch: pytest.MonkeyPatch) -> None:
    week = Week(5)
    week.synchronize()
    week.now += 2 * HOUR
    monkeypatch.setattr(timezone, "now", lambda: datetime.fromtimestamp(week.now, UTC))

    (point,) = reports.read_history(BEGIN * 1000, ledger.to_ms(timezone.now()), reports.DAY_MS)

    assert point.sums.cost == 0
    assert point.sums.gap == MeteredInstance.objects.count() * 2 * HOUR * 1000


@pytest.mark.thorough
def test_bill_of_a_day_and_the_ledger_agree_to_the_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    week = Week(6)
    while week.now <= BEGIN + DAY + 3 * HOUR:
        week.synchronize()
        if (week.now - BEGIN) % (10 * SYNC_SECONDS) == 0:
            week.change(is_observed=False)
            week.synchronize()
        week.now += SYNC_SECONDS
    monkeypatch.setattr(timezone, "now", lambda: datetime.fromtimestamp(week.now, UTC))
    query = {"cycleType": "Day", "productCategory": "gpu", "startTime": str(BEGIN), "endTime": str(BEGIN + 2 * DAY)}

    (day, _) = reports.read_history(BEGIN * 1000, week.now * 1000, reports.DAY_MS)
    bills = week.account.list_bills(query)["bills"]

    known = set(MeteredInstance.objects.values_list("instance_id", flat=True))
    billed = sum(Fraction(bill["amount"]) / 10_000 for bill in bills if bill["ownerID"] in known)
    gaps = sum(
        (
            measure(week, id_, row.began_ms, min(end, (BEGIN + DAY) * 1000))
            for id_, row, end in list_spans()
            if row.state == State.GAP and row.began_ms < (BEGIN + DAY) * 1000
        ),
        Fraction(0),
    )
    assert {bill["startTime"] for bill in bills} == {str(BEGIN)}
    assert abs(billed - gaps - Fraction(day.sums.usd)) < CENT
