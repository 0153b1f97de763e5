"""The sync lock: one owner at a time, renewed while it works, with a fence against an owner that slept.

`cache.lock()` would not do: without a timeout a killed process holds it for ever, and it has no fence.
"""

import json
import logging
import os
import socket
import threading
import uuid
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from instances import lua, redis_client
from instances.errors import CacheUnavailable, SyncInProgress
from instances.instance import format_time

log = logging.getLogger(__name__)

TTL_SECONDS: Final = redis_client.LEASE_SECONDS
RENEW_SECONDS: Final = 10
RETRY_AFTER_SECONDS: Final = 5

_ACQUIRE: Final = lua.load(__file__, "acquire")
_RENEW: Final = lua.load(__file__, "renew")
_RELEASE: Final = lua.load(__file__, "release")
_TAKE_TURN: Final = lua.load(__file__, "take_turn")


class Lease:
    """The lock, held from `with acquire(…)` until the block ends or the holder dies or sleeps past the time to live.

    `token` is what stands in Redis. `fence` grows with each owner and is the number of the generation that this one may
    write. `began_ms` is Redis's time at which the lock was taken.
    """

    def __init__(self, token: str, fence: int, began_ms: int) -> None:
        self.token = token
        self.fence = fence
        self.began_ms = began_ms
        self._released = threading.Event()

    def __enter__(self) -> "Lease":
        threading.Thread(target=self._renew, name="lease", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        try:
            _RELEASE(token=self.token)
        except CacheUnavailable as exc:
            log.warning("lease not released, it ends by itself in %s s: %s", TTL_SECONDS, exc)

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                is_ours = _RENEW(token=self.token)
            except CacheUnavailable as exc:
                log.warning("lease not renewed: %s", exc)
                continue
            if not is_ours:
                # Whether the sync may still publish is decided by the publishing script alone.
                log.warning("lease lost")
                return


def acquire(trigger: str) -> Lease:
    """Take the lock without waiting. Raises SyncInProgress when another holds it, and CacheUnavailable."""
    token = json.dumps(
        {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "trigger": trigger,
            "since": format_time(datetime.now(UTC)),
        }
    )
    try:
        answer = _ACQUIRE(token=token)
    except CacheUnavailable:
        answer = _find_fence_of(token)
        if answer is None:
            raise
    if not answer:
        raise SyncInProgress(retry_after=RETRY_AFTER_SECONDS)
    fence, began_ms = answer
    return Lease(token, int(fence), int(began_ms))


def _find_fence_of(token: str) -> tuple[Any, int] | None:
    """Look whether the lock was taken although the answer was lost; it would be held until it expires otherwise."""
    with redis_client.redis_errors():
        owner, fence = redis_client.get_redis().mget(redis_client.LEASE, redis_client.FENCE)
    if owner != token.encode():
        return None
    return fence, round(redis_client.read_time().timestamp() * 1000)


def take_turn() -> bool:
    """Take the turn to read the moving instances; it ends by itself. False while another process has it."""
    return bool(_TAKE_TURN(owner=os.getpid()))


def end_turn(pause_seconds: float) -> None:
    """Let the next turn begin after a pause."""
    with redis_client.redis_errors():
        redis_client.get_redis().pexpire(redis_client.MOVING_TURN, int(pause_seconds * 1000))
