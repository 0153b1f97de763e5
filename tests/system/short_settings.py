"""The settings with short deadlines for slow clients."""

from novita_site.settings import LOGGING
from tests.system.quick_settings import *  # noqa: F403 - all settings, with changes below

HTTP_HEAD_SECONDS = 2.0
HTTP_BODY_SECONDS = 3.0
HTTP_SEND_SECONDS = 2.0

LOGGING["filters"]["once_a_minute"]["seconds"] = 3
