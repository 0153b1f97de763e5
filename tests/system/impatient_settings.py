"""The quick settings with claims that a dead process loses soon, and stops that are soon requested again."""

from tests.system.quick_settings import *  # noqa: F403 - all settings, with changes below

OPERATION_CLAIM_SECONDS = 5.0
OPERATION_PATIENCE_SECONDS = 5.0
