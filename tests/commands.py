"""Runs a command of manage.py in this process, as far as a shell would see it."""

import io
import os
from typing import Any

from django.core.management import call_command

# A descriptor that can always be read.
_readable = open(os.devnull)  # noqa: SIM115 - open for as long as the tests run


class Terminal(io.StringIO):
    """A terminal on which the text has been typed already."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return _readable.fileno()


class Ran:
    """What the command printed, and its exit status."""

    def __init__(self, command: str, *arguments: str, stderr: io.StringIO | None = None) -> None:
        stdout, stderr = io.StringIO(), stderr or io.StringIO()
        self.status: Any = 0
        try:
            call_command(command, *arguments, stdout=stdout, stderr=stderr)
        except SystemExit as exc:
            self.status = exc.code
        self.out, self.err = stdout.getvalue(), stderr.getvalue()
