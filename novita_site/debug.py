"""What helps to find a bug must not tell secrets: Django's page of a bug under DEBUG, and a library's log at DEBUG."""

import logging
import re
from collections.abc import ItemsView
from types import FrameType
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter


class ReportFilter(SafeExceptionReporterFilter):
    """The page of a bug shows where it was, and no values: any of them may be a key, a password or a URL with one."""

    # An address of Redis, of a database, of a receiver may have a password in it.
    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|URL|LOCATION|COOKIE", re.I)

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        return dict.fromkeys(request.POST, self.cleansed_substitute) if request else {}

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: FrameType) -> ItemsView[str, Any]:
        return {}.items()


class NoDebugFilter(logging.Filter):
    """Keeps the lines at DEBUG out, whatever level somebody sets: urllib3's quote each URL in full, a webhook's too."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG
