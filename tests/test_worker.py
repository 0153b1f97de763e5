"""The web server's worker: when a request is whole, and how many connections one client may hold."""

import contextlib
import os
import re
import selectors
import signal
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest.mock import Mock

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.errors import ParseException
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from instances import refresher
from novita_site import gunicorn, unsent
from novita_site import worker as worker_module
from novita_site.framing import Framing, TooLarge
from novita_site.worker import Connection, Exchange, PatientWorker
from tests import python
from tests.system.processes import ROOT

MAX_BODY = 64 * 1024
HEAD = b"POST /api/instances/stop-all HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = [
    HEAD + b"\r\n",
    b"\r\n" + HEAD + b"\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    HEAD + b"Content-Length: 0\r\n\r\n",
    HEAD + b'content-length:  17\t\r\n\r\n{"dryRun": true}\n',
    HEAD + b"X-Content-Length: 99\r\nContent-Length: 2\r\n\r\n{}",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"transfer-encoding: Chunked\r\n\r\n1\r\n{\r\n1;a=b\r\n}\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n000a \t;a\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\nX-Trailer: a\r\n\r\n",
    HEAD + b"Transfer-Encoding: identity, chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n",
]
REFUSED = [
    HEAD + b"Content-Length: +2\r\n\r\n{}",
    HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}1",
    HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    HEAD + b"Content-Length : 2\r\n\r\n{}",
    HEAD + b"Content_Length: 2\r\n\r\n{}",
    HEAD + b"X: a\r\n Content-Length: 2\r\n\r\n{}",
    HEAD + b"Content-Length: \xb2\r\n\r\n{}",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n{}\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    HEAD.replace(b"\r\n", b"\n") + b"\n",
    HEAD + b"X: a\n\n",
]


def parse(request: bytes) -> bytes | None:
    """Return the body that gunicorn finds; None when it finds that something is missing or refuses the request."""
    with socket.socket() as sock:
        exchange = Exchange(sock)
        exchange.request = request
        try:
            body: bytes = next(get_parser(Config(), exchange, ("127.0.0.1", 1))).body.read()
        except (ParseException, OSError):
            return None
        return body


def is_whole(*pieces: bytes) -> bool:
    framing, buffer, found = Framing(MAX_BODY), bytearray(), False
    for piece in pieces:
        buffer += piece
        found = framing.is_whole(buffer)
    return found


@pytest.mark.parametrize("request_", WHOLE)
def test_a_request_is_whole_when_its_last_byte_is_there_and_not_before(request_: bytes) -> None:
    assert parse(request_) is not None
    assert is_whole(request_)
    for end in range(1, len(request_)):
        assert not is_whole(request_[:end]), request_[:end]
    assert is_whole(*[request_[n : n + 1] for n in range(len(request_))]), "byte by byte"
    assert is_whole(request_ + b"GET / HTTP/1.1\r\n"), "the next one has begun"


@pytest.mark.parametrize("request_", [*WHOLE, *REFUSED])
def test_no_request_that_the_parser_takes_is_whole_with_a_part_of_its_body(request_: bytes) -> None:
    """A body that was cut off must not pass for a shorter one, or for none."""
    body = parse(request_)
    for end in range(1, len(request_)):
        if is_whole(request_[:end]):
            assert parse(request_[:end]) is None or parse(request_[:end]) == body


@given(data=st.lists(st.binary(min_size=1, max_size=300), max_size=8), cuts=st.lists(st.integers(1, 3000), max_size=6))
def test_a_chunked_body_is_whole_with_its_last_chunk(data: list[bytes], cuts: list[int]) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in data)
    request = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    ends = sorted({min(cut, len(request)) for cut in [*cuts, len(request)]})
    pieces = [request[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    assert is_whole(*pieces)
    assert not is_whole(*pieces[:-1], pieces[-1][:-1])
    assert parse(request) == b"".join(data)


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        (HEAD + b"Content-Length: 65537\r\n\r\n", "body"),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", "body"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n10001\r\n", "body"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 65537, "body"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 600_000, "body"),
        (HEAD + b"X: " + b"x" * 70_000, "head"),
    ],
)
def test_a_request_that_is_too_large_is_refused_before_it_is_there(request_: bytes, part: str) -> None:
    with pytest.raises(TooLarge) as raised:
        is_whole(request_)

    assert raised.value.part == part


# --- How many connections


class Listener:
    """Accepts connections from any address."""

    def __init__(self) -> None:
        self.clients: list[socket.socket] = []
        self.address = ""

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        ours, theirs = socket.socketpair()
        self.clients.append(theirs)
        return ours, (self.address, 40_000)

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 3000)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    for client in listener.clients:
        client.close()


@pytest.fixture
def worker() -> Iterator[PatientWorker]:
    worker = PatientWorker(1, 1, [], None, 30, Config(), None)
    worker.poller = selectors.DefaultSelector()
    yield worker
    worker.murder_keepalived(force=True)
    assert worker.nr_conns == 0
    assert dict(worker.per_network) == {}
    worker.poller.close()
    worker.tmp.close()


def connect(worker: PatientWorker, listener: Any, address: str, number: int) -> list[socket.socket]:
    listener.address = address
    for _ in range(number):
        worker.accept(listener)
    return list(listener.clients[-number:])


def count_open(clients: list[socket.socket]) -> int:
    """Return how many have not been closed by the worker."""
    number = 0
    for client in clients:
        client.setblocking(False)
        try:
            number += client.recv(1) != b""
        except BlockingIOError:
            number += 1
    return number


def test_one_client_holds_only_so_many_connections(
    worker: PatientWorker, listener: Listener, settings: Settings
) -> None:
    settings.HTTP_CONNECTIONS_PER_CLIENT = 8

    many = connect(worker, listener, "2001:db8::1", 20) + connect(worker, listener, "2001:db8::2", 20)
    other = connect(worker, listener, "198.51.100.7", 3)

    assert count_open(many) == 8
    assert count_open(other) == 3
    assert count_open(many[-8:]) == 8, "the newest stay: a client that is quick is served"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1"])
def test_this_machine_and_a_trusted_proxy_hold_as_many_as_there_are(
    worker: PatientWorker, listener: Listener, settings: Settings, address: str
) -> None:
    import ipaddress

    settings.HTTP_CONNECTIONS_PER_CLIENT = 8
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8")]

    assert count_open(connect(worker, listener, address, 20)) == 20


def test_a_full_worker_closes_the_connection_that_has_waited_longest(worker: PatientWorker, listener: Listener) -> None:
    worker.worker_connections = 10

    clients = connect(worker, listener, "127.0.0.1", 30)

    assert worker.nr_conns < 10, "it goes on accepting"
    assert count_open(clients[-9:]) == 9
    assert count_open(clients[:-9]) == 0


# --- Clients that send the next request during the answer


def begin_request(worker: PatientWorker, listener: Listener) -> tuple[socket.socket, Connection]:
    """Let a client send a request, and a thread take it."""
    worker.tpool = Mock()
    (client,) = connect(worker, listener, "127.0.0.1", 1)
    client.sendall(b"GET /first HTTP/1.1\r\n\r\n")
    turn(worker)
    (conn,) = worker.tpool.submit.call_args.args
    return client, conn


def end_request(worker: PatientWorker, conn: Connection) -> None:
    """What a thread does at the end of a request, and the loop thereafter."""
    conn.init()
    conn.sock.request = b""
    conn.keeps = True
    worker._handled.append(conn)
    worker._finish_handled()


def test_next_request_waits_for_the_end_of_the_one_before(worker: PatientWorker, listener: Listener) -> None:
    client, conn = begin_request(worker, listener)
    client.sendall(b"GET /second HTTP/1.1\r\n\r\n")
    turn(worker)
    assert worker.tpool.submit.call_count == 1

    end_request(worker, conn)
    turn(worker)

    assert worker.tpool.submit.call_count == 2
    assert conn.sock.request == b"GET /second HTTP/1.1\r\n\r\n"
    end_request(worker, conn)


def test_connection_of_a_page_outlives_the_pause_between_two_polls() -> None:
    script = Path(gunicorn.__file__).parent.parent / "instances/static/instances/live.js"
    (pause,) = re.findall(r"^const LOOK_SECONDS = (\d+);", script.read_text(), re.MULTILINE)

    assert gunicorn.keepalive > int(pause)


def test_bytes_that_nobody_reads_yet_keep_the_loop_from_nothing(worker: PatientWorker, listener: Listener) -> None:
    client, conn = begin_request(worker, listener)
    client.sendall(b"GET /second HTTP/1.1\r\n\r\n")
    turn(worker)

    assert worker.poller.select(0) == []
    end_request(worker, conn)


def test_client_that_leaves_during_the_answer_is_closed_after_it(worker: PatientWorker, listener: Listener) -> None:
    client, conn = begin_request(worker, listener)
    client.close()
    turn(worker)
    assert worker.nr_conns == 1

    end_request(worker, conn)
    turn(worker)

    assert worker.nr_conns == 0


def test_threads_call_the_loop_once_until_it_comes(
    worker: PatientWorker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, conn = begin_request(worker, listener)
    conn.init()
    conn.sock.request = b""
    monkeypatch.setattr(worker, "handle", lambda conn: True)
    monkeypatch.setattr(worker, "method_queue", Mock())
    calls = []
    for _ in range(2):
        for _ in range(3):
            worker._handle_in_thread(conn)
        calls.append(worker.method_queue.defer.call_count)
        worker._finish_handled()

    assert calls == [1, 2]


# --- Answers that are taken slowly


def answer(worker: PatientWorker, listener: Listener, data: bytes, buffer: int = 0) -> tuple[socket.socket, Connection]:
    """Let a client connect, and begin to send it an answer."""
    (client,) = connect(worker, listener, "127.0.0.1", 1)
    client.settimeout(5)
    conn = list(worker.waiting)[-1]
    worker._end_wait(conn)
    if buffer:
        conn.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    for start in range(0, len(data), 8192):
        conn.sock.sendall(data[start : start + 8192])
    worker._go_on(conn)
    return client, conn


def turn(worker: PatientWorker) -> None:
    """What gunicorn's loop does, with a sweep at each turn."""
    worker.wait_for_and_dispatch_events(0.01)
    worker._next_sweep = 0.0
    worker.murder_pending()


def test_a_download_may_last_longer_than_the_deadline_if_it_goes_on(
    worker: PatientWorker, listener: Listener, settings: Settings
) -> None:
    settings.HTTP_SEND_SECONDS = 0.4
    data = bytes(range(256)) * 8192
    client, conn = answer(worker, listener, data)
    stuck = answer(worker, listener, data)[1]
    received = b""
    began = time.monotonic()

    while len(received) < len(data) and (piece := client.recv(100_000)):
        received += piece
        time.sleep(0.03)
        turn(worker)

    assert received == data
    assert time.monotonic() - began > settings.HTTP_SEND_SECONDS
    assert conn.unsent.size == 0
    assert stuck not in worker.waiting, "it took nothing"


def test_a_byte_now_and_then_keeps_no_answer(worker: PatientWorker, listener: Listener, settings: Settings) -> None:
    settings.HTTP_SEND_SECONDS = 0.4
    # The loop hears of every few kilobytes that the client takes.
    client, conn = answer(worker, listener, bytes(2_000_000), buffer=4096)
    for _ in range(150):
        if conn not in worker.waiting:
            break
        client.recv(1000)
        turn(worker)
        time.sleep(0.002)

    assert conn not in worker.waiting


def test_large_answer_in_many_parts_arrives_as_it_is() -> None:
    queue = unsent.Unsent()
    ours, theirs = socket.socketpair()
    data = bytes(range(256)) * 4096
    received = b""
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        for start in range(0, len(data), 5000):
            queue.append(data[start : start + 5000])
            if start % 50_000 == 0:
                queue.send(ours)
        while queue.size or len(received) < len(data):
            queue.send(ours)
            with contextlib.suppress(BlockingIOError):
                received += theirs.recv(10_000)

    assert received == data


def test_answer_that_many_clients_get_is_in_memory_once() -> None:
    data = bytes(1_000_000)
    queues = [unsent.Unsent() for _ in range(20)]
    tracemalloc.start()

    for queue in queues:
        queue.append(data)

    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < len(data)


def test_head_and_short_body_are_one_packet() -> None:
    queue = unsent.Unsent()
    sock = Mock()
    sock.send.side_effect = len
    queue.append(b"head")
    queue.append(b"body")

    queue.send(sock)

    assert [bytes(call.args[0]) for call in sock.send.call_args_list] == [b"headbody"]


def test_a_client_that_is_alone_in_being_slow_gets_an_answer_of_any_size(
    worker: PatientWorker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MAX_UNSENT_BYTES", 2_000_000)

    small = [answer(worker, listener, bytes(400_000))[1] for _ in range(2)]
    large = answer(worker, listener, bytes(3_000_000))[1]
    assert [conn for conn in [*small, large] if conn not in worker.waiting] == []

    larger = answer(worker, listener, bytes(4_000_000))[1]
    assert [conn for conn in [*small, large, larger] if conn not in worker.waiting] == [large]


def test_many_answers_that_nobody_takes_hold_only_so_much(
    worker: PatientWorker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MAX_UNSENT_BYTES", 2_000_000)

    conns = [answer(worker, listener, bytes(500_000))[1] for _ in range(10)]

    assert [conn in worker.waiting for conn in conns] == [False] * 6 + [True] * 4


def test_sigterm_cancels_the_sync_in_a_thread_that_it_can_not_have_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two signals in a row could make a process wait for a lock of its own until gunicorn killed it, after 50 s."""
    usual, threads, handled = signal.getsignal(signal.SIGTERM), SimpleQueue[threading.Thread](), Mock()
    monkeypatch.setattr(refresher, "end", lambda: threads.put(threading.current_thread()))
    try:
        signal.signal(signal.SIGTERM, handled)
        gunicorn._cancel_sync_on_sigterm()

        os.kill(os.getpid(), signal.SIGTERM)

        assert threads.get(timeout=20) is not threading.main_thread()
        assert handled.call_count == 1
    finally:
        signal.signal(signal.SIGTERM, usual)


FORK_AND_END = """
import os, signal
from unittest.mock import Mock
from novita_site import gunicorn
from novita_site.worker import PatientWorker

handled_by_master = []
signal.signal(signal.SIGTERM, lambda *given: handled_by_master.append(given))
is_sent, send = os.pipe()
gunicorn.pre_fork(None, None)
if (pid := os.fork()) == 0:
    os.read(is_sent, 1)
    worker = PatientWorker.__new__(PatientWorker)
    worker.alive, worker.PIPE, worker.method_queue = True, os.pipe(), Mock()
    os.set_blocking(worker.PIPE[1], False)
    worker.init_signals()
    os._exit(worker.alive)
os.kill(pid, signal.SIGTERM)
os.write(send, b"x")
is_alive = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
os.kill(os.getpid(), signal.SIGTERM)
print(is_alive, len(handled_by_master))
"""


def test_worker_that_is_ended_as_soon_as_it_is_forked_ends() -> None:
    command = [sys.executable, "-c", FORK_AND_END]

    done = python.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)

    assert done.stdout.split() == ["0", "1"], done.stderr
