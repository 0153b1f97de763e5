"""The history of one instance: actions, operations and observed changes in one list."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from instances.costs import ledger
from instances.models import AuditEntry, MeteredInstance, Operation, SyncRun, Target, UsageInterval
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
State = UsageInterval.State
Json = dict[str, Any]


def read(client: Client, id_: str = "a", status: int = 200) -> list[Json]:
    answer = client.get(f"/api/instances/{id_}/history")
    assert answer.status_code == status, answer.content
    return list(answer.json().get("events", []))


def act(minutes: float, action: str, **fields: str) -> None:
    at = NOON + timedelta(minutes=minutes)
    given = {"target": "a", "outcome": "done", "request_id": f"request {minutes}", **fields}
    AuditEntry.objects.create(at=at, actor="ann", action=action, **given)


def stop_all(minutes: float, state: str, **fields: Any) -> Operation:
    at = NOON + timedelta(minutes=minutes)
    operation = Operation.objects.create(
        kind="stop",
        is_whole_account=True,
        selection=f"stop {minutes}",
        state="finished",
        reason="weekend",
        requested_by="bob",
        created_at=at,
        deadline_at=at,
        finished_at=at,
    )
    Target.objects.create(operation=operation, instance_id="a", state=state, status="exited", attempts=1, **fields)
    return operation


def observe(minutes: float, state: State, price: float | None = None, *, is_inferred: bool = False) -> None:
    instance, _ = MeteredInstance.objects.get_or_create(instance_id="a")
    began_ms = ledger.to_ms(NOON + timedelta(minutes=minutes))
    UsageInterval.objects.create(
        instance=instance,
        state=state,
        began_ms=began_ms,
        ended_ms=began_ms + 1,
        price=None if price is None else round(price * 10**10),
        is_inferred=is_inferred,
    )


def test_events_of_all_sources_stand_in_one_order(client: Client) -> None:
    act(0, "instance.start", before="exited", after="toStart")
    observe(1, State.GPU, 0.7)
    operation = stop_all(2, "confirmed", confirmed_at=NOON + timedelta(minutes=3))
    act(5, "protection.set", reason="the demo", target="b")

    assert read(client) == [
        {
            "at": "2026-01-15T12:03:00Z",
            "kind": "operation",
            "message": "Stop of all: Stopped (verified).",
            "actor": "bob",
            "reason": "weekend",
            "operationId": str(operation.pk),
        },
        {
            "at": "2026-01-15T12:01:00Z",
            "kind": "change",
            "message": "GPUs charged; price: $0.70/h.",
            "actor": "",
            "reason": "",
            "operationId": None,
        },
        {
            "at": "2026-01-15T12:00:00Z",
            "kind": "action",
            "message": "Start requested.",
            "actor": "ann",
            "reason": "",
            "operationId": None,
        },
    ]


@pytest.mark.parametrize(
    ("action", "fields", "message"),
    [
        ("instance.stop", {"before": "running", "after": "toStop"}, "Stop requested."),
        ("instance.stop", {"before": "exited", "after": "exited"}, "Already stopped."),
        ("instance.restart", {"outcome": "PROTECTED", "error": "a is protected."}, "Restart failed: a is protected."),
        ("protection.set", {"reason": "the demo"}, "Protected."),
        ("protection.remove", {"reason": "the demo"}, "Protection removed."),
        ("annotation.set", {"after": "owner ada, project llm"}, "Set: owner ada, project llm."),
        ("annotation.set", {"before": "owner ada"}, "Owner, project and note removed."),
    ],
)
def test_each_action_has_its_sentence(client: Client, action: str, fields: dict[str, str], message: str) -> None:
    act(0, action, **fields)

    assert read(client)[0]["message"] == message


@pytest.mark.parametrize(
    ("state", "price", "is_inferred", "message"),
    [
        (State.GPU, None, False, "GPUs charged; price: not known."),
        (State.GPU, 0, False, "GPUs in use, prepaid."),
        (State.GPU, 1.5, True, "GPUs charged; price: $1.50/h. Not observed: known from Novita's times."),
        (State.STORAGE, 0, False, "Stopped."),
        (State.STORAGE, 0.01, False, "Stopped; price of the disk: $0.01/h."),
        (State.NOTHING, None, False, "Being created; nothing is charged yet."),
        (State.GAP, None, False, "Not observed: the panel doesn't know what happened from here on."),
    ],
)
def test_each_change_has_its_sentence(
    client: Client, state: State, price: float | None, is_inferred: bool, message: str
) -> None:
    observe(0, state, price, is_inferred=is_inferred)

    assert read(client)[0]["message"] == message


def test_state_that_went_on_is_no_change(client: Client) -> None:
    observe(0, State.GPU, 1)
    observe(1, State.GPU, 1, is_inferred=True)
    observe(2, State.STORAGE, 0)
    observe(3, State.GPU, 1)

    assert [event["at"] for event in read(client)] == [f"2026-01-15T12:0{minute}:00Z" for minute in (3, 2, 0)]


def test_request_of_an_operation_is_told_once(client: Client) -> None:
    operation = stop_all(0, "confirmed")
    Operation.objects.filter(pk=operation.pk).update(request_id="of all")
    act(1, "instance.stop", request_id="of all")
    act(2, "instance.stop", request_id="")
    act(3, "protection.set", request_id="of all")

    assert [event["kind"] for event in read(client)] == ["action", "operation"]


def test_change_made_elsewhere_is_told(client: Client) -> None:
    outside = [{"id": "b", "name": "", "change": "started"}, {"id": "a", "name": "", "change": "stopped"}]
    SyncRun.objects.create(started_at=NOON, trigger="interval", outcome="succeeded", outside=outside, outside_count=2)

    assert [event["message"] for event in read(client)] == ["Stopped outside this panel."]


def test_reason_of_a_protection_is_told(client: Client) -> None:
    act(0, "protection.set", reason="the demo")

    assert read(client)[0]["reason"] == "the demo"


def test_history_has_the_newest_20_in_four_queries(
    client: Client, django_assert_num_queries: Callable[[int], Any]
) -> None:
    for minutes in range(0, 75, 3):
        act(minutes, "instance.stop")
        stop_all(minutes + 1, "confirmed")
        observe(minutes + 2, State.GPU, minutes)

    # The first request creates the visitor.
    read(client)

    with django_assert_num_queries(4):
        events = read(client)

    assert len(events) == 20
    assert events[0]["at"] == "2026-01-15T13:14:00Z"
    assert events[-1]["at"] == "2026-01-15T12:55:00Z"


def test_new_instance_has_an_empty_history(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("new"))
    assert client.post("/api/instances/sync").status_code == 200
    UsageInterval.objects.all().delete()

    assert read(client, "new") == []


def test_unknown_instance_has_no_history(client: Client) -> None:
    assert read(client, "nope", status=404) == []


def test_costs_of_one_instance_are_read_alone(
    client: Client, django_assert_max_num_queries: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: NOON)
    for id_ in ("a", "b"):
        instance = MeteredInstance.objects.create(instance_id=id_, name=id_)
        began = ledger.to_ms(NOON) - 3_600_000
        UsageInterval.objects.create(
            instance=instance, state=State.GPU, began_ms=began, ended_ms=began + 3_600_000, price=2 * 10**10, gpus=2
        )

    client.get("/api/costs")
    with django_assert_max_num_queries(6):
        report = client.get("/api/costs/instances?instance=a").json()

    assert [one["id"] for one in report["instances"]] == ["a"]
    assert report["instances"][0]["gpuHours"] == 2
    assert report["total"] == 2
