"""The quick settings with claims that a dead process loses soon."""

from tests.system.quick_settings import *  # noqa: F403 - all settings, with a change below

OPERATION_CLAIM_SECONDS = 5.0
