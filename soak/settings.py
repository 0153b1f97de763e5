"""The settings with policies that are evaluated often, and act from the start."""

from novita_site.settings import *  # noqa: F403 - all settings, with changes below

POLICIES_START_MINUTES = 0
POLICIES_EVALUATE_SECONDS = 2.0
