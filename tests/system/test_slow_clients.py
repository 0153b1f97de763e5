"""Slow clients delay no other client, are disconnected in time, and start nothing. Honest clients are served."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from instances import simulator
from tests.system.processes import Novita, Redis, Service, wait_until

# A connection between two requests is kept for longer than the head of a request may take.
SHORT = {"DJANGO_SETTINGS_MODULE": "tests.system.short_settings", "GUNICORN_CMD_ARGS": "--keep-alive 4"}
NUMBER = 200
STOP_ALL = b"POST /api/instances/stop-all HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LARGE = b"GET /static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = STOP_ALL + b"Transfer-Encoding: chunked\r\n\r\n"
# All bytes that each kind of slow client sends.
SLOW = {
    "nothing": b"",
    "one byte": b"G",
    "a head without an end": STOP_ALL + b"X-A: b\r\n",
    "a body that doesn't come": STOP_ALL + b"Content-Length: 40\r\n\r\n",
    "a body that stalls": STOP_ALL + b'Content-Length: 40\r\n\r\n{"dryRun": fal',
    "a chunk that stalls": CHUNKED + b"5\r\n{}",
    "chunks without the last one": CHUNKED + b"2\r\n{}\r\n",
    "a body that waits for 100 Continue": STOP_ALL + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    "a large body that stalls": STOP_ALL + b"Content-Length: 20000000\r\n\r\n{",
    "answers that are not read": LARGE * 4,
}

StartModule = Callable[..., Service]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slow")


@pytest.fixture(scope="module")
def account() -> Iterator[Novita]:
    with simulator.start(simulator.Account(instances=25, step_seconds=0.3), port=0) as server:
        novita = Novita(server.url)
        yield novita
        novita.end()


@pytest.fixture(scope="module")
def start(folder: Path, account: Novita, migrated_database: Path) -> Iterator[StartModule]:
    """Start a service. All services share Redis, account and database."""
    redis = Redis(folder)
    started: list[Service] = []

    def start(**variables: str) -> Service:
        environment = {
            "DJANGO_SETTINGS_MODULE": "novita_site.settings",
            "SECRET_KEY": "FAKE-SECRET-django",
            "DATABASE_URL": f"sqlite:///{migrated_database}",
            "REDIS_URL": redis.url,
            "NOVITA_API_KEY": "FAKE-SECRET-key",
            "NOVITA_BASE_URL": account.url,
            "WEB_WORKERS": "2",
            **variables,
        }
        service = Service(environment, folder)
        started.append(service)
        return service.wait_until_ready()

    yield start
    for process in [*started, redis]:
        process.end()


@pytest.fixture(scope="module")
def service(start: StartModule) -> Service:
    """A service with the real deadlines."""
    return start()


@pytest.fixture(scope="module")
def short(start: StartModule) -> Service:
    """A service with short deadlines."""
    return start(**SHORT)


@contextlib.contextmanager
def connected(service: Service, sent: bytes, number: int = 1) -> Iterator[list[socket.socket]]:
    """Open connections, and send the same bytes on each."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(number):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            client.connect(("127.0.0.1", service.port))
            client.sendall(sent)
            opened.append(client)
        yield opened


def read_all(client: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer


def read_error(client: socket.socket) -> tuple[int, str]:
    """Read until the service ends the connection; return the last answer's status and code."""
    head, _, body = read_all(client).rpartition(b"\r\n\r\n")
    return int(head.rpartition(b"HTTP/1.1 ")[2][:3]), json.loads(body)["code"]


# --- No client is delayed


@pytest.mark.parametrize("kind", SLOW)
def test_two_hundred_slow_clients_delay_neither_probes_nor_a_stop(service: Service, account: Novita, kind: str) -> None:
    with connected(service, SLOW[kind], NUMBER):
        for _ in range(8):
            assert service.get("/livez", timeout=10).ok
            assert service.get("/readyz", timeout=10).ok
            assert service.post("/api/instances/stop-all", json={"dryRun": True}, timeout=20).ok

    assert account.list_stops() == []


def test_slow_clients_of_all_kinds_delay_no_real_stop(start: StartModule, account: Novita) -> None:
    service = start()
    with contextlib.ExitStack() as stack:
        for sent in SLOW.values():
            stack.enter_context(connected(service, sent, NUMBER // len(SLOW)))
        answer = service.post("/api/instances/stop-all", json={"ids": [min(service.list_ids())]}, timeout=20)

    assert answer.status_code in {200, 202}
    assert len(set(account.list_stops())) <= 1


# --- Slow clients are disconnected, and start nothing


def test_incomplete_requests_are_answered_at_their_deadlines_and_do_nothing(short: Service, account: Novita) -> None:
    kinds = SLOW.keys() - {"nothing", "answers that are not read"}
    before = account.list_calls()

    with contextlib.ExitStack() as stack:
        clients = {kind: stack.enter_context(connected(short, SLOW[kind]))[0] for kind in kinds}
        answers = {kind: read_error(client) for kind, client in clients.items()}

    expected = dict.fromkeys(kinds, (408, "REQUEST_TIMEOUT"))
    assert answers == expected | {"a large body that stalls": (413, "BODY_TOO_LARGE")}
    assert [call for call in account.list_calls()[len(before) :] if call["call"] not in {"list", "get"}] == []


def test_silent_connection_is_closed(short: Service) -> None:
    with connected(short, b"") as (client,):
        assert client.recv(1) == b""


def test_single_bytes_do_not_extend_the_deadline(short: Service) -> None:
    begun = {"a head": b"", "a body": STOP_ALL + b"Content-Length: 1000\r\n\r\n", "a chunk": CHUNKED + b"300\r\n"}
    with ThreadPoolExecutor() as pool:
        answers = dict(zip(begun, pool.map(lambda sent: send_single_bytes(short, sent), begun.values()), strict=True))

    assert answers == dict.fromkeys(begun, b"HTTP/1.1 408")


def send_single_bytes(service: Service, sent: bytes) -> bytes:
    """Send a byte now and then until there is an answer; return the beginning of it."""
    with connected(service, sent) as (client,):
        client.settimeout(0.2)
        # Four seconds: the deadline holds for the whole request, not for each byte.
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                return client.recv(12)
            client.sendall(b" " if sent else b"G")
    return b""


def test_unread_answers_are_dropped_at_their_deadline(short: Service) -> None:
    with connected(short, LARGE * 20) as (client,):
        # Reading would make room for more of the answer, so a write shows the end of the connection.
        wait_until(lambda: is_reset(client), "the connection is closed")


def is_reset(client: socket.socket) -> bool:
    """Return whether the other side has closed the connection, so that a write fails."""
    try:
        client.sendall(b"\r")
    except OSError:
        return True
    return False


@pytest.mark.parametrize(
    "sent",
    [
        STOP_ALL + b"Content-Length: 40\r\n\r\n",
        STOP_ALL + b"Content-Length: 40\r\n\r\n{}",
        CHUNKED + b"2\r\n{}\r\n",
        STOP_ALL,
        STOP_ALL + b"Content-Length: 2",
    ],
)
def test_truncated_request_does_nothing(short: Service, account: Novita, sent: bytes) -> None:
    with connected(short, sent) as (client,):
        client.shutdown(socket.SHUT_WR)
        answer = read_error(client)

    assert answer == (400, "INVALID_REQUEST")
    assert len(set(account.list_stops())) <= 1


def test_stopping_service_does_not_wait_for_slow_clients(start: StartModule) -> None:
    service = start()
    with contextlib.ExitStack() as stack:
        for sent in SLOW.values():
            stack.enter_context(connected(service, sent, 6))
        service.popen.send_signal(signal.SIGTERM)

        assert service.wait(20) == 0, "long before the slow clients' own deadlines, and gunicorn's"


# --- Honest clients are served


def test_slow_upload_within_the_deadline_arrives(short: Service) -> None:
    body = b'{"dryRun": true' + b" " * 60_000 + b"}"
    step = len(body) // 12
    with connected(short, STOP_ALL + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)) as (client,):
        for start in range(0, len(body), step):
            time.sleep(0.1)  # takes over one second; the deadline is three
            client.sendall(body[start : start + step])
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"operationId":null' in answer


def test_slow_reader_receives_a_large_answer_whole(short: Service) -> None:
    request = LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    whole = short.get(LARGE.split()[1].decode(), headers={"Accept-Encoding": "identity"}).content
    with connected(short, request) as (client,):
        answer = b""
        for _ in range(8):
            answer += client.recv(1000)
            time.sleep(0.1)  # slower than the service sends
        answer += read_all(client)

    assert answer.partition(b"\r\n\r\n")[2] == whole


def test_download_that_makes_progress_is_not_cut(short: Service) -> None:
    request = LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    whole = short.get(LARGE.split()[1].decode(), headers={"Accept-Encoding": "identity"}).content
    began = time.monotonic()
    with connected(short, request) as (client,):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        answer = b""
        # Takes over three seconds; a client that receives nothing is disconnected after two.
        while piece := client.recv(65536):
            answer += piece
            time.sleep(max(0, began + 3 * len(answer) / len(whole) - time.monotonic()))

    assert answer.partition(b"\r\n\r\n")[2] == whole
    assert time.monotonic() - began > 3


def test_client_that_expects_100_continue_gets_it_once(short: Service) -> None:
    head = STOP_ALL + b"Connection: close\r\nContent-Length: 16\r\nExpect: 100-continue\r\n\r\n"
    with connected(short, head) as (client,):
        first = client.recv(65536)
        client.sendall(b'{"dryRun": true}')
        answer = read_all(client)
    with connected(short, head + b'{"dryRun": true}') as (client,):
        at_once = read_all(client)

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200") and at_once.startswith(b"HTTP/1.1 200")


def test_unknown_expectation_is_refused_at_once_without_100_continue(short: Service) -> None:
    head = STOP_ALL + b"Content-Length: 16\r\nExpect: foo\r\n\r\n"
    with connected(short, head) as (client,):
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.1 417")


def test_empty_line_after_a_body_begins_no_request(short: Service) -> None:
    dry_run = STOP_ALL + b'Content-Length: 16\r\n\r\n{"dryRun": true}'
    with connected(short, dry_run + b"\r\n") as (client,):
        at_once = read_all(client)
    with connected(short, dry_run) as (client,):
        later = client.recv(65536)
        client.sendall(b"\r\n")
        client.sendall(b"\r\n" + LIVEZ)
        while b'"status": "alive"' not in later and (piece := client.recv(65536)):
            later += piece
        client.sendall(b"\r\n")
        later += read_all(client)

    assert at_once.count(b"HTTP/1.1") == 1 and at_once.startswith(b"HTTP/1.1 200")
    assert later.count(b"HTTP/1.1") == later.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (b"HEAD / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n", b"413"),
        (b"\r\nHEAD / HTTP/1.1\r\nHost: localhost\r\nX-A: b", b"408"),
    ],
)
def test_refused_head_request_gets_no_body(short: Service, sent: bytes, status: bytes) -> None:
    with connected(short, sent) as (client,):
        answer = read_all(client)

    assert answer.split()[1] == status
    assert answer.partition(b"\r\n\r\n")[2] == b""


def test_connection_is_reused_and_requests_may_be_pipelined(short: Service) -> None:
    ping = LIVEZ
    dry_run = STOP_ALL + b'Content-Length: 16\r\n\r\n{"dryRun": true}'
    with connected(short, ping) as (client,):
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(ping * 3)
        alive = b""
        while alive.count(b'"status": "alive"') < 3:
            alive += client.recv(65536)
        # Bytes directly behind an acting request's body are refused: the next request must wait for the answer.
        client.sendall(dry_run)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(ping[:-5])
        client.sendall(ping[-5:-4] + b"\r\nConnection: close\r\n\r\n")
        answer = read_all(client)

    assert answer.count(b'"status": "alive"') == 1


def test_http_1_0_is_answered_and_the_connection_closed(short: Service) -> None:
    with connected(short, b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n") as (client,):
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.0 200")


def test_too_large_body_is_refused_with_an_answer_while_it_is_still_sent(short: Service) -> None:
    with connected(short, STOP_ALL + b"Content-Length: 5000000\r\n\r\n") as (client,):
        client.sendall(b" " * 5_000_000)
        client.shutdown(socket.SHUT_WR)

        assert read_error(client) == (413, "BODY_TOO_LARGE")
