"""`manage.py stop_all`."""

import argparse
import json
import math
import select
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connections
from django.utils import timezone

from instances.access.audit import get_shell_actor
from instances.answers import describe
from instances.api.operations import show_answer, show_operation
from instances.errors import CacheUnavailable, PanelError
from instances.fallback import journal
from instances.inventory import store
from instances.models import Operation, Target
from instances.operations import emergency, orders, requesting, wording
from instances.operations.records import Snapshot
from instances.outgoing.deadline import cancel_until_ended

EXIT_NOT_ALL: Final = 1
EXIT_USAGE: Final = 2
MAX_NAMED: Final = 50
POLL_SECONDS: Final = 0.3
# The last read after the deadline may take this long.
GRACE_SECONDS: Final = requesting.LAST_READ_SECONDS + 30
# A round that is told to end may take this long.
LEAVE_SECONDS: Final = 3


def parse_timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 1 to 86400, not {text!r}")
    return seconds


class Command(BaseCommand):
    help = (
        "Stop every instance that may be billed, except protected ones, and verify that each is stopped. Works without "
        "the web server, a worker and Redis. Exit status: 0 all are verified as stopped, 1 something is still running "
        "or unknown, 2 wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only show what would be stopped")
        parser.add_argument("--yes", action="store_true", help="don't ask for confirmation")
        parser.add_argument("--reason", default="", metavar="TEXT", help="recorded; at most 500 characters")
        parser.add_argument("--json", action="store_true", help="print the operation as GET /api/operations/<id> does")
        parser.add_argument(
            "--timeout",
            type=parse_timeout,
            metavar="S",
            help="seconds until the result, also when this command follows an operation with a later deadline "
            f"(default: NOVITA_STOP_DEADLINE, {settings.NOVITA_STOP_DEADLINE:g})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        as_json = options["json"]
        if not (options["yes"] or options["dry_run"] or sys.stdin.isatty()):
            self._refuse("There is no terminal to ask for confirmation. Add --yes, or --dry-run.")
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        wish = orders.Wish(
            kind="stop",
            ids=None,
            actor=get_shell_actor(),
            reason=options["reason"],
            deadline_seconds=options["timeout"],
            origin=f"http://{settings.HOST}:{settings.PORT}",
        )
        try:
            if options["dry_run"] or not options["yes"]:
                count = self._show_preview(wish, as_json=as_json and options["dry_run"])
                if options["dry_run"]:
                    return
                self._confirm(count)
            began = time.monotonic()
            begun, warnings = emergency.begin(wish)
        except PanelError as exc:
            if as_json:
                self.stdout.write(json.dumps(describe(exc)))
            self.stderr.write(_clean(" ".join(filter(None, [exc.message, exc.suggestion]))))
            sys.exit(EXIT_NOT_ALL)
        except KeyboardInterrupt:
            self.stderr.write(
                "\nInterrupted before any stop was requested. If you had confirmed it, a running worker carries it out."
            )
            sys.exit(128 + signal.SIGINT)
        operation = begun.operation
        for warning in warnings:
            self.stderr.write(_clean(warning))
        if not as_json:
            if not begun.is_new:
                self.stderr.write(_clean(wording.say_joined(operation)))
            for warning in begun.warnings:
                self.stderr.write(_clean(warning))
        snapshot = self._drive(begun, began + wish.seconds, as_json=as_json)
        if snapshot:
            self._show_result(snapshot, wish.seconds, as_json=as_json)
        self._show_unrecorded()
        sys.exit(0 if snapshot and snapshot.operation.success else EXIT_NOT_ALL)

    def _refuse(self, words: str) -> None:
        self.stderr.write(words)
        sys.exit(EXIT_USAGE)

    def _show_preview(self, wish: orders.Wish, *, as_json: bool) -> int:
        """Print what would be stopped; returns the number of instances."""
        preview = show_answer(emergency.preview(wish))
        if as_json:
            self.stdout.write(json.dumps(preview))
            return int(preview["count"])
        self.stdout.write(f"{preview['message']}.")
        for result in preview["results"][:MAX_NAMED]:
            self.stdout.write(_clean(f"  {result['name'] or '(no name)'} ({result['instanceId']}) {result['status']}"))
        if preview["total"] > MAX_NAMED:
            self.stdout.write(f"  … and {preview['total'] - MAX_NAMED} more")
        for skipped in preview["skipped"]:
            self.stdout.write(_clean(f"  skipped: {skipped['name'] or skipped['instanceId']}: {skipped['reason']}"))
        for warning in preview["warnings"]:
            if warning != wording.NO_WORKER:  # This command verifies without a worker.
                self.stdout.write(_clean(warning))
        if preview["results"]:
            self._show_savings(preview)
        return int(preview["count"])

    def _confirm(self, count: int) -> None:
        if not count:
            return
        self.stdout.write(f"Type {count} to stop {'them' if count > 1 else 'it'}: ", ending="")
        self.stdout.flush()
        # Python sees a Ctrl-C between two waits. A single read would not see one that comes just before it begins.
        while not select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
            pass
        answer = sys.stdin.readline().strip()
        if answer != str(count):
            self.stderr.write("Nothing was stopped.")
            sys.exit(EXIT_NOT_ALL)

    def _drive(self, begun: orders.Begun, ends_at: float, *, as_json: bool) -> Snapshot | None:
        """Advance the operation until `ends_at`, and return it; None when it can't be read."""
        is_left = threading.Event()
        finished: Future[Snapshot | None] = Future()
        worker = threading.Thread(target=_drive, args=(begun, ends_at + GRACE_SECONDS, is_left, finished), daemon=True)
        worker.start()
        try:
            if not self._follow(worker, begun.operation, ends_at, as_json=as_json):
                is_left.set()
                cancel_until_ended(worker, LEAVE_SECONDS)
        except KeyboardInterrupt:
            self.stderr.write("\nInterrupted. Stops already sent continue; a running worker requests the rest.")
            journal.end()
            sys.exit(128 + signal.SIGINT)
        except SystemExit:
            journal.end()
            raise
        return (finished.done() and finished.result()) or emergency.find(begun.operation)

    def _follow(self, worker: threading.Thread, operation: Operation, ends_at: float, *, as_json: bool) -> bool:
        """Show the progress until there is a result; False at `ends_at` when others gave the operation more time."""
        has_terminal = self.stderr.isatty() and not as_json
        began, is_left = time.monotonic(), False
        while worker.is_alive():
            worker.join(POLL_SECONDS)
            is_late = time.monotonic() >= ends_at
            snapshot = emergency.find(operation) if has_terminal or is_late else None
            if snapshot and is_late and not emergency.is_in_memory(operation.pk):
                # The operation's own deadline began a moment after this command's.
                current, later = snapshot.operation, timezone.now() + timedelta(seconds=1)
                is_left = not current.finished_at and current.deadline_at > later
            if is_left:
                break
            if snapshot and has_terminal:
                words = ", ".join(f"{number} {state}" for state, number in snapshot.counts.items() if number)
                seconds = time.monotonic() - began
                progress = f"{snapshot.operation.state}: {words or 'reading the account'}, {seconds:.0f} s"
                self.stderr.write(f"\r\x1b[K{progress}", ending="")
                self.stderr.flush()
        if has_terminal:
            self.stderr.write("\r\x1b[K", ending="")
        return not is_left

    def _show_result(self, snapshot: Snapshot, seconds: float, *, as_json: bool) -> None:
        operation = snapshot.operation
        if as_json:
            self.stdout.write(json.dumps(show_operation(snapshot)))
            return
        settled = {Target.State.CONFIRMED, Target.State.SKIPPED}
        unconfirmed = [target for target in snapshot.targets if target.state not in settled]
        for target in unconfirmed[:MAX_NAMED]:
            name = target.name or "(no name)"
            self.stdout.write(_clean(f"{name} ({target.instance_id}): {wording.say_target(operation, target)}"))
        if len(unconfirmed) > MAX_NAMED:
            self.stdout.write(f"… and {len(unconfirmed) - MAX_NAMED} more")
        skipped = [target for target in snapshot.targets if target.state == Target.State.SKIPPED]
        for target in skipped[:MAX_NAMED]:
            self.stdout.write(_clean(f"skipped: {target}: {wording.say_target(operation, target)}"))
        for note in operation.notes:
            self.stdout.write(_clean(note))
        self.stdout.write(_clean(operation.result) or self._say_unfinished(snapshot, seconds))
        if operation.finished_at and snapshot.counts[Target.State.CONFIRMED]:
            self._show_savings(show_operation(snapshot))

    def _show_savings(self, shown: Mapping[str, Any]) -> None:
        saves = shown["savesPerHour"]
        if saves is not None or _has_inventory():
            self.stdout.write(wording.say_money("Saves", saves, shown["unknownPrices"], shown["prepaid"]))

    def _say_unfinished(self, snapshot: Snapshot, seconds: float) -> str:
        operation = snapshot.operation
        return (
            f"{snapshot.counts[Target.State.CONFIRMED]} of {snapshot.total} verified as stopped after {seconds:g} s. "
            f"The operation goes on until {operation.deadline_at:%H:%M:%S} UTC if a worker runs: "
            f"GET /api/operations/{operation.pk}"
        )

    def _show_unrecorded(self) -> None:
        """Name the places of the record when the database doesn't have it."""
        if not emergency.record():
            places = " and ".join(journal.get_places())
            self.stderr.write(
                f"Not recorded yet: the database can't be written. A copy is in {places}; the service or the next "
                "command records it as soon as the database can be written."
                if places
                else "Not recorded: neither the database nor Redis nor FALLBACK_DIR can be written."
            )


def _drive(begun: orders.Begun, ends_at: float, is_left: threading.Event, finished: Future[Snapshot | None]) -> None:
    """Advance the operation until it finishes, together with other processes."""
    try:
        with journal.held():
            finished.set_result(emergency.drive(begun, ends_at, is_left))
    finally:
        connections.close_all()


def _has_inventory() -> bool:
    """Tell whether there is an inventory, which has the prices: without one, the command is used in an emergency."""
    try:
        return store.read_state().freshness.as_of is not None
    except CacheUnavailable:
        return False


def _clean(line: str) -> str:
    # A name must not move a terminal's cursor.
    return "".join(char if char.isprintable() else "�" for char in line)
