"""What each probe answers in every state, and that no probe calls Novita."""

import io
import re
import time
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone
from django_redis import get_redis_connection
from fakeredis import FakeRedis, FakeServer
from pytest_django import Settings

from instances import health, redis_client, tasks
from instances.fallback.database import find_id
from instances.inventory import heartbeat, lease
from instances.models import Operation
from novita_site import __version__
from novita_site.settings import SESSION_COOKIE_NAME
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_refusal, make_row
from tests.redis_keys import name_of

Json = dict[str, Any]
database = pytest.mark.django_db


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b"))
    fill_inventory()


def read_health(client: Client, status: int = 200) -> Json:
    answer = client.get("/health")
    assert answer.status_code == status
    body: Json = answer.json()
    return body


def tell_policy(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    """Give the Redis in memory an eviction policy, before the service reads it."""
    monkeypatch.setattr(redis.Redis, "info", lambda self, section: {"maxmemory_policy": policy})
    monkeypatch.setattr(
        health, "_find_policy", health._remember(health.POLICY_SECONDS, redis_client.find_eviction_policy)
    )


def leave_unfinished() -> None:
    Operation.objects.create(kind="stop", is_whole_account=True, selection="stop:all", deadline_at=timezone.now())


# --- /health


@database
@pytest.mark.usefixtures("account")
def test_service_with_a_fresh_inventory_is_healthy(client: Client, novita: NovitaAnswers) -> None:
    body = read_health(client)

    as_of = client.get("/api/instances")["Data-As-Of"]
    assert body["sync"].pop("ageSeconds") in range(60)
    assert body.pop("timestamp") >= as_of
    assert body == {
        "status": "healthy",
        "version": __version__,
        "services": {"redis": "up", "novita": "up", "database": "up", "worker": "down"},
        "sync": {
            "available": True,
            "lastSync": as_of,
            "clearedAt": None,
            "isLocked": False,
            "cacheSize": 2,
            "isStale": False,
            "lastError": None,
            "lastErrorCode": None,
        },
        "warnings": [],
        "unappliedMigrations": [],
    }
    assert len(novita.mock.calls) == 1, "a probe calls Novita"


@database
def test_service_without_an_inventory_is_degraded(client: Client) -> None:
    body = read_health(client)

    assert body["status"] == "degraded"
    assert body["services"]["novita"] == "unknown"
    assert body["sync"] == {
        "available": False,
        "lastSync": None,
        "clearedAt": None,
        "isLocked": False,
        "cacheSize": 0,
        "ageSeconds": None,
        "isStale": False,
        "lastError": None,
        "lastErrorCode": None,
    }
    assert body["warnings"] == ["The account has not been synchronized yet."]


@database
def test_service_with_an_empty_account_is_healthy(client: Client, novita: NovitaAnswers) -> None:
    novita.lists()
    client.post("/api/instances/sync")

    body = read_health(client)

    assert body["status"] == "healthy"
    assert body["sync"]["available"] is True
    assert body["sync"]["cacheSize"] == 0


@database
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({"status": 401, "json": make_refusal(401, "INVALID_API_KEY", "no")}, "Novita rejected the API key."),
        ({"json": None, "body": "<html>"}, "Novita's answer is not JSON."),
        ({"status": 503, "headers": {"Retry-After": "3600"}}, "Novita returned an error (HTTP 503)."),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, "Novita limits the rate of our requests."),
    ],
)
@pytest.mark.usefixtures("account")
def test_service_after_a_failed_sync_is_degraded_and_gives_the_reason(
    client: Client, novita: NovitaAnswers, failure: Json, words: str
) -> None:
    before = read_health(client)["sync"]
    novita.mock.reset()
    novita.lists(**failure)
    client.post("/api/instances/sync")

    body = read_health(client)

    assert body["status"] == "degraded"
    assert body["services"]["novita"] == "down"
    assert body["sync"]["lastError"] == words
    assert body["sync"]["lastErrorCode"] == client.post("/api/instances/sync").json()["code"]
    assert re.match(rf"Sync has been failing since \S+Z: {re.escape(words)}", body["warnings"][0])
    assert ("Set NOVITA_API_KEY" in body["warnings"][0]) is ("key" in words)
    assert [body["sync"][name] for name in ("available", "lastSync", "cacheSize")] == [True, before["lastSync"], 2]


@database
def test_service_is_healthy_again_after_a_successful_sync(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(status=401)
    client.post("/api/instances/sync")
    assert read_health(client)["status"] == "degraded"

    novita.mock.reset()
    novita.lists(make_row("a"))
    client.post("/api/instances/sync")

    body = read_health(client)
    assert body["status"] == "healthy"
    assert body["services"]["novita"] == "up"
    assert body["sync"]["lastError"] is None


@database
@pytest.mark.usefixtures("account")
def test_stale_inventory_is_a_warning(client: Client, settings: Settings) -> None:
    settings.NOVITA_STALE_AFTER = 0
    time.sleep(0.01)

    body = read_health(client)

    as_of = body["sync"]["lastSync"]
    assert body["status"] == "degraded"
    assert body["warnings"] == [
        f"The data is stale: it was read at {as_of}. Synchronize, or check NOVITA_SYNC_INTERVAL."
    ]


@database
@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_redis_that_may_evict_the_inventory_is_a_warning(
    client: Client, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    tell_policy(monkeypatch, policy)

    body = read_health(client)

    assert body["status"] == "degraded"
    (warning,) = body["warnings"]
    assert policy in warning and "noeviction" in warning


@database
@pytest.mark.usefixtures("account")
def test_redis_that_evicts_nothing_is_no_warning(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_policy(monkeypatch, "noeviction")

    assert read_health(client)["warnings"] == []


@database
@pytest.mark.usefixtures("account")
def test_service_is_unhealthy_until_redis_is_back(client: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False
    away = read_health(client, 503)
    redis_server.connected = True
    back = read_health(client)

    assert away["status"] == "unhealthy"
    assert away["services"]["redis"] == "down"
    assert away["services"]["novita"] == "unknown"
    assert away["sync"]["available"] is False
    assert away["sync"]["cacheSize"] == 0
    assert away["warnings"] == ["Redis can't be reached. Stops still work. Check Redis."]
    assert back["status"] == "healthy"
    assert back["sync"]["cacheSize"] == 2


@database
@pytest.mark.usefixtures("account")
def test_service_is_degraded_until_the_database_is_back(client: Client) -> None:
    with connection.execute_wrapper(Mock(side_effect=OperationalError("disk full"))):
        away = read_health(client)
    back = read_health(client)

    assert away["status"] == "degraded"
    assert away["services"]["database"] == "down"
    assert away["warnings"] == [
        "The database can't be used: its disk is full. Stops are still sent, and recorded later."
    ]
    assert back["status"] == "healthy"
    assert back["services"]["database"] == "up"


@database
@pytest.mark.usefixtures("account")
def test_running_sync_is_shown(client: Client) -> None:
    with lease.acquire("command"):
        during = read_health(client)["sync"]["isLocked"]

    assert during is True
    assert read_health(client)["sync"]["isLocked"] is False


@database
def test_our_own_failures_are_not_attributed_to_novita(client: Client, novita: NovitaAnswers) -> None:
    novita.lists_during(lambda: get_redis_connection("default").delete(name_of("lease")), make_row("a"))
    client.post("/api/instances/sync")

    body = read_health(client)

    assert body["services"]["novita"] == "unknown"
    assert body["sync"]["lastError"]


# --- /livez and /readyz


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("host", ["10.1.2.3:3000", "", "evil.test", "no host"])
@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 503), ("/livez/", 200)])
def test_probe_answers_on_any_address(client: Client, path: str, status: int, host: str, method: str) -> None:
    headers = {"Host": host, "Origin": "http://evil.test", "X-Forwarded-For": "192.0.2.7"}

    assert getattr(client, method)(path, headers=headers).status_code == status


@pytest.mark.parametrize("path", ["/health", "/", "/api/instances", "/livez/x", "/readyzz"])
def test_other_addresses_refuse_an_unknown_host(client: Client, log_stream: io.StringIO, path: str) -> None:
    assert client.get(path, headers={"Host": "evil.test"}).status_code == 400
    assert "Traceback" not in log_stream.getvalue()


@pytest.mark.parametrize("is_login_wanted", [False, True])
def test_livez_needs_neither_redis_nor_the_database(
    client: Client, redis_server: FakeServer, settings: Settings, is_login_wanted: bool
) -> None:
    settings.REQUIRE_LOGIN = is_login_wanted
    redis_server.connected = False
    client.cookies[SESSION_COOKIE_NAME] = "a-session"

    answer = client.get("/livez")

    assert answer.status_code == 200
    assert answer.json() == {"status": "alive"}


def test_service_without_an_inventory_is_not_ready(client: Client) -> None:
    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready"}


@database
@pytest.mark.usefixtures("account")
def test_service_with_a_fresh_inventory_is_ready(client: Client, novita: NovitaAnswers) -> None:
    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready"}
    assert len(novita.mock.calls) == 1, "a probe calls Novita"


@database
@pytest.mark.usefixtures("account")
def test_service_is_ready_although_the_database_is_down(client: Client, new_process: None) -> None:
    with connection.execute_wrapper(Mock(side_effect=OperationalError("disk full"))):
        assert client.get("/readyz").status_code == 200


@database
@pytest.mark.usefixtures("account")
def test_readyz_asks_a_database_with_all_migrations_once(client: Client, new_process: None) -> None:
    client.get("/readyz")

    with connection.execute_wrapper(Mock(side_effect=AssertionError("requested"))):
        assert client.get("/readyz").status_code == 200


@database
@pytest.mark.usefixtures("account")
def test_service_with_a_stale_inventory_is_not_ready(client: Client, settings: Settings) -> None:
    settings.NOVITA_STALE_AFTER = 0
    time.sleep(0.01)

    assert client.get("/readyz").status_code == 503


@database
@pytest.mark.usefixtures("account")
def test_service_is_not_ready_until_redis_is_back(client: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False
    away = client.get("/readyz").status_code
    redis_server.connected = True

    assert away == 503
    assert client.get("/readyz").status_code == 200


@database
@pytest.mark.usefixtures("account")
def test_service_with_a_cleared_inventory_is_not_ready(client: Client) -> None:
    client.post("/api/cache/clear")

    assert client.get("/readyz").status_code == 503


@database
def test_service_stays_ready_after_a_failed_sync(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))
    client.post("/api/instances/sync")
    novita.mock.reset()
    novita.lists(status=401)
    client.post("/api/instances/sync")

    assert client.get("/readyz").status_code == 200


# --- Migrations


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not seen its database complete."""
    monkeypatch.setattr(health, "_is_migrated", False)


def change_migrations(name: str, *, is_applied: bool) -> None:
    changes = MigrationRecorder(connection)
    (changes.record_applied if is_applied else changes.record_unapplied)("instances", name)


@database
@pytest.mark.usefixtures("account", "new_process")
def test_service_is_not_ready_until_its_migrations_are_applied(client: Client) -> None:
    change_migrations("0002_operations", is_applied=False)
    before = client.get("/readyz").status_code
    change_migrations("0002_operations", is_applied=True)

    assert before == 503
    assert client.get("/readyz").status_code == 200


@database
@pytest.mark.usefixtures("account")
def test_unapplied_migrations_are_a_warning(client: Client) -> None:
    change_migrations("0002_operations", is_applied=False)

    body = read_health(client)

    assert body["status"] == "degraded"
    assert body["unappliedMigrations"] == ["instances.0002_operations"]
    assert body["warnings"] == [
        "The database lacks migrations of this version (1), so parts of the panel fail. Run manage.py migrate."
    ]


@database
@pytest.mark.usefixtures("account", "new_process")
def test_older_code_is_ready_and_healthy_with_a_newer_database(client: Client) -> None:
    change_migrations("9999_of_the_next_version", is_applied=True)

    assert client.get("/readyz").status_code == 200
    assert read_health(client)["status"] == "healthy"


# --- The worker


@database
@pytest.mark.usefixtures("account")
def test_worker_is_up_as_long_as_it_runs(client: Client, raw_redis: FakeRedis) -> None:
    assert read_health(client)["services"]["worker"] == "down"

    tasks.move_operations()

    assert read_health(client)["services"]["worker"] == "up"
    assert 0 < raw_redis.ttl(f"{name_of('worker')}:{find_id()}") <= 15


@database
@pytest.mark.usefixtures("account")
def test_missing_worker_is_a_warning_only_when_it_has_tasks(client: Client) -> None:
    leave_unfinished()

    body = read_health(client)

    assert body["status"] == "degraded"
    assert body["warnings"] == [
        "No worker is running: operations are not verified, and webhooks are not delivered. "
        "Start one: celery -A novita_site worker"
    ]
    heartbeat.note_worker()
    assert read_health(client)["status"] == "healthy"


@database
def test_worker_is_unknown_without_redis(client: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False

    assert read_health(client, 503)["services"]["worker"] == "unknown"


@database
def test_worker_with_another_database_does_not_count(client: Client, raw_redis: FakeRedis) -> None:
    raw_redis.set(f"{name_of('worker')}:0123456789", "up", ex=15)

    assert read_health(client)["services"]["worker"] == "down"
