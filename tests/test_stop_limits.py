"""Whatever a script has sent: a stop is never refused for its number."""

from typing import Any

import pytest
from fakeredis import FakeRedis
from pytest_django import Settings

from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import STOP_ALL, order
from tests.redis_keys import name_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

LIMIT = 3
ACT = "/api/cache/clear"


@pytest.fixture(autouse=True)
def limited(settings: Settings) -> None:
    settings.API_RATE_LIMIT = LIMIT


def send(client: ApiClient, path: str, body: Any = "", times: int = 1, **extra: Any) -> set[int]:
    return {client.post(path, body, **extra).status_code for _ in range(times)}


def run_wild(client: ApiClient) -> None:
    """Do as a script that never ends: act until it is refused."""
    send(client, ACT, times=LIMIT)
    assert send(client, ACT, times=20) == {429}
    assert send(client, "/api/instances/a/start") == {429}
    assert send(client, "/api/operations", {"kind": "start", "ids": ["a"]}) == {429}


def test_a_runaway_script_keeps_nobody_from_stopping_all(client: ApiClient, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"), make_row("b"))
    run_wild(client)

    assert order(client, dryRun=True)["count"] == 2
    assert order(client)["count"] == 2


def test_a_runaway_script_keeps_nobody_from_stopping_some(client: ApiClient, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"), make_row("b"), make_row("c"))
    run_wild(client)

    assert send(client, "/api/instances/a/stop") == {202}
    assert order(client, ids=["b"])["count"] == 1
    ordered = order(client, "/api/operations", kind="stop", ids=["c"])
    assert ordered["count"] == 1
    assert send(client, f"{ordered['operationUrl']}/cancel") == {200}


@pytest.mark.thorough
def test_a_script_that_stops_all_again_and_again_is_not_refused(client: ApiClient, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"))

    assert {client.post(STOP_ALL).status_code for _ in range(5 * LIMIT)} == {200}
    # Its stops use up nothing of what others may send.
    assert send(client, ACT, times=LIMIT) == {200}


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status"),
    [
        ("/api/nothing", "", "application/json", 404),
        ("/api/instances/stopp-all", "", "application/json", 405),
        ("/api/instances", "", "application/json", 405),
        ("/api/instances/a/start", "[", "application/json", 400),
        ("/api/instances/a/start", '{"x": 1}', "application/json", 400),
        ("/api/instances/a/start", "x=1", "application/x-www-form-urlencoded", 415),
        ("/api/operations", '{"kind": "start"}', "application/json", 400),
    ],
)
def test_requests_that_do_nothing_use_nothing_up(
    client: ApiClient, raw_redis: FakeRedis, path: str, body: str, content_type: str, status: int
) -> None:
    assert send(client, path, body, times=10, content_type=content_type) == {status}

    assert not list(raw_redis.scan_iter(name_of("rate:*")))
    assert send(client, ACT, times=LIMIT) == {200}
