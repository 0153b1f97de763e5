"""How a synchronization writes the inventory: a generation aside, in parts, which one script makes the current one."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

from instances import lua
from instances import redis_client as keys
from instances.errors import CacheUnavailable, LeaseLost
from instances.inventory.lease import Lease
from instances.inventory.store import MARKER
from instances.redis_client import DRAFT_SECONDS, ROWS_AT_ONCE, get_redis, redis_errors

log = logging.getLogger(__name__)

_PUBLISH: Final = lua.load(__file__, "publish")
_NOTE_UNCHANGED: Final = lua.load(__file__, "note_unchanged")
_DROP_DRAFT: Final = lua.load(__file__, "drop_draft")


@dataclass(frozen=True)
class Source:
    """The synchronization that writes: its lease, and what triggered it."""

    lease: Lease
    trigger: str

    @property
    def fence(self) -> int:
        return self.lease.fence

    def to_args(self) -> dict[str, Any]:
        lease = self.lease
        return {
            "token": lease.token,
            "fence": lease.fence,
            "lease_history": lease.history,
            "as_of": lease.began_ms,
            "trigger": self.trigger,
        }


def publish(rows: Mapping[str, bytes], moving: Collection[str], source: Source) -> int | None:
    """Make a listing the current one. `rows` maps ids to sealed instances, `moving` has the ids of those that move.

    Return its revision; None when the revision also has instances that were written since the synchronization began.
    Raises LeaseLost and CacheUnavailable. Then readers keep the previous listing, or get the new one if only Redis's
    answer was lost.
    """
    generation = f"{keys.GENERATION}{source.fence}"
    try:
        with redis_errors():
            fields: Iterator[tuple[str | bytes, bytes]] = chain([(MARKER, b"%d" % keys.FORMAT)], rows.items())
            while part := dict(islice(fields, ROWS_AT_ONCE)):
                _write_part(generation, "hset", mapping=part)
            _write_moving(moving, source)
        outcome, revision, carried = _repeat(_PUBLISH, source, size=len(rows) + 1)
    except CacheUnavailable:
        if _drop_draft(source.fence):
            return None
        raise
    if outcome != 1:
        _drop_draft(source.fence)
        raise LeaseLost if outcome == -1 else CacheUnavailable("Redis lost a part of the new inventory.")
    return None if carried else int(revision)


def note_unchanged(generation: int, moving: Collection[str], source: Source) -> bool:
    """Record that a complete read found no difference. Return False if that generation is gone. Raises LeaseLost."""
    with redis_errors():
        _write_moving(moving, source)
    outcome, *_ = _repeat(_NOTE_UNCHANGED, source, generation=generation)
    if outcome == -1:
        raise LeaseLost
    return bool(outcome == 1)


def _write_moving(moving: Iterable[str], source: Source) -> None:
    ids = iter(moving)
    while part := list(islice(ids, ROWS_AT_ONCE)):
        _write_part(f"{keys.MOVING}:{source.fence}", "sadd", *part)


def _write_part(key: str, command: str, *args: Any, **options: Any) -> None:
    """Write a part of a draft, which expires unless it is published."""
    with get_redis().pipeline(transaction=True) as pipeline:
        getattr(pipeline, command)(key, *args, **options)
        pipeline.expire(key, DRAFT_SECONDS)
        pipeline.execute()


def _repeat(script: lua.Script, source: Source, **given: Any) -> tuple[int, bytes, int]:
    """Call a script until it has carried over everything that was written since the synchronization began.

    Return its outcome, the revision, and how many instances were carried over.
    """
    since, carried = b"%d" % source.fence, 0
    while True:
        outcome, answer, count = script(**source.to_args(), since=since, **given)
        carried += count
        if outcome != 0:
            return outcome, answer, carried
        if answer == since:
            raise CacheUnavailable("Redis has damaged values.", suggestion="POST /api/cache/clear, then synchronize.")
        since = answer


def _drop_draft(fence: int) -> bool:
    """Delete an unpublished generation. Return True if it is published: Redis's answer was lost."""
    try:
        return bool(_DROP_DRAFT(fence=fence))
    except CacheUnavailable as exc:
        log.debug("draft not deleted, it expires in %s s: %s", DRAFT_SECONDS, exc)
        return False
