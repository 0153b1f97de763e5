"""A backup of a running panel brings everything back after a total loss; a restore that is killed loses nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import python
from tests.system.browser import log_in, make_admin
from tests.system.conftest import Start, StartWorker
from tests.system.processes import ROOT, Novita, Process, wait_until

Manage = Callable[..., "subprocess.CompletedProcess[str]"]
ROWS = 5_000
NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0"}


@pytest.fixture
def manage(environment: dict[str, str]) -> Manage:
    def manage(*arguments: str | Path) -> Any:
        command = [sys.executable, "manage.py", *map(str, arguments)]
        return python.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)

    return manage


@pytest.fixture
def database(environment: dict[str, str]) -> Path:
    return Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))


def test_everything_is_back_after_a_total_loss(
    start_service: Start,
    start_worker: StartWorker,
    environment: dict[str, str],
    manage: Manage,
    database: Path,
    tmp_path: Path,
    novita: Novita,
) -> None:
    file = tmp_path / "panel.backup"
    # No instance is being created, which takes half a minute.
    novita.change(running=True)
    make_admin(environment)
    service, worker = start_service().wait_until_ready(), start_worker()
    ordered = service.stop_all(reason="the last one")
    result = service.wait_until_finished(ordered)["result"]
    costs = read_costs(database)

    saved = manage("backup", file)
    refused = manage("restore", file, "--replace")
    service.end()
    worker.end()
    for lost in database.parent.glob(f"{database.name}*"):
        lost.unlink()
    restored = manage("restore", file)
    again = start_service(REQUIRE_LOGIN="1", **NO_SYNC).wait_until_alive()

    assert saved.returncode == 0, saved.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert refused.returncode == 1
    assert "Other processes have the database open." in refused.stderr
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout.startswith("Restored users: ")
    assert database.stat().st_mode & 0o777 == 0o600
    assert log_in(again.session, again).url.endswith("/admin/")
    assert again.get_operation(ordered)["result"] == result
    assert again.get_operation(ordered)["reason"] == "the last one"
    assert costs
    assert read_costs(database)[: len(costs)] == costs


@pytest.mark.parametrize("lost", [False, True])
def test_restore_sees_a_web_process_that_nobody_uses(
    lost: bool, start_service: Start, manage: Manage, database: Path, tmp_path: Path
) -> None:
    file = tmp_path / "panel.backup"
    assert manage("backup", file).returncode == 0
    service = start_service(**NO_SYNC, WEB_WORKERS="1").wait_until_alive()
    if lost:
        # What remains open of it is no sign for others.
        for path in database.parent.glob(f"{database.name}*"):
            path.unlink()

    refused = manage("restore", file, "--replace")
    service.end()
    wait_until(lambda: manage("restore", file, "--replace").returncode == 0, "the last process has ended")

    assert refused.returncode == 1
    assert "Other processes have the database open." in refused.stderr


def read_costs(database: Path) -> list[Any]:
    """Return the ledger's intervals, without what may still change: their ends."""
    query = "SELECT instance_id, state, began_ms, price FROM instances_usageinterval"
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(f"{query} ORDER BY id").fetchall()


def test_restore_that_is_killed_leaves_a_whole_database(
    environment: dict[str, str], manage: Manage, database: Path, tmp_path: Path
) -> None:
    file = tmp_path / "panel.backup"
    fill(database, "old")
    assert manage("backup", file).returncode == 0
    fill(database, "new")
    wal = database.with_name(f"{database.name}-wal")

    command = [sys.executable, "manage.py", "restore", str(file), "--replace"]
    restore = Process(command, environment, tmp_path / "restore.log")
    # The first pages of the backup are on the disk. Usually the transaction has not ended.
    wait_until(lambda: wal.exists() and wal.stat().st_size > 100_000, f"it writes\n{restore.log}", pause_seconds=0.0005)
    restore.signal(signal.SIGKILL)
    restore.wait()

    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        query = "SELECT actor, count(*) FROM instances_auditentry GROUP BY actor"
        rows = dict(connection.execute(query).fetchall())
    assert rows["old"] == ROWS
    assert rows.get("new", 0) in {0, ROWS}
    assert manage("restore", file, "--replace").returncode == 0


def fill(database: Path, actor: str) -> None:
    """Add 20 MB of records."""
    with closing(sqlite3.connect(database)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(instances_auditentry)") if row[1] != "id"]
        given = {"at": "2026-01-01 00:00:00", "actor": actor, "target": os.urandom(2000).hex()}
        values = [str(given.get(column, "")) for column in columns]
        marks = ", ".join("?" * len(columns))
        names = ", ".join(f'"{column}"' for column in columns)
        statement = f"INSERT INTO instances_auditentry ({names}) VALUES ({marks})"  # noqa: S608 - the table's columns
        connection.executemany(statement, [values] * ROWS)
