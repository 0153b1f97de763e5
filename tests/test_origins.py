"""Requests from own and foreign pages, behind proxies that change the compared headers."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from novita_site.settings import CSRF_COOKIE_NAME
from tests.conftest import ApiClient

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"
HOST = "panel.example.com"
OVER_TLS = {"X-Forwarded-Proto": "https"}

# The address in the browser, and the Host header that the proxy sends.
OURS = [
    ("https://panel.example.com", "panel.example.com"),
    ("https://panel.example.com", "panel.example.com:443"),
    ("https://panel.example.com:8443", "panel.example.com"),
    ("https://panel.example.com:8443", "panel.example.com:8443"),
    ("https://PANEL.example.com:8443", "panel.example.com"),
]
ANOTHERS = [
    ("https://evil.test", "panel.example.com"),
    ("https://evil.test:8443", "panel.example.com"),
    ("https://panel.example.com.evil.test", "panel.example.com"),
    ("https://other.example.com:8443", "panel.example.com"),
    ("https://panel.example.com:8443", "panel.example.com:9443"),
    ("https://panel.example.com:8443", "panel.example.com:443"),
    ("https://panel.example.com@evil.test", "panel.example.com"),
    ("https://evil.test@panel.example.com:8443", "panel.example.com"),
    ("https://panel.example.com:8443/path", "panel.example.com"),
    ("https://panel.example.com:port", "panel.example.com"),
    ("ftp://panel.example.com", "panel.example.com"),
    ("http://panel.example.com:8443", "panel.example.com"),
]


@pytest.fixture(autouse=True)
def behind_tls(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    settings.ALLOWED_HOSTS = [HOST, "other.example.com"]
    settings.CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in settings.ALLOWED_HOSTS]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    User.objects.create_superuser("ann", password=PASSWORD)


def log_in(host: str, headers: dict[str, str], is_over_tls: bool = True) -> tuple[Client, Any]:
    """Open the login page and submit its form, as a browser would."""
    client = Client(enforce_csrf_checks=True, headers={"Host": host, **(OVER_TLS if is_over_tls else {})})
    page = client.get("/login/").content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token
    form = {"username": "ann", "password": PASSWORD, "csrfmiddlewaretoken": token[1]}
    return client, client.post("/login/", form, headers=headers)


def act(client: Client, headers: dict[str, str]) -> Any:
    token = client.cookies[CSRF_COOKIE_NAME].value
    return client.post("/api/cache/clear", "", "application/json", headers={**headers, "X-CSRFToken": token})


@pytest.mark.parametrize("says_site", [True, False])
@pytest.mark.parametrize(("origin", "host"), OURS)
def test_own_page_logs_in_and_acts_with_any_port_the_proxy_dropped(origin: str, host: str, says_site: bool) -> None:
    headers = {"Origin": origin, **({"Sec-Fetch-Site": "same-origin"} if says_site else {})}

    client, answer = log_in(host, headers)

    assert answer.status_code == 302, answer.content
    assert act(client, headers).status_code == 200


@pytest.mark.parametrize(("origin", "host"), OURS)
def test_browser_that_sends_only_a_referer_logs_in(origin: str, host: str) -> None:
    _, answer = log_in(host, {"Referer": f"{origin}/login/"})

    assert answer.status_code == 302


@pytest.mark.parametrize("origin", ["http://panel.example.com:8080", "https://panel.example.com:8443"])
def test_proxy_that_does_not_announce_tls_works(origin: str) -> None:
    client, answer = log_in(HOST, {"Origin": origin}, is_over_tls=False)

    assert answer.status_code == 302
    assert act(client, {"Origin": origin}).status_code == 200


@pytest.mark.parametrize(("origin", "host"), ANOTHERS)
def test_page_of_another_site_neither_logs_in_nor_acts(origin: str, host: str) -> None:
    _, answer = log_in(host, {"Origin": origin})
    client, _ = log_in(host, {"Origin": f"https://{host}"})
    acted = act(client, {"Origin": origin})

    assert answer.status_code == 403
    assert answer.json()["code"] == "CROSS_SITE"
    assert acted.status_code == 403
    assert acted.json()["code"] == "CROSS_SITE"


@pytest.mark.parametrize(("origin", "host"), ANOTHERS[:4])
def test_referer_of_another_site_is_refused_at_login(origin: str, host: str) -> None:
    assert log_in(host, {"Referer": f"{origin}/login/"})[1].status_code == 403


def test_page_of_another_port_is_refused_by_sec_fetch_site() -> None:
    headers = {"Origin": "https://panel.example.com:8443", "Sec-Fetch-Site": "same-site"}

    assert log_in(HOST, headers)[1].json()["code"] == "CROSS_SITE"


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}], ids=str)
def test_refusal_names_both_origins_and_the_cure(headers: dict[str, str]) -> None:
    """A proxy that sends its own name for the service as Host."""
    origin = {"Origin": "http://panel.example.com:8080"}
    client, answer = log_in("other.example.com", {**origin, **headers})
    client.force_login(User.objects.get())
    acted = act(client, {**origin, **headers})

    for refusal in (answer, acted):
        text = refusal.content.decode()
        assert refusal.status_code == 403
        assert "http://panel.example.com:8080" in text and "https://other.example.com" in text
        assert "proxy_set_header Host $http_host;" in text
    assert acted.json()["code"] == "CROSS_SITE"


def test_without_login_another_port_is_another_program(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = False
    settings.ALLOWED_HOSTS = ["localhost"]
    client = ApiClient()

    for host, status in [("localhost", 403), ("localhost:3000", 403), ("localhost:8080", 200)]:
        headers = {"Host": host, "Origin": "http://localhost:8080"}
        assert client.post("/api/cache/clear", headers=headers).status_code == status, host
