"""Strangers who reach a service without a login through a real nginx that was set up in a hurry."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Start
from tests.system.nginx import Nginx, needs_nginx
from tests.system.processes import Novita, Service

pytestmark = needs_nginx

ACTS = ["/api/instances/stop-all", "/api/instances/sync", "/api/cache/clear"]
READS = ["/", "/api/instances", "/api/operations", "/admin/", "/api/docs"]
# What a browser sends, by the address that it knows: http://panel.example.com.
BROWSER = {"Origin": "http://panel.example.com", "Referer": "http://panel.example.com/"}
TLS_BROWSER = {
    "Origin": "https://panel.example.com",
    "Referer": "https://panel.example.com/",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
}


@pytest.fixture
def service(start_service: Start) -> Service:
    return start_service().wait_until_ready()


@pytest.fixture
def nginx(tmp_path: Path, service: Service) -> Iterator[Nginx]:
    """nginx with nothing but `proxy_pass`."""
    process = Nginx(tmp_path, f"proxy_pass {service.url};")
    yield process
    process.end()


@pytest.fixture
def nginx_http_1_1(tmp_path: Path, service: Service) -> Iterator[Nginx]:
    """The same as nginx 1.30 does it by itself."""
    process = Nginx(tmp_path, f'proxy_pass {service.url}; proxy_http_version 1.1; proxy_set_header Connection "";')
    yield process
    process.end()


def send(port: int, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes, str]:
    """Send one request as it is, without a library's own headers; return status, body and Location."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, headers={"Host": "panel.example.com", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Location", "")
    finally:
        connection.close()


def is_refused(answer: tuple[int, bytes, str]) -> bool:
    status, body, location = answer
    return status in {401, 403} or (status == 302 and location.startswith("/login/")) or b'"CROSS_SITE"' in body


def assert_kept_out(port: int, headers: dict[str, str], novita: Novita) -> None:
    opened = [path for path in READS if not is_refused(send(port, "GET", path, headers))]
    acted = [path for path in ACTS if not is_refused(send(port, "POST", path, headers))]

    assert (opened, acted) == ([], [])
    assert novita.list_stops() == []


@pytest.mark.parametrize("headers", [{}, BROWSER, TLS_BROWSER], ids=["curl", "browser", "browser over TLS"])
def test_nobody_becomes_the_owner_through_a_bare_nginx(nginx: Nginx, novita: Novita, headers: dict[str, str]) -> None:
    assert_kept_out(nginx.port, headers, novita)
    assert send(nginx.port, "GET", "/livez", headers)[0] == 200
    health: dict[str, Any] = json.loads(send(nginx.port, "GET", "/health", headers)[1])
    assert health.keys() == {"status", "timestamp"}


@pytest.mark.parametrize("headers", [BROWSER, TLS_BROWSER], ids=["browser", "browser over TLS"])
def test_no_browser_becomes_the_owner_through_a_bare_nginx_of_a_new_version(
    nginx_http_1_1: Nginx, novita: Novita, headers: dict[str, str]
) -> None:
    assert_kept_out(nginx_http_1_1.port, headers, novita)


def test_the_owner_beside_it_needs_no_login(service: Service, nginx: Nginx) -> None:
    send(nginx.port, "GET", "/api/instances", BROWSER)

    assert service.get("/api/instances").json()["total"] == 25
    assert service.post("/api/instances/sync").status_code == 200
