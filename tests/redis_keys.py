"""The names of our keys in Redis, for tests."""

from django.conf import settings


def name_of(suffix: str) -> str:
    """Return the full name of a key, or of a pattern, of this process's account."""
    return f"{settings.REDIS_KEY_TAG}:{suffix}"
