"""How synchronizations write the ledger of costs."""

from unittest import mock

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instances.costs import recording
from instances.models import HourSums, LedgerState, MeteredInstance, UsageInterval
from tests.novita_answers import NovitaAnswers, make_row

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


def test_removed_instance_has_no_open_interval(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))
    novita.lists(make_row("a", status="removed"))
    client.post("/api/instances/sync")

    client.post("/api/instances/sync")

    assert not UsageInterval.objects.filter(ended_ms=None).exists()


@pytest.mark.parametrize("field", ["gpuNum", "rootfsSize"])
def test_damaged_number_does_not_end_the_ledger(client: Client, novita: NovitaAnswers, field: str) -> None:
    novita.lists(make_row("a", instancePrice="35000"))
    novita.lists(*(make_row(status, status=status, **{field: "9" * 19}) for status in ("running", "exited")))
    client.post("/api/instances/sync")

    client.post("/api/instances/sync")

    states = UsageInterval.objects.filter(ended_ms=None).values_list("instance__instance_id", "state")
    assert dict(states) == {"running": UsageInterval.State.GPU, "exited": UsageInterval.State.STORAGE}


def measure_bytes() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        return int(cursor.fetchone()[0])


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


def test_ledger_keeps_400_days() -> None:
    now = round(timezone.now().timestamp() * 1000)
    day = 86_400_000
    old, kept = (MeteredInstance.objects.create(instance_id=id_) for id_ in ("old", "kept"))
    for instance, days in ((old, 401), (kept, 401), (kept, 399)):
        ended = now - days * day
        UsageInterval.objects.create(instance=instance, state=1, began_ms=ended - 1, ended_ms=ended)
    UsageInterval.objects.create(instance=kept, state=1, began_ms=now - 500 * day)
    for days in (401, 399):
        HourSums.objects.create(began_ms=now - days * day, sums=[])

    recording.forget_old()

    assert [one.instance_id for one in MeteredInstance.objects.all()] == ["kept"]
    assert UsageInterval.objects.count() == 2
    assert HourSums.objects.get().began_ms == now - 399 * day
