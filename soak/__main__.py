"""Run the panel under load while its processes are killed, and check what it promises: `make soak`.

Exit status 0 when every promise held, 1 otherwise. The same seed repeats the schedule of kills.
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
# With a variable of Python's, the tests' helpers start each process for real, and not as a fork that has imported all.
os.environ.setdefault("PYTHONNOUSERSITE", "1")
django.setup()

from instances import simulator
from soak import checks, schedule
from soak.account import WITNESS, CountingAccount
from soak.load import Load
from soak.panel import Panel
from soak.receiver import Receiver

DRAIN_SECONDS = 120
UNSETTLED = """
SELECT (SELECT count(*) FROM instances_operation WHERE finished_at IS NULL)
    + (SELECT count(*) FROM instances_webhookdelivery WHERE state IN ('waiting', 'due'))
    + (SELECT count(*) FROM instances_message WHERE state = 'due')
"""
STOP_ORDERS = """
SELECT instance_id, created_at, finished_at FROM instances_target
    JOIN instances_operation ON instances_operation.id = operation_id WHERE kind = 'stop'
"""
SHOWN_FAULTS = 12


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--instances", type=int, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--folder", type=Path, help="keep the logs and the database in this folder")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        sys.exit(soak(stack, folder, options.minutes * 60, options.instances, options.seed))


def soak(stack: ExitStack, folder: Path, seconds: float, instances: int, seed: int) -> int:
    """Run it, print the summary, and return the exit status."""
    blows = schedule.plan(seed, seconds)
    print(f"Soak of {seconds / 60:g} minutes, {instances} instances, {len(blows)} kills, --seed {seed}.", flush=True)
    account = CountingAccount(instances)
    novita = stack.enter_context(simulator.start(account))
    receiver = Receiver(seed)
    stack.callback(receiver.shutdown)
    panel = Panel(folder, novita.url, receiver.server_port)
    stack.callback(panel.end)
    panel.wait_until_ready()
    oracle = checks.Oracle(account.list_group(WITNESS))
    load = Load(panel, account, oracle, f"http://127.0.0.1:{receiver.server_port}/operations", seed)
    load.start()
    began = time.monotonic()
    for blow in blows:
        time.sleep(max(0.0, began + blow.at - time.monotonic()))
        panel.strike(blow)
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    load.end()
    drained = drain(panel)
    results = judge(panel, account, load, receiver)
    return report(panel, load, receiver, results, drained, seconds, seed)


def drain(panel: Panel) -> float:
    """Wait until no operation runs and no message is due. Return the seconds."""
    began = time.monotonic()
    while panel.fetch(UNSETTLED)[0][0] and time.monotonic() < began + DRAIN_SECONDS:
        time.sleep(1)
    return time.monotonic() - began


def judge(panel: Panel, account: CountingAccount, load: Load, receiver: Receiver) -> dict[str, list[str]]:
    """Return the faults of each promise."""
    recorded = {
        format_id(id_): bool(ended) for id_, ended in panel.fetch("SELECT id, finished_at FROM instances_operation")
    }
    hooks = {
        mid: format_id(op) for mid, op in panel.fetch("SELECT message_id, operation_id FROM instances_webhookdelivery")
    }
    messages = dict(panel.fetch("SELECT message_id, event_id FROM instances_message"))
    told = {key for (key,) in panel.fetch("SELECT key FROM instances_event")}
    mixed = [fault for fault in load.faults if "listing" in fault or "ETag" in fault]
    return {
        "No mixed, older or incomplete listing was read.": mixed,
        "Each accepted operation is recorded and has ended.": checks.check_operations(load.accepted, recorded),
        "Each webhook arrived, under one id.": [
            *checks.check_sent(
                "webhook",
                hooks,
                [(mid, body["data"]["operationId"]) for mid, body in receiver.list_received("/operations")],
            ),
            *(
                f"The operation {id_} has no webhook."
                for id_, has in load.accepted.items()
                if has and id_ not in hooks.values()
            ),
        ],
        "Each event was told, under one id.": [
            *checks.check_sent(
                "message",
                {mid: f"event {event}" for mid, event in messages.items()},
                [(mid, f"event {messages.get(mid, mid)}") for mid, _ in receiver.list_received("/notifications")],
            ),
            *(f"The end of the operation {id_} is no event." for id_ in recorded if id_ not in told),
            *(
                f"An event was recorded {count} times: {kind} {key}."
                for kind, key, count in panel.fetch(
                    "SELECT kind, key, count(*) FROM instances_event GROUP BY kind, key HAVING count(*) > 1"
                )
                if kind.startswith("operation.")
            ),
        ],
        "No instance was stopped twice.": checks.check_stops(
            account.stop_calls, [*load.single_stops, *list_stop_orders(panel)]
        ),
        "Every answer was a success, or a refusal with its reason.": [f for f in load.faults if f not in mixed],
        "The memory of each process is flat.": checks.check_growth(list_growths(panel)),
    }


def list_stop_orders(panel: Panel) -> list[checks.Order]:
    """Return each stop of an operation, a policy's included, from its beginning to its end."""
    now = time.time()
    return [
        checks.Order(instance_id, read_time(began), read_time(ended) if ended else now)
        for instance_id, began, ended in panel.fetch(STOP_ORDERS)
    ]


def read_time(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def list_growths(panel: Panel) -> list[checks.Growth]:
    found = [checks.measure_growth(f"{name} ({pid})", samples) for (name, pid), samples in panel.memory.items()]
    return [growth for growth in found if growth is not None]


def format_id(text: str) -> str:
    """Return the UUID that SQLite stores as 32 digits, as the API writes it."""
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])) if len(text) == 32 else text


def report(
    panel: Panel,
    load: Load,
    receiver: Receiver,
    results: dict[str, list[str]],
    drained: float,
    seconds: float,
    seed: int,
) -> int:
    killed = ", ".join(f"{name} {count}x" for name, count in sorted(panel.blows.items()))
    print(f"\nKilled: {killed or 'nothing'}.")
    print("Answers: " + ", ".join(f"{count} {what}" for what, count in load.answers.most_common()) + ".")
    print(f"Requests to a process that was killed meanwhile: {load.interrupted}.")
    print(f"Answers that were empty and stale, since Redis was empty: {load.unread}.")
    print(
        f"Listings judged: {load.oracle.judged}. Operations: {len(load.accepted)}, of these {load.whole_stops} verified"
    )
    print(f"stops of everything. Stop requests at Novita: {len(load.account.stop_calls)}.")
    print("Overlapping orders: " + ", ".join(f"{count} times {what}" for what, count in sorted(load.overlaps.items())))
    second = checks.count_refused_seconds(load.account.stop_calls)
    print(f"Second requests of two orders at the same moment, which Novita refused: {second}.")
    for path in ("/operations", "/notifications"):
        received = receiver.list_received(path)
        again = len(received) - len({mid for mid, _ in received})
        print(f"Received at {path}: {len(received)}, of these {again} again under the same id.")
    print(f"The receiver refused {receiver.refused}. All was told {drained:.0f} s after the end.")
    if waits := [wait for at in panel.redis_restarts if (wait := find_wait(load.listed_at, at)) is not None]:
        print(f"From a restart of Redis, empty, to the next listing: {max(waits):.1f} s at most.")
    for growth in sorted(list_growths(panel), key=lambda one: one.mb_per_minute):
        change = f"{growth.mb_per_minute:+.2f} MB a minute over {growth.seconds:.0f} s"
        print(f"Memory of {growth.name}: {growth.mb:.0f} MB, {change}.")
    if not list_growths(panel):
        print("No process lived long enough for a judgement of its memory.")
    print()
    for promise, faults in results.items():
        print(f"{'FAILED' if faults else 'ok    '}  {promise}")
        for fault in faults[:SHOWN_FAULTS]:
            print(f"          {fault}")
        if len(faults) > SHOWN_FAULTS:
            print(f"          … and {len(faults) - SHOWN_FAULTS} more.")
    has_failed = any(results.values())
    print(
        f"\n{'Not all promises held' if has_failed else 'All promises held'}. The same schedule: make soak SEED={seed}"
    )
    return int(has_failed)


def find_wait(listed_at: list[float], restarted_at: float) -> float | None:
    """Return the seconds from a restart to the next listing; None when none came."""
    return next((at - restarted_at for at in sorted(listed_at) if at > restarted_at), None)


if __name__ == "__main__":
    main()
