"""Sends the messages that are due, each with retries, and records every attempt. A dead channel delays no other."""

import json
import logging
import random
import time
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from cryptography.fernet import InvalidToken
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from instances import clock
from instances.errors import ShuttingDown
from instances.instance import format_time
from instances.models import Event, Message, MessageAttempt
from instances.notifications import receivers, services, webhooks

log = logging.getLogger(__name__)

# Longer than an attempt takes; mail servers are slow.
CLAIM: Final = timedelta(seconds=120)
MAX_A_TICK: Final = 4


def list_due() -> list[int]:
    """Return the messages that are due, oldest first: at most one of a channel, and as many as a tick may take."""
    due = Message.objects.filter(_find_due(), state=Message.State.DUE).order_by("next_attempt_at", "pk")
    chosen: dict[tuple[int | None, str], int] = {}
    for pk, channel, service in due.values_list("pk", "channel_id", "service")[:200]:
        chosen.setdefault((channel, service), pk)
    return list(chosen.values())[:MAX_A_TICK]


def _find_due() -> Q:
    first = Q(tries__lte=3) & clock.find_due("next_attempt_at", CLAIM.total_seconds())
    return first | clock.find_due("next_attempt_at", 1.1 * webhooks.MAX_PAUSE_SECONDS)


def send(message_id: int) -> None:
    """Make one attempt if the message is due and unclaimed, and record the outcome."""
    now = timezone.now()
    due = Message.objects.filter(pk=message_id, state=Message.State.DUE)
    if not due.filter(_find_due()).update(next_attempt_at=now + CLAIM, tries=F("tries") + 1):
        return
    message = Message.objects.select_related("event", "channel").get(pk=message_id)
    began = time.monotonic()
    try:
        status, error = _attempt(message)
    except ShuttingDown:
        # It may have arrived. Another worker sends it again at once, with the same id.
        due.filter(tries=message.tries).update(next_attempt_at=now, tries=F("tries") - 1)
        return
    milliseconds = round(1000 * (time.monotonic() - began))
    log.info("notification %s to %s: %s", message.message_id, message.channel or message.service, error or "sent")
    is_gone = status == HTTPStatus.GONE or (message.channel is None and services.find(message.service) is None)
    pause = None if is_gone else webhooks.find_pause(message.tries)
    with transaction.atomic():
        MessageAttempt.objects.create(
            message=message, attempted_at=now, status=status, milliseconds=milliseconds, error=error
        )
        if not error:
            due.update(state=Message.State.SENT, next_attempt_at=None, ended_at=timezone.now())
            return
        own = due.filter(tries=message.tries)
        if pause is None:
            own.update(state=Message.State.DEAD, next_attempt_at=None, ended_at=timezone.now())
        else:
            own.update(next_attempt_at=timezone.now() + timedelta(seconds=pause * random.uniform(1.0, 1.1)))


def send_again(message: Message) -> bool:
    """Make a message that was given up due again, with all attempts. Returns False in any other state."""
    dead = Message.objects.filter(pk=message.pk, state=Message.State.DEAD)
    return bool(dead.update(state=Message.State.DUE, tries=0, next_attempt_at=timezone.now(), ended_at=None))


def _attempt(message: Message) -> tuple[int | None, str]:
    """Send a message. Returns the receiver's status, and a sentence on the failure, "" for a success."""
    if message.channel is None:
        service = services.find(message.service)
        if service is None:
            return None, "NOTIFY_URLS no longer has this service."
        try:
            services.send(service, message.event.title, write_text(message.event))
        except services.NotSent as exc:
            return None, str(exc)[:200]
        return None, ""
    if not settings.WEBHOOK_SECRET:
        return None, "WEBHOOK_SECRET is not set."
    body = make_payload(message.event)
    try:
        receiver = receivers.read_url(webhooks.unseal(message.channel.sealed_url))
        headers = webhooks.make_headers(message.message_id, timezone.now(), body)
        status = receivers.post(receiver, headers, body.encode())
    except InvalidToken:
        return None, "SECRET_KEY has changed, so the stored URL can't be decrypted."
    except (receivers.RefusedURL, receivers.NotDelivered) as exc:
        return None, str(exc)[:200]
    if 200 <= status < 300:
        return status, ""
    return status, f"The receiver answered HTTP {status}."


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
