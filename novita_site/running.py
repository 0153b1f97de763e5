"""The file in `VAR_DIR` by which commands in other shells find the Redis and the simulator of a running `manage.py up`.

Their owner holds a lock on the file while it runs, and empties the file as soon as it begins to end. So a file that a
killed one left behind is not believed, and nothing that is about to go away is used.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from novita_site.private_files import make_folder

NAME = "running.env"


def read(path: Path) -> dict[str, str | None]:
    """Return the variables; nothing when no `up` runs that has started anything."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return {}
    except BlockingIOError:
        return dotenv_values(path)
    except OSError:
        return {}


def tell(path: Path, variables: Mapping[str, str]) -> int | None:
    """Write the variables. Return a descriptor that holds the lock; None when another `up` has it.

    A forked process would hold the lock, too, beyond the end of this one. So fork first.
    """
    make_folder(path.parent)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    withdraw(file)
    os.pwrite(file, "".join(f"{name}={value}\n" for name, value in variables.items()).encode(), 0)
    return file


def withdraw(file: int) -> None:
    """Empty the file, and keep the lock."""
    os.ftruncate(file, 0)
