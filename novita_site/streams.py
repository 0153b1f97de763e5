"""Standard output and error that never fail: no unread output may change what a program does.

With LOG_FORMAT=json each line of them is a JSON object, whoever writes it.
"""

import atexit
import io
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from novita_site import log


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


class _JsonLines:
    """Writes each line as a JSON object."""

    def __init__(self, stream: TextIO | _Stream, name: str) -> None:
        self._stream = stream
        self._name = name
        self._level = "WARNING" if name == "stderr" else "INFO"
        self._rest = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                if line.strip():
                    self._stream.write(f"{log.to_json(line, self._level, self._name)}\n")
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """Write a last line that has no end."""
        if self._rest:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def write_json_if_wanted(*names: str) -> None:
    """Write each line of these streams as a JSON object, if LOG_FORMAT says so.

    Called before the settings are read: their refusal is a line, too.
    """
    from novita_site import env

    if env.read(Path(__file__).resolve().parent.parent).text("LOG_FORMAT") != "json":
        return
    for name in names:
        if not isinstance(getattr(sys, name), _JsonLines):
            stream = _JsonLines(getattr(sys, name), name)
            setattr(sys, name, stream)
            atexit.register(stream.end)
    sys.excepthook = log.log_uncaught
    threading.excepthook = log_thread_error


def log_thread_error(args: threading.ExceptHookArgs) -> None:
    log.log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
