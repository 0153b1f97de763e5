"""Encrypts URLs for the database, because their path and query may be secret."""

import base64
import logging

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.utils.encoding import force_bytes

from instances.models import Channel, WebhookDelivery

log = logging.getLogger(__name__)


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
