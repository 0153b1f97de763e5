"""The lease of a synchronization: one owner at a time, renewed while it runs, with a fence against a suspended owner.

`cache.lock()` is not enough: without a timeout a killed process holds it forever, and it has no fence.
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
    """The lease, held from `with acquire(…)` until the block ends, or until it expires without a renewal.

    `token` is its value in Redis. `fence` grows with each owner, and is the number of the generation that this owner
    may write. `began_ms` is Redis's time at which the lease was taken. `history` names the server that gave it: nothing
    is published on a promoted replica, which may lack what this owner has read or written.
    """

    def __init__(self, token: str, fence: int, began_ms: int, history: str) -> None:
        self.token = token
        self.fence = fence
        self.began_ms = began_ms
        self.history = history
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
            log.warning("lease not released, it expires in %s s: %s", TTL_SECONDS, exc)

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                is_ours = _RENEW(token=self.token)
            except CacheUnavailable as exc:
                log.warning("lease not renewed: %s", exc)
                continue
            if not is_ours:
                # The publishing script alone decides whether the synchronization may still publish.
                log.warning("lease lost")
                return


def acquire(trigger: str) -> Lease:
    """Take the lease without waiting. Raises SyncInProgress when another process holds it, and CacheUnavailable."""
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
        # It may have been taken, and only Redis's answer was lost.
        answer = _ACQUIRE(token=token)
    if not answer:
        raise SyncInProgress(retry_after=RETRY_AFTER_SECONDS)
    fence, began_ms, history = answer
    return Lease(token, int(fence), int(began_ms), history.decode())


def take_turn() -> bool:
    """Take the turn to read the moving instances, which expires. Return False while another process has it."""
    return bool(_TAKE_TURN(owner=os.getpid()))


def end_turn(pause_seconds: float) -> None:
    """Allow the next turn after a pause."""
    redis_client.end_turn(redis_client.MOVING_TURN, pause_seconds)


def describe(value: bytes) -> dict[str, Any] | None:
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
