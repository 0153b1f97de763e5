"""How the log reads: one line an event, each with the id of its request.

Nobody writes a line of it by a name or an error that holds a line break.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

# The id of the request that this thread answers; "-" outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="-")


def _escape(text: str, kept: str = "") -> str:
    """Write what can't be printed as Python does: a line break as \\n."""
    return "".join(char if char.isprintable() or char in kept else repr(char)[1:-1] for char in text)


class RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class LineFormatter(logging.Formatter):
    """An event as a line for people, its traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        return _escape(super().format(record))


class JsonFormatter(logging.Formatter):
    """An event as a JSON object for programs, in ASCII: no parser stumbles over half a surrogate."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = {
            "timestamp": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "requestId": getattr(record, "request_id", "-"),
            "message": _escape(record.getMessage()),
        }
        if record.exc_info:
            event["exception"] = _escape(self.formatException(record.exc_info), kept="\n")
        return json.dumps(event)


class OnlyExceptions(logging.Filter):
    """Keeps Django's line for each 4xx and 5xx answer out: our own lines say what happened, once and not per poll."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.exc_info is not None and record.exc_info[0] is not None
