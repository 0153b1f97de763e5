"""Standard output and error that never fail: no unread output may change what a program does."""

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class _Stream:
    """Writes through until the first failure (a full disk, a closed pipe), then drops everything."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def _give_up(self) -> None:
        # A flush of the remaining buffer at exit would fail again and change the exit status.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_safe() -> None:
    """Make standard output and error safe to write to, closed ones too; called before anything else is opened."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next opened file, such as the database, would get this number and the output.
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal's encoding lacks is written as an escape.
            stream.reconfigure(errors="backslashreplace")
        if not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(stream))
