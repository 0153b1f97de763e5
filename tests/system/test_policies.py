"""Policies with real workers: a killed one, no Redis, metrics that fail, and a receiver of notifications that is down.

The tests move the watch in the database, so that a grace period passes at once.
"""

import contextlib
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import python
from tests.system.conftest import make_environment, simulate_novita
from tests.system.processes import ROOT, Novita, Redis, Service, Worker, ended, find_free_port, wait_until
from tests.test_webhooks import SECRET, Receiver, answer

ADD_CHANNEL = """
import django, sys; django.setup()
from instances.models import Channel
from instances.notifications import sealing
Channel.objects.create(name="team", receiver="-", sealed_url=sealing.seal(sys.argv[1]), kinds=["policy.warning"])
"""


class Panel:
    """A service with 25 running instances, and what its tests look at."""

    def __init__(self, folder: Path, service: Service, redis_process: Redis, novita: Novita, port: int) -> None:
        self.folder, self.service, self.redis, self.novita = folder, service, redis_process, novita
        self.receiver_port = port
        self.rows = [row for _, row in sorted(novita.get_truth().items()) if row["gpuNum"] != "0"]

    def fetch(self, statement: str, *values: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.folder / "db.sqlite3", timeout=30)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def take_instance(self) -> dict[str, Any]:
        """Return an instance that no other test uses."""
        return self.rows.pop()

    def add_policy(self, row: dict[str, Any], **fields: Any) -> int:
        """Add a policy that stops this instance after a warning of 30 minutes, and return its id."""
        wish = {"name": f"of {row['id']}", "mode": "stop", "namePattern": row["name"], "warningMinutes": 30, **fields}
        answered = self.service.post("/api/policies", json=wish)
        assert answered.status_code == 201, answered.text
        return int(answered.json()["id"])

    def list_findings(self, policy: int, state: str = "") -> list[dict[str, Any]]:
        query = {"policy": policy, **({"state": state} if state else {})}
        findings: list[dict[str, Any]] = self.service.get("/api/policies/findings", params=query).json()["findings"]
        return findings

    def wait_for(self, policy: int, state: str) -> None:
        wait_until(lambda: self.list_findings(policy, state), f"the finding is {state}\n{self.service.log}")

    def pass_watch(self, minutes: float) -> None:
        """Let workers have watched for so many minutes. An evaluation that runs meanwhile writes its own time."""
        ((began,),) = self.fetch("SELECT watch_seconds FROM instances_evaluationstate")

        def is_passed() -> bool:
            self.fetch("UPDATE instances_evaluationstate SET watch_seconds = ? WHERE claim = ''", began + 60 * minutes)
            return bool(
                self.fetch("SELECT 1 FROM instances_evaluationstate WHERE watch_seconds >= ?", began + 60 * minutes)
            )

        wait_until(is_passed, "the watch has moved")

    def wait_for_evaluations(self, count: int = 2) -> None:
        for _ in range(count):
            before = self.fetch("SELECT evaluated_at FROM instances_evaluationstate")
            wait_until(
                lambda seen=before: self.fetch("SELECT evaluated_at FROM instances_evaluationstate") != seen,
                "the policies are evaluated",
            )

    def count_stops(self, row: dict[str, Any]) -> int:
        return self.novita.list_stops().count(row["id"])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[dict[str, Any]]:
    folder, port = tmp_path_factory.mktemp("policies"), find_free_port()
    with simulate_novita() as novita, ended(Redis(folder)) as redis_process:
        novita.change(running=True)
        variables = {
            **make_environment(folder, redis_process, novita, migrated_database),
            "DJANGO_SETTINGS_MODULE": "tests.system.policy_settings",
            "WEBHOOK_SECRET": SECRET,
            "WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
            "WEBHOOK_ALLOWED_PORTS": str(port),
        }
        yield {"folder": folder, "variables": variables, "redis": redis_process, "novita": novita, "port": port}


@pytest.fixture(scope="module")
def panel(environment: dict[str, Any]) -> Iterator[Panel]:
    folder = environment["folder"]
    with ended(Service(environment["variables"], folder)) as service:
        service.wait_until_ready()
        yield Panel(folder, service, environment["redis"], environment["novita"], environment["port"])


@pytest.fixture(scope="module")
def worker(environment: dict[str, Any], panel: Panel) -> Iterator[Worker]:
    with ended(Worker(environment["variables"], environment["folder"])) as worker:
        yield worker


def test_instance_is_stopped_once_after_the_full_grace_period_although_a_worker_was_killed(
    panel: Panel, worker: Worker, environment: dict[str, Any]
) -> None:
    row = panel.take_instance()
    with ended(Worker(environment["variables"], environment["folder"])) as killed:
        policy = panel.add_policy(row, rule="lease", maxHours=0.1)
        panel.wait_for(policy, "warned")
        wait_until(lambda: "Traceback" not in killed.log and panel.redis.find("worker:*"), "workers work")
        killed.signal(signal.SIGKILL)
    # Had it held the turn, another worker would take over after two minutes.
    panel.fetch("UPDATE instances_evaluationstate SET claim = '', claimed_until = NULL")
    panel.pass_watch(minutes=29)
    panel.wait_for_evaluations(3)
    assert panel.count_stops(row) == 0

    panel.pass_watch(minutes=1)

    panel.wait_for(policy, "stopped")
    assert panel.count_stops(row) == 1
    ((watched,),) = panel.fetch(
        "SELECT stopping_watch - warned_watch FROM instances_finding WHERE instance_id = ?", row["id"]
    )
    assert watched >= 30 * 60


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "hang"},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
        {"kind": "status", "status": 200, "body": {"gpuUtilization": {"gpuIds": [{"items": "none"}]}}},
    ],
    ids=["hanging", "limiting the rate", "nonsense"],
)
def test_failing_metrics_stop_nothing_and_delay_nothing(fault: dict[str, Any], panel: Panel, worker: Worker) -> None:
    idle, other = panel.take_instance(), panel.take_instance()
    panel.novita.fault("metrics", **fault)
    policy = panel.add_policy(idle, rule="idle", startGraceMinutes=0)
    wait_until(lambda: panel.novita.count_fired(fault["kind"]), f"metrics are read\n{worker.log}")
    panel.pass_watch(minutes=120)
    panel.wait_for_evaluations()

    assert panel.service.post("/api/instances/sync").ok
    ordered = panel.service.stop_all(ids=[other["id"]])
    assert panel.service.wait_until_finished(ordered)["success"]

    assert panel.list_findings(policy) == []
    assert panel.count_stops(idle) == 0
    panel.novita.clear_faults()
    panel.service.session.delete(f"{panel.service.url}/api/policies/{policy}", timeout=30)


def test_each_event_reaches_a_receiver_that_was_down_once_and_under_one_id(
    panel: Panel, worker: Worker, environment: dict[str, Any]
) -> None:
    url = f"http://127.0.0.1:{panel.receiver_port}/hook?token=FAKE-SECRET-hook"
    command = [sys.executable, "-c", ADD_CHANNEL, url]
    python.run(command, cwd=ROOT, env=environment["variables"], check=True)
    policies = [panel.add_policy(panel.take_instance(), rule="lease", maxHours=0.1) for _ in range(2)]
    attempts = "SELECT error FROM instances_messageattempt ORDER BY id"
    wait_until(lambda: len(panel.fetch(attempts)) == 2, "both were tried while the receiver is down")
    receiver = Receiver(answer("503 Service Unavailable"), port=panel.receiver_port)
    with contextlib.closing(receiver):
        try_again = "UPDATE instances_message SET next_attempt_at = '2020-01-01 00:00:00' WHERE state = 'due'"
        panel.fetch(try_again)
        wait_until(lambda: len(panel.fetch(attempts)) == 4, "both were tried while the receiver fails")
        receiver.write = answer("200 OK")
        panel.fetch(try_again)

        sent = "SELECT message_id FROM instances_message WHERE state = 'sent' ORDER BY message_id"
        wait_until(lambda: len(panel.fetch(sent)) == 2, "both are sent")
        panel.wait_for_evaluations()

    ids = [message_id for (message_id,) in panel.fetch(sent)]
    assert panel.fetch("SELECT COUNT(*) FROM instances_message") == [(2,)]
    assert sorted(headers["webhook-id"] for _, headers, _ in receiver.requests) == sorted([*ids, *ids])
    assert [bool(error) for (error,) in panel.fetch(attempts)] == [True, True, True, True, False, False]
    told = "".join(f"{headers}{body!r}" for _, headers, body in receiver.requests)
    assert not re.search("FAKE-SECRET|whsec_", told + worker.log + panel.service.log)
    for policy in policies:
        panel.service.session.delete(f"{panel.service.url}/api/policies/{policy}", timeout=30)


def test_instance_that_is_due_is_not_stopped_while_redis_is_gone(panel: Panel, worker: Worker) -> None:
    row = panel.take_instance()
    policy = panel.add_policy(row, rule="lease", maxHours=0.1)
    panel.wait_for(policy, "warned")
    Redis.end(panel.redis)
    panel.pass_watch(minutes=60)

    panel.wait_for_evaluations(3)

    assert panel.count_stops(row) == 0
    panel.redis.start()
    panel.service.wait_until_ready()
    wait_until(lambda: panel.pass_watch(minutes=31) or panel.list_findings(policy, "stopped"), "it is stopped later")
    assert panel.count_stops(row) == 1
