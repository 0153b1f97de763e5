"""The format of the log: one line per event, with the id of the request.

Line breaks in names and errors are escaped, so no outside text can forge a line.
"""

import json
import logging
import threading
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime

# The id of the request that this thread answers; "-" outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="-")
MAX_REJECTION_LENGTH = 200


def _escape(text: str, kept: str = "") -> str:
    """Escape unprintable characters as Python does: a line break as \\n."""
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
    """An event as a JSON object in ASCII, so that half a surrogate breaks no parser."""

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
    """Drops Django's line for each 4xx and 5xx answer. Our own log lines report the cause once, not for each poll."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.exc_info is not None and record.exc_info[0] is not None


class OnceAMinute(logging.Filter):
    """Passes the first line of each kind, and after a minute one line with the number of repetitions.

    A kind is a reason why Django, gunicorn or our code refused a request (`extra={"rejection": …}`). Anybody can send
    many such requests, so the line is also short. An error of the service is a kind by its message and place; its first
    line is complete. All other lines pass.
    """

    def __init__(self, seconds: float = 60) -> None:
        super().__init__()
        self._seconds = seconds
        self._lock = threading.Lock()
        # Kind → when its line passed, and the number of repetitions.
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        rejection = _find_rejection(record)
        kind = rejection or _find_error(record)
        if not kind:
            return True
        if rejection:
            record.msg, record.args = record.getMessage()[:MAX_REJECTION_LENGTH], None
            record.exc_info = record.exc_text = None
        now = time.monotonic()
        with self._lock:
            began_at, count = self._kinds.get(kind, (0.0, 0))
            # Twice the time, because a forked process has lost the timer.
            if kind in self._kinds and now - began_at < 2 * self._seconds:
                self._kinds[kind] = (began_at, count + 1)
                return False
            self._kinds[kind] = (now, 0)
        timer = threading.Timer(self._seconds, self._count, [kind, record.name, record.levelno, record.getMessage()])
        timer.daemon = True
        timer.start()
        return True

    def _count(self, kind: str, name: str, level: int, message: str) -> None:
        with self._lock:
            _, count = self._kinds.pop(kind, (0.0, 0))
        if count:
            words = "%d more like this in %g s: %s"
            logging.getLogger(name).log(level, words, count, self._seconds, message, extra={"is_count": True})


def _find_rejection(record: logging.LogRecord) -> str:
    """Return the kind of refusal that a line reports; "" when it reports none."""
    if hasattr(record, "is_count"):
        return ""
    if hasattr(record, "rejection"):
        return f"{record.name} {record.rejection}"
    if record.name.startswith("django.security."):
        return record.name
    if record.name == "gunicorn.error" and record.getMessage().startswith("Invalid request"):
        return record.name
    return ""


def _find_error(record: logging.LogRecord) -> str:
    """Return the kind of an error with a traceback; "" for a line without a traceback."""
    if not record.exc_info or not record.exc_info[0]:
        return ""
    frames = traceback.extract_tb(record.exc_info[2])
    place = " ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
    # Django's message holds the request's path, which any client can choose.
    message = str(record.msg) if record.name == "django.request" else record.getMessage()
    return f"{record.name} {message} {record.exc_info[0].__name__} {place}"
