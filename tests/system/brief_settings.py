"""The quick settings with an early answer to a request for an operation."""

from tests.system.quick_settings import *  # noqa: F403 - all settings, with changes below

OPERATION_ANSWER_SECONDS = 4.0
