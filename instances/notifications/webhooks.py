"""An operation's webhook: its event, made when the operation ends, and sent to the URL that a user gave."""

import json
import logging
import uuid
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Count
from django.utils import timezone

from instances.errors import InvalidRequest
from instances.instance import format_time, to_usd
from instances.models import Operation, Target, WebhookDelivery
from instances.notifications import receivers, sealing, signed
from instances.notifications.attempts import Queue
from novita_site.env import MAKE_WEBHOOK_KEY

log = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES: Final = 20_000
# A receiver that hangs blocks a thread for 10 s. With a tick every 2 s that is 20 of the worker's 32 threads.
MAX_A_TICK: Final = 4
QUEUE: Final = Queue(WebhookDelivery, "webhook", WebhookDelivery.State.DELIVERED, timedelta(seconds=60))


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
        sealed_url=sealing.seal(url),
    )


def release(operation: Operation) -> None:
    """Store the event and make it due. Called in the transaction in which the operation ends."""
    waiting = WebhookDelivery.objects.filter(operation=operation, state=WebhookDelivery.State.WAITING)
    if waiting.exists():
        waiting.update(
            state=WebhookDelivery.State.DUE, payload=_make_payload(operation), next_attempt_at=timezone.now()
        )


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


# --- The attempts


def list_due() -> list[int]:
    """Return the deliveries that are due, oldest first, as many as one tick of the worker may take."""
    return list(QUEUE.find_due().values_list("pk", flat=True)[:MAX_A_TICK])


def deliver(delivery_id: int) -> None:
    QUEUE.attempt(delivery_id, lambda one: signed.post(one.sealed_url, one.message_id, one.payload))
