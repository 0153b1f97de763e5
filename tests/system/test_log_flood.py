"""Hundreds of refused requests become a few log lines with a count."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.processes import Service, wait_until

NUMBER = 300
# The lines that a flood may log in two processes: a first line and a count each, and one more period.
MOST_LINES = 12

Send = Callable[[Service, int], Any]


def send_raw(request: bytes) -> Send:
    def send(service: Service, number: int) -> None:
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
            client.sendall(request.replace(b"{n}", str(number).encode()))
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    return send


def get(path: str, **headers: str) -> Send:
    return lambda service, n: service.get(
        path.format(n=n), headers={name: value.format(n=n) for name, value in headers.items()}
    )


def post(path: str, data: Any = None, **headers: str) -> Send:
    return lambda service, n: service.post(
        path, data=data, headers={name.replace("_", "-"): value.format(n=n) for name, value in headers.items()}
    )


FLOODS: dict[str, tuple[Send, str]] = {
    "a wrong Host": (get("/api/instances", Host="a{n}.example"), "Invalid HTTP_HOST header"),
    "no Host": (send_raw(b"GET /api/instances HTTP/1.0\r\n\r\n"), ""),
    "a Host that is no name": (get("/api/instances", Host="a b{n}/<x>"), "Invalid HTTP_HOST header"),
    "a form without its token": (post("/login/", {"username": "x"}), "CSRF"),
    "another site": (post("/api/instances/sync", Origin="https://a{n}.example"), "another site"),
    "no HTTP": (send_raw(b"NONSENSE{n}\r\n\r\n"), "Invalid request"),
    "a bad header": (send_raw(b"GET / HTTP/1.1\r\nbad {n}\r\n\r\n"), "Invalid request"),
    "a request that ends early": (send_raw(b"GET / HTTP/1.1\r\nX: {n}"), "request refused"),
    "a token that is no good": (get("/api/instances", Authorization="Bearer nvp_0123456789abcdef{n}"), ""),
    "too many fields": (post("/login/", "&".join(f"a{n}=1" for n in range(2000))), ""),
    "a body that is too large": (post("/login/", b"x" * 70_000), "request refused"),
    "unknown addresses": (get("/nothing/{n}"), ""),
    "unknown addresses of the API": (get("/api/nothing/{n}"), ""),
    "no login": (get("/api/instances"), ""),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Service]:
    """A service that requires a login. Redis and Novita are down, and no test uses them."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.system.short_settings",
        "SECRET_KEY": "FAKE-SECRET-django",
        "DATABASE_URL": f"sqlite:///{migrated_database}",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "NOVITA_API_KEY": "FAKE-SECRET-key",
        "NOVITA_BASE_URL": "http://127.0.0.1:1",
        "NOVITA_SYNC_ON_STARTUP": "0",
        "NOVITA_SYNC_INTERVAL": "0",
        "REQUIRE_LOGIN": "1",
        "API_RATE_LIMIT": "0",
    }
    service = Service(environment, tmp_path_factory.mktemp("log")).wait_until_alive()
    yield service
    service.end()


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_of_refused_requests_logs_a_few_lines(service: Service, kind: str) -> None:
    send, words = FLOODS[kind]
    start = len(service.log)

    for number in range(NUMBER):
        send(service, number)

    # The count of an earlier flood's kind comes first.
    wait_until(lambda: words in service.log[start:], f"the log tells of it\n{service.log[start:]}")
    written = service.log[start:]
    lines = [line for line in written.splitlines() if " is unavailable: " not in line]
    assert len(lines) <= MOST_LINES, written[:3000]
    assert "Traceback" not in written
    assert max(map(len, lines), default=0) < 400


def test_omitted_lines_are_counted_in_the_log(service: Service) -> None:
    send, words = FLOODS["a wrong Host"]
    start = len(service.log)
    for number in range(50):
        send(service, number)

    def count() -> int:
        written = service.log[start:]
        firsts = [line for line in written.splitlines() if words in line and "more like this" not in line]
        return len(firsts) + sum(map(int, re.findall(r"(\d+) more like this", written)))

    # The count includes the rest of the previous test.
    wait_until(lambda: count() >= 50, "all are counted")


def test_refused_request_is_answered_during_a_flood(service: Service) -> None:
    answers = [service.get("/health", headers={"Host": "a.example"}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [400] * 3
