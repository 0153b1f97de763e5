"""PostgreSQL restarts, crashes or is down: the service continues normally once it is back."""

import contextlib
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dj_database_url
import psycopg
import pytest
from django.db import ConnectionHandler

from instances import outages
from tests import python
from tests.system.browser import make_admin
from tests.system.conftest import Start, StartWorker
from tests.system.postgresql import PostgreSQL, running
from tests.system.processes import ROOT, Novita, Service, wait_until

READS = ["/api/instances", "/api/operations", "/api/protections", "/health", "/"]
QUIET = {"NOVITA_SYNC_INTERVAL": "0", "WEB_WORKERS": "2"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with running() as server:
        yield server


@pytest.fixture
def environment(environment: dict[str, str], server: PostgreSQL) -> dict[str, str]:
    with psycopg.connect(server.url) as connection:
        # Each test has a new account.
        connection.execute("TRUNCATE instances_operation CASCADE")
    return {**environment, "DATABASE_URL": server.url}


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_no_read_fails_and_stops_are_answered_after_a_restart(
    mode: str, start_service: Start, server: PostgreSQL, novita: Novita
) -> None:
    novita.change(running=True)
    service = start_service(**QUIET).wait_until_ready()
    # Many at once, so that each thread of each process has its own connection.
    read_at_once(service, 40)

    server.restart(mode)

    assert {status for _, status in read_at_once(service, 80)} == {200}
    answer = service.post("/api/instances/stop-all")
    assert answer.status_code == 200
    assert answer.json()["count"] == 25
    assert service.get(answer.json()["operationUrl"]).status_code == 200
    assert "Traceback" not in service.log


def read_at_once(service: Service, count: int) -> list[tuple[str, int]]:
    """Read each address in turn from several threads; return the statuses."""
    answers: list[tuple[str, int]] = []

    def read(number: int) -> None:
        for offset in range(count // 8):
            path = READS[(number + offset) % len(READS)]
            answers.append((path, service.get(path).status_code))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_worker_recovers_after_a_postgresql_outage_and_logs_it_once(
    start_service: Start, start_worker: StartWorker, server: PostgreSQL, novita: Novita
) -> None:
    novita.change(running=True)
    service = start_service(**QUIET).wait_until_ready()
    worker = start_worker()
    wait_until(lambda: service.get_worker() == "up", "it is up")
    ordered = service.stop_all()

    server.stop()
    try:
        wait_until(lambda: "database is unavailable" in worker.log, f"it notices\n{worker.log}")
        for _ in range(10):
            assert service.get("/api/operations").status_code == 503
            assert service.get("/admin/instances/operation/").status_code == 500
    finally:
        server.start()

    assert service.wait_until_finished(ordered, 15)["success"], worker.log
    wait_until(lambda: "database is back after" in worker.log, f"it says so\n{worker.log}")
    for log in (worker.log, service.log):
        # Each reason is one line, however many calls fail by it.
        reasons = [line.partition("database is unavailable")[2] for line in log.splitlines()]
        told = [reason for reason in reasons if reason]
        assert len(told) == len(set(told)) <= outages.MAX_REASONS, log
        assert "Traceback" not in log, log


def test_threads_of_a_process_limit_its_connections(start_service: Start, server: PostgreSQL) -> None:
    service = start_service(**{**QUIET, "WEB_WORKERS": "1", "WEB_THREADS": "4"}).wait_until_ready()

    read_at_once(service, 80)

    # Four more threads answer probes; the refresher has one, the thread that records what could not be stored, and the
    # one that restores see.
    assert 1 < count_sessions(server) <= 4 + 7


def count_sessions(server: PostgreSQL, condition: str = "true") -> int:
    with psycopg.connect(server.url) as connection:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        row = connection.execute(f"{query} AND {condition}").fetchone()
    assert row
    return int(row[0])


def test_connection_that_was_closed_for_idleness_is_replaced(server: PostgreSQL, django_db_blocker: Any) -> None:
    options = {**dj_database_url.parse(server.url), "ENGINE": "novita_site.postgresql", "CONN_HEALTH_CHECKS": True}
    connection = ConnectionHandler({"default": options})["default"]
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SHOW idle_session_timeout")
        assert cursor.fetchone() == ("2min",)
        cursor.execute("SET idle_session_timeout = '10ms'")
    pid = connection.connection.info.backend_pid
    wait_until(lambda: not count_sessions(server, f"pid = {pid}"), "the server closes it")

    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")

    assert connection.connection.info.backend_pid != pid
    connection.close()


def test_backup_moves_a_panel_from_sqlite_to_postgresql_and_back(
    migrated_database: Path, environment: dict[str, str], server: PostgreSQL, tmp_path: Path
) -> None:
    first, last = tmp_path / "first.sqlite3", tmp_path / "last.sqlite3"
    shutil.copy(migrated_database, first)
    sqlite, postgresql, again = (
        {**environment, "DATABASE_URL": url} for url in (f"sqlite:///{first}", server.url, f"sqlite:///{last}")
    )
    make_admin(sqlite)
    before = read_rows(first)

    for variables, *command in (
        (sqlite, "backup", "a"),
        (postgresql, "restore", "a", "--replace"),
        (postgresql, "backup", "b"),
        (again, "restore", "b"),
    ):
        name, file, *options = command
        arguments = [sys.executable, "manage.py", name, str(tmp_path / file), *options]
        python.run(arguments, cwd=ROOT, env=variables, check=True)

    assert read_rows(last) >= before


def test_restore_sees_a_web_process_that_nobody_uses(
    start_service: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    def manage(*arguments: str) -> Any:
        command = [sys.executable, "manage.py", *arguments]
        return python.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    file = str(tmp_path / "panel.backup")
    assert manage("backup", file).returncode == 0
    service = start_service(**QUIET, NOVITA_SYNC_ON_STARTUP="0").wait_until_alive()

    refused = manage("restore", file, "--replace")
    service.end()
    wait_until(lambda: manage("restore", file, "--replace").returncode == 0, "the last process has ended")

    assert refused.returncode == 1
    assert "Other processes have the database open." in refused.stderr


def read_rows(database: Path) -> set[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        users = connection.execute("SELECT id, username, password, date_joined FROM auth_user")
        entries = connection.execute("SELECT id, actor, action, at FROM instances_auditentry")
        return {*users, *entries}
