"""The file of a backup: an SQLite database with the panel's tables, whatever database the panel uses.

A file appears under its name only when it is complete.
"""

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from instances.errors import BackupFailed, BackupRefused

# Django's name for a backup's file while it is open.
ALIAS: Final = "backup"
FULL: Final = "The disk is full."


# 4 MB: a step is short, and a disk of 100 MB/s has 25 steps a second to report.
STEP_PAGES: Final = 1024


@contextmanager
def created(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Give the block an empty file, readable by its owner only, which then gets its name.

    Raises BackupRefused when the name is taken, unless `replaces` and a file has it, and BackupFailed when the disk is
    full.
    """
    if not replaces and (path.exists() or path.is_symlink()):
        raise BackupRefused(f"{path} exists.", suggestion="Choose another name, or replace the file by --overwrite.")
    if path.exists() and not path.is_file():
        # A rename would replace a device, such as /dev/null.
        raise BackupRefused(f"{path} is not a file.", suggestion="Choose another name.")
    draft = None
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(number)
        draft = Path(name)
        yield draft
        _flush(draft)
        if replaces:
            draft.replace(path)
        else:
            _give_name(draft, path)
        _flush(path.parent)
    except (OSError, sqlite3.Error, DatabaseError) as exc:
        raise BackupFailed(f"{path} was not written. {explain(exc)}") from exc
    finally:
        if draft is not None:
            for suffix in ("", "-journal", "-wal", "-shm"):
                with suppress(OSError):
                    draft.with_name(draft.name + suffix).unlink()


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's names, would survive a power failure."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _give_name(draft: Path, path: Path) -> None:
    """Raises FileExistsError when the name was taken meanwhile."""
    try:
        # In contrast to a rename, a link replaces nothing.
        os.link(draft, path)
    except OSError as exc:
        if exc.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        # A file system without links, as on USB sticks.
        if path.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from exc
        draft.rename(path)


def explain(error: Exception) -> str:
    """Return what a failure of a file or of SQLite means."""
    is_full = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or "is full" in str(error)
    return FULL if is_full else f"{type(error).__name__}: {error}."


@contextmanager
def copied(path: Path, near: Path) -> Iterator[Path]:
    """Give the block a private copy of a backup's file, in the folder `near` if that exists.

    Raises BackupRefused unless the file is a whole database, and BackupFailed when the disk is full.
    """
    if not path.is_file():
        raise BackupRefused(f"{path} is not a file.", suggestion="Name the file that `manage.py backup` wrote.")
    folder = Path(tempfile.mkdtemp(prefix=".restore-", dir=near if near.is_dir() else None))
    try:
        copy = folder / "backup.sqlite3"
        copy.touch(mode=0o600)
        _copy_whole(path, copy)
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_whole(path: Path, copy: Path) -> None:
    try:
        # By SQLite and not by bytes: a copied database may have a part of its rows in a -wal file beside it.
        with (
            closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            check(source)
            copy_database(source, target)
    except (OSError, sqlite3.Error) as exc:
        reason = explain(exc)
        if reason == FULL:
            raise BackupFailed(f"Nothing was restored: there is no room for a copy in {copy.parent.parent}.") from exc
        raise BackupRefused(f"{path} can't be read. {reason}") from exc


def check(database: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError for a damaged database."""
    (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"the file is damaged: {found}")


def copy_database(
    source: sqlite3.Connection, target: sqlite3.Connection, note: Callable[[int, int], None] | None = None
) -> None:
    """Replace a database by another one in one transaction: a process that is killed leaves the old one.

    Others may read and write both meanwhile. `note` is called with the pages that are copied, and all pages.
    """

    def tell(_: int, left: int, total: int) -> None:
        # A step that fails at once, on a full disk, has not counted the pages.
        if note and total:
            note(total - left, total)

    source.execute("BEGIN")
    try:
        # This read holds the state of one moment: without it, another's write would begin the copy anew.
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        source.backup(target, pages=STEP_PAGES, progress=tell)
    finally:
        source.rollback()


@contextmanager
def opened(path: Path) -> Iterator[str]:
    """Give the block Django's name for a database file."""
    # The file belongs to this process alone, and is of no use unless it is complete.
    options = {"init_command": "PRAGMA synchronous = OFF; PRAGMA secure_delete = ON;"}
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": options}
    connections.settings[ALIAS] = connections.configure_settings({DEFAULT_DB_ALIAS: {}, ALIAS: database})[ALIAS]
    try:
        yield ALIAS
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]
