"""`manage.py restore FILE`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from instances.backup import restoring
from instances.errors import PanelError


class Command(BaseCommand):
    help = (
        "Replace the database by a backup of `manage.py backup`, of SQLite or PostgreSQL, of this version or an older "
        "one. End the web processes and workers first."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="a file of `manage.py backup`")
        parser.add_argument("--replace", action="store_true", help="delete everything that the database has now")
        parser.add_argument(
            "--while-running", action="store_true", help="also while other processes have the database open"
        )

    def handle(self, *args: Any, file: Path, replace: bool, while_running: bool, **options: Any) -> None:
        try:
            restored = restoring.restore(file, replaces=replace, while_running=while_running)
        except PanelError as exc:
            raise CommandError(" ".join(filter(None, [exc.message, exc.suggestion]))) from exc
        self.stdout.write(f"Restored {restoring.describe(restored.counts) or 'no records'}. Everybody logs in again.")
        for note in restored.notes:
            self.stdout.write(note)
