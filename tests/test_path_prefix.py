"""The panel under a path of a host that it shares."""

import re
from collections.abc import Iterable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import set_script_prefix
from pytest_django import Settings

from novita_site import wsgi
from novita_site.env import Env, InvalidSettings
from tests.novita_answers import NovitaAnswers, make_row
from tests.raw_requests import Answer, Server, write

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def prefix(settings: Settings) -> Iterable[None]:
    settings.PATH_PREFIX = settings.FORCE_SCRIPT_NAME = "/panel"
    settings.SESSION_COOKIE_PATH = settings.CSRF_COOKIE_PATH = "/panel"
    # Django sets it for each request to a server, but not for one of its test client.
    set_script_prefix("/panel/")
    yield
    set_script_prefix("/")


def get(path: str, **headers: str) -> Answer:
    return Server(wsgi._take_prefix_off).send(write(path, list(headers.items())))


@pytest.mark.parametrize("path", ["/panel/livez", "/panel/readyz", "/livez", "/readyz"])
def test_probes_answer_with_and_without_the_prefix(path: str) -> None:
    assert b'"status"' in get(path).body


@pytest.mark.parametrize("path", ["/panel", "/panel/", "/panel/?page=1", "/"])
def test_dashboard_answers_to_a_proxy_that_keeps_the_prefix_and_to_one_that_removes_it(path: str) -> None:
    assert b"GPU instances" in get(path, Accept="text/html").body


def test_a_path_that_only_begins_like_the_prefix_is_another_one() -> None:
    assert "404" in get("/panels/livez").line


def test_every_address_on_the_dashboard_begins_with_the_prefix(settings: Settings) -> None:
    settings.STATIC_URL = "/panel/static/"

    page = get("/panel/", Accept="text/html").body.decode()

    addresses = re.findall(r'(?:href|src|action|data-fragment)="(/[^"]*)"', page)
    assert addresses
    assert [one for one in addresses if not one.startswith("/panel/")] == []


@pytest.mark.django_db(transaction=True)
def test_an_operation_names_its_address_with_the_prefix(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"))

    answer = client.post("/api/instances/stop-all", {"ids": ["a"]}, content_type="application/json").json()

    assert answer["operationUrl"].startswith("/panel/api/operations/")


def test_a_login_stays_below_the_prefix(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    User.objects.create_superuser("ann", password="FAKE-SECRET")
    client = Client()

    sent_away = client.get("/costs/", headers={"Accept": "text/html"})
    logged_in = client.post("/login/", {"username": "ann", "password": "FAKE-SECRET"})

    assert sent_away["Location"] == "/panel/login/?next=/panel/costs/"
    assert logged_in["Location"] == "/panel/"
    assert {cookie["path"] for cookie in logged_in.cookies.values()} == {"/panel"}


def test_errors_of_the_api_stay_json(client: Client) -> None:
    assert client.get("/health/nope", headers={"Accept": "text/html"})["Content-Type"] == "application/json"


@pytest.mark.parametrize("given", ["/panel", "/panel/"])
def test_a_slash_at_the_end_is_accepted(given: str) -> None:
    assert Env({"PATH_PREFIX": given}).path_prefix("PATH_PREFIX") == "/panel"


@pytest.mark.parametrize("given", ["panel", "//panel", "/panel?x", "/pa nel", "/../panel", "https://host.test/panel"])
def test_what_is_no_path_is_refused_with_an_example(given: str) -> None:
    env = Env({"PATH_PREFIX": given})
    env.path_prefix("PATH_PREFIX")

    with pytest.raises(InvalidSettings, match=r"PATH_PREFIX: .* is not a path\. Use the path alone: /panel"):
        env.check()
