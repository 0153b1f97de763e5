"""gunicorn's threaded worker, changed so that a slow client holds no thread.

The main loop receives the complete request, each part under a deadline, before a thread handles it. It also sends the
part of a response that the client doesn't read at once. A thread uses a stand-in for the socket and never waits for a
client.
"""

import contextlib
import logging
import select
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from novita_site import repeated
from novita_site.env import is_loopback
from novita_site.framing import Framing, TooLarge
from novita_site.unsent import Unsent

if TYPE_CHECKING:
    # gunicorn loads this module before Django's models, so modules that need models are imported inside functions.
    from instances.errors import PanelError

log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 64 * 1024
# A client that is still sending a refused body reads the response only if the server reads those bytes.
MAX_DISCARDED_BYTES: Final = 64 * 1024 * 1024
# Unsent responses of slow clients, in memory and in temporary files.
MAX_UNSENT_BYTES: Final = 128 * 1024 * 1024
# How much of a long response a client must read before its deadline; each further part has the same time.
PROGRESS_BYTES: Final = 64 * 1024
LINGER_SECONDS: Final = 2.0
SWEEP_SECONDS: Final = 0.2

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """A thread's stand-in for the socket: it holds the complete request and collects the response."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.request = b""
        self.is_head = False
        self.answer = Unsent()

    def recv(self, size: int) -> bytes:
        piece, self.request = self.request[:size], self.request[size:]
        if not piece:
            # A body that ends early must never pass for a complete one.
            raise NoMoreData
        return piece

    def peek(self, wait_seconds: float) -> bytes:
        """Return the bytes after the request that arrive within this time, without reading them from the socket."""
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
        """Ignore gunicorn's 100 Continue: the main loop has sent it, or the body has arrived."""
        return len(data)

    def gettimeout(self) -> float:
        return 0.0

    def ignore(self, *args: Any) -> None:
        pass

    setblocking = settimeout = shutdown = close = ignore


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """A client's connection. gunicorn's threads use `sock`, the stand-in; only the main loop uses `socket`."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, Exchange(sock), client, server)
        # Its data has arrived before a thread handles it.
        self.data_ready = True
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            # Otherwise the system buffers megabytes at once and then nothing for long, and a slow client looks stuck.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, PROGRESS_BYTES)
        self.socket = sock
        self.network = "" if isinstance(client, str | bytes) else _find_limited_network(str(client[0]))
        self.deadline = 0.0
        self.incoming = bytearray()
        self.unsent: Unsent = self.sock.answer
        # The client gets a new deadline when it has read this much of the response.
        self.progress_at = 0
        self.framing = Framing(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        self.keeps = False
        self.linger_seconds = LINGER_SECONDS
        self.discarded = 0
        # What the main loop watches the socket for, and what it does then.
        self.event = 0
        self.act: Callable[[Connection], None] | None = None

    def init(self) -> None:
        super().init()
        self.parser.mesg_class = repeated.Request

    def begin_request(self) -> None:
        self.sock.is_head = self.incoming.startswith(b"HEAD ")
        self.sock.request, self.incoming = bytes(self.incoming), bytearray()

    def end_request(self) -> None:
        """Keep the bytes after the request: they are the start of the next one."""
        self.incoming = bytearray((self.parser.unreader.take_buffered() + self.sock.request).lstrip(b"\r\n"))
        self.sock.request = b""
        self.framing = Framing(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


def _find_limited_network(address: str) -> str:
    """Return the network whose connections are counted; "" for this machine and trusted proxies: no limit."""
    from instances.access.proxies import client_network, is_trusted

    return "" if is_loopback(address) or is_trusted(address) else client_network(address)


class Threads:
    """Threads that handle connections.

    In place of ThreadPoolExecutor, which makes a future with a lock and a condition for each request.
    """

    def __init__(self, count: int, handle: Callable[[Connection], None]) -> None:
        self._waiting: SimpleQueue[Connection | None] = SimpleQueue()
        self._handle = handle
        self._count = count
        for number in range(count):
            threading.Thread(target=self._run, name=f"request-{number}", daemon=True).start()

    def submit(self, conn: Connection) -> None:
        self._waiting.put(conn)

    def shutdown(self, *, wait: bool) -> None:
        """End each thread after its request. gunicorn has waited for the requests before."""
        for _ in range(self._count):
            self._waiting.put(None)

    def _run(self) -> None:
        while (conn := self._waiting.get()) is not None:
            self._handle(conn)


class PatientWorker(ThreadWorker):  # type: ignore[misc]  # likewise
    """Waits for clients in its main loop. `waiting` holds their connections, the longest wait first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: dict[Connection, None] = {}
        self._handled: deque[Connection] = deque()
        self._is_called = False
        self.per_network: Counter[str] = Counter()
        self._next_sweep = 0.0

    def init_signals(self) -> None:
        from novita_site.gunicorn import unblock_sigterm

        super().init_signals()
        unblock_sigterm()

    # --- The life of a connection

    def accept(self, listener: socket.socket) -> None:
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            # No file descriptor or memory is left.
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

    def _receive(self, conn: Connection) -> None:
        try:
            piece = conn.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
            conn.incoming.clear()
        if piece:
            if not conn.incoming:
                # Old clients send an empty line after a body; it is not a part of the next request.
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
        """Hand the request to a thread if it is complete."""
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

    def get_thread_pool(self) -> Threads:
        return Threads(self.cfg.threads, self._handle_in_thread)

    def enqueue_req(self, conn: Connection) -> None:
        self.tpool.submit(conn)

    def _handle_in_thread(self, conn: Connection) -> None:
        """Handle a request. This thread also sends most responses, without the main loop."""
        conn.keeps = False
        try:
            conn.keeps = bool(self.handle(conn))
            self._send(conn)
        except BaseException:
            log.exception("connection ended")
        self._handled.append(conn)
        if not self._is_called:
            self._is_called = True
            self.method_queue.defer(self._finish_handled)

    def _send(self, conn: Connection) -> None:
        try:
            conn.unsent.send(conn.socket)
        except OSError:
            # The client is gone; the main loop notices when it reads.
            conn.unsent.clear()

    def _finish_handled(self) -> None:
        # A connection that is handled from now on calls again.
        self._is_called = False
        while self._handled:
            conn = self._handled.popleft()
            if conn.keeps:
                conn.end_request()
            self._go_on(conn)

    def _go_on(self, conn: Connection) -> None:
        """Send the rest of the response; then receive the next request or end the connection."""
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

    def _send_more(self, conn: Connection) -> None:
        self._send(conn)
        if not conn.unsent.size:
            self._end_wait(conn)
            self._go_on(conn)
        elif conn.unsent.sent >= conn.progress_at and self.alive:
            conn.progress_at = conn.unsent.sent + PROGRESS_BYTES
            self._set_deadline(conn, settings.HTTP_SEND_SECONDS)
            # Its wait begins again.
            del self.waiting[conn]
            self.waiting[conn] = None

    def _refuse(self, conn: Connection, name: str, message: str | None = None) -> None:
        """Refuse a request with an error of `instances.errors`, without a thread, and end the connection."""
        from instances import errors
        from instances.monitoring import counters, requests
        from novita_site.gunicorn import make_answer

        error: PanelError = getattr(errors, name)(message)
        counters.count_request(requests.REFUSED, error.status)
        log.warning("request refused: %s", error.code, extra={"rejection": error.code})
        self._end_wait(conn)
        conn.keeps = False
        is_head = conn.incoming.startswith(b"HEAD ")
        conn.incoming.clear()
        conn.linger_seconds = settings.HTTP_BODY_SECONDS
        conn.unsent.append(make_answer(error, error.status, error.status.phrase, is_head=is_head))
        self._go_on(conn)

    def _end(self, conn: Connection) -> None:
        """Close the sending side, and read what the client still sends: a reset could overtake the response."""
        try:
            conn.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
        else:
            self._wait(conn, selectors.EVENT_READ, self._discard, conn.linger_seconds)

    def _discard(self, conn: Connection) -> None:
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
        self._ignore(conn)
        self.nr_conns -= 1
        self.per_network[conn.network] -= 1
        if not self.per_network[conn.network]:
            del self.per_network[conn.network]
        conn.unsent.clear()
        conn.socket.close()

    # --- Waiting connections and their deadlines

    def _wait(self, conn: Connection, event: int, act: Callable[[Connection], None], seconds: float) -> None:
        self._set_deadline(conn, seconds)
        self.waiting[conn] = None
        conn.act = act
        if not conn.event:
            self.poller.register(conn.socket, event, partial(self._act, conn))
        elif conn.event != event:
            self.poller.modify(conn.socket, event, partial(self._act, conn))
        conn.event = event

    def _act(self, conn: Connection, _: object) -> None:
        if conn in self.waiting and conn.act:
            conn.act(conn)
        else:
            self._ignore(conn)

    def _end_wait(self, conn: Connection) -> None:
        """End the wait. The poller still watches the socket: most clients send nothing until they have the answer."""
        self.waiting.pop(conn, None)

    def _ignore(self, conn: Connection) -> None:
        if conn.event:
            self.poller.unregister(conn.socket)
            conn.event = 0

    def _set_deadline(self, conn: Connection, seconds: float) -> None:
        conn.deadline = time.monotonic() + (seconds if self.alive else min(seconds, STOP_KEEPALIVE_LINGER))

    def murder_pending(self) -> None:
        """End the connections past their deadline. gunicorn calls this in each turn of its loop."""
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
        """Let no client delay the shutdown of the worker. gunicorn calls this when the shutdown begins."""
        for conn in self.waiting:
            conn.deadline = min(conn.deadline, deadline)

    def murder_keepalived(self, force: bool = False) -> None:
        if force:
            for conn in list(self.waiting):
                self._close(conn)

    # --- Limits

    def _make_room(self, conn: Connection) -> bool:
        """Close other connections to admit a new one. A quick client is never the one that has waited longest."""
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
        """Close the longest waits that exceed their share of memory. A single large response may have any size."""
        slow = [conn for conn in self.waiting if conn.unsent.size]
        unsent = sum(conn.unsent.size for conn in slow)
        large = [conn for conn in slow if conn.unsent.size * len(slow) > MAX_UNSENT_BYTES]
        for conn in large[:-1]:
            if unsent <= MAX_UNSENT_BYTES:
                break
            unsent -= conn.unsent.size
            log.warning("too many unsent responses: closed the oldest", extra={"rejection": "unsent"})
            self._close(conn)
