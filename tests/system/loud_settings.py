"""The quick settings with every logger at DEBUG, so that the log contains everything that the code can log."""

from tests.system.quick_settings import *  # noqa: F403 - all settings, with changes below
from tests.system.quick_settings import LOGGING

LOGGING["root"]["level"] = "DEBUG"
for name in ("celery", "django.db.backends", "kombu", "requests", "urllib3"):
    LOGGING["loggers"].setdefault(name, {})
for logger in LOGGING["loggers"].values():
    logger["level"] = "DEBUG"
# By default, its lines about each 4xx and 5xx are left out.
LOGGING["loggers"]["django.request"]["filters"] = []
