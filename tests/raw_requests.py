"""Requests as bytes: through gunicorn's parser and our worker to an application, in the test's own thread."""

import email.parser
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from unittest.mock import Mock

from gunicorn.config import Config

from novita_site import gunicorn
from novita_site.worker import Connection, PatientWorker

THIS_MACHINE = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """An answer as it was sent. Names of headers are in lower case."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    keeps_connection: bool
    # What the worker takes for the start of the next request.
    rest: bytes

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    def __getitem__(self, name: str) -> str:
        return dict(self.headers)[name.lower()]


class Server:
    """A worker with an application. It has no main loop: each request is handled when it is sent."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        cfg = Config()
        cfg.set("forwarded_allow_ips", gunicorn.forwarded_allow_ips)
        cfg.set("pre_request", gunicorn.pre_request)
        self._worker = PatientWorker(1, 1, [], None, 30, cfg, Mock())
        self._worker.tmp.close()
        self._worker.wsgi = application

    def send(self, request: bytes, address: str = THIS_MACHINE) -> Answer:
        """Send a request on a connection of its own, from an address."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            conn = Connection(self._worker.cfg, ours, (address, 40_000), (THIS_MACHINE, 3000))
            conn.incoming += request
            conn.begin_request()
            keeps = bool(self._worker.handle(conn))
            sent = b"".join(bytes(part) for part in conn.unsent._parts)
            if keeps:
                conn.end_request()
        return _read(sent, keeps, bytes(conn.incoming))


def _read(sent: bytes, keeps: bool, rest: bytes) -> Answer:
    head, _, body = sent.partition(b"\r\n\r\n")
    line, _, lines = head.decode("latin-1").partition("\r\n")
    headers = email.parser.HeaderParser().parsestr(lines)
    return Answer(line, [(name.lower(), value) for name, value in headers.items()], body, keeps, rest)


def write(
    path: str, headers: Sequence[tuple[str, str]] = (), *, method: str = "GET", version: str = "1.1", body: bytes = b""
) -> bytes:
    """Return a request's bytes. It goes to localhost unless the headers name a host; an empty host means none."""
    has_host = any(name.lower() == "host" for name, _ in headers)
    given = [*headers] if has_host else [("Host", "localhost"), *headers]
    lines = [f"{name}: {value}" for name, value in given if (name, value) != ("Host", "")]
    return "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode("latin-1") + body
