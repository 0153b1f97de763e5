"""Odd framings of an acting request, as bytes to a real server: none counts as an empty body, none has an effect.

One service for the whole file: nothing here changes anything, which is what each test asserts.
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instances import simulator
from tests.system.processes import Novita, Redis, Service
from tests.test_acting_requests import PROPER, ROUTES

WISH = b'{"dryRun":true,"ids":["x"]}'
IDS = 3


@pytest.fixture(scope="module")
def novita() -> Iterator[Novita]:
    with simulator.start(simulator.Account(instances=IDS), port=0) as server:
        novita = Novita(server.url)
        yield novita
        novita.end()


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, novita: Novita, migrated_database: Path, redis_server_program: None
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("framing")
    shutil.copy(migrated_database, folder / "db.sqlite3")
    redis = Redis(folder)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "novita_site.settings",
        "SECRET_KEY": "FAKE-SECRET-django",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "REDIS_URL": redis.url,
        "NOVITA_API_KEY": "FAKE-SECRET-key",
        "NOVITA_BASE_URL": novita.url,
        "NOVITA_SYNC_INTERVAL": "0",
        "WEB_WORKERS": "1",
    }
    service = Service(environment, folder)
    service.wait_until_ready()
    yield service
    service.end()
    redis.end()


def talk(service: Service, *pieces: bytes) -> bytes:
    """Send these pieces one by one, close the sending side, and return the whole answer."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.002)
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                answer += piece
        return answer


def head(method: str, path: str, *headers: str, version: str = "1.1", content_type: str = "application/json") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"%x\r\n%s\r\n%s" % (len(data), data, end)


CHUNKED = "Transfer-Encoding: chunked"
# Name → the request in pieces, for a method and a path that would act without a body or with a valid body.
FRAMINGS: dict[str, tuple[tuple[str, ...], dict[str, str], tuple[bytes, ...]]] = {
    "chunked with a wish": ((CHUNKED,), {}, (chunk(WISH),)),
    "chunked, no type": ((CHUNKED,), {"content_type": ""}, (chunk(WISH),)),
    "chunked, a form": ((CHUNKED,), {"content_type": "application/x-www-form-urlencoded"}, (chunk(b"dryRun=true"),)),
    "chunked, byte by byte": ((CHUNKED,), {}, (*(chunk(bytes([one]), b"") for one in WISH), b"0\r\n\r\n")),
    "chunked and empty": ((CHUNKED,), {}, (b"0\r\n\r\n",)),
    "chunked and empty, no type": ((CHUNKED,), {"content_type": ""}, (b"0\r\n\r\n",)),
    "chunked, blank": ((CHUNKED,), {}, (chunk(b"  \r\n"),)),
    "chunked, cut": ((CHUNKED,), {}, (b"1b\r\n{",)),
    "chunked, cut after {}": ((CHUNKED,), {}, (chunk(b"{}", b""),)),
    "chunked, cut before the first": ((CHUNKED,), {}, ()),
    "chunked, cut in the last": ((CHUNKED,), {}, (chunk(b"{}", b"0\r\n"),)),
    "chunked, bad size": ((CHUNKED,), {}, (b"zz\r\n{}\r\n0\r\n\r\n",)),
    "chunked, negative size": ((CHUNKED,), {}, (b"-2\r\n{}\r\n0\r\n\r\n",)),
    "chunked, wrong size": ((CHUNKED,), {}, (b"2\r\n" + WISH + b"\r\n0\r\n\r\n",)),
    "chunked, more follows": ((CHUNKED,), {}, (chunk(b"{}") + WISH,)),
    "chunked, with a trailer": ((CHUNKED,), {}, (chunk(WISH, b"0\r\nX: 1\r\n\r\n"),)),
    "chunked, large": ((CHUNKED,), {}, (chunk(b"{}".ljust(70_000)),)),
    "chunked by HTTP/1.0": ((CHUNKED,), {"version": "1.0"}, (chunk(WISH),)),
    "chunked twice": (("Transfer-Encoding: chunked, chunked",), {}, (chunk(WISH),)),
    "gzip, chunked": (("Transfer-Encoding: gzip, chunked",), {}, (chunk(WISH),)),
    "gzip as the framing": (("Transfer-Encoding: gzip",), {}, (WISH,)),
    "identity as the framing": (("Transfer-Encoding: identity",), {}, (WISH,)),
    "an unknown framing": (("Transfer-Encoding: xchunked",), {}, (chunk(WISH),)),
    "a framing with an underscore": (("Transfer_Encoding: chunked",), {}, (chunk(WISH),)),
    "a length with an underscore": ((f"Content_Length: {len(WISH)}",), {"content_type": ""}, (WISH,)),
    "both framings": ((CHUNKED, f"Content-Length: {len(WISH)}"), {}, (chunk(WISH),)),
    "both framings, length 0": (("Content-Length: 0", CHUNKED), {}, (chunk(WISH),)),
    "no length": ((), {}, (WISH,)),
    "no length, no type": ((), {"content_type": ""}, (WISH,)),
    "no length, in pieces": ((), {}, (WISH[:5], WISH[5:])),
    "no length, late": ((), {}, (b"", WISH)),
    "no length, no type, late": ((), {"content_type": ""}, (b"", WISH)),
    "no length, HTTP/1.0": ((), {"version": "1.0"}, (WISH,)),
    "no length, no type, HTTP/1.0": ((), {"version": "1.0", "content_type": ""}, (WISH,)),
    "no length, late, HTTP/1.0": ((), {"version": "1.0", "content_type": ""}, (b"", WISH)),
    "length 0 and a body": (("Content-Length: 0",), {}, (WISH,)),
    "fewer bytes": (("Content-Length: 100",), {}, (WISH,)),
    "fewer bytes, and they make sense": (("Content-Length: 20",), {}, (b"{}",)),
    "none of the bytes": (("Content-Length: 27",), {}, ()),
    "more bytes": (("Content-Length: 2",), {}, (b"{}" + WISH,)),
    "another request behind": (
        ("Content-Length: 0",),
        {"content_type": ""},
        (head("POST", "/api/instances/stop-all", "Content-Length: 0"),),
    ),
    "two lengths": (("Content-Length: 0", f"Content-Length: {len(WISH)}"), {}, (WISH,)),
    "a list of lengths": (("Content-Length: 0, 27",), {}, (WISH,)),
    "a negative length": (("Content-Length: -1",), {}, (WISH,)),
    "a signed length": ((f"Content-Length: +{len(WISH)}",), {}, (WISH,)),
    "a length in hex": (("Content-Length: 0x1b",), {}, (WISH,)),
    "a length without end": ((f"Content-Length: {'9' * 5000}",), {}, (WISH,)),
    "an empty length": (("Content-Length:",), {}, (WISH,)),
    "two types": (("Content-Type: text/plain", f"Content-Length: {len(WISH)}"), {}, (WISH,)),
    "a gzipped body": (("Content-Encoding: gzip", "Content-Length: 3"), {}, (b"\x1f\x8b\x08",)),
    "a part of a body": (("Content-Range: bytes 0-1/27", "Content-Length: 2"), {}, (b"{}",)),
    "waits for 100, then fewer": (("Expect: 100-continue", "Content-Length: 27"), {}, (b"{}",)),
    "waits for 100, a wish": (("Expect: 100-continue", f"Content-Length: {len(WISH)}"), {}, (WISH,)),
    "expects something else": (("Expect: nothing", "Content-Length: 0"), {}, ()),
    "head and body apart": ((f"Content-Length: {len(WISH)}",), {}, (b"", WISH)),
    "byte by byte": ((f"Content-Length: {len(WISH)}",), {}, tuple(bytes([one]) for one in WISH)),
    "another method by header": (("X-HTTP-Method-Override: GET", "Content-Length: 0"), {}, ()),
}


@pytest.fixture(autouse=True)
def nothing_happens(service: Service, novita: Novita) -> Iterator[None]:
    """Assert that nothing was requested at Novita and nothing was recorded."""
    before = len(novita.list_calls())
    yield
    # This request waits if the previous request still occupies the thread.
    operations = service.get("/api/operations").json()["total"]
    calls = [call["call"] for call in novita.list_calls()[before:]]
    assert set(calls) <= {"list", "get"}, "a dry run reads, and nothing else"
    assert operations == 0
    assert service.get("/api/protections").json()["total"] == 0
    assert service.get("/api/cache/stats").json()["size"] == IDS
    assert "Traceback" not in service.log


@pytest.mark.parametrize("name", FRAMINGS)
def test_odd_framing_has_no_effect(service: Service, novita: Novita, name: str) -> None:
    headers, options, pieces = FRAMINGS[name]
    for method, path in ROUTES:
        before = len(novita.list_calls())
        first, *others = pieces or (b"",)
        answer = talk(service, head(method, path, *headers, **options) + first, *others)

        statuses = [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        takes = path == "/api/instances/stop-all" and any(
            part in name for part in ("wish", "byte by byte", "trailer", "apart")
        )
        # A well framed body is read: a dry run is a dry run, where the route accepts one.
        wanted = {200} if takes else {400, 404, 411, 413, 415, 417, 501}
        assert takes or len(novita.list_calls()) == before, path
        assert {status for status in statuses if status != 100} <= wanted, (path, answer)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_body_of_a_client_that_disconnects_has_no_effect(service: Service, route: tuple[str, str]) -> None:
    method, path = route
    proper = json.dumps(PROPER.get(path, {})).encode()
    for headers, body in (((f"Content-Length: {len(proper) + 1}",), proper), ((CHUNKED,), chunk(proper, b""))):
        with socket.create_connection(("127.0.0.1", service.port)) as sock:
            sock.sendall(head(method, path, *headers) + body)


def test_request_line_that_names_another_host_is_refused(service: Service, novita: Novita) -> None:
    before = len(novita.list_calls())
    for target in ("http://other.example", "http://localhost.example", "http://user@localhost", "http://[", "ftp://"):
        for method, path in ROUTES:
            answer = talk(service, head(method, f"{target}{path}", "Content-Length: 0"))
            assert answer.startswith(b"HTTP/1.1 400 "), (target, path, answer)
    assert len(novita.list_calls()) == before

    wish = head("POST", "http://localhost/api/instances/stop-all", f"Content-Length: {len(WISH)}") + WISH
    assert talk(service, wish).startswith(b"HTTP/1.1 200 ")


def test_chunked_body_is_read_to_its_end(service: Service) -> None:
    answer = talk(service, head("POST", "/api/instances/stop-all", CHUNKED), chunk(WISH))

    assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"].startswith("Would stop ")


def test_connection_accepts_requests_one_after_the_other(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    for method, path, body in (
        ("POST", "/api/instances/stop-all", b'{"dryRun":true}'),
        ("POST", "/api/instances/stop-all", iter([b'{"dryRun"', b":true}"])),
        ("GET", "/api/operations", None),
    ):
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["total"] >= 0
        assert answer.getheader("Connection") == "keep-alive"
    connection.close()


def test_answer_to_head_has_no_body(service: Service) -> None:
    tag = service.get("/api/instances").headers["ETag"]
    for path in (
        *(
            "/",
            "/login/",
            "/nope",
            "/health",
            "/livez",
            "/api",
            "/api/instances",
            "/api/nope",
            "/api/docs",
            "/api/schema",
        ),
        *("/admin/", "/admin/instances/auditentry/csv/", "/static/instances/dashboard.js"),
    ):
        for headers in ({}, {"Accept": "text/html"}, {"If-None-Match": tag}):
            answer = service.session.head(service.url + path, headers=headers, timeout=20)
            assert answer.status_code < 500
    assert "body bytes" not in service.log
