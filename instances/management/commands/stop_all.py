"""`manage.py stop_all`."""

import argparse
import json
import math
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connections
from django.utils import timezone

from instances.access.audit import get_shell_actor
from instances.answers import describe
from instances.errors import PanelError
from instances.fallback import journal
from instances.instance import parse_time
from instances.models import Operation
from instances.operations import emergency, orders, rounds, wording
from instances.outgoing.deadline import cancel_until_ended

EXIT_NOT_ALL: Final = 1
EXIT_USAGE: Final = 2
MAX_NAMED: Final = 50
LOOK_SECONDS: Final = 0.3
# What the last look after the deadline may take.
GRACE_SECONDS: Final = rounds.LAST_LOOK_SECONDS + 30
# What a round takes to end when it is told to.
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
        "Stop every instance that may be billed, protected ones aside, and wait until each is seen stopped. It needs "
        "neither the web server nor a worker nor Redis. Exit status: 0 all are confirmed stopped, 1 something still "
        "runs or is unknown, 2 wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only tell what would be stopped")
        parser.add_argument("--yes", action="store_true", help="don't ask for confirmation")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; its first 500 characters are recorded")
        parser.add_argument("--json", action="store_true", help="print the operation as GET /api/operations/<id> does")
        parser.add_argument(
            "--timeout",
            type=parse_timeout,
            metavar="S",
            help="seconds until the verdict, also when a stop of all runs already and has a later one (default: "
            f"NOVITA_STOP_DEADLINE, {settings.NOVITA_STOP_DEADLINE:g})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not (options["yes"] or options["dry_run"] or sys.stdin.isatty()):
            self._refuse("There is no terminal to ask for confirmation: give --yes, or --dry-run.")
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
                count = self._show_preview(wish, as_json=options["json"] and options["dry_run"])
                if options["dry_run"]:
                    return
                self._confirm(count)
            began = time.monotonic()
            begun, warnings = emergency.begin(wish)
        except PanelError as exc:
            if options["json"]:
                self.stdout.write(json.dumps(describe(exc)))
            self.stderr.write(_clean(" ".join(filter(None, [exc.message, exc.suggestion]))))
            sys.exit(EXIT_NOT_ALL)
        except KeyboardInterrupt:
            self.stderr.write(
                "\nInterrupted before anything was asked. Once confirmed, a worker carries it on, if one runs."
            )
            sys.exit(128 + signal.SIGINT)
        operation = begun.operation
        for warning in warnings:
            self.stderr.write(_clean(warning))
        if not options["json"]:
            if not begun.is_new:
                self.stderr.write(f"One is running already, since {operation.created_at:%H:%M:%S} UTC: following it.")
            for warning in begun.warnings:
                self.stderr.write(_clean(warning))
        ends_at = began + wish.seconds
        is_left = threading.Event()
        ended: list[dict[str, Any]] = []
        worker = threading.Thread(target=_drive, args=(begun, ends_at + GRACE_SECONDS, is_left, ended), daemon=True)
        worker.start()
        try:
            if not self._follow(worker, operation, ends_at, as_json=options["json"]):
                is_left.set()
                cancel_until_ended(worker, LEAVE_SECONDS)
        except KeyboardInterrupt:
            self.stderr.write("\nInterrupted. What was asked is asked; a worker, if one runs, carries it on.")
            journal.end()
            sys.exit(128 + signal.SIGINT)
        except SystemExit:
            journal.end()
            raise
        described = ended[0] if ended else emergency.find(operation)
        if described:
            self._tell(described, wish.seconds, as_json=options["json"])
        self._tell_unrecorded()
        sys.exit(0 if described and described["success"] else EXIT_NOT_ALL)

    def _refuse(self, words: str) -> None:
        self.stderr.write(words)
        sys.exit(EXIT_USAGE)

    def _show_preview(self, wish: orders.Wish, *, as_json: bool) -> int:
        """Print what would be stopped; returns how many."""
        preview = emergency.preview(wish)
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
            if warning != wording.NO_WORKER:  # This command verifies by itself.
                self.stdout.write(_clean(warning))
        return int(preview["count"])

    def _confirm(self, count: int) -> None:
        if not count:
            return
        try:
            answer = input(f"Type {count} to stop {'them' if count > 1 else 'it'}: ").strip()
        except EOFError:
            answer = ""
        if answer != str(count):
            self.stderr.write("Nothing was stopped.")
            sys.exit(EXIT_NOT_ALL)

    def _follow(self, worker: threading.Thread, operation: Operation, ends_at: float, *, as_json: bool) -> bool:
        """Show the progress until there is a verdict; False at `ends_at` when others let the operation run longer."""
        has_terminal = self.stderr.isatty() and not as_json
        began, is_left = time.monotonic(), False
        while worker.is_alive():
            worker.join(LOOK_SECONDS)
            is_late = time.monotonic() >= ends_at
            described = emergency.find(operation) if has_terminal or is_late else None
            if described and is_late and not emergency.is_in_memory(operation.pk):
                is_left = not described["finishedAt"] and parse_time(described["deadlineAt"]) > timezone.now()
            if is_left:
                break
            if described and has_terminal:
                counts = described["counts"]
                words = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
                seconds = time.monotonic() - began
                self.stderr.write(
                    f"\r\x1b[K{described['state']}: {words or 'reading the account'}, {seconds:.0f} s", ending=""
                )
                self.stderr.flush()
        if has_terminal:
            self.stderr.write("\r\x1b[K", ending="")
        return not is_left

    def _tell(self, described: dict[str, Any], seconds: float, *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(described))
            return
        unconfirmed = [one for one in described["targets"] if one["state"] not in {"confirmed", "skipped"}]
        for target in unconfirmed[:MAX_NAMED]:
            name = target["name"] or "(no name)"
            self.stdout.write(_clean(f"{name} ({target['instanceId']}): {target['message']}"))
        if len(unconfirmed) > MAX_NAMED:
            self.stdout.write(f"… and {len(unconfirmed) - MAX_NAMED} more")
        skipped = [one for one in described["targets"] if one["state"] == "skipped"]
        for target in skipped[:MAX_NAMED]:
            self.stdout.write(_clean(f"skipped: {target['name'] or target['instanceId']}: {target['message']}"))
        for note in described["notes"]:
            self.stdout.write(_clean(note))
        self.stdout.write(_clean(described["result"]) or self._say_open(described, seconds))

    def _say_open(self, described: dict[str, Any], seconds: float) -> str:
        counts = described["counts"]
        total = sum(counts.values()) - counts["skipped"]
        until = f"{parse_time(described['deadlineAt']):%H:%M:%S} UTC"
        return (
            f"{counts['confirmed']} of {total} verified as stopped after {seconds:g} s. The operation goes on until "
            f"{until} if a worker runs: GET /api/operations/{described['id']}"
        )

    def _tell_unrecorded(self) -> None:
        """Say where the record is when the database doesn't have it."""
        if not emergency.record():
            places = " and ".join(journal.get_places())
            self.stderr.write(
                f"Not recorded yet: the database can't be written. A copy is kept in {places}; it is recorded when the "
                "service or the next command can."
                if places
                else "Not recorded: the database can't be written, and neither can Redis or FALLBACK_DIR."
            )


def _drive(begun: orders.Begun, ends_at: float, is_left: threading.Event, ended: list[dict[str, Any]]) -> None:
    """Move the operation on until it has ended, together with whoever else does; what became of it is in `ended`."""
    try:
        with journal.held():
            if described := emergency.drive(begun, ends_at, is_left):
                ended.append(described)
    finally:
        connections.close_all()


def _clean(line: str) -> str:
    # A name must not move a terminal's cursor.
    return "".join(char if char.isprintable() else "�" for char in line)
