"""`manage.py sync_instances`."""

import json
import signal
import sys
from argparse import ArgumentParser
from contextlib import nullcontext
from typing import Any, Final

from django.core.management.base import BaseCommand

from instances.access import audit
from instances.access.audit import get_shell_actor
from instances.answers import describe
from instances.api.inventory import show_report
from instances.errors import PanelError, SyncInProgress
from instances.inventory.difference import Changed, Listed, Named
from instances.inventory.report import SyncReport
from instances.inventory.sync import synchronize
from instances.models import Action, SyncRun

EXIT_FAILED: Final = 1
EXIT_IN_PROGRESS: Final = 3
MAX_NAMED: Final = 20


class Command(BaseCommand):
    help = (
        "Synchronize the cached inventory with Novita.ai now. Exit status: 0 done, 1 failed (the inventory stays as it "
        "was), 3 another synchronization is running."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the answer of POST /api/instances/sync")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="only read and compare, and print what would change",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        # An exception releases the lease.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        has_terminal = self.stderr.isatty() and not options["json"]
        actor = get_shell_actor()
        try:
            # A dry run changes nothing, so the audit has no entry of it.
            with nullcontext() if options["dry_run"] else audit.recorded(actor, Action.SYNC):
                report = synchronize(
                    SyncRun.Trigger.COMMAND,
                    requested_by=actor.name,
                    on_progress=self._show_progress if has_terminal else None,
                    dry_run=options["dry_run"],
                )
        except PanelError as exc:
            self._end_progress(has_terminal)
            if options["json"]:
                self.stdout.write(json.dumps(describe(exc)))
            self.stderr.write(" ".join(filter(None, [exc.message, exc.suggestion])))
            sys.exit(EXIT_IN_PROGRESS if isinstance(exc, SyncInProgress) else EXIT_FAILED)
        except KeyboardInterrupt:
            self._end_progress(has_terminal)
            self.stderr.write("Interrupted. The inventory stays as it was.")
            sys.exit(128 + signal.SIGINT)
        self._end_progress(has_terminal)
        if options["json"]:
            self.stdout.write(json.dumps(show_report(report)))
        else:
            self._print_report(report)

    def _show_progress(self, words: str) -> None:
        self.stderr.write(f"\r\x1b[K{words} …", ending="")
        self.stderr.flush()

    def _end_progress(self, has_terminal: bool) -> None:
        if has_terminal:
            self.stderr.write("\r\x1b[K", ending="")

    def _print_report(self, report: SyncReport) -> None:
        """Print the changes by name, and a summary."""
        self._list("new", report.difference.added)
        self._list("changed", report.difference.changed)
        self._list("gone", report.difference.removed)
        self._list("kept, not confirmed as gone", report.difference.unconfirmed)
        for error in report.errors:
            self.stderr.write(error)
        self.stdout.write(("Dry run: nothing was changed. " if report.is_dry_run else "") + report.summarize())

    def _list(self, word: str, items: Listed[Named] | Listed[Changed]) -> None:
        for item in items.first[:MAX_NAMED]:
            fields: dict[str, tuple[Any, Any]] = item.get("fields", {})  # type: ignore[assignment]  # only Changed has it
            changes = ", ".join(f"{name} {old} → {new}" for name, (old, new) in fields.items())
            line = f"{word}: {item['name'] or '(no name)'} ({item['id']}){': ' if changes else ''}{changes}"
            # A name must not move a terminal's cursor.
            self.stdout.write("".join(char if char.isprintable() else "�" for char in line))
        if len(items) > MAX_NAMED:
            self.stdout.write(f"{word}: {len(items) - MAX_NAMED} more")
