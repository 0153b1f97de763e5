"""No secrets in debugging aids: Django's error page under DEBUG, and the DEBUG log of libraries."""

import logging
import re
from collections.abc import ItemsView
from types import FrameType
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter


class ReportFilter(SafeExceptionReporterFilter):
    """Shows the place of an error without values: any value may be a key, a password or a URL that holds one."""

    # The URLs of Redis, databases and receivers may hold a password.
    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|URL|LOCATION|COOKIE", re.I)

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        return dict.fromkeys(request.POST, self.cleansed_substitute) if request else {}

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: FrameType) -> ItemsView[str, Any]:
        return {}.items()


class NoDebugFilter(logging.Filter):
    """Drops DEBUG lines at any log level: those of urllib3 hold whole URLs, including those of webhooks."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG
