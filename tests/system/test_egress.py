"""Novita and the login service behind a proxy, with certificates of a private authority."""

import contextlib
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.system.conftest import Start
from tests.tls_servers import LISTING, Proxy, Server, drip, make_answer, read_head

PASSWORD = "FAKE-SECRET-proxy"
ISSUER = "https://login.test"
DESCRIPTION = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
}
SSO = {"OIDC_ISSUER": ISSUER, "OIDC_CLIENT_ID": "panel", "OIDC_CLIENT_SECRET": "FAKE-SECRET-oidc"}


def serve_both(connection: socket.socket) -> None:
    """Answer as the login service or as Novita, depending on the address."""
    while head := read_head(connection):
        is_login = b"/.well-known/" in head.split(b"\r\n")[0]
        connection.sendall(make_answer(json.dumps(DESCRIPTION).encode() if is_login else LISTING))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def proxy(authority: Authority) -> Iterator[Proxy]:
    server = Server(serve_both, authority.sign("login.test", "novita.test"))
    with contextlib.closing(server), contextlib.closing(Proxy(server.port)) as proxy:
        yield proxy


# The proxy comes first, so it ends last: it waits for the end of the service's connections.
def test_novita_and_the_login_service_are_reached_through_the_proxy(
    proxy: Proxy, start_service: Start, authority: Authority
) -> None:
    service = start_service(
        NOVITA_BASE_URL="https://novita.test",
        CA_BUNDLE=str(authority.path),
        EGRESS_PROXY_URL=f"http://ann:{PASSWORD}@127.0.0.1:{proxy.port}",
        WEB_WORKERS="1",
        **SSO,
        REQUIRE_LOGIN="1",
    ).wait_until_ready()

    answer = service.get("/sso/", allow_redirects=False)

    assert answer.status_code == 302 and answer.headers["Location"].startswith(f"{ISSUER}/authorize?")
    called = {head.split()[1] for head in proxy.heads}
    assert called == {"novita.test:443", "login.test:443"}
    assert PASSWORD not in service.log


def test_answer_log_and_record_name_the_missing_setting(
    start_service: Start, environment: dict[str, str], proxy: Proxy
) -> None:
    service = start_service(
        NOVITA_BASE_URL="https://novita.test",
        EGRESS_PROXY_URL=f"http://ann:{PASSWORD}@127.0.0.1:{proxy.port}",
        NOVITA_SYNC_ON_STARTUP="0",
        NOVITA_SYNC_INTERVAL="0",
        WEB_WORKERS="1",
        **SSO,
    ).wait_until_alive()

    synced = service.post("/api/instances/sync")
    login = service.get("/sso/", headers={"X-Forwarded-For": "192.0.2.7"}, allow_redirects=False)

    assert synced.status_code == login.status_code == 502
    assert "certificate verify failed: the certificate of novita.test is not trusted" in synced.json()["message"]
    assert "Set CA_BUNDLE" in synced.json()["suggestion"]
    for text in (service.log, read_errors(environment)):
        assert "the certificate of login.test is not trusted" in text and "Set CA_BUNDLE" in text
    assert PASSWORD not in service.log + synced.text + login.text + read_errors(environment)


def test_dripping_login_service_delays_no_request_for_long(start_service: Start, authority: Authority) -> None:
    def serve_slowly(connection: socket.socket) -> None:
        read_head(connection)
        drip(connection, make_answer(b"x" * 4000))

    with contextlib.closing(Server(serve_slowly, authority.sign("127.0.0.1"))) as server:
        service = start_service(
            CA_BUNDLE=str(authority.path), **{**SSO, "OIDC_ISSUER": f"https://127.0.0.1:{server.port}"}, WEB_WORKERS="1"
        ).wait_until_alive()

        answer = service.get("/sso/", headers={"X-Forwarded-For": "192.0.2.7"}, allow_redirects=False, timeout=20)

    assert answer.status_code == 502


def read_errors(environment: dict[str, str]) -> str:
    with contextlib.closing(sqlite3.connect(environment["DATABASE_URL"].removeprefix("sqlite:///"))) as connection:
        return str(connection.execute("SELECT error FROM instances_auditentry").fetchall())
