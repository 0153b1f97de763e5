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
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections
from django.utils import timezone

from instances import operations, rounds
from instances.audit import get_shell_actor
from instances.deadline import cancel_running
from instances.errors import PanelError, describe
from instances.models import Operation

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
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; it is recorded")
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
        if len(options["reason"]) > operations.MAX_REASON_LENGTH:
            self._refuse(f"--reason may have {operations.MAX_REASON_LENGTH} characters.")
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        wish = operations.Wish(
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
            begun = operations.begin(wish)
        except PanelError as exc:
            if options["json"]:
                self.stdout.write(json.dumps(describe(exc)))
            self.stderr.write(_clean(" ".join(filter(None, [exc.message, exc.suggestion]))))
            sys.exit(EXIT_NOT_ALL)
        except DatabaseError as exc:
            raise CommandError(f"The database can't be used: {exc}. Does `manage.py migrate` help?") from exc
        except KeyboardInterrupt:
            self.stderr.write(
                "\nInterrupted before anything was asked. Once confirmed, a worker carries it on, if one runs."
            )
            sys.exit(128 + signal.SIGINT)
        operation = begun.operation
        if not options["json"]:
            if not begun.is_new:
                self.stderr.write(f"One is running already, since {operation.created_at:%H:%M:%S} UTC: following it.")
            for warning in begun.warnings:
                self.stderr.write(_clean(warning))
        ends_at = began + wish.seconds
        is_left = threading.Event()
        worker = threading.Thread(target=_drive, args=(begun, ends_at + GRACE_SECONDS, is_left), daemon=True)
        worker.start()
        try:
            if not self._follow(worker, operation, ends_at, as_json=options["json"]):
                is_left.set()
                cancel_running()
                worker.join(LEAVE_SECONDS)
        except KeyboardInterrupt:
            self.stderr.write("\nInterrupted. What was asked is asked; a worker, if one runs, carries it on.")
            sys.exit(128 + signal.SIGINT)
        operation.refresh_from_db()
        self._tell(operation, wish.seconds, as_json=options["json"])
        sys.exit(0 if operation.success else EXIT_NOT_ALL)

    def _refuse(self, words: str) -> None:
        self.stderr.write(words)
        sys.exit(EXIT_USAGE)

    def _show_preview(self, wish: operations.Wish, *, as_json: bool) -> int:
        """Print what would be stopped; returns how many."""
        preview = operations.describe_preview(wish, operations.preview(wish))
        if as_json:
            self.stdout.write(json.dumps(preview))
            return int(preview["total"])
        self.stdout.write(f"{preview['message']}.")
        for result in preview["results"][:MAX_NAMED]:
            self.stdout.write(_clean(f"  {result['name'] or '(no name)'} ({result['instanceId']}) {result['status']}"))
        if preview["total"] > MAX_NAMED:
            self.stdout.write(f"  … and {preview['total'] - MAX_NAMED} more")
        for skipped in preview["skipped"]:
            self.stdout.write(_clean(f"  left out: {skipped['name'] or skipped['instanceId']}: {skipped['reason']}"))
        for warning in preview["warnings"]:
            if warning != operations.NOBODY_VERIFIES:  # This command verifies by itself.
                self.stdout.write(_clean(warning))
        return int(preview["total"])

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
            if has_terminal or is_late:
                operation.refresh_from_db()
            is_left = is_late and not operation.finished_at and operation.deadline_at > timezone.now()
            if is_left:
                break
            if has_terminal:
                counts = operations.describe_all([operation])[0]["counts"]
                words = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
                seconds = time.monotonic() - began
                self.stderr.write(
                    f"\r\x1b[K{operation.state}: {words or 'reading the account'}, {seconds:.0f} s", ending=""
                )
                self.stderr.flush()
        if has_terminal:
            self.stderr.write("\r\x1b[K", ending="")
        return not is_left

    def _tell(self, operation: Operation, seconds: float, *, as_json: bool) -> None:
        described = operations.describe(operation)
        if as_json:
            self.stdout.write(json.dumps(described))
            return
        unconfirmed = [one for one in described["targets"] if one["state"] not in {"confirmed", "skipped"}]
        for target in unconfirmed[:MAX_NAMED]:
            name = target["name"] or "(no name)"
            self.stdout.write(_clean(f"{target['state']}: {name} ({target['instanceId']}): {target['error'] or ''}"))
        if len(unconfirmed) > MAX_NAMED:
            self.stdout.write(f"… and {len(unconfirmed) - MAX_NAMED} more")
        skipped = [one for one in described["targets"] if one["state"] == "skipped"]
        for target in skipped[:MAX_NAMED]:
            self.stdout.write(_clean(f"left out: {target['name'] or target['instanceId']}: {target['error']}"))
        for note in described["notes"]:
            self.stdout.write(_clean(note))
        self.stdout.write(_clean(described["verdict"]) or self._say_open(operation, seconds, described["counts"]))

    def _say_open(self, operation: Operation, seconds: float, counts: dict[str, int]) -> str:
        total = sum(counts.values()) - counts["skipped"]
        return (
            f"{counts['confirmed']} of {total} verified as stopped after {seconds:g} s. The operation goes on until "
            f"{operation.deadline_at:%H:%M:%S} UTC if a worker runs: GET /api/operations/{operation.pk}"
        )


def _drive(begun: operations.Begun, ends_at: float, is_left: threading.Event) -> None:
    """Move the operation on until it has ended, together with whoever else does."""
    try:
        operations.drive(begun, ends_at, is_left)
    finally:
        connections.close_all()


def _clean(line: str) -> str:
    # A name must not move a terminal's cursor.
    return "".join(char if char.isprintable() else "�" for char in line)
