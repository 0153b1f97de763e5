"""Metrics: what an answer of Novita's says, which calls are sent, and in which order."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import responses
from django.test import Client
from django.utils import timezone
from fakeredis import FakeServer
from pytest_django import Settings

from instances import redis_client, tasks
from instances.errors import NovitaBadAnswer
from instances.models import Finding, Operation
from instances.novita.metrics import parse_metrics
from instances.policies import metrics
from instances.redis_client import get_redis
from instances.simulator import load
from instances.utilization import readings, sampling
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import order, sync
from tests.policy_steps import make_policy, make_reading

AT = 1_760_000_000
METRICS = "https://novita.test/openapi/v1/metrics/gpu/instance"

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


def make_answer(*items: Any, **fields: Any) -> dict[str, Any]:
    return {"gpuUtilization": {"avg": [], "gpuIds": [{"gpuId": "0", "items": list(items)}]}, **fields}


# --- The answer


@pytest.mark.parametrize("timestamp", [AT, str(AT), AT * 1000, str(AT * 1000)])
def test_timestamp_is_read_as_seconds_or_milliseconds_as_text_or_number(timestamp: Any) -> None:
    parsed = parse_metrics(make_answer({"timestamp": timestamp, "value": "3.5"}))

    assert parsed.gpus == [[(datetime.fromtimestamp(AT, UTC), 3.5)]]


def test_samples_are_put_in_order() -> None:
    parsed = parse_metrics(make_answer({"timestamp": AT + 60, "value": 2}, {"timestamp": AT, "value": 1}))

    assert [value for _, value in parsed.gpus[0]] == [1, 2]


@pytest.mark.parametrize(
    "item",
    [
        *(
            None,
            3,
            {},
            {"timestamp": AT},
            {"value": 1},
            {"timestamp": "now", "value": 1},
            {"timestamp": AT, "value": "x"},
        ),
        *({"timestamp": AT, "value": None}, {"timestamp": AT, "value": True}, {"timestamp": 10**30, "value": 1}),
        {"timestamp": -(10**18), "value": 1},
    ],
    ids=str,
)
def test_malformed_sample_counts_as_missing(item: Any) -> None:
    assert parse_metrics(make_answer(item)).gpus == [[]]


def test_value_that_is_no_number_is_kept_as_a_wrong_one() -> None:
    (sample,) = parse_metrics(make_answer({"timestamp": AT, "value": "NaN"})).gpus[0]

    assert sample.value == -1


@pytest.mark.parametrize(
    "body", [{}, {"gpuUtilization": None}, {"gpuUtilization": {"avg": None, "gpuIds": None}}], ids=str
)
def test_answer_without_series_has_none(body: Any) -> None:
    assert parse_metrics(body).gpus == []


@pytest.mark.parametrize(
    "body",
    [
        *(
            None,
            [],
            "x",
            {"gpuUtilization": []},
            {"gpuUtilization": {"gpuIds": [3]}},
            {"gpuUtilization": {"gpuIds": [{"gpuId": "0", "items": []}, {"gpuId": 0, "items": []}]}},
            {"gpuUtilization": {"gpuIds": {}}},
        ),
        *({"cpuUtilization": {}}, {"cpuUtilization": [{}] * 10_001}, {"gpuUtilization": {"gpuIds": [{}] * 65}}),
    ],
    ids=lambda body: str(body)[:60],
)
def test_answer_of_another_form_is_refused(body: Any) -> None:
    with pytest.raises(NovitaBadAnswer):
        parse_metrics(body)


# --- The simulator's answer


@pytest.mark.parametrize("script", load.SCRIPTS)
def test_simulated_metrics_are_read(script: str) -> None:
    row = {"id": "a", "name": "train", "status": "running", "gpuNum": "8"}

    parsed = parse_metrics(load.describe(row, script, AT, AT + 3600, 60, AT + 7200))

    expected = 30 if script == "missing" else 60
    assert [len(series) for series in parsed.gpus] == [expected] * 8


def test_simulated_metrics_are_a_minute_late() -> None:
    row = {"id": "a", "name": "train", "status": "running", "gpuNum": "1"}

    parsed = parse_metrics(load.describe(row, "busy", AT, AT + 3600, 60, AT + 600))

    assert max(at.timestamp() for at, _ in parsed.gpus[0]) <= AT + 540


# --- The calls


@pytest.fixture
def account(client: Client, novita: NovitaAnswers) -> Account:
    account = novita.holds(*[make_row(id_, name=f"name-{id_}") for id_ in "abcdef"])
    sync(client, account)
    return account


@pytest.fixture
def called(account: Account, novita: NovitaAnswers) -> list[dict[str, str]]:
    """The queries of the calls for metrics, which are all answered by an idle hour."""
    queries: list[dict[str, str]] = []

    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(str(request.url)).query).items()}
        queries.append(query)
        times = range(int(query["startTime"]), int(query["endTime"]), 60)
        items = [{"timestamp": str(at), "value": 0.1} for at in times]
        return 200, {}, json.dumps(make_answer(*items))

    novita.mock.add_callback(responses.GET, METRICS, answer)
    return queries


@pytest.fixture(autouse=True)
def slot(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time of the limit, which the test drives."""
    now = [1_800_000_000.0]
    monkeypatch.setattr(sampling, "get_time", lambda: now[0])
    return now


def list_called(called: list[dict[str, str]]) -> list[str]:
    return [query["instanceId"] for query in called]


def test_nothing_is_read_without_a_policy(called: list[Any]) -> None:
    tasks.sample_metrics()

    assert called == []


def test_covered_instances_are_read_for_the_whole_window(called: list[Any]) -> None:
    make_policy(name_pattern="name-a", window_minutes=90)

    tasks.sample_metrics()

    (query,) = called
    assert query["instanceId"] == "a"
    assert query["interval"] == "60"
    assert int(query["endTime"]) - int(query["startTime"]) >= 90 * 60
    assert int(query["endTime"]) <= timezone.now().timestamp() - 59


def test_reading_can_be_judged(called: list[Any], account: Account) -> None:
    make_policy(name_pattern="name-a")

    tasks.sample_metrics()
    tasks.evaluate_policies()

    assert Finding.objects.get().state == "warned"


def test_calls_are_spread_over_the_minute(called: list[Any], settings: Settings, slot: list[float]) -> None:
    settings.METRICS_CALLS_PER_MINUTE = 12
    make_policy()

    counts = []
    for _ in range(3):
        before = len(called)
        tasks.sample_metrics()
        counts.append(len(called) - before)
        slot[0] += 10

    assert counts == [2, 2, 2]


def test_workers_share_the_limit(called: list[Any], settings: Settings) -> None:
    settings.METRICS_CALLS_PER_MINUTE = 12
    make_policy()

    tasks.sample_metrics()
    tasks.sample_metrics()

    assert len(called) == 2


def test_limit_of_less_than_a_call_a_slot_is_kept(called: list[Any], settings: Settings, slot: list[float]) -> None:
    settings.METRICS_CALLS_PER_MINUTE = 2
    make_policy()

    for _ in range(6):
        tasks.sample_metrics()
        slot[0] += 10

    assert len(called) == 2


def test_limit_of_zero_reads_nothing(called: list[Any], settings: Settings) -> None:
    settings.METRICS_CALLS_PER_MINUTE = 0
    make_policy()

    tasks.sample_metrics()

    assert called == []


def test_what_is_about_to_be_stopped_is_read_first_then_what_is_watched_then_the_oldest(
    client: Client, called: list[Any], settings: Settings
) -> None:
    settings.METRICS_CALLS_PER_MINUTE = 18
    policy = make_policy()
    now = timezone.now()
    for id_, minutes in zip("abcdef", (5, 6, 7, 8, 9, 10), strict=True):
        readings.write(id_, make_reading(now - timedelta(minutes=minutes), 0.0))
    Finding.objects.create(policy=policy, policy_name="p", policy_version=1, mode="stop", instance_id="b", state="due")
    client.get("/api/instances/c/utilization")

    tasks.sample_metrics()

    assert list_called(called) == ["b", "c", "f"]


def test_fresh_metrics_are_not_read_again(called: list[Any]) -> None:
    make_policy(name_pattern="name-a")
    tasks.sample_metrics()

    tasks.sample_metrics()

    assert len(called) == 1


def test_running_operation_comes_first(client: Client, account: Account, called: list[Any]) -> None:
    make_policy()
    order(client, "/api/operations", kind="stop", ids=["a"])

    tasks.sample_metrics()

    assert called == []
    Operation.objects.update(state="finished")
    tasks.sample_metrics()
    assert called


def test_operation_that_begins_meanwhile_comes_before_the_remaining_metrics(
    account: Account, novita: NovitaAnswers
) -> None:
    calls = []

    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        calls.append(request.url)
        Operation.objects.create(kind="stop", is_whole_account=True, selection="", deadline_at=timezone.now())
        return 200, {}, json.dumps(make_answer())

    novita.mock.add_callback(responses.GET, METRICS, answer)
    make_policy()

    tasks.sample_metrics()

    assert len(calls) == 1


def test_rate_limit_of_novita_pauses_all_workers(account: Account, novita: NovitaAnswers) -> None:
    make_policy()
    limited = novita.mock.get(METRICS, status=429, headers={"Retry-After": "30"})

    tasks.sample_metrics()
    tasks.sample_metrics()

    assert limited.call_count == 1


def test_failed_call_is_unknown_and_goes_on_with_the_next(account: Account, novita: NovitaAnswers) -> None:
    make_policy()
    failing = novita.mock.get(METRICS, status=500)

    tasks.sample_metrics()

    assert failing.call_count == 6
    assert all(one.error for one in readings.read_many(list("abcdef")).values())


def test_nothing_is_read_without_redis(called: list[Any], redis_server: FakeServer) -> None:
    make_policy()
    redis_server.connected = False

    tasks.sample_metrics()

    assert called == []


# --- The API


def test_utilization_is_shown(client: Client, called: list[Any]) -> None:
    assert client.get("/api/instances/a/utilization").json()["readAt"] is None
    assert metrics.sample() == 1

    shown = client.get("/api/instances/a/utilization").json()

    assert len(shown["gpus"]) == 1
    assert len(shown["gpus"][0]) >= 60
    assert shown["error"] is None


def test_utilization_of_an_unknown_instance_is_not_found(client: Client, account: Account) -> None:
    assert client.get("/api/instances/nope/utilization").status_code == 404


def test_damaged_reading_counts_as_none(client: Client, account: Account, redis_server: FakeServer) -> None:
    get_redis().set(f"{redis_client.METRICS}a", b"\x80garbage")

    assert client.get("/api/instances/a/utilization").json()["readAt"] is None
