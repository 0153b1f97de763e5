"""What holds for every request: none from another site's page, and one id in its answer and on each line of its log."""

import io
import logging
import re
from unittest.mock import Mock

import pytest
from django.db import OperationalError, connection
from django.test import Client
from pytest_django import Settings

from instances.models import SyncRun
from tests.conftest import ApiClient
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

BUTTON = "/admin/instances/syncrun/sync/"
ACTS = ["/api/instances/a/stop", "/api/instances/sync", "/api/cache/clear", BUTTON, "/api/nope", "/livez"]


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))
    fill_inventory()


@pytest.fixture
def known_owner(client: Client) -> None:
    """The local owner is made, which is a line of the log."""
    client.get("/api/instances")


# --- Requests of other sites

FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "Cross-Site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver:8000"},
    {"Origin": "http://evil.test"},
    {"Origin": "https://testserver.evil.test"},
    {"Origin": "http://testserver@evil.test"},
    {"Origin": "http://testserver:8000"},
    {"Origin": "http://localhost"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "testserver"},
    {"Origin": "http://["},
    {"Origin": "http://evil.test http://testserver"},
]
OURS = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"},
    {"Sec-Fetch-Site": "none", "Origin": "null"},
    {"Origin": "http://testserver"},
    {"Origin": "https://testserver"},
    {"Origin": "HTTP://TESTSERVER"},
]


@pytest.mark.thorough
@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_can_do_nothing(client: Client, novita: NovitaAnswers, headers: dict[str, str]) -> None:
    for path in ACTS:
        answer = client.post(path, headers=headers)

        assert answer.status_code == 403, path
        assert answer.json()["code"] == "CROSS_SITE", path
        assert len(novita.mock.calls) == 1, f"Novita was asked by {path}"
        assert not SyncRun.objects.exists(), path
        assert client.get("/api/instances").json()["total"] == 1, path


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
@pytest.mark.parametrize("body", [b"", b"a=1"])
def test_a_form_of_another_site_is_refused_as_such(client: Client, content_type: str, body: bytes) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}

    answer = client.generic("POST", ACTS[0], body, content_type, headers=headers, CONTENT_TYPE=content_type)

    assert answer.json()["code"] == "CROSS_SITE"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
def test_another_site_is_refused_whatever_the_method(client: Client, method: str) -> None:
    answer = client.generic(method, "/api/instances", headers={"Origin": "http://evil.test"})

    assert answer.json()["code"] == "CROSS_SITE"


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("headers", OURS, ids=str)
def test_our_own_pages_and_scripts_act(client: Client, headers: dict[str, str]) -> None:
    assert client.post("/api/cache/clear", headers=headers).json()["cleared"] == 1


@pytest.mark.usefixtures("account")
def test_our_own_admin_page_acts() -> None:
    client = Client(enforce_csrf_checks=True)
    page = client.get("/admin/instances/syncrun/").content.decode()
    (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[:1]

    answer = client.post(BUTTON, {"csrfmiddlewaretoken": token}, headers={"Sec-Fetch-Site": "same-origin"})

    assert answer.status_code == 302
    assert SyncRun.objects.filter(trigger="admin").count() == 1


# A browser sends no Origin with a link. One that names another host came through a proxy: see test_local_owner.py.
LINKS = [headers for headers in FOREIGN if headers.get("Origin", "http://testserver").startswith("http://testserver:")]
LINKS += [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}, {"Origin": ""}]


@pytest.mark.parametrize("headers", LINKS, ids=str)
def test_a_link_from_another_site_opens(client: Client, headers: dict[str, str]) -> None:
    methods = ["GET", "HEAD", "OPTIONS"]

    answers = [client.generic(method, "/api/instances", headers=headers) for method in methods]

    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_another_port_of_ours_is_another_site(client: Client, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    headers = {"Host": "localhost:3000"}

    other = client.post("/api/cache/clear", headers={**headers, "Origin": "http://localhost:8080"})
    ours = client.post("/api/cache/clear", headers={**headers, "Origin": "http://localhost:3000"})

    assert other.status_code == 403
    assert ours.status_code == 200


@pytest.mark.parametrize("path", ["/api/instances", "/api/nope", "/admin/", "/nope", "/livez", "/", "/health"])
def test_no_other_site_is_allowed_to_read(client: Client, path: str) -> None:
    answer = client.get(path, headers={"Origin": "http://evil.test"})

    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer["X-Frame-Options"] == "DENY"


# --- The id of a request, and the log


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/instances", 200), ("/livez", 200), ("/admin/", 200), ("/", 200), ("/nope", 404), ("/api/nope", 404)],
)
def test_each_answer_has_an_id(client: Client, path: str, status: int) -> None:
    answers = [client.get(path) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [status, status]
    assert all(re.fullmatch("[0-9a-f]{16}", answer["X-Request-Id"]) for answer in answers)
    assert answers[0]["X-Request-Id"] != answers[1]["X-Request-Id"]


@pytest.mark.parametrize("headers", [{"Host": "evil.test"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_refusal_has_an_id_too(client: Client, headers: dict[str, str]) -> None:
    answer = client.post("/api/cache/clear", headers=headers)

    assert answer["X-Request-Id"] == answer.json()["requestId"]


def test_a_bug_has_its_id_in_the_log(log_stream: io.StringIO) -> None:
    client = ApiClient(raise_request_exception=False)

    with connection.execute_wrapper(Mock(side_effect=RuntimeError("a bug"))):
        answer = client.get("/api/instances")

    assert f"[{answer['X-Request-Id']}] Internal Server Error" in log_stream.getvalue()
    assert "RuntimeError: a bug" in log_stream.getvalue()


def test_the_caller_cant_choose_the_id(client: Client) -> None:
    assert client.get("/livez", headers={"X-Request-Id": "mine"})["X-Request-Id"] != "mine"


def test_each_line_of_a_request_carries_its_id(client: Client, novita: NovitaAnswers, log_stream: io.StringIO) -> None:
    novita.lists(make_row("a"))
    novita.takes("stop", "a")

    ids = [client.post(path)["X-Request-Id"] for path in ("/api/instances/sync", "/api/instances/a/stop")]

    lines = log_stream.getvalue().splitlines()
    assert [line for line in lines if "sync done" in line and f"[{ids[0]}]" in line]
    assert [line for line in lines if "action stop" in line and f"[{ids[1]}]" in line]
    assert not [line for line in lines if not any(f"[{id_}]" in line for id_ in ids)]


def test_a_line_outside_of_a_request_says_so(client: Client, log_stream: io.StringIO) -> None:
    client.get("/livez")

    logging.getLogger("instances").info("by itself")

    assert log_stream.getvalue().endswith(" INFO instances [-] by itself\n")


HOSTILE = ["a%0aCRITICAL forged", "a%0d%0ab", "a%1b[2Jb", "a%00b", "a%c2%85b", "a%e2%80%a8b", "a%e2%80%aeb"]


@pytest.mark.usefixtures("known_owner")
@pytest.mark.parametrize("id_", HOSTILE)
def test_a_hostile_id_stays_in_its_line(client: Client, log_stream: io.StringIO, id_: str) -> None:
    client.post(f"/api/instances/{id_}/stop")

    (line,) = log_stream.getvalue().splitlines()
    assert line.isprintable()
    assert "action stop id='a\\" in line


def test_a_hostile_error_stays_in_its_line(client: Client, log_stream: io.StringIO) -> None:
    with connection.execute_wrapper(Mock(side_effect=OperationalError("no\x1b[2J\nCRITICAL forged"))):
        client.get("/api/instances")

    (line,) = log_stream.getvalue().splitlines()
    assert line.isprintable()
    assert line.endswith("database is unavailable: no\\x1b[2J")


@pytest.mark.usefixtures("known_owner")
def test_a_refused_request_is_not_in_the_log(client: Client, log_stream: io.StringIO) -> None:
    for path in ("/api/nope", "/nope", "/api/instances?page=0"):
        client.get(path)

    assert log_stream.getvalue() == ""
