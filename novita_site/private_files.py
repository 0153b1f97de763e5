"""Files that no other user of the machine may read: they hold sessions, keys and the URLs of webhooks.

`var/` has mode 0700. The database, the secret key and `running.env` have mode 0600 under any umask. SQLite gives its
-wal and -shm files the mode of the database.
"""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Warning

log = logging.getLogger(__name__)

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, for the owner only. Raises OSError.

    `mkdir(parents=True)` would create the missing parents by the umask.
    """
    for folder in [*reversed(path.parents), path]:
        if not folder.is_dir():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def repair() -> list[str]:
    """Restrict the private files to their owner; return a sentence for each file where that failed."""
    database = find_database()
    if database and database.parent.is_dir():
        # SQLite would create it with the mode of the umask.
        with suppress(OSError):
            os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
    return [problem for path, mode in list_private() if (problem := _restrict(path, mode))]


def list_private() -> Iterator[tuple[Path, int]]:
    """Yield the path and the mode of each private file and folder, whether it exists or not."""
    database = find_database()
    yield settings.VAR_DIR, FOLDER_MODE
    # A folder elsewhere may be shared, such as /tmp. The files created in it are private from the start.
    if settings.VAR_DIR in settings.FALLBACK_DIR.parents:
        yield settings.FALLBACK_DIR, FOLDER_MODE
    yield settings.VAR_DIR / "secret-key", FILE_MODE
    yield settings.RUNNING_FILE, FILE_MODE
    if database:
        for suffix in ("", "-wal", "-shm", "-journal"):
            yield database.with_name(database.name + suffix), FILE_MODE


def find_database() -> Path | None:
    """Return SQLite's file; None when the database isn't one."""
    database = settings.DATABASES["default"]
    name = str(database.get("NAME", ""))
    is_file = (
        database.get("ENGINE") == "django.db.backends.sqlite3" and name != ":memory:" and "mode=memory" not in name
    )
    return Path(name) if is_file else None


def _restrict(path: Path, mode: int) -> str:
    found = 0
    is_expected = stat.S_ISDIR if mode == FOLDER_MODE else stat.S_ISREG
    try:
        status = path.lstat()
        # A wrong path must not lock others out of a shared folder.
        if not is_expected(status.st_mode):
            return ""
        found = stat.S_IMODE(status.st_mode)
        if not found & 0o077:
            return ""
        path.chmod(found & mode)
        if path.stat().st_mode & 0o077:  # Some file systems keep no modes.
            return _describe(path, found, mode)
    except OSError:
        # The code that uses a missing or unreadable file reports it.
        return _describe(path, found, mode) if found else ""
    log.warning("%s could be read by other users of this machine (mode %o). Now it can't (%o).", path, found, mode)
    return ""


def _describe(path: Path, found: int, mode: int) -> str:
    return (
        f"{path} can be read by other users of this machine (mode {found:o}). Its owner must run: chmod {mode:o} {path}"
    )


def log_problems() -> None:
    try:
        make_folder(settings.FALLBACK_DIR)
    except OSError as exc:
        log.warning(
            "FALLBACK_DIR: the folder %s can't be made (%s). Without the database nothing is kept there. Name another.",
            settings.FALLBACK_DIR,
            exc.strerror,
        )
    for problem in repair():
        log.warning("%s", problem)


def check(**kwargs: Any) -> list[CheckMessage]:
    """Report files that other users can read; one of Django's system checks."""
    return [Warning(problem, id="novita.W001") for problem in repair()]
