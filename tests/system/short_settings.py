"""The settings with short deadlines for slow clients."""

from novita_site.settings import *  # noqa: F403 - all of them, and then some shorter

HTTP_HEAD_SECONDS = 2.0
HTTP_BODY_SECONDS = 3.0
HTTP_SEND_SECONDS = 4.0
