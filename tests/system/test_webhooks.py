"""Webhooks from real processes to real receivers: killed and simultaneous senders, slow receivers, and TLS."""

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from tests.system.conftest import Start, StartWorker
from tests.system.processes import ROOT, Novita, Process, find_free_port, wait_until
from tests.test_webhooks import (
    OLDER_SECRET,
    SECRET,
    SECRET_PATH,
    Receiver,
    answer,
    drip,
    hang,
    make_certificate,
    verify,
)

SETUP = "import django; django.setup(); import os, pathlib, sys, time; from instances.notifications import webhooks; "
MAKE_DUE = """
from django.utils import timezone
from instances.models import Operation
operation = Operation.objects.create(
    kind="stop", is_whole_account=True, selection=time.time_ns(), deadline_at=timezone.now()
)
webhooks.check_url(sys.argv[1])
webhooks.register(operation, sys.argv[1])
webhooks.release(operation)
print(operation.webhook.pk)
"""
DELIVER = """
pathlib.Path(f"{sys.argv[2]}-is-awaited-by-{os.getpid()}").touch()
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.001)
webhooks.deliver(int(sys.argv[1]))
"""


def fetch(database: Path | str, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        return connection.execute(statement).fetchall()


class Sender:
    """Processes that send webhooks from one database file."""

    def __init__(self, folder: Path, receivers: list[Receiver]) -> None:
        self.database = folder / "db.sqlite3"
        self.go = folder / "go"
        self.go.touch()
        self._started: list[Process] = []
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "novita_site.settings",
            "SECRET_KEY": "FAKE-SECRET-django",
            "DATABASE_URL": f"sqlite:///{self.database}",
            "WEBHOOK_SECRET": SECRET,
            "WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
            "WEBHOOK_ALLOWED_PORTS": ",".join(str(receiver.port) for receiver in receivers),
        }

    def start(self, code: str, *arguments: object) -> Process:
        command = [sys.executable, "-c", SETUP + code, *map(str, arguments)]
        log = self.database.with_name(f"sender-{len(self._started)}.log")
        process = Process(command, self._environment, log)
        self._started.append(process)
        return process

    def run(self, code: str, *arguments: object) -> str:
        """Return the output of a process, with its log."""
        process = self.start(code, *arguments)
        assert process.wait(60) == 0, process.log
        return process.log

    def make_due(self, url: str) -> int:
        return int(self.run(MAKE_DUE, url).splitlines()[-1])

    def deliver(self, delivery_id: int) -> str:
        """Try once, and return the log."""
        return self.run(DELIVER, delivery_id, self.go)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        return fetch(self.database, statement)

    def end(self) -> None:
        for process in self._started:
            process.end()


Begin = Callable[..., Sender]


@pytest.fixture
def begin(tmp_path: Path, migrated_database: Path) -> Iterator[Begin]:
    """Start a sender that may send webhooks to these receivers. All of its processes end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*receivers: Receiver) -> Sender:
            for receiver in receivers:
                stack.callback(receiver.close)
            shutil.copy(migrated_database, tmp_path / "db.sqlite3")
            sender = Sender(tmp_path, list(receivers))
            stack.callback(sender.end)
            return sender

        yield start


def test_webhook_arrives_signed_and_leaves_no_secret_behind(begin: Begin) -> None:
    receiver = Receiver(answer("200 OK"))
    sender = begin(receiver)

    log = sender.deliver(sender.make_due(receiver.url + SECRET_PATH))

    [(path, headers, body)] = receiver.requests
    assert path == SECRET_PATH
    assert verify(headers, body, SECRET)
    assert f"to {receiver.url}: HTTP 200" in log
    sender.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"FAKE-SECRET" not in sender.database.read_bytes() and "FAKE-SECRET" not in log


def test_simultaneous_workers_send_a_webhook_once(begin: Begin) -> None:
    receiver = Receiver(answer("200 OK"))
    sender = begin(receiver)
    delivery_id = sender.make_due(receiver.url)
    sender.go.unlink()
    processes = [sender.start(DELIVER, delivery_id, sender.go) for _ in range(4)]
    wait_until(lambda: len(list(sender.go.parent.glob("go-is-awaited-by-*"))) == 4, "all four are ready")

    sender.go.touch()

    assert [process.wait(60) for process in processes] == [0] * 4
    assert len(receiver.requests) == 1
    assert sender.execute("SELECT state, tries FROM instances_webhookdelivery") == [("delivered", 1)]


def test_webhook_of_a_killed_worker_is_sent_again_with_the_same_id(begin: Begin) -> None:
    receiver = Receiver(hang)
    sender = begin(receiver)
    delivery_id = sender.make_due(receiver.url)
    process = sender.start(DELIVER, delivery_id, sender.go)
    wait_until(lambda: receiver.requests, "the request came")

    process.end()
    receiver.write = answer("200 OK")
    sender.deliver(delivery_id)

    # No process has noticed yet that the worker is dead.
    assert len(receiver.requests) == 1
    sender.execute("UPDATE instances_webhookdelivery SET next_attempt_at = datetime('now', '-1 second')")
    sender.deliver(delivery_id)
    (_, first, _), (_, second, _) = receiver.requests
    assert first["webhook-id"] == second["webhook-id"]
    assert sender.execute("SELECT state, tries FROM instances_webhookdelivery") == [("delivered", 2)]


def test_worker_whose_claim_expired_keeps_the_next_ones_record(begin: Begin) -> None:
    waits = threading.Event()

    def write(connection: socket.socket) -> None:
        waits.wait(9)
        answer("500 Broken")(connection)

    receiver = Receiver(write)
    sender = begin(receiver)
    process = sender.start(DELIVER, sender.make_due(receiver.url), sender.go)
    wait_until(lambda: receiver.requests, "the request came")
    # Another worker has taken over the webhook.
    sender.execute("UPDATE instances_webhookdelivery SET tries = 2, next_attempt_at = '2040-01-01 00:00:00'")

    waits.set()

    assert process.wait(60) == 0
    assert sender.execute("SELECT state, next_attempt_at FROM instances_webhookdelivery") == [
        ("due", "2040-01-01 00:00:00")
    ]
    assert sender.execute("SELECT status FROM instances_webhookattempt") == [(500,)]


def test_slow_receiver_is_cut_after_ten_seconds_and_delays_no_other(begin: Begin) -> None:
    slow, quick = Receiver(drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", seconds=20)), Receiver(answer("200 OK"))
    sender = begin(slow, quick)
    first, second = sender.make_due(slow.url), sender.make_due(quick.url)
    process = sender.start(DELIVER, first, sender.go)
    wait_until(lambda: slow.requests, "the slow one's request came")

    sender.deliver(second)

    assert process.popen.poll() is None
    assert len(quick.requests) == 1
    process.wait(30)
    assert "No answer within 10 s." in process.log
    [(milliseconds, error)] = sender.execute(
        f"SELECT milliseconds, error FROM instances_webhookattempt WHERE delivery_id = {first}"  # noqa: S608 - a number
    )
    assert isinstance(milliseconds, int) and 9_900 <= milliseconds < 12_000
    assert error == "No answer within 10 s."


def test_untrusted_certificate_gets_no_webhook(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(answer("200 OK"), tls=make_certificate(tmp_path, "127.0.0.1"))
    # The environment does not change the trusted certificates either.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    sender = begin(receiver)

    log = sender.deliver(sender.make_due(receiver.url))

    assert "The receiver's certificate is not trusted." in log
    assert receiver.requests == []
    assert receiver.connections == 1


def load_example() -> Callable[..., dict[str, Any]]:
    """Return the function of the documentation that checks a signature."""
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Callable[..., dict[str, Any]]] = {}
    exec(example, names)  # noqa: S102 - lines of this repository
    return names["read_event"]


def test_receiver_that_was_down_gets_the_result_with_a_signature_that_the_documented_example_accepts(
    start_service: Start, start_worker: StartWorker, environment: dict[str, str], novita: Novita
) -> None:
    port = find_free_port()
    settings = {"WEBHOOK_SECRET": SECRET, "WEBHOOK_ALLOWED_HOSTS": "127.0.0.1", "WEBHOOK_ALLOWED_PORTS": str(port)}
    novita.change(set={id_: {"status": "running"} for id_ in novita.get_truth()})
    novita.fault("stop", "ignore", instanceId=min(novita.get_truth()))
    service = start_service(**settings, NOVITA_STOP_DEADLINE="6").wait_until_ready()
    start_worker(**settings)

    ordered = service.stop_all(webhookUrl=f"http://127.0.0.1:{port}{SECRET_PATH}")
    operation = service.wait_until_finished(ordered)
    database = environment["DATABASE_URL"].removeprefix("sqlite:///")
    wait_until(lambda: fetch(database, "SELECT error FROM instances_webhookattempt"), "the first attempt fails")
    with contextlib.closing(Receiver(answer("200 OK"), port=port)) as receiver:
        [(path, headers, body)] = wait_until(lambda: receiver.requests, "the event comes once the receiver is there")
        states = "SELECT state FROM instances_webhookdelivery"
        wait_until(lambda: fetch(database, states) == [("delivered",)], "the delivery is recorded as final")

        assert len(receiver.requests) == 1, "it is sent once"
    event = json.loads(body)
    assert path == SECRET_PATH
    assert event["type"] == "operation.finished"
    assert event["data"]["result"] == "1 of 25 is still running."
    assert [one["state"] for one in event["data"]["unconfirmed"]] == ["stillRunning"]
    assert event["data"]["url"] == f"{service.url}/api/operations/{operation['id']}"
    read_event = load_example()
    assert read_event(headers, body, SECRET) == event
    old = {**dict(headers.items()), "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 3600)}
    for forgery in [
        (headers, body.replace(b"1 of 25", b"0 of 25"), SECRET),
        (headers, body, OLDER_SECRET),
        (old, body, SECRET),
    ]:
        with pytest.raises(WebhookVerificationError):
            read_event(*forgery)
