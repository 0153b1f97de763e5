"""Damaged keys, and keys of other versions and programs: never an error, and repaired by one synchronization."""

import gzip
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from fakeredis import FakeRedis

from instances import health
from instances.api import overview
from instances.api.inventory import show_health
from instances.fallback import database
from instances.instance import from_json
from instances.inventory import heartbeat, store
from instances.inventory.sync import synchronize
from instances.novita.rows import from_novita
from instances.refresher import Refresher
from novita_site.roles import Role
from tests.inventories import fill_inventory
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.redis_keys import name_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_pauses")]

Damage = Callable[[FakeRedis, str], object]
STATUSES = {"a": "running", "b": "exited"}
NAMES = ["current", "gen", "body", "revision", "touched", "moving", "sync", "lease", "fence", "moving-turn", "worker"]

DAMAGES: dict[str, Damage] = {
    "text": lambda raw_redis, key: raw_redis.set(key, "garbage"),
    "nothing": lambda raw_redis, key: raw_redis.set(key, ""),
    "bytes": lambda raw_redis, key: raw_redis.set(key, b"\x80\x04\x95\xff"),
    "JSON": lambda raw_redis, key: raw_redis.set(key, '{"id": ["a"], "pid": {"b": NaN}}'),
    "deep JSON": lambda raw_redis, key: raw_redis.set(key, "[" * 100_000),
    "a gzipped text": lambda raw_redis, key: raw_redis.set(key, gzip.compress(b"garbage")),
    "1e300": lambda raw_redis, key: raw_redis.set(key, "1e300"),
    "2^63": lambda raw_redis, key: raw_redis.set(key, str(2**63)),
    "a long number": lambda raw_redis, key: raw_redis.set(key, "9" * 5000),
    "a number of no year": lambda raw_redis, key: raw_redis.set(key, "999999999999999"),
    "a negative number": lambda raw_redis, key: raw_redis.set(key, "-5"),
    "a fraction": lambda raw_redis, key: raw_redis.set(key, "1.5"),
    "a list": lambda raw_redis, key: raw_redis.rpush(key, "a", "b"),
    "a hash": lambda raw_redis, key: raw_redis.hset(key, mapping={"": "1", "a": "garbage", "as_of": "x"}),
    "a set": lambda raw_redis, key: raw_redis.sadd(key, "a", b"\xff", *range(50)),
    "a sorted set": lambda raw_redis, key: raw_redis.zadd(key, {"a": 1e300, "b": float("inf"), "c": -1, "z": 8.5e14}),
}
SYNC_FIELDS = ["as_of", "attempt_at", "completed_at", "cleared_at", "failures", "failing_since", "not_modified"]
VALUES = ["garbage", "", b"\xff", "1e300", str(2**63), "9" * 5000, "999999999999999", "-5", "nan", "0"]


@pytest.fixture
def account(novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch) -> Account:
    """A synchronized account of two instances, with every kind of key in Redis."""
    account = novita.holds(make_row("a"), make_row("b", status="exited"))
    fill_inventory()
    store.read_body()
    heartbeat.note_worker()
    # The mark of an overview leaves the database out.
    monkeypatch.setattr(overview, "SHARED_SECONDS", float("inf"))
    return account


def damage(raw_redis: FakeRedis, name: str, how: Damage) -> None:
    (key,) = raw_redis.keys(name_of(f"{name}:*")) or [name_of(name).encode()]
    raw_redis.delete(key)
    how(raw_redis, key.decode())


def read_body_ids() -> list[str]:
    body = store.read_body().rendered
    assert body is not None
    return [one["id"] for one in json.loads(gzip.decompress(body.gzipped))["instances"]]


def read_health() -> dict[str, Any]:
    """Return what the overview and others show of the inventory. The rest of an overview is from the database."""
    found = health.check()
    assert overview._read_mark(found)
    return show_health(found, Role.VIEWER)


# Each function by which an answer reads or writes the inventory, and what it may return.
READS: dict[str, tuple[Callable[[], Any], Callable[[Any], bool]]] = {
    "body": (read_body_ids, lambda ids: ids in ([], ["b", "a"])),
    "listing": (lambda: store.read_listing().instances, lambda rows: [row["id"] for row in rows] in ([], ["b", "a"])),
    "instance": (lambda: store.find_instance("a")[1], lambda row: row is None or row["id"] == "a"),
    "row": (lambda: store.find_row("a")[1], lambda row: row is None or json.loads(row)["id"] == "a"),
    "instances": (lambda: store.find_instances(["a", "b"]), lambda found: found.keys() <= {"a", "b"}),
    "stored": (lambda: store.read_stored().rows, lambda rows: "" not in rows),
    "stats": (lambda: json.dumps(asdict(store.read_stats()), default=str), lambda text: "as_of" in text),
    "health": (lambda: read_health()["status"], lambda status: status in {"healthy", "degraded"}),
    "write": (
        lambda: store.write_instance(from_novita(make_row("b", status="exited"))),
        lambda is_new: is_new in (0, 1),
    ),
}


def assert_every_read_is_sane() -> None:
    """Call all functions by which answers are made of the inventory, as a new process.

    The tests whose names end in "answer" request the answers themselves, with a sample of the damages.
    """
    for name, (read, is_sane) in READS.items():
        store._parsed, store._kept = None, {}
        found = read()
        assert is_sane(found), (name, found)


def assert_inventory_is_right() -> None:
    store._parsed, store._kept = None, {}
    listing = store.read_listing()
    assert {row["id"]: row["status"] for row in listing.instances} == STATUSES
    assert not listing.freshness.is_stale
    assert read_body_ids() == ["b", "a"]
    state = store.read_state()
    assert state.size == 2
    assert state.lease is None
    assert state.moving == frozenset()


def assert_every_answer_is_sane(client: Client) -> None:
    """Request everything that reads Redis, as from a new process."""
    for path in (
        "/api/instances",
        "/api/instances?ordering=changedAt&search=a",
        "/api/instances/a",
        "/",
        "/api/overview",
    ):
        store._parsed, store._kept = None, {}
        answer = client.get(path)
        assert answer.status_code in {200, 404}, (path, answer.content)
    for path in ("/health", "/api/cache/stats", "/readyz"):
        assert client.get(path).status_code in {200, 503}, path
    shown = client.get("/api/instances", headers={"Accept-Encoding": "gzip"})
    listed = json.loads(gzip.decompress(shown.content))["instances"]
    assert [one["id"] for one in listed] in ([], ["b", "a"], ["a", "b"])
    dry = client.post("/api/instances/stop-all", {"dryRun": True})
    assert dry.status_code == 200 and dry.json()["total"] == 1, dry.content
    assert client.post("/api/instances/b/stop").status_code == 200, "the instance is already stopped"


def assert_all_is_right(client: Client) -> None:
    store._parsed, store._kept = None, {}
    answer = client.get("/api/instances")
    assert {one["id"]: one["status"] for one in answer.json()["instances"]} == STATUSES
    assert answer["Data-Stale"] == "false"
    assert client.get("/api/instances/a").json()["status"] == "running"
    health = client.get("/health").json()
    assert health["sync"]["available"] and health["sync"]["cacheSize"] == 2, health
    assert health["sync"]["ageSeconds"] in range(60) and not health["sync"]["isLocked"]
    assert client.get("/readyz").status_code == 200
    assert store.read_state().moving == frozenset()


NO_TEXTS = {"gen", "sync", "touched", "moving"}
NUMBERS = {"1e300", "2^63", "a long number", "a number of no year", "a negative number", "a fraction"}
DOCUMENTS = {"JSON", "deep JSON", "a gzipped text"}
TYPES = {"a list", "a hash", "a set", "a sorted set"}


def list_kinds(name: str) -> list[str]:
    """Return how to damage a key: Redis refuses a key of another type, and the rest is read as the key's own form."""
    if name in NO_TEXTS:
        return ["text", *sorted(TYPES)]
    others = NUMBERS if name not in {"revision", "fence", "current"} else set()
    others |= DOCUMENTS if name not in {"body", "lease"} else set()
    return [kind for kind in DAMAGES if kind not in others | TYPES or kind == "a sorted set"]


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in NAMES for kind in list_kinds(name)])
@pytest.mark.thorough
def test_damaged_key_breaks_no_read_and_is_repaired_by_a_sync(
    name: str, kind: str, raw_redis: FakeRedis, account: Account
) -> None:
    damage(raw_redis, name, DAMAGES[kind])

    assert_every_read_is_sane()
    # Twice: the first may leave a trace of the damage.
    for _ in range(2):
        synchronize("command")

    assert_inventory_is_right()


# A text and another type in turn: all of them are tried on the reads above.
SAMPLE = [(name, ("text", "a list")[number % 2]) for number, name in enumerate(NAMES)]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "kind"), SAMPLE)
def test_damaged_key_breaks_no_answer(
    name: str, kind: str, client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    damage(raw_redis, name, DAMAGES[kind])

    assert_every_answer_is_sane(client)
    assert client.post("/api/instances/sync").status_code == 200

    assert_all_is_right(client)


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "kind"), SAMPLE)
def test_clear_repairs_a_damaged_key(
    name: str, kind: str, client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    damage(raw_redis, name, DAMAGES[kind])

    assert client.post("/api/cache/clear").status_code == 200

    assert_every_read_is_sane()
    assert client.get("/health").json()["sync"]["isLocked"] is False
    Refresher().tick()
    synchronize("command")
    assert_inventory_is_right()


@pytest.mark.parametrize(
    ("fields", "value"),
    [*((SYNC_FIELDS, value) for value in VALUES), *(([field], "garbage") for field in SYNC_FIELDS)],
    ids=lambda one: repr(one)[:20],
)
@pytest.mark.thorough
def test_damaged_record_of_the_last_sync_breaks_no_read(
    fields: list[str], value: str, raw_redis: FakeRedis, account: Account
) -> None:
    raw_redis.hset(name_of("sync"), mapping=dict.fromkeys(fields, value))

    assert_every_read_is_sane()
    synchronize("command")

    assert_inventory_is_right()


@pytest.mark.thorough
@pytest.mark.parametrize("value", VALUES[::2], ids=lambda value: repr(value[:20]))
def test_damaged_record_of_the_last_sync_breaks_no_answer(
    value: str, client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    raw_redis.hset(name_of("sync"), mapping=dict.fromkeys(SYNC_FIELDS, value))

    assert_every_answer_is_sane(client)
    assert client.post("/api/instances/sync").status_code == 200

    assert_all_is_right(client)


# --- Stored instances


def change_row(raw_redis: FakeRedis, change: Callable[[dict[str, Any]], Any]) -> None:
    (generation,) = raw_redis.keys(name_of("gen:*"))
    row = json.loads(raw_redis.hget(generation, "a") or b"")
    changed = change(row)
    raw_redis.hset(generation, "a", changed if isinstance(changed, bytes | str) else json.dumps(changed))
    raw_redis.delete(*raw_redis.keys(name_of("body:*")))
    store._parsed, store._kept = None, {}


FIELD_NAMES = [*from_json({"id": "-", "status": "-"}).to_json(), "changedAt"]


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "name"), [*enumerate(FIELD_NAMES)])
def test_stored_field_that_is_missing_or_of_another_type_breaks_no_read(
    number: int, name: str, raw_redis: FakeRedis, account: Account
) -> None:
    change_row(raw_redis, lambda row: {key: value for key, value in row.items() if key != name})
    assert len(store.read_listing().instances) == (0 if name in {"id", "status", "changedAt"} else 2)
    assert_every_read_is_sane()
    synchronize("command")
    assert_inventory_is_right()

    # A list of numbers is no field's type. The others take turns.
    for value in ([1], (None, 5, "\ud800")[number % 3]):
        change_row(raw_redis, lambda row, value=value: {**row, name: value})
        assert_every_read_is_sane()
        synchronize("command")
        assert_inventory_is_right()


# A field without which a row can't be read, one with a default, and one of an addition.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "value"), [("status", None), ("gpuNum", "\ud800"), ("portMappings", 5), ("owner", [1])]
)
def test_stored_field_of_another_type_breaks_no_answer(
    name: str, value: Any, client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    assert name in FIELD_NAMES
    change_row(raw_redis, lambda row: {**row, name: value})

    assert_every_answer_is_sane(client)
    assert client.post("/api/instances/sync").status_code == 200

    assert_all_is_right(client)


ROWS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no JSON": lambda row: "garbage",
    "a pickle": lambda row: b"\x80\x04\x95\xff",
    "deep JSON": lambda row: "[" * 100_000,
    "a list": lambda row: [row],
    "null": lambda row: "null",
    "another id": lambda row: {**row, "id": "zzz"},
    "a number that is none": lambda row: json.dumps(row).replace('"gpuNum": 1', '"gpuNum": NaN'),
    "a port of a later version": lambda row: {**row, "portMappings": [{"port": 1, "name": "new"}]},
}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=name, marks=[] if name in {"no JSON", "another id"} else pytest.mark.thorough)
        for name, change in ROWS.items()
    ],
)
def test_inventory_with_a_damaged_row_is_ignored_until_the_refresher_replaces_it(
    change: Callable[[dict[str, Any]], Any],
    client: Client,
    raw_redis: FakeRedis,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("instances.refresher.MIN_PAUSE", timedelta(0))
    change_row(raw_redis, change)
    assert_every_answer_is_sane(client)

    Refresher().tick()

    assert_all_is_right(client)


def test_stored_id_that_is_no_text_breaks_no_sync(raw_redis: FakeRedis, account: Account) -> None:
    (generation,) = raw_redis.keys(name_of("gen:*"))
    raw_redis.hset(generation, b"\xff", raw_redis.hget(generation, "a") or b"")

    synchronize("command")

    assert_inventory_is_right()


def test_unknown_stored_field_is_left_out(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    before = client.get("/api/instances").json()
    change_row(raw_redis, lambda row: {**row, "aFieldOfTomorrow": {"a": 1}})

    assert client.get("/api/instances").json() == before
    assert client.get("/api/cache/stats").json()["size"] == 2


def test_row_of_a_version_without_a_field_is_completed_and_counts_as_unchanged(
    client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    account.rows["a"]["spotStatus"] = None
    client.post("/api/instances/sync")
    before = client.get("/api/instances/a").json()
    change_row(raw_redis, lambda row: {key: value for key, value in row.items() if key != "spotStatus"})

    report = client.post("/api/instances/sync").json()

    assert report["added"] == 0
    assert report["changed"] == 0
    assert report["deleted"] == 0
    (generation,) = [key for key in raw_redis.keys(name_of("gen:*")) if raw_redis.ttl(key) > 3600]
    assert "spotStatus" in json.loads(raw_redis.hget(generation, "a") or b"")
    assert client.get("/api/instances/a").json() == before


@pytest.mark.parametrize(
    "number", ["1", *(pytest.param(one, marks=pytest.mark.thorough) for one in ("3", "", "garbage", "9" * 400))]
)
def test_inventory_of_another_format_is_ignored(
    number: str, client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    (generation,) = raw_redis.keys(name_of("gen:*"))
    raw_redis.hset(generation, "", number)

    assert client.get("/api/instances").json() == {"instances": [], "total": 0}
    assert_every_answer_is_sane(client)
    assert client.post("/api/instances/sync").status_code == 200
    assert_all_is_right(client)


def test_two_versions_with_different_formats_do_not_sync_in_turn_forever(
    client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    refresher = Refresher()
    refresher.tick()
    listings = account.calls.count("list")

    for _ in range(5):
        for generation in raw_redis.keys(name_of("gen:*")):
            raw_redis.hset(generation, "", "another")
        refresher.tick()

    assert account.calls.count("list") == listings


def test_keys_of_an_older_version_are_ignored_and_stay(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    old = {"{novita}:current": "1", "{novita}:revision": "1", "{novita}:lease": "held", "novita": "a queue"}
    for name, value in old.items():
        raw_redis.set(name, value)

    assert client.post("/api/instances/sync").status_code == 200
    assert client.post("/api/cache/clear").status_code == 200

    assert {name: (raw_redis.get(name) or b"").decode() for name in old} == old


# --- Marks without an expiry


def test_lease_without_an_expiry_does_not_count(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    raw_redis.set(name_of("lease"), '{"id": "x", "host": "h", "pid": 1}')

    assert client.get("/health").json()["sync"]["isLocked"] is False
    assert client.post("/api/instances/sync").status_code == 200
    assert not raw_redis.exists(name_of("lease"))


def test_clear_deletes_only_a_lease_without_an_expiry(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    raw_redis.set(name_of("lease"), "held", px=20_000)
    client.post("/api/cache/clear")
    is_kept = raw_redis.exists(name_of("lease"))
    raw_redis.set(name_of("lease"), "held")

    client.post("/api/cache/clear")

    assert is_kept == 1
    assert raw_redis.exists(name_of("lease")) == 0


def test_turn_without_an_expiry_does_not_stop_the_reading_of_moving_instances(
    client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    account.change("a", "toStop")
    client.post("/api/instances/sync")
    account.change("a", "exited")
    raw_redis.set(name_of("moving-turn"), "1")

    Refresher().tick()

    assert client.get("/api/instances/a").json()["status"] == "exited"


def test_worker_mark_without_an_expiry_does_not_count(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    raw_redis.set(f"{name_of('worker')}:{database.find_id()}", "up")

    assert client.get("/health").json()["services"]["worker"] == "down"


@pytest.mark.parametrize("value", ["999999", "garbage", str(2**63 - 1)])
def test_counter_without_an_expiry_locks_no_one_out(
    value: str, client: Client, raw_redis: FakeRedis, account: Account
) -> None:
    client.post("/api/cache/clear")
    (key,) = raw_redis.keys(name_of("rate:*"))
    raw_redis.set(key, value)

    answer = client.post("/api/cache/clear")

    # A plausible counter stays in force for a minute.
    assert answer.status_code == (429 if value == "999999" else 200)
    assert 0 < raw_redis.ttl(key) <= 60


# --- Expiry


def test_every_key_expires_and_each_sync_renews_it(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    client.post("/api/instances/a/stop")

    def list_endless() -> list[bytes]:
        return [key for key in raw_redis.keys("*") if raw_redis.ttl(key) < 0]

    assert not list_endless()
    week = 7 * 86400
    lasting = [name_of(name) for name in ("current", "revision", "sync", "touched", "fence")]
    for key in [*lasting, *raw_redis.keys(name_of("gen:*"))]:
        assert raw_redis.ttl(key) > 4 * week - 86400, key
        raw_redis.expire(key, 1000)

    client.post("/api/instances/sync")

    assert not list_endless()
    assert min(raw_redis.ttl(key) for key in lasting) > week


def test_keys_of_a_failed_sync_expire(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    raw_redis.flushall()
    account.answers("list", 500)
    assert client.post("/api/instances/sync").status_code == 502

    assert [key for key in raw_redis.keys("*") if raw_redis.ttl(key) < 0] == []


def test_inventory_that_is_only_read_is_kept(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    for key in raw_redis.keys("*"):
        raw_redis.expire(key, 86400)

    client.get("/health")

    (generation,) = raw_redis.keys(name_of("gen:*"))
    for key in (name_of("current"), name_of("revision"), name_of("sync"), generation):
        assert raw_redis.ttl(key) > 7 * 86400, key


# --- After a clear


def test_last_sync_stays_known_after_a_clear(client: Client, raw_redis: FakeRedis, account: Account) -> None:
    before = client.get("/health").json()["sync"]

    client.post("/api/cache/clear")
    client.post("/api/cache/clear")

    after = client.get("/health").json()
    assert before["lastSync"] and after["sync"]["lastSync"] == before["lastSync"]
    assert before["clearedAt"] is None
    assert after["sync"]["clearedAt"]
    assert after["sync"]["available"] is False
    assert after["sync"]["ageSeconds"] is None
    assert after["sync"]["cacheSize"] == 0
    assert after["warnings"] == ["The cache was cleared. The next synchronization fills it."]
    assert "Data-As-Of" not in client.get("/api/instances")
    client.post("/api/instances/sync")
    assert client.get("/health").json()["sync"]["clearedAt"] is None
