"""The settings with short pauses between two looks for due work."""

from novita_site.settings import *  # noqa: F403 - all settings, with changes below

OPERATION_PAUSE_SECONDS = 0.5
WORKER_TICK_SECONDS = 0.5
WORKER_SIGN_SECONDS = 6
NOVITA_FIRST_PAUSE_SECONDS = 0.1
DATABASE_REMEMBERED_SECONDS = 1.0
OUTAGE_QUIET_SECONDS = 3.0
