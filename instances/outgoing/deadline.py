"""Deadlines for HTTP work: a budget of seconds for a piece of work, and connections that are cut at their deadline.

requests has no total timeout: a server that sends a byte now and then never meets its read timeout.
"""

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssltransport import SSLTransport

from instances.errors import NovitaTimeout, ShuttingDown

CANCEL_AGAIN_SECONDS: Final = 0.1


class Budget:
    """The seconds that a piece of work may take, and its calls and retries so far. Shared by its threads."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._attempts: set[Attempt] = set()
        self.calls = 0
        self.retries = 0

    @property
    def remaining_seconds(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise ShuttingDown or NovitaTimeout when the budget is cancelled or used up."""
        if self._cancelled.is_set():
            raise ShuttingDown
        if not self.remaining_seconds:
            raise NovitaTimeout("Novita did not answer before the deadline.")

    def pause(self, seconds: float) -> None:
        """Sleep. Raises NovitaTimeout at once when the pause is longer than the rest of the budget."""
        if seconds >= self.remaining_seconds:
            raise NovitaTimeout("Novita requested a pause that is longer than the time left.")
        self._cancelled.wait(seconds)
        self.check()

    def cancel(self) -> None:
        """End the work: running calls are cut, further calls raise ShuttingDown."""
        self._cancelled.set()
        with self._lock:
            attempts = list(self._attempts)
        for attempt in attempts:
            attempt.cut()

    @contextlib.contextmanager
    def attempt(self, limit_seconds: float) -> Iterator["Attempt"]:
        """Run one HTTP exchange in the block, and cut its connection at the limit or at the end of the budget."""
        attempt = Attempt()
        with self._lock:
            self.check()
            self.calls += 1
            self._attempts.add(attempt)
        timer = threading.Timer(min(limit_seconds, self.remaining_seconds), attempt.cut)
        timer.daemon = True
        timer.start()
        _thread.attempt = attempt
        try:
            yield attempt
        finally:
            timer.cancel()
            _thread.attempt = None
            with self._lock:
                self._attempts.discard(attempt)


_running: set[Budget] = set()
_running_lock = threading.Lock()


@contextlib.contextmanager
def cancellable(budget: Budget) -> Iterator[None]:
    """Let `cancel_running` end the work of the block."""
    with _running_lock:
        _running.add(budget)
    try:
        yield
    finally:
        with _running_lock:
            _running.discard(budget)


def cancel_running() -> None:
    """End the work of this process, for its shutdown: it raises ShuttingDown and releases its locks."""
    with _running_lock:
        budgets = list(_running)
    for budget in budgets:
        budget.cancel()


def cancel_until_ended(thread: threading.Thread, seconds: float) -> bool:
    """Cancel the work of this process until a thread has ended; False when it has not ended within `seconds`.

    Cancelling once is not enough: the thread may be about to start a call, which would then run to its own deadline.
    """
    ends_at = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < ends_at:
        cancel_running()
        thread.join(CANCEL_AGAIN_SECONDS)
    return not thread.is_alive()


class Attempt:
    """One HTTP exchange that can be cut from outside. A server that sends byte by byte causes no read timeout."""

    def __init__(self) -> None:
        self.is_cut = False
        self._sock: socket.socket | SSLTransport | None = None

    def use(self, sock: socket.socket | SSLTransport) -> None:
        # The socket and not its connection, which drops the socket after "Connection: close".
        self._sock = sock
        if self.is_cut:
            self.cut()

    def cut(self) -> None:
        self.is_cut = True
        if self._sock:
            sock = self._sock
            while isinstance(sock, SSLTransport):  # TLS within the TLS of a proxy.
                sock = sock.socket
            with contextlib.suppress(OSError):
                # Not sock.shutdown(): on a TLS socket that removes the session while another thread reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


_thread = threading.local()


class _WatchedConnection(HTTPConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        if attempt := getattr(_thread, "attempt", None):
            if self.sock is None:
                self.connect()
            attempt.use(self.sock)
        super().request(*args, **kwargs)


class _WatchedTLSConnection(_WatchedConnection, HTTPSConnection):
    def connect(self) -> None:
        with contextlib.ExitStack() as self._handshake:
            super().connect()

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        if attempt := getattr(_thread, "attempt", None):
            # A handshake may be slow, too. TLS detaches the socket before the handshake, so a duplicate is watched.
            attempt.use(self._handshake.enter_context(sock.dup()))
        return sock


class _WatchedPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTLSConnection


_POOLS = {"http": _WatchedPool, "https": _WatchedTLSPool}


class WatchedAdapter(HTTPAdapter):
    """Connections that an attempt can cut, through a proxy too.

    `ca_certificates` is PEM text: authorities that are trusted in addition to the public ones.
    """

    def __init__(self, *args: Any, ca_certificates: str = "", **options: Any) -> None:
        self._trust: dict[str, Any] = {"ca_cert_data": ca_certificates} if ca_certificates else {}
        super().__init__(*args, **options)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **{**options, **self._trust})
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Send user and password as the bytes of the URL. requests supports Latin-1 only."""
        parts = urlsplit(proxy)
        if parts.username is None:
            return {}
        login = b":".join(unquote_to_bytes(part or "") for part in (parts.username, parts.password))
        return {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options, **self._trust)
        manager.pool_classes_by_scheme = _POOLS
        return manager
