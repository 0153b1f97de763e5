"""The inventory in Redis: how it is written, and what readers get.

A synchronization writes a new generation aside, and one script makes it the current one. So a reader gets one complete
listing or the one before it. An action writes its instance into the current generation and records the id in `touched`;
a synchronization carries over the instances that were touched since it began. `encoding` describes how an instance is
stored. No command and no script handles more than ROWS_AT_ONCE rows: Redis answers nobody else meanwhile.
"""

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from instances import lua
from instances import redis_client as keys
from instances.errors import CacheUnavailable
from instances.instance import Instance, to_usd
from instances.inventory import bodies, encoding, queries, rows
from instances.inventory.freshness import Freshness, measure, to_time
from instances.inventory.heartbeat import get_worker_key
from instances.inventory.lease import describe as describe_lease
from instances.inventory.sharing import Shared
from instances.redis_client import ROWS_AT_ONCE, get_redis, redis_errors

log = logging.getLogger(__name__)

# A field of each generation that holds the format. With it, an empty account differs from an evicted generation.
MARKER: Final = b""
# Less than ROWS_AT_ONCE: the rows of an exchange have one tick.
BODY_SECONDS: Final = 86400
TOUCHED_SECONDS: Final = 3600
# Each further attempt means that another generation was published during the read.
READ_ATTEMPTS: Final = 5

_READ: Final = lua.load(__file__, "read")
_READ_CHANGES: Final = lua.load(__file__, "read_changes")
_READ_STATE: Final = lua.load(__file__, "read_state")
_KEEP_BODY: Final = lua.load(__file__, "keep_body")
_NOTE_FAILURE: Final = lua.load(__file__, "note_failure")
_WRITE_INSTANCE: Final = lua.load(__file__, "write_instance")
_DISCARD: Final = lua.load(__file__, "discard")
_CLEAR: Final = lua.load(__file__, "clear")


@dataclass(frozen=True)
class Body:
    """The answer to GET /api/instances with every instance. `rendered` is None when the reader has this revision."""

    freshness: Freshness
    revision: int | None
    rendered: bodies.Rendered | None


@dataclass(frozen=True)
class Listing:
    """The instances as the API shows them, newest first. Readers share it, and must not change it."""

    freshness: Freshness
    revision: int | None
    instances: queries.Rows


@dataclass(frozen=True)
class Stored:
    """The current generation as it is stored, id → JSON. Without an inventory `generation` is None."""

    generation: int | None
    rows: dict[str, bytes]

    def without(self, damaged: Set[str]) -> "Stored":
        """Return this without rows that can't be read. It is no generation that could stay the current one."""
        return Stored(None, {id_: row for id_, row in self.rows.items() if id_ not in damaged})


@dataclass(frozen=True)
class State:
    """What is known of the inventory without its instances. Times are of Redis's clock.

    `moving` has the ids of at most ROWS_AT_ONCE moving instances.
    """

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


# Generation, revision, age, and what was read.
Answer = tuple[int, int, Freshness, Any]
# The only fields of each instance in an answer; none: all.
Names = tuple[str, ...]

# The last listing that this process parsed; most readers need the same one.
_parsed: Listing | None = None
# The last answers that this process sent, by their fields.
_kept: dict[Names, bodies.Rendered] = {}


def read_body(known_revision: int | None = None, names: Names = ()) -> Body:
    """Read the answer to GET /api/instances as it is sent, and render it where no process has rendered it yet.

    `known_revision` is the one that the reader has; `names` are the only fields of each instance. This process keeps
    the answer of the last revision, so most reads fetch only the revision and the age from Redis.
    """
    body = _read_rendered(known_revision, names)
    if body is None:
        # One thread renders, the others wait for its answer.
        with rendering:
            body = _read_rendered(known_revision, names) or _render_body(names)
    return body


# Held by the thread that renders the answer, or that publishes a listing and then renders it.
rendering: Final = threading.RLock()


def _read_rendered(known_revision: int | None, names: Names) -> Body | None:
    """Return the answer as this process or Redis keeps it; None when it has to be rendered."""
    answer, kept = _share_body((names, known_revision))
    if answer is None:
        return Body(Freshness(), None, bodies.Rendered(None, bodies.render([])))
    _, revision, freshness, body = answer
    if revision == known_revision:
        return Body(freshness, revision, None)
    if kept and kept.revision == revision:
        return Body(freshness, revision, kept)
    gzipped = bodies.unseal(body)
    return None if gzipped is None else Body(freshness, revision, _keep(revision, names, gzipped))


def _read_for_all(asked: Sequence[tuple[Names, int | None]]) -> list[tuple[Answer | None, bodies.Rendered | None]]:
    found = {}
    for names in {names for names, _ in asked}:
        kept = _kept.get(names)
        known_revisions = [known for others, known in asked if others == names]
        answer = _read("body", kept.revision if kept else None, known_revisions, ",".join(names))
        found[names] = (answer, kept)
    return [found[names] for names, _ in asked]


_share_body: Final = Shared(_read_for_all)


def _render_body(names: Names) -> Body:
    whole = _read_whole()
    if whole is None:
        return Body(Freshness(), None, bodies.Rendered(None, bodies.render([])))
    gzipped = bodies.render(rows.pick(whole.rows, names))
    _keep_body(whole.revision, names, gzipped)
    return Body(whole.freshness, whole.revision, _keep(whole.revision, names, gzipped))


def _keep(revision: int, names: Names, gzipped: bytes) -> bodies.Rendered:
    if names not in _kept and len(_kept) >= keys.KEPT_BODIES:
        _kept.clear()
    _kept[names] = rendered = bodies.Rendered(revision, gzipped)
    return rendered


def render_revision(revision: int, stored: Mapping[str, bytes]) -> None:
    """Render the answer from a revision's rows, which the caller has in memory."""
    shown = rows.order({id_.encode(): row for id_, row in stored.items()})
    if shown is not None:
        _keep_body(revision, (), bodies.render(shown))


def _keep_body(revision: int, names: Names, gzipped: bytes) -> None:
    """Keep the rendered answer of a revision for all processes."""
    try:
        body = bodies.seal(gzipped)
        _KEEP_BODY(rendered_revision=revision, fields=",".join(names), body=body, seconds=BODY_SECONDS)
    except CacheUnavailable as exc:
        log.debug("rendered answer not kept: %s", exc)


def read_listing() -> Listing:
    """Read the current listing, parsed once for each revision and process. Raises CacheUnavailable."""
    global _parsed
    parsed = _parsed
    whole = _read_whole(parsed.revision if parsed else None)
    if whole is None:
        return Listing(Freshness(), None, queries.Rows())
    if parsed and parsed.revision == whole.revision:
        return Listing(whole.freshness, whole.revision, parsed.instances)
    instances: list[dict[str, Any]] = []
    for start in range(0, len(whole.rows), ROWS_AT_ONCE):
        # Together, so that they share the names of their fields in memory.
        instances += json.loads(b"[%b]" % b",".join(whole.rows[start : start + ROWS_AT_ONCE]))
    _parsed = Listing(whole.freshness, whole.revision, queries.Rows(instances))
    return _parsed


def find_listing() -> Listing | None:
    """Read the current listing; None when Redis can't be read."""
    try:
        return read_listing()
    except CacheUnavailable:
        return None


def check_rows() -> None:
    """Discard the inventory if it has a row that can't be read."""
    _read_whole()


@dataclass(frozen=True)
class Whole:
    """The current listing as the API shows it: a row for each instance, newest first."""

    revision: int
    freshness: Freshness
    rows: list[bytes]


def _read_whole(known_revision: int | None = None) -> Whole | None:
    """Read the current listing; without rows when the reader knows its revision. Return None without an inventory."""
    answer = _read_all(known_revision)
    if answer is None:
        return None
    generation, revision, freshness, stored = answer
    shown = rows.order(stored)
    if shown is None:
        _discard(generation, revision)
        return None
    return Whole(revision, freshness, shown)


def _read_all(known_revision: int | None) -> tuple[int, int, Freshness, dict[bytes, bytes]] | None:
    """Read the current generation. Return its number, its revision, its age and its rows.

    The rows are empty when the reader knows the revision. Raises CacheUnavailable.
    """
    for _ in range(READ_ATTEMPTS):
        answer = _read("rows", known_revision)
        if answer is None:
            return None
        generation, revision, freshness, data = answer
        if data is None:
            return generation, revision, freshness, {}
        if isinstance(data, list):
            stored = dict(_pairs(data))
            stored.pop(MARKER, None)
            return generation, revision, freshness, stored
        scanned = _scan(generation, *data.split(b" "))
        if scanned is not None:
            return generation, *scanned
    raise CacheUnavailable("The inventory changed during each of several reads.")


def _scan(generation: int, tick: bytes, history: bytes) -> tuple[int, Freshness, dict[bytes, bytes]] | None:
    """Read a large generation in parts, and then what was written into it since the tick: together one revision.

    Return None when another generation or server has become the current one meanwhile, or Redis has lost a part.
    """
    stored: dict[bytes, bytes] = {}
    with redis_errors():
        client, cursor = get_redis(), None
        while cursor != 0:
            cursor, part = client.hscan(f"{keys.GENERATION}{generation}", cursor or 0, count=ROWS_AT_ONCE)
            stored.update(part)  # type: ignore[arg-type]  # its types are those of every way to decode answers
    since = b""
    while tick:
        if tick == since:
            return None  # Damage: more writes than one step makes.
        since = tick
        changes = _READ_CHANGES(generation=generation, since=since, read_history=history)
        if not changes:
            return None
        now, revision, as_of, size, tick, ids, values = changes
        for field, value in zip(ids, values, strict=True):
            if value is None:
                stored.pop(field, None)
            else:
                stored[field] = value
    if len(stored) != size or stored.pop(MARKER, None) is None:
        return None
    return int(revision), measure(int(now), int(as_of)), stored


def find_instance(instance_id: str) -> tuple[Freshness, dict[str, Any] | None]:
    """Read one instance as the API shows it, or None, and how fresh the inventory is."""
    freshness, found = _find([instance_id])
    return freshness, found.get(instance_id)


def find_row(instance_id: str) -> tuple[Freshness, bytes | None]:
    """Return one instance as the API's JSON, or None, and how fresh the inventory is."""
    generation, revision, freshness, value = _share_rows(instance_id)
    shown = rows.order({instance_id.encode(): value}) if value else []
    if shown is None:
        _discard(generation, revision)
    return freshness, shown[0] if shown else None


def _read_rows(ids: Sequence[str]) -> list[Answer]:
    generation, revision, freshness, values = _read("some", None, ids) or (0, 0, Freshness(), [None] * len(ids))
    return [(generation, revision, freshness, value) for value in values]


_share_rows: Final = Shared(_read_rows)


def find_instances(ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read some instances as the API shows them, by id. Ids that the inventory lacks are left out."""
    return _find(ids)[1]


def _find(ids: Sequence[str]) -> tuple[Freshness, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, Any]] = {}
    freshness = Freshness()
    for start in range(0, len(ids), ROWS_AT_ONCE):
        some = ids[start : start + ROWS_AT_ONCE]
        answer = _read("some", None, some)
        if answer is None:
            return Freshness(), {}
        generation, revision, freshness, values = answer
        for id_, value in zip(some, values, strict=True):
            if value is None or not id_:
                continue
            instance = rows.parse(id_.encode(), value)
            if instance is None:
                _discard(generation, revision)
                return Freshness(), {}
            found[id_] = instance
    return freshness, found


def read_stored() -> Stored:
    """Read the current generation as it is stored. One with an id that is no text counts as none."""
    answer = _read_all(None)
    if answer is None:
        return Stored(None, {})
    generation, _, _, stored = answer
    try:
        return Stored(generation, {field.decode(): value for field, value in stored.items()})
    except UnicodeDecodeError:
        return Stored(None, {})


def _discard(generation: int, revision: int) -> None:
    """Discard an unreadable inventory, unless another has replaced it. The refresher then synchronizes."""
    try:
        if _DISCARD(generation=generation, revision=revision):
            log.warning("the cached inventory is damaged or from another version: synchronizing again")
    except CacheUnavailable as exc:
        log.debug("damaged inventory not discarded: %s", exc)


def _read(
    what: str, known_revision: int | None, asked: Sequence[str | int | None] = (), fields: str = ""
) -> Answer | None:
    """Run the reading script. Return generation, revision, freshness and the data; None without an inventory.

    The data is None when this process, or each reader whom it answers, has the revision.
    """
    answer = _READ(known_revision=known_revision, what=what, fields=fields, asked=asked)
    if len(answer) == 1:
        return None
    now, generation, revision, as_of = (_to_int(value) for value in answer[:4])
    if now is None or generation is None or revision is None or as_of is None:
        return None
    return generation, revision, measure(now, as_of), answer[4] if len(answer) > 4 else None


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
    is_by_price = instance is None or (instance.charge == "gpu" and not instance.is_prepaid)
    other_cost = "" if instance is None or is_by_price else json.dumps(to_usd(instance.cost_per_hour))
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


def clear() -> int:
    """Delete the inventory and every damaged value. Return how many instances it had.

    Keys are deleted by name. The lease of a running synchronization stays.
    """
    return int(_CLEAR(worker=get_worker_key()))


def read_state() -> State:
    answer = _READ_STATE(worker=get_worker_key())
    now, tick, generation, revision, size, flat, moving, lease, lease_ms, has_worker = answer
    sync = {field.decode("utf-8", "replace"): value for field, value in _pairs(flat)}
    as_of = _to_int(sync.get("as_of"))
    has_copy = generation != b"" and as_of is not None
    return State(
        now=to_time(int(now)),
        tick=int(tick),
        freshness=measure(int(now), as_of) if has_copy and as_of is not None else Freshness(),
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
        lease=describe_lease(lease),
        lease_seconds=max(lease_ms, 0) / 1000,
        has_worker=bool(has_worker),
    )


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


def _pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _to_int(value: bytes | None) -> int | None:
    """Return a number as the scripts read it: None for anything that can't be ours."""
    number = int(value) if value is not None and value.isdigit() and len(value) <= 15 else None
    return number if number is not None and number <= keys.MAX_NUMBER else None


def _find_time(value: bytes | None) -> datetime | None:
    number = _to_int(value)
    return to_time(number) if number is not None else None
