"""Tests whether the database can be written by a real write: a full disk and a read-only file answer each SELECT."""

import hashlib
import logging
import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from instances.fallback import schema
from instances.models import Operation

log = logging.getLogger(__name__)

WAIT_SECONDS: Final[float] = settings.DATABASE_WAIT_SECONDS
REMEMBERED_SECONDS: Final[float] = settings.DATABASE_REMEMBERED_SECONDS
# The record of a stop of 1,000 instances is smaller.
NEEDED_BYTES: Final = 512 * 1024

_SILENT: Final = "it doesn't answer"
# Part of the database's error → the reason in our words.
_REASONS: Final = {
    "readonly": "it is read-only",
    "read-only": "it is read-only",
    "full": "its disk is full",
    "locked": "another program has locked it",
    "no such table": "its tables are missing: run manage.py migrate",
    "does not exist": "its tables are missing: run manage.py migrate",
    "malformed": "its file is damaged",
    "unable to open": "its file can't be opened",
    "not a database": "its file is damaged",
}


class _Probe:
    """One test write, in its own thread: a database that hangs must not block the caller."""

    def __init__(self) -> None:
        self.began_at = time.monotonic()
        self.trouble: str | None = None
        self.unapplied: list[str] | None = None
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> str:
        """Return the reason why the write failed; "" when it succeeded."""
        self._thread.join(seconds)
        return _SILENT if self.trouble is None else self.trouble

    def _run(self) -> None:
        try:
            self.unapplied = _read_unapplied()
            self.trouble = _try_to_write(is_ours=True)
        finally:
            connection.close()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()


_lock = threading.Lock()
_last: _Probe | None = None


def find_trouble(*, max_age_seconds: float = 0) -> str:
    """Return why the database can't be written, in a few words; "" when a write has just succeeded."""
    if connection.in_atomic_block:
        # Another thread's write would wait for this transaction.
        return _try_to_write()
    return _probe(max_age_seconds).wait(WAIT_SECONDS)


def find_state(wait_seconds: float) -> tuple[str, list[str] | None]:
    """Return the trouble of the last few seconds, and the migrations of this code that the database lacks.

    These are None when the database can't tell them within the time.
    """
    if connection.in_atomic_block:
        return _try_to_write(), _read_unapplied()
    probe = _probe(REMEMBERED_SECONDS)
    return probe.wait(wait_seconds), probe.unapplied


def _probe(max_age_seconds: float) -> _Probe:
    """Return the last test write if it is young enough or still running; otherwise begin one."""
    global _last
    with _lock:
        probe = _last
        is_old = probe is None or time.monotonic() - probe.began_at > max_age_seconds
        # While one write hangs, no other one is begun.
        if probe is None or (is_old and not probe.is_running):
            probe = _last = _Probe()
        return probe


def _read_unapplied() -> list[str] | None:
    try:
        return schema.list_unapplied()
    except DatabaseError as exc:
        log.debug("migrations: %s", exc)
        return None


def _try_to_write(*, is_ours: bool = False) -> str:
    """Write through the probe's own connection (`is_ours`), or through a shared one."""
    try:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                if is_ours:
                    cursor.execute(f"PRAGMA busy_timeout = {int(WAIT_SECONDS * 800)}")
                # This writes one page of the file. Nothing else uses that number.
                cursor.execute(f"PRAGMA user_version = {int(time.time() * 10) & 0x7FFFFFFF}")
            else:
                _write_to_postgresql()
        Operation.objects.exists()
    except DatabaseError as exc:
        log.debug("database: %s", exc)
        return explain(exc)
    return _find_full_disk()


def _write_to_postgresql() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '1500ms'")
        cursor.execute("SET LOCAL statement_timeout = '1500ms'")
        cursor.execute("UPDATE django_migrations SET name = name WHERE id = (SELECT min(id) FROM django_migrations)")


def _find_full_disk() -> str:
    """Check the free space of SQLite's disk: pages already allocated accept a small write on a full disk, too."""
    path = Path(str(settings.DATABASES["default"].get("NAME", "")))
    if connection.vendor != "sqlite" or not path.is_absolute():
        return ""
    try:
        disk = os.statvfs(path.parent)
    except OSError as exc:
        log.debug("database's disk: %s", exc)
        return ""
    return "its disk is full" if disk.f_bavail * disk.f_frsize < NEEDED_BYTES else ""


@cache
def _read_id() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(applied) FROM django_migrations")
        (moment,) = cursor.fetchone()
    return hashlib.sha256(str(moment).encode()).hexdigest()[:10]


def find_id() -> str:
    """Return an id of this database, from the moment of its first migration; "" while the database can't be read."""
    try:
        return _read_id()
    except DatabaseError as exc:
        log.debug("database: %s", exc)
        return ""


def explain(error: DatabaseError) -> str:
    """Return the meaning of a database's error in a few words; its own text may contain hosts and users."""
    text = str(error).lower()
    return next((reason for word, reason in _REASONS.items() if word in text), "it can't be used")
