"""Redis's clock, or ours, set back or forward: ages, the lock, retries and the order of writes hold."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from django.test import Client
from fakeredis import FakeRedis
from pytest_django import Settings

from instances.instance import from_json
from instances.inventory import heartbeat, lease, store
from instances.refresher import Refresher
from tests.inventories import fill_inventory
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.redis_keys import name_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_pauses")]

HOUR = 3600
SetClock = Callable[[float], None]
BOTH_WAYS = pytest.mark.parametrize("seconds", [-HOUR, HOUR], ids=["back", "forward"])


@pytest.fixture
def set_redis_clock(monkeypatch: pytest.MonkeyPatch, redis_server: object) -> SetClock:
    """Let Redis's clock, and with it what expires, be so many seconds ahead of ours."""
    clock = SimpleNamespace(ahead=0.0)
    shifted = SimpleNamespace(time=lambda: time.time() + clock.ahead)
    monkeypatch.setattr("fakeredis._socket._base.time", shifted)
    monkeypatch.setattr("fakeredis.commands_mixins.server_mixin.time", shifted)
    return lambda seconds: setattr(clock, "ahead", seconds)


@pytest.fixture
def account(novita: NovitaAnswers, settings: Settings, set_redis_clock: SetClock) -> Account:
    settings.NOVITA_SYNC_INTERVAL = 60
    account = novita.holds(make_row("a"), make_row("b", status="exited"))
    fill_inventory()
    return account


def read_status(client: Client, id_: str = "a") -> str:
    return str(client.get(f"/api/instances/{id_}").json()["status"])


def read_sync(client: Client) -> dict[str, object]:
    sync: dict[str, object] = client.get("/health").json()["sync"]
    return sync


@BOTH_WAYS
def test_the_copy_is_read_anew_and_its_age_is_right_again(
    seconds: float, client: Client, account: Account, set_redis_clock: SetClock
) -> None:
    etag = client.get("/api/instances")["ETag"]
    set_redis_clock(seconds)

    assert client.get("/api/instances")["Data-Stale"] == "true"
    account.change("a", "exited")
    Refresher().tick()

    sync = read_sync(client)
    assert sync["ageSeconds"] in range(30)
    assert str(sync["lastSync"])[11:13] == time.strftime("%H", time.gmtime(time.time() + seconds))
    answer = client.get("/api/instances", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer["Data-Stale"] == "false"
    assert answer["ETag"] > etag
    assert read_status(client) == "exited"


def test_while_nothing_can_be_read_nobody_is_told_an_age_that_is_none(
    client: Client, account: Account, set_redis_clock: SetClock
) -> None:
    account.answers("list", 500)
    set_redis_clock(-HOUR)

    Refresher().tick()

    assert read_sync(client)["ageSeconds"] is None
    assert client.get("/readyz").status_code == 503
    assert client.get("/api/instances").json()["total"] == 2, "the rows are whole all the same"


@BOTH_WAYS
@pytest.mark.parametrize("how", ["tick", "api"])
def test_a_lock_of_a_dead_process_blocks_nobody(
    how: str, seconds: float, client: Client, account: Account, set_redis_clock: SetClock
) -> None:
    lease.acquire("api")  # And never released.
    set_redis_clock(seconds)

    if how == "api":
        assert client.post("/api/instances/sync").status_code == 200
    else:
        listings = account.calls.count("list")
        Refresher().tick()
        assert account.calls.count("list") == listings + 1


@BOTH_WAYS
def test_a_failed_sync_is_tried_again(
    seconds: float, client: Client, account: Account, set_redis_clock: SetClock, raw_redis: FakeRedis
) -> None:
    account.answers("list", 500)
    client.post("/api/instances/sync")
    raw_redis.hset(name_of("sync"), mapping={"failures": 10})
    account.answers("list", None)
    set_redis_clock(seconds)

    Refresher().tick()

    assert read_sync(client)["lastError"] is None
    assert read_sync(client)["ageSeconds"] in range(30)


@BOTH_WAYS
def test_what_was_done_before_a_sync_gives_way_to_what_it_reads(
    seconds: float, client: Client, account: Account, set_redis_clock: SetClock
) -> None:
    client.post("/api/instances/a/stop")
    assert read_status(client) == "toStop"
    account.settle()
    set_redis_clock(seconds)

    for _ in range(2):
        assert client.post("/api/instances/sync").status_code == 200

    assert read_status(client) == "exited"


@pytest.mark.parametrize("when", ["before", "during"])
@BOTH_WAYS
def test_what_is_done_during_a_sync_survives_it(
    seconds: float, when: str, client: Client, account: Account, set_redis_clock: SetClock
) -> None:
    def act() -> None:
        if when == "during":
            set_redis_clock(seconds)
        store.write_instance(from_json({**make_shown(client), "status": "toStop"}))

    if when == "before":
        set_redis_clock(seconds)
    account.answers("list", act)

    answer = client.post("/api/instances/sync")

    # A lock that ended with the hour is lost, and the next sync is a moment away.
    assert answer.status_code == (503 if (seconds, when) == (HOUR, "during") else 200)
    assert read_status(client) == "toStop"


def make_shown(client: Client) -> dict[str, object]:
    shown: dict[str, object] = client.get("/api/instances/a").json()
    return shown


def test_what_moves_is_followed(
    client: Client, account: Account, set_redis_clock: SetClock, settings: Settings
) -> None:
    settings.NOVITA_SYNC_INTERVAL = 0
    client.post("/api/instances/a/stop")
    set_redis_clock(-HOUR)
    client.post("/api/instances/sync")
    account.settle()
    refresher = Refresher()
    refresher.tick()

    assert read_status(client) == "exited"
    assert account.calls[-1] == "read a"


@pytest.mark.parametrize("seconds", [-HOUR, HOUR], ids=["ours is fast", "ours is slow"])
def test_a_host_whose_clock_is_wrong_follows_what_moves(
    seconds: float, client: Client, account: Account, set_redis_clock: SetClock
) -> None:
    set_redis_clock(seconds)
    client.post("/api/instances/sync")
    client.post("/api/instances/a/stop")
    account.settle()

    Refresher().tick()

    assert read_status(client) == "exited"
    changed_at = client.get("/api/instances/a").json()["changedAt"]
    assert changed_at[11:13] == time.strftime("%H", time.gmtime(time.time() + seconds)), "by the clock of all"


def test_a_dead_worker_does_not_look_alive_for_an_hour(
    client: Client, account: Account, set_redis_clock: SetClock
) -> None:
    heartbeat.note_worker()
    set_redis_clock(-HOUR)
    dead = client.get("/health").json()["services"]["worker"]

    heartbeat.note_worker()

    assert dead == "down"
    assert client.get("/health").json()["services"]["worker"] == "up"


def test_nobody_is_limited_for_an_hour(
    client: Client, account: Account, set_redis_clock: SetClock, settings: Settings, raw_redis: FakeRedis
) -> None:
    client.post("/api/cache/clear")
    set_redis_clock(-HOUR)

    client.post("/api/cache/clear")

    (key,) = raw_redis.keys(name_of("rate:*"))
    assert raw_redis.ttl(key) <= 60


def test_after_a_clear_a_sync_begins_at_once(client: Client, account: Account, set_redis_clock: SetClock) -> None:
    client.post("/api/cache/clear")
    set_redis_clock(-HOUR)

    Refresher().tick()

    assert client.get("/api/instances").json()["total"] == 2
    assert read_sync(client)["clearedAt"] is None
