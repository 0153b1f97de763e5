"""What readers get: a complete inventory with its age, whatever is written, lost or cleared meanwhile."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import responses
from django.test import Client
from fakeredis import FakeRedis, FakeRedisConnection
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from instances.api.serializers import InstanceSerializer, ListingSerializer, PortMappingSerializer
from instances.instance import Instance
from instances.inventory import bodies, store
from instances.novita.client import get_novita
from instances.novita.rows import from_novita
from tests.conftest import ApiClient
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_row
from tests.redis_keys import name_of
from tests.settings import FAKE_REDIS

pytestmark = pytest.mark.django_db

FILTERED = "/api/instances?group=running"
LISTINGS = pytest.mark.parametrize("path", ["/api/instances", FILTERED], ids=["whole", "filtered"])


@pytest.fixture
def copy(novita: NovitaAnswers) -> None:
    """An inventory of two instances, an account that still has them, and a Novita that accepts a stop of the first."""
    novita.mock.assert_all_requests_are_fired = False
    novita.lists(make_row("a"), make_row("b", status="exited"))
    novita.takes("stop", "a")
    fill_inventory()


def read_statuses(client: Client) -> dict[str, str]:
    return {one["id"]: one["status"] for one in client.get("/api/instances").json()["instances"]}


# --- Answers


@pytest.mark.usefixtures("copy")
@LISTINGS
@pytest.mark.parametrize("form", ["{}", '"old", {}', '"1", {}'])
def test_reader_with_the_current_etag_gets_304_with_the_age(path: str, form: str, client: Client) -> None:
    first = client.get(path)

    again = client.get(path, headers={"If-None-Match": form.format(first["ETag"])})

    assert again.status_code == 304
    assert again.content == b""
    for name in ("ETag", "Data-As-Of", "Data-Stale"):
        assert again[name] == first[name]


@pytest.mark.usefixtures("copy")
@LISTINGS
def test_change_makes_a_new_etag(path: str, client: Client) -> None:
    before = client.get(path)
    client.post("/api/instances/a/stop")

    after = client.get(path, headers={"If-None-Match": before["ETag"]})

    assert after.status_code == 200
    assert after["ETag"] != before["ETag"]
    assert after.content != before.content


@pytest.mark.usefixtures("copy")
@LISTINGS
def test_stale_inventory_is_marked_even_in_a_304(path: str, client: Client, raw_redis: FakeRedis) -> None:
    first = client.get(path)
    raw_redis.hincrby(name_of("sync"), "as_of", -3600_000)

    again = client.get(path, headers={"If-None-Match": first["ETag"]})

    assert again.status_code == 304
    assert first["Data-Stale"] == "false"
    assert again["Data-Stale"] == "true"
    assert again["Data-As-Of"] < first["Data-As-Of"]


@LISTINGS
def test_answer_without_an_inventory_has_no_age_and_no_etag(path: str, client: Client) -> None:
    answer = client.get(path, headers={"If-None-Match": 'W/"1"'})

    assert answer.json() == {"instances": [], "total": 0}
    assert answer["Data-Stale"] == "true"
    assert "Data-As-Of" not in answer and "ETag" not in answer


@pytest.mark.usefixtures("copy")
def test_gzipped_and_plain_listings_are_equal(client: Client) -> None:
    plain = client.get("/api/instances")

    zipped = client.get("/api/instances", headers={"Accept-Encoding": "gzip"})

    assert plain.get("Content-Encoding") is None
    assert zipped["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped.content) == plain.content
    assert "Accept-Encoding" in plain["Vary"] and "Accept-Encoding" in zipped["Vary"]


@pytest.mark.usefixtures("copy")
@LISTINGS
def test_listing_has_the_documented_fields(path: str, client: Client) -> None:
    body = client.get(path).json()

    assert list(body) == list(ListingSerializer().fields)
    for one in body["instances"]:
        assert list(one) == list(InstanceSerializer().fields)
        assert list(one["portMappings"][0]) == list(PortMappingSerializer().fields)
        assert InstanceSerializer(data=one).is_valid(raise_exception=True)


@pytest.mark.usefixtures("copy")
def test_single_instance_equals_its_entry_in_the_listing(client: Client) -> None:
    listed = client.get(FILTERED).json()["instances"]

    assert [client.get("/api/instances/a").json()] == listed


@pytest.mark.usefixtures("copy")
def test_rendered_listing_is_sent_as_stored(
    client: Client, raw_redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get("/api/instances")
    (name,) = raw_redis.keys(name_of("body:*"))
    raw_redis.hset(name, "", bodies.seal(gzip.compress(b"as it is")))
    monkeypatch.setattr(store, "_kept", {})  # As in a new process.

    assert client.get("/api/instances").content == b"as it is"


# --- Single writes


def make_instance(id_: str, status: str) -> Instance:
    return from_novita(make_row(id_, status=status))


@pytest.mark.usefixtures("copy")
def test_direct_read_never_replaces_a_later_action(client: Client) -> None:
    began = store.read_state().tick
    client.post("/api/instances/a/stop")

    store.write_instance(make_instance("a", "running"), read_began=began)
    store.remove_instance("a", read_began=began)

    assert read_statuses(client) == {"a": "toStop", "b": "exited"}


@pytest.mark.usefixtures("copy")
def test_direct_read_replaces_an_earlier_action(client: Client) -> None:
    client.post("/api/instances/a/stop")

    store.write_instance(make_instance("a", "exited"), read_began=store.read_state().tick)

    assert read_statuses(client) == {"a": "exited", "b": "exited"}


# --- Clearing


@pytest.mark.usefixtures("copy")
def test_cleared_inventory_is_gone(client: Client) -> None:
    etag = client.get("/api/instances")["ETag"]

    cleared = client.post("/api/cache/clear").json()

    answer = client.get("/api/instances", headers={"If-None-Match": etag})
    assert cleared["success"] is True
    assert cleared["cleared"] == 2
    assert answer.status_code == 200
    assert answer.json()["total"] == 0
    assert answer["Data-Stale"] == "true"
    assert client.get("/readyz").status_code == 503


@pytest.mark.usefixtures("copy")
def test_clear_deletes_only_the_inventory(client: Client, raw_redis: FakeRedis) -> None:
    ours = {name_of("gen"), name_of("lease"), name_of("fence")}
    of_another_version = {"{novita}:current", "{novita}:gen:1", "{novita}:lease"}
    of_another_account = {"{novita:0123456789}:current", "{novita:0123456789}:gen:1"}
    others = {"celery", "{novita}", "novita:current", *ours, *of_another_version, *of_another_account}
    for name in others:
        raw_redis.set(name, "1", ex=20)

    client.post("/api/cache/clear")

    assert others <= {key.decode() for key in raw_redis.keys("*")}
    assert not raw_redis.keys(name_of("gen:*")) and not raw_redis.exists(name_of("current"))


@pytest.mark.parametrize(
    "rows", [[make_row("a"), make_row("b", status="exited")], [make_row("c")]], ids=["the same", "another"]
)
def test_sync_fills_a_cache_that_was_cleared_meanwhile(
    rows: list[Any], client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, copy: None
) -> None:
    novita.mock.reset()
    novita.lacks("a")
    novita.lacks("b")
    leases: list[Any] = []
    novita.lists_during(
        lambda: (client.post("/api/cache/clear"), leases.append(raw_redis.get(name_of("lease")))), *rows
    )

    answer = client.post("/api/instances/sync")

    assert answer.status_code == 200 and leases[0]
    assert read_statuses(client) == {row["id"]: row["status"] for row in rows}


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize(
    "empty", [lambda client, raw_redis: client.post("/api/cache/clear"), lambda _, s: s.flushall()]
)
def test_etag_is_never_reused(
    empty: Callable[[Client, FakeRedis], object], client: Client, raw_redis: FakeRedis
) -> None:
    client.post("/api/instances/a/stop")
    old = client.get("/api/instances")["ETag"]
    empty(client, raw_redis)
    client.post("/api/instances/sync")

    answer = client.get("/api/instances", headers={"If-None-Match": old})

    assert answer.status_code == 200
    assert answer.json()["total"] == 2
    assert answer["ETag"] > old


# --- Losses of Redis


@pytest.mark.usefixtures("copy")
def test_forgotten_scripts_are_loaded_again(client: Client, raw_redis: FakeRedis) -> None:
    raw_redis.script_flush()

    answers = [client.get("/api/instances"), client.post("/api/instances/a/stop"), client.post("/api/instances/sync")]

    assert [answer.status_code for answer in answers] == [200, 202, 200]


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize("name", ["current", "revision", "gen:*", "sync", "body:*", "[gb]*:*", "moving", "touched"])
def test_evicted_key_never_shows_an_empty_account(
    name: str, client: Client, raw_redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/api/instances/a/stop")
    whole = client.get("/api/instances")
    raw_redis.delete(*raw_redis.keys(name_of(f"{name}")))
    monkeypatch.setattr(store, "_parsed", None)  # As in a new process.
    monkeypatch.setattr(store, "_kept", {})

    answer = client.get("/api/instances")

    if answer["Data-Stale"] == "true":
        assert "Data-As-Of" not in answer and client.get("/readyz").status_code == 503
    else:
        assert answer.content == whole.content
    assert client.post("/api/instances/sync").status_code == 200
    assert read_statuses(client) == {"a": "running", "b": "exited"}
    assert client.get("/api/instances")["Data-Stale"] == "false"


@pytest.mark.parametrize("number", range(11))
def test_lost_answer_of_redis_leaves_a_complete_listing(
    number: int, client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch, copy: None
) -> None:
    old = read_statuses(client)
    novita.mock.reset()
    novita.lists(make_row("a"), make_row("b"), make_row("c"))
    read_response, answers = FakeRedisConnection.read_response, []

    def lose(connection: FakeRedisConnection, **kwargs: Any) -> Any:
        answers.append(read_response(connection, **kwargs))
        if len(answers) == number + 1:
            raise redis.exceptions.TimeoutError("Timeout reading from socket")
        return answers[-1]

    with monkeypatch.context() as patched:
        patched.setattr(FakeRedisConnection, "read_response", lose)
        client.post("/api/instances/sync")

    assert len(answers) > number
    assert read_statuses(client) in (old, {"a": "running", "b": "running", "c": "running"})
    assert client.get("/api/instances")["Data-Stale"] == "false"


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize("fault", ["out of memory", "a part dropped"])
def test_incomplete_listing_is_never_shown(
    fault: str, client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, kept = client.get("/api/instances").content, raw_redis.keys(name_of("gen:*"))
    novita.mock.reset()
    novita.lists(make_row("a"), make_row("b"))
    monkeypatch.setattr("instances.inventory.publishing.ROWS_AT_ONCE", 1)
    execute, writes = redis.client.Pipeline.execute, []

    def fail(pipeline: redis.client.Pipeline, *args: Any) -> Any:
        writes.append(pipeline)
        if len(writes) == 3 and fault == "out of memory":
            raise redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        if len(writes) == 3:
            raw_redis.delete(*(set(raw_redis.keys(name_of("gen:*"))) - set(kept)))
        return execute(pipeline, *args)

    monkeypatch.setattr("redis.client.Pipeline.execute", fail)

    failure = client.post("/api/instances/sync")

    assert failure.status_code == 503
    assert failure.json()["message"] in {"Redis is out of memory.", "Redis lost a part of the new inventory."}
    assert client.get("/api/instances").content == old
    assert raw_redis.keys(name_of("gen:*")) == kept
    assert raw_redis.exists(name_of("lease")) == 0


# --- Values of other programs under our keys


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize("name", ["current", "revision", "sync", "touched", "moving", "gen", "body"])
@pytest.mark.parametrize("kind", ["bytes", pytest.param("a field", marks=pytest.mark.thorough)])
def test_foreign_values_are_never_loaded_and_can_be_cleared(
    name: str, kind: str, client: Client, raw_redis: FakeRedis, tmp_path: Path
) -> None:
    client.get("/api/instances")
    (key,) = raw_redis.keys(name_of(f"{name}*")) or [name_of(f"{name}")]
    foreign = pickle.dumps(Trap(tmp_path / "loaded"))
    if kind == "bytes":
        raw_redis.set(key, foreign)
    else:
        if raw_redis.type(key) != b"hash":
            raw_redis.delete(key)
        raw_redis.hset(key, mapping={"as_of" if name == "sync" else "a": foreign})

    answers = [client.get("/api/instances"), client.get("/health"), client.post("/api/instances/sync")]
    cleared = client.post("/api/cache/clear")
    client.post("/api/instances/sync")

    assert {answer.status_code for answer in answers} <= {200, 503}
    assert cleared.status_code == 200
    assert read_statuses(client) == {"a": "running", "b": "exited"}
    assert not (tmp_path / "loaded").exists()


# --- Any order of events

IDS = st.sampled_from(["a", "b", "c"])
STATUSES = st.sampled_from(["running", "toStop", "exited"])


def write(writes: dict[str, str | None]) -> None:
    """Write instances as actions do; None removes."""
    for id_, status in writes.items():
        if status:
            store.write_instance(make_instance(id_, status))
        else:
            store.remove_instance(id_)


class Readers(RuleBasedStateMachine):
    """Compares what readers get with a dictionary of statuses. None means no inventory."""

    def __init__(self) -> None:
        super().__init__()
        self.store = FakeRedis(server=FAKE_REDIS)
        self.store.flushall()
        self.client = ApiClient()
        self.mock = responses.RequestsMock(assert_all_requests_are_fired=False)
        self.mock.start()
        self.statuses: dict[str, str] | None = None

    def teardown(self) -> None:
        self.mock.stop()

    @rule(
        listed=st.dictionaries(IDS, STATUSES),
        writes=st.dictionaries(IDS, st.none() | STATUSES),
        fault=st.sampled_from(["", "", "", "a nameless row", "a lost lock"]),
    )
    def sync(self, listed: dict[str, str], writes: dict[str, str | None], fault: str) -> None:
        def meanwhile() -> None:
            write(writes)
            if fault == "a lost lock":
                self.store.delete(name_of("lease"))

        self.mock.reset()
        novita = NovitaAnswers(self.mock)
        rows = [make_row(id_, status=status) for id_, status in listed.items()]
        novita.lists_during(meanwhile, *rows, *([{}] if fault == "a nameless row" else []))
        for id_ in "abc":
            novita.lacks(id_)

        answer = self.client.post("/api/instances/sync")

        assert (answer.status_code == 200) == (not fault)
        self.expect(writes)
        if not fault:
            written = {} if self.statuses is None else writes
            self.statuses = {id_: status for id_, status in {**listed, **written}.items() if status}

    @precondition(lambda self: self.statuses is not None)
    @rule(writes=st.dictionaries(IDS, st.none() | STATUSES))
    def write(self, writes: dict[str, str | None]) -> None:
        write(writes)
        self.expect(writes)

    @precondition(lambda self: self.statuses is not None)
    @rule(name=st.sampled_from(["", "current", "revision", "gen:*", "body:*"]))
    def lose(self, name: str) -> None:
        if name:
            self.store.delete(*self.store.keys(name_of(f"{name}")))
        else:
            self.client.post("/api/cache/clear")
        if name != "body:*":
            self.statuses = None

    @invariant()
    def a_reader_gets_a_complete_listing(self) -> None:
        for path in ("/api/instances", "/api/instances?ordering=name"):
            answer = self.client.get(path)
            assert {one["id"]: one["status"] for one in answer.json()["instances"]} == (self.statuses or {})
            assert answer["Data-Stale"] == ("true" if self.statuses is None else "false")

    def expect(self, writes: dict[str, str | None]) -> None:
        if self.statuses is not None:
            self.statuses = {id_: status for id_, status in {**self.statuses, **writes}.items() if status}


@pytest.mark.thorough
def test_readers_get_complete_listings_in_any_order_of_events() -> None:
    few = hypothesis_settings(
        max_examples=12, stateful_step_count=8, deadline=None, database=None, derandomize=True, phases=[Phase.generate]
    )

    get_novita.cache_clear()
    run_state_machine_as_test(Readers, settings=few)
