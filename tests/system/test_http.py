"""Bad input to a real server."""

import json
import socket

import pytest

from tests.system.conftest import Start
from tests.system.processes import Novita, Service


def send(service: Service, request: bytes) -> tuple[int, dict[str, object]]:
    """Send raw bytes; return the answer's status and JSON body."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as sock:
        sock.sendall(request)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    "target",
    [
        b"/api/instances/" + b"a" * 3_000,
        b"/api/instances/" + b"a" * 10_000,
        b"/api/instances/" + b"a" * 10_000 + b"/stop",
        b"/api/instances/..%2f..%2fetc",
        b"/api/instances/%00",
        b"/api/instances/a%0d%0aSet-Cookie:x",
        b"/api/instances/%ff%fe",
        b"/api//instances",
        b"/api/../admin/nothing",
    ],
)
def test_malformed_addresses_are_refused_in_the_common_error_shape(shared_service: Service, target: bytes) -> None:
    head = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    status, body = send(shared_service, b"GET " + target + head)

    assert 400 <= status < 500
    assert {"success", "code", "message", "suggestion", "requestId", "timestamp"} <= body.keys()


@pytest.mark.parametrize(
    "request_line",
    [b"NONSENSE", b"GET / HTTP/9.9", b"GET /api/ HTTP/1.1\r\nbad header", b"GET /api/ HTTP/1.1\r\nX: " + b"x" * 70_000],
)
def test_malformed_http_is_refused_in_the_common_error_shape(shared_service: Service, request_line: bytes) -> None:
    status, body = send(shared_service, request_line + b"\r\nHost: localhost\r\n\r\n")

    assert 400 <= status < 510
    assert body["success"] is False


def test_body_of_20_megabytes_is_refused_with_an_answer(shared_service: Service) -> None:
    answer = shared_service.post(
        "/api/instances/sync", data=b"x" * 20_000_000, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == 413
    assert answer.json()["code"] == "BODY_TOO_LARGE"


def test_unknown_host_is_refused(shared_service: Service) -> None:
    assert shared_service.get("/api/instances", headers={"Host": "evil.example"}).status_code == 400


def test_everything_but_the_probes_requires_a_login_beyond_loopback(start_service: Start) -> None:
    service = start_service(HOST="0.0.0.0", ALLOWED_HOSTS="127.0.0.1,panel.example.com").wait_until_ready()

    for path in ("/api/", "/api/instances", "/api/schema", "/api/nothing"):
        answer = service.get(path)
        assert answer.status_code == 401, path
        assert answer.json()["code"] == "NOT_AUTHENTICATED", path
    for path in ("/", "/admin/", "/api/docs"):
        assert "/login/?next=" in service.get(path).url, path
    assert service.post("/api/instances/sync").status_code == 401
    assert service.get("/livez").ok
    assert service.get("/readyz").ok
    assert service.get("/health").json().keys() == {"status", "timestamp"}


def test_request_through_a_proxy_is_not_from_the_local_owner(shared_service: Service) -> None:
    answer = shared_service.get("/api/instances", headers={"X-Forwarded-For": "127.0.0.1"})

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/instances/stop-all", r'{"ids": ["\ud800"]}'),
        ("/api/instances/stop-all", r'{"\ud800": 1}'),
        ("/api/instances/stop-all", r'{"webhookUrl": "https://\ud800/"}'),
        ("/api/instances/stop-all", r'{"reason": ["\ud800"]}'),
        ("/api/operations", r'{"kind": "\ud800", "ids": ["a"]}'),
        ("/api/operations", r'{"kind": "stop", "ids": ["\u0000"]}'),
        ("/api/operations", r'{"kind": "stop", "fromOperation": "\ud800"}'),
        ("/api/instances/a/protect", r'{"reason": "\ud800"}'),
    ],
)
def test_texts_that_cannot_be_stored_are_refused(
    path: str, body: str, shared_service: Service, shared_novita: Novita
) -> None:
    answer = shared_service.post(path, data=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "INVALID_REQUEST", answer.text
    assert shared_novita.list_stops() == []
