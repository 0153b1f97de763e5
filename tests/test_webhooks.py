"""Webhooks: allowed URLs, the event, delivery and retries. Receivers are real sockets on this machine."""

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import ipaddress
import itertools
import json
import logging
import random
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone
from pytest_django.fixtures import Settings

from instances.errors import InvalidRequest
from instances.models import Operation, Target, WebhookAttempt, WebhookDelivery
from instances.notifications import attempts, receivers, signed, webhooks
from instances.novita.client import USER_AGENT

pytestmark = pytest.mark.django_db

look_up_address = socket.getaddrinfo
connect_socket = socket.socket.connect

PUBLIC = "93.184.216.34"
SECRET = "whsec_" + base64.b64encode(b"FAKE-SECRET-of-32-bytes-in-total").decode()
OLDER_SECRET = "whsec_" + base64.b64encode(b"FAKE-SECRET-that-is-rotated-away").decode()
SECRET_PATH = "/hooks/FAKE-SECRET-path?token=FAKE-SECRET-token"
Write = Callable[[socket.socket], object]
State = WebhookDelivery.State

# Addresses that no webhook may reach, as a resolver returns them.
ADDRESSES = {
    "unspecified": "0.0.0.0",
    "private 10": "10.1.2.3",
    "private 172": "172.31.255.255",
    "private 192": "192.168.0.1",
    "CGNAT": "100.64.0.1",
    "loopback": "127.0.0.1",
    "loopback far": "127.255.255.254",
    "link-local": "169.254.169.254",
    "IETF": "192.0.0.1",
    "documentation 1": "192.0.2.1",
    "documentation 2": "198.51.100.1",
    "documentation 3": "203.0.113.1",
    "6to4 relay": "192.88.99.1",
    "benchmark": "198.18.0.1",
    "multicast": "224.0.0.1",
    "multicast own": "239.1.2.3",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 unspecified": "::",
    "IPv6 loopback": "::1",
    "mapped": "::ffff:127.0.0.1",
    "mapped private": "::ffff:10.0.0.1",
    "compatible": "::127.0.0.1",
    "compatible public": f"::{PUBLIC}",
    "NAT64": "64:ff9b::7f00:1",
    "NAT64 local": "64:ff9b:1::7f00:1",
    "discard": "100::1",
    "Teredo": "2001::1",
    "ORCHID": "2001:10::1",
    "ORCHIDv2": "2001:20::1",
    "IPv6 documentation": "2001:db8::1",
    "IPv6 documentation 2": "3fff::1",
    "6to4": "2002:7f00:1::",
    "SRv6": "5f00::1",
    "ULA": "fd12:3456::1",
    "IPv6 link-local": "fe80::1",
    "site-local": "fec0::1",
    "IPv6 multicast": "ff02::1",
}
NUMBERS = [
    # The public address in another notation, which parsers read differently.
    "1572395042",
    "93.12113954",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.0.0.1.",
    "127。0。0。1",
    "１２７.0.0.1",
    "[::ffff:7f00:1]",
    "[fe80::1%25eth0]",
    "[::1%251]",
]


class Receiver:
    """A server on a real socket: stores each request, then passes the connection to `write`."""

    def __init__(self, write: Write, tls: ssl.SSLContext | None = None, *, listens: bool = True, port: int = 0) -> None:
        self.requests: list[tuple[str, HTTPMessage, bytes]] = []
        self.connections = 0
        self.write = write
        self._tls = tls
        self._listens = listens
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._threads.append(threading.Thread(target=self._serve, args=[connection]))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if not self._listens:
                self.write(connection)
                return
            talk = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
            with talk, talk.makefile("rb") as reader:
                line = reader.readline().decode()
                if not line:
                    return
                path = line.split(" ")[1]
                headers = http.client.parse_headers(reader)
                self.requests.append((path, headers, reader.read(int(headers["Content-Length"]))))
                self.write(talk)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=20)


def answer(status: str, *headers: str, body: bytes = b"") -> Write:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
    return lambda connection: connection.sendall(head.encode() + body)


def drip(start: bytes, piece: bytes = b"x", seconds: float = 10) -> Write:
    """Send a piece every 0.05 s, for this time or until the other side closes the connection."""

    def write(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(round(20 * seconds)):
            time.sleep(0.05)
            connection.sendall(piece)

    return write


def hang(connection: socket.socket) -> None:
    connection.recv(1)


def hang_for_good(connection: socket.socket) -> None:
    """Take what comes, until the other side closes the connection."""
    while connection.recv(1000):
        pass


def pour(connection: socket.socket) -> None:
    """Send an endless header, as fast as possible."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while True:
        connection.sendall(b"x" * 1000)


@pytest.fixture(autouse=True)
def webhook_settings(settings: Settings) -> None:
    settings.WEBHOOK_SECRET = [SECRET]
    settings.WEBHOOK_ALLOWED_HOSTS = []
    settings.WEBHOOK_ALLOWED_PORTS = [443, 8443]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch, loopback_only: None) -> dict[str, list[str]]:
    """The DNS: the addresses of each name. Numeric hosts go to the machine's resolver, which sends no query."""
    known = {"hooks.test": [PUBLIC]}

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        options["flags"] = socket.AI_NUMERICHOST
        return [entry for one in known.get(host, [host]) for entry in look_up_address(one, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch, loopback_only: None) -> list[str]:
    """The addresses of attempted connections. No connection leaves this machine."""
    addresses: list[str] = []

    def connect(self: socket.socket, address: Any) -> None:
        addresses.append(address[0])
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError
        connect_socket(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    return addresses


Serve = Callable[..., Receiver]


@pytest.fixture
def serve(settings: Settings) -> Iterator[Serve]:
    """Start a receiver on this machine that webhooks may reach."""
    with contextlib.ExitStack() as stack:

        def start(write: Write, tls: ssl.SSLContext | None = None, *, listens: bool = True) -> Receiver:
            receiver = stack.enter_context(contextlib.closing(Receiver(write, tls, listens=listens)))
            settings.WEBHOOK_ALLOWED_HOSTS = ["127.0.0.1"]
            settings.WEBHOOK_ALLOWED_PORTS = [443, receiver.port]
            return receiver

        yield start


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "DEADLINE_SECONDS", 0.5)


def make_operation(**fields: Any) -> Operation:
    defaults: dict[str, Any] = {
        "kind": "stop",
        "is_whole_account": True,
        "selection": uuid.uuid4().hex,
        "state": "finished",
        "origin": "https://panel.test",
        "deadline_at": timezone.now(),
        "finished_at": dt.datetime(2026, 1, 15, 10, 30, tzinfo=dt.UTC),
        "success": True,
    }
    return Operation.objects.create(**{**defaults, **fields})


def make_due(url: str, operation: Operation | None = None) -> WebhookDelivery:
    operation = operation or make_operation()
    webhooks.register(operation, url)
    webhooks.release(operation)
    return WebhookDelivery.objects.get(operation=operation)


def deliver(delivery: WebhookDelivery) -> WebhookAttempt:
    """Make one attempt now, and return its record."""
    WebhookDelivery.objects.filter(pk=delivery.pk, state=State.DUE).update(next_attempt_at=timezone.now())
    webhooks.deliver(delivery.pk)
    delivery.refresh_from_db()
    return delivery.attempts.latest("pk")


def read_refusal(url: str) -> str:
    with pytest.raises(InvalidRequest) as refused:
        webhooks.check_url(url)
    assert set(refused.value.fields) == {"webhookUrl"}
    return refused.value.fields["webhookUrl"]


def make_url(address: str, path: str = "/") -> str:
    return f"https://[{address}]{path}" if ":" in address else f"https://{address}{path}"


# --- Allowed URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.test",
        "https://hooks.test/",
        "HTTPS://HOOKS.TEST:443/a?b=c",
        "https://hooks.test:8443/a%20b",
        f"https://{PUBLIC}/",
        "https://[2606:2800:220:1::1]/",
    ],
)
def test_public_url_is_accepted(url: str) -> None:
    webhooks.check_url(url)


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_address_that_is_not_public_is_refused(address: str) -> None:
    assert read_refusal(make_url(address)).startswith("Its host is not on the public internet")


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_name_with_one_private_address_is_refused(names: dict[str, list[str]], address: str) -> None:
    names["hooks.test"] = [PUBLIC, address]

    assert read_refusal("https://hooks.test/").startswith("Its host is not on the public internet")


@pytest.mark.parametrize("number", NUMBERS)
def test_unusual_address_notation_is_refused(number: str) -> None:
    assert "Its host" in read_refusal(f"https://{number}/") or "outside ASCII" in read_refusal(f"https://{number}/")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "It is empty, or contains spaces, backslashes or characters outside ASCII"),
        ("https://hooks.test/" + "a" * 2000, "It is longer than 2000 characters."),
        ("https://good.test\\@127.0.0.1/", "It is empty, or contains spaces"),
        (" https://hooks.test/", "It is empty, or contains spaces"),
        ("https://hooks.test/\r\nX-Header: 1", "It is empty, or contains spaces"),
        ("https://hooks.test\t/", "It is empty, or contains spaces"),
        ("https://hooks.test/\x00", "It is empty, or contains spaces"),
        ("https://hooks.test/\ud800", "It is empty, or contains spaces"),
        ("https://hooks.test:port/", "It is not a URL."),
        ("https://[::1/", "It is not a URL."),
        ("https:///path", "It is not a URL."),
        ("https://", "It is not a URL."),
        ("hooks.test", "It is not a URL."),
        ("https://hooks.test:99999/", "It is not a URL."),
        ("https://user:FAKE-SECRET@hooks.test/", "It contains a user or a password, which webhooks don't support."),
        ("https://hooks.test@127.0.0.1/", "It contains a user or a password"),
        ("https://@hooks.test/", "It contains a user or a password"),
        ("ftp://hooks.test/", "It doesn't start with https://."),
        ("file:///etc/passwd", "It doesn't start with https://."),
        (
            "http://hooks.test/",
            "It doesn't start with https://. Plain http is only for hosts in WEBHOOK_ALLOWED_HOSTS.",
        ),
        ("https://hooks.test./", "Its host or port is not in the usual form"),
        ("https://hooks..test/", "Its host or port is not in"),
        ("https://hooks%2etest/", "Its host or port is not in"),
        ("https://-hooks.test/", "Its host or port is not in"),
        ("https://hooks.test:8080/", "Its port 8080 is not one of WEBHOOK_ALLOWED_PORTS (443, 8443)."),
        ("https://hooks.test:0/", "Its host or port is not in the usual form"),
        ("https://hooks.test/#part", "It contains a #. The part after it is never sent."),
        ("https://nowhere.test/", "Its host can't be found."),
    ],
)
def test_each_refusal_has_its_own_sentence(url: str, words: str) -> None:
    assert read_refusal(url).startswith(words)


def test_hanging_dns_leads_to_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "DNS_SECONDS", 0.2)
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: answered.wait(20))

    began = time.monotonic()
    refusal = read_refusal("https://hooks.test/")
    answered.set()

    assert refusal == "Its host could not be looked up within 0.2 s."
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "url", ["http://Intern.test/", "https://intern.test/", "http://[FD12::1]/", "http://10.0.0.5:443/"]
)
def test_allowed_host_may_have_any_address_and_use_http(
    settings: Settings, names: dict[str, list[str]], url: str
) -> None:
    names["intern.test"] = ["10.0.0.5"]
    settings.WEBHOOK_ALLOWED_HOSTS = ["intern.test", "fd12::1", "10.0.0.5"]
    settings.WEBHOOK_ALLOWED_PORTS = [80, 443]

    webhooks.check_url(url)


def test_allowed_host_still_needs_an_allowed_port(settings: Settings) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = ["10.0.0.5"]

    assert read_refusal("http://10.0.0.5/") == "Its port 80 is not one of WEBHOOK_ALLOWED_PORTS (443, 8443)."


def test_allowing_a_host_allows_no_other_host(settings: Settings, names: dict[str, list[str]]) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = ["10.0.0.5", "intern.test"]
    names["sub.intern.test"] = ["10.0.0.5"]

    assert "not on the public internet" in read_refusal("https://sub.intern.test/")


def test_missing_secret_is_refused_with_the_command_that_creates_one(settings: Settings) -> None:
    settings.WEBHOOK_SECRET = []

    assert read_refusal("https://hooks.test/").endswith(
        "python3 -c \"import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
    )
    assert "not on the public internet" in read_refusal("https://127.0.0.1/")


# --- The event


def verify(headers: HTTPMessage, body: bytes, secret: str) -> bool:
    """Verify a signature by the specification at https://www.standardwebhooks.com, without its library."""
    key = base64.b64decode(secret.split("_")[1])
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return wanted in headers["webhook-signature"].split(" ")


def test_event_arrives_signed_with_the_documented_fields(serve: Serve) -> None:
    receiver = serve(answer("204 No Content"))
    saved = {"usd_per_hour": Decimal("1.25"), "unknown_prices": 2, "prepaid": 0}
    operation = make_operation(success=False, result="1 of 3 is still running.", reason="Month's end", **saved)
    operation.targets.create(instance_id="a", name="train-a", state="confirmed")
    operation.targets.create(instance_id="b", name="train-b", state="stillRunning", error="Novita refused.")
    operation.targets.create(instance_id="c", name="train-c", state="skipped", error="It is protected.")
    delivery = make_due(receiver.url + SECRET_PATH, operation)

    attempt = deliver(delivery)

    [(path, headers, body)] = receiver.requests
    assert attempt.status == 204
    assert attempt.error == ""
    assert delivery.state == State.DELIVERED
    assert delivery.next_attempt_at is None and delivery.ended_at is not None
    assert path == SECRET_PATH
    assert {name.lower() for name in headers} == {
        *("host", "accept-encoding", "content-length", "content-type", "user-agent"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == USER_AGENT
    assert headers["webhook-id"] == delivery.message_id and delivery.message_id.startswith("msg_")
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 5
    assert verify(headers, body, SECRET)
    assert json.loads(body) == {
        "type": "operation.finished",
        "timestamp": "2026-01-15T10:30:00Z",
        "data": {
            "operationId": str(operation.pk),
            "kind": "stop",
            "state": "finished",
            "success": False,
            "result": "1 of 3 is still running.",
            "reason": "Month's end",
            "savesPerHour": 1.25,
            "costsPerHour": None,
            "unknownPrices": 2,
            "prepaid": 0,
            "counts": {**dict.fromkeys(Target.State.values, 0), "confirmed": 1, "stillRunning": 1, "skipped": 1},
            "unconfirmed": [
                {"instanceId": "b", "name": "train-b", "state": "stillRunning", "message": "Novita refused."}
            ],
            "moreUnconfirmed": 0,
            "url": f"https://panel.test/api/operations/{operation.pk}",
        },
    }


def test_both_secrets_sign_during_a_rotation(serve: Serve, settings: Settings) -> None:
    receiver = serve(answer("200 OK"))
    settings.WEBHOOK_SECRET = [SECRET, OLDER_SECRET]

    deliver(make_due(receiver.url))

    [(_, headers, body)] = receiver.requests
    assert verify(headers, body, SECRET) and verify(headers, body, OLDER_SECRET)
    assert not verify(headers, body + b" ", SECRET)


def test_repeated_attempt_has_the_same_id_and_body_and_a_new_timestamp(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = serve(answer("500 Broken"))
    delivery = make_due(receiver.url)

    deliver(delivery)
    later = timezone.now() + dt.timedelta(hours=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    deliver(delivery)

    (_, first, first_body), (_, second, second_body) = receiver.requests
    assert first["webhook-id"] == second["webhook-id"]
    assert first_body == second_body
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) >= 3600
    assert verify(second, second_body, SECRET)


@pytest.mark.thorough
@pytest.mark.parametrize("text", ["🧨" * 300, "\x01" * 300, "ü" * 300])
def test_payload_stays_below_20_kb_for_any_texts(text: str) -> None:
    operation = make_operation(reason=text * 100, result=text * 100, success=False)
    Target.objects.bulk_create(
        Target(operation=operation, instance_id=f"i{number}", name=text[:255], state="failed", error=text * 10)
        for number in range(1000)
    )

    payload = make_due("https://hooks.test/", operation).payload

    data = json.loads(payload)["data"]
    assert 15_000 < len(payload.encode()) < 20_000
    assert data["counts"]["failed"] == 1000
    assert data["unconfirmed"] and len(data["unconfirmed"]) + data["moreUnconfirmed"] == 1000


def test_short_targets_are_listed_up_to_the_size_limit() -> None:
    operation = make_operation()
    Target.objects.bulk_create(
        Target(operation=operation, instance_id=str(number), state="requested") for number in range(3000)
    )

    payload = make_due("https://hooks.test/", operation).payload

    assert 19_900 < len(payload.encode()) < 20_000


def test_webhook_becomes_due_when_its_operation_ends() -> None:
    operation, other = make_operation(state="requesting"), make_operation()
    webhooks.register(operation, "https://hooks.test/")
    webhooks.release(other)

    assert webhooks.list_due() == []


def test_second_release_changes_nothing() -> None:
    operation = make_operation()
    delivery = make_due("https://hooks.test/", operation)
    WebhookDelivery.objects.update(state=State.DELIVERED)

    webhooks.release(operation)

    assert webhooks.list_due() == []
    assert WebhookDelivery.objects.get().payload == delivery.payload


# --- The call


@pytest.mark.parametrize(
    "address",
    [ADDRESSES[name] for name in ("private 10", "loopback", "link-local", "IPv6 loopback", "compatible", "site-local")],
)
def test_host_that_became_private_is_not_called(
    names: dict[str, list[str]], connected: list[str], address: str
) -> None:
    webhooks.check_url("https://hooks.test/")
    delivery = make_due("https://hooks.test/")
    names["hooks.test"] = [address]

    attempt = deliver(delivery)

    assert connected == []
    assert attempt.status is None
    assert attempt.error == "The receiver's host is no longer on the public internet."
    assert delivery.state == State.DUE


def test_address_is_checked_again_at_delivery(connected: list[str], settings: Settings) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = ["10.0.0.5"]
    delivery = make_due("https://10.0.0.5/")
    settings.WEBHOOK_ALLOWED_HOSTS = []

    assert deliver(delivery).error == "The receiver's host is no longer on the public internet."
    assert connected == []


def test_current_settings_decide_at_delivery(serve: Serve, settings: Settings) -> None:
    receiver = serve(answer("200 OK"))
    delivery = make_due(receiver.url)
    settings.WEBHOOK_ALLOWED_HOSTS = []

    assert deliver(delivery).error.startswith("It doesn't start with https://")
    settings.WEBHOOK_ALLOWED_HOSTS, settings.WEBHOOK_ALLOWED_PORTS = ["127.0.0.1"], [443]
    assert "is not one of WEBHOOK_ALLOWED_PORTS" in deliver(delivery).error
    settings.WEBHOOK_ALLOWED_PORTS, settings.WEBHOOK_SECRET = [receiver.port], []
    assert deliver(delivery).error == "WEBHOOK_SECRET is not set."
    assert receiver.connections == 0


def test_connection_goes_to_the_exact_address_that_was_checked(
    serve: Serve, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The name resolves to the public address first, and then to this machine."""
    receiver = serve(answer("200 OK"), tls=make_certificate(tmp_path, "hooks.test"))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "certificate.pem"))
    delivery = make_due("https://hooks.test/")
    looks, connections = iter([PUBLIC, "127.0.0.1", "127.0.0.1"]), []

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        address = next(looks) if host == "hooks.test" else host
        return look_up_address(address, port, *args, **{**options, "flags": socket.AI_NUMERICHOST})

    def connect(self: socket.socket, address: Any) -> None:
        connections.append(address)
        connect_socket(self, ("127.0.0.1", receiver.port))

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", connect)

    attempt = deliver(delivery)

    assert connections == [(PUBLIC, 443)]
    # Certificate and Host header belong to the name. Only the connection is pinned.
    assert attempt.status == 200
    assert delivery.state == State.DELIVERED
    assert receiver.requests[0][1]["Host"] == "hooks.test"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirect_is_not_followed(serve: Serve, status: str) -> None:
    elsewhere = serve(answer("200 OK"))
    # The body comes byte by byte. Reading a redirect's body would last until the deadline.
    head = f"HTTP/1.1 {status}\r\nLocation: {elsewhere.url}/other\r\nContent-Length: 1000\r\n\r\n"
    receiver = serve(drip(head.encode()))
    delivery = make_due(receiver.url)

    attempt = deliver(delivery)

    code = int(status[:3])
    assert attempt.status == code
    assert attempt.error == f"The receiver answered HTTP {code}, a redirect, which is not followed."
    assert delivery.state == State.DUE
    assert elsewhere.connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_from_the_environment_is_ignored(
    serve: Serve, settings: Settings, monkeypatch: pytest.MonkeyPatch, connected: list[str], scheme: str
) -> None:
    proxy, receiver = serve(answer("200 OK")), serve(answer("200 OK"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
    url = receiver.url if scheme == "http" else "https://hooks.test/"

    deliver(make_due(url))

    assert proxy.connections == 0
    assert connected == (["127.0.0.1"] if scheme == "http" else [PUBLIC])


def test_password_from_netrc_is_ignored(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password FAKE-SECRET")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    receiver = serve(answer("200 OK"))

    deliver(make_due(receiver.url))

    assert "Authorization" not in receiver.requests[0][1]


# --- Answers, retries and failures


LINGERING = {
    "silence": hang,
    "a status line that drips": drip(b"", b"H"),
    "headers that drip": drip(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "headers without an end": drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "100 Continue without an end": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("write", LINGERING.values(), ids=LINGERING)
def test_missing_answer_ends_at_the_deadline(serve: Serve, write: Write, short_deadline: None) -> None:
    receiver = serve(write)
    delivery = make_due(receiver.url)

    began = time.monotonic()
    attempt = deliver(delivery)

    assert time.monotonic() - began < 8
    assert attempt.status is None
    assert attempt.error == "No answer within 10 s."
    assert delivery.state == State.DUE
    assert 450 <= attempt.milliseconds < 3000


def test_endless_header_is_not_read_to_the_end(serve: Serve) -> None:
    delivery = make_due(serve(pour).url)

    attempt = deliver(delivery)

    assert attempt.error == "The connection was lost, or the answer was not HTTP."
    assert attempt.milliseconds < 5000


@pytest.mark.parametrize("length", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_slow_body_does_not_delay_the_result(serve: Serve, length: str) -> None:
    delivery = make_due(serve(drip(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())).url)

    attempt = deliver(delivery)

    assert attempt.status == 200
    assert delivery.state == State.DELIVERED
    assert attempt.milliseconds < 2000


def test_timed_out_connection_is_closed(serve: Serve, short_deadline: None) -> None:
    ended = threading.Event()

    def write(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")(connection)
        ended.set()

    deliver(make_due(serve(write).url))

    assert ended.wait(5)


@pytest.mark.parametrize(
    "write",
    [hang_for_good, drip(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")],
    ids=["hangs", "drips"],
)
def test_endless_tls_handshake_ends_at_the_deadline(serve: Serve, write: Write, short_deadline: None) -> None:
    receiver = serve(write, listens=False)
    delivery = make_due(receiver.url.replace("http", "https"))

    attempt = deliver(delivery)

    assert attempt.status is None
    assert attempt.error == "No answer within 10 s."
    assert attempt.milliseconds < 3000


def test_hanging_dns_ends_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, short_deadline: None, connected: list[str]
) -> None:
    delivery = make_due("https://hooks.test/")
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: answered.wait(20) and [])

    attempt = deliver(delivery)
    answered.set()

    assert attempt.error == "No answer within 10 s."
    assert connected == []
    assert attempt.milliseconds < 3000


@pytest.mark.parametrize(
    "status", ["199 Odd", "304 Same", "400 Bad", "401 No", "404 None", "429 Slow", "500 A", "503 B"]
)
def test_failed_attempt_is_repeated_after_a_pause(serve: Serve, status: str) -> None:
    delivery = make_due(serve(answer(status, body=b"FAKE-ANSWER")).url)

    before = timezone.now()
    attempt = deliver(delivery)

    assert attempt.status == int(status[:3])
    assert attempt.error.startswith(f"The receiver answered HTTP {status[:3]}") and "FAKE-ANSWER" not in attempt.error
    assert delivery.state == State.DUE
    assert delivery.tries == 1
    assert delivery.next_attempt_at and 5 <= (delivery.next_attempt_at - before).total_seconds() < 10
    assert webhooks.list_due() == []


def test_pauses_grow_to_6_hours_and_end_after_24_hours() -> None:
    pauses = [attempts.find_pause(tries) for tries in range(1, 18)]

    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses[-5:] == [20480, 21600, 21600, 21600, None]
    assert all(later >= earlier for earlier, later in itertools.pairwise(pauses) if earlier and later)
    assert 24 * 3600 <= sum(pause or 0 for pause in pauses) < 31 * 3600


def test_receiver_that_fails_for_a_day_is_given_up_until_sent_again(serve: Serve) -> None:
    receiver = serve(answer("500 Broken"))
    delivery = make_due(receiver.url)
    while delivery.state == State.DUE:
        deliver(delivery)

    assert delivery.state == State.DEAD
    assert delivery.tries == 17
    assert len(receiver.requests) == 17
    assert delivery.ended_at is not None and webhooks.list_due() == []

    receiver.write = answer("200 OK")
    assert webhooks.QUEUE.send_again(delivery)
    assert not webhooks.QUEUE.send_again(delivery)
    assert webhooks.list_due() == [delivery.pk]
    delivery.refresh_from_db()
    assert delivery.tries == 0
    assert delivery.ended_at is None

    deliver(delivery)
    assert delivery.state == State.DELIVERED
    assert delivery.tries == 1
    assert delivery.attempts.count() == 18
    assert not webhooks.QUEUE.send_again(delivery)


def test_receiver_that_answers_410_gets_no_further_attempt(serve: Serve) -> None:
    delivery = make_due(serve(answer("410 Gone")).url)

    attempt = deliver(delivery)

    assert attempt.status == 410
    assert delivery.state == State.DEAD
    assert webhooks.list_due() == []


def test_task_that_runs_twice_sends_once(serve: Serve) -> None:
    receiver = serve(answer("200 OK"))
    delivery = make_due(receiver.url)

    webhooks.deliver(delivery.pk)
    webhooks.deliver(delivery.pk)

    assert len(receiver.requests) == WebhookAttempt.objects.count() == 1


def test_claimed_delivery_is_skipped_for_a_minute(serve: Serve) -> None:
    seen: list[list[int]] = []

    def write(connection: socket.socket) -> None:
        answer("500 Broken")(connection)

    receiver = serve(write)
    delivery = make_due(receiver.url)
    # The state after a process was killed during an attempt.
    WebhookDelivery.objects.update(next_attempt_at=timezone.now() + webhooks.QUEUE.claim, tries=1)

    webhooks.deliver(delivery.pk)
    seen.append(webhooks.list_due())
    assert receiver.requests == []
    assert seen == [[]]

    WebhookDelivery.objects.update(next_attempt_at=timezone.now() - dt.timedelta(seconds=1))
    assert webhooks.list_due() == [delivery.pk]
    webhooks.deliver(delivery.pk)
    assert len(receiver.requests) == 1


def test_one_tick_sends_the_four_oldest() -> None:
    deliveries = [make_due("https://hooks.test/") for _ in range(6)]
    for age, delivery in enumerate(random.sample(deliveries, 6)):
        WebhookDelivery.objects.filter(pk=delivery.pk).update(
            next_attempt_at=timezone.now() - dt.timedelta(seconds=age), message_id=f"msg_{age}"
        )

    ids = [WebhookDelivery.objects.get(pk=pk).message_id for pk in webhooks.list_due()]

    assert ids == ["msg_5", "msg_4", "msg_3", "msg_2"]


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda connection: None, "The connection was lost, or the answer was not HTTP."),
        (
            lambda connection: connection.sendall(b"SSH-2.0-x\r\n"),
            "The connection was lost, or the answer was not HTTP.",
        ),
    ],
    ids=["closed", "not HTTP"],
)
def test_invalid_answer_is_named_in_a_sentence(serve: Serve, write: Write, words: str) -> None:
    assert deliver(make_due(serve(write).url)).error == words


def test_refused_connection_is_named_in_a_sentence(
    serve: Serve, connected: list[str], names: dict[str, list[str]]
) -> None:
    delivery = make_due("https://hooks.test/")

    assert deliver(delivery).error == "The receiver refused the connection."
    assert connected == [PUBLIC]
    names.clear()
    assert deliver(delivery).error == "The receiver's host can't be found."


# --- Secrets


def make_certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Create a self-signed certificate, and the context for a server with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    with contextlib.suppress(ValueError):
        names = [x509.IPAddress(ipaddress.ip_address(name))]
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


def test_untrusted_certificate_is_refused_with_a_sentence(serve: Serve, tmp_path: Path) -> None:
    receiver = serve(answer("200 OK"), tls=make_certificate(tmp_path, "127.0.0.1"))

    attempt = deliver(make_due(receiver.url))

    assert attempt.status is None
    assert attempt.error == "The receiver's certificate is not trusted."
    assert receiver.requests == []


@pytest.mark.parametrize("url", ["https://hooks.test/", "https://127.0.0.1:{port}/"], ids=["pinned", "excepted"])
def test_certificate_of_another_host_is_refused_with_a_sentence(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    receiver = serve(answer("200 OK"), tls=make_certificate(tmp_path, "other.test"))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "certificate.pem"))
    monkeypatch.setattr(
        socket.socket, "connect", lambda self, address: connect_socket(self, ("127.0.0.1", receiver.port))
    )

    attempt = deliver(make_due(url.format(port=receiver.port)))

    assert attempt.error in {
        "The receiver's certificate belongs to another host.",
        "The receiver's certificate is not trusted.",
    }
    assert receiver.requests == []


@pytest.mark.parametrize(
    "write",
    [
        answer("200 OK", "FAKE-ANSWER without a colon", "Set-Cookie: a=FAKE-ANSWER", body=b"FAKE-ANSWER"),
        answer("500 FAKE-ANSWER", "Location: https://hooks.test/FAKE-ANSWER", body=b"FAKE-ANSWER"),
        answer("302 FAKE-ANSWER", "Location: https://hooks.test/FAKE-ANSWER", body=b"FAKE-ANSWER"),
        lambda connection: connection.sendall(b"FAKE-ANSWER\r\n\r\n"),
        lambda connection: None,
        hang,
    ],
    ids=["malformed header", "500", "302", "not HTTP", "closed", "hangs"],
)
def test_path_and_answer_are_neither_stored_nor_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The request must have come by then, on a busy machine, too.
    monkeypatch.setattr(receivers, "DEADLINE_SECONDS", 1.0)
    caplog.set_level(logging.DEBUG)
    receiver = serve(write)
    delivery = make_due(receiver.url + SECRET_PATH)

    deliver(delivery)

    rows = [WebhookDelivery.objects.values().get(), WebhookAttempt.objects.values().get()]
    assert receiver.requests[0][0] == SECRET_PATH
    for secret in ("FAKE-SECRET", "FAKE-ANSWER", "token", "hooks/"):
        assert secret not in caplog.text and secret not in str(rows)
    assert delivery.receiver == receiver.url
    assert f"webhook {delivery.message_id} to {receiver.url}: " in caplog.text


def test_url_encrypted_with_an_older_key_is_still_readable(serve: Serve, settings: Settings) -> None:
    receiver = serve(answer("200 OK"))
    delivery = make_due(receiver.url)
    older, settings.SECRET_KEY = settings.SECRET_KEY, "FAKE-SECRET-newer"

    assert deliver(delivery).error == "SECRET_KEY has changed, so the stored URL can't be decrypted."
    settings.SECRET_KEY_FALLBACKS = [older]
    assert deliver(delivery).status == 200


def test_delivery_that_is_deleted_during_an_attempt_stays_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = make_due("https://hooks.example.com/x")

    def lose(*args: object) -> attempts.Outcome:
        WebhookDelivery.objects.all().delete()
        return attempts.Outcome(200)

    monkeypatch.setattr(signed, "post", lose)

    webhooks.deliver(delivery.pk)

    assert not WebhookAttempt.objects.exists()


def test_attempt_that_outlasts_its_claim_leaves_the_plan_of_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = make_due("https://hooks.example.com/x")
    planned = timezone.now() + dt.timedelta(hours=3)

    def fail_late(*args: object) -> attempts.Outcome:
        WebhookDelivery.objects.update(tries=2, next_attempt_at=planned)
        return attempts.Outcome(503, "The receiver answered HTTP 503.")

    monkeypatch.setattr(signed, "post", fail_late)

    webhooks.deliver(delivery.pk)

    delivery.refresh_from_db()
    assert delivery.next_attempt_at == planned
