"""Records what a team is told, once for each channel that wants it. The worker sends the messages.

An event with the key of another one of the last hour is not told again.
"""

import logging
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from instances.fallback import standby
from instances.instance import clean_text
from instances.models import Channel, Event, EventKind, Message, WebhookDelivery, old
from instances.notifications import services

log = logging.getLogger(__name__)

REPEAT_AFTER: Final = timedelta(hours=1)
MAX_LINES: Final = 50
# Any number that nothing else locks (fallback/journal.py has another one).
_ADVISORY_LOCK: Final = 20261128


def tell(
    kind: EventKind, key: str, title: str, lines: Sequence[str] = (), path: str = "", *, is_repeated: bool = False
) -> Event | None:
    """Record an event and its messages; None when nobody is told, or was told within the hour.

    Raises nothing, since telling people is never in the way. Without a database, nothing is told.
    """
    if standby.is_used():
        return None
    try:
        with transaction.atomic():
            _take_turn()
            if not is_repeated and _was_told(kind, key):
                return None
            return _record(kind, key, title, lines, path)
    except DatabaseError as exc:
        log.warning("event not recorded: %s: %s", kind, exc)
        return None


def _take_turn() -> None:
    """Let processes that tell the same at the same moment do so one after the other, until the transaction ends.

    SQLite's transactions do so anyway.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])


def _was_told(kind: EventKind, key: str) -> bool:
    now = timezone.now()
    # An event in the future was recorded before the clock was set back.
    recent = Event.objects.filter(created_at__gt=now - REPEAT_AFTER, created_at__lte=now)
    return recent.filter(kind=kind, key=key[:200]).exists()


def is_heard(kind: EventKind) -> bool:
    """Tell whether any channel wants events of a kind. Raises DatabaseError."""
    return bool(_find_channels(kind) or _find_services(kind))


def _find_channels(kind: EventKind) -> list[Channel]:
    return [one for one in Channel.objects.filter(is_on=True) if _wants(one.kinds, kind)]


def _find_services(kind: EventKind) -> list[services.Service]:
    return [one for one in services.list_services() if _wants(one.kinds, kind)]


def _record(kind: EventKind, key: str, title: str, lines: Sequence[str], path: str) -> Event | None:
    channels, listed = _find_channels(kind), _find_services(kind)
    if not channels and not listed:
        return None
    shown = [clean_text(line, 500) for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        shown.append(f"… and {len(lines) - MAX_LINES} more.")
    event = Event.objects.create(kind=kind, key=key[:200], title=clean_text(title, 200), lines=shown, path=path[:200])
    messages = [Message(event=event, channel=one) for one in channels]
    messages += [Message(event=event, service=one.name) for one in listed]
    for message in messages:
        message.message_id = f"msg_{uuid.uuid4().hex}"
    Message.objects.bulk_create(messages)
    log.info("event %s is told to %d channels", kind, len(messages))
    return event


def _wants(kinds: Sequence[str] | frozenset[str], kind: EventKind) -> bool:
    return not kinds or kind in kinds or kind == EventKind.TEST


def forget_old() -> None:
    """Delete old events with their messages, and old webhook deliveries, unless something is still to be sent."""
    unsent = Event.objects.filter(messages__state=Message.State.DUE).values("pk")
    old.delete(old.list_old(Event.objects.exclude(pk__in=unsent), "created_at", settings.KEEP_MESSAGES_DAYS))
    ended = WebhookDelivery.objects.exclude(ended_at=None)
    old.delete(old.list_old(ended, "created_at", settings.KEEP_MESSAGES_DAYS))
