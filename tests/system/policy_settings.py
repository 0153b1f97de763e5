"""The settings with frequent evaluations of the policies, which may act at once."""

from tests.system.quick_settings import *  # noqa: F403 - all settings, with changes below

POLICIES_START_MINUTES = 0
POLICIES_EVALUATE_SECONDS = 1.0
METRICS_SLOT_SECONDS = 2
