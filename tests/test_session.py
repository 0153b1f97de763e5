"""A page that is older than the login: the service gives it a new token, and refuses an old token in plain words."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

pytestmark = pytest.mark.django_db(transaction=True)
RUNS = "/admin/instances/syncrun/"


@pytest.fixture
def client(settings: Settings) -> Client:
    """A browser in which ann is logged in."""
    settings.REQUIRE_LOGIN = True
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("ann"))
    return client


def get_token(client: Client) -> str:
    token: str = client.get("/api/session").json()["csrfToken"]
    return token


def test_session_names_the_user_and_is_never_cached(client: Client) -> None:
    answer = client.get("/api/session")

    assert {**answer.json(), "csrfToken": ""} == {"user": "ann", "role": "admin", "csrfToken": ""}
    assert answer["Cache-Control"] == "private, no-store"


def test_token_of_the_session_is_accepted(client: Client) -> None:
    answer = client.post("/api/cache/clear", {}, "application/json", headers={"X-CSRFToken": get_token(client)})

    assert answer.status_code == 200


def test_session_requires_a_login(client: Client) -> None:
    client.logout()

    answer = client.get("/api/session")

    assert answer.status_code == 401
    assert answer.json()["code"] == "NOT_AUTHENTICATED"


def test_local_owner_has_a_session(client: Client, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = False

    assert client.get("/api/session").json()["user"] == "local-owner"


@pytest.mark.parametrize("token", ["", "a" * 32])
@pytest.mark.parametrize("path", ["/api/instances/sync", "/api/instances/stop-all", "/api/operations"])
def test_refused_request_is_explained_without_jargon(client: Client, path: str, token: str) -> None:
    answer = client.post(path, {}, "application/json", headers={"X-CSRFToken": token} if token else {})

    body = answer.json()
    assert answer.status_code == 403
    assert body["code"] == "CSRF_FAILED"
    assert "nothing was done" in body["message"]
    assert "Reload the page" in body["suggestion"]
    assert "CSRF" not in body["message"] + body["suggestion"]


def test_refused_form_links_to_its_page(client: Client) -> None:
    answer = client.post(f"{RUNS}sync/", headers={"Referer": f"http://testserver{RUNS}?p=1"})

    page = answer.content.decode()
    assert answer.status_code == 403
    assert f'<a href="{RUNS}?p=1"' in page
    assert "CSRF" not in page


@pytest.mark.parametrize("referrer", ["", "https://evil.example/login", "javascript:alert(1)", "//evil.example/"])
def test_form_of_an_unknown_page_gets_no_link_back(client: Client, referrer: str) -> None:
    page = client.post(f"{RUNS}sync/", headers={"Referer": referrer}).content.decode()

    assert "Go back" not in page
    assert "Open the page again" in page


def test_link_back_never_leads_to_another_site(client: Client) -> None:
    answer = client.post(f"{RUNS}sync/", headers={"Referer": "http://testserver//evil.example/"})

    assert '<a href="/evil.example/"' in answer.content.decode()
