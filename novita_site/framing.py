"""Tells when a connection has received a complete request, without reading what the request says."""

import re
from typing import Final

MAX_HEAD_BYTES: Final = 64 * 1024
# The largest overhead of a chunked body, per byte of content: a chunk of one byte takes six bytes.
CHUNKED_OVERHEAD: Final = 8
CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
FRAMING_HEADER: Final = re.compile(rb"\n(?:content-length|transfer-encoding|expect):", re.IGNORECASE)


class TooLarge(Exception):
    """The head or the body of a request is too large; `part` names which."""

    def __init__(self, part: str) -> None:
        self.part = part


class Framing:
    """Tells when the request at the start of a buffer is complete.

    gunicorn's parser reads the request and refuses a malformed one. This class only needs to be right about requests
    that the parser accepts; it may call any other request complete.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._scanned = 0
        self._length: int | None = 0
        self._chunk_at = self._chunked_bytes = 0
        self.head_bytes = 0
        self.expects_continue = False
        self._is_refused = False

    def is_whole(self, buffer: bytearray) -> bool:
        """Raises TooLarge."""
        if not self.head_bytes and not self._find_head(buffer):
            # The parser refuses bare line feeds at once.
            return buffer.find(b"\n\n", max(0, self._scanned - 1)) >= 0
        if self._is_refused:
            return True
        if self._length is None:
            return self._has_last_chunk(buffer)
        return len(buffer) >= self.head_bytes + self._length

    def _find_head(self, buffer: bytearray) -> bool:
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0 and len(buffer) > MAX_HEAD_BYTES:
            raise TooLarge("head")
        if end < 0:
            self._scanned = len(buffer)
            return False
        self.head_bytes = self._chunk_at = end + 4
        head = bytes(buffer[:end])
        # Most requests have none of these headers, and need no further look.
        first, *lines = head.split(b"\r\n") if FRAMING_HEADER.search(head) else (b"",)
        for line in lines:
            name, _, value = line.partition(b":")
            value = value.strip(b" \t")
            match name.lower():
                case b"content-length" if value.isdigit() and self._length is not None:
                    self._length = int(value[-18:]) if len(value) <= 18 else self._max_body_bytes + 1
                case b"transfer-encoding":
                    self._length = None
                case b"expect":
                    # The parser refuses an unknown expectation, and needs no body for that.
                    self._is_refused |= value.lower() != b"100-continue"
                    self.expects_continue = first.endswith(b"HTTP/1.1")
        if self._length is not None and self._length > self._max_body_bytes:
            raise TooLarge("body")
        return True

    def _has_last_chunk(self, buffer: bytearray) -> bool:
        while (line_end := buffer.find(b"\r\n", self._chunk_at)) >= 0:
            match = CHUNK_SIZE.fullmatch(buffer, self._chunk_at, line_end)
            if not match:
                return True
            size = int(match[1], 16)
            if size == 0:
                return buffer.find(b"\r\n\r\n", line_end) >= 0
            self._chunked_bytes += size
            if self._chunked_bytes > self._max_body_bytes:
                raise TooLarge("body")
            self._chunk_at = line_end + 2 + size + 2
        if len(buffer) - self.head_bytes > CHUNKED_OVERHEAD * self._max_body_bytes:
            raise TooLarge("body")
        return False
