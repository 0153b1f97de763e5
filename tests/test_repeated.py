"""Repeated requests and headers: what gunicorn found out once counts as if it had found it out again."""

import socket
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request as GunicornRequest
from gunicorn.http.unreader import SocketUnreader

from novita_site import repeated
from novita_site.worker import Exchange
from tests.raw_requests import THIS_MACHINE, Answer, Server, write

COOKIE = ("Cookie", "a=b; c=d")


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    repeated._known.clear()
    yield
    repeated._known.clear()


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Counts the requests that gunicorn parses."""
    count, parse = Mock(), GunicornRequest.parse
    monkeypatch.setattr(GunicornRequest, "parse", lambda self, unreader: (count(), parse(self, unreader))[1])
    return count


class Application:
    """Answers with what it got, and the given headers."""

    def __init__(self, *headers: tuple[str, str]) -> None:
        self.headers = headers
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        own = {"gunicorn.socket", "wsgi.errors", "wsgi.early_hints", "wsgi.input"}
        self.environs.append({name: value for name, value in environ.items() if name not in own})
        start_response("200 OK", [("Content-Length", str(len(body))), *self.headers])
        return [body]


@pytest.mark.parametrize(
    "request_",
    [
        write("/"),
        write("/api/instances/%c3%a9?search=a%20b&x#y", [COOKIE, ("X-Odd", "\xe9"), ("Accept", "a"), ("Accept", "b")]),
        write("http://localhost/health", [("Connection", "close")]),
        write("/", [("Content-Length", "0"), ("Content-Type", "text/plain")]),
        write("/", version="1.0"),
        write("/", [("Host", "")]),
    ],
)
def test_repeated_request_is_parsed_once_and_arrives_as_before(parser: Mock, request_: bytes) -> None:
    application = Application()
    server = Server(application)

    answers = [server.send(request_) for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.rest for answer in answers] == [b""] * 3
    assert [answer.keeps_connection for answer in answers] == [answers[0].keeps_connection] * 3
    assert application.environs == [application.environs[0]] * 3
    assert parser.call_count == 1


@pytest.mark.parametrize(
    "request_",
    [
        write("/", method="HEAD"),
        write("/", method="POST", headers=[("Content-Length", "2")], body=b"{}"),
        write("/", [("Content-Length", "2")], body=b"{}"),
        write("/", [("Transfer-Encoding", "chunked")], body=b"2\r\n{}\r\n0\r\n\r\n"),
        write("/", [("Expect", "100-continue")]),
        write("/", [("X-Long", "x" * 2048)]),
        write("/") + write("/other"),
    ],
)
def test_request_with_more_than_a_short_head_is_parsed_each_time(parser: Mock, request_: bytes) -> None:
    application = Application()
    server = Server(application)

    first, second = (server.send(request_) for _ in range(2))

    assert second.body == first.body
    assert second.rest == first.rest
    assert application.environs[0] == application.environs[1]
    assert parser.call_count == 2


def test_refused_request_is_refused_each_time(parser: Mock) -> None:
    server = Server(Application())

    assert [server.send(write("/", [("X Odd", "1")])).status for _ in range(2)] == [400, 400]
    assert parser.call_count == 2


def test_request_of_another_address_is_parsed_anew(parser: Mock) -> None:
    application = Application()
    server = Server(application)

    for address in ("127.0.0.1", "192.0.2.7", "127.0.0.1"):
        server.send(write("/"), address)

    assert [environ["REMOTE_ADDR"] for environ in application.environs] == ["127.0.0.1", "192.0.2.7", "127.0.0.1"]
    assert parser.call_count == 2


def test_end_of_one_connection_ends_no_other(parser: Mock) -> None:
    application = Application()
    server = Server(application)
    server.send(write("/"))
    repeated_request = next(iter(repeated._known.values()))

    assert repeated_request["must_close"] is False
    assert server.send(write("/")).keeps_connection


def test_bytes_left_from_before_come_first(parser: Mock) -> None:
    server = Server(Application())
    server.send(write("/known"))
    with socket.socket() as sock:
        exchange = Exchange(sock)
        exchange.request = write("/known")
        unreader = SocketUnreader(exchange)
        unreader.unread(write("/before"))

        request = repeated.Request(Config(), unreader, (THIS_MACHINE, 40_000))

    assert request.path == "/before"


def test_number_of_known_requests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated, "MAX_KNOWN", 3)
    server = Server(Application())

    for number in range(10):
        server.send(write(f"/{number}"))

    assert len(repeated._known) <= 3


@pytest.mark.parametrize("header", [("X-Name", "a\r\nSet-Cookie: b=c"), ("X Name", "a"), ("X-Name", "a\0")])
def test_header_that_gunicorn_refuses_is_refused_each_time(header: tuple[str, str]) -> None:
    server = Server(Application(header))

    assert [server.send(write("/")).status for _ in range(2)] == [500, 500]


def test_headers_are_sent_as_gunicorn_sends_them_each_time() -> None:
    server = Server(
        Application(("X-Name", "  a  "), ("Connection", "close"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"))
    )

    def show(answer: Answer) -> list[tuple[str, str]]:
        return [(name, value) for name, value in answer.headers if name != "date"]

    first, second = (show(server.send(write("/"))) for _ in range(2))

    assert first == second
    assert first[2:] == [("content-length", "0"), ("x-name", "a"), ("set-cookie", "a=b"), ("set-cookie", "c=d")]


def test_date_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Application())
    dates = []
    for now in (1_800_000_000.9, 1_800_000_001.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        dates.append(server.send(write("/"))["Date"])

    assert dates == ["Fri, 15 Jan 2027 08:00:00 GMT", "Fri, 15 Jan 2027 08:00:01 GMT"]
