"""Lets a restore see each process of the service, also one that nobody has used lately.

SQLite: each holds a shared lock on a file beside the database, whatever becomes of the database. PostgreSQL: each keeps
a connection open. Both end with the process, however it ends.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from django.db import DatabaseError, InterfaceError, connection

from instances.errors import BackupRefused
from novita_site.private_files import FILE_MODE, find_database

log = logging.getLogger(__name__)

# Shorter than PostgreSQL's time for idle connections (novita_site.postgresql).
PAUSE_SECONDS: Final = 5.0


def begin() -> None:
    """Hold the database from now on until this process ends."""
    # In a thread, since the lock waits for the end of a restore, and a connection for the server.
    threading.Thread(target=_hold, name="database-holder", daemon=True).start()


def _hold() -> None:
    file = find_database()
    if file:
        _hold_file(file)
        return
    while connection.vendor == "postgresql":
        keep_open()
        time.sleep(PAUSE_SECONDS)


def _hold_file(file: Path) -> None:
    try:
        fcntl.flock(_open_lock(file), fcntl.LOCK_SH)
    except OSError as exc:
        log.warning("a restore will not see this process: %s", exc)


def _open_lock(file: Path) -> int:
    return os.open(file.with_name(f".{file.name}.in-use"), os.O_CREAT | os.O_RDWR, FILE_MODE)


def keep_open() -> None:
    """Open this thread's connection, or use it. A broken one is replaced the next time."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError) as exc:
        # Others report that the database is away.
        log.debug("no connection is held: %s", exc)
        connection.close()


def make_refusal() -> BackupRefused:
    return BackupRefused(
        "Other processes have the database open.",
        suggestion="End the web processes and workers (and tools such as dbshell), then try again.",
    )


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Take the lock alone for the block. Raises BackupRefused while a process of the service, or another restore, runs.

    A process that begins during the block is not delayed: the restore finds its open database.
    """
    number = _open_lock(file)
    try:
        _lock_alone(number)
        yield
    finally:
        os.close(number)


def _lock_alone(number: int) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise make_refusal() from exc
