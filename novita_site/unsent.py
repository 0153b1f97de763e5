"""Answers that a client has not received yet."""

import contextlib
import socket
from collections import deque
from typing import Final

# Small parts are joined, so that a head and a short body are one packet.
JOIN_BYTES: Final = 64 * 1024
SEND_BYTES: Final = 1024 * 1024


class Unsent:
    """A queue of bytes for one client. A part that many clients get, like the listing, is in memory once."""

    def __init__(self) -> None:
        self.size = self.sent = 0
        self._parts: deque[memoryview] = deque()

    def append(self, data: bytes) -> None:
        if data:
            self._parts.append(memoryview(data))
            self.size += len(data)

    def send(self, sock: socket.socket) -> None:
        """Send as much as the client accepts now. Raises OSError when it has disconnected."""
        with contextlib.suppress(BlockingIOError):
            while self._parts:
                if len(self._parts) > 1 and self.size - self.sent <= JOIN_BYTES:
                    self._parts = deque([memoryview(b"".join(self._parts))])
                self._drop(sock.send(self._parts[0][:SEND_BYTES]))
            self.clear()

    def _drop(self, count: int) -> None:
        self.sent += count
        first = self._parts.popleft()
        if count < len(first):
            self._parts.appendleft(first[count:])

    def clear(self) -> None:
        self._parts.clear()
        self.size = self.sent = 0
