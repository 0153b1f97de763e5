"""The lease of a synchronization: one owner at a time, whatever happens to the owner or to Redis's answers."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.test import Client
from fakeredis import FakeRedis, FakeServer

from instances.errors import SyncInProgress
from instances.inventory import lease
from instances.models import SyncRun
from tests.novita_answers import NovitaAnswers, make_row
from tests.redis_keys import name_of

LEASE = name_of("lease")
FENCE = name_of("fence")
SYNC = "/api/instances/sync"


def wait_until(is_so: Callable[[], bool]) -> bool:
    """Return whether it became true within five seconds."""
    ends_at = time.monotonic() + 5
    while not is_so() and time.monotonic() < ends_at:
        time.sleep(0.01)
    return is_so()


# --- One owner


def test_lease_has_one_owner(raw_redis: FakeRedis) -> None:
    with lease.acquire("api"):
        with pytest.raises(SyncInProgress) as refusal, lease.acquire("api"):
            pass
        assert raw_redis.exists(LEASE)

    assert refusal.value.retry_after
    assert not raw_redis.exists(LEASE)


def test_released_lease_can_be_taken_again_at_once() -> None:
    with lease.acquire("api"):
        pass

    with lease.acquire("interval"):
        pass


def test_lease_of_a_dead_owner_expires(raw_redis: FakeRedis) -> None:
    lease.acquire("api")

    assert 0 < raw_redis.pttl(LEASE) <= 30_000


@pytest.mark.django_db
def test_lease_names_its_owner(client: Client) -> None:
    with lease.acquire("startup"):
        stats, health = client.get("/api/cache/stats").json(), client.get("/health").json()

    assert stats["lease"]["trigger"] == "startup"
    assert health["sync"]["isLocked"] is True


def test_lease_of_a_later_owner_is_not_released(raw_redis: FakeRedis) -> None:
    with lease.acquire("api"):
        raw_redis.set(LEASE, "another", px=3000)

    assert raw_redis.get(LEASE) == b"another"


def test_outage_during_release_is_logged_and_no_error(
    redis_server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    with lease.acquire("api"):
        redis_server.connected = False

    assert "lease not released, it expires in 30 s" in caplog.text


@pytest.mark.parametrize(
    "forget", [FakeRedis.flushall, lambda raw_redis: raw_redis.delete(FENCE), lambda raw_redis: None]
)
def test_each_owner_gets_a_higher_fence(forget: Callable[[FakeRedis], object], raw_redis: FakeRedis) -> None:
    fences = []
    for _ in range(4):
        with lease.acquire("api") as held:
            fences.append(held.fence)
        forget(raw_redis)
        time.sleep(0.002)

    assert sorted(set(fences)) == fences


# --- Renewal


@pytest.fixture
def quick_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instances.inventory.lease.RENEW_SECONDS", 0.02)


@pytest.mark.usefixtures("quick_renewal")
def test_held_lease_is_renewed(raw_redis: FakeRedis) -> None:
    with lease.acquire("api"):
        raw_redis.pexpire(LEASE, 3000)
        assert wait_until(lambda: raw_redis.pttl(LEASE) > 20_000)


@pytest.mark.usefixtures("quick_renewal")
def test_lease_of_another_owner_is_not_renewed(raw_redis: FakeRedis, caplog: pytest.LogCaptureFixture) -> None:
    with lease.acquire("api"):
        raw_redis.set(LEASE, "another", px=3000)
        assert wait_until(lambda: "lease lost" in caplog.text)

    assert raw_redis.pttl(LEASE) <= 3000


@pytest.mark.usefixtures("quick_renewal")
def test_renewal_continues_after_an_outage(
    raw_redis: FakeRedis, redis_server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    with lease.acquire("api"):
        redis_server.connected = False
        assert wait_until(lambda: "lease not renewed" in caplog.text)
        redis_server.connected = True
        raw_redis.pexpire(LEASE, 3000)
        assert wait_until(lambda: raw_redis.pttl(LEASE) > 20_000)


# --- Lost answers


@pytest.fixture
def lost_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose the answer to the first script that Redis runs."""
    execute, lost = redis.Redis.execute_command, []

    def lose(client: redis.Redis, *args: Any, **options: Any) -> Any:
        answer = execute(client, *args, **options)
        if args[0] == "EVALSHA" and not lost:
            lost.append(answer)
            raise redis.exceptions.TimeoutError("Timeout reading from socket")
        return answer

    monkeypatch.setattr(redis.Redis, "execute_command", lose)


@pytest.mark.usefixtures("lost_reply")
def test_lease_is_held_and_released_although_the_answer_was_lost(raw_redis: FakeRedis) -> None:
    with lease.acquire("api") as held:
        assert raw_redis.get(LEASE) == held.token.encode()
        assert raw_redis.get(FENCE) == str(held.fence).encode()

    assert not raw_redis.exists(LEASE)


@pytest.mark.usefixtures("lost_reply")
def test_lost_answer_leaves_the_lease_of_another_owner(raw_redis: FakeRedis) -> None:
    raw_redis.set(LEASE, "another", px=3000)

    with pytest.raises(SyncInProgress), lease.acquire("api"):
        pass

    assert raw_redis.get(LEASE) == b"another"


# --- A synchronization and its lease


@pytest.mark.django_db
def test_second_sync_at_the_same_time_is_refused(client: Client, novita: NovitaAnswers) -> None:
    second: list[Any] = []
    novita.lists_during(lambda: second.append(client.post(SYNC)), make_row("a"))

    first = client.post(SYNC)

    assert first.status_code == 200
    assert first.json()["added"] == 1
    assert second[0].status_code == 409
    assert second[0].json()["code"] == "SYNC_IN_PROGRESS"
    assert int(second[0]["Retry-After"]) > 0
    assert SyncRun.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.usefixtures("no_pauses")
def test_outage_of_redis_during_a_sync_keeps_the_previous_listing(
    client: Client, novita: NovitaAnswers, redis_server: FakeServer
) -> None:
    novita.lists(make_row("a"))
    client.post(SYNC)
    old = client.get("/api/instances").content
    novita.mock.reset()
    novita.lists_during(lambda: setattr(redis_server, "connected", False), make_row("b"))

    failure = client.post(SYNC)

    redis_server.connected = True
    assert failure.status_code == 503
    assert failure.json()["code"] == "CACHE_UNAVAILABLE"
    assert client.get("/api/instances").content == old


@pytest.mark.django_db
@pytest.mark.parametrize("listed", ["b", "a"], ids=["as listed since", "as stored before"])
def test_sync_that_lost_its_lease_keeps_the_newer_listing(
    listed: str, client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    novita.lists(make_row("a"))
    client.post(SYNC)
    novita.mock.reset()
    newer: list[bytes] = []

    def let_another_sync() -> None:
        raw_redis.delete(LEASE)
        novita.mock.reset()
        novita.lists(make_row("b", status="exited"))
        novita.lacks("a")
        client.post(SYNC)
        newer.append(client.get("/api/instances").content)

    novita.lists_during(let_another_sync, make_row(listed))

    answer = client.post(SYNC)

    assert answer.status_code == 503
    assert answer.json()["code"] == "SYNC_LOST_LOCK"
    assert client.get("/api/instances").content == newer[0]
    assert len(raw_redis.keys(name_of("gen:*"))) == 1  # The newer one, and no draft.


@pytest.mark.django_db
@pytest.mark.parametrize(
    "steal",
    [
        lambda raw_redis: raw_redis.set(LEASE, "another", px=3000),
        lambda raw_redis: raw_redis.incr(FENCE),
        lambda raw_redis: raw_redis.delete(LEASE),
        lambda raw_redis: raw_redis.flushall(),
    ],
    ids=["another owner", "a later fence", "expired", "an emptied Redis"],
)
def test_sync_without_its_lease_publishes_nothing(
    steal: Callable[[FakeRedis], object], client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    novita.lists_during(lambda: steal(raw_redis), make_row("a"))

    answer = client.post(SYNC)

    assert answer.status_code == 503
    assert answer.json()["code"] == "SYNC_LOST_LOCK"
    assert client.get("/api/instances")["Data-Stale"] == "true"
    assert not raw_redis.keys(name_of("gen:*"))


# --- Refusals of Redis


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "out of memory"),
        (
            redis.exceptions.ResponseError(
                "Error running script (call to f_1): @user_script:1: "
                "-OOM command not allowed when used memory > 'maxmemory'."
            ),
            "out of memory",
        ),
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), "read-only replica"),
        (
            redis.exceptions.ResponseError(
                "Error running script (call to f_1): @user_script: 1: -READONLY You can't write against a read only "
                "replica."
            ),
            "read-only replica",
        ),
        (redis.exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left"), "write to its disk"),
        (redis.exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind"), "another program"),
        (redis.exceptions.AuthenticationError("invalid username-password pair or user is disabled."), "the login"),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "loading"),
        (redis.exceptions.TimeoutError("Timeout reading from socket"), "in time"),
        (redis.exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:6379"), "can't be reached"),
        (redis.exceptions.NoPermissionError("this user has no permissions to run 'evalsha'"), "ACL forbids"),
    ],
)
def test_each_refusal_of_redis_has_a_message_of_ours(
    error: redis.exceptions.RedisError, words: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(redis.Redis, "execute_command", refuse)

    answer = client.get("/api/instances")

    assert answer.status_code == 503
    assert answer.json()["code"] == "CACHE_UNAVAILABLE"
    assert words in answer.json()["message"]
    assert client.get("/health").json()["warnings"][0].startswith(answer.json()["message"])
