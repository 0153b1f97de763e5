"""Signed delivery of an operation's result to the URL that a user gave, by the Standard Webhooks specification.

An operation has at most one delivery, and a delivery sends one event, repeated until it arrives or a day has passed.
The URL's path and query may be secret: they are encrypted in the database and appear in no log.
"""

import base64
import json
import logging
import random
import time
import uuid
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone
from django.utils.encoding import force_bytes
from standardwebhooks import Webhook

from instances import clock
from instances.errors import InvalidRequest, ShuttingDown
from instances.instance import format_time, to_usd
from instances.models import Channel, Operation, Target, WebhookAttempt, WebhookDelivery
from instances.notifications import receivers
from instances.novita.client import USER_AGENT
from novita_site.env import MAKE_WEBHOOK_KEY

log = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES: Final = 20_000
# Longer than an attempt takes. A killed attempt is repeated after this time.
CLAIM: Final = timedelta(seconds=60)
# A receiver that hangs blocks a thread for 10 s. With a tick every 2 s that is 20 of the worker's 32 threads.
MAX_A_TICK: Final = 4
FIRST_PAUSE_SECONDS: Final = 5.0
MAX_PAUSE_SECONDS: Final = 6 * 3600.0
GIVE_UP_SECONDS: Final = 24 * 3600.0


def check_url(url: str) -> None:
    """Raise InvalidRequest with the reason when the URL may not receive webhooks. Looks its host up."""
    try:
        receivers.check_addresses(receivers.read_url(url))
    except receivers.RefusedURL as exc:
        raise InvalidRequest(fields={"webhookUrl": str(exc)}) from exc
    if not settings.WEBHOOK_SECRET:
        sentence = f"Webhooks are off until WEBHOOK_SECRET is set. Create one: {MAKE_WEBHOOK_KEY}"
        raise InvalidRequest(fields={"webhookUrl": sentence})


# --- The record


def register(operation: Operation, url: str) -> None:
    """Store the URL for an operation's result. `check_url` has accepted the URL."""
    WebhookDelivery.objects.create(
        operation=operation,
        message_id=f"msg_{uuid.uuid4().hex}",
        receiver=receivers.read_url(url).origin,
        sealed_url=seal(url),
    )


def release(operation: Operation) -> None:
    """Store the event and make it due. Called in the transaction in which the operation ends."""
    waiting = WebhookDelivery.objects.filter(operation=operation, state=WebhookDelivery.State.WAITING)
    if waiting.exists():
        waiting.update(
            state=WebhookDelivery.State.DUE, payload=_make_payload(operation), next_attempt_at=timezone.now()
        )


def list_due() -> list[int]:
    """Return the deliveries that are due, oldest first, as many as one tick of the worker may take."""
    due = WebhookDelivery.objects.filter(_find_due(), state=WebhookDelivery.State.DUE)
    return list(due.order_by("next_attempt_at", "pk").values_list("pk", flat=True)[:MAX_A_TICK])


def _find_due() -> Q:
    """Return the condition for due deliveries. It holds after the clock was set back, too."""
    is_first_pause_over = Q(tries__lte=3) & clock.find_due("next_attempt_at", CLAIM.total_seconds())
    return is_first_pause_over | clock.find_due("next_attempt_at", 1.1 * MAX_PAUSE_SECONDS)


def send_again(delivery: WebhookDelivery) -> bool:
    """Make a delivery that was given up due again, with all attempts. Returns False in any other state."""
    dead = WebhookDelivery.objects.filter(pk=delivery.pk, state=WebhookDelivery.State.DEAD)
    return bool(dead.update(state=WebhookDelivery.State.DUE, tries=0, next_attempt_at=timezone.now(), ended_at=None))


def find_pause(tries: int) -> float | None:
    """Return the seconds between failed attempt number `tries` and the next; None after 24 h in all."""
    pauses = [min(FIRST_PAUSE_SECONDS * 2.0**number, MAX_PAUSE_SECONDS) for number in range(min(tries, 100))]
    return pauses[-1] if sum(pauses[:-1]) <= GIVE_UP_SECONDS else None


def seal(url: str) -> str:
    """Return a URL encrypted, for the database."""
    return _get_cipher().encrypt(url.encode()).decode()


def unseal(sealed_url: str) -> str:
    """Raises InvalidToken when SECRET_KEY has changed."""
    return _get_cipher().decrypt(sealed_url).decode()


def seal_again() -> None:
    """Encrypt with SECRET_KEY what SECRET_KEY_FALLBACKS encrypted, so that the previous keys can be removed."""
    cipher = _get_cipher()
    unsent = WebhookDelivery.objects.exclude(state=WebhookDelivery.State.DELIVERED)
    for rows in (Channel.objects.all(), unsent) if settings.SECRET_KEY_FALLBACKS else ():
        for pk, sealed_url in rows.values_list("pk", "sealed_url"):
            try:
                # Only if it is unchanged: somebody may enter another URL meanwhile.
                rows.filter(pk=pk, sealed_url=sealed_url).update(sealed_url=cipher.rotate(sealed_url).decode())
            except InvalidToken:
                log.warning("%s %d: the stored URL can't be decrypted by any key", rows.model._meta.verbose_name, pk)


def _get_cipher() -> MultiFernet:
    ciphers = []
    for key in [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"webhook url").derive(force_bytes(key))
        ciphers.append(Fernet(base64.urlsafe_b64encode(derived)))
    return MultiFernet(ciphers)


def _make_payload(operation: Operation) -> str:
    """Return the event as it is signed and sent. It stays below 20 kB with any number of targets and any texts."""
    counted = operation.targets.values_list("state").annotate(Count("pk")).order_by()
    counts = {**dict.fromkeys(Target.State.values, 0), **dict(counted)}
    settled = (Target.State.CONFIRMED, Target.State.SKIPPED)
    open_targets = operation.targets.exclude(state__in=settled).values_list("instance_id", "name", "state", "error")
    unconfirmed: list[dict[str, str]] = []
    data: dict[str, Any] = {
        "operationId": str(operation.pk),
        "kind": operation.kind,
        "state": operation.state,
        "success": operation.success,
        "result": _cut(operation.result, 500),
        "reason": _cut(operation.reason, 500),
        "savesPerHour": to_usd(operation.usd_per_hour) if operation.kind == "stop" else None,
        "costsPerHour": to_usd(operation.usd_per_hour) if operation.kind == "start" else None,
        "unknownPrices": operation.unknown_prices,
        "prepaid": operation.prepaid,
        "counts": counts,
        "unconfirmed": unconfirmed,
        "moreUnconfirmed": sum(counts.values()) - sum(counts[state] for state in settled),
        "url": f"{operation.origin}{settings.PATH_PREFIX}/api/operations/{operation.pk}",
    }
    event = {
        "type": "operation.finished",
        "timestamp": format_time(operation.finished_at or timezone.now()),
        "data": data,
    }
    room = MAX_PAYLOAD_BYTES - len(_dump(event).encode())
    # Each target takes more than 50 bytes.
    for instance_id, name, state, error in open_targets[: MAX_PAYLOAD_BYTES // 50]:
        target = {
            "instanceId": _cut(instance_id, 128),
            "name": _cut(name, 255),
            "state": state,
            "message": _cut(error, 200),
        }
        room -= len(_dump(target).encode()) + len(",")
        if room <= 0:
            break
        unconfirmed.append(target)
        data["moreUnconfirmed"] -= 1
    return _dump(event)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# --- The attempt


def deliver(delivery_id: int) -> None:
    """Make one attempt if the delivery is due and unclaimed, and store the outcome and the time of the next attempt."""
    now = timezone.now()
    due = WebhookDelivery.objects.filter(pk=delivery_id, state=WebhookDelivery.State.DUE)
    if not due.filter(_find_due()).update(next_attempt_at=now + CLAIM, tries=F("tries") + 1):
        return
    delivery = WebhookDelivery.objects.get(pk=delivery_id)
    began = time.monotonic()
    try:
        status, error = _attempt(delivery)
    except ShuttingDown:
        # It may have arrived. Another worker sends it again at once, with the same id.
        due.filter(tries=delivery.tries).update(next_attempt_at=now, tries=F("tries") - 1)
        return
    milliseconds = round(1000 * (time.monotonic() - began))
    log.info("webhook %s to %s: %s", delivery.message_id, delivery.receiver, error or f"HTTP {status}")
    pause = None if status == HTTPStatus.GONE else find_pause(delivery.tries)
    with transaction.atomic():
        WebhookAttempt.objects.create(
            delivery=delivery, attempted_at=now, status=status, milliseconds=milliseconds, error=error
        )
        if not error:
            due.update(state=WebhookDelivery.State.DELIVERED, next_attempt_at=None, ended_at=timezone.now())
            return
        # After a pause longer than its claim, this attempt must not overwrite a later one.
        own = due.filter(tries=delivery.tries)
        if pause is None:
            own.update(state=WebhookDelivery.State.DEAD, next_attempt_at=None, ended_at=timezone.now())
        else:
            own.update(next_attempt_at=timezone.now() + timedelta(seconds=pause * random.uniform(1.0, 1.1)))


def _attempt(delivery: WebhookDelivery) -> tuple[int | None, str]:
    """Send the event. Returns the receiver's status, and a sentence on the failure, "" for a success."""
    try:
        receiver = receivers.read_url(unseal(delivery.sealed_url))
        if not settings.WEBHOOK_SECRET:
            return None, "WEBHOOK_SECRET is not set."
        status = receivers.post(
            receiver, make_headers(delivery.message_id, timezone.now(), delivery.payload), delivery.payload.encode()
        )
    except InvalidToken:
        return None, "SECRET_KEY has changed, so the stored URL can't be decrypted."
    except (receivers.RefusedURL, receivers.NotDelivered) as exc:
        return None, str(exc)[:200]
    if 200 <= status < 300:
        return status, ""
    hint = ", a redirect, which is not followed" if 300 <= status < 400 else ""
    return status, f"The receiver answered HTTP {status}{hint}."


def make_headers(message_id: str, now: datetime, payload: str) -> dict[str, str]:
    """Return the headers of a request, with a signature per secret: the receiver may still have the previous secret."""
    signatures = [Webhook(secret).sign(message_id, now, payload) for secret in settings.WEBHOOK_SECRET]
    return {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
