"""The settings with every logger at DEBUG: what is said to nobody else is said here."""

from novita_site.settings import *  # noqa: F403 - all of them, and then some louder
from novita_site.settings import LOGGING

LOGGING["root"]["level"] = "DEBUG"
for name in ("celery", "django.db.backends", "kombu", "requests", "urllib3"):
    LOGGING["loggers"].setdefault(name, {})
for logger in LOGGING["loggers"].values():
    logger["level"] = "DEBUG"
# Its lines about each 4xx and 5xx are kept out otherwise.
LOGGING["loggers"]["django.request"]["filters"] = []
