"""gunicorn's threaded worker, changed so that a slow client holds no thread.

The main loop receives a request whole, each part under a deadline, before a thread works on it. It also sends the part
of an answer that the client doesn't take at once. A thread has a stand-in for the socket, and never waits for a client.
"""

import contextlib
import logging
import re
import select
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from novita_site.env import is_loopback
from novita_site.unsent import Unsent

if TYPE_CHECKING:
    # Django's models are not there yet when gunicorn loads this, so what needs them is imported where it is used.
    from instances.errors import PanelError

log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 64 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024
# How many bytes a chunked body may have for each byte of its own: a chunk of one byte takes six.
CHUNKED_OVERHEAD: Final = 8
# A client that still sends a body that was refused sees the answer only if its bytes are taken.
MAX_DISCARDED_BYTES: Final = 64 * 1024 * 1024
# Answers that clients are slow to take, in memory and in temporary files.
MAX_UNSENT_BYTES: Final = 128 * 1024 * 1024
# What a client must take of a long answer before its deadline; then it has the same time for the next part.
PROGRESS_BYTES: Final = 64 * 1024
LINGER_SECONDS: Final = 2.0
SWEEP_SECONDS: Final = 0.2

CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class TooLarge(Exception):
    """A request has a larger head or body than any that is accepted; `part` names which."""

    def __init__(self, part: str) -> None:
        self.part = part


class Framing:
    """Tells when the request at the start of a buffer is whole.

    gunicorn's parser decides what the request says, and refuses a malformed one. This only needs to be right about
    requests that the parser accepts; of any other it may say that it is whole.
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
            # The parser refuses bare line feeds, and would wait for no more.
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
        first, *lines = bytes(buffer[:end]).split(b"\r\n")
        for line in lines:
            name, _, value = line.partition(b":")
            value = value.strip(b" \t")
            match name.lower():
                case b"content-length" if value.isdigit() and self._length is not None:
                    self._length = int(value[-18:]) if len(value) <= 18 else self._max_body_bytes + 1
                case b"transfer-encoding":
                    self._length = None
                case b"expect":
                    # The parser refuses what it doesn't know, and needs no body for that.
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


class Exchange:
    """What a thread has for a socket: the request, whole, and a place for the answer."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.request = b""
        self.is_head = False
        self.answer = Unsent()

    def recv(self, size: int) -> bytes:
        piece, self.request = self.request[:size], self.request[size:]
        if not piece:
            # A body that seems to end early must never pass for a whole one.
            raise NoMoreData
        return piece

    def peek(self, wait_seconds: float) -> bytes:
        """Return what follows the request, if some of it comes within this time; it is not taken."""
        if self.request:
            return self.request
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.poll(wait_seconds * 1000)
        try:
            return self._socket.recv(1024, socket.MSG_PEEK)
        except OSError:
            return b""

    def sendall(self, data: bytes) -> None:
        self.answer.append(data)

    def send(self, data: bytes) -> int:
        """Ignore gunicorn's 100 Continue: the main loop has sent one, or the body is there."""
        return len(data)

    def gettimeout(self) -> float:
        return 0.0

    def ignore(self, *args: Any) -> None:
        pass

    setblocking = settimeout = shutdown = close = ignore


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """A client's connection. `sock` is gunicorn's name for what its threads use; the socket itself is the loop's."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, Exchange(sock), client, server)
        # Its data is there before a thread has it.
        self.data_ready = True
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            # The system would take megabytes at once, and then nothing for long: a slow client would seem to be stuck.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, PROGRESS_BYTES)
        self.socket = sock
        self.network = "" if isinstance(client, str | bytes) else _find_limited_network(str(client[0]))
        self.deadline = 0.0
        self.incoming = bytearray()
        self.unsent: Unsent = self.sock.answer
        # How much of the answer the client has taken when it gets a new deadline.
        self.progress_at = 0
        self.framing = Framing(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        self.keeps = False
        self.linger_seconds = LINGER_SECONDS
        self.discarded = 0

    def begin_request(self) -> None:
        self.sock.is_head = self.incoming.startswith(b"HEAD ")
        self.sock.request, self.incoming = bytes(self.incoming), bytearray()

    def end_request(self) -> None:
        """Take the bytes back that follow the request: the start of the next one."""
        self.incoming = bytearray((self.parser.unreader.take_buffered() + self.sock.request).lstrip(b"\r\n"))
        self.sock.request = b""
        self.framing = Framing(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


def _find_limited_network(address: str) -> str:
    """Return the client whose connections are limited in number; "" for this machine, and for a trusted proxy."""
    from instances.access.proxies import client_network, is_trusted

    return "" if is_loopback(address) or is_trusted(address) else client_network(address)


class PatientWorker(ThreadWorker):  # type: ignore[misc]  # likewise
    """Waits for clients in its main loop; `waiting` holds those connections, the one that has waited longest first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: dict[Connection, None] = {}
        self.per_network: Counter[str] = Counter()
        self._next_sweep = 0.0

    # --- A connection's course

    def accept(self, listener: socket.socket) -> None:
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            # No file or memory is left for it.
            log.warning("connection not accepted: %s", exc, extra={"rejection": "accept"})
            if not self._drop_oldest():
                time.sleep(0.05)
            return
        conn = Connection(self.cfg, sock, client, listener.getsockname())
        self.nr_conns += 1
        self.per_network[conn.network] += 1
        if self._make_room(conn):
            self._wait(conn, selectors.EVENT_READ, self._receive, settings.HTTP_HEAD_SECONDS)
        else:
            self._close(conn)

    def _receive(self, conn: Connection, _: object) -> None:
        try:
            piece = conn.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
            conn.incoming.clear()
        if piece:
            if not conn.incoming:
                # Empty lines before a request are not a part of it: old clients send one after a body.
                piece = piece.lstrip(b"\r\n")
                if not piece:
                    return
                self._set_deadline(conn, settings.HTTP_HEAD_SECONDS)
            conn.incoming += piece
            self._look(conn)
        elif conn.incoming:
            self._refuse(conn, "InvalidRequest", "The request ended before it was complete, so nothing was done.")
        else:
            self._close(conn)

    def _look(self, conn: Connection) -> None:
        """Give the request to a thread if it is whole."""
        had_head = conn.framing.head_bytes
        try:
            is_whole = conn.framing.is_whole(conn.incoming)
        except TooLarge as exc:
            self._refuse(conn, "HeadTooLarge" if exc.part == "head" else "BodyTooLarge")
            return
        if is_whole:
            self._end_wait(conn)
            conn.begin_request()
            self.enqueue_req(conn)
        elif conn.framing.head_bytes and not had_head:
            self._set_deadline(conn, settings.HTTP_BODY_SECONDS)
            if conn.framing.expects_continue:
                conn.unsent.append(CONTINUE)
                self._send(conn)

    def handle(self, conn: Connection) -> Any:
        """Work on a request, in a thread; most answers are sent from there, without a way through the main loop."""
        keeps = super().handle(conn)
        self._send(conn)
        return keeps

    def _send(self, conn: Connection) -> None:
        try:
            conn.unsent.send(conn.socket)
        except OSError:
            # The client is gone; the loop sees that when it reads.
            conn.unsent.clear()

    def finish_request(self, conn: Connection, future: Future[Any]) -> None:
        conn.keeps = not future.cancelled() and future.exception() is None and bool(future.result())
        if conn.keeps:
            conn.end_request()
        self._go_on(conn)

    def _go_on(self, conn: Connection) -> None:
        """Send the rest of the answer; then receive the next request, or end the connection."""
        self._send(conn)
        if conn.unsent.size:
            conn.progress_at = conn.unsent.sent + PROGRESS_BYTES
            self._wait(conn, selectors.EVENT_WRITE, self._send_more, settings.HTTP_SEND_SECONDS)
            self._limit_unsent()
        elif conn.keeps:
            seconds = settings.HTTP_HEAD_SECONDS if conn.incoming else self.cfg.keepalive
            self._wait(conn, selectors.EVENT_READ, self._receive, seconds)
            if conn.incoming:
                self._look(conn)
        else:
            self._end(conn)

    def _send_more(self, conn: Connection, _: object) -> None:
        self._send(conn)
        if not conn.unsent.size:
            self._end_wait(conn)
            self._go_on(conn)
        elif conn.unsent.sent >= conn.progress_at and self.alive:
            conn.progress_at = conn.unsent.sent + PROGRESS_BYTES
            self._set_deadline(conn, settings.HTTP_SEND_SECONDS)
            # It is no longer among those that have waited longest.
            del self.waiting[conn]
            self.waiting[conn] = None

    def _refuse(self, conn: Connection, name: str, message: str | None = None) -> None:
        """Answer a request that no thread will see, with one of `instances.errors`, and end the connection."""
        from instances import errors
        from novita_site.gunicorn import make_answer

        error: PanelError = getattr(errors, name)(message)
        log.warning("request refused: %s", error.code, extra={"rejection": error.code})
        self._end_wait(conn)
        conn.keeps = False
        is_head = conn.incoming.startswith(b"HEAD ")
        conn.incoming.clear()
        conn.linger_seconds = settings.HTTP_BODY_SECONDS
        conn.unsent.append(make_answer(error, error.status, error.status.phrase, is_head=is_head))
        self._go_on(conn)

    def _end(self, conn: Connection) -> None:
        """Say that nothing more comes, and take what the client still sends: a reset could overtake the answer."""
        try:
            conn.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
        else:
            self._wait(conn, selectors.EVENT_READ, self._discard, conn.linger_seconds)

    def _discard(self, conn: Connection, _: object) -> None:
        try:
            piece = conn.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        conn.discarded += len(piece)
        if not piece or conn.discarded > MAX_DISCARDED_BYTES:
            self._close(conn)

    def _close(self, conn: Connection) -> None:
        self._end_wait(conn)
        self.nr_conns -= 1
        self.per_network[conn.network] -= 1
        if not self.per_network[conn.network]:
            del self.per_network[conn.network]
        conn.unsent.clear()
        conn.socket.close()

    # --- Who waits, and for how long

    def _wait(self, conn: Connection, event: int, act: Callable[[Connection, object], None], seconds: float) -> None:
        self._set_deadline(conn, seconds)
        self.poller.register(conn.socket, event, partial(act, conn))
        self.waiting[conn] = None

    def _end_wait(self, conn: Connection) -> None:
        if conn in self.waiting:
            del self.waiting[conn]
            self.poller.unregister(conn.socket)

    def _set_deadline(self, conn: Connection, seconds: float) -> None:
        conn.deadline = time.monotonic() + (seconds if self.alive else min(seconds, STOP_KEEPALIVE_LINGER))

    def murder_pending(self) -> None:
        """End the waits that have lasted too long. gunicorn calls it at each turn of its loop."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_SECONDS
        for conn in [conn for conn in self.waiting if conn.deadline <= now]:
            if conn.incoming and not conn.unsent.size:
                self._refuse(conn, "RequestTimedOut")
            else:
                self._close(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """Let no client hold up the end of the worker (gunicorn calls it when that begins)."""
        for conn in self.waiting:
            conn.deadline = min(conn.deadline, deadline)

    def murder_keepalived(self, force: bool = False) -> None:
        if force:
            for conn in list(self.waiting):
                self._close(conn)

    # --- How many

    def _make_room(self, conn: Connection) -> bool:
        """Close others so that a new connection fits in. A client that is quick is never the one that waits longest."""
        if conn.network and self.per_network[conn.network] > settings.HTTP_CONNECTIONS_PER_CLIENT:
            return self._drop_oldest(conn.network)
        return self.nr_conns < self.worker_connections or self._drop_oldest()

    def _drop_oldest(self, network: str = "") -> bool:
        for conn in self.waiting:
            if not network or conn.network == network:
                log.warning("too many connections: closed the oldest idle one", extra={"rejection": "connections"})
                self._close(conn)
                return True
        return False

    def _limit_unsent(self) -> None:
        """Close those that have waited longest with more than their share; one large answer alone may be any size."""
        slow = [conn for conn in self.waiting if conn.unsent.size]
        unsent = sum(conn.unsent.size for conn in slow)
        large = [conn for conn in slow if conn.unsent.size * len(slow) > MAX_UNSENT_BYTES]
        for conn in large[:-1]:
            if unsent <= MAX_UNSENT_BYTES:
                break
            unsent -= conn.unsent.size
            log.warning("too many answers are not taken: closed the oldest", extra={"rejection": "unsent"})
            self._close(conn)
