"""A database in this process's memory that replaces the real one for a stop that the real one can't record.

The same code begins and advances an operation on both: inside `used()` a router sends its queries here. `journal`
copies the rows into the real database once that can be written.
"""

import contextvars
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, models, transaction

ALIAS: Final = "standby"
# Each process has its own. Since SQLite 3.36 the threads of a process share such a database with proper locks. With an
# older version a thread may find it locked; its next round then tries again.
_SHARED: Final = "file:/novita-standby-{}?vfs=memdb"
_SHARED_BEFORE_3_36: Final = "file:novita-standby-{}?mode=memory&cache=shared"
# Each database gets a new name, because after `forget` another thread may still have the old database open.
_numbers: Final = itertools.count()
_TABLES: Final = ("Operation", "Target", "Protection", "WebhookDelivery", "WebhookAttempt", "AuditEntry")

_is_used: contextvars.ContextVar[bool] = contextvars.ContextVar("standby", default=False)
_lock = threading.Lock()
# SQLite drops a database in memory when its last connection closes.
_anchor: sqlite3.Connection | None = None


class Router:
    """Sends the queries of an operation to the database that its thread uses."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return ALIAS if _is_used.get() and model.__name__ in _TABLES else None

    db_for_write = db_for_read

    def allow_relation(self, one: models.Model, other: models.Model, **hints: Any) -> bool | None:
        return True if _is_used.get() else None

    def allow_migrate(self, alias: str, app_label: str, **hints: Any) -> bool | None:
        return False if alias == ALIAS else None


@contextmanager
def used() -> Iterator[None]:
    """Send the block's queries about operations to the database in memory."""
    _prepare()
    token = _is_used.set(True)
    try:
        yield
    finally:
        _is_used.reset(token)


def is_used() -> bool:
    return _is_used.get()


def exists() -> bool:
    """Tell whether this process has used the database in memory."""
    return _anchor is not None


def atomic() -> transaction.Atomic:
    """Return a transaction in the database that this thread uses."""
    return transaction.atomic(using=ALIAS if _is_used.get() else DEFAULT_DB_ALIAS)


def carry(function: Callable[..., None], *args: Any) -> Callable[[], None]:
    """Return the function for a new thread, so that the thread uses the same database as this one."""
    return partial(contextvars.copy_context().run, function, *args)


def _prepare() -> None:
    global _anchor
    with _lock:
        if _anchor is not None:
            return
        name = _SHARED if sqlite3.sqlite_version_info >= (3, 36) else _SHARED_BEFORE_3_36
        name = name.format(next(_numbers))
        anchor = sqlite3.connect(name, uri=True, check_same_thread=False)
        # A row may refer to a row of the real database: a retry links the operation that it repeats.
        options = {"timeout": 5, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA foreign_keys = OFF"}
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}
        connections.settings[ALIAS] = connections.configure_settings({DEFAULT_DB_ALIAS: {}, ALIAS: database})[ALIAS]
        with connections[ALIAS].schema_editor() as editor:
            for table in _TABLES:
                editor.create_model(apps.get_model("instances", table))
        connections[ALIAS].close()
        _anchor = anchor


def forget() -> None:
    """Drop the database in memory, for a test."""
    global _anchor
    with _lock:
        if _anchor is not None:
            connections[ALIAS].close()
            del connections[ALIAS]
            del connections.settings[ALIAS]
            _anchor.close()
            _anchor = None
