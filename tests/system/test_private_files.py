"""No other user of the machine can read the service's files, under any umask and with any earlier files."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import python
from tests.system.processes import wait_until
from tests.system.test_up import Up, build_environment, copy_project, started

# A fork of the tests' would have the umask of the fork server.
OPEN = ("bash", "-c", 'umask 0; exec "$0" manage.py "$@"', sys.executable)


def list_open(folder: Path) -> list[str]:
    """Return the files that others can read, and the folder itself; sockets have their own rule."""
    paths = [folder, *folder.rglob("*")]
    return [
        f"{path.name} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & 0o077 and not path.is_socket()
    ]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A panel that was started under an open umask in a folder without any file of its own."""
    with started(Up(copy_project(tmp_path_factory.mktemp("private") / "project"), (*OPEN, "up"))) as up:
        up.wait_until_ready()
        # A process that starts later would restrict the files of a test.
        wait_until(lambda: up.get_worker() == "up", "its worker works")
        yield up


def check(project: Path) -> str:
    """Run a command; return what it reports."""
    command, environment = [sys.executable, "manage.py", "check"], build_environment()
    return str(python.run(command, cwd=project, env=environment, capture_output=True, text=True).stderr)


def test_no_created_file_is_readable_by_others_under_an_open_umask(up: Up) -> None:
    names = {path.name for path in (up.folder / "var").iterdir()}
    assert names >= {"db.sqlite3", "db.sqlite3-wal", "running.env", "secret-key"}
    assert list_open(up.folder / "var") == []


def test_files_readable_by_others_are_restricted_and_reported(up: Up) -> None:
    var = up.folder / "var"
    var.chmod(0o755)
    for name in ("db.sqlite3", "secret-key"):
        (var / name).chmod(0o664)

    told = check(up.folder)

    assert list_open(var) == []
    assert told.count("could be read by other users of this machine") == 3, told
    assert "could be read" not in check(up.folder)


def test_database_in_another_folder_is_private_too(up: Up, tmp_path: Path) -> None:
    elsewhere = tmp_path / "data" / "panel.sqlite3"

    command, environment = [*OPEN, "migrate", "contenttypes", "-v0"], build_environment()
    subprocess.run(
        command, cwd=up.folder, env={**environment, "DATABASE_URL": f"sqlite:///{elsewhere}"}, check=True, timeout=60
    )

    assert elsewhere.exists()
    assert list_open(elsewhere.parent) == []
