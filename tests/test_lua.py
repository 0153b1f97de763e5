"""The loader of the Lua scripts, and the promises of each script. tests/test_cache.py tests them together."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer

from instances import lua, redis_client
from instances.access import limits
from instances.errors import CacheUnavailable
from instances.inventory import exchanges, lease, publishing, store
from instances.monitoring import counters
from tests.redis_keys import name_of

ROOT = Path(__file__).resolve().parent.parent / "instances"
MODULES = (store, publishing, exchanges, lease, limits, counters)
SCRIPTS = {
    script.path.stem: script for module in MODULES for script in vars(module).values() if isinstance(script, lua.Script)
}
# Good values for every argument and for the keys that a caller names.
VALUES: dict[str, Any] = {
    "what": "rows",
    "asked": ["a"],
    "ids": ["a"],
    "moving": ["a"],
    "changes": ["a", "old", "new"],
    "counters": [f"{redis_client.RATE}a", f"{redis_client.RATE}b"],
    "limits_and_seconds": [5, 60, 5, 60],
    "amounts": ["http|health|200", 2],
    "counted": f"{redis_client.COUNTED}1",
    "worker": f"{redis_client.WORKER}:1",
}

Write = Callable[[str], lua.Script]


@pytest.fixture
def write_script(tmp_path: Path) -> Write:
    """Load a script with this text."""

    def write(text: str) -> lua.Script:
        path = tmp_path / "script.lua"
        path.write_text(text)
        return lua.Script(path)

    return write


def call(script: lua.Script, **given: Any) -> Any:
    return script(**{name: given.get(name, VALUES.get(name, 1)) for name in script.given})


# --- The loader


def test_keys_and_arguments_arrive_by_name(write_script: Write) -> None:
    script = write_script("-- keys: LEASE other\n-- args: first second\nreturn {LEASE, other, first, second}")

    assert script(second=b"2", other="o", first="1") == [redis_client.LEASE.encode(), b"o", b"1", b"2"]


def test_lists_arrive_as_tables(write_script: Write) -> None:
    script = write_script(
        "-- keys: LEASE counters...\n-- args: first ids...\nreturn {#counters, counters[2], #ids, ids[1], first, LEASE}"
    )

    assert script(counters=["a", "b"], ids=["x"], first=1) == [2, b"b", 1, b"x", b"1", redis_client.LEASE.encode()]
    assert script(counters=[], ids=[], first=1)[0] == 0


def test_a_list_may_be_longer_than_luas_stack(write_script: Write) -> None:
    script = write_script("-- args: ids...\nreturn #ids")

    assert script(ids=range(20_000)) == 20_000


def test_constants_are_those_of_the_redis_client(write_script: Write) -> None:
    script = write_script("-- constants: LEASE_SECONDS\nreturn LEASE_SECONDS")

    assert script() == redis_client.LEASE_SECONDS


@pytest.mark.parametrize(
    ("value", "arrives"), [(None, b""), (True, b"1"), (False, b"0"), (7, b"7"), (b"\xff", b"\xff")]
)
def test_value_arrives_as_text(value: object, arrives: bytes, write_script: Write) -> None:
    assert write_script("-- args: value\nreturn value")(value=value) == arrives


def test_included_file_brings_its_declarations(write_script: Write, tmp_path: Path) -> None:
    (tmp_path / "shared.lua").write_text("-- keys: LEASE\nlocal function name() return LEASE end\n")

    script = write_script("-- include: shared\n-- keys: FENCE\nreturn {name(), FENCE}")

    assert script() == [redis_client.LEASE.encode(), redis_client.FENCE.encode()]


@pytest.mark.parametrize(
    "given", [{}, {"first": 1}, {"first": 1, "secnd": 2}, {"first": 1, "second": 2, "third": 3}], ids=str
)
def test_call_with_other_names_is_refused(given: dict[str, int], write_script: Write, redis_server: FakeServer) -> None:
    redis_server.connected = False
    script = write_script("-- args: first second\nreturn first .. second")

    with pytest.raises(TypeError, match=r"script.lua takes \['first', 'second'\], not "):
        script(**given)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-- keys: NO_SUCH_KEY\nreturn NO_SUCH_KEY", "redis_client has no NO_SUCH_KEY"),
        ("-- constants: NO_SUCH\nreturn NO_SUCH", "redis_client has no NO_SUCH"),
        ("-- constants: lower\nreturn lower", "the constant lower is not in upper case"),
        ("-- args: token\nreturn 1 -- token", "token is declared and not used"),
        ("-- args: 1st\nreturn '1st'", "1st is no name"),
        ("-- args: a-b\nreturn 'a-b'", "a-b is no name"),
        ("-- keys: same\n-- args: same\nreturn same", "same is declared twice"),
        ("-- args: ids... last\nreturn ids[last]", "the list ids... is not the last"),
        ("return KEYS[1]", "KEYS and ARGV are used, in place of declared names"),
        ("-- args: token\nreturn token .. ARGV[2]", "KEYS and ARGV are used, in place of declared names"),
    ],
)
def test_file_that_does_not_fit_its_declarations_is_refused(text: str, reason: str, write_script: Write) -> None:
    with pytest.raises(lua.MalformedScript, match=re.escape(f"script.lua: {reason}")):
        write_script(text)


def test_missing_include_is_refused(write_script: Write) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.lua"):
        write_script("-- include: absent\nreturn 1")


def test_source_is_sent_once_and_again_when_redis_has_lost_it(write_script: Write, raw_redis: FakeRedis) -> None:
    script = write_script("return 5")
    sent = []
    assert script() == 5

    for _ in range(2):
        sent.append(raw_redis.script_exists(script._registered.sha))
        raw_redis.script_flush()
        assert script() == 5

    assert sent == [[True], [True]]


def test_failures_are_named_in_our_words(write_script: Write, redis_server: FakeServer) -> None:
    script = write_script("return redis.call('NOSUCHCOMMAND')")
    with pytest.raises(CacheUnavailable, match="Redis refused a command"):
        script()

    redis_server.connected = False
    with pytest.raises(CacheUnavailable, match="Redis can't be reached"):
        script()


# --- Every script


def test_each_file_is_loaded_by_a_module() -> None:
    files = {path.stem for path in ROOT.rglob("*.lua")}

    assert files == {*SCRIPTS, "prelude", "inventory"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.lua")), ids=lambda path: path.stem)
def test_each_file_says_first_what_it_does(path: Path) -> None:
    assert re.match(r"-- [A-Z][^:]*\. ?", path.read_text())


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("acquire", 3),
        ("add_counts", 1),
        ("clear", 0),
        ("discard", 0),
        ("drop_draft", 0),
        ("give_back", None),
        ("keep_body", 0),
        ("note_failure", 1),
        ("note_unchanged", 3),
        ("publish", 3),
        ("read", 1),
        ("read_changes", 0),
        ("read_state", 10),
        ("release", 0),
        ("renew", 0),
        ("take", 1),
        ("take_turn", 1),
        ("write_instance", 0),
    ],
)
def test_script_answers_on_an_empty_redis(name: str, answer: int | None) -> None:
    answered = call(SCRIPTS[name])

    assert (len(answered) if isinstance(answered, list) else answered) == answer


DAMAGES: dict[str, Callable[[FakeRedis, str], object]] = {
    "text": lambda raw_redis, key: raw_redis.set(key, "garbage"),
    "a list": lambda raw_redis, key: raw_redis.rpush(key, "a"),
    "a hash": lambda raw_redis, key: raw_redis.hset(key, "as_of", "x"),
    "a sorted set": lambda raw_redis, key: raw_redis.zadd(key, {"a": 1e300}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_answers_where_each_key_is_damaged(
    name: str, damage: Callable[[FakeRedis, str], object], raw_redis: FakeRedis
) -> None:
    keys = [value for value in vars(redis_client).values() if str(value).startswith(name_of(""))]
    for key in [*keys, *VALUES["counters"], VALUES["counted"], VALUES["worker"], f"{redis_client.GENERATION}1"]:
        damage(raw_redis, key)

    call(SCRIPTS[name])


# --- Single promises


def test_renew_and_release_touch_no_other_owners_lease(raw_redis: FakeRedis) -> None:
    raw_redis.set(redis_client.LEASE, "other", ex=7)

    assert call(SCRIPTS["renew"], token="ours") == 0
    assert call(SCRIPTS["release"], token="ours") == 0

    assert raw_redis.get(redis_client.LEASE) == b"other"
    assert raw_redis.ttl(redis_client.LEASE) <= 7


def test_renew_and_release_act_on_their_own_lease(raw_redis: FakeRedis) -> None:
    raw_redis.set(redis_client.LEASE, "ours", ex=7)

    assert call(SCRIPTS["renew"], token="ours") == 1
    assert raw_redis.ttl(redis_client.LEASE) > 7
    assert call(SCRIPTS["release"], token="ours") == 1
    assert not raw_redis.exists(redis_client.LEASE)


def test_lease_is_acquired_once_and_the_fence_grows(raw_redis: FakeRedis) -> None:
    first, *_ = call(SCRIPTS["acquire"], token="first")

    assert call(SCRIPTS["acquire"], token="second") == []
    call(SCRIPTS["release"], token="first")
    second, *_ = call(SCRIPTS["acquire"], token="second")

    assert int(second) > int(first)


def test_a_turn_is_taken_once(raw_redis: FakeRedis) -> None:
    assert [call(SCRIPTS["take_turn"]) for _ in range(2)] == [1, 0]
    assert 0 < raw_redis.ttl(redis_client.MOVING_TURN) <= redis_client.TURN_SECONDS


def test_full_counter_counts_in_no_other(raw_redis: FakeRedis) -> None:
    a, b = VALUES["counters"]
    limits_and_seconds = [5, 60, 1, 60]

    assert call(SCRIPTS["take"], limits_and_seconds=limits_and_seconds) == 1
    assert -60 <= call(SCRIPTS["take"], limits_and_seconds=limits_and_seconds) < 0

    assert raw_redis.get(a) == b"1"
    assert raw_redis.get(b) == b"1"


def test_give_back_stops_at_zero(raw_redis: FakeRedis) -> None:
    a, _ = VALUES["counters"]
    raw_redis.set(a, 1, ex=60)

    call(SCRIPTS["give_back"])
    call(SCRIPTS["give_back"])

    assert raw_redis.get(a) == b"0"


def test_draft_is_dropped_unless_it_is_published(raw_redis: FakeRedis) -> None:
    for fence in (1, 2):
        raw_redis.hset(f"{redis_client.GENERATION}{fence}", "a", "{}")
    raw_redis.set(redis_client.CURRENT, 2)

    assert [call(SCRIPTS["drop_draft"], fence=fence) for fence in (1, 2)] == [0, 1]

    assert not raw_redis.exists(f"{redis_client.GENERATION}1")
    assert raw_redis.exists(f"{redis_client.GENERATION}2")


def test_failures_are_counted_from_the_first(raw_redis: FakeRedis) -> None:
    assert [call(SCRIPTS["note_failure"], code="X", error="words", trigger="api") for _ in range(2)] == [1, 2]

    notes = {field.decode(): value for field, value in raw_redis.hgetall(redis_client.SYNC).items()}
    assert notes["code"] == b"X"
    assert notes["error"] == b"words"
    assert notes["trigger"] == b"api"
    assert int(notes["failing_since"]) <= int(notes["attempt_at"])


def test_clear_removes_a_workers_mark_without_an_end(raw_redis: FakeRedis) -> None:
    worker = VALUES["worker"]
    raw_redis.set(worker, "up")

    call(SCRIPTS["clear"])

    assert not raw_redis.exists(worker)


def test_clear_keeps_a_lease_and_a_workers_mark_in_force(raw_redis: FakeRedis) -> None:
    raw_redis.set(VALUES["worker"], "up", ex=10)
    raw_redis.set(redis_client.LEASE, "ours", ex=10)

    call(SCRIPTS["clear"])

    assert raw_redis.exists(VALUES["worker"], redis_client.LEASE) == 2
