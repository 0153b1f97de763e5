"""The shortcut of the hot reads: the same answers as the long way, and nobody is admitted longer.

Requests are bytes, and pass gunicorn's parser and our worker.
"""

import gzip
import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.core.handlers.wsgi import WSGIHandler
from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.middleware.gzip import GZipMiddleware
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from fakeredis import FakeServer
from pytest_django import Settings
from redis import Redis

from instances.access import limits, passes
from instances.access.passes import Credential
from instances.api import reads
from instances.api.shortcut import shorten
from instances.inventory.sync import synchronize
from instances.models import Token
from novita_site.settings import SESSION_COOKIE_NAME
from tests.novita_answers import NovitaAnswers, make_row
from tests.raw_requests import THIS_MACHINE, Answer, Server, write

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
    "/readyz",
    "/api/overview",
]
REQUESTS: dict[str, dict[str, Any]] = {
    "nothing special": {},
    "HEAD": {"method": "HEAD"},
    "OPTIONS": {"method": "OPTIONS"},
    "an unknown method": {"method": "PROPFIND"},
    "POST of another site": {"method": "POST", "Sec-Fetch-Site": "cross-site"},
    "any type": {"Accept": "*/*"},
    "JSON": {"Accept": "application/json"},
    "JSON first": {"Accept": "application/json, text/plain, */*"},
    "JSON with a parameter": {"Accept": "application/json; indent=4"},
    "JSON in capitals": {"ACCEPT": "Application/JSON"},
    "a browser": {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
    "an image": {"Accept": "image/png"},
    "no type": {"Accept": ""},
    "two types": {"more": [("Accept", "application/json"), ("Accept", "text/html")]},
    "gzip": {"Accept-Encoding": "gzip, deflate, br"},
    "gzip refused": {"Accept-Encoding": "gzip;q=0"},
    "gzip in two headers": {"more": [("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")]},
    "an unknown parameter": {"query": "?x=1"},
    "a page": {"query": "?page=1"},
    "an empty query": {"query": "?"},
    "a fragment": {"query": "#top"},
    "a known revision": {"If-None-Match": "known"},
    "a strong revision": {"If-None-Match": "strong"},
    "another revision": {"If-None-Match": 'W/"1"'},
    "two revisions": {"more": [("If-None-Match", 'W/"1"'), ("If-None-Match", "known")]},
    "a broken revision": {"If-None-Match": "x, *"},
    "any revision": {"If-None-Match": "*"},
    "a date": {"If-Modified-Since": "Sat, 01 Jan 2050 00:00:00 GMT"},
    "a range": {"Range": "bytes=0-1"},
    "an unknown host": {"Host": "evil.test"},
    "a host with a port": {"Host": "localhost:3000"},
    "a host in capitals": {"Host": "LOCALHOST"},
    "a host that is none": {"Host": "local host"},
    "no host": {"Host": ""},
    "two hosts": {"more": [("Host", "localhost"), ("Host", "evil.test")]},
    "another host in the address": {"prefix": "http://evil.test"},
    "another site": {"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"},
    "an origin that hides": {"Origin": "null"},
    "a link on another site": {"Referer": "http://evil.test/", "Sec-Fetch-Site": "cross-site"},
    "a link on another site, followed": {
        **{"Referer": "http://evil.test/", "Sec-Fetch-Site": "cross-site"},
        **{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    },
    "X-Forwarded-For": {"X-Forwarded-For": "192.0.2.7"},
    "X-Forwarded-For, twice": {"more": [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-For", "127.0.0.1")]},
    "X-Forwarded-Host": {"X-Forwarded-Host": "evil.test"},
    "Forwarded": {"Forwarded": "for=192.0.2.7"},
    "CF-Connecting-IP": {"CF-Connecting-IP": "192.0.2.7"},
    "Via": {"Via": "1.1 proxy"},
    "TLS": {"X-Forwarded-Proto": "https"},
    "no TLS": {"X-Forwarded-Proto": "http"},
    "HTTP/1.0": {"version": "1.0"},
    "the end of the connection": {"Connection": "close"},
    "another machine": {"address": "192.0.2.7"},
    "another machine behind a proxy": {"address": "10.0.0.1", "X-Forwarded-For": "192.0.2.7"},
    "this machine behind a proxy": {"address": "10.0.0.1", "X-Forwarded-For": "127.0.0.1"},
    "Basic credentials": {"Authorization": "Basic YTpi"},
    "a token without a scheme": {"Authorization": "nvp_0123456789abcdef0123"},
    "a token in two headers": {"more": [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]},
    "an empty Authorization": {"Authorization": ""},
    "a cookie of no session": {"Cookie": f"{SESSION_COOKIE_NAME}=gone"},
    "an empty cookie": {"Cookie": f"{SESSION_COOKIE_NAME}="},
    "a cookie without a name": {"Cookie": f"{SESSION_COOKIE_NAME}"},
    "a cookie that is quoted": {"Cookie": f'{SESSION_COOKIE_NAME}="0123456789abcdef0123456789abcdef"'},
    "a cookie beyond ASCII": {"Cookie": "other=\xe9\xff"},
    "a header with an underscore": {"X_Forwarded_For": "192.0.2.7", "HTTP_AUTHORIZATION": "Bearer a"},
    "a header beyond ASCII": {"X-Odd": "\xe9\xff"},
    "a broken header": {"X Odd": "1"},
    "a long header": {"X-Long": "x" * 7000},
    "a body": {"Content-Length": "2", "body": b"{}"},
    "a body in chunks": {"Transfer-Encoding": "chunked", "body": b"2\r\n{}\r\n0\r\n\r\n"},
    "a body that is no number long": {"Content-Length": "x"},
    "a body that is announced twice": {"more": [("Content-Length", "0"), ("Content-Length", "2")]},
    "a type of a body": {"Content-Type": "application/json; charset=utf-16"},
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


@pytest.fixture(scope="module")
def long_way() -> Server:
    """A server whose requests take no shortcut."""
    return Server(WSGIHandler())


@pytest.fixture(scope="module")
def server(long_way: Server) -> Server:
    return Server(shorten(WSGIHandler()))


@pytest.fixture(autouse=True)
def old_connections(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Called in place of the end of old connections, which would end the test's transaction."""
    end = Mock()
    monkeypatch.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", lambda self: end(self))
    return end


@pytest.fixture(autouse=True)
def no_random_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compression adds a random number of bytes, which can make it worthless."""
    monkeypatch.setattr(GZipMiddleware, "max_random_bytes", 0)


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


def send(server: Server, path: str, request: dict[str, Any], visitor: dict[str, str]) -> Answer:
    given = {**request, **visitor}
    parts = {name: given.pop(name) for name in ("method", "version", "body") if name in given}
    address, more = given.pop("address", THIS_MACHINE), given.pop("more", [])
    path = f"{given.pop('prefix', '')}{path}{given.pop('query', '')}"
    return server.send(write(path, [*given.items(), *more], **parts), address)


def get(server: Server, path: str, headers: dict[str, str]) -> Answer:
    return send(server, path, {}, headers)


def show(answer: Answer) -> dict[str, Any]:
    """Return what a client sees, without what differs at each request: ids, times, and a page's CSRF token."""
    headers = dict(answer.headers)
    assert len(headers) == len(answer.headers), "a header is sent twice"
    if "x-request-id" in headers:
        headers["x-request-id"] = str(bool(re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])))
    if "set-cookie" in headers:
        headers["set-cookie"] = re.sub("(=|expires=)[^;]+;", r"\1value;", headers["set-cookie"], count=2)
    headers.pop("date", None)
    headers["vary"] = ", ".join(sorted(headers.get("vary", "").split(", ")))
    body = gzip.decompress(answer.body) if "content-encoding" in headers and answer.body else answer.body
    if headers.get("content-type", "").startswith("text/html"):
        body = b""
    if not body or "content-encoding" in headers:
        headers.pop("content-length", None)
    text = re.sub(r'"(requestId|timestamp)":\s?"[^"]*"|"ageSeconds":\d+', "", body.decode())
    return {"line": answer.line, **headers, "body": text, "keeps the connection": answer.keeps_connection}


def fill_in(request: dict[str, Any], etag: str) -> dict[str, Any]:
    """Replace "known" by the ETag of the listing, and "strong" by its strong form."""
    values = {"known": etag, "strong": etag.removeprefix("W/")}
    more = [(name, values.get(value, value)) for name, value in request.get("more", [])]
    return {name: values.get(value, value) for name, value in request.items() if name != "more"} | {"more": more}


def find_differences(
    server: Server, long_way: Server, request: dict[str, Any], visitor: dict[str, str], paths: list[str]
) -> dict[str, Any]:
    """Send a request to each path both ways. Return what differs: path → header or part → both values."""
    differences = {}
    for path in paths:
        short, long = (show(send(one, path, request, visitor)) for one in (server, long_way))
        names = [name for name in short | long if short.get(name) != long.get(name)]
        if names:
            differences[path] = {name: (short.get(name), long.get(name)) for name in names}
    return differences


def become_known(server: Server, visitor: dict[str, str]) -> None:
    """Send what makes a process recognize a visitor."""
    for _ in range(3):
        get(server, "/api/instances", visitor)


# --- The same answers


@pytest.mark.thorough
@pytest.mark.parametrize("visitor", VISITORS)
def test_every_visitor_gets_the_answer_of_the_long_way(
    account: None, server: Server, long_way: Server, settings: Settings, visitor: str
) -> None:
    headers, happens = introduce(visitor, settings)
    become_known(server, headers)
    happens()

    assert find_differences(server, long_way, {}, headers, PATHS) == {}


@pytest.fixture
def strict(settings: Settings) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SECURE_HSTS_SECONDS = 60
    settings.TRUSTED_PROXIES = [ip_network("10.0.0.0/8")]


# `_find_read` and `_is_plain` know no visitor, and `Visit` no path: each pair of the three is tried, not each triple.
@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("visitor", "paths"),
    [("local owner", HOT_PATHS), ("viewer", ["/api/instances"]), ("viewer token", ["/api/instances"])],
    ids=["local owner", "viewer", "viewer token"],
)
@pytest.mark.thorough
def test_every_request_gets_the_answer_of_the_long_way(
    account: None, server: Server, long_way: Server, settings: Settings, visitor: str, paths: list[str]
) -> None:
    # One visitor sends them all: to make a visitor known takes longer than a request both ways.
    headers, _ = introduce(visitor, settings)
    become_known(server, headers)
    etag = get(server, "/api/instances", headers)["ETag"]

    different = {}
    for name, request in REQUESTS.items():
        for _ in range(2):
            # Time may give an age another digit between the two answers. What is really different is so again.
            limits.memory.clear()
            different[name] = find_differences(server, long_way, fill_in(request, etag), headers, paths)
            if not different[name]:
                break

    assert {name: found for name, found in different.items() if found} == {}


@pytest.mark.parametrize("is_away", [False, True])
def test_empty_cache_and_missing_redis_get_the_answer_of_the_long_way(
    server: Server, long_way: Server, redis_server: FakeServer, is_away: bool
) -> None:
    redis_server.connected = not is_away

    assert find_differences(server, long_way, {}, {}, PATHS) == {}


def test_address_beyond_ascii_is_no_other_instance(novita: NovitaAnswers, server: Server, long_way: Server) -> None:
    novita.lists(make_row("\xc3\xa9"), make_row("a"))
    synchronize("command")
    become_known(server, {})

    assert get(server, "/api/instances/%c3%a9", {}).status == 404
    assert find_differences(server, long_way, {}, {}, ["/api/instances/%c3%a9", "/api/instances/%ff"]) == {}


def test_stale_inventory_gets_the_answer_of_the_long_way(
    account: None, server: Server, long_way: Server, settings: Settings
) -> None:
    settings.NOVITA_STALE_AFTER = -1

    assert get(server, "/api/instances", {})["Data-Stale"] == "true"
    assert find_differences(server, long_way, {}, {}, PATHS) == {}


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
    account: None, server: Server, settings: Settings, change: Callable[[User], None], status: int
) -> None:
    settings.REQUIRE_LOGIN = True
    user = make_user("ann", "viewer")
    headers = log_in(user)
    become_known(server, headers)

    change(user)

    assert get(server, "/api/instances", headers).status == status


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
    account: None, server: Server, settings: Settings, change: Callable[[Token], None], status: int
) -> None:
    settings.REQUIRE_LOGIN = True
    token, headers = make_token(make_user("ann", "viewer"))
    become_known(server, headers)

    change(token)

    assert get(server, "/api/instances", headers).status == status


def test_revocation_during_the_full_check_counts_at_the_next_request(
    account: None, server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REQUIRE_LOGIN = True
    user = make_user("ann", "viewer")
    headers = log_in(user)
    get(server, "/api/instances", headers)
    learn = passes.Visit.learn

    def revoke_first(self: passes.Visit, *args: Any, **given: Any) -> None:
        deactivate(user)
        learn(self, *args, **given)

    monkeypatch.setattr(passes.Visit, "learn", revoke_first)
    get(server, "/api/instances", headers)

    assert get(server, "/api/instances", headers).status == 401


def test_lower_role_counts_at_the_next_request(account: None, server: Server, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    user = make_user("ann", "viewer")
    headers = log_in(user)
    for _ in range(3):
        assert "services" in get(server, "/health", headers).body.decode()

    leave_group(user)

    assert "services" not in get(server, "/health", headers).body.decode()


def test_visitors_who_come_at_once_share_a_query_and_get_their_own_rows(settings: Settings) -> None:
    ann, bob = make_user("ann", "viewer"), make_user("bob", "operator")
    bob.groups.add(Group.objects.get_or_create(name="admin")[0])
    sessions = [(Credential("session", log_in(user)["Cookie"].partition("=")[2]), user.pk) for user in (ann, bob)]
    token = make_token(ann)[0]
    Token.objects.update(last_used_at=timezone.now())
    with_another_user = (sessions[0][0], bob.pk)
    unknown = (Credential("session", "0123456789abcdef0123456789abcdef"), ann.pk)
    asked = [*sessions, (Credential("token", token.digest), ann.pk), with_another_user, unknown, sessions[0]]
    alone = [passes._read_rows([one])[0] for one in asked]

    with CaptureQueriesContext(connection) as captured:
        together = passes._read_rows(asked)

    assert together == alone
    assert [len(rows or ()) for rows in together] == [1, 2, 1, 2, 0, 1]
    assert len(captured) == 1


def test_process_recognizes_a_bounded_number_of_logins(
    server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REQUIRE_LOGIN = True
    monkeypatch.setattr(passes, "MAX_PASSES", 2)
    user = make_user("ann", "viewer")

    for _ in range(4):
        become_known(server, log_in(user))

    assert len(passes._passes) == 2


# --- The work for an answer


@pytest.mark.parametrize(
    "visitor",
    ["local owner", "viewer", *(pytest.param(one, marks=pytest.mark.thorough) for one in ("admin", "viewer token"))],
)
@pytest.mark.parametrize(
    "path", ["/api/instances", "/api/instances/a", "/api/overview", "/health", "/livez", "/readyz"]
)
def test_plain_read_of_a_known_visitor_never_reaches_django(
    account: None, server: Server, settings: Settings, path: str, visitor: str
) -> None:
    headers, _ = introduce(visitor, settings)
    become_known(server, headers)
    django = Mock()

    answer = get(Server(shorten(django)), path, headers)

    assert answer.status == 200
    assert django.call_count == 0


def test_monitors_share_an_answer_for_a_moment_only(
    account: None, server: Server, redis_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    become_known(server, {})
    monkeypatch.setattr(reads, "HEALTH_SECONDS", 60)
    get(server, "/health", {})
    redis_server.connected = False

    within = get(server, "/health", {}).status
    monkeypatch.setattr(reads, "HEALTH_SECONDS", 0)
    after = get(server, "/health", {}).status

    assert within == 200
    assert after == 503


@pytest.mark.parametrize("path", ["/api/instances", "/api/overview", "/health"])
def test_old_connections_end_before_and_after_a_read(
    account: None, server: Server, settings: Settings, old_connections: Mock, path: str
) -> None:
    headers, _ = introduce("viewer", settings)
    become_known(server, headers)
    old_connections.reset_mock()

    with CaptureQueriesContext(connection) as captured:
        get(server, path, headers)

    assert len(captured) > 0
    assert old_connections.call_count == 2


def test_bug_of_the_shortcut_costs_nobody_an_answer(
    account: None, server: Server, long_way: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    become_known(server, {})
    monkeypatch.setattr(passes, "is_local_owner", Mock(side_effect=KeyError("a bug")))

    assert find_differences(server, long_way, {}, {}, PATHS) == {}


@pytest.mark.parametrize(("visitor", "queries"), [("local owner", 0), ("viewer", 1), ("viewer token", 1)])
@pytest.mark.parametrize("path", ["/api/instances", "/api/instances/a"])
def test_repeated_read_takes_one_redis_command_and_one_query_at_most(
    account: None,
    server: Server,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    visitor: str,
    queries: int,
) -> None:
    headers, _ = introduce(visitor, settings)
    become_known(server, headers)
    etag = get(server, "/api/instances", headers)["ETag"]
    send_command = Mock(side_effect=Redis.execute_command)
    monkeypatch.setattr(Redis, "execute_command", lambda *args, **options: send_command(*args, **options))

    with CaptureQueriesContext(connection) as captured:
        answer = get(server, path, {**headers, "If-None-Match": etag})

    assert answer.status == (304 if path == "/api/instances" else 200)
    assert send_command.call_count == 1
    assert len(captured) == queries


def test_broken_database_refuses_a_login_as_on_the_long_way(
    account: None, server: Server, long_way: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REQUIRE_LOGIN = True
    headers = log_in(make_user("ann", "viewer"))
    become_known(server, headers)

    def fail(*args: Any) -> Any:
        raise OperationalError("disk I/O error")

    with connection.execute_wrapper(fail):
        answers = [show(send(one, "/api/instances", {}, headers)) for one in (server, long_way)]

    assert answers[0] == answers[1]
    assert answers[0]["line"].startswith("HTTP/1.1 503 ")
