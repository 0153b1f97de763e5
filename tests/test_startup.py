"""Which process keeps the inventory fresh, and when it calls Novita."""

import json
import logging
import sys
import threading
import time
from types import ModuleType
from typing import Any

import pytest
import redis
import requests
import responses
from django.test import Client
from fakeredis import FakeRedis, FakeServer
from pytest_django import Settings

from instances import refresher
from instances.inventory import lease, store
from instances.models import SyncRun
from instances.novita.rows import from_novita
from instances.refresher import Refresher, is_web_process
from tests.inventories import fill_inventory
from tests.novita_answers import API, NovitaAnswers, make_row
from tests.redis_keys import name_of

pytestmark = pytest.mark.django_db

STATE = name_of("sync")
TURN = name_of("moving-turn")


@pytest.fixture(autouse=True)
def refreshing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instances.refresher._watched_at", float("-inf"))
    settings.NOVITA_SYNC_ON_STARTUP = True
    settings.NOVITA_SYNC_INTERVAL = 60


def fill(novita: NovitaAnswers, *rows: dict[str, Any]) -> None:
    """Synchronize these rows first, and reset the record of calls."""
    novita.lists(*rows)
    fill_inventory()
    novita.mock.reset()


def make_older(raw_redis: FakeRedis, seconds: float) -> None:
    raw_redis.hincrby(STATE, "as_of", -round(seconds * 1000))


def read_statuses(client: Client) -> dict[str, str]:
    return {one["id"]: one["status"] for one in client.get("/api/instances").json()["instances"]}


def get_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- Which process


@pytest.mark.parametrize(
    ("argv", "is_child", "serves"),
    [
        *[([f"{path}manage.py", *command.split()], False, False) for path in ("", "./") for command in ("", "check")],
        (["manage.py", "migrate"], False, False),
        (["manage.py", "collectstatic", "--noinput"], False, False),
        (["manage.py", "shell", "-c", "runserver"], False, False),
        (["manage.py", "test"], False, False),
        (["manage.py", "help", "runserver"], False, False),
        (["manage.py", "sync_instances"], False, False),
        (["manage.py", "up"], False, False),
        (["/venv/bin/pytest"], False, False),
        (["/venv/bin/celery", "-A", "novita_site", "worker"], False, False),
        (["manage.py", "runserver"], False, False),
        (["manage.py", "runserver"], True, True),
        (["manage.py", "runserver", "8000", "--noreload"], False, True),
        (["manage.py", "check"], True, False),
    ],
)
def test_process_that_does_not_serve_the_web_starts_no_thread(
    argv: list[str], is_child: bool, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "novita_site.wsgi", raising=False)
    monkeypatch.setenv("RUN_MAIN", "true") if is_child else monkeypatch.delenv("RUN_MAIN", raising=False)

    assert is_web_process(argv) is serves


@pytest.mark.parametrize(
    "argv", [["/venv/bin/gunicorn", "novita_site.wsgi"], ["/venv/lib/gunicorn/__main__.py", "novita_site.wsgi"]]
)
def test_wsgi_server_keeps_the_inventory_fresh(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "novita_site.wsgi", ModuleType("novita_site.wsgi"))

    assert is_web_process(argv)


# --- The first sync


def test_first_round_synchronizes(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))

    Refresher().tick()

    assert read_statuses(client) == {"a": "running"}
    assert SyncRun.objects.get().trigger == "startup"


@pytest.mark.parametrize("interval", [60, 0])
def test_process_does_not_sync_a_fresh_inventory(
    interval: float, client: Client, novita: NovitaAnswers, settings: Settings
) -> None:
    settings.NOVITA_SYNC_INTERVAL = interval
    fill(novita, make_row("a"))

    Refresher().tick()

    assert not novita.mock.calls


def test_first_sync_is_made_once(novita: NovitaAnswers, settings: Settings) -> None:
    settings.NOVITA_SYNC_INTERVAL = 0
    novita.lists(make_row("a"))
    ticker = Refresher()

    for _ in range(3):
        ticker.tick()

    assert len(novita.mock.calls) == 1


def test_nothing_is_read_without_startup_and_interval(
    client: Client, novita: NovitaAnswers, settings: Settings, raw_redis: FakeRedis
) -> None:
    settings.NOVITA_SYNC_ON_STARTUP, settings.NOVITA_SYNC_INTERVAL = False, 0
    fill(novita, make_row("a"))
    make_older(raw_redis, 7 * 86400)

    Refresher().tick()

    assert not novita.mock.calls


# --- Further synchronizations


@pytest.mark.parametrize(("age", "is_read"), [(50, False), (61, True)])
def test_inventory_older_than_the_interval_is_synchronized(
    age: float, is_read: bool, client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    fill(novita, make_row("a"))
    make_older(raw_redis, age)
    if is_read:
        novita.lists(make_row("a", status="exited"))

    Refresher().tick()

    assert read_statuses(client) == {"a": "exited" if is_read else "running"}
    assert len(novita.mock.calls) == is_read


def test_two_processes_make_one_sync(client: Client, novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    refreshers = [Refresher(), Refresher()]
    novita.lists(make_row("a"))

    for ticker in refreshers:
        ticker.tick()

    assert len(novita.mock.calls) == 1


def test_sync_that_another_process_just_made_is_not_repeated(
    novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    novita.lists(make_row("a"))
    acquire = lease.acquire

    def acquire_late(trigger: str) -> lease.Lease:
        # Another process takes the lease, synchronizes and releases it, after this one has decided to synchronize.
        monkeypatch.setattr(lease, "acquire", acquire)
        Refresher().tick()
        return acquire(trigger)

    monkeypatch.setattr(lease, "acquire", acquire_late)
    Refresher().tick()

    assert len(novita.mock.calls) == 1
    assert SyncRun.objects.count() == 1


def test_running_sync_of_another_process_is_not_repeated(novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    raw_redis.set(name_of("lease"), "another", ex=30)

    Refresher().tick()

    assert not novita.mock.calls and not SyncRun.objects.exists()


def test_inventory_that_redis_lost_is_restored(client: Client, novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    ticker = Refresher()
    novita.lists(make_row("a"))
    ticker.tick()
    raw_redis.flushall()

    ticker.tick()

    assert read_statuses(client) == {"a": "running"}


def test_cleared_inventory_is_filled_again_at_once(client: Client, novita: NovitaAnswers) -> None:
    ticker = Refresher()
    fill(novita, make_row("a"))
    ticker.tick()
    client.post("/api/cache/clear")
    novita.lists(make_row("a"))

    ticker.tick()

    assert read_statuses(client) == {"a": "running"}


def test_cleared_inventory_stays_empty_where_only_people_synchronize(
    client: Client, novita: NovitaAnswers, settings: Settings
) -> None:
    settings.NOVITA_SYNC_INTERVAL = 0
    ticker = Refresher()
    fill(novita, make_row("a"))
    ticker.tick()
    client.post("/api/cache/clear")

    ticker.tick()

    assert not novita.mock.calls


@pytest.mark.parametrize(("failures", "pause"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (99, 60)])
@pytest.mark.parametrize("is_over", [False, True])
def test_failed_sync_is_retried_with_growing_pauses(
    failures: int, pause: int, is_over: bool, client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    fill(novita, make_row("a"))
    make_older(raw_redis, 3600)
    novita.lists(status=401)
    ticker = Refresher()
    ticker.tick()
    raw_redis.hset(STATE, "failures", failures)
    raw_redis.hincrby(STATE, "attempt_at", -(pause * 1000 + (100 if is_over else -3000)))

    ticker.tick()

    assert len(novita.mock.calls) == 1 + is_over


@pytest.fixture
def outage(client: Client, novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    """Novita has just failed, and the next attempt is a minute away."""
    fill(novita, make_row("a"))
    raw_redis.hset(STATE, mapping={"failures": 9, "code": "NOVITA_UNAVAILABLE", "error": "Novita is down."})


def answer_probe(novita: NovitaAnswers, **answer: Any) -> None:
    query = responses.matchers.query_param_matcher({"pageSize": 1, "pageNum": 0})
    novita.mock.get(f"{API}/gpu/instances", **{"json": {"instances": [], "total": 1}, **answer}, match=[query])


@pytest.mark.usefixtures("outage")
def test_recovery_of_novita_is_noticed_at_once_while_a_dashboard_is_open(client: Client, novita: NovitaAnswers) -> None:
    ticker = Refresher()
    ticker.tick()
    assert not novita.mock.calls, "nobody looks"
    answer_probe(novita)
    novita.lists(make_row("a", status="exited"))
    client.get("/api/overview")

    ticker.tick()

    assert read_statuses(client) == {"a": "exited"}


@pytest.mark.usefixtures("outage")
@pytest.mark.parametrize(
    ("answer", "pause"),
    [({"status": 503}, 1), ({"status": 503, "headers": {"Retry-After": "30"}}, 30), ({"status": 429}, 60)],
)
def test_probe_of_novita_respects_its_limits(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, answer: dict[str, Any], pause: int
) -> None:
    answer_probe(novita, **answer)
    client.get("/api/overview")
    ticker = Refresher()

    ticker.tick()
    Refresher().tick()

    assert len(novita.mock.calls) == 1, "one for all processes"
    # Between this and the next shorter pause, however slow this machine is.
    assert (pause - 15) * 1000 < raw_redis.pttl(name_of("novita-turn")) <= pause * 1000


@pytest.mark.usefixtures("outage")
def test_probe_that_succeeds_begins_one_attempt(client: Client, novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    answer_probe(novita)
    novita.lists(status=401)
    client.get("/api/overview")
    ticker = Refresher()
    ticker.tick()
    raw_redis.hset(STATE, "code", "NOVITA_UNAVAILABLE")
    raw_redis.delete(name_of("novita-turn"))

    ticker.tick()

    assert len(novita.mock.calls) == 2


def test_failure_of_novita_fails_no_round(
    client: Client, novita: NovitaAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    novita.lists(status=401)
    ticker = Refresher()

    for _ in range(3):
        ticker.tick()

    (warning,) = get_warnings(caplog)
    assert warning.startswith("sync failed trigger=startup ")


def test_redis_that_refuses_writes_is_not_tried_every_second(
    client: Client, novita: NovitaAnswers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = redis.Redis.execute_command

    def refuse(client: redis.Redis, *args: Any, **options: Any) -> Any:
        # The lease is all that a synchronization writes before it calls Novita.
        if args[0] == "SET" or (args[0] == "EVALSHA" and args[3] == name_of("lease")):
            raise redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        return execute(client, *args, **options)

    ticker = Refresher()
    with monkeypatch.context() as full:
        full.setattr(redis.Redis, "execute_command", refuse)
        for _ in range(3):
            ticker.tick()
    (warning,) = get_warnings(caplog)
    assert "code=CACHE_UNAVAILABLE" in warning and not novita.mock.calls
    novita.lists(make_row("a"))

    ticker.tick()

    assert read_statuses(client) == {"a": "running"}, "it is noticed when Redis takes writes again"


def test_outage_of_redis_is_logged_when_it_begins_and_when_it_ends(
    client: Client, novita: NovitaAnswers, redis_server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    fill(novita, make_row("a"))
    ticker = Refresher()

    for is_connected in (True, False, False, False, True, True):
        redis_server.connected = is_connected
        ticker.tick()

    away, back = get_warnings(caplog)
    assert away.startswith("redis is unavailable: Redis can't be reached.") and back.startswith("redis is back after ")
    assert not novita.mock.calls


# --- Moving instances


@pytest.fixture
def stopping(client: Client, novita: NovitaAnswers) -> None:
    """An inventory with two stopping instances and a running one."""
    fill(novita, make_row("a", status="toStop"), make_row("b", status="toStop"), make_row("c"))


@pytest.mark.usefixtures("stopping")
def test_moving_instance_is_read_until_it_rests(client: Client, novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    novita.shows(make_row("a", status="stopping"))
    novita.shows(make_row("a", status="exited"))
    novita.shows(make_row("b", status="exited"))
    ticker = Refresher()
    seen = []

    for _ in range(3):
        ticker.tick()
        seen.append(read_statuses(client))
        raw_redis.delete(TURN)

    assert [statuses["a"] for statuses in seen] == ["stopping", "exited", "exited"]
    assert seen[-1] == {"a": "exited", "b": "exited", "c": "running"}
    assert len(novita.mock.calls) == 3


@pytest.mark.usefixtures("stopping")
def test_moving_instance_that_is_gone_is_removed(client: Client, novita: NovitaAnswers) -> None:
    novita.lacks("a")
    novita.shows(make_row("b"), status=401)

    Refresher().tick()

    assert read_statuses(client) == {"b": "toStop", "c": "running"}


@pytest.mark.usefixtures("stopping")
def test_one_process_at_a_time_reads_moving_instances(novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    refreshers = [Refresher(), Refresher()]
    novita.shows(make_row("a", status="stopping"))
    novita.shows(make_row("b", status="stopping"))

    for ticker in refreshers:
        ticker.tick()

    assert len(novita.mock.calls) == 2
    assert 1000 < raw_redis.pttl(TURN) <= 3000


@pytest.mark.usefixtures("stopping")
def test_novita_in_trouble_is_not_called_every_few_seconds(novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    novita.shows(make_row("a"), status=401)
    novita.shows(make_row("b", status="stopping"))

    Refresher().tick()

    assert 10_000 < raw_redis.pttl(TURN) <= 20_000


@pytest.mark.usefixtures("stopping")
def test_read_of_moving_instances_never_replaces_a_later_action(client: Client, novita: NovitaAnswers) -> None:
    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        for id_ in "ab":
            store.write_instance(from_novita(make_row(id_, status="toRestart")))
        return 200, {}, json.dumps(make_row(str(request.url)[-1], status="stopping"))

    novita.mock.add_callback(responses.GET, f"{API}/gpu/instance", answer)

    Refresher().tick()

    assert read_statuses(client) == {"a": "toRestart", "b": "toRestart", "c": "running"}


@pytest.mark.parametrize(("minutes", "reads"), [(9, 1), (11, 0)])
def test_stuck_instance_is_left_to_the_syncs(
    minutes: int, reads: int, client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    fill(novita, make_row("a", status="toStop"))
    (generation,) = raw_redis.keys(name_of("gen:*"))
    changed_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - minutes * 60))
    row = json.loads(raw_redis.hget(generation, "a"))
    raw_redis.hset(generation, "a", json.dumps({**row, "changedAt": changed_at}))
    if reads:
        novita.shows(make_row("a", status="toStop"))

    Refresher().tick()

    assert len(novita.mock.calls) == reads


@pytest.mark.usefixtures("stopping")
@pytest.mark.parametrize(
    ("is_large", "age", "is_listed"), [(False, 2, False), (False, 4, True), (True, 5, False), (True, 11, True)]
)
def test_too_many_moving_instances_are_listed_instead(
    is_large: bool,
    age: float,
    is_listed: bool,
    client: Client,
    novita: NovitaAnswers,
    raw_redis: FakeRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("instances.refresher.MAX_MOVING_READS", 1)
    monkeypatch.setattr("instances.refresher.LARGE_INVENTORY", 2 if is_large else 3)
    make_older(raw_redis, age)
    if is_listed:
        novita.lists(make_row("a", status="exited"), make_row("b", status="exited"), make_row("c"))

    Refresher().tick()

    assert read_statuses(client)["a"] == ("exited" if is_listed else "toStop")
    assert len(novita.mock.calls) == is_listed


# --- Shutdown


def test_shutdown_ends_a_sync_and_releases_its_lease(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.refresher._stop", threading.Event())
    fill(novita, make_row("a"))
    novita.lists_during(refresher.end, make_row("b"))

    answer = client.post("/api/instances/sync")

    assert answer.status_code == 503
    assert answer.json()["code"] == "SHUTTING_DOWN"
    assert read_statuses(client) == {"a": "running"}
    assert not raw_redis.exists(name_of("lease"))
    assert client.get("/health").json()["sync"]["lastError"] is None


def test_shutdown_while_the_lease_is_taken_releases_it(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.refresher._stop", threading.Event())
    execute = redis.Redis.execute_command

    def end_meanwhile(client: redis.Redis, *args: Any, **options: Any) -> Any:
        if args[0] == "EVALSHA" and args[3] == name_of("lease"):
            refresher.end()
        return execute(client, *args, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", end_meanwhile)

    answer = client.post("/api/instances/sync")

    assert answer.status_code == 503
    assert answer.json()["code"] == "SHUTTING_DOWN"
    assert not novita.mock.calls and not raw_redis.exists(name_of("lease"))
