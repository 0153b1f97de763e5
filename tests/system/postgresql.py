"""A real PostgreSQL on its own socket. The test that needs it starts and ends it."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import python

ROOT = Path(__file__).resolve().parent.parent.parent
# Test processes have a database each, and the services of the system tests many threads.
OPTIONS = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c max_connections=400"


def find_program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs; skip the test without it."""
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    found = shutil.which(name) or next((str(path) for path in candidates), None)
    if found is None:
        pytest.skip(f"there is no {name}: install PostgreSQL to run this")
    return found


class PostgreSQL:
    """A PostgreSQL server. It refuses to run as root, so root runs it as another user."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._user = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(folder, self._user)
        self._data = folder / "data"
        self.url = f"postgres://panel@{str(folder).replace('/', '%2F')}/postgres"
        self._run("initdb", "-D", str(self._data), "-U", "panel", "-A", "trust", "--no-sync")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [find_program(program), *arguments]
        log = self._folder / "postgresql.log"
        with log.open("ab") as output:
            subprocess.run(
                command, cwd=self._folder, user=self._user, stdout=output, stderr=output, check=True, timeout=60
            )

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' {OPTIONS}"
        self._run("pg_ctl", "-D", str(self._data), "-w", "-o", options, "-l", str(self._folder / "server.log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """End the server: `fast` as in a restart, `immediate` as in a crash."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()


@contextlib.contextmanager
def running() -> Iterator[PostgreSQL]:
    """A running server with the service's tables."""
    # A short path, since a socket's path is limited to 107 bytes, in a folder that the server's user may enter.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgreSQL(Path(folder))
        environment = {**os.environ, "DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "novita_site.settings"}
        try:
            python.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop("immediate")
