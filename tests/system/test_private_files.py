"""No other user of the machine can read the service's files, under any umask and with any earlier files."""

import os
import subprocess
import sys
from pathlib import Path

from tests import python
from tests.system.processes import wait_until
from tests.system.test_up import Up, build_environment, project  # noqa: F401 - a fixture


def list_open(folder: Path) -> list[str]:
    """Return the files that others can read, and the folder itself; sockets have their own rule."""
    paths = [folder, *folder.rglob("*")]
    return [
        f"{path.name} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & 0o077 and not path.is_socket()
    ]


def run(project: Path, *arguments: str, umask: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:  # noqa: F811 - fixture
    return python.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project,
        env=build_environment(**variables),
        umask=umask,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_no_created_file_is_readable_by_others_under_an_open_umask(project: Path) -> None:  # noqa: F811 - fixture
    old = os.umask(0)
    try:
        up = Up(project)
    finally:
        os.umask(old)
    try:
        wait_until(lambda: up.get("/readyz").ok, "it serves")
        assert {path.name for path in (project / "var").glob("db.sqlite3*")} >= {"db.sqlite3", "db.sqlite3-wal"}
        assert list_open(project / "var") == []
    finally:
        up.signal(15)
        up.wait()


def test_files_readable_by_others_are_restricted_and_reported(project: Path) -> None:  # noqa: F811 - fixture
    run(project, "migrate", "-v0")
    var = project / "var"
    var.chmod(0o755)
    for name in ("db.sqlite3", "secret-key"):
        (var / name).chmod(0o664)

    done = run(project, "check")

    assert list_open(var) == []
    assert done.stderr.count("could be read by other users of this machine") == 3, done.stderr
    assert "could be read" not in run(project, "check").stderr


def test_database_in_another_folder_is_private_too(project: Path, tmp_path: Path) -> None:  # noqa: F811 - fixture
    elsewhere = tmp_path / "data" / "panel.sqlite3"

    run(project, "migrate", "-v0", DATABASE_URL=f"sqlite:///{elsewhere}")

    assert list_open(elsewhere.parent) == []
