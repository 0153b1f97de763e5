"""Answers that a client has not received yet."""

import contextlib
import socket
import tempfile
from typing import Final

MEMORY_BYTES: Final = 1024 * 1024
SEND_BYTES: Final = 256 * 1024


class Unsent:
    """A queue of bytes for one client, in memory while it is small and in a temporary file when it is large."""

    def __init__(self) -> None:
        self.size = self.sent = 0
        self._file: tempfile.SpooledTemporaryFile[bytes] | None = None

    def append(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - `clear` closes it
        self._file.seek(self.size)
        self._file.write(data)
        self.size += len(data)

    def send(self, sock: socket.socket) -> None:
        """Send as much as the client accepts now. Raises OSError when it has disconnected."""
        with contextlib.suppress(BlockingIOError):
            while self._file and self.sent < self.size:
                self._file.seek(self.sent)
                self.sent += sock.send(self._file.read(min(SEND_BYTES, self.size - self.sent)))
            self.clear()

    def clear(self) -> None:
        if self._file:
            # Closing writes the last bytes, which fails on a full disk.
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None
        self.size = self.sent = 0
