"""`manage.py backup FILE`."""

import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from instances.backup import restoring, writing
from instances.errors import PanelError

KEEP_KEY = (
    "Keep SECRET_KEY, too (its own file is secret-key beside the default database): the URLs of webhooks in the backup "
    "are encrypted with it."
)


class Command(BaseCommand):
    help = (
        "Write the database to a new file while the panel runs. `manage.py restore` reads it into SQLite or PostgreSQL."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="the new file, which only its owner may read")
        parser.add_argument(
            "--overwrite", action="store_true", help="replace an existing file, once the new one is whole"
        )

    def handle(self, *args: Any, file: Path, overwrite: bool, **options: Any) -> None:
        try:
            counts = writing.write(file, self._make_tell(), replaces=overwrite)
        except PanelError as exc:
            raise CommandError(" ".join(filter(None, [exc.message, exc.suggestion]))) from exc
        self.stdout.write(f"{file} has {restoring.describe(counts) or 'no records'}. {KEEP_KEY}")

    def _make_tell(self) -> Callable[[str], None]:
        """Return a function that writes the progress once a second; nothing when the backup is done before."""
        told_at = time.monotonic()

        def tell(progress: str) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= 1:
                told_at = time.monotonic()
                self.stderr.write(f"backup: {progress}")

        return tell
