"""How the client handles the failures of a network, on real sockets."""

import contextlib
import gzip
import http.client
import logging
import socket
import struct
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from http.client import HTTPMessage
from pathlib import Path

import pytest

from instances.errors import (
    NovitaBadAnswer,
    NovitaError,
    NovitaTimeout,
    NovitaUnavailable,
    ShuttingDown,
)
from instances.novita.client import USER_AGENT, Novita
from instances.outgoing import deadline
from instances.outgoing.deadline import Budget

KEY = "FAKE-SECRET-key"
ROWS = b'{"instances": [{"id": "a"}], "total": 1}'
Write = Callable[[socket.socket], object]


class Wire:
    """A server on a real socket: records the headers of each request, and then passes the connection to `write`."""

    def __init__(self, write: Write) -> None:
        self.requests: list[HTTPMessage] = []
        self._write = write
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=[connection]))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            with connection.makefile("rb") as reader:
                if not reader.readline():
                    return
                headers = http.client.parse_headers(reader)
                reader.read(int(headers.get("Content-Length", 0)))
            self.requests.append(headers)
            self._write(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=20)


Serve = Callable[[Write], Wire]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:
        yield lambda write: stack.enter_context(contextlib.closing(Wire(write)))


def connect(url: str, read_timeout_seconds: float = 20) -> Novita:
    return Novita(
        api_key=KEY,
        base_url=url,
        page_size=100,
        concurrency=4,
        connect_timeout_seconds=0.1,
        read_timeout_seconds=read_timeout_seconds,
    )


def make_answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""])
    return head.encode() + body


def say(*pieces: bytes) -> Write:
    return lambda connection: connection.sendall(b"".join(pieces))


def drip(start: bytes, piece: bytes) -> Write:
    """Send a piece every 0.05 s, for 10 s or until the client disconnects."""

    def write(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(200):
            time.sleep(0.05)
            connection.sendall(piece)

    return write


def hang(connection: socket.socket) -> None:
    connection.recv(1)


def say_and_hang(data: bytes) -> Write:
    def write(connection: socket.socket) -> None:
        connection.sendall(data)
        hang(connection)

    return write


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def find_closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


CUT_SHORT = make_answer(ROWS[:10], f"Content-Length: {len(ROWS)}")
LINGERING = {
    "status": drip(b"", b"H"),
    "headers": drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "body": drip(make_answer(b"", "Content-Length: 1000"), b" "),
    "body, kept alive": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
    "chunks": drip(make_answer(b"", "Transfer-Encoding: chunked"), b"1\r\n \r\n"),
    # Cut here, the received part is a valid listing, and nothing shows that the answer is incomplete.
    "whole listing": drip(make_answer(ROWS), b" "),
}


@pytest.mark.parametrize("write", LINGERING.values(), ids=LINGERING)
@pytest.mark.parametrize(("seconds", "read_timeout"), [(60, 0.2), (0.3, 20)], ids=["one call's limit", "budget"])
def test_slow_answer_is_cut_at_the_limit(serve: Serve, write: Write, seconds: float, read_timeout: float) -> None:
    server, began = serve(write), time.monotonic()

    with pytest.raises(NovitaTimeout):
        connect(server.url, read_timeout).list_instances(Budget(seconds))

    assert time.monotonic() - began < 10
    assert len(server.requests) == 1


@pytest.mark.parametrize("write", [hang, say_and_hang(CUT_SHORT)], ids=["nothing", "half an answer"])
def test_silence_is_a_timeout_without_a_retry(serve: Serve, write: Write) -> None:
    server = serve(write)

    with pytest.raises(NovitaTimeout):
        connect(server.url, read_timeout_seconds=0.2).list_instances(Budget(60))

    assert len(server.requests) == 1


BREAKS = {
    "reset": reset,
    "closed": say(),
    "cut short": say(CUT_SHORT),
    "cut short in chunks": say(make_answer(b"28\r\n" + ROWS[:10], "Transfer-Encoding: chunked")),
    "cut short in gzip": say(make_answer(gzip.compress(ROWS)[:-12], "Content-Encoding: gzip", "Content-Length: 99")),
    "no HTTP": say(b"220 smtp.test ESMTP\r\n"),
}


@pytest.mark.parametrize("write", BREAKS.values(), ids=BREAKS)
@pytest.mark.usefixtures("no_pauses")
def test_broken_connection_is_retried_and_then_reported(serve: Serve, write: Write) -> None:
    server = serve(write)

    with pytest.raises(NovitaUnavailable):
        connect(server.url).list_instances(Budget(60))

    assert len(server.requests) == 4


@pytest.mark.usefixtures("no_pauses")
def test_refused_connection_is_reported() -> None:
    with pytest.raises(NovitaUnavailable, match="can't be reached"):
        connect(f"http://127.0.0.1:{find_closed_port()}").list_instances(Budget(60))


@pytest.mark.parametrize(
    "write",
    [*BREAKS.values(), hang, say(make_answer(b"", status="500 Oops")), say(make_answer(b"", status="429 Slower"))],
    ids=[*BREAKS, "silence", "500", "429"],
)
@pytest.mark.usefixtures("no_pauses")
def test_action_is_sent_once_whatever_the_answer(serve: Serve, write: Write) -> None:
    server = serve(write)

    with pytest.raises(NovitaError):
        connect(server.url, read_timeout_seconds=0.2).request("stop", "a", Budget(60))

    assert len(server.requests) == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    "head",
    [
        make_answer(b"", "Content-Encoding: gzip"),
        make_answer(b"", "Content-Encoding: gzip", status="500 Oops"),
        make_answer(b"", "Content-Encoding: gzip", "Location: /elsewhere", status="302 Found"),
    ],
    ids=["200", "500", "302"],
)
def test_gzip_bomb_is_refused_in_bounded_memory(serve: Serve, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr("instances.novita.failures.MAX_BODY_BYTES", 1 << 20)
    server = serve(say(head, gzip.compress(b" " * (64 << 20))))
    tracemalloc.start()

    try:
        with pytest.raises(NovitaBadAnswer, match="larger than 1 MB"):
            connect(server.url).list_instances(Budget(60))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 8 << 20


def test_body_that_can_not_be_unpacked_is_a_bad_answer(serve: Serve) -> None:
    server = serve(say(make_answer(ROWS, "Content-Encoding: gzip")))

    with pytest.raises(NovitaBadAnswer, match="can't be unpacked"):
        connect(server.url).list_instances(Budget(60))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "call",
    [lambda api: api.list_instances(Budget(60)), lambda api: api.request("stop", "a", Budget(60))],
    ids=["read", "action"],
)
def test_redirect_is_not_followed(serve: Serve, status: int, call: Callable[[Novita], object]) -> None:
    elsewhere = serve(say(make_answer(ROWS)))
    server = serve(say(make_answer(b"", f"Location: {elsewhere.url}/", status=f"{status} Elsewhere")))

    with pytest.raises(NovitaBadAnswer, match="redirect"):
        call(connect(server.url))

    assert len(server.requests) == 1
    assert len(elsewhere.requests) == 0


def test_proxy_and_password_of_the_environment_are_ignored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy, server = serve(say(make_answer(ROWS))), serve(say(make_answer(ROWS)))
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    connect(server.url).list_instances(Budget(60))

    assert not proxy.requests
    assert server.requests[0]["Authorization"] == f"Bearer {KEY}"


def test_call_sends_our_user_agent_and_accepts_json(serve: Serve) -> None:
    server = serve(say(make_answer(ROWS)))

    connect(server.url).list_instances(Budget(60))

    sent = {name: server.requests[0][name] for name in ("User-Agent", "Content-Type", "Accept")}
    assert sent == {"User-Agent": USER_AGENT, "Content-Type": "application/json", "Accept": "application/json"}


def test_cookie_is_not_sent_back(serve: Serve) -> None:
    server = serve(say(make_answer(ROWS, "Set-Cookie: edge=1; Path=/")))
    api = connect(server.url)

    for _ in range(2):
        api.list_instances(Budget(60))

    assert server.requests[1]["Cookie"] is None


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", make_answer(ROWS[:10])], ids=["", "headers", "body"])
def test_cancelled_budget_ends_a_hanging_call(serve: Serve, start: bytes) -> None:
    budget, began = Budget(60), time.monotonic()

    def write(connection: socket.socket) -> None:
        connection.sendall(start)
        threading.Timer(0.1, budget.cancel).start()
        hang(connection)

    with pytest.raises(ShuttingDown):
        connect(serve(write).url).list_instances(budget)

    assert time.monotonic() - began < 10


def test_cancelled_budget_ends_a_pause(serve: Serve) -> None:
    budget, began = Budget(60), time.monotonic()

    def write(connection: socket.socket) -> None:
        connection.sendall(make_answer(b"", "Retry-After: 20", status="503 Busy"))
        threading.Timer(0.1, budget.cancel).start()

    with pytest.raises(ShuttingDown):
        connect(serve(write).url).list_instances(budget)

    assert time.monotonic() - began < 10


def test_cancelled_budget_starts_no_call(serve: Serve) -> None:
    server, budget = serve(say(make_answer(ROWS))), Budget(60)
    budget.cancel()

    with pytest.raises(ShuttingDown):
        connect(server.url).list_instances(budget)

    assert not server.requests


def test_call_that_starts_during_shutdown_is_cancelled(serve: Serve) -> None:
    server, budget, has_cancelled = serve(hang), Budget(60), threading.Event()
    raised: list[BaseException] = []

    def list_late() -> None:
        assert has_cancelled.wait(5)
        with pytest.raises(ShuttingDown) as caught, deadline.cancellable(budget):
            connect(server.url).list_instances(budget)
        raised.append(caught.value)

    class EarlierWork(Budget):
        def cancel(self) -> None:
            has_cancelled.set()

    thread = threading.Thread(target=list_late)
    thread.start()
    with deadline.cancellable(EarlierWork(60)):
        assert deadline.cancel_until_ended(thread, 5)

    assert raised


def test_exhausted_budget_starts_no_call(serve: Serve) -> None:
    budget = Budget(0)

    with pytest.raises(NovitaTimeout, match="before the deadline"):
        connect(serve(say(make_answer(ROWS))).url).list_instances(budget)

    assert budget.calls == 0


ANSWERS = {
    **BREAKS,
    "good": say(make_answer(ROWS)),
    "HTML": say(make_answer(b"<html>")),
    "401": say(make_answer(b"{}", status="401 Unauthorized")),
    "500": say(make_answer(b"", status="500 Oops")),
    "redirect": say(make_answer(b"", "Location: /", status="302 Found")),
    "silence": hang,
}


@pytest.mark.parametrize("write", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.usefixtures("no_pauses")
def test_key_is_in_the_request_and_nowhere_else(serve: Serve, caplog: pytest.LogCaptureFixture, write: Write) -> None:
    for logger in (None, "instances", "urllib3", "requests"):
        caplog.set_level(logging.DEBUG, logger)
    server, told = serve(write), ""
    api = connect(server.url, read_timeout_seconds=0.2)

    try:
        api.list_instances(Budget(60))
    except NovitaError:
        told = traceback.format_exc()

    assert server.requests[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in f"{told} {caplog.text} {api!r} {[vars(record) for record in caplog.records]}"
