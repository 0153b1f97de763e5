"""Calls to Novita and to the login service with a private certificate authority, and through a proxy."""

import contextlib
import logging
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_django import Settings

from instances.errors import NovitaError, NovitaTimeout, NovitaUnavailable
from instances.notifications import receivers
from instances.novita.client import Novita
from instances.outgoing import egress
from instances.outgoing.deadline import Budget, WatchedAdapter
from novita_site.env import Env, InvalidSettings
from tests.certificates import Authority
from tests.tls_servers import Proxy, Server, drip, make_answer, read_head, serve_listing

# http.client leaves the proxy's answer open when a read fails. The socket closes with the exception.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("no_pauses"),
]

NAME = "novita.test"
PASSWORD = "FAKE-SECRET-proxy"
Serve = Callable[[Callable[[socket.socket], None]], Server]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.sign(NAME, "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def novita(certificate: Path) -> Iterator[Server]:
    with contextlib.closing(Server(serve_listing, certificate)) as server:
        yield server


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(stack: contextlib.ExitStack) -> Serve:
    return lambda function: stack.enter_context(contextlib.closing(Server(function)))


@pytest.fixture
def proxy(novita: Server, stack: contextlib.ExitStack) -> Proxy:
    return stack.enter_context(contextlib.closing(Proxy(novita.port)))


def make_novita(url: str = f"https://{NAME}", read_timeout: float = 20) -> Novita:
    return Novita(
        api_key="FAKE-SECRET-key",
        base_url=url,
        page_size=100,
        concurrency=2,
        connect_timeout_seconds=5,
        read_timeout_seconds=read_timeout,
    )


def list_ids(url: str = f"https://{NAME}") -> list[str]:
    return list(make_novita(url).list_instances(Budget(20)).instances)


def fail(url: str = f"https://{NAME}") -> NovitaError:
    with pytest.raises(NovitaUnavailable) as caught:
        list_ids(url)
    text = "".join(traceback.format_exception(caught.value)) + caught.value.message + str(caught.value.suggestion)
    assert PASSWORD not in text
    return caught.value


# --- The settings


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nowhere.pem", "can't be read (No such file or directory)"),
        ("/", "'/' can't be read (Is a directory)"),
        ("empty.pem", "contains no usable certificate"),
        ("key.pem", "contains no usable certificate"),
        ("broken.pem", "contains no usable certificate"),
    ],
)
def test_file_without_a_certificate_is_refused(tmp_path: Path, authority: Authority, value: str, words: str) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "key.pem").write_text(authority.sign("localhost").read_text().partition("-----BEGIN CERT")[0])
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    env = Env({"CA_BUNDLE": value})

    assert env.certificates("CA_BUNDLE", tmp_path) == ""
    with pytest.raises(InvalidSettings, match=r"^CA_BUNDLE: .*Name a PEM file") as caught:
        env.check()
    assert words in str(caught.value)


def test_bundle_is_read_without_its_comments(tmp_path: Path, authority: Authority) -> None:
    text = authority.path.read_text()
    (tmp_path / "bundle.pem").write_text(f"# Müller's CA\n{text}\n# another\n{text}", encoding="utf-8")
    env = Env({"CA_BUNDLE": "bundle.pem"})

    assert env.certificates("CA_BUNDLE", tmp_path).count("BEGIN CERTIFICATE") == 2
    env.check()


@pytest.mark.parametrize(
    "url",
    [
        "proxy.example.com:3128",
        "http://proxy.example.com",
        "http://:3128",
        "socks5://127.0.0.1:1080",
        "http://u:FAKE-SECRET/x@p.test:1",
        "http://u:FAKE-SECRET@p.test:1/x?y",
        "http://u:FAKE-SECRET@p.test:99999",
    ],
)
def test_invalid_proxy_url_is_refused_without_showing_its_password(url: str) -> None:
    env = Env({"EGRESS_PROXY_URL": url})
    env.proxy_url("EGRESS_PROXY_URL")

    with pytest.raises(InvalidSettings, match=r"^EGRESS_PROXY_URL: .* Use http://") as caught:
        env.check()
    assert "FAKE-SECRET" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:3128", "https://u:p%40@proxy.test:443", "http://[::1]:3128/"])
def test_valid_proxy_url_is_used_unchanged(url: str) -> None:
    env = Env({"EGRESS_PROXY_URL": url})

    assert env.proxy_url("EGRESS_PROXY_URL") == url.rstrip("/")
    env.check()


# --- A private authority


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_private_authority_is_trusted_by_the_setting(
    novita: Server, authority: Authority, settings: Settings, name: str
) -> None:
    settings.CA_BUNDLE = authority.path.read_text()

    assert list_ids(f"https://{name}:{novita.port}") == ["a"]


def test_error_without_the_setting_names_certificate_host_and_setting(novita: Server) -> None:
    error = fail(f"https://localhost:{novita.port}")

    assert error.message == (
        "Novita can't be reached: certificate verify failed: the certificate of localhost is not trusted: "
        "self-signed certificate in certificate chain."
    )
    assert error.suggestion and "Set CA_BUNDLE to a PEM file" in error.suggestion


def test_other_authority_is_not_trusted(novita: Server, settings: Settings, tmp_path: Path) -> None:
    settings.CA_BUNDLE = Authority(tmp_path, "Another CA").path.read_text()

    assert "the certificate of localhost is not trusted" in fail(f"https://localhost:{novita.port}").message


def test_public_authorities_stay_trusted(settings: Settings, authority: Authority) -> None:
    import certifi

    settings.CA_BUNDLE = authority.path.read_text()
    session = requests.Session()
    egress.prepare(session)
    adapter = session.get_adapter("https://novita.test")
    assert isinstance(adapter, WatchedAdapter)
    request = requests.Request("GET", "https://novita.test/").prepare()
    pool = adapter.get_connection_with_tls_context(request, True)
    adapter.cert_verify(pool, "https://novita.test/", True, None)

    assert pool.ca_certs == certifi.where()
    assert pool.conn_kw["ca_cert_data"] == settings.CA_BUNDLE


@pytest.mark.parametrize(
    ("hosts", "days", "words"),
    [(["localhost"], -1, "certificate has expired"), (["other.test"], 1, "not valid for 'localhost'")],
)
def test_invalid_certificate_of_a_trusted_authority_is_named(
    authority: Authority, settings: Settings, hosts: list[str], days: int, words: str
) -> None:
    settings.CA_BUNDLE = authority.path.read_text()
    with contextlib.closing(Server(serve_listing, authority.sign(*hosts, days=days))) as server:
        error = fail(f"https://localhost:{server.port}")

    assert "certificate verify failed: the certificate of localhost" in error.message and words in error.message
    assert error.suggestion and "CA_BUNDLE" not in error.suggestion


def test_server_without_tls_is_named(serve: Serve) -> None:
    server = serve(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))

    assert "The TLS handshake with localhost failed: " in fail(f"https://localhost:{server.port}").message


# --- A proxy


@pytest.fixture
def trusted(authority: Authority, settings: Settings) -> None:
    settings.CA_BUNDLE = authority.path.read_text()


@pytest.mark.usefixtures("trusted")
def test_novita_is_reached_through_the_proxy(proxy: Proxy, settings: Settings) -> None:
    settings.EGRESS_PROXY_URL = f"http://127.0.0.1:{proxy.port}"

    assert list_ids() == ["a"]
    assert proxy.heads[0].startswith(f"CONNECT {NAME}:443 HTTP/1.")
    assert "FAKE-SECRET-key" not in "".join(proxy.heads), "the key is for Novita only"


@pytest.mark.usefixtures("trusted")
def test_proxy_receives_user_and_password(proxy: Proxy, settings: Settings) -> None:
    settings.EGRESS_PROXY_URL = f"http://ann:{PASSWORD}%40%2F@127.0.0.1:{proxy.port}"

    assert list_ids() == ["a"]
    expected = requests.auth._basic_auth_str("ann", f"{PASSWORD}@/")
    assert f"Proxy-Authorization: {expected}" in proxy.heads[0]


@pytest.mark.usefixtures("trusted")
def test_proxy_over_tls_works(
    novita: Server, certificate: Path, settings: Settings, stack: contextlib.ExitStack
) -> None:
    proxy = stack.enter_context(contextlib.closing(Proxy(novita.port, certificate)))
    settings.EGRESS_PROXY_URL = f"https://localhost:{proxy.port}"

    assert list_ids() == ["a"]


def test_untrusted_proxy_is_named(
    novita: Server, certificate: Path, settings: Settings, stack: contextlib.ExitStack
) -> None:
    proxy = stack.enter_context(contextlib.closing(Proxy(novita.port, certificate)))
    settings.EGRESS_PROXY_URL = f"https://ann:{PASSWORD}@localhost:{proxy.port}"

    assert f"the certificate of the proxy localhost:{proxy.port} is not trusted" in fail().message


def test_untrusted_certificate_behind_a_proxy_is_attributed_to_novita(proxy: Proxy, settings: Settings) -> None:
    settings.EGRESS_PROXY_URL = f"http://127.0.0.1:{proxy.port}"

    error = fail()

    assert f"certificate verify failed: the certificate of {NAME} is not trusted" in error.message
    assert error.suggestion and "CA_BUNDLE" in error.suggestion


@pytest.mark.parametrize(
    ("answer", "words", "cure"),
    [
        ("407 Proxy Authentication Required", "(HTTP 407)", "user and password"),
        ("403 Forbidden", "(HTTP 403)", "Allow this host at the proxy"),
        ("502 Bad Gateway", "(HTTP 502)", "Allow this host at the proxy"),
    ],
)
def test_refusing_proxy_is_named(serve: Serve, settings: Settings, answer: str, words: str, cure: str) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())

    server = serve(refuse)
    settings.EGRESS_PROXY_URL = f"http://ann:{PASSWORD}@127.0.0.1:{server.port}"

    error = fail()

    assert f"The proxy 127.0.0.1:{server.port} refuses to connect to {NAME} {words}" in error.message
    assert error.suggestion and cure in error.suggestion


def test_unreachable_proxy_is_named(settings: Settings) -> None:
    settings.EGRESS_PROXY_URL = f"http://ann:{PASSWORD}@127.0.0.1:1"

    error = fail()

    assert "The proxy 127.0.0.1:1 can't be reached: connection refused." in error.message
    assert error.suggestion == "Check EGRESS_PROXY_URL."


def test_proxy_that_drops_the_connection_is_named(serve: Serve, settings: Settings) -> None:
    server = serve(lambda connection: None)
    settings.EGRESS_PROXY_URL = f"http://127.0.0.1:{server.port}"

    assert f"through the proxy 127.0.0.1:{server.port}" in fail().message


HANGS: dict[str, Callable[[socket.socket], Any]] = {
    "says nothing": lambda connection: connection.recv(1_000_000) and connection.recv(1),
    "drips its answer": lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400),
    "drips after its answer": lambda connection: (
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"),
        drip(connection, b"\x16\x03\x03\x40\x00" + b"x" * 400),
    ),
}


@pytest.mark.parametrize("how", HANGS)
@pytest.mark.parametrize("is_over_tls", [False, True])
def test_slow_or_hanging_proxy_ends_with_the_budget(
    settings: Settings, authority: Authority, certificate: Path, how: str, is_over_tls: bool
) -> None:
    settings.CA_BUNDLE = authority.path.read_text()

    def hang(connection: socket.socket) -> None:
        read_head(connection)
        HANGS[how](connection)

    with contextlib.closing(Server(hang, certificate if is_over_tls else None)) as server:
        settings.EGRESS_PROXY_URL = f"{'https' if is_over_tls else 'http'}://localhost:{server.port}"
        began = time.monotonic()

        with pytest.raises(NovitaTimeout):
            make_novita().list_instances(Budget(0.5))

        assert time.monotonic() - began < 10


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("is_over_tls", [False, True])
def test_slow_novita_behind_a_proxy_ends_with_the_budget(
    settings: Settings, certificate: Path, stack: contextlib.ExitStack, is_over_tls: bool
) -> None:
    def serve_slowly(connection: socket.socket) -> None:
        read_head(connection)
        drip(connection, make_answer(b"x" * 400))

    slow = stack.enter_context(contextlib.closing(Server(serve_slowly, certificate)))
    proxy = stack.enter_context(contextlib.closing(Proxy(slow.port, certificate if is_over_tls else None)))
    settings.EGRESS_PROXY_URL = f"{'https' if is_over_tls else 'http'}://localhost:{proxy.port}"
    began = time.monotonic()

    with pytest.raises(NovitaTimeout):
        make_novita().list_instances(Budget(0.5))

    assert time.monotonic() - began < 10


def test_silent_proxy_is_named(serve: Serve, settings: Settings) -> None:
    server = serve(lambda connection: connection.recv(1_000_000) and connection.recv(1))
    settings.EGRESS_PROXY_URL = f"http://127.0.0.1:{server.port}"
    novita = make_novita(read_timeout=0.2)
    novita._timeouts = (0.2, 0.2)

    with pytest.raises(NovitaError) as caught:
        novita.list_instances(Budget(20))

    assert f"through the proxy 127.0.0.1:{server.port}" in caught.value.message


def test_http_address_on_this_machine_uses_no_proxy(serve: Serve, settings: Settings) -> None:
    server = serve(serve_listing)
    settings.EGRESS_PROXY_URL = "http://127.0.0.1:1"

    assert list_ids(f"http://127.0.0.1:{server.port}") == ["a"]


@pytest.mark.usefixtures("trusted")
def test_proxy_from_the_environment_is_ignored(
    novita: Server, proxy: Proxy, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")

    assert list_ids(f"https://localhost:{novita.port}") == ["a"]
    assert proxy.heads == []


@pytest.mark.usefixtures("trusted")
def test_webhooks_use_neither_bundle_nor_proxy(
    novita: Server, proxy: Proxy, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.EGRESS_PROXY_URL = f"http://127.0.0.1:{proxy.port}"
    settings.WEBHOOK_ALLOWED_HOSTS, settings.WEBHOOK_ALLOWED_PORTS = ["localhost"], [novita.port]
    receiver = receivers.read_url(f"https://localhost:{novita.port}/hook")

    with pytest.raises(receivers.NotDelivered, match="certificate is not trusted"):
        receivers.post(receiver, {}, b"{}")

    assert proxy.heads == []


@pytest.mark.usefixtures("trusted")
def test_no_password_is_logged(proxy: Proxy, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings.EGRESS_PROXY_URL = f"http://ann:{PASSWORD}@127.0.0.1:{proxy.port}"
    caplog.set_level(logging.DEBUG)

    list_ids()
    settings.EGRESS_PROXY_URL = f"http://ann:{PASSWORD}@127.0.0.1:1"
    fail()

    assert PASSWORD not in caplog.text
