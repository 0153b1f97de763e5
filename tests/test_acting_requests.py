"""Every acting route, and every malformed request to it: each is refused, and Novita gets no request.

The framings that only a server sees are in tests/system/test_framing.py.
"""

import json
import re
from collections.abc import Iterator
from html import unescape
from itertools import cycle
from typing import Any

import pytest
from django.core.management import execute_from_command_line
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from instances.models import AuditEntry, Operation, Protection
from tests.inventories import fill_inventory
from tests.novita_answers import Account, NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

HTML = {"accept": "text/html"}
JSON = "application/json"
UNSAFE = ("post", "put", "patch", "delete")


def list_acting_routes(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield method and address of each view of the API that may change something, with `a` for an id."""
    for pattern in patterns:
        address = prefix + re.sub(r"\(\?P<\w+>[^)]*\)|<[^>]*>", "a", str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from list_acting_routes(pattern.url_patterns, address)
        elif isinstance(pattern, URLPattern) and address.startswith("api"):
            view = pattern.callback
            names = getattr(view, "actions", None) or vars(getattr(view, "cls", object))
            path = "/" + re.sub(r"\\Z|[\^$]|/\?|\(\?:.*", "", address).replace("//", "/")
            yield from ((method.upper(), path) for method in UNSAFE if method in names)


ROUTES = sorted(set(list_acting_routes(get_resolver().url_patterns)))
# A valid body of each route, so that a refusal has only the tested reason.
PROPER = {
    ("POST", "/api/instances/stop-all"): {"ids": ["a"]},
    ("POST", "/api/operations"): {"kind": "stop", "ids": ["a"]},
    ("POST", "/api/instances/a/protect"): {"reason": "trains"},
    ("PUT", "/api/annotations"): {"ids": ["a"]},
    ("PUT", "/api/start-freeze"): {"until": None, "reason": "trains"},
    ("POST", "/api/policies"): {"name": "Idle", "rule": "idle"},
    ("POST", "/api/policies/a/confirm-stop"): {"name": "Cap"},
    ("PUT", "/api/policies/switch"): {"on": True},
    ("POST", "/api/policies/findings/a/snooze"): {"for": "1h"},
}


def get_body(method: str, path: str) -> dict[str, Any]:
    return PROPER.get((method, path), {})


QUERIES = [
    "dryRun=true",
    "dryrun=true",
    "dryRun=",
    "dryRun",
    "DRYRUN=1",
    "ids=x",
    "x",
    "=1",
    "%00=1",
    "%ff=%fe",
    "dryRun=true&dryRun=false",
    "format=json&dryRun=true",
    "format=json&format=json",
    "format=nonsense",
    "status=running",
    "_method=GET",
    "ｄryRun=true",
    "&".join(f"x{number}=1" for number in range(2000)),
]
MEDIA_TYPES = [
    "",
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/merge-patch+json",
    "application/vnd.api+json",
    "application/json, text/plain",
    "application/json; charset=utf-16",
    "application/json; charset=iso-8859-1",
    "application/json; charset=nonsense",
    "application/json; charset=utf-8; charset=utf-16",
    'application/json; charset="utf-8',
    "application/json; charset*=utf-16''x",
    "application/x-json",
    "*/*",
    "json",
]
HEADERS = [
    {"Content-Encoding": "gzip"},
    {"Content-Encoding": "identity, br"},
    {"Content-Range": "bytes 0-1/100"},
    {"Range": "bytes=0-1"},
    {"If-Match": "*"},
    {"If-Unmodified-Since": "Thu, 01 Jan 2026 00:00:00 GMT"},
    {"X-HTTP-Method-Override": "GET"},
    {"X-HTTP-Method": "GET"},
    {"X-Method-Override": "OPTIONS"},
    {"Transfer-Encoding": "chunked"},
    {"Transfer-Encoding": "gzip"},
    {"Content-Length": "-1"},
    {"Content-Length": "two"},
    {"Content-Length": "２"},
]
# Each is added to a valid body of the route.
FIELDS: list[bytes] = [
    b'"x": 1',
    b'"dryrun": true',
    b'"DryRun": true',
    b'"dry_run": true',
    b'"dryRun ": true',
    '"dryRυn": true'.encode(),
    '"ｄｒｙＲｕｎ": true'.encode(),
    b'"\\ud800": 1',
    b'"": 1',
    b'"dryRun": true, "dryRun": false',
    b'"dryRun": true, "dry\\u0052un": true',
    b'"reason": "a", "reason": "b"',
    b'"x": {"y": [{"z": 1, "z": 2}]}',
    b'"dryRun": "yes"',
    b'"dryRun": "true"',
    b'"dryRun": 1',
    b'"dryRun": null',
    b'"dryRun": [true]',
    b'"dryRun": NaN',
    b'"dryRun": Infinity',
    b'"dryRun": 1e999',
    b'"_method": "GET"',
    b'"_content": "{}", "_content_type": "application/json"',
]
IDS = [b"null", b"[]", b'""', b'"a"', b"{}", b'[""]', b'[" "]', b"[null]", b"[1]", b'[["a"]]', b"true", b"0"]
BODIES: list[bytes] = [
    b" ",
    b"\r\n",
    b"\x00",
    b"[]",
    b"[{}]",
    b"null",
    b"1",
    b"0",
    b'"stop"',
    b'""',
    b"true",
    b"false",
    b"{",
    b"{}{}",
    b"{} x",
    b"{},",
    b"{'dryRun': true}",
    b"{dryRun: true}",
    b"dryRun=true",
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    "{}".encode("utf-16-le"),
    "{}".encode("utf-32"),
    b'{"reason": "\xff"}',
    b'{"reason": "\xed\xa0\x80"}',
    b"[" * 60_000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b'{"x": ' + b"1" * 5000 + b"}",
    b"{/* nothing */}",
    b'{"dryRun": true',
]


@pytest.fixture
def account(novita: NovitaAnswers) -> Account:
    """One running instance in the inventory, and a running operation on another."""
    account = novita.holds(make_row("a"))
    fill_inventory()
    account.calls.clear()
    return account


@pytest.fixture(params=ROUTES, ids=" ".join)
def route(request: pytest.FixtureRequest) -> tuple[str, str]:
    method, path = request.param
    return method, path


def assert_refused(account: Account, answer: Any, *statuses: int) -> None:
    assert_refusal(answer, *statuses)
    assert_nothing_done(account)


def assert_refusal(answer: Any, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.content
    assert answer.json()["success"] is False


def assert_nothing_done(account: Account) -> None:
    assert account.calls == [], "Novita got a request"
    assert not Operation.objects.exists() and not Protection.objects.exists()
    assert not AuditEntry.objects.exists()


def test_routes_are_found() -> None:
    assert {
        ("POST", "/api/instances/stop-all"),
        ("POST", "/api/instances/sync"),
        ("POST", "/api/instances/a/stop"),
        ("POST", "/api/instances/a/protect"),
        ("DELETE", "/api/instances/a/protect"),
        ("POST", "/api/operations"),
        ("POST", "/api/operations/a/cancel"),
        ("POST", "/api/cache/clear"),
    } <= set(ROUTES)


@pytest.mark.thorough
@pytest.mark.django_db(transaction=True)
def test_valid_body_of_each_route_is_accepted(client: Client, account: Account, route: tuple[str, str]) -> None:
    method, path = route

    body = json.dumps(get_body(method, path))

    for media_type in (JSON, "Application/JSON;charset=UTF-8", 'application/json; charset="utf-8"'):
        assert client.generic(method, path, body, media_type).status_code in {200, 201, 202, 404, 409}
    assert client.generic(method, f"{path}?format=json", body, JSON).status_code in {200, 201, 202, 404, 409}


@pytest.mark.thorough
def test_acting_request_with_a_query_is_refused(client: Client, account: Account, route: tuple[str, str]) -> None:
    method, path = route

    for query in QUERIES:
        answer = client.generic(method, f"{path}?{query}", json.dumps(get_body(method, path)), JSON)
        assert_refusal(answer, 404 if query == "format=nonsense" else 400)
    assert_nothing_done(account)


@pytest.mark.thorough
def test_acting_request_of_another_media_type_is_refused(
    client: Client, account: Account, route: tuple[str, str]
) -> None:
    method, path = route
    # In turn: the body is not read.
    bodies = cycle([json.dumps(get_body(method, path)), "dryRun=true", '--x\r\n\r\n{"dryRun": true}\r\n--x--'])

    for media_type, body in zip(MEDIA_TYPES, bodies, strict=False):
        answer = client.generic(method, path, body, media_type, CONTENT_TYPE=media_type)
        assert_refusal(answer, 415)
    assert_nothing_done(account)


@pytest.mark.thorough
def test_acting_request_with_contradictory_headers_is_refused(
    client: Client, account: Account, route: tuple[str, str]
) -> None:
    method, path = route
    body = json.dumps(get_body(method, path))

    for headers in HEADERS:
        # This replaces the length that Django's client sends.
        meta = {name.upper().replace("-", "_"): value for name, value in headers.items()}
        meta = {name if name == "CONTENT_LENGTH" else f"HTTP_{name}": value for name, value in meta.items()}
        answer = client.generic(method, path, body, JSON, **meta)
        assert_refusal(answer, 400, 411, 415)
    assert_nothing_done(account)


@pytest.mark.thorough
def test_acting_request_without_an_object_is_refused(client: Client, account: Account, route: tuple[str, str]) -> None:
    for body in BODIES:
        assert_refusal(client.generic(*route, body, JSON), 400)
    assert_nothing_done(account)


@pytest.mark.thorough
def test_acting_request_with_an_unknown_repeated_or_invalid_field_is_refused(
    client: Client, account: Account, route: tuple[str, str]
) -> None:
    method, path = route
    proper = json.dumps(get_body(method, path)).strip("{}").encode()

    for number, field in enumerate(FIELDS):
        parts = [proper, field] if number % 2 else [field, proper]
        body = b"{" + b", ".join(filter(None, parts)) + b"}"
        assert_refusal(client.generic(method, path, body, JSON), 400)
    assert_nothing_done(account)


@pytest.mark.parametrize("ids", IDS, ids=bytes.decode)
def test_empty_selection_never_means_all(client: Client, account: Account, ids: bytes) -> None:
    for path, kind in (("/api/instances/stop-all", b""), ("/api/operations", b'"kind": "stop", ')):
        answer = client.generic("POST", path, b"{" + kind + b'"ids": ' + ids + b"}", JSON)

        assert_refused(account, answer, 400)
        assert answer.json()["fields"]["ids"] != "0"


@pytest.mark.thorough
def test_field_that_a_route_does_not_support_is_refused(
    client: Client, account: Account, route: tuple[str, str]
) -> None:
    method, path = route
    supported = {("POST", "reason"), ("PUT", "ids")}
    if path in {"/api/instances/stop-all", "/api/operations"}:
        return

    for field, value in {"dryRun": False, "ids": ["a"], "reason": "x", "webhookUrl": "https://a.test"}.items():
        if (method, field) not in supported:
            assert_refusal(client.generic(method, path, json.dumps({field: value}), JSON), 400)
    assert_nothing_done(account)


def test_repeated_key_is_named(client: Client, account: Account) -> None:
    answer = client.generic("POST", "/api/instances/stop-all", b'{"dryRun":true,"dryRun":false}', JSON)

    assert answer.json()["fields"] == {"dryRun": "Given more than once. Give each name once."}


def test_media_type_without_a_length_is_refused_with_411(client: Client, account: Account) -> None:
    answer = client.generic("POST", "/api/instances/stop-all", b"", JSON, CONTENT_TYPE=JSON)

    assert_refused(account, answer, 411)
    assert answer.json()["code"] == "LENGTH_REQUIRED"
    assert "Content-Length" in answer.json()["suggestion"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/instances",
        "/api/instances/a",
        "/api/operations",
        "/api/protections",
        "/api/overview",
        "/api/cache/stats",
        "/api",
    ],
)
def test_read_with_an_unknown_or_repeated_parameter_is_refused(client: Client, account: Account, path: str) -> None:
    for query in ("typo=1", "typo=", "format=json&format=json", "page=1&page=2", "status=a&status=b"):
        answer = client.get(f"{path}?{query}")

        assert answer.status_code == 400
        assert answer.json()["code"] == "INVALID_REQUEST"
        assert list(answer.json()["fields"]) == [query.partition("=")[0]]


def test_probe_accepts_any_query(client: Client, account: Account) -> None:
    for path in ("/health?_=1", "/livez?_=1", "/readyz?_=1"):
        assert client.get(path).status_code == 200


# --- Buttons of the admin pages


@pytest.mark.parametrize(
    ("query", "body", "content_type"),
    [
        ("?dryRun=true", "", "application/x-www-form-urlencoded"),
        ("?x", "", "application/x-www-form-urlencoded"),
        ("", "dryRun=true", "application/x-www-form-urlencoded"),
        ("", '{"dryRun": true}', JSON),
        ("", "{}", "text/plain"),
    ],
)
def test_sync_route_accepts_no_fields(
    client: Client, account: Account, query: str, body: str, content_type: str
) -> None:
    answer = client.generic("POST", f"/admin/instances/syncrun/sync/{query}", body, content_type)

    assert answer.status_code == 400
    assert account.calls == []


# --- Forms in a browser


def read_form(client: Client, path: str) -> Any:
    """Return what the form of a page sends with one press, as far as it is JSON."""
    page = client.get(path, headers=HTML).content.decode()
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
    assert found, page
    text = unescape(found[1]).strip()
    return json.loads(text) if text else None


@pytest.mark.parametrize("path", ["/api/instances/stop-all", "/api/operations"])
def test_unchanged_form_of_many_is_a_dry_run(client: Client, account: Account, path: str) -> None:
    first = read_form(client, path)
    answer = client.post(path, json.dumps(first), headers=HTML)

    assert first["dryRun"] is True
    assert answer.status_code == 200
    assert all(call == "list" or call.startswith("read ") for call in account.calls)
    # Nor does a press on the page that shows the answer.
    assert (
        json.loads(unescape(re.findall(r"<textarea[^>]*>(.*?)</textarea>", answer.content.decode(), re.S)[0])) == first
    )


def test_each_browsable_page_names_the_effect_of_its_button(client: Client, account: Account) -> None:
    for name, words in {"stop": "Stops this instance at once", "restart": "Restarts this instance at once"}.items():
        assert words in client.get(f"/api/instances/a/{name}", headers=HTML).content.decode()


# --- The command


@pytest.mark.parametrize(
    "arguments",
    [
        ["dry-run"],
        ["--dryrun"],
        ["—dry-run"],
        ["–-dry-run"],
        ["-n"],
        ["--dry-run=yes"],
        ["--", "--dry-run"],
        ["--ids", "a"],
        ["a"],
        [""],
        ["--yes=no"],
        ["--nonsense"],
        ["--timeout"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--timeout", "inf"],
        ["--timeout", "-5"],
        ["--timeout", "soon"],
        ["--timeout", "86401"],
        ["--reason"],
        ["--reason", "--dry-run"],
    ],
    ids=" ".join,
)
def test_command_refuses_wrong_arguments(
    arguments: list[str], novita: NovitaAnswers, capsys: pytest.CaptureFixture[str]
) -> None:
    account = novita.holds(make_row("a"))

    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "stop_all", "--yes", *arguments])

    assert ended.value.code == 2
    assert account.calls == []
    assert "usage: " in capsys.readouterr().err
