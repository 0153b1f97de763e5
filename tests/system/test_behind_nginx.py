"""nginx in front: with a minimal configuration strangers get no access, and with the shipped one people log in."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.certificates import Authority
from tests.system.browser import log_in, make_admin
from tests.system.conftest import Start
from tests.system.nginx import Nginx, make_site, needs_nginx, read_shipped_site
from tests.system.processes import Novita, Service, ended

pytestmark = needs_nginx

ACTS = ["/api/instances/stop-all", "/api/instances/sync", "/api/cache/clear"]
READS = ["/", "/api/instances", "/api/operations", "/admin/", "/api/docs"]
# The headers of a browser that opened http://panel.example.com.
BROWSER = {"Origin": "http://panel.example.com", "Referer": "http://panel.example.com/"}
TLS_BROWSER = {
    "Origin": "https://panel.example.com",
    "Referer": "https://panel.example.com/",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
}


@pytest.fixture
def nginx(tmp_path: Path, shared_service: Service) -> Iterator[Nginx]:
    """nginx with nothing but `proxy_pass`."""
    with ended(Nginx(tmp_path, make_site(f"proxy_pass {shared_service.url};"))) as process:
        yield process


@pytest.fixture
def nginx_http_1_1(tmp_path: Path, shared_service: Service) -> Iterator[Nginx]:
    """The same with the defaults of nginx 1.30."""
    lines = f'proxy_pass {shared_service.url}; proxy_http_version 1.1; proxy_set_header Connection "";'
    with ended(Nginx(tmp_path, make_site(lines))) as process:
        yield process


def send(port: int, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes, str]:
    """Send one request without the headers that a library adds; return status, body and Location."""
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

    assert opened == []
    assert acted == []
    assert novita.list_stops() == []


@pytest.mark.parametrize("headers", [{}, BROWSER, TLS_BROWSER], ids=["curl", "browser", "browser over TLS"])
def test_bare_nginx_makes_no_client_the_owner(nginx: Nginx, shared_novita: Novita, headers: dict[str, str]) -> None:
    assert_kept_out(nginx.port, headers, shared_novita)
    assert send(nginx.port, "GET", "/livez", headers)[0] == 200
    health: dict[str, Any] = json.loads(send(nginx.port, "GET", "/health", headers)[1])
    assert health.keys() == {"status", "timestamp"}


@pytest.mark.parametrize("headers", [BROWSER, TLS_BROWSER], ids=["browser", "browser over TLS"])
def test_bare_nginx_of_a_new_version_makes_no_browser_the_owner(
    nginx_http_1_1: Nginx, shared_novita: Novita, headers: dict[str, str]
) -> None:
    assert_kept_out(nginx_http_1_1.port, headers, shared_novita)


def test_owner_on_the_same_machine_needs_no_login(shared_service: Service, nginx: Nginx) -> None:
    send(nginx.port, "GET", "/api/instances", BROWSER)

    assert shared_service.get("/api/instances").json()["total"] == 25
    assert shared_service.post("/api/instances/sync").status_code == 200


@pytest.mark.parametrize("host", ["$http_host", "$host", "$host:$server_port"])
def test_login_works_behind_the_shipped_site_on_another_port_and_with_other_host_headers(
    environment: dict[str, str], start_service: Start, tmp_path: Path, host: str
) -> None:
    make_admin(environment)
    service = start_service(
        REQUIRE_LOGIN="1",
        WEB_WORKERS="1",
        ALLOWED_HOSTS="127.0.0.1,panel.example.com",
        TRUSTED_PROXIES="127.0.0.1",
        SECURE_PROXY_SSL_HEADER="X-Forwarded-Proto: https",
    ).wait_until_alive()
    authority = Authority(tmp_path)
    site = read_shipped_site(service.url, authority.sign("127.0.0.1")).replace("Host $http_host;", f"Host {host};")
    with ended(Nginx(tmp_path, site, "https")) as nginx, requests.Session() as browser:
        browser.trust_env, browser.verify = False, str(authority.path)

        page = log_in(browser, nginx)

        assert page.ok and page.url == f"{nginx.url}/admin/"
        cookies = [cookie.secure for cookie in browser.cookies]
        assert cookies and all(cookies), "it is known that the visitor came over TLS"
