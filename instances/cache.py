"""The copy in Redis: complete listings, which of them readers get, and what readers get.

A sync writes a listing aside as a new generation, and one script makes it the current one; so a reader sees one
complete listing or the one before it. An action writes its one instance into the current generation and notes that in
`touched`; a sync carries over what was touched after it began to fetch. Instances are JSON, and `changedAt` stands last
in each, so that whether one changed is a comparison of bytes.
"""

import gzip
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.conf import settings

from instances import redis_client as keys
from instances.errors import CacheUnavailable, LeaseLost
from instances.instance import Instance, format_time
from instances.redis_client import get_redis, redis_errors, run_script

log = logging.getLogger(__name__)

# A field of each generation that is no instance: an empty account is not the same as an evicted generation.
MARKER: Final = b""
WRITE_CHUNK: Final = 1000
DRAFT_SECONDS: Final = 120
OLD_GENERATION_SECONDS: Final = 60
BODY_SECONDS: Final = 86400
TOUCHED_SECONDS: Final = 3600
GZIP_LEVEL: Final = 5
WORKER_SECONDS: Final = 15

_FIND_COPY = """
local function find_copy()
  local number = redis.call('GET', KEYS[1])
  local revision = redis.call('GET', KEYS[2])
  if not number or not revision or redis.call('HEXISTS', '{novita}:gen:' .. number, '') == 0 then return nil end
  return number, revision
end
"""

# → {now}, or {now, generation, revision, as_of, what was asked for}
_READ = (
    _FIND_COPY
    + """
local now = string.format('%.0f', now_ms())
local number, revision = find_copy()
local as_of = redis.call('HGET', KEYS[3], 'as_of')
if not number or not as_of then return {now} end
local answer = {now, number, revision, as_of}
if ARGV[1] == revision then
  -- A replica, or a Redis that is full, must still be read.
  if ARGV[2] == 'body' then redis.pcall('HINCRBY', KEYS[3], 'not_modified', 1) end
elseif ARGV[2] == 'body' then
  answer[5] = redis.call('GET', '{novita}:body:' .. number .. ':' .. revision) or ''
elseif ARGV[2] == 'rows' then
  answer[5] = redis.call('HGETALL', '{novita}:gen:' .. number)
else
  answer[5] = redis.call('HMGET', '{novita}:gen:' .. number, unpack(ARGV, 3))
end
return answer
"""
)

_READ_STATE = (
    _FIND_COPY
    + """
local number, revision = find_copy()
local size = number and redis.call('HLEN', '{novita}:gen:' .. number) - 1 or 0
return {string.format('%.0f', now_ms()), number or '', revision or '', size, redis.call('HGETALL', KEYS[3]),
  redis.call('SMEMBERS', KEYS[4]), redis.call('GET', KEYS[5]) or '', redis.call('PTTL', KEYS[5]),
  redis.call('EXISTS', KEYS[6])}
"""
)

_KEEP_BODY = (
    _FIND_COPY
    + """
local number, revision = find_copy()
if revision ~= ARGV[1] then return 0 end
redis.call('SET', '{novita}:body:' .. number .. ':' .. revision, ARGV[2], 'EX', ARGV[3])
return 1
"""
)

_IS_OURS = """
if redis.call('GET', KEYS[6]) ~= ARGV[1] or redis.call('GET', KEYS[7]) ~= ARGV[2] then return -1 end
"""

_PUBLISH = (
    _FIND_COPY
    + _IS_OURS
    + """
local new = '{novita}:gen:' .. ARGV[2]
if redis.call('HLEN', new) ~= tonumber(ARGV[3]) then return -2 end
local number, revision = find_copy()
redis.call('DEL', KEYS[5])
for i = 6, #ARGV do redis.call('SADD', KEYS[5], ARGV[i]) end
if number then
  local old = '{novita}:gen:' .. number
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], ARGV[2], '+inf')) do
    local value = redis.call('HGET', old, id)
    redis.call('SREM', KEYS[5], id)
    if value then
      redis.call('HSET', new, id, value)
      local group = cjson.decode(value)['group']
      if group == 'starting' or group == 'stopping' then redis.call('SADD', KEYS[5], id) end
    else
      redis.call('HDEL', new, id)
    end
  end
  redis.call('EXPIRE', old, ARGV[4])
  redis.call('DEL', '{novita}:body:' .. number .. ':' .. revision)
end
redis.call('PERSIST', new)
redis.call('SET', KEYS[1], ARGV[2])
next_number(KEYS[2])
redis.call('HSET', KEYS[3], 'as_of', ARGV[2], 'attempt_at', string.format('%.0f', now_ms()), 'failures', 0, 'error', '',
  'code', '', 'trigger', ARGV[5], 'completed_at', string.format('%.0f', now_ms()))
redis.call('HDEL', KEYS[3], 'cleared_at')
return 1
"""
)

_NOTE_UNCHANGED = (
    _FIND_COPY
    + _IS_OURS
    + """
if find_copy() ~= ARGV[3] then return -2 end
redis.call('HSET', KEYS[3], 'as_of', ARGV[2], 'attempt_at', string.format('%.0f', now_ms()), 'failures', 0, 'error', '',
  'code', '', 'trigger', ARGV[4], 'completed_at', string.format('%.0f', now_ms()))
return 1
"""
)

_NOTE_FAILURE = """
local now = string.format('%.0f', now_ms())
redis.call('HSET', KEYS[1], 'attempt_at', now, 'code', ARGV[1], 'error', ARGV[2], 'trigger', ARGV[3])
local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
if failures == 1 then redis.call('HSET', KEYS[1], 'failing_since', now) end
return failures
"""

# ARGV: id, its JSON without the end ('': remove it), the end, when its read began ('': an action), whether it moves
_WRITE_INSTANCE = (
    _FIND_COPY
    + """
local number, revision = find_copy()
if not number then return 0 end
local touched = redis.call('ZSCORE', KEYS[4], ARGV[1])
if ARGV[4] ~= '' and touched and tonumber(touched) >= tonumber(ARGV[4]) then return 0 end
local generation = '{novita}:gen:' .. number
local old = redis.call('HGET', generation, ARGV[1])
local is_same = (ARGV[2] == '' and not old) or (ARGV[2] ~= '' and old and string.sub(old, 1, #ARGV[2]) == ARGV[2])
if is_same and ARGV[4] ~= '' then return 0 end
-- Not before the last sync began, even where the clock was set back: that sync carries over what was touched since.
local now = math.max(now_ms(), tonumber(redis.call('GET', KEYS[6])) or 0)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - ARGV[6] * 1000)
redis.call('ZADD', KEYS[4], string.format('%.0f', now), ARGV[1])
if is_same then return 0 end
if ARGV[2] == '' then
  redis.call('HDEL', generation, ARGV[1])
else
  redis.call('HSET', generation, ARGV[1], ARGV[2] .. ARGV[3])
end
redis.call(ARGV[5] == '1' and 'SADD' or 'SREM', KEYS[5], ARGV[1])
redis.call('DEL', '{novita}:body:' .. number .. ':' .. revision)
next_number(KEYS[2])
return 1
"""
)

# Not the current one: the answer of the publishing may have been lost after it was done.
_DROP_DRAFT = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
redis.call('UNLINK', '{novita}:gen:' .. ARGV[1])
return 0
"""

# pcall: a key may be of a foreign type, and this is the way to get rid of it.
_CLEAR = """
local number, revision = redis.pcall('GET', KEYS[1]), redis.pcall('GET', KEYS[2])
local cleared = 0
if type(number) == 'string' then
  local generation = '{novita}:gen:' .. number
  local size = redis.pcall('HLEN', generation)
  if type(size) == 'number' and size > 0 then cleared = size - 1 end
  redis.call('DEL', generation)
  if type(revision) == 'string' then redis.call('DEL', '{novita}:body:' .. number .. ':' .. revision) end
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('HSET', KEYS[3], 'cleared_at', string.format('%.0f', now_ms()))
return cleared
"""

_COPY_KEYS: Final = [keys.CURRENT, keys.REVISION, keys.SYNC, keys.TOUCHED, keys.MOVING]
_COPY_AND_LOCK_KEYS: Final = [*_COPY_KEYS, keys.LEASE, keys.FENCE]


@dataclass(frozen=True)
class Freshness:
    """How old the copy is, by Redis's clock. `as_of` is when the last complete read of Novita began; None: no copy."""

    as_of: datetime | None = None
    age_seconds: float | None = None

    @property
    def is_stale(self) -> bool:
        return self.age_seconds is None or self.age_seconds > settings.NOVITA_STALE_AFTER


@dataclass(frozen=True)
class Body:
    """The answer of the plain listing. `gzipped` is None when the reader has this revision already."""

    freshness: Freshness
    revision: int | None
    gzipped: bytes | None


@dataclass(frozen=True)
class Listing:
    """The instances as the API shows them, newest first. Not to be changed: readers share it."""

    freshness: Freshness
    revision: int | None
    instances: list[dict[str, Any]]


@dataclass(frozen=True)
class Stored:
    """What a sync compares with: the current generation as it is stored, id → JSON. No `generation`: no copy."""

    generation: int | None
    rows: dict[str, bytes]


@dataclass(frozen=True)
class State:
    """What is known of the copy without reading it. Times are of Redis's clock."""

    now: datetime
    freshness: Freshness
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


# The last listing that was parsed here; most readers want the same one.
_parsed: Listing | None = None


def read_body(known_revision: int | None = None) -> Body:
    """Read the plain listing's answer as it is sent; rendered here once when nobody has yet."""
    answer = _read("body", known_revision)
    if answer is None:
        return Body(Freshness(), None, gzip.compress(_render([]), GZIP_LEVEL, mtime=0))
    _, revision, freshness, body = answer
    if revision == known_revision:
        return Body(freshness, revision, None)
    if not body.startswith(b"\x1f\x8b"):
        return _render_body()
    return Body(freshness, revision, body)


def _render_body() -> Body:
    listing = read_listing()
    gzipped = gzip.compress(_render(listing.instances), GZIP_LEVEL, mtime=0)
    if listing.revision is not None:
        try:
            run_script(_KEEP_BODY, _COPY_KEYS, [listing.revision, gzipped, BODY_SECONDS])
        except CacheUnavailable as exc:
            log.debug("the rendered listing was not kept: %s", exc)
    return Body(listing.freshness, listing.revision, gzipped)


def _render(instances: list[dict[str, Any]]) -> bytes:
    document = {"instances": instances, "total": len(instances)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def read_listing() -> Listing:
    """Read the current listing; parsed once for each revision in this process. Raises CacheUnavailable."""
    global _parsed
    parsed = _parsed
    answer = _read("rows", parsed.revision if parsed else None)
    if answer is None:
        return Listing(Freshness(), None, [])
    _, revision, freshness, flat = answer
    if parsed and parsed.revision == revision:
        return Listing(freshness, revision, parsed.instances)
    instances = [_parse(value) for field, value in _pairs(flat) if field != MARKER]
    instances.sort(key=lambda instance: (instance["createdAt"] or "", instance["id"]), reverse=True)
    _parsed = Listing(freshness, revision, instances)
    return _parsed


def find_instance(instance_id: str) -> tuple[Freshness, dict[str, Any] | None]:
    """Read one instance as the API shows it, and how fresh the copy is. None when the copy doesn't have it."""
    freshness, found = _find([instance_id])
    return freshness, found.get(instance_id)


def find_instances(ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read some instances as the API shows them, by id; those that the copy doesn't have are left out."""
    return _find(ids)[1]


def _find(ids: Sequence[str]) -> tuple[Freshness, dict[str, dict[str, Any]]]:
    answer = _read("some", None, *ids)
    if answer is None:
        return Freshness(), {}
    _, _, freshness, values = answer
    found = zip(ids, values, strict=True)
    return freshness, {id_: _parse(value) for id_, value in found if value is not None and id_}


def read_stored() -> Stored:
    """Read the current generation as it is stored."""
    answer = _read("rows", None)
    if answer is None:
        return Stored(None, {})
    generation, _, _, flat = answer
    rows = {field.decode("utf-8", "replace"): value for field, value in _pairs(flat) if field != MARKER}
    return Stored(generation, rows)


def _read(what: str, known_revision: int | None, *ids: str) -> tuple[int, int, Freshness, Any] | None:
    """Run the reading script; None when there is no copy. The last part is None when the revision is known already."""
    answer = run_script(_READ, _COPY_KEYS, ["" if known_revision is None else known_revision, what, *ids])
    if len(answer) == 1:
        return None
    now, generation, revision, as_of = (_to_int(value) for value in answer[:4])
    if now is None or generation is None or revision is None or as_of is None:
        return None
    return generation, revision, _measure(now, as_of), answer[4] if len(answer) > 4 else None


def encode(instance: Instance) -> bytes:
    """Return the stored form of an instance up to `changedAt`: equal bytes mean an unchanged instance."""
    return json.dumps(instance.to_json(), ensure_ascii=False, separators=(",", ":")).encode()[:-1]


def seal(encoded: bytes, changed_at: datetime) -> bytes:
    """Complete what `encode` returned with the time at which the copy saw it change."""
    return encoded + _end(changed_at)


def _end(changed_at: datetime) -> bytes:
    return f',"changedAt":"{format_time(changed_at)}"}}'.encode()


def parse_stored(value: bytes) -> dict[str, Any] | None:
    """Read a stored instance; None when something foreign stands there."""
    try:
        instance = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return instance if isinstance(instance, dict) and {"id", "createdAt", "changedAt"} <= instance.keys() else None


def _parse(value: bytes) -> dict[str, Any]:
    instance = parse_stored(value)
    if instance is None:
        raise CacheUnavailable(
            "Redis holds something foreign under our keys.", suggestion="POST /api/cache/clear, then synchronize."
        )
    return instance


def publish(rows: Mapping[str, bytes], moving: Iterable[str], *, token: str, fence: int, trigger: str) -> None:
    """Make a listing the current one: `rows` maps ids to sealed instances, `moving` are those starting or stopping.

    Raises LeaseLost when the lock behind `token` and `fence` is no longer held, and CacheUnavailable. Readers
    keep the listing they had, or have the new one when only the answer was lost.
    """
    generation = f"{keys.GENERATION}{fence}"
    fields: list[tuple[str | bytes, bytes]] = [(MARKER, b"1"), *rows.items()]
    try:
        with redis_errors():
            for start in range(0, len(fields), WRITE_CHUNK):
                with get_redis().pipeline(transaction=True) as pipeline:
                    pipeline.hset(generation, mapping=dict(fields[start : start + WRITE_CHUNK]))
                    pipeline.expire(generation, DRAFT_SECONDS)
                    pipeline.execute()
        outcome = run_script(
            _PUBLISH, _COPY_AND_LOCK_KEYS, [token, fence, len(fields), OLD_GENERATION_SECONDS, trigger, *moving]
        )
    except CacheUnavailable:
        if _drop_draft(fence):
            return
        raise
    if outcome != 1:
        _drop_draft(fence)
        raise LeaseLost if outcome == -1 else CacheUnavailable("Redis dropped a part of the new listing.")


def _drop_draft(fence: int) -> bool:
    """Delete a generation that is not published. True when it is: the answer to publishing it was lost."""
    try:
        return bool(run_script(_DROP_DRAFT, [keys.CURRENT], [fence]))
    except CacheUnavailable as exc:
        log.debug("a draft ends by itself in %s s: %s", DRAFT_SECONDS, exc)
        return False


def note_unchanged(generation: int, *, token: str, fence: int, trigger: str) -> bool:
    """Note that a complete read found the copy true. False when that copy is gone meanwhile. Raises LeaseLost."""
    outcome = run_script(_NOTE_UNCHANGED, _COPY_AND_LOCK_KEYS, [token, fence, generation, trigger])
    if outcome == -1:
        raise LeaseLost
    return bool(outcome == 1)


def note_failure(code: str, error: str, trigger: str) -> int:
    """Note a failed sync; returns how many have failed in a row."""
    return int(run_script(_NOTE_FAILURE, [keys.SYNC], [code, error, trigger]))


def write_instance(instance: Instance, *, read_began_ms: int | None = None) -> bool:
    """Write one instance into the current generation; True when that was a visible change.

    A reader gives `read_began_ms` (of Redis's clock), so that what it read never covers what was written after that; an
    action leaves it out.
    """
    is_moving = instance.group in {"starting", "stopping"}
    return _write(instance.id, encode(instance), read_began_ms, is_moving)


def remove_instance(instance_id: str, *, read_began_ms: int | None = None) -> bool:
    """Take one instance out of the current generation: Novita itself said that it doesn't exist."""
    return _write(instance_id, b"", read_began_ms, is_moving=False)


def _write(instance_id: str, encoded: bytes, read_began_ms: int | None, is_moving: bool) -> bool:
    began = "" if read_began_ms is None else read_began_ms
    args = [instance_id, encoded, _end(datetime.now(UTC)), began, int(is_moving), TOUCHED_SECONDS]
    return bool(run_script(_WRITE_INSTANCE, [*_COPY_KEYS, keys.FENCE], args))


def clear() -> int:
    """Delete the copy, by the names of its keys; returns how many instances it held. The lock stays."""
    return int(run_script(_CLEAR, _COPY_KEYS, []))


def read_state() -> State:
    answer = run_script(_READ_STATE, [keys.CURRENT, keys.REVISION, keys.SYNC, keys.MOVING, keys.LEASE, keys.WORKER], [])
    now, generation, revision, size, flat, moving, lease, lease_ms, has_worker = answer
    sync = {field.decode("utf-8", "replace"): value for field, value in _pairs(flat)}
    as_of = _to_int(sync.get("as_of"))
    has_copy = generation != b"" and as_of is not None
    return State(
        now=_to_time(int(now)),
        freshness=_measure(int(now), as_of) if has_copy and as_of is not None else Freshness(),
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
    """Note that a worker works; it counts as up for a while from then on."""
    with redis_errors():
        get_redis().set(keys.WORKER, "up", ex=WORKER_SECONDS)


def describe() -> dict[str, Any]:
    """Return the figures of GET /api/cache/stats."""
    state = read_state()
    lease = {**state.lease, "endsInSeconds": state.lease_seconds} if state.lease is not None else None
    return {
        "size": state.size,
        "bytes": _measure_bytes(state.generation) if state.generation is not None else 0,
        "generation": state.generation,
        "revision": state.revision,
        "ageSeconds": state.freshness.age_seconds,
        "notModified": state.not_modified,
        "lease": lease,
    }


def _measure_bytes(generation: int) -> int | None:
    """Return the memory that a generation takes, estimated from a sample of it; None where Redis doesn't tell."""
    try:
        with redis_errors():
            size = get_redis().memory_usage(f"{keys.GENERATION}{generation}", samples=100)
    except CacheUnavailable as exc:
        log.debug("redis doesn't tell how large the copy is: %s", exc)
        return None
    return int(size) if size is not None else None


def find_eviction_policy() -> str | None:
    """Return Redis's `maxmemory-policy`; None where Redis doesn't tell."""
    with redis_errors():
        info: dict[str, Any] = get_redis().info("memory")
    return info.get("maxmemory_policy")


def _parse_lease(value: bytes) -> dict[str, Any] | None:
    if not value:
        return None
    try:
        lease = json.loads(value)
    except ValueError:
        lease = None
    if not isinstance(lease, dict):
        return {}
    return {name: lease[name] for name in ("host", "pid", "trigger", "since") if name in lease}


def _pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _to_int(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None


def _to_time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _find_time(value: bytes | None) -> datetime | None:
    number = _to_int(value)
    return _to_time(number) if number is not None else None


def _measure(now_ms: int, as_of_ms: int) -> Freshness:
    return Freshness(_to_time(as_of_ms), max(0, now_ms - as_of_ms) / 1000)
