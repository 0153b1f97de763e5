"""How long the pages of records take with 100,000 rows of each kind: `python -m benchmarks.records [--postgresql]`.

Django's test client, a Redis in memory, and an SQLite file or a PostgreSQL server of its own. Prints CPU
milliseconds, of this process and of its PostgreSQL process together: the median of three reads. A busy machine makes
any other time meaningless.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SETTINGS = "tests.settings"
ROWS = 100_000
NOW = datetime.now(UTC)
# A team of this size: each of 1,000 instances changes ten times a day, so a synchronization finds seven changes.
INSTANCES = 1000
CHANGES_EACH = 7
MAX_MS = 300
# A word of some rows, of none, and of all.
WORDS = ("worker-417", "nobody-has-this", "train")
PATHS = {
    "sync history": "/admin/instances/syncrun/",
    "operations": "/admin/instances/operation/",
    "operation results": "/admin/instances/target/",
    "activity entries": "/admin/instances/auditentry/",
    "findings": "/admin/instances/finding/",
    "snoozes": "/admin/instances/snooze/",
    "events": "/admin/instances/event/",
    "notifications": "/admin/instances/message/",
    "webhook deliveries": "/admin/instances/webhookdelivery/",
    "ledger": "/admin/instances/usageinterval/",
}
API_PATHS = {
    "operations, first page": "/api/operations",
    "operations, page 1,000": "/api/operations?page=1000",
    "operations, finished": "/api/operations?state=finished",
    "findings": "/api/policies/findings",
    "findings of an instance": "/api/policies/findings?instance=worker-000417",
    "activity": "/api/activity",
    "activity of an instance": "/api/activity?instance=worker-000417",
    "activity of a person": "/api/activity?actor=person-17",
    "activity, changes": "/api/activity?kind=change",
    "activity, settings": "/api/activity?kind=settings",
    "activity, synchronizations": "/api/activity?kind=sync",
    "activity page": "/activity/",
    "protections": "/api/protections",
    "overview": "/api/overview",
}


def name(number: int) -> str:
    return f"train-worker-{number % INSTANCES}"


def make_id(number: int) -> str:
    return f"worker-{number % INSTANCES:06}"


def at(number: int) -> datetime:
    """Return the time of row `number`: one a minute, the last one now."""
    return NOW - timedelta(minutes=ROWS - number)


def fill() -> None:
    """Store 100,000 rows of each kind."""
    from instances import models

    policy = models.Policy.objects.create(name="nights", rule="idle")
    channel = models.Channel.objects.create(name="team", receiver="https://hooks.example.com", sealed_url="x")
    save(models.SyncRun, (make_run(number) for number in range(ROWS)))
    save(models.AuditEntry, (make_entry(number) for number in range(ROWS)))
    operations = [make_operation(number) for number in range(ROWS)]
    save(models.Operation, iter(operations))
    save(models.Target, (make_target(number, one) for number, one in enumerate(operations)))
    save(models.WebhookDelivery, (make_delivery(number, one) for number, one in enumerate(operations)))
    save(models.Finding, (make_finding(number, policy) for number in range(ROWS)))
    findings = models.Finding.objects.values_list("pk", "began_at").order_by("pk")
    steps = (models.FindingStep(finding_id=pk, at=began, state="warned", reason="no work") for pk, began in findings)
    save(models.FindingStep, steps)
    save(models.Snooze, (make_snooze(number, policy) for number in range(ROWS)))
    save(models.Event, (make_event(number) for number in range(ROWS)))
    events = models.Event.objects.values_list("pk", flat=True).order_by("pk")
    save(models.Message, (make_message(number, pk, channel) for number, pk in enumerate(events)))
    metered = [models.MeteredInstance(instance_id=make_id(one), name=name(one), gpu="H100") for one in range(INSTANCES)]
    save(models.MeteredInstance, iter(metered))
    keys = list(models.MeteredInstance.objects.values_list("pk", flat=True))
    save(models.UsageInterval, (make_interval(number, keys) for number in range(ROWS)))


def save(model: Any, rows: Iterator[Any]) -> None:
    model.objects.bulk_create(rows, batch_size=2000)


def make_run(number: int) -> Any:
    from instances.models import SyncRun

    changed = [
        {"id": make_id(one), "name": name(one), "fields": {"status": ["running", "exited"], "group": ["on", "off"]}}
        for one in range(number * CHANGES_EACH, (number + 1) * CHANGES_EACH)
    ]
    return SyncRun(
        started_at=at(number),
        trigger="interval",
        outcome="failed" if number % 100 == 0 else "succeeded",
        error="Novita did not answer in time." if number % 100 == 0 else "",
        novita_instances=INSTANCES,
        changed=changed,
        changed_count=len(changed),
    )


def make_entry(number: int) -> Any:
    from instances.models import AuditEntry

    return AuditEntry(
        at=at(number),
        actor=f"person-{number % 40}",
        address="10.0.0.7",
        request_id=f"{number:032x}",
        action="instance.stop" if number % 3 else "policy.change",
        target=make_id(number),
        target_name=name(number),
        reason="not needed over the weekend, says the team of training",
        outcome="done",
    )


def make_operation(number: int) -> Any:
    from instances.models import Operation

    return Operation(
        kind="stop",
        is_whole_account=False,
        selection=f"{number:064x}",
        state="finished",
        requested_by=f"person-{number % 40}",
        reason="not needed over the weekend, says the team of training",
        request_id=f"{number:032x}",
        created_at=at(number),
        deadline_at=at(number) + timedelta(minutes=10),
        finished_at=at(number) + timedelta(minutes=1),
        success=True,
        result="All 1 are stopped.",
    )


def make_target(number: int, operation: Any) -> Any:
    from instances.models import Target

    return Target(operation=operation, instance_id=make_id(number), name=name(number), state="confirmed")


def make_delivery(number: int, operation: Any) -> Any:
    from instances.models import WebhookDelivery

    return WebhookDelivery(
        operation=operation,
        message_id=f"msg_{number:032x}",
        receiver=f"https://hooks-{number % 5}.example.com",
        sealed_url="x" * 200,
        state="delivered",
        payload="{" + "y" * 900 + "}",
        created_at=at(number),
        ended_at=at(number),
    )


def make_finding(number: int, policy: Any) -> Any:
    from instances.models import Finding

    return Finding(
        policy=policy,
        policy_name="nights",
        policy_version=1,
        mode="observe",
        instance_id=make_id(number),
        name=name(number),
        state="cleared",
        reason="no work above 5 % since 17:00",
        since=at(number),
        began_at=at(number),
        ended_at=at(number) + timedelta(minutes=30),
    )


def make_snooze(number: int, policy: Any) -> Any:
    from instances.models import Snooze

    return Snooze(
        policy=policy, instance_id=make_id(number), name=name(number), until=at(number), by="person-1", at=at(number)
    )


def make_event(number: int) -> Any:
    from instances.models import Event

    lines = [f"{name(number + one)}: stopped" for one in range(5)]
    title = f"{name(number)} changed outside the panel"
    return Event(kind="outside.change", key=f"{number:064x}", title=title, lines=lines, created_at=at(number))


def make_message(number: int, event: int, channel: Any) -> Any:
    from instances.models import Message

    return Message(event_id=event, channel=channel, message_id=f"msg_{number:032x}", state="sent", ended_at=NOW)


def make_interval(number: int, keys: list[int]) -> Any:
    from instances.models import UsageInterval

    began = round(at(number).timestamp() * 1000)
    key = keys[number % len(keys)]
    return UsageInterval(instance_id=key, state=1, began_ms=began, ended_ms=began + 60_000, price=3_500_000_000, gpus=1)


def measure(path: str) -> float:
    """Return the median CPU milliseconds of three reads of an address."""
    from django.test import Client

    client = Client(SERVER_NAME="localhost")
    spent = []
    for _ in range(3):
        began = read_cpu_ms()
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.content[:500])
        spent.append(read_cpu_ms() - began)
    return statistics.median(spent)


def read_cpu_ms() -> float:
    """Return the CPU time of this process, and of the server's process for its connection."""
    from django.db import connection

    own = 1000 * time.process_time()
    if connection.vendor == "sqlite":
        return own
    connection.ensure_connection()
    fields = Path(f"/proc/{connection.connection.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    return own + 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    from django.db import connection

    from instances.admin import searching
    from instances.models import SyncRun

    # To measure what would be given up, too.
    searching.PAGE_SECONDS = 60.0  # type: ignore[misc]  # a constant, for this measurement only
    began = time.monotonic()
    if not SyncRun.objects.exists():
        fill()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        if connection.vendor == "postgresql":
            # So that one process does all the work, which is measured.
            cursor.execute("SET max_parallel_workers_per_gather = 0")
    print(f"{connection.vendor}, {ROWS:,} rows of each kind, filled in {time.monotonic() - began:.0f} s")
    slow = []
    for title, path in PATHS.items():
        figures = [measure(path), *(measure(f"{path}?q={word}") for word in WORDS)]
        print(f"{title:>28}: {' '.join(f'{one:8.0f}' for one in figures)} ms", flush=True)
        slow += [title] if max(figures) > MAX_MS else []
    for title, path in API_PATHS.items():
        figure = measure(path)
        print(f"{title:>28}: {figure:8.0f} ms", flush=True)
        slow += [title] if figure > MAX_MS else []
    sys.exit(f"more than {MAX_MS} ms: {', '.join(slow)}" if slow else None)


def run(database_url: str) -> int:
    """Run `main` in a process with this database."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, "TEST_DATABASE_URL": database_url}
    program = "import django; django.setup(); from benchmarks import records; records.main()"
    migrate = [sys.executable, "-m", "django", "migrate", "-v0"]
    subprocess.run(migrate, env=environment, check=True)
    return subprocess.call([sys.executable, "-c", program], env=environment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL instead of SQLite")
    if parser.parse_args().postgresql:
        from tests.system.postgresql import running

        with running() as server:
            sys.exit(run(server.url))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(run(f"sqlite:///{Path(folder) / 'records.sqlite3'}"))
