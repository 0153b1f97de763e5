"""Which instances are protected from stops and restarts: by the database, or by its last known state.

The last known protections are kept in this process, in Redis and in a file. When none are known, a stop of everything
goes on with a warning: it is an emergency, and was requested for everything.
"""

import json
import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import DatabaseError, connections
from django.utils import timezone

from instances.fallback import kept, standby
from instances.models import Protection

log = logging.getLogger(__name__)

READ_SECONDS: Final = 2.0
# Unchanged protections are kept again, too: Redis may have been emptied meanwhile.
KEEP_EVERY: Final = timedelta(minutes=1)
_NAME: Final = "protections"


@dataclass(frozen=True)
class Known:
    """The protections at the time `at`."""

    at: datetime
    found: dict[str, Protection]


_last: Known | None = None
_kept_at = datetime.fromtimestamp(0, UTC)


def read() -> dict[str, Protection]:
    """Return the protections by instance. Raises DatabaseError."""
    at = timezone.now()
    found = {protection.instance_id: protection for protection in Protection.objects.all()}
    if not standby.is_used():
        _remember(Known(at, found))
    return found


def note_changed() -> None:
    """Keep the protections again after one was set or removed."""
    try:
        read()
    except DatabaseError as exc:
        log.warning("protections not kept for an outage of the database: %s", exc)


def _remember(known: Known) -> None:
    global _last, _kept_at
    if _last is not None and timedelta() < _last.at - known.at < KEEP_EVERY:
        # Another thread has read later. A longer time is a clock that was set back.
        return
    is_same = _last is not None and _describe(_last.found) == _describe(known.found)
    _last = known
    if not is_same or abs(known.at - _kept_at) > KEEP_EVERY:
        _kept_at = known.at
        kept.write(_NAME, json.dumps({"at": known.at.isoformat(), "protections": _describe(known.found)}))


def _describe(found: dict[str, Protection]) -> list[dict[str, Any]]:
    return [
        {
            "instanceId": one.instance_id,
            "name": one.name,
            "reason": one.reason,
            "protectedBy": one.protected_by,
            "protectedAt": one.protected_at.isoformat(),
        }
        for one in found.values()
    ]


def find_known() -> Known | None:
    """Return the newest known protections, of this process, Redis and the file."""
    known = [_last, *(_parse(text) for text in kept.read(_NAME))]
    return max(filter(None, known), key=lambda one: one.at, default=None)


def _parse(text: str) -> Known | None:
    try:
        document = json.loads(text)
        found = {
            str(one["instanceId"]): Protection(
                instance_id=str(one["instanceId"]),
                name=str(one["name"]),
                reason=str(one["reason"]),
                protected_by=str(one["protectedBy"]),
                protected_at=datetime.fromisoformat(one["protectedAt"]),
            )
            for one in document["protections"]
        }
        return Known(datetime.fromisoformat(document["at"]), found)
    except (ValueError, KeyError, TypeError) as exc:
        log.warning("the kept protections can't be read: %s", type(exc).__name__)
        return None


def read_in_time() -> dict[str, Protection] | None:
    """Return the database's protections; None when it doesn't answer within 2 s."""
    answer: list[dict[str, Protection]] = []

    def read_into_answer() -> None:
        try:
            answer.append(read())
        except DatabaseError as exc:
            log.debug("protections: %s", exc)
        finally:
            connections.close_all()

    thread = threading.Thread(target=read_into_answer, name="protections", daemon=True)
    thread.start()
    thread.join(READ_SECONDS)
    return answer[0] if answer else None


def find(instance_id: str) -> Protection | None:
    """Return an instance's protection; the last known one when the database can't be read."""
    try:
        return Protection.objects.filter(instance_id=instance_id).first()
    except DatabaseError as exc:
        log.warning("protection of %s can't be looked up: %s", instance_id, exc)
        known = find_known()
        return known.found.get(instance_id) if known else None
