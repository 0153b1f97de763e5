"""Django's PostgreSQL backend with recovery after a restart of the server: `ENGINE = "novita_site.postgresql"`.

A connection that the server has closed is replaced before its next use. A statement that fails with a broken connection
is tried once more on a new one, outside of transactions and only if it can't take effect twice.
"""

import select
from typing import Any, Final

from django.db import InterfaceError, OperationalError
from django.db.backends.postgresql import base
from django.db.backends.utils import CursorWrapper

# A server that ends a connection says so, and has not carried the statement out: admin_shutdown, crash_shutdown,
# cannot_connect_now, idle_session_timeout.
_NOT_DONE: Final = {"57P01", "57P02", "57P03", "57P05"}
_IDLE_TIMEOUT_VERSION: Final = 140_000


class DatabaseWrapper(base.DatabaseWrapper):
    def close_if_health_check_failed(self) -> None:
        """Close a connection that the server has closed. Django calls this before each statement and transaction."""
        if self.connection is not None and not self.in_atomic_block and self._is_dropped():
            self.close()
        super().close_if_health_check_failed()

    def _is_dropped(self) -> bool:
        """Tell whether the server has closed the connection: an idle connection is readable only at its end."""
        connection = self.connection
        if connection.closed:
            return True
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _configure_connection(self, connection: Any) -> bool:
        """Set up a new connection; returns whether to commit that."""
        super()._configure_connection(connection)  # type: ignore[misc]  # not in its stubs
        # As long as SQLite waits for another's lock.
        connection.execute("SET lock_timeout = '5s'")
        # Each thread has a connection, and a thread without requests would keep it for ever.
        if connection.info.server_version >= _IDLE_TIMEOUT_VERSION:
            connection.execute("SET idle_session_timeout = '2min'")
        return True

    def make_cursor(self, cursor: Any) -> "RetryingCursor":
        return RetryingCursor(cursor, self)


class RetryingCursor(CursorWrapper):
    def _execute(self, sql: Any, params: Any, *ignored: Any) -> Any:
        try:
            return super()._execute(sql, params, *ignored)  # type: ignore[misc]  # likewise
        except (OperationalError, InterfaceError) as exc:
            if self.db.in_atomic_block or not self.db.connection.closed or not _is_repeatable(sql, exc):
                raise
        self.db.close()
        self.db.ensure_connection()
        with self.db.wrap_database_errors:
            self.cursor = self.db.create_cursor(getattr(self.cursor, "name", None))
        return super()._execute(sql, params, *ignored)  # type: ignore[misc]  # likewise


def _is_repeatable(sql: Any, error: Exception) -> bool:
    """Tell whether a statement can be sent again: it only reads, or the server said that it was not carried out."""
    text = sql if isinstance(sql, str) else ""
    is_read = text.startswith("SELECT ") and not text.rstrip().endswith("FOR UPDATE")
    return is_read or getattr(error.__cause__, "sqlstate", None) in _NOT_DONE
