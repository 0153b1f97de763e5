"""Logs once that the database or Redis is unavailable, and once that it is back, however many calls fail meanwhile.

Each process has its own view. Failures are reported by the code that would otherwise log each of them: the loops of the
worker and the refresher, and the answers to requests.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from instances.errors import CacheUnavailable

log = logging.getLogger(__name__)

QUIET_SECONDS: Final[float] = settings.OUTAGE_QUIET_SECONDS
# How many different reasons are logged during one outage.
MAX_REASONS: Final = 5
# Errors of the database and not of this program. PostgreSQL's "read-only transaction" is an InternalError.
DATABASE_ERRORS: Final[tuple[type[Exception], ...]] = (OperationalError, InterfaceError, InternalError)


class Outage:
    """The state of one store, as this process sees it."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.is_on = False
        self._reasons: set[str] = set()
        self._began_at = self._failed_at = 0.0
        self._failures = 0

    def note_failure(self, reason: str, detail: object = "") -> None:
        """Count a failed call, and log it if its reason is new."""
        with self._lock:
            now = self._clock()
            if not self.is_on:
                self.reset()
                self.is_on, self._began_at = True, now
            self._failed_at = now
            self._failures += 1
            is_new = reason not in self._reasons and len(self._reasons) < MAX_REASONS
            self._reasons.add(reason)
        if is_new:
            log.warning("%s is unavailable: %s", self._name, " ".join(f"{reason} {detail}".split()))

    def note_success(self, *, quiet_seconds: float = 0) -> None:
        """Log the end of an outage, when nothing has failed for so many seconds."""
        if not self.is_on:
            return
        with self._lock:
            now = self._clock()
            if not self.is_on or now - self._failed_at < quiet_seconds:
                return
            self.is_on = False
            seconds, failures = now - self._began_at, self._failures
        log.warning("%s is back after %.0f s; failed calls: %d", self._name, seconds, failures)


database = Outage("database")
redis = Outage("redis")


def note_database_error(error: Exception) -> None:
    database.note_failure(str(error).split("\n")[0][:300] or type(error).__name__)


def note_redis_error(error: "CacheUnavailable") -> None:
    redis.note_failure(error.message, error.__cause__ or "")


def watch_connection(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Watch a new connection. Receives Django's signal."""
    if _watch_statement not in connection.execute_wrappers:
        connection.execute_wrappers.append(_watch_statement)


def _watch_statement(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    result = execute(sql, params, many, context)
    database.note_success(quiet_seconds=QUIET_SECONDS)
    return result


class LoggedOnce(logging.Filter):
    """Reports an outage of the database once, instead of a line and a traceback for each failed request or task.

    Only records with an exception are filtered. A line that names a loss, such as an audit entry, has only its text.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DATABASE_ERRORS):
            note_database_error(error)
            return False
        return True
