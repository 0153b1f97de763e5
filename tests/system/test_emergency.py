"""A stop of everything while the database can't be written: sent, verified, answered, and recorded later."""

import contextlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from tests import python
from tests.system.conftest import Start, StartWorker
from tests.system.processes import ROOT, Novita, Service, wait_until

# Only the operation calls Novita.
NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0"}
# A request may reach a process that does not run the operation.
TWO_PROCESSES = {**NO_SYNC, "WEB_WORKERS": "2"}
ANSWER_SECONDS = 20

Fault = Callable[[Path, Service | None], contextlib.AbstractContextManager[None]]


pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(autouse=True)
def all_running(novita: Novita) -> None:
    """25 running instances."""
    novita.change(running=True)


@pytest.fixture
def database(environment: dict[str, str]) -> Path:
    return Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))


# --- Faults of the database


@contextlib.contextmanager
def locked(database: Path, service: Service | None) -> Iterator[None]:
    """Another program holds the write lock all the time."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        yield


@contextlib.contextmanager
def without_writes(database: Path, service: Service | None) -> Iterator[None]:
    """No file of the running service may grow, as under a quota."""
    assert service is not None
    pids = [service.popen.pid, *map(int, list_children(service.popen.pid))]
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    yield
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def list_children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@contextlib.contextmanager
def read_only(database: Path, service: Service | None) -> Iterator[None]:
    """The database file can't be opened for writing, not even by root."""
    chattr = shutil.which("chattr")
    if os.getuid() == 0 and (not chattr or subprocess.run([chattr, "+i", database], check=False).returncode):
        pytest.skip("root can't be kept from writing here")
    database.chmod(0o444) if os.getuid() else None
    try:
        yield
    finally:
        if os.getuid():
            database.chmod(0o644)
        else:
            subprocess.run(["chattr", "-i", database], check=True)


@contextlib.contextmanager
def damaged(database: Path, service: Service | None) -> Iterator[None]:
    """Nonsense replaces the database file, so nothing can be read."""
    kept = database.with_suffix(".kept")
    shutil.copy(database, kept)
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.unlink()
    database.write_bytes(b"nonsense" * 1000)
    yield
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.unlink()
    kept.rename(database)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def full(database: Path, service: Service | None) -> Iterator[None]:
    """The database's disk is full to the last byte."""
    filler = database.with_name("filler")
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (64 * 1024, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    yield
    filler.unlink()


def list_recorded(database: Path) -> list[dict[str, Any]]:
    """Return the operations in the database, with the states of their targets."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM instances_operation")]
        for row in rows:
            states = connection.execute("SELECT state FROM instances_target WHERE operation_id = ?", [row["id"]])
            row["states"] = [state for (state,) in states]
        return rows


def list_actions(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [action for (action,) in connection.execute("SELECT action FROM instances_auditentry")]


def list_kept(environment: dict[str, str]) -> list[Path]:
    return list(Path(environment["FALLBACK_DIR"]).glob("*/unrecorded-*"))


# --- The API


def check_stop(service: Service, fault: Fault, database: Path, novita: Novita, environment: dict[str, str]) -> None:
    """Stop all under a fault, and check that the stop is answered, verified, shown, and then recorded once."""
    with fault(database, service):
        began = time.monotonic()
        answer = service.post("/api/instances/stop-all", json={"reason": "over budget"})
        seconds = time.monotonic() - began

        ordered = answer.json()
        assert answer.status_code in {200, 202}, answer.text
        assert seconds < ANSWER_SECONDS
        assert ordered["success"] is True, ordered
        assert ordered["count"] == 25, ordered
        assert ordered["total"] == 25, ordered
        assert {"results", "skipped", "warnings", "operationId", "operationUrl", "source"} <= ordered.keys()
        assert "is recorded later" in " ".join(ordered["warnings"])
        operation = service.wait_until_finished(ordered)
        assert operation["success"] is True
        assert operation["result"] == "All 25 are stopped."
        assert novita.are_all("exited")
        assert sorted(novita.list_stops()) == sorted(novita.get_truth()), "each is requested once"
        health = service.get("/health").json()
        assert health["status"] == "degraded", health
        assert health["services"]["database"] == "down", health
        assert service.get("/api/operations").json()["operations"][0]["id"] == ordered["operationId"]

    wait_until(lambda: [row for row in list_recorded(database) if row["finished_at"]], "it is recorded")
    wait_until(lambda: not list_kept(environment), "the copy is removed")
    (row,) = list_recorded(database)
    assert row["id"] == ordered["operationId"].replace("-", "")
    assert row["success"] == 1
    assert row["reason"] == "over budget"
    assert row["states"] == ["confirmed"] * 25
    actions = list_actions(database)
    assert actions.count("operation.stop") == 1
    assert actions.count("instance.stop") == 25
    assert service.get_operation(ordered)["result"] == "All 25 are stopped."
    assert service.get("/api/operations").json()["total"] == 1
    wait_until(lambda: service.get("/health").json()["services"]["database"] == "up", "a write works again")


@pytest.mark.parametrize("fault", [locked, without_writes, read_only, damaged], ids=lambda fault: fault.__name__)
def test_stop_all_goes_through_and_is_recorded_afterwards(
    fault: Fault, start_service: Start, environment: dict[str, str], database: Path, novita: Novita
) -> None:
    check_stop(start_service(**TWO_PROCESSES).wait_until_alive(), fault, database, novita, environment)


def test_stop_all_goes_through_on_a_full_disk(
    start_service: Start, environment: dict[str, str], database: Path, small_disk: Path, novita: Novita
) -> None:
    moved = small_disk / "db.sqlite3"
    shutil.copy(database, moved)
    variables = {"DATABASE_URL": f"sqlite:///{moved}", "FALLBACK_DIR": str(small_disk / "fallback")}
    service = start_service(**TWO_PROCESSES, **variables).wait_until_alive()
    check_stop(service, full, moved, novita, {**environment, **variables})


# --- While an operation runs in memory


def test_second_stop_lists_again_and_requests_only_what_runs_now(
    start_service: Start, database: Path, novita: Novita
) -> None:
    first, *others = sorted(novita.get_truth())
    novita.fault("stop", "ignore", instanceId=first)
    service = start_service(**NO_SYNC).wait_until_alive()
    novita.change(set={id_: {"status": "exited"} for id_ in others})
    with locked(database, service):
        one = service.stop_all()
        assert one["count"] == 1
        assert one["total"] == 1
        novita.change(set={id_: {"status": "running"} for id_ in others[:3]})

        two = service.stop_all()

        assert two["operationId"] == one["operationId"]
        assert two["count"] == 4
        assert two["total"] == 4
        stops = novita.list_stops()
        assert sorted(set(stops)) == sorted([first, *others[:3]])
        # The first instance has fallen back to running. On a slow machine the second stop requests it again.
        assert [stops.count(id_) for id_ in others[:3]] == [1, 1, 1], "none is requested twice"


def test_operation_in_memory_can_be_cancelled(start_service: Start, database: Path, novita: Novita) -> None:
    novita.fault("stop", "ignore")
    service = start_service(**TWO_PROCESSES).wait_until_alive()
    with locked(database, service):
        ordered = service.stop_all()

        # Each request may reach another process.
        for _ in range(3):
            assert service.post(f"{ordered['operationUrl']}/cancel").json()["state"] == "cancelled"
        assert service.get_operation(ordered)["state"] == "cancelled"


def test_protections_hold_while_the_database_cannot_be_read(
    start_service: Start, database: Path, novita: Novita
) -> None:
    protected, *_ = sorted(novita.get_truth())
    service = start_service(**NO_SYNC).wait_until_alive()
    assert service.post(f"/api/instances/{protected}/protect", json={"reason": "training"}).ok
    service.end()
    service = start_service(**NO_SYNC)
    with damaged(database, service):
        service.wait_until_alive()
        preview = service.stop_all(dryRun=True)
        ordered = service.stop_all()
        refused = service.post(f"/api/instances/{protected}/stop")
        unstored = service.post(f"/api/instances/{max(novita.get_truth())}/protect", json={"reason": "training"})

        assert [one["instanceId"] for one in preview["skipped"]] == [protected]
        assert [one["instanceId"] for one in ordered["skipped"]] == [protected]
        assert "The protections can't be read. Those of" in " ".join(ordered["warnings"])
        assert refused.status_code == 409
        assert refused.json()["code"] == "PROTECTED"
        assert unstored.status_code == 503
        assert unstored.json()["code"] == "DATABASE_UNAVAILABLE"
        assert service.wait_until_finished(ordered)["success"]
        assert protected not in novita.list_stops()
        assert novita.get_truth()[protected]["status"] == "running"


def test_everything_stops_with_a_warning_when_protections_are_unknown(
    start_service: Start, database: Path, novita: Novita
) -> None:
    service = start_service(**NO_SYNC)
    with damaged(database, service):
        ordered = service.wait_until_alive().stop_all()

        assert "Which instances are protected is not known" in " ".join(ordered["warnings"])
        assert ordered["count"] == 25


def test_stop_of_one_and_of_a_selection_go_through_and_are_recorded(
    start_service: Start, database: Path, novita: Novita
) -> None:
    one, two, three, *_ = sorted(novita.get_truth())
    service = start_service(NOVITA_SYNC_INTERVAL="0").wait_until_ready()
    with locked(database, service):
        single = service.post(f"/api/instances/{one}/stop")
        selection = service.post("/api/operations", json={"kind": "stop", "ids": [two, three]})
        started = service.post("/api/operations", json={"kind": "start", "ids": [two, three]})

        assert single.status_code == 202, (single.text, selection.text)
        assert selection.status_code == 200, (single.text, selection.text)
        assert selection.json()["count"] == 2
        assert selection.json()["total"] == 2
        assert started.status_code == 503
        assert started.json()["code"] == "DATABASE_UNAVAILABLE"
        assert sorted(novita.list_stops()) == [one, two, three]
        service.wait_until_finished(selection.json())
    wait_until(lambda: list_actions(database).count("instance.stop") == 3, "all three are recorded")


def test_stop_continues_when_the_database_fails_in_the_middle(
    start_service: Start, environment: dict[str, str], database: Path, novita: Novita
) -> None:
    novita.fault("stop", "delay", seconds=0.5)
    service = start_service(**NO_SYNC, NOVITA_CONCURRENCY="2").wait_until_alive()
    with contextlib.ExitStack() as stack:
        thread = threading.Thread(target=service.stop_all)
        thread.start()
        wait_until(lambda: len(novita.list_stops()) >= 4, "it is in the middle")
        stack.enter_context(locked(database, service))
        thread.join()

        wait_until(lambda: novita.are_all("exited"), f"all are stopped\n{service.log}", 60)
        (shown,) = service.get("/api/operations").json()["operations"]
        assert service.wait_until_finished({"operationUrl": f"/api/operations/{shown['id']}"})["success"]
        assert sorted(novita.list_stops()) == sorted(novita.get_truth()), "each is requested once"
    wait_until(lambda: not list_kept(environment), "it is recorded")
    (row,) = list_recorded(database)
    assert row["success"] == 1
    assert row["states"] == ["confirmed"] * 25


def test_operation_of_a_killed_process_is_recorded_by_another(
    start_service: Start, start_worker: StartWorker, environment: dict[str, str], database: Path, novita: Novita
) -> None:
    stubborn = min(novita.get_truth())
    novita.fault("stop", "ignore", instanceId=stubborn)
    service = start_service(**NO_SYNC).wait_until_alive()
    with locked(database, service):
        ordered = service.stop_all(reason="fire")
        wait_until(lambda: service.get_operation(ordered)["counts"]["confirmed"] == 24, "24 are verified")
        wait_until(
            lambda: '"state": "confirmed"' in "".join(path.read_text() for path in list_kept(environment)), "kept"
        )
        service.end()
        for path in list_kept(environment):
            make_old(path, environment, is_late=True)
    start_worker()

    wait_until(lambda: list_recorded(database), "it is recorded")
    wait_until(lambda: list_recorded(database)[0]["finished_at"], "it is verified to its end", 60)
    (row,) = list_recorded(database)
    assert row["success"] == 0
    assert row["reason"] == "fire"
    assert row["result"] == "1 of 25 is still running."
    assert sorted(row["states"]) == ["confirmed"] * 24 + ["stillRunning"]
    assert "The process ended" in row["notes"]
    assert list_kept(environment) == []


@pytest.mark.parametrize("moment", ["first request", "answer"])
def test_operation_outlives_its_process_after_the_first_request(
    moment: str,
    start_service: Start,
    start_worker: StartWorker,
    environment: dict[str, str],
    database: Path,
    novita: Novita,
) -> None:
    novita.fault("stop", "delay", seconds=30) if moment == "first request" else novita.fault("stop", "ignore")
    service = start_service(**NO_SYNC).wait_until_alive()
    with locked(database, service):
        if moment == "first request":
            threading.Thread(target=post_quietly, args=(service,), daemon=True).start()
            wait_until(novita.list_stops, "the first request is sent")
        else:
            service.stop_all(reason="fire")
        service.signal(signal.SIGKILL)
        service.wait()

        (path,) = list_kept(environment)
        rows = json.loads(path.read_text())["rows"]
        states = [row["fields"]["state"] for row in rows if row["model"] == "instances.target"]
        assert states == ["pending" if moment == "first request" else "requested"] * 25
        make_old(path, environment)
    novita.clear_faults()
    start_worker()

    wait_until(lambda: [row for row in list_recorded(database) if row["finished_at"]], "it is verified", 60)
    (row,) = list_recorded(database)
    assert row["reason"] == "fire"
    assert row["result"] == "All 25 are stopped."
    assert novita.are_all("exited")


def post_quietly(service: Service) -> None:
    with contextlib.suppress(requests.RequestException):
        service.stop_all(reason="fire")


def test_stop_that_can_be_stored_nowhere_is_sent_and_warns(
    start_service: Start, database: Path, tmp_path: Path, novita: Novita
) -> None:
    nowhere = tmp_path / "a file"
    nowhere.touch()
    bare = {"REDIS_URL": f"unix://{nowhere}/redis.sock", "FALLBACK_DIR": str(nowhere / "fallback")}
    service = start_service(**NO_SYNC, **bare).wait_until_alive()
    with locked(database, service):
        ordered = service.stop_all()

        assert ordered["count"] == 25
        assert "The operation could not be kept" in " ".join(ordered["warnings"])


def test_cancel_outlives_its_process(
    start_service: Start, environment: dict[str, str], database: Path, novita: Novita
) -> None:
    novita.fault("stop", "ignore")
    service = start_service(**NO_SYNC).wait_until_alive()
    with locked(database, service):
        ordered = service.stop_all()
        assert service.post(f"{ordered['operationUrl']}/cancel").json()["state"] == "cancelled"
        service.signal(signal.SIGKILL)
        service.wait()

    (path,) = list_kept(environment)
    assert json.loads(path.read_text())["rows"][0]["fields"]["state"] == "cancelled"


def test_stop_in_memory_can_be_retried_once_it_has_ended(start_service: Start, database: Path, novita: Novita) -> None:
    novita.fault("stop", "ignore", instanceId=(stubborn := min(novita.get_truth())))
    service = start_service(**TWO_PROCESSES, NOVITA_STOP_DEADLINE="6").wait_until_alive()
    with locked(database, service):
        ordered = service.stop_all()
        wish = {"fromOperation": ordered["operationId"]}
        early = service.post("/api/operations", json=wish)
        assert not service.wait_until_finished(ordered)["success"]
        requested = len(novita.list_stops())
        # Each request may reach another process.
        retries = [service.post("/api/operations", json=wish) for _ in range(2)]

    assert early.status_code == 409, early.text
    assert early.json()["code"] == "INVALID_STATE", early.text
    assert "still running" in early.json()["message"]
    assert [one.json()["total"] for one in retries] == [1, 1], retries[0].text
    assert set(novita.list_stops()[requested:]) == {stubborn}


def make_old(path: Path, environment: dict[str, str], *, is_late: bool = False) -> None:
    """Make a copy look as if its process had died a minute ago; `is_late`: and the deadline had passed since."""
    document = json.loads(path.read_text())
    document["keptAt"] = "2026-01-01T00:00:00+00:00"
    for row in document["rows"]:
        if is_late and row["model"] == "instances.operation":
            row["fields"]["deadline_at"] = row["fields"]["created_at"]
    path.write_text(json.dumps(document))
    with contextlib.closing(redis.Redis.from_url(environment["REDIS_URL"])) as client:
        for key in client.keys("*kept:*"):
            client.hdel(key, path.stem)


def test_token_needs_no_write(
    start_service: Start, environment: dict[str, str], database: Path, novita: Novita
) -> None:
    """knox deletes a user's expired tokens whenever another token is used."""
    manage = [sys.executable, "manage.py"]
    python.run(
        [*manage, "createsuperuser", "--noinput", "--username", "eve", "--email", "eve@example.com"],
        cwd=ROOT,
        env={**environment, "DJANGO_SUPERUSER_PASSWORD": "FAKE-SECRET-password"},
        check=True,
    )
    tokens = [
        python.run(
            [*manage, "create_token", "eve", "--name", name, "--role", "admin"],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for name in ("ended", "good")
    ]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE instances_token SET expiry = '2026-01-01 00:00:00' WHERE name = 'ended'")
        connection.commit()
    service = start_service(**NO_SYNC, REQUIRE_LOGIN="1").wait_until_alive()
    with read_only(database, service):
        answers = [
            service.post("/api/instances/stop-all", headers={"Authorization": f"Bearer {token}"}) for token in tokens
        ]

    assert [answer.status_code for answer in answers] == [401, 200], [answer.text for answer in answers]
    assert answers[1].json()["count"] == 25


# --- The command


def run_stop_all(environment: dict[str, str], *options: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    return python.run(
        [sys.executable, "manage.py", "stop_all", "--yes", *options],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        **{"capture_output": True, "text": True, **streams},
        timeout=120,
    )


@pytest.mark.parametrize("fault", [locked, read_only, damaged], ids=lambda fault: fault.__name__)
def test_command_stops_all_and_the_next_one_records_it(
    fault: Fault, environment: dict[str, str], database: Path, novita: Novita
) -> None:
    with fault(database, None):
        done = run_stop_all(environment, "--reason", "over budget")

        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "All 25 are stopped.", done.stderr
        assert novita.are_all("exited")
        assert "Traceback" not in done.stderr
        assert environment["FALLBACK_DIR"] in done.stderr
    assert list_recorded(database) == []

    assert run_stop_all(environment).returncode == 0

    first, second = sorted(list_recorded(database), key=lambda row: str(row["created_at"]))
    assert first["reason"] == "over budget"
    assert first["success"] == 1
    assert first["states"] == ["confirmed"] * 25
    assert second["success"] == 1
    assert second["states"] == []
    assert list_kept(environment) == []


def test_command_reports_running_instances_when_nothing_can_be_recorded(
    environment: dict[str, str], database: Path, novita: Novita
) -> None:
    novita.fault("stop", "ignore", instanceId=min(novita.get_truth()))
    with locked(database, None):
        done = run_stop_all(environment, "--timeout", "3")

    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "1 of 25 is still running.", done.stderr


def test_command_needs_nothing_but_novita(environment: dict[str, str], tmp_path: Path, novita: Novita) -> None:
    """No database, no Redis, no folder to write to, and no output."""
    nowhere = tmp_path / "a file"
    nowhere.touch()
    bare = {
        **environment,
        "DATABASE_URL": f"sqlite:///{nowhere}/db.sqlite3",
        "REDIS_URL": f"unix://{nowhere}/redis.sock",
        "FALLBACK_DIR": str(nowhere / "fallback"),
    }

    done = run_stop_all(bare)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "All 25 are stopped.", done.stderr
    assert "Not recorded" in done.stderr
    assert novita.are_all("exited")
