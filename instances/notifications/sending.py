"""Sends the messages that are due, each with retries, and records every attempt. A dead channel delays no other."""

import json
from datetime import timedelta
from typing import Final

from django.conf import settings

from instances.instance import format_time
from instances.models import Event, Message
from instances.notifications import services, signed
from instances.notifications.attempts import Outcome, Queue

# Mail servers are slow.
QUEUE: Final = Queue(Message, "notification", Message.State.SENT, timedelta(seconds=120))
MAX_A_TICK: Final = 4


def list_due() -> list[int]:
    """Return the messages that are due, oldest first: at most one of a channel, and as many as a tick may take."""
    chosen: dict[tuple[int | None, str], int] = {}
    for pk, channel, service in QUEUE.find_due().values_list("pk", "channel_id", "service")[:200]:
        chosen.setdefault((channel, service), pk)
    return list(chosen.values())[:MAX_A_TICK]


def send(message_id: int) -> None:
    """Make one attempt if the message is due and unclaimed, and record the outcome."""
    QUEUE.attempt(message_id, _send)


def _send(message: Message) -> Outcome:
    if message.channel is not None:
        return signed.post(message.channel.sealed_url, message.message_id, make_payload(message.event))
    service = services.find(message.service)
    if service is None:
        return Outcome(error="NOTIFY_URLS no longer has this service.", is_final=True)
    try:
        services.send(service, message.event.title, write_text(message.event))
    except services.NotSent as exc:
        return Outcome(error=str(exc))
    return Outcome()


def make_payload(event: Event) -> str:
    """Return the body that a webhook receives, and that is signed."""
    document = {
        "type": event.kind,
        "timestamp": format_time(event.created_at),
        "data": {"title": event.title, "lines": event.lines, "url": make_address(event.path)},
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def write_text(event: Event) -> str:
    address = make_address(event.path)
    return "\n".join([*event.lines, *([address] if address else [])]) or event.title


def make_address(path: str) -> str | None:
    """Return the address of a page, for a message; None when PUBLIC_URL isn't set."""
    return f"{settings.PUBLIC_URL}{path or '/'}" if settings.PUBLIC_URL else None
