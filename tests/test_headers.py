"""What every answer says to a browser: a strict policy, and that nobody may frame it, embed it or guess its type."""

import re
import socket
from collections.abc import Iterator
from itertools import cycle
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import Settings

from instances.admin.records import RecordAdmin
from instances.inventory.sync import synchronize
from instances.models import AuditEntry, Operation, Protection, SyncRun, Target, WebhookAttempt, WebhookDelivery
from novita_site.settings import SESSION_COOKIE_NAME
from tests.conftest import ApiClient
from tests.groups import group
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

HTML = {"accept": "text/html"}
TLS = {"X-Forwarded-Proto": "https"}
PROMISED = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
STATIC = ["/static/instances/dashboard.js", "/static/admin/css/base.css", "/static/nope.css"]
ADDRESSES = [*STATIC, "/nope", "/api/nope", "/login/", "/admin/login/", "/sso/", "/%00", "/admin/instances/"]
REFUSALS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/health", {"headers": {"Host": "evil.test"}}, 400),
    ("GET", "/api/instances?page=0", {}, 400),
    ("GET", "/api/instances", {"headers": {"X-Forwarded-For": "192.0.2.7"}}, 401),
    ("GET", "/", {"headers": {"X-Forwarded-For": "192.0.2.7"}}, 302),
    ("POST", "/api/cache/clear", {"headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
    ("POST", "/admin/auth/user/add/", {"headers": {"Origin": "http://evil.test"}}, 403),
    ("GET", "/admin/instances/syncrun/add/", {}, 403),
    ("GET", "/nope", {}, 404),
    ("PUT", "/api/instances", {}, 405),
    ("GET", "/logout/", {}, 405),
    ("GET", "/api/instances", {"headers": {"Accept": "image/png"}}, 406),
    ("POST", "/api/cache/clear", {"data": b"{}".ljust(70_000), "content_type": "application/json"}, 413),
    ("POST", "/api/cache/clear", {"data": b"a=1", "content_type": "text/plain"}, 415),
]


def assert_promised(answer: Any, of: str = "") -> None:
    for name, value in PROMISED.items():
        assert answer.get(name) == value, (of, name)
    policy = answer.get("Content-Security-Policy", "")
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy, of
    assert not re.search(r"unsafe|\*|https?:|strict-dynamic|blob:", policy), of
    assert not {"Server", "X-Powered-By", "Access-Control-Allow-Origin"} & set(answer.headers), of


def list_addresses(patterns: list[Any], prefix: str = "") -> Iterator[str]:
    """Yield each address that the service has a view for, with 1 in the place of what it takes."""
    for pattern in patterns:
        address = prefix + re.sub(r"<[^>]*>|\(\?P<\w+>[^)]*\)", "1", str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from list_addresses(pattern.url_patterns, address)
        elif isinstance(pattern, URLPattern):
            yield "/" + re.sub(r"\\Z|[\^$]|/\?|\(\?:.*", "", address)


ROUTES = sorted({*list_addresses(get_resolver().url_patterns), *ADDRESSES})
# The pages of the first record stand for those of the others, which have the same views.
RECORDS = [str(model._meta.model_name) for model, one in admin.site._registry.items() if isinstance(one, RecordAdmin)]
ROUTES_OF_EACH_KIND = [
    route for route in ROUTES if not (page := re.match(r"/admin/instances/(\w+)/", route)) or page[1] not in RECORDS[1:]
]


@pytest.fixture
def account(novita: NovitaAnswers, no_pauses: None) -> None:
    """A record of each kind, all with the number 1 where they are counted."""
    novita.lists(make_row("1"))
    synchronize("command")
    AuditEntry.objects.create(pk=1, actor="ann", action="instance.stop", outcome="done")
    operation = Operation.objects.create(
        kind="stop", is_whole_account=True, selection="", deadline_at="2026-01-01T00:00Z"
    )
    Target.objects.create(pk=1, operation=operation, instance_id="1")
    Protection.objects.create(pk=1, instance_id="1", reason="trains")
    delivery = WebhookDelivery.objects.create(pk=1, operation=operation, message_id="1", receiver="https://a.test")
    WebhookAttempt.objects.create(pk=1, delivery=delivery, milliseconds=1)
    SyncRun.objects.update(id=1)


def test_the_routes_are_found() -> None:
    assert {"/", "/api", "/api/instances", "/api/instances/1/stop", "/admin/instances/syncrun/1/change/"} <= set(ROUTES)
    assert len(ROUTES) > 60


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    "cases",
    group(zip(ROUTES_OF_EACH_KIND, cycle(["HEAD", "OPTIONS", "TRACE"]), strict=False)),
    ids=lambda cases: cases[0][0],
)
@pytest.mark.thorough
def test_every_address_has_the_headers(client: Client, cases: list[tuple[str, str]]) -> None:
    for method, path in [(method, path) for path, other in cases for method in ("GET", other)]:
        answer = client.generic(method, path, headers=HTML)
        # A file is closed once it is read; closing the answer itself would close the test's database with it.
        b"".join(answer)

        assert_promised(answer, of=f"{method} {path}")
        assert answer.status_code < 500, (method, path)


@pytest.mark.parametrize(("method", "path", "options", "status"), REFUSALS)
def test_every_refusal_has_the_headers(
    client: Client, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    answer = client.generic(method, path, **options)

    assert answer.status_code == status
    assert_promised(answer)


@pytest.mark.parametrize("path", ["/admin/", "/api/instances", "/"])
@pytest.mark.parametrize("has_debug", [False, True])
def test_the_page_of_a_bug_has_the_headers_and_shows_no_values(settings: Settings, path: str, has_debug: bool) -> None:
    settings.DEBUG = has_debug
    settings.REDIS_URL = "redis://:FAKE-SECRET-redis@127.0.0.1/0"
    client = ApiClient(raise_request_exception=False)

    with connection.execute_wrapper(Mock(side_effect=Exception("a bug"))):
        answer = client.generic("GET", path, headers={**HTML, "Authorization": "Basic FAKE-SECRET"})

    assert answer.status_code == 500
    if not has_debug:
        # Django's own page for developers has inline styles, and so no policy.
        assert_promised(answer)
    assert b"FAKE-SECRET" not in answer.content
    assert (b"a bug" in answer.content) == has_debug


def test_the_page_of_a_bug_under_debug_repeats_no_password(settings: Settings) -> None:
    settings.DEBUG = True
    client = ApiClient(raise_request_exception=False)

    with connection.execute_wrapper(Mock(side_effect=Exception("a bug"))):
        answer = Client.post(client, "/admin/login/", {"username": "ann", "password": "FAKE-SECRET"})

    assert answer.status_code == 500
    assert b"FAKE-SECRET" not in answer.content
    assert b"a bug" in answer.content


@pytest.mark.parametrize("path", ["/", "/livez", "/api/instances", "/nope", "/api/nope", *STATIC])
def test_over_tls_browsers_are_told_to_stay_there(client: Client, settings: Settings, path: str) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SECURE_HSTS_SECONDS = 365 * 86400

    secure, plain = Client().get(path, headers=TLS), Client().get(path)
    b"".join(secure), b"".join(plain)

    assert secure["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in plain
    assert_promised(secure)


def test_nobody_makes_us_believe_in_tls_without_the_setting(settings: Settings) -> None:
    settings.SECURE_HSTS_SECONDS = 365 * 86400

    assert "Strict-Transport-Security" not in Client().get("/livez", headers=TLS)


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_cookies_are_secure_over_tls_and_out_of_reach_for_scripts(settings: Settings, path: str) -> None:
    settings.REQUIRE_LOGIN = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    User.objects.create_superuser("ann", password="FAKE-SECRET-password")
    client = Client()

    answer = client.post(path, {"username": "ann", "password": "FAKE-SECRET-password"}, headers=TLS)

    cookie = answer.cookies[SESSION_COOKIE_NAME]
    assert cookie["httponly"] is True
    assert cookie["samesite"] == "Lax"
    assert cookie["secure"] is True


def test_what_the_server_itself_refuses_has_the_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    from gunicorn import util

    monkeypatch.setattr(util, "write_error", util.write_error)
    from novita_site import gunicorn
    from novita_site.worker import Exchange

    ours, theirs = socket.socketpair()
    with ours, theirs:
        exchange = Exchange(ours)
        gunicorn.write_error(exchange, 400, "Bad Request", "FAKE-SECRET")
        exchange.answer.send(ours)
        head, _, body = theirs.recv(65536).decode().partition("\r\n\r\n")

    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    for name, value in PROMISED.items():
        assert headers.get(name) == value, name
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
    assert '"INVALID_REQUEST"' in body and "FAKE-SECRET" not in body
