"""Servers on this machine: one over TLS that answers as Novita would, and an HTTP proxy that connects to it."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

LISTING = b'{"instances": [{"id": "a"}], "total": 1}'


def make_answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def read_head(connection: socket.socket) -> bytes:
    """Return what comes up to the empty line; b"" when the other side goes away."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            return b""
        head += piece
    return head


def drip(connection: socket.socket, text: bytes) -> None:
    """Send a byte now and then, for as long as the other side listens."""
    with contextlib.suppress(OSError):
        for byte in text:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)


class Server:
    """Calls `serve` for each connection, in a thread; over TLS when there is a certificate."""

    def __init__(self, serve: Callable[[socket.socket], None], certificate: Path | None = None) -> None:
        self._serve = serve
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._context and certificate:
            self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._threads.append(threading.Thread(target=self._handle, args=[connection]))
                self._threads[-1].start()

    def _handle(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._context is None:
                self._serve(connection)
                return
            with self._context.wrap_socket(connection, server_side=True) as secured:
                self._serve(secured)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=20)


def serve_listing(connection: socket.socket) -> None:
    while read_head(connection):
        connection.sendall(make_answer(LISTING))


class Proxy(Server):
    """An HTTP proxy: every CONNECT leads to one port of this machine. `heads` has what it was asked."""

    def __init__(self, target_port: int, certificate: Path | None = None) -> None:
        self.heads: list[str] = []
        self._target_port = target_port
        super().__init__(self._tunnel, certificate)

    def _tunnel(self, connection: socket.socket) -> None:
        head = read_head(connection)
        self.heads.append(head.decode("latin-1"))
        with socket.create_connection(("127.0.0.1", self._target_port), timeout=20) as target:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=copy, args=[target, connection])
            back.start()
            copy(connection, target)
            back.join(timeout=20)


def copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            socket.socket.shutdown(one, socket.SHUT_RDWR)
