"""The signed POST to a URL that is stored encrypted, by the Standard Webhooks specification."""

from datetime import datetime

from cryptography.fernet import InvalidToken
from django.conf import settings
from django.utils import timezone
from standardwebhooks import Webhook

from instances.notifications import receivers, sealing
from instances.notifications.attempts import Outcome
from instances.novita.client import USER_AGENT


def post(sealed_url: str, message_id: str, payload: str) -> Outcome:
    """Send a payload once. Raises ShuttingDown."""
    try:
        receiver = receivers.read_url(sealing.unseal(sealed_url))
        if not settings.WEBHOOK_SECRET:
            return Outcome(error="WEBHOOK_SECRET is not set.")
        status = receivers.post(receiver, make_headers(message_id, timezone.now(), payload), payload.encode())
    except InvalidToken:
        return Outcome(error="SECRET_KEY has changed, so the stored URL can't be decrypted.")
    except (receivers.RefusedURL, receivers.NotDelivered) as exc:
        return Outcome(error=str(exc))
    if 200 <= status < 300:
        return Outcome(status)
    hint = ", a redirect, which is not followed" if 300 <= status < 400 else ""
    return Outcome(status, f"The receiver answered HTTP {status}{hint}.")


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
