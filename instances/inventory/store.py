"""The inventory in Redis: how it is written, and what readers get.

A synchronization writes a new generation aside, and one script makes it the current one. So a reader gets one complete
listing or the one before it. An action writes its instance into the current generation and records the id in `touched`;
a synchronization carries over the instances that were touched since it began. `encoding` describes how an instance is
stored.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.conf import settings

from instances import lua
from instances import redis_client as keys
from instances.errors import CacheUnavailable, LeaseLost
from instances.fallback import database
from instances.instance import Instance, from_json, to_usd
from instances.inventory import encoding
from instances.redis_client import get_redis, redis_errors

log = logging.getLogger(__name__)

# A field of each generation that holds the format. With it, an empty account differs from an evicted generation.
MARKER: Final = b""
WRITE_CHUNK: Final = 1000
EXCHANGE_CHUNK: Final = 500
DRAFT_SECONDS: Final = 120
OLD_GENERATION_SECONDS: Final = 60
BODY_SECONDS: Final = 86400
TOUCHED_SECONDS: Final = 3600
GZIP_LEVEL: Final = 5
# How far the time of a read may lie in the future. Beyond that a clock was set back, and the age is unknown.
CLOCK_SLACK_MS: Final = 2000

_READ: Final = lua.load(__file__, "read")
_READ_STATE: Final = lua.load(__file__, "read_state")
_KEEP_BODY: Final = lua.load(__file__, "keep_body")
_PUBLISH: Final = lua.load(__file__, "publish")
_NOTE_UNCHANGED: Final = lua.load(__file__, "note_unchanged")
_NOTE_FAILURE: Final = lua.load(__file__, "note_failure")
_WRITE_INSTANCE: Final = lua.load(__file__, "write_instance")
_EXCHANGE: Final = lua.load(__file__, "exchange")
_DROP_DRAFT: Final = lua.load(__file__, "drop_draft")
_DISCARD: Final = lua.load(__file__, "discard")
_CLEAR: Final = lua.load(__file__, "clear")


@dataclass(frozen=True)
class Freshness:
    """How old the inventory is, by Redis's clock. `as_of` is when the last complete read of Novita began.

    Without an inventory `as_of` is None. An age of None beside a time means that the clock was set back since.
    """

    as_of: datetime | None = None
    age_seconds: float | None = None

    @property
    def is_stale(self) -> bool:
        return self.age_seconds is None or self.age_seconds > settings.NOVITA_STALE_AFTER


@dataclass(frozen=True)
class Body:
    """The answer to GET /api/instances without a query. `gzipped` is None when the reader has this revision."""

    freshness: Freshness
    revision: int | None
    gzipped: bytes | None


@dataclass(frozen=True)
class Listing:
    """The instances as the API shows them, newest first. Readers share it, and must not change it."""

    freshness: Freshness
    revision: int | None
    instances: list[dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """The synchronization that writes: its lease, when it began by Redis's clock, and what triggered it."""

    token: str
    fence: int
    began_ms: int
    trigger: str

    def to_args(self) -> dict[str, Any]:
        return {"token": self.token, "fence": self.fence, "as_of": self.began_ms, "trigger": self.trigger}


@dataclass(frozen=True)
class Stored:
    """The current generation as it is stored, id → JSON. Without an inventory `generation` is None."""

    generation: int | None
    rows: dict[str, bytes]


@dataclass(frozen=True)
class State:
    """What is known of the inventory without its instances. Times are of Redis's clock."""

    now: datetime
    # The `read_began` of a direct read that begins now.
    tick: int
    freshness: Freshness
    # When the last complete synchronization began, even if its inventory is gone.
    last_sync: datetime | None
    generation: int | None
    revision: int | None
    size: int
    moving: frozenset[str]
    attempt_at: datetime | None
    completed_at: datetime | None
    cleared_at: datetime | None
    failures: int
    failing_since: datetime | None
    code: str
    error: str
    not_modified: int
    lease: dict[str, Any] | None
    lease_seconds: float
    has_worker: bool


@dataclass(frozen=True)
class Stats:
    """`size_bytes` is None where Redis doesn't say."""

    state: State
    size_bytes: int | None


# The last listing that this process parsed; most readers need the same one.
_parsed: Listing | None = None


def read_body(known_revision: int | None = None) -> Body:
    """Read the answer to GET /api/instances as it is sent, and render it where no process has rendered it yet."""
    answer = _read("body", known_revision)
    if answer is None:
        return Body(Freshness(), None, gzip.compress(_render([]), GZIP_LEVEL, mtime=0))
    _, revision, freshness, body = answer
    if revision == known_revision:
        return Body(freshness, revision, None)
    gzipped = _unseal_body(body)
    return _render_body() if gzipped is None else Body(freshness, revision, gzipped)


def _render_body() -> Body:
    listing = read_listing()
    gzipped = gzip.compress(_render(listing.instances), GZIP_LEVEL, mtime=0)
    if listing.revision is not None:
        try:
            _KEEP_BODY(rendered_revision=listing.revision, body=seal_body(gzipped), seconds=BODY_SECONDS)
        except CacheUnavailable as exc:
            log.debug("rendered answer not kept: %s", exc)
    return Body(listing.freshness, listing.revision, gzipped)


def _render(instances: list[dict[str, Any]]) -> bytes:
    document = {"instances": instances, "total": len(instances)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


# Identifies the fields of an instance in this version: an answer that another version rendered may lack one.
_FIELDS: Final = zlib.crc32(repr(sorted(from_json({"id": "-", "status": "-"}).to_json())).encode())


def seal_body(gzipped: bytes) -> bytes:
    """Prefix a rendered answer with its format and checksum, which reveal damage and other versions."""
    return b"%d %08x %08x " % (keys.FORMAT, _FIELDS, zlib.crc32(gzipped)) + gzipped


def _unseal_body(sealed: bytes) -> bytes | None:
    gzipped = sealed[len(seal_body(b"")) :]
    return gzipped if gzipped and sealed == seal_body(gzipped) else None


def read_listing() -> Listing:
    """Read the current listing, parsed once for each revision and process. Raises CacheUnavailable."""
    global _parsed
    parsed = _parsed
    answer = _read("rows", parsed.revision if parsed else None)
    if answer is None:
        return Listing(Freshness(), None, [])
    generation, revision, freshness, flat = answer
    if parsed and parsed.revision == revision:
        return Listing(freshness, revision, parsed.instances)
    instances = []
    for field, value in _pairs(flat):
        instance = _parse(field, value)
        if instance is not None:
            instances.append(instance)
        elif field != MARKER:
            _discard(generation, revision)
            return Listing(Freshness(), None, [])
    instances.sort(key=lambda instance: (instance["createdAt"] or "", instance["id"]), reverse=True)
    _parsed = Listing(freshness, revision, instances)
    return _parsed


def find_instance(instance_id: str) -> tuple[Freshness, dict[str, Any] | None]:
    """Read one instance as the API shows it, or None, and how fresh the inventory is."""
    freshness, found = _find([instance_id])
    return freshness, found.get(instance_id)


def find_instances(ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read some instances as the API shows them, by id. Ids that the inventory lacks are left out."""
    return _find(ids)[1]


def _find(ids: Sequence[str]) -> tuple[Freshness, dict[str, dict[str, Any]]]:
    answer = _read("some", None, *ids)
    if answer is None:
        return Freshness(), {}
    generation, revision, freshness, values = answer
    found = {}
    for id_, value in zip(ids, values, strict=True):
        if value is None or not id_:
            continue
        instance = _parse(id_.encode(), value)
        if instance is None:
            _discard(generation, revision)
            return Freshness(), {}
        found[id_] = instance
    return freshness, found


def read_stored() -> Stored:
    """Read the current generation as it is stored. A damaged one counts as none."""
    answer = _read("rows", None)
    if answer is None:
        return Stored(None, {})
    generation, _, _, flat = answer
    rows = {field: value for field, value in _pairs(flat) if field != MARKER}
    if any(_parse(field, value) is None for field, value in rows.items()):
        return Stored(None, {})
    return Stored(generation, {field.decode(): value for field, value in rows.items()})


def _discard(generation: int, revision: int) -> None:
    """Discard an unreadable inventory, unless another has replaced it. The refresher then synchronizes."""
    try:
        if _DISCARD(generation=generation, revision=revision, grace_seconds=OLD_GENERATION_SECONDS):
            log.warning("the cached inventory is damaged or from another version: synchronizing again")
    except CacheUnavailable as exc:
        log.debug("damaged inventory not discarded: %s", exc)


def _read(what: str, known_revision: int | None, *ids: str) -> tuple[int, int, Freshness, Any] | None:
    """Run the reading script. Return generation, revision, freshness and the data; None without an inventory.

    The data is None when the reader knows the revision.
    """
    answer = _READ(known_revision=known_revision, what=what, ids=ids)
    if len(answer) == 1:
        return None
    now, generation, revision, as_of = (_to_int(value) for value in answer[:4])
    if now is None or generation is None or revision is None or as_of is None:
        return None
    return generation, revision, _measure(now, as_of), answer[4] if len(answer) > 4 else None


def _parse(field: bytes, value: bytes) -> dict[str, Any] | None:
    instance = encoding.parse(value)
    return instance if instance is not None and instance["id"].encode() == field else None


def publish(rows: Mapping[str, bytes], moving: Iterable[str], source: Source) -> None:
    """Make a listing the current one. `rows` maps ids to sealed instances, `moving` has the ids of those that move.

    Raises LeaseLost and CacheUnavailable. Then readers keep the previous listing, or get the new one if only Redis's
    answer was lost.
    """
    generation = f"{keys.GENERATION}{source.fence}"
    fields: list[tuple[str | bytes, bytes]] = [(MARKER, b"%d" % keys.FORMAT), *rows.items()]
    try:
        with redis_errors():
            for start in range(0, len(fields), WRITE_CHUNK):
                with get_redis().pipeline(transaction=True) as pipeline:
                    pipeline.hset(generation, mapping=dict(fields[start : start + WRITE_CHUNK]))
                    pipeline.expire(generation, DRAFT_SECONDS)
                    pipeline.execute()
        outcome = _PUBLISH(**source.to_args(), size=len(fields), grace_seconds=OLD_GENERATION_SECONDS, moving=moving)
    except CacheUnavailable:
        if _drop_draft(source.fence):
            return
        raise
    if outcome != 1:
        _drop_draft(source.fence)
        raise LeaseLost if outcome == -1 else CacheUnavailable("Redis lost a part of the new inventory.")


def _drop_draft(fence: int) -> bool:
    """Delete an unpublished generation. Return True if it is published: Redis's answer was lost."""
    try:
        return bool(_DROP_DRAFT(fence=fence))
    except CacheUnavailable as exc:
        log.debug("draft not deleted, it expires in %s s: %s", DRAFT_SECONDS, exc)
        return False


def note_unchanged(generation: int, moving: Iterable[str], source: Source) -> bool:
    """Record that a complete read found no difference. Return False if that generation is gone. Raises LeaseLost."""
    outcome = _NOTE_UNCHANGED(**source.to_args(), generation=generation, moving=moving)
    if outcome == -1:
        raise LeaseLost
    return bool(outcome == 1)


def note_failure(code: str, error: str, trigger: str) -> int:
    """Record a failed synchronization. Return how many have failed in a row."""
    return int(_NOTE_FAILURE(code=code, error=error, trigger=trigger))


def write_instance(instance: Instance, *, read_began: int | None = None) -> bool:
    """Write one instance into the current generation. Return True for a visible change.

    A direct read passes `read_began`, the tick of a state that was read before it: it never replaces a later write. An
    action leaves it out.
    """
    return _write(instance.id, instance, read_began)


def remove_instance(instance_id: str, *, read_began: int | None = None) -> bool:
    """Remove one instance from the current generation, after Novita itself said that it doesn't exist."""
    return _write(instance_id, None, read_began)


def _write(instance_id: str, instance: Instance | None, read_began: int | None) -> bool:
    other_cost = "" if instance is None or instance.is_charged_by_price else json.dumps(to_usd(instance.cost_per_hour))
    is_changed = _WRITE_INSTANCE(
        id=instance_id,
        facts=encoding.encode_facts(instance) if instance else b"",
        additions=encoding.encode_additions(instance) if instance else b"",
        # The cost where the script keeps the earlier price: that price, unless the status makes it another one.
        other_cost=other_cost,
        ending=encoding.end(keys.read_time()),
        read_began=read_began,
        is_moving=bool(instance and instance.meaning.is_moving),
        touched_seconds=TOUCHED_SECONDS,
    )
    return bool(is_changed)


def exchange(changes: Sequence[tuple[str, bytes, bytes]]) -> int:
    """Replace stored instances: each id with its old and its new stored form. Return how many were replaced.

    An instance that has been written meanwhile stays as it is.
    """
    chunks = (changes[start : start + EXCHANGE_CHUNK] for start in range(0, len(changes), EXCHANGE_CHUNK))
    return sum(int(_EXCHANGE(changes=[part for change in chunk for part in change])) for chunk in chunks)


def clear() -> int:
    """Delete the inventory and every damaged value. Return how many instances it had.

    Keys are deleted by name. The lease of a running synchronization stays.
    """
    return int(_CLEAR(worker=_get_worker_key()))


def read_state() -> State:
    answer = _READ_STATE(worker=_get_worker_key())
    now, tick, generation, revision, size, flat, moving, lease, lease_ms, has_worker = answer
    sync = {field.decode("utf-8", "replace"): value for field, value in _pairs(flat)}
    as_of = _to_int(sync.get("as_of"))
    has_copy = generation != b"" and as_of is not None
    return State(
        now=_to_time(int(now)),
        tick=int(tick),
        freshness=_measure(int(now), as_of) if has_copy and as_of is not None else Freshness(),
        last_sync=_find_time(sync.get("as_of")),
        generation=_to_int(generation) if has_copy else None,
        revision=_to_int(revision) if has_copy else None,
        size=size if has_copy else 0,
        moving=frozenset(id_.decode("utf-8", "replace") for id_ in moving) if has_copy else frozenset(),
        attempt_at=_find_time(sync.get("attempt_at")),
        completed_at=_find_time(sync.get("completed_at")),
        cleared_at=_find_time(sync.get("cleared_at")),
        failures=_to_int(sync.get("failures")) or 0,
        failing_since=_find_time(sync.get("failing_since")) if _to_int(sync.get("failures")) else None,
        code=sync.get("code", b"").decode("utf-8", "replace"),
        error=sync.get("error", b"").decode("utf-8", "replace"),
        not_modified=_to_int(sync.get("not_modified")) or 0,
        lease=_parse_lease(lease),
        lease_seconds=max(lease_ms, 0) / 1000,
        has_worker=bool(has_worker),
    )


def note_worker() -> None:
    """Record that a worker is running; it counts as up for the next seconds."""
    with redis_errors():
        get_redis().set(_get_worker_key(), "up", ex=keys.WORKER_SECONDS)


def _get_worker_key() -> str:
    # A worker finds its tasks in its database, so a worker with another database does nothing for this panel.
    return f"{keys.WORKER}:{database.find_id()}"


def read_stats() -> Stats:
    """Return the state of the inventory, and its size in Redis's memory."""
    state = read_state()
    return Stats(state, _measure_bytes(state.generation) if state.generation is not None else 0)


def _measure_bytes(generation: int) -> int | None:
    """Return the memory of a generation, estimated from a sample; None where Redis doesn't say."""
    try:
        with redis_errors():
            size = get_redis().memory_usage(f"{keys.GENERATION}{generation}", samples=100)
    except CacheUnavailable as exc:
        log.debug("size of the inventory unknown: %s", exc)
        return None
    return int(size) if size is not None else None


def find_eviction_policy() -> str | None:
    """Return Redis's `maxmemory-policy`; None where Redis doesn't say."""
    with redis_errors():
        info: dict[str, Any] = get_redis().info("memory")
    return info.get("maxmemory_policy")


def _parse_lease(value: bytes) -> dict[str, Any] | None:
    """Return what a lease says of its owner; {} for the value of another program."""
    if not value:
        return None
    try:
        lease = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    kinds = {"host": str, "pid": int, "trigger": str, "since": str}
    return (
        {name: lease[name] for name, kind in kinds.items() if isinstance(lease.get(name), kind)}
        if isinstance(lease, dict)
        else {}
    )


def _pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _to_int(value: bytes | None) -> int | None:
    """Return a number as the scripts read it: None for anything that can't be ours."""
    number = int(value) if value is not None and value.isdigit() and len(value) <= 15 else None
    return number if number is not None and number <= keys.MAX_NUMBER else None


def _to_time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _find_time(value: bytes | None) -> datetime | None:
    number = _to_int(value)
    return _to_time(number) if number is not None else None


def _measure(now_ms: int, as_of_ms: int) -> Freshness:
    age_ms = now_ms - as_of_ms
    return Freshness(_to_time(as_of_ms), max(0, age_ms) / 1000 if age_ms >= -CLOCK_SLACK_MS else None)
