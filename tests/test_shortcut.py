"""The shortcut of the hot reads: the same answers as the long way, and nobody is admitted longer."""

import gzip
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection
from django.middleware.gzip import GZipMiddleware
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from fakeredis import FakeServer
from pytest_django import Settings
from redis import Redis

from instances.access import passes
from instances.inventory.sync import synchronize
from instances.models import Token
from novita_site.settings import SESSION_COOKIE_NAME
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

PATHS = [
    *("/api/instances", "/api/instances/", "/api/instances/a", "/api/instances/a/", "/api/instances/none"),
    *(
        "/api/instances/sync",
        "/api/instances/stop-all",
        "/api/instances/a/stop",
        "/api/instances/%0a",
        "/api/instances//",
    ),
    *("/health", "/health/", "/livez", "/livez/", "/readyz", "/api/overview", "/api/operations"),
]
# Those that the shortcut knows, and neighbours that it must not take.
HOT_PATHS = [
    "/api/instances",
    "/api/instances/a",
    "/api/instances/none",
    "/api/instances/sync",
    "/health",
    "/livez",
    "/api/overview",
]
REQUESTS: dict[str, dict[str, Any]] = {
    "nothing special": {},
    "HEAD": {"method": "HEAD"},
    "OPTIONS": {"method": "OPTIONS"},
    "POST of another site": {"method": "POST", "Sec-Fetch-Site": "cross-site"},
    "any type": {"Accept": "*/*"},
    "JSON": {"Accept": "application/json"},
    "JSON first": {"Accept": "application/json, text/plain, */*"},
    "a browser": {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
    "an image": {"Accept": "image/png"},
    "no type": {"Accept": ""},
    "gzip": {"Accept-Encoding": "gzip, deflate, br"},
    "gzip refused": {"Accept-Encoding": "gzip;q=0"},
    "an unknown parameter": {"query": "x=1"},
    "a page": {"query": "page=1"},
    "a known revision": {"If-None-Match": "known"},
    "another revision": {"If-None-Match": 'W/"1"'},
    "a broken revision": {"If-None-Match": "x, *"},
    "an unknown host": {"Host": "evil.test"},
    "no host": {"Host": ""},
    "another site": {"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"},
    "a link on another site": {"Referer": "http://evil.test/", "Sec-Fetch-Site": "cross-site"},
    "X-Forwarded-For": {"X-Forwarded-For": "192.0.2.7"},
    "Forwarded": {"Forwarded": "for=192.0.2.7"},
    "CF-Connecting-IP": {"CF-Connecting-IP": "192.0.2.7"},
    "Via": {"Via": "1.1 proxy"},
    "TLS": {"X-Forwarded-Proto": "https"},
    "HTTP/1.0": {"SERVER_PROTOCOL": "HTTP/1.0"},
    "another machine": {"REMOTE_ADDR": "192.0.2.7"},
    "Basic credentials": {"Authorization": "Basic YTpi"},
    "a token without a scheme": {"Authorization": "nvp_0123456789abcdef0123"},
    "an empty Authorization": {"Authorization": ""},
    "a cookie of no session": {"Cookie": f"{SESSION_COOKIE_NAME}=gone"},
    "an empty cookie": {"Cookie": f"{SESSION_COOKIE_NAME}="},
    "a cookie without a name": {"Cookie": f"{SESSION_COOKIE_NAME}"},
}
VISITORS = [
    *("local owner", "nobody", "stranger", "viewer", "operator", "admin", "deactivated", "logged out", "no role"),
    *("viewer token", "admin token", "token above its role", "wrong token", "revoked token", "expired token"),
    "local owner with an old cookie",
]


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b"))
    synchronize("command")


@pytest.fixture
def long_way(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whose requests take no shortcut."""
    usual = settings.MIDDLEWARE
    settings.MIDDLEWARE = [name for name in usual if name != "instances.api.shortcut.shorten"]
    client = Client()
    client.handler.load_middleware()
    settings.MIDDLEWARE = usual
    # Compression adds a random number of bytes, which can make it worthless.
    monkeypatch.setattr(GZipMiddleware, "max_random_bytes", 0)
    return client


def make_user(name: str, role: str = "") -> User:
    user = User.objects.create_user(name, password="correct horse")
    if role:
        user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


def log_in(user: User) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return {"Cookie": f"{SESSION_COOKIE_NAME}={client.cookies[SESSION_COOKIE_NAME].value}"}


def make_token(user: User, role: str = "viewer", **given: Any) -> tuple[Token, dict[str, str]]:
    token, text = Token.objects.create(user=user, name="ci", role=role, **given)
    return token, {"Authorization": f"Bearer {text}"}


def introduce(visitor: str, settings: Settings) -> tuple[dict[str, str], Callable[[], Any]]:
    """Return a visitor's headers, and what happens to the visitor between the first requests and the last."""
    settings.REQUIRE_LOGIN = "local owner" not in visitor
    match visitor:
        case "local owner" | "nobody":
            return {}, list
        case "local owner with an old cookie":
            return log_in(make_user("ann", "viewer")), list
        case "stranger":
            return {"Cookie": f"{SESSION_COOKIE_NAME}=0123456789abcdef0123456789abcdef"}, list
        case "viewer" | "operator" | "admin":
            return log_in(make_user("ann", visitor)), list
        case "no role":
            return log_in(make_user("ann")), list
        case "deactivated":
            user = make_user("ann", "viewer")
            return log_in(user), lambda: User.objects.filter(pk=user.pk).update(is_active=False)
        case "logged out":
            return log_in(make_user("ann", "viewer")), Session.objects.all().delete
        case "token above its role":
            return make_token(make_user("ann", "viewer"), "admin")[1], list
        case "wrong token":
            return {"Authorization": "Bearer nvp_0123456789abcdef0123456789abcdef"}, list
        case "revoked token":
            token, headers = make_token(make_user("ann", "viewer"))
            return headers, token.delete
        case "expired token":
            token, headers = make_token(make_user("ann", "viewer"))
            past = timezone.now() - timedelta(seconds=1)
            return headers, lambda: Token.objects.filter(pk=token.pk).update(expiry=past)
        case _:
            role = visitor.removesuffix(" token")
            return make_token(make_user("ann", role), role)[1], list


def send(client: Client, path: str, request: dict[str, Any], visitor: dict[str, str]) -> Any:
    given = {**request, **visitor}
    method, query = given.pop("method", "GET"), given.pop("query", "")
    environ = {name: given.pop(name) for name in ("REMOTE_ADDR", "SERVER_PROTOCOL") if name in given}
    return client.generic(method, path, headers=given, QUERY_STRING=query, **environ)


def show(answer: Any) -> dict[str, Any]:
    """Return what a client sees, without what differs at each request: ids, times, and a page's CSRF token."""
    headers = dict(answer.headers)
    del headers["X-Request-Id"]
    headers["Vary"] = ", ".join(sorted(headers.get("Vary", "").split(", ")))
    body = gzip.decompress(answer.content) if "Content-Encoding" in headers else answer.content
    if headers.get("Content-Type", "").startswith("text/html"):
        body = b""
    if not body or "Content-Encoding" in headers:
        headers.pop("Content-Length", None)
    text = re.sub(r'"(requestId|timestamp)":\s?"[^"]*"|"ageSeconds":\d+', "", body.decode())
    return {"status": answer.status_code, **headers, "body": text}


def find_differences(
    long_way: Client, request: dict[str, Any], visitor: dict[str, str], paths: list[str]
) -> dict[str, Any]:
    """Send a request to each path both ways. Return what differs: path → header or part → both values."""
    differences = {}
    for path in paths:
        short, long = (show(send(one, path, request, visitor)) for one in (Client(), long_way))
        names = [name for name in short | long if short.get(name) != long.get(name)]
        if names:
            differences[path] = {name: (short.get(name), long.get(name)) for name in names}
    return differences


def become_known(visitor: dict[str, str]) -> None:
    """Send what makes a process recognize a visitor."""
    for _ in range(3):
        Client().get("/api/instances", headers=visitor)


# --- The same answers


@pytest.mark.parametrize("visitor", VISITORS)
def test_every_visitor_gets_the_answer_of_the_long_way(
    account: None, long_way: Client, settings: Settings, visitor: str
) -> None:
    headers, happens = introduce(visitor, settings)
    become_known(headers)
    happens()

    assert find_differences(long_way, {}, headers, PATHS) == {}


@pytest.mark.parametrize("visitor", ["local owner", "viewer", "viewer token"])
@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_gets_the_answer_of_the_long_way(
    account: None, long_way: Client, settings: Settings, name: str, visitor: str
) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SECURE_HSTS_SECONDS = 60
    headers, _ = introduce(visitor, settings)
    become_known(headers)
    etag = Client().get("/api/instances", headers=headers)["ETag"]
    request = {field: etag if value == "known" else value for field, value in REQUESTS[name].items()}

    assert find_differences(long_way, request, headers, HOT_PATHS) == {}


@pytest.mark.parametrize("is_away", [False, True])
def test_empty_cache_and_missing_redis_get_the_answer_of_the_long_way(
    long_way: Client, redis_server: FakeServer, is_away: bool
) -> None:
    redis_server.connected = not is_away

    assert find_differences(long_way, {}, {}, PATHS) == {}


def test_stale_inventory_gets_the_answer_of_the_long_way(account: None, long_way: Client, settings: Settings) -> None:
    settings.NOVITA_STALE_AFTER = -1

    assert Client().get("/api/instances")["Data-Stale"] == "true"
    assert find_differences(long_way, {}, {}, PATHS) == {}


# --- The end of an access


def end_session(user: User) -> None:
    Session.objects.all().delete()


def expire_session(user: User) -> None:
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))


def deactivate(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def change_password(user: User) -> None:
    user.set_password("another horse")
    user.save()


def leave_group(user: User) -> None:
    user.groups.clear()


def delete_user(user: User) -> None:
    user.delete()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (end_session, 401),
        (expire_session, 401),
        (deactivate, 401),
        (change_password, 401),
        (delete_user, 401),
        (leave_group, 403),
    ],
)
def test_login_ends_at_the_next_request(
    account: None, settings: Settings, change: Callable[[User], None], status: int
) -> None:
    settings.REQUIRE_LOGIN = True
    user = make_user("ann", "viewer")
    headers = log_in(user)
    become_known(headers)

    change(user)

    assert Client().get("/api/instances", headers=headers).status_code == status


def revoke(token: Token) -> None:
    token.delete()


def expire(token: Token) -> None:
    Token.objects.update(expiry=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (revoke, 401),
        (expire, 401),
        (lambda token: deactivate(token.user), 401),
        (lambda token: leave_group(token.user), 403),
    ],
    ids=["revoked", "expired", "user deactivated", "user without a group"],
)
def test_token_ends_at_the_next_request(
    account: None, settings: Settings, change: Callable[[Token], None], status: int
) -> None:
    settings.REQUIRE_LOGIN = True
    token, headers = make_token(make_user("ann", "viewer"))
    become_known(headers)

    change(token)

    assert Client().get("/api/instances", headers=headers).status_code == status


def test_revocation_during_the_full_check_counts_at_the_next_request(
    account: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REQUIRE_LOGIN = True
    user = make_user("ann", "viewer")
    headers = log_in(user)
    Client().get("/api/instances", headers=headers)
    learn = passes.Visit.learn

    def revoke_first(self: passes.Visit, *args: Any, **given: Any) -> None:
        deactivate(user)
        learn(self, *args, **given)

    monkeypatch.setattr(passes.Visit, "learn", revoke_first)
    Client().get("/api/instances", headers=headers)

    assert Client().get("/api/instances", headers=headers).status_code == 401


def test_lower_role_counts_at_the_next_request(account: None, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    user = make_user("ann", "viewer")
    headers = log_in(user)
    for _ in range(3):
        assert "services" in Client().get("/health", headers=headers).json()

    leave_group(user)

    assert "services" not in Client().get("/health", headers=headers).json()


def test_process_recognizes_a_bounded_number_of_logins(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.REQUIRE_LOGIN = True
    monkeypatch.setattr(passes, "MAX_PASSES", 2)
    user = make_user("ann", "viewer")

    for _ in range(4):
        become_known(log_in(user))

    assert len(passes._passes) == 2


# --- The work for an answer


@pytest.mark.parametrize(("visitor", "queries"), [("local owner", 0), ("viewer", 1), ("viewer token", 1)])
@pytest.mark.parametrize("path", ["/api/instances", "/api/instances/a"])
def test_repeated_read_takes_one_redis_command_and_one_query_at_most(
    account: None, settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str, visitor: str, queries: int
) -> None:
    headers, _ = introduce(visitor, settings)
    become_known(headers)
    etag = Client().get("/api/instances", headers=headers)["ETag"]
    send_command = Mock(side_effect=Redis.execute_command)
    monkeypatch.setattr(Redis, "execute_command", lambda *args, **options: send_command(*args, **options))

    with CaptureQueriesContext(connection) as captured:
        answer = Client().get(path, headers={**headers, "If-None-Match": etag})

    assert answer.status_code == (304 if path == "/api/instances" else 200)
    assert send_command.call_count == 1
    assert len(captured) == queries


def test_broken_database_refuses_a_login_as_on_the_long_way(
    account: None, long_way: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REQUIRE_LOGIN = True
    headers = log_in(make_user("ann", "viewer"))
    become_known(headers)

    def fail(*args: Any) -> Any:
        raise OperationalError("disk I/O error")

    with connection.execute_wrapper(fail):
        answers = [show(send(one, "/api/instances", {}, headers)) for one in (Client(), long_way)]

    assert answers[0] == answers[1]
    assert answers[0]["status"] == 503
