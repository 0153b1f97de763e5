"""A stop of everything while PostgreSQL is away, read-only, locked or full: sent, verified, and recorded afterwards."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.system.conftest import Start
from tests.system.postgresql import PostgreSQL, running
from tests.system.processes import Novita, wait_until

NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with running() as server:
        # A superuser, as the server's own user is, has connections beyond every limit.
        execute(
            server,
            "CREATE ROLE visitor LOGIN",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO visitor",
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO visitor",
        )
        yield server


@pytest.fixture
def environment(environment: dict[str, str], server: PostgreSQL) -> dict[str, str]:
    return {**environment, "DATABASE_URL": server.url.replace("panel@", "visitor@")}


@contextlib.contextmanager
def away(server: PostgreSQL) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextlib.contextmanager
def read_only(server: PostgreSQL) -> Iterator[None]:
    """The database is read-only, as after a failover to a standby server."""
    execute(server, "ALTER DATABASE postgres SET default_transaction_read_only = on")
    disconnect(server)
    yield
    execute(server, "SET default_transaction_read_only = off", "ALTER DATABASE postgres RESET ALL")
    disconnect(server)


@contextlib.contextmanager
def locked(server: PostgreSQL) -> Iterator[None]:
    """A migration holds a table's lock all the time."""
    with psycopg.connect(server.url) as connection:
        connection.execute("LOCK TABLE instances_operation, instances_target IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


@contextlib.contextmanager
def full(server: PostgreSQL) -> Iterator[None]:
    """Others have all connections that the server allows."""
    execute(server, "ALTER ROLE visitor CONNECTION LIMIT 0")
    disconnect(server)
    yield
    execute(server, "ALTER ROLE visitor CONNECTION LIMIT -1")


def execute(server: PostgreSQL, *statements: str) -> list[Any]:
    """Execute statements; returns the rows of the last one."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def disconnect(server: PostgreSQL) -> None:
    execute(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle'")


def list_recorded(server: PostgreSQL) -> list[tuple[str, bool, int]]:
    """Return each recorded operation: its id, whether it succeeded, and how many of its targets are confirmed."""
    rows = execute(
        server,
        "SELECT operation.id, operation.success, count(*) FILTER (WHERE target.state = 'confirmed') "
        "FROM instances_operation operation JOIN instances_target target ON target.operation_id = operation.id "
        "GROUP BY operation.id",
    )
    return [(str(id_), success, count) for id_, success, count in rows]


@pytest.mark.parametrize("fault", [away, read_only, locked, full], ids=lambda fault: fault.__name__)
def test_stop_all_goes_through_and_is_recorded_afterwards(
    fault: Callable[[PostgreSQL], contextlib.AbstractContextManager[None]],
    start_service: Start,
    server: PostgreSQL,
    novita: Novita,
) -> None:
    novita.change(running=True)
    service = start_service(**NO_SYNC).wait_until_alive()
    assert service.get("/api/operations").ok
    with fault(server):
        began = time.monotonic()
        answer = service.post("/api/instances/stop-all", json={"reason": fault.__name__})
        seconds = time.monotonic() - began

        ordered = answer.json()
        assert answer.status_code == 200, answer.text
        assert seconds < 20
        assert ordered["count"] == 25
        assert ordered["total"] == 25
        operation = service.wait_until_finished(ordered)
        assert operation["success"] is True
        assert operation["result"] == "All 25 are stopped."
        assert novita.are_all("exited")
        assert service.get("/health").json()["services"]["database"] == "down"

    recorded = (ordered["operationId"], True, 25)
    wait_until(lambda: recorded in list_recorded(server), "it is recorded")
    assert service.get_operation(ordered)["result"] == "All 25 are stopped."
