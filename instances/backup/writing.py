"""Writes a backup while the panel runs: the state of one moment."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection, transaction

from instances.backup import files, rows
from instances.errors import BackupFailed, BackupRefused
from novita_site.private_files import list_private

Tell = Callable[[str], None]


def write(path: Path, tell: Tell, *, replaces: bool = False) -> Mapping[str, int]:
    """Write the database to a new file. Return how many rows it has, by what they are.

    `tell` is called with the progress, many times a second. Raises BackupRefused and BackupFailed.
    """
    try:
        has_tables = rows.has_tables(DEFAULT_DB_ALIAS)
    except DatabaseError as exc:
        raise BackupFailed(f"{path} was not written: the database can't be used. {files.explain(exc)}") from exc
    if not has_tables:
        raise BackupRefused("The database has no tables.", suggestion="Check DATABASE_URL, or run manage.py migrate.")
    if path.resolve() in {own.resolve() for own, _ in list_private()}:
        # Running processes would go on writing to the replaced database, which nobody could open any more.
        raise BackupRefused(f"The panel itself uses {path}.", suggestion="Choose another name.")
    with files.created(path, replaces=replaces) as draft:
        if connection.vendor == "sqlite":
            _copy_file(draft, tell)
        else:
            _copy_rows(draft, tell)
        tell("checking the file")
        with closing(sqlite3.connect(draft)) as copy:
            files.check(copy)
        with files.opened(draft) as alias:
            return rows.count(alias)


def _copy_file(draft: Path, tell: Tell) -> None:
    """Copy SQLite's file, with what is still in its -wal file."""
    connection.ensure_connection()
    source: sqlite3.Connection = connection.connection
    with closing(sqlite3.connect(draft, isolation_level=None)) as copy:
        files.copy_database(source, copy, lambda done, total: tell(f"{100 * done // total} %"))
        # One file, which needs none beside it; without the logins of people, which are as good as passwords.
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("PRAGMA secure_delete = ON")
        copy.execute("DELETE FROM django_session")


def _copy_rows(draft: Path, tell: Tell) -> None:
    """Copy PostgreSQL's rows into tables of SQLite."""
    if not rows.is_current(DEFAULT_DB_ALIAS):
        raise BackupRefused("The database is of another version of the panel.", suggestion="Run manage.py migrate.")
    with files.opened(draft) as alias:
        call_command("migrate", database=alias, verbosity=0, interactive=False)
        with transaction.atomic(using=alias), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # What a migration has written is in the source, too.
            rows.empty(alias)
            rows.copy(DEFAULT_DB_ALIAS, alias, lambda count: tell(f"{count:,} rows"))
