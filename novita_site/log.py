"""How the log reads: one line an event, each with the id of its request.

Nobody writes a line of it by a name or an error that holds a line break.
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


class OnceAMinute(logging.Filter):
    """Lets one line of each kind through, and after a minute one with the number of those that followed.

    A kind is a way in which requests are refused, by Django, gunicorn or us (a line with `extra={"rejection": …}`).
    Anybody can send many of these, so the line is short, too. An error of the service is a kind of its own by its
    message and its place; the first is complete. All other lines pass.
    """

    def __init__(self, seconds: float = 60) -> None:
        super().__init__()
        self._seconds = seconds
        self._lock = threading.Lock()
        # When the line of a kind was let through, and how many followed.
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
            # Twice the time: the timer of a kind is not there any more, in a process that was forked since.
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
    """Return the kind of refusal that a line tells of; "" when it tells of none."""
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
    """Return what an error with a traceback has in common with its repetitions; "" for a line without one."""
    if not record.exc_info or not record.exc_info[0]:
        return ""
    frames = traceback.extract_tb(record.exc_info[2])
    place = " ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
    # Django's has the request's address in it, which anybody makes up.
    message = str(record.msg) if record.name == "django.request" else record.getMessage()
    return f"{record.name} {message} {record.exc_info[0].__name__} {place}"
