"""What records cost: bytes of the database for each, and MB a year for a team: `python -m benchmarks.retention`.

Stores 20,000 records of each kind in an SQLite file, with their indexes. Sizes don't depend on how busy a machine is.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import records

ROWS = 20_000
# A team of 1,000 instances that change ten times a day each: records a day.
DAILY = {
    "KEEP_SYNCS_DAYS": ("synchronization with 7 changes", 1440),
    "KEEP_OPERATIONS_DAYS": ("instance of an operation", 1000),
    "KEEP_ACTIVITY_DAYS": ("entry", 500),
    "KEEP_LOGINS_DAYS": ("login", 100),
    "KEEP_COSTS_DAYS": ("time in one state", 10_000),
    "KEEP_FINDINGS_DAYS": ("finding with two steps", 100),
    "KEEP_MESSAGES_DAYS": ("message", 200),
}


def main() -> None:
    fills = {
        "KEEP_SYNCS_DAYS": fill_syncs,
        "KEEP_OPERATIONS_DAYS": fill_operations,
        "KEEP_ACTIVITY_DAYS": fill_entries,
        "KEEP_LOGINS_DAYS": fill_logins,
        "KEEP_COSTS_DAYS": fill_costs,
        "KEEP_FINDINGS_DAYS": fill_findings,
        "KEEP_MESSAGES_DAYS": fill_messages,
    }
    for setting, fill in fills.items():
        before = read_size()
        fill()
        size = (read_size() - before) / ROWS
        what, daily = DAILY[setting]
        print(f"| `{setting}` | {what} | {size:.0f} | {daily:,} | {size * daily * 365 / 1e6:,.0f} |", flush=True)


def read_size() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        size: int = cursor.fetchone()[0]
        return size


def numbers() -> Iterator[int]:
    return iter(range(ROWS))


def fill_syncs() -> None:
    from instances.models import SyncRun

    records.save(SyncRun, (records.make_run(number) for number in numbers()))


def fill_operations() -> None:
    """Of 50 instances each: a target carries a fiftieth of its operation."""
    from instances.models import Operation, Target

    operations = [records.make_operation(number) for number in range(ROWS // 50)]
    records.save(Operation, iter(operations))
    records.save(Target, (records.make_target(number, operations[number // 50]) for number in numbers()))


def fill_entries() -> None:
    from instances.models import AuditEntry

    records.save(AuditEntry, (records.make_entry(number) for number in numbers()))


def fill_logins() -> None:
    from instances.models import AuditEntry

    def make(number: int) -> Any:
        return AuditEntry(at=records.at(number), actor="person-1", address="10.0.0.7", action="login", outcome="done")

    records.save(AuditEntry, (make(number) for number in numbers()))


def fill_costs() -> None:
    from instances.models import MeteredInstance, UsageInterval

    names = range(records.INSTANCES)
    records.save(MeteredInstance, (MeteredInstance(instance_id=records.make_id(one), gpu="H100") for one in names))
    keys = list(MeteredInstance.objects.values_list("pk", flat=True))
    records.save(UsageInterval, (records.make_interval(number, keys) for number in numbers()))


def fill_findings() -> None:
    from instances.models import Finding, FindingStep, Policy

    policy = Policy.objects.create(name="nights", rule="idle")
    records.save(Finding, (records.make_finding(number, policy) for number in numbers()))
    for state in ("warned", "cleared"):
        keys = Finding.objects.values_list("pk", flat=True)
        records.save(FindingStep, (FindingStep(finding_id=pk, state=state, reason="no work above 5 %") for pk in keys))


def fill_messages() -> None:
    """An event for one channel, sent at once."""
    from instances.models import Channel, Event, Message, MessageAttempt

    channel = Channel.objects.create(name="team", receiver="https://hooks.example.com", sealed_url="x")
    records.save(Event, (records.make_event(number) for number in numbers()))
    keys = Event.objects.values_list("pk", flat=True)
    records.save(Message, (records.make_message(number, pk, channel) for number, pk in enumerate(keys)))
    sent = Message.objects.values_list("pk", flat=True)
    records.save(MessageAttempt, (MessageAttempt(message_id=pk, status=200, milliseconds=120) for pk in sent))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": records.SETTINGS,
            "TEST_DATABASE_URL": f"sqlite:///{Path(folder) / 'records.sqlite3'}",
        }
        subprocess.run([sys.executable, "-m", "django", "migrate", "-v0"], env=environment, check=True)
        program = "import django; django.setup(); from benchmarks import retention; retention.main()"
        sys.exit(subprocess.call([sys.executable, "-c", program], env=environment))
