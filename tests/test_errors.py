"""Whatever fails for a script answers in one shape, with a status and a code of its own, and tells no internals."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from django_redis import get_redis_connection
from fakeredis import FakeServer
from pytest_django import Settings

from instances.errors import NovitaError, NovitaTimeout, NovitaUnavailable
from instances.inventory import lease
from instances.outgoing import deadline
from tests.conftest import ApiClient
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_refusal, make_row
from tests.redis_keys import name_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_pauses")]

Json = dict[str, Any]


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    """A copy of a running instance "a" and a stopped one "b"."""
    novita.lists(make_row("a"), make_row("b", status="exited"))
    fill_inventory()


def assert_error(answer: Any, status: int, code: str) -> None:
    """Hold an answer against the one shape of all errors."""
    body: Json = answer.json()
    assert answer.status_code == status
    assert body["code"] == code
    names = {"success", "code", "message", "suggestion", "requestId", "timestamp"}
    assert body.keys() == (names | {"fields"} if code == "INVALID_REQUEST" else names)
    assert body["success"] is False
    assert re.fullmatch(r"\S.*\.", body["message"])
    assert body["suggestion"] is None or re.fullmatch(r"[A-Z].*[.…]", body["suggestion"])
    assert body["requestId"] == answer["X-Request-Id"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(body["timestamp"])).total_seconds() < 60
    assert body["timestamp"].endswith("Z")


# --- The caller's errors


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("GET", "/api/instances?page=0", {}, b"", 400, "INVALID_REQUEST"),
        ("POST", "/api/cache/clear", {}, b"{", 400, "INVALID_REQUEST"),
        ("POST", "/api/cache/clear", {}, b'{"x": 1}', 400, "INVALID_REQUEST"),
        ("GET", "/api/instances", {"Host": "evil.test"}, b"", 400, "INVALID_REQUEST"),
        ("GET", "/health", {"Host": "evil.test"}, b"", 400, "INVALID_REQUEST"),
        ("POST", "/api/cache/clear", {"Host": "evil.test", "Origin": "http://evil.test"}, b"", 400, "INVALID_REQUEST"),
        ("GET", "/api/instances", {"X-Forwarded-For": "192.0.2.7"}, b"", 401, "NOT_AUTHENTICATED"),
        ("POST", "/api/instances/a/stop", {"X-Forwarded-For": "192.0.2.7"}, b"", 401, "NOT_AUTHENTICATED"),
        ("GET", "/api/schema", {"X-Forwarded-For": "192.0.2.7"}, b"", 401, "NOT_AUTHENTICATED"),
        ("GET", "/api/nope", {"X-Forwarded-For": "192.0.2.7"}, b"", 401, "NOT_AUTHENTICATED"),
        ("POST", "/api/cache/clear", {"Sec-Fetch-Site": "cross-site"}, b"", 403, "CROSS_SITE"),
        ("POST", "/api/nope", {"Origin": "http://evil.test"}, b"", 403, "CROSS_SITE"),
        ("GET", "/api/nope", {}, b"", 404, "NOT_FOUND"),
        ("POST", "/api/nope", {}, b"", 404, "NOT_FOUND"),
        ("GET", "/healthy", {}, b"", 404, "NOT_FOUND"),
        ("GET", "/api/instances/nope", {}, b"", 404, "INSTANCE_NOT_FOUND"),
        ("PUT", "/api/instances", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/api/instances/a", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/instances/a/stop", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/cache/stats", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/health", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/docs", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/schema", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("BREW", "/api/instances", {}, b"", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/instances", {"Accept": "image/png"}, b"", 406, "NOT_ACCEPTABLE"),
        ("GET", "/api/schema", {"Accept": "text/html"}, b"", 406, "NOT_ACCEPTABLE"),
        ("POST", "/api/cache/clear", {}, b"{}".ljust(70_000), 413, "BODY_TOO_LARGE"),
        ("POST", "/api/instances/a/stop", {}, b" " * 20_000_000, 413, "BODY_TOO_LARGE"),
        ("POST", "/api/cache/clear", {"Content-Type": "text/plain"}, b"{}", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
def test_each_error_of_a_caller_has_its_code(
    client: Client, method: str, path: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    content_type = headers.get("Content-Type", "application/json")

    answer = client.generic(method, path, body, content_type, headers=headers)

    assert_error(answer, status, code)


@pytest.mark.parametrize(
    "path",
    [
        "/api//",
        "/api//instances",
        "/api/instances//",
        "/api/instances/a/b",
        "/api/instances/a/delete",
        "/api/../admin/",
        "/api/%2e%2e/%2e%2e/etc/passwd",
        "/api/instances/..%2f..%2fetc",
        "/api/%00",
        "/api/%0d%0aX-Evil:%201",
        "/api/%ff%fe",
        "/api/" + "a" * 10_000,
        "/api/" + "%2F" * 3_000,
    ],
    ids=lambda path: str(path[:30]),
)
def test_unknown_path_is_not_found(client: Client, path: str) -> None:
    answer = client.get(path)

    assert_error(answer, 404, "NOT_FOUND")
    assert "X-Evil" not in answer


STRANGE_IDS = ["%00", "a%00", "%0d%0aX-Evil:%201", "%1b%5b2J", "a" * 10_000, "%F0%9F%92%A9" * 500]


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("id_", [*STRANGE_IDS, "..", "%2e%2e", "%ff", "*", "{novita}"], ids=lambda id_: str(id_[:20]))
def test_unusual_id_is_not_found(client: Client, id_: str) -> None:
    answer = client.get(f"/api/instances/{id_}")

    assert_error(answer, 404, "INSTANCE_NOT_FOUND")
    assert "X-Evil" not in answer


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("action", ["start", "stop", "restart"])
@pytest.mark.parametrize("id_", STRANGE_IDS, ids=lambda id_: str(id_[:20]))
def test_action_on_an_invalid_id_sends_no_request(client: Client, novita: NovitaAnswers, id_: str, action: str) -> None:
    answer = client.post(f"/api/instances/{id_}/{action}")

    assert_error(answer, 404, "INSTANCE_NOT_FOUND")
    assert len(novita.mock.calls) == 1, "more than the listing"


def test_missing_csrf_token_is_refused(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_user("ann"))

    assert_error(client.post("/api/cache/clear"), 403, "CSRF_FAILED")


def test_each_request_has_its_own_id(client: Client) -> None:
    ids = {client.get("/api/nope").json()["requestId"] for _ in range(5)}

    assert len(ids) == 5


# --- Novita's errors


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        ({"status": 401, "json": make_refusal(401, "INVALID_API_KEY", "no")}, 502, "NOVITA_REJECTED_KEY"),
        ({"status": 403, "json": None, "body": "error 1010"}, 502, "NOVITA_REJECTED_KEY"),
        ({"status": 500, "json": make_refusal(500, "UNKNOWN", "FAKE-SECRET")}, 502, "NOVITA_UNAVAILABLE"),
        ({"json": None, "body": requests.ConnectionError("FAKE-SECRET")}, 502, "NOVITA_UNAVAILABLE"),
        ({"json": None, "body": "<html>FAKE-SECRET</html>"}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": [{"id": "FAKE-SECRET"}]}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": {"instances": ["FAKE-SECRET"]}}, 502, "NOVITA_BAD_ANSWER"),
        ({"status": 302, "headers": {"Location": "https://evil.test/"}}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": None, "body": requests.ReadTimeout("FAKE-SECRET")}, 504, "NOVITA_TIMEOUT"),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, 503, "NOVITA_RATE_LIMITED"),
    ],
)
def test_each_failure_of_novita_has_its_code(
    client: Client, novita: NovitaAnswers, failure: Json, status: int, code: str
) -> None:
    novita.lists(**failure)

    answer = client.post("/api/instances/sync")

    assert_error(answer, status, code)
    assert b"FAKE-SECRET" not in answer.content


def test_rate_limit_is_passed_on_with_its_time(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(status=429, headers={"Retry-After": "3600"})

    assert client.post("/api/instances/sync")["Retry-After"] == "3600"


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (make_refusal(400, "INSUFFICIENT_RESOURCE", "no gpu"), "INSUFFICIENT_RESOURCE"),
        (make_refusal(400, "BALANCE", "not enough balance"), "NOVITA_REFUSED"),
    ],
)
def test_each_refusal_of_novita_has_its_code(client: Client, novita: NovitaAnswers, refusal: Json, code: str) -> None:
    novita.takes("start", "b", status=400, json=refusal)

    assert_error(client.post("/api/instances/b/start"), 409, code)


@pytest.mark.usefixtures("account")
def test_impossible_action_is_an_invalid_state(client: Client, novita: NovitaAnswers) -> None:
    novita.shows(make_row("b", status="exited"))

    assert_error(client.post("/api/instances/b/restart"), 409, "INVALID_STATE")


def test_action_on_an_instance_missing_at_novita_is_not_found(client: Client, novita: NovitaAnswers) -> None:
    novita.lacks("x")

    assert_error(client.post("/api/instances/x/stop"), 404, "INSTANCE_NOT_FOUND")


# --- Our own


def test_second_sync_gets_a_retry_after(client: Client) -> None:
    with lease.acquire("command"):
        answer = client.post("/api/instances/sync")

    assert_error(answer, 409, "SYNC_IN_PROGRESS")
    assert 1 <= int(answer["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda: get_redis_connection("default").delete(name_of("lease")), "SYNC_LOST_LOCK"),
        (deadline.cancel_running, "SHUTTING_DOWN"),
    ],
)
def test_aborted_sync_has_its_code(client: Client, novita: NovitaAnswers, act: Callable[[], object], code: str) -> None:
    novita.lists_during(act, make_row("a"))

    assert_error(client.post("/api/instances/sync"), 503, code)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/instances"),
        ("GET", "/api/instances?search=a"),
        ("GET", "/api/instances/a"),
        ("GET", "/api/cache/stats"),
        ("POST", "/api/instances/sync"),
        ("POST", "/api/cache/clear"),
    ],
)
def test_each_address_names_the_missing_redis(
    client: ApiClient, redis_server: FakeServer, method: str, path: str
) -> None:
    redis_server.connected = False

    assert_error(client.generic(method, path), 503, "CACHE_UNAVAILABLE")


def test_login_without_a_database_says_so(client: Client, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    client.force_login(User.objects.create_user("ann"))

    with connection.execute_wrapper(Mock(side_effect=OperationalError("FAKE-SECRET"))):
        answer = client.get("/api/instances")

    assert_error(answer, 503, "DATABASE_UNAVAILABLE")
    assert b"FAKE-SECRET" not in answer.content


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("path", ["/api", "/api/instances", "/api/nope", "/api/docs", "/health"])
def test_internal_error_shows_no_details(path: str, accept: str) -> None:
    client = ApiClient(raise_request_exception=False)

    with connection.execute_wrapper(Mock(side_effect=Exception("FAKE-SECRET"))):
        answer = client.get(path, headers={"accept": accept})

    assert_error(answer, 500, "INTERNAL_ERROR")
    assert not re.search(rb"FAKE-SECRET|Traceback|Exception|\.py", answer.content)


@pytest.mark.parametrize("error", [NovitaUnavailable, NovitaTimeout])
def test_suggestion_promises_no_listing_that_may_not_exist(error: type[NovitaError]) -> None:
    assert error.suggestion == "Try again in a minute. The last complete listing stays visible."
