"""The format of the log: one line per event, with the id of the request.

Line breaks in names and errors are escaped, so no outside text can forge a line. An event's figures are `Fields`: as
text `key=value` at the end of the line, as JSON fields of the object.
"""

import json
import logging
import re
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

MAX_REJECTION_LENGTH = 200
# Fields of every event, which no other may replace.
_OWN_FIELDS: Final = frozenset({"timestamp", "level", "logger", "requestId", "traceparent", "message", "exception"})
_PLAIN: Final = re.compile(r"[^\s'\"=]+")


@dataclass(frozen=True, slots=True)
class Ids:
    """The id of a request, and the position in a trace that its proxy gave."""

    request_id: str = "-"
    traceparent: str = ""

    def get_headers(self) -> dict[str, str]:
        """Return the headers that tell the client."""
        headers = {"X-Request-Id": self.request_id}
        return {**headers, "traceparent": self.traceparent} if self.traceparent else headers


# The ids of the request that this thread answers.
_NOT_IN_A_REQUEST: Final = Ids()
_ids: ContextVar[Ids] = ContextVar("ids", default=_NOT_IN_A_REQUEST)


@contextmanager
def bound(ids: Ids) -> Iterator[None]:
    """Put the ids on each line that the block logs."""
    token = _ids.set(ids)
    try:
        yield
    finally:
        _ids.reset(token)


class Fields:
    """The figures of an event, as the last argument of its message: `log.info("stopped%s", Fields(id="a"))`."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __str__(self) -> str:
        return "".join(f" {name}={_show(value)}" for name, value in self.values.items())


def _show(value: Any) -> str:
    text = str(value)
    return text if not isinstance(value, str) or (text.isprintable() and _PLAIN.fullmatch(text)) else repr(text)


def _escape(text: str, kept: str = "") -> str:
    """Escape unprintable characters as Python does: a line break as \\n."""
    return "".join(char if char.isprintable() or char in kept else repr(char)[1:-1] for char in text)


class RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        ids = _ids.get()
        record.ids, record.request_id = ids, ids.request_id
        return True


class LineFormatter(logging.Formatter):
    """An event as a line for people, its traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        return _escape(super().format(record))


class JsonFormatter(logging.Formatter):
    """An event as a JSON object in ASCII, so that half a surrogate breaks no parser."""

    def format(self, record: logging.LogRecord) -> str:
        ids: Ids = getattr(record, "ids", Ids())
        message, fields = _split(record)
        event = make_event(record.levelname, record.name, message, ids, record.created)
        event |= {name: value for name, value in fields.items() if name not in _OWN_FIELDS}
        if record.exc_info:
            event["exception"] = _escape(self.formatException(record.exc_info), kept="\n")
        return json.dumps(event, default=str)


def to_json(line: str, level: str, source: str) -> str:
    """Return a line of other output as an event; a line of the log is one already."""
    if line.startswith('{"timestamp": '):
        return line
    return json.dumps(make_event(level, source, line, _NOT_IN_A_REQUEST, time.time()))


def log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log an error that ends the process or a thread as one event (for sys.excepthook)."""
    words = "ended by an error" if issubclass(kind, Exception) else f"ended by {kind.__name__}"
    logging.getLogger("novita_site").critical(words, exc_info=error)


def make_event(level: str, logger: str, message: str, ids: Ids, moment: float) -> dict[str, Any]:
    """Return an event with the fields that each one has."""
    time_ = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"timestamp": time_, "level": level, "logger": logger, "requestId": ids.request_id}
    if ids.traceparent:
        event["traceparent"] = ids.traceparent
    return {**event, "message": _escape(message)}


def _split(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Return the message without its fields, and the fields. A text in them stays in one line of a terminal, too."""
    args = record.args if isinstance(record.args, tuple) else ()
    if not any(isinstance(arg, Fields) for arg in args):
        return record.getMessage(), {}
    fields: dict[str, Any] = {}
    for arg in args:
        if isinstance(arg, Fields):
            fields |= {name: _escape(one) if isinstance(one, str) else one for name, one in arg.values.items()}
    return str(record.msg) % tuple("" if isinstance(arg, Fields) else arg for arg in args), fields


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
