"""How synchronizations write the ledger of costs."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instances.costs import hours, ledger, recording, reports
from instances.models import LedgerState, MeteredInstance, UsageInterval
from instances.novita.rows import from_novita
from tests.novita_answers import NovitaAnswers, make_row

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
State = UsageInterval.State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_pauses")]


def list_ledger_statements(queries: list[dict[str, str]]) -> list[str]:
    tables = ("ledgerstate", "usageinterval", "meteredinstance", "annotation", "labelrule")
    return [query["sql"] for query in queries if any(table in query["sql"] for table in tables)]


def test_sync_that_finds_nothing_changed_costs_the_ledger_one_statement(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(*(make_row(f"i{number}", instancePrice="35000") for number in range(50)))
    client.post("/api/instances/sync")

    with CaptureQueriesContext(connection) as captured:
        client.post("/api/instances/sync")

    statements = list_ledger_statements(captured.captured_queries)
    assert len(statements) == 1
    assert statements[0].startswith("UPDATE")


def test_sync_succeeds_while_the_ledger_can_not_be_written(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))

    with mock.patch.object(recording, "observe", side_effect=OperationalError("database is locked")):
        answer = client.post("/api/instances/sync")

    assert answer.json()["success"]
    assert not UsageInterval.objects.exists()


def test_failed_sync_is_no_observation(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(status=403)

    client.post("/api/instances/sync")

    assert not LedgerState.objects.exists()


def test_unconfirmed_instance_is_not_observed(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b"))
    novita.lists(make_row("a"))
    novita.shows({"id": "b"}, status=403, json={})
    client.post("/api/instances/sync")

    client.post("/api/instances/sync")

    (interval,) = UsageInterval.objects.filter(instance__instance_id="b", ended_ms=None)
    assert interval.state == UsageInterval.State.GAP


def observe(seconds: float, digest: str = "same", **fields: Any) -> None:
    """Record an observation of one running instance, at a time after noon."""
    row = make_row("a", instancePrice="35000", lastStartedAt="0", **fields)
    at = NOON + timedelta(seconds=seconds)
    recording.observe(recording.Observation(at, digest, lambda: [from_novita(row)]))


def list_states() -> list[tuple[int, float, float | None]]:
    """Return state, begin and end of the intervals, in seconds after noon."""
    noon = ledger.to_ms(NOON)
    rows = UsageInterval.objects.order_by("began_ms").values_list("state", "began_ms", "ended_ms")
    return [
        (state, (began - noon) / 1000, None if ended is None else (ended - noon) / 1000) for state, began, ended in rows
    ]


def test_unchanged_account_after_a_pause_leaves_a_gap() -> None:
    for seconds in (0, 60, 3660, 3720):
        observe(seconds)

    assert list_states() == [(State.GPU, 0, 60), (State.GAP, 60, 3660), (State.GPU, 3660, None)]


def test_longest_pause_is_two_intervals(settings: Any) -> None:
    settings.NOVITA_STALE_AFTER, settings.NOVITA_SYNC_INTERVAL = 180, 600
    for seconds in (0, 1200, 2401):
        observe(seconds)

    assert list_states() == [(State.GPU, 0, 1200), (State.GAP, 1200, 2401), (State.GPU, 2401, None)]


def test_unchanged_account_after_the_clock_was_set_back_is_recorded_again() -> None:
    for seconds in (0, 60, 120, -3600, -3540):
        observe(seconds)

    assert list_states() == [(State.GPU, -3600, None)]
    state = LedgerState.objects.get()
    assert state.began_ms == ledger.to_ms(NOON - timedelta(hours=1))
    assert state.observed_ms == ledger.to_ms(NOON - timedelta(seconds=3540))


def test_hours_that_repeat_with_nothing_have_no_sums(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.NOVITA_STALE_AFTER = 100_000
    monkeypatch.setattr(timezone, "now", lambda: NOON + timedelta(hours=3))
    period = ledger.to_ms(NOON), ledger.to_ms(NOON + timedelta(hours=2))
    for seconds in (0, 7200):
        observe(seconds)
    hours.sum_up()
    assert [point.sums.gpu for point in reports.read_history(*period, reports.HOUR_MS)] == [3_600_000, 3_600_000]

    for seconds in (-3600, 10_800):
        at = NOON + timedelta(seconds=seconds)
        recording.observe(recording.Observation(at, "empty", lambda: []))
    hours.sum_up()

    assert [point.sums.gpu for point in reports.read_history(*period, reports.HOUR_MS)] == [0, 0]


def test_renamed_instance_is_renamed_in_the_ledger() -> None:
    observe(0, "first")
    observe(60, "second", name="other", clusterName="EU", productName="H100", billingMode="spot")

    instance = MeteredInstance.objects.get()
    assert instance.name == "other"
    assert instance.region == "EU"
    assert instance.gpu == "H100"
    assert instance.billing_mode == "spot"
    assert list_states() == [(State.GPU, 0, None)]


def test_removed_instance_has_no_open_interval(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))
    novita.lists(make_row("a", status="removed"))
    client.post("/api/instances/sync")

    client.post("/api/instances/sync")

    assert not UsageInterval.objects.filter(ended_ms=None).exists()


@pytest.mark.parametrize(
    ("field", "number"), [("gpuNum", "9" * 19), ("gpuNum", "-1"), ("rootfsSize", "9" * 19), ("rootfsSize", "-1")]
)
def test_damaged_number_does_not_end_the_ledger(client: Client, novita: NovitaAnswers, field: str, number: str) -> None:
    novita.lists(
        *(make_row(status, status=status, instancePrice="35000", **{field: number}) for status in ("running", "exited"))
    )

    client.post("/api/instances/sync")

    states = UsageInterval.objects.filter(ended_ms=None).values_list("instance__instance_id", "state")
    assert dict(states) == {"running": UsageInterval.State.GPU, "exited": UsageInterval.State.STORAGE}


def measure_bytes() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        return int(cursor.fetchone()[0])


@pytest.mark.thorough
@pytest.mark.skipif(connection.vendor != "sqlite", reason="the size of a file")
def test_day_with_ten_changes_of_a_thousand_instances_takes_less_than_5_mb() -> None:
    instances = MeteredInstance.objects.bulk_create(
        MeteredInstance(instance_id=f"{number:016x}", name=f"train-{number}") for number in range(1000)
    )
    before, now = measure_bytes(), 1_768_478_400_000

    UsageInterval.objects.bulk_create(
        UsageInterval(instance=one, state=1, began_ms=now + change, ended_ms=now + change + 1, price=10**10, gpus=8)
        for change in range(10)
        for one in instances
    )

    assert measure_bytes() - before < 5_000_000
