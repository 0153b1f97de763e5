"""The database is locked or missing: syncs and reads continue."""

import sqlite3
from pathlib import Path

import pytest

from tests.system.conftest import Start
from tests.system.processes import Novita, wait_until


def get_path(environment: dict[str, str]) -> Path:
    return Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))


@pytest.mark.usefixtures("hasty")
def test_locked_database_stops_neither_syncs_nor_readers(
    start_service: Start, environment: dict[str, str], novita: Novita
) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0").wait_until_ready()
    service.list_ids()
    wait_until(lambda: novita.count_syncs() == 1, "the first sync ended")
    connection = sqlite3.connect(get_path(environment), isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")

    answer = service.post("/api/instances/sync")

    assert answer.status_code == 200
    assert len(service.list_ids()) == 25
    assert service.get("/health").ok
    assert "sync not recorded in the database: database is locked" in service.log
    connection.rollback()
    connection.close()


def test_missing_database_stops_neither_syncs_nor_readers(start_service: Start, tmp_path: Path) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0", DATABASE_URL=f"sqlite:///{tmp_path / 'missing.sqlite3'}")
    wait_until(lambda: service.get("/api/instances").ok, "the service has a copy")

    # The first one has published its copy, and still tries to record itself.
    wait_until(lambda: service.post("/api/instances/sync").ok, "the next one runs")
    assert len(service.list_ids()) == 25
    assert service.get("/readyz").status_code == 503
    assert "sync not recorded in the database" in service.log
