"""Access: from this machine as the local owner; from anywhere else only with a login."""

import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib.admindocs.views import extract_views_from_urlpatterns, simplify_regex
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client
from django.urls import get_resolver, reverse
from pytest_django import Settings

from instances.access.audit import LOCAL_OWNER
from instances.inventory.sync import synchronize
from novita_site.settings import CSRF_COOKIE_NAME, SESSION_COOKIE_NAME
from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

RUNS = "/admin/instances/syncrun/"


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))
    synchronize("command")


@pytest.fixture
def login_wanted(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True


def wants_login(answer: Any) -> bool:
    """Return whether an answer is the API's 401 or a redirect to the login page."""
    if answer.status_code == 401:
        return answer.request["REQUEST_METHOD"] == "HEAD" or answer.json()["code"] == "NOT_AUTHENTICATED"
    return answer.status_code == 302 and answer["Location"].startswith("/login/?next=")


# --- On this machine


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("path", "address"),
    [
        *((path, "127.0.0.1") for path in ("/", "/admin/", RUNS, "/api/", "/api/docs", "/api/schema", "/health")),
        *(("/api/instances", address) for address in ("127.0.0.1", "127.0.0.2", "::1")),
    ],
)
def test_local_owner_needs_no_login(client: Client, path: str, address: str) -> None:
    assert client.get(path, REMOTE_ADDR=address).status_code == 200


def test_local_script_acts_without_a_token(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))

    answer = ApiClient(enforce_csrf_checks=True).post("/api/instances/sync")

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"X-CSRFToken": "a" * 32}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://testserver"}, 200),
    ],
)
def test_local_cookie_needs_csrf_token_unless_browser_sends_its_origin(headers: dict[str, str], status: int) -> None:
    client = ApiClient(enforce_csrf_checks=True)
    client.cookies[SESSION_COOKIE_NAME] = "of-an-earlier-login"

    answer = client.post("/api/cache/clear", headers=headers)

    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == "CSRF_FAILED"
    assert client.get("/api/instances").status_code == 200


def test_local_page_acts_only_with_its_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)

    assert client.post(f"{RUNS}sync/").status_code == 403


def test_owner_account_is_created_once_and_can_not_log_in(client: Client, settings: Settings) -> None:
    for path in ("/api/instances", "/admin/", "/api/instances"):
        client.get(path)

    owner = User.objects.get()
    assert owner.username == LOCAL_OWNER
    assert owner.is_superuser is True
    assert owner.is_staff is True
    assert not owner.has_usable_password()
    settings.REQUIRE_LOGIN = True
    for password in ("", "!", owner.password, LOCAL_OWNER, "None"):
        answer = Client(REMOTE_ADDR="192.0.2.7").post("/login/", {"username": LOCAL_OWNER, "password": password})
        assert answer.status_code in {200, 429}, "the form again, or the lock"
    assert wants_login(client.get("/admin/"))


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("path", ["/api/instances", "/api/instances?search=a", "/api/instances/a"])
def test_inventory_is_readable_without_the_database(client: Client, path: str) -> None:
    with connection.execute_wrapper(Mock(side_effect=OperationalError("disk full"))):
        answer = client.get(path)

    assert answer.status_code == 200
    assert b'"id":"a"' in answer.content


# --- From anywhere else


@pytest.mark.parametrize("path", ["/", "/api/instances", "/admin/"])
@pytest.mark.parametrize("address", ["192.0.2.7", "10.0.0.1", "fe80::1", "", "unknown", "127.0.0.1.evil.test"])
def test_other_machines_must_log_in(client: Client, path: str, address: str) -> None:
    assert wants_login(client.get(path, REMOTE_ADDR=address))


@pytest.mark.parametrize("path", ["/api/instances", "/admin/"])
@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "Via",
        "X-Real-IP",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X-Forwarded-Anything",
        "X-Forwarded",
        "X-REAL-ip",
        "vIa",
        "x-FORWARDED-for",
        "forwarded",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_visitors_through_a_proxy_must_log_in(client: Client, path: str, header: str, value: str) -> None:
    assert wants_login(client.get(path, headers={header: value}))


@pytest.mark.usefixtures("account")
def test_other_machines_can_do_nothing(client: Client, novita: NovitaAnswers) -> None:
    paths = ["/api/instances/a/stop", "/api/instances/sync", "/api/cache/clear", f"{RUNS}sync/"]

    assert all(wants_login(client.post(path, REMOTE_ADDR="192.0.2.7")) for path in paths)
    assert len(novita.mock.calls) == 1, "Novita was asked"
    assert client.get("/api/instances").json()["total"] == 1


@pytest.mark.parametrize("host", ["evil.test", "evil.test:3000", "127.0.0.1.evil.test", "localhost.evil.test", "", "["])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/", "/api/instances", "/api/cache/clear", "/admin/", "/login/", "/health"])
def test_foreign_name_that_resolves_to_this_machine_gives_no_access(
    client: Client, path: str, method: str, host: str
) -> None:
    answer = client.generic(method, path, headers={"Host": host, "Origin": f"http://{host}"})

    assert answer.status_code in {400, 403}
    assert answer.json()["code"] in {"INVALID_REQUEST", "CROSS_SITE"}


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("path", ["/api/cache/clear", "/api/instances/stop-all", "/api/instances/a/stop", "/"])
def test_websocket_does_nothing(client: Client, novita: NovitaAnswers, path: str) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Origin": "http://evil.test",
    }

    answer = client.get(path, headers=headers)

    assert wants_login(answer), "another host's page opened it"
    assert len(novita.mock.calls) == 1, "Novita was asked"
    assert client.get("/api/instances").json()["total"] == 1


# --- With a required login


def list_paths() -> Iterator[str]:
    """Yield an address of every route."""
    for _, regex, _, _ in extract_views_from_urlpatterns(get_resolver().url_patterns):
        yield re.sub(r"<[^>]*>", "1", simplify_regex(regex)).replace("\\", "")


# /metrics has a token of its own. A link of a warning is the permission itself: its page checks the signature.
OPEN = {"/livez/", "/readyz/", "/health/", "/metrics/", "/login/", "/logout/", "/admin/login/", "/snooze/1/"}


def test_route_walk_finds_all_routes() -> None:
    assert set(list_paths()) >= OPEN
    assert {"/", "/api/instances/", "/api/instances/1/stop/", RUNS, f"{RUNS}sync/"} <= set(list_paths())


@pytest.mark.thorough
@pytest.mark.usefixtures("login_wanted")
@pytest.mark.parametrize("path", sorted(set(list_paths()) - OPEN))
def test_every_route_requires_login_for_every_method(client: Client, path: str) -> None:
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

    assert [method for method in methods if not wants_login(client.generic(method, path))] == []
    assert not User.objects.exists(), "no owner is made where a login is wanted"


@pytest.mark.usefixtures("login_wanted")
@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 503)])
def test_probes_need_no_login(client: Client, path: str, status: int) -> None:
    assert client.get(path, REMOTE_ADDR="192.0.2.7").status_code == status


@pytest.mark.usefixtures("login_wanted")
@pytest.mark.parametrize("path", ["/", "/api/", "/api/instances", "/api/docs", "/admin/", RUNS])
def test_browser_is_redirected_to_the_login_page_and_back(path: str) -> None:
    client = Client()
    User.objects.create_superuser("ann", password="correct horse")

    login = client.get(path, headers={"accept": "text/html"})["Location"]
    back = client.post(login, {"username": "ann", "password": "correct horse", "next": path})

    assert back.status_code == 302
    assert back["Location"] == path


@pytest.mark.usefixtures("login_wanted")
def test_login_page_has_its_style_sheet(client: Client) -> None:
    page = client.get("/login/").content.decode()

    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(files) > 1
    for file in files:
        answer = client.get(file)
        assert answer.status_code == 200
        answer.close()


@pytest.mark.usefixtures("login_wanted")
def test_login_gives_access_to_the_api() -> None:
    client = ApiClient()
    client.force_login(User.objects.create_superuser("ann"))

    assert client.get("/api/instances").status_code == 200
    assert client.post("/api/cache/clear").status_code == 200


@pytest.mark.usefixtures("login_wanted")
@pytest.mark.parametrize("path", ["/api/cache/clear", f"{RUNS}sync/"])
def test_login_acts_only_with_a_csrf_token(path: str, novita: NovitaAnswers) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("ann"))
    token = _get_token(client)
    if path.startswith("/admin"):
        novita.lists(make_row("a"))

    without = client.post(path, "", "application/json")
    wrong = client.post(path, "", "application/json", headers={"x-csrftoken": "a" * 32})
    right = client.post(path, "", "application/json", headers={"x-csrftoken": token})

    assert [without.status_code, wrong.status_code] == [403, 403]
    assert right.status_code in {200, 302}


@pytest.mark.usefixtures("login_wanted")
def test_ended_login_gives_no_access() -> None:
    client = Client()
    user = User.objects.create_superuser("ann")
    client.force_login(user)
    assert client.get("/api/instances").status_code == 200

    User.objects.update(is_active=False)

    assert wants_login(client.get("/api/instances"))


@pytest.mark.usefixtures("login_wanted")
@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.7"])
def test_strangers_see_no_health_details(client: Client, address: str) -> None:
    answer = client.get("/health", REMOTE_ADDR=address)

    assert answer.json().keys() == {"status", "timestamp"}


def _get_token(client: Client) -> str:
    client.get(reverse("admin:instances_syncrun_changelist"))
    return client.cookies[CSRF_COOKIE_NAME].value
