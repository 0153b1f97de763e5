"""The settings with short pauses between two looks for due work."""

from novita_site.settings import *  # noqa: F403 - all settings, with changes below

OPERATION_PAUSE_SECONDS = 0.5
WORKER_TICK_SECONDS = 0.5
