"""An anonymous flood of logins: few hashes, few rows, a small log; a stop still succeeds."""

import contextlib
import sqlite3
import sys
import threading
from pathlib import Path

import pytest
import requests

from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Novita, Service

CLIENTS = 24
ATTEMPTS = 8


@pytest.fixture
def token(environment: dict[str, str]) -> str:
    """The text of an admin's token."""
    words = {"DJANGO_SUPERUSER_PASSWORD": "correct horse battery", "DJANGO_SUPERUSER_EMAIL": "ann@a.example"}
    commands = (
        ["createsuperuser", "--noinput", "--username", "ann"],
        ["create_token", "ann", "--name", "ci", "--role", "admin"],
    )
    for command in commands:
        done = python.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env={**environment, **words},
            check=True,
            capture_output=True,
            text=True,
        )
    return next(word for word in done.stdout.split() if word.startswith("nvp_"))


def count_rows(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)  # noqa: S608 - own names


def get_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("db.sqlite3*"))


def flood(service: Service, statuses: list[int]) -> None:
    """Send logins as fast as possible, with the form's token as a browser does, each with another name."""
    with contextlib.closing(Session(service)) as session:
        for number in range(ATTEMPTS):
            statuses.append(session.log_in(f"name-{number}"))


class Session:
    def __init__(self, service: Service) -> None:
        self._url = f"{service.url}/login/"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.get(self._url, timeout=60)
        (self._token,) = [cookie.value for cookie in self._session.cookies if "csrf" in cookie.name]

    def log_in(self, name: str) -> int:
        data = {"username": name, "password": "x" * 5000, "csrfmiddlewaretoken": self._token}
        return self._session.post(self._url, data, timeout=60).status_code

    def close(self) -> None:
        self._session.close()


def test_flood_of_logins_fills_no_disk_and_delays_no_stop(
    start_service: Start, environment: dict[str, str], novita: Novita, token: str
) -> None:
    database = Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))
    # A synchronization would write rows, too.
    no_sync = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0"}
    service = start_service(REQUIRE_LOGIN="1", WEB_WORKERS="2", **no_sync).wait_until_alive()
    rows, size = count_rows(database), get_size(database.parent)
    statuses: list[int] = []
    threads = [threading.Thread(target=flood, args=(service, statuses), daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()

    answer = service.post(
        "/api/instances/stop-all", json={"dryRun": True}, headers={"Authorization": f"Bearer {token}"}
    )
    for thread in threads:
        thread.join(100)

    assert answer.status_code == 200, answer.text
    assert len(statuses) == CLIENTS * ATTEMPTS, "a client's attempts of a quarter hour"
    assert statuses.count(200) == 20, "a client's attempts of a quarter hour"
    assert statuses.count(429) == CLIENTS * ATTEMPTS - 20
    assert count_rows(database) - rows <= 5
    assert get_size(database.parent) - size < 200_000
    assert len(service.log) < 10_000, service.log
