"""Our keys in Redis, as the tests name them."""

from django.conf import settings


def name_of(suffix: str) -> str:
    """Return the whole name of a key of this process's account; a pattern stays one."""
    return f"{settings.REDIS_KEY_TAG}:{suffix}"
