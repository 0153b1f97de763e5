"""The worker while Redis or the database fails: it continues, logs the failure once, and ends on a signal."""

import contextlib
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.system.conftest import Start, StartWorker
from tests.system.processes import Novita, Redis, wait_until

NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0", "WEB_WORKERS": "1"}
END_SECONDS = 10
RECOVERY_SECONDS = 5


@pytest.fixture(autouse=True)
def all_running(novita: Novita) -> None:
    """25 running instances."""
    novita.change(running=True)


def set_config(server: Redis, **values: str | int) -> None:
    for name, value in values.items():
        server.client.config_set(name.replace("_", "-"), value)


def fail_to_save(server: Redis) -> None:
    """Make Redis refuse writes, since it can't write to its disk."""
    # A folder that stands where Redis wants to write its file.
    (server.path.parent / "dump.rdb").mkdir(exist_ok=True)
    set_config(server, save="3600 1")
    server.client.bgsave()
    wait_until(lambda: server.client.info("persistence")["rdb_last_bgsave_status"] == "err", "the saving failed")


def want_password(server: Redis) -> None:
    set_config(server, requirepass="changed")
    server.client.client_kill_filter(skipme=True)


def take_password_back(server: Redis) -> None:
    server.client.execute_command("AUTH", "changed")
    set_config(server, requirepass="")


# How Redis is broken, how it is mended, and the log's words about it.
FAULTS: dict[str, tuple[Callable[[Redis], object], Callable[[Redis], object], str]] = {
    "refused": (Redis.end, Redis.start, "Redis can't be reached"),
    "silent": (
        lambda server: server.signal(signal.SIGSTOP),
        lambda server: server.signal(signal.SIGCONT),
        "Redis did not answer in time",
    ),
    "full": (
        lambda server: set_config(server, maxmemory=1),
        lambda server: set_config(server, maxmemory=0),
        "Redis is out of memory",
    ),
    "replica": (
        lambda server: server.client.replicaof("127.0.0.1", "1"),
        lambda server: server.client.replicaof("NO", "ONE"),
        "Redis is a read-only replica",
    ),
    "unsaved": (fail_to_save, lambda server: set_config(server, save=""), "Redis can't write to its disk"),
    "password": (want_password, take_password_back, "Redis refused the login"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_worker_with_a_broken_redis_works_logs_it_once_and_ends_on_a_signal(
    fault: str, start_service: Start, start_worker: StartWorker, redis_process: Redis
) -> None:
    break_, heal, words = FAULTS[fault]
    service = start_service(**NO_SYNC).wait_until_alive()
    worker = start_worker()
    wait_until(lambda: service.get_worker() == "up", "it is up")

    break_(redis_process)
    wait_until(lambda: "redis is unavailable" in worker.log, f"it notices\n{worker.log}")

    assert service.wait_until_finished(service.stop_all(), 60)["success"], worker.log
    heal(redis_process)
    wait_until(lambda: "redis is back after" in worker.log, f"it goes on\n{worker.log}", RECOVERY_SECONDS)
    assert wait_until(lambda: service.get_worker() == "up", "it is seen", RECOVERY_SECONDS)
    assert worker.log.count("redis is unavailable") == 1, worker.log
    assert words in worker.log and "Traceback" not in worker.log

    break_(redis_process)
    wait_until(lambda: worker.log.count("redis is unavailable") == 2, f"it notices again\n{worker.log}")
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.wait(END_SECONDS) == 0, worker.log


def test_worker_started_without_redis_ends_on_a_signal(start_worker: StartWorker, redis_process: Redis) -> None:
    Redis.end(redis_process)
    worker = start_worker()
    wait_until(lambda: "redis is unavailable" in worker.log, "it notices")

    worker.popen.send_signal(signal.SIGTERM)

    assert worker.wait(END_SECONDS) == 0, worker.log


def fill_with_foreign_bytes(client: redis.Redis) -> None:
    """Write foreign data under every name that a Celery worker may use: a queue, its bindings, unacknowledged tasks."""
    junk = [
        b"\x80\x04\x95",
        b"{",
        b"null",
        b"[]",
        b'{"body": 1}',
        b"!!python/object/apply:os.system []",
        b"x" * 5_000_000,
    ]
    junk += [pickle.dumps({"body": object()}), b'{"headers": {"task": "gone.task"}, "properties": {}, "body": "W10="}']
    for queue in ("celery", "novita", *{key.decode() for key in client.keys("*novita*") if b"{" not in key}):
        with contextlib.suppress(redis.ResponseError):
            client.rpush(queue, *junk)
    for name in ("unacked", "unacked_index", "_kombu.binding.novita", "_kombu.binding.celery"):
        client.set(name, b"\xff\xfe")


def test_worker_ignores_foreign_bytes_in_redis(
    start_service: Start, start_worker: StartWorker, redis_process: Redis
) -> None:
    fill_with_foreign_bytes(redis_process.client)
    service = start_service(**NO_SYNC).wait_until_alive()
    worker = start_worker()
    wait_until(lambda: service.get_worker() == "up", f"it is up\n{worker.log}")
    fill_with_foreign_bytes(redis_process.client)
    redis_process.client.set(redis_process.find("worker:*")[0], b"\xff\xfe")

    assert service.wait_until_finished(service.stop_all(), 60)["success"], worker.log
    assert worker.popen.poll() is None
    assert all(words not in worker.log for words in ("away", "ERROR", "CRITICAL", "Traceback")), worker.log


def test_database_outage_is_logged_once_and_the_worker_continues(
    start_service: Start, start_worker: StartWorker, environment: dict[str, str]
) -> None:
    database = Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))
    aside = database.rename(database.with_name("aside"))
    database.symlink_to("gone/db.sqlite3")
    worker = start_worker()
    wait_until(lambda: "database is unavailable" in worker.log, f"it notices\n{worker.log}")
    # A few ticks, each of which could log something.
    time.sleep(2)

    database.unlink()
    aside.rename(database)

    service = start_service(**NO_SYNC).wait_until_alive()
    assert service.wait_until_finished(service.stop_all(), 60)["success"], worker.log
    wait_until(lambda: "database is back after" in worker.log, f"it says so\n{worker.log}")
    assert worker.log.count("database is") == 2 and "Traceback" not in worker.log, worker.log


def test_worker_without_a_database_ends_on_a_signal(start_worker: StartWorker, environment: dict[str, str]) -> None:
    database = Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))
    database.unlink()
    database.symlink_to("gone/db.sqlite3")
    worker = start_worker()
    wait_until(lambda: "database is unavailable" in worker.log, f"it notices\n{worker.log}")

    worker.popen.send_signal(signal.SIGTERM)

    assert worker.wait(END_SECONDS) == 0, worker.log


@pytest.fixture
def silent_receiver() -> Iterator[tuple[str, socket.socket]]:
    """A webhook receiver that accepts connections and never answers: its URL and its socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook", server


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGINT]]
)
def test_worker_ends_soon_while_a_webhook_receiver_hangs(
    signals: list[signal.Signals],
    start_service: Start,
    start_worker: StartWorker,
    silent_receiver: tuple[str, socket.socket],
    environment: dict[str, str],
) -> None:
    url, server = silent_receiver
    environment |= {
        "WEBHOOK_SECRET": "whsec_" + "QUFB" * 8,
        "WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "WEBHOOK_ALLOWED_PORTS": url.split(":")[2].split("/")[0],
    }
    service = start_service(**NO_SYNC).wait_until_alive()
    worker = start_worker()
    service.stop_all(webhookUrl=url)
    server.settimeout(60)
    connection, _ = server.accept()

    for number in signals:
        worker.popen.send_signal(number)
        time.sleep(0.3)

    worker.wait(END_SECONDS)
    # The call was cancelled; by itself it takes longer. Calls that can't be cancelled have a limit of their own.
    assert "the next worker continues" not in worker.log
    connection.close()
    start_worker()
    # The webhook is sent again soon.
    server.settimeout(20)
    server.accept()[0].close()


def test_worker_stuck_in_a_statement_ends_on_a_signal(
    start_service: Start, start_worker: StartWorker, environment: dict[str, str], tmp_path: Path
) -> None:
    # Opening a pipe for reading blocks until another process writes, like a hanging file system.
    database = tmp_path / "hanging"
    os.mkfifo(database)
    worker = start_worker(DATABASE_URL=f"sqlite:///{database}")
    time.sleep(5)

    worker.popen.send_signal(signal.SIGTERM)

    worker.wait(END_SECONDS)
