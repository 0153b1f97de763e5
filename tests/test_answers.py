"""What every answer keeps to, whatever it holds: who may keep it, how it is encoded, and that HEAD has no body."""

import gzip
from functools import cache
from io import BytesIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, RequestFactory

from novita_site.middleware import accepts_gzip
from tests.groups import group
from tests.novita_answers import NovitaAnswers, make_row
from tests.test_headers import REFUSALS, ROUTES_OF_EACH_KIND, account  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db


def list_forms(path: str) -> list[str]:
    """Return the media types that an address answers in."""
    return ["text/html", "application/json"] if path.startswith("/api") else ["text/html"]


@pytest.mark.parametrize(
    ("header", "is_accepted"),
    [
        ("gzip", True),
        ("GZip, deflate, br", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("gzip; q=0.001", True),
        ("x-gzip", True),
        ("*", True),
        ("deflate, *;q=0.5", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip ; Q=0", False),
        ("GZIP;q=0.0, *", False),
        ("*;q=0", False),
        ("gzip;q=0, identity", False),
        ("deflate;q=1, gzip;q=0", False),
        ("br", False),
        ("gzipped", False),
        ("not-gzip", False),
        ("gzip;q=nonsense", False),
        ("gzip;q=-1", False),
    ],
)
def test_gzip_is_accepted_as_the_header_says(header: str, is_accepted: bool) -> None:
    assert accepts_gzip(header) == is_accepted


@pytest.mark.parametrize(("header", "is_accepted"), [("br, gzip;q=0.8", True), ("gzip;q=0, *", False)])
def test_gzip_goes_to_who_accepts_it(client: Client, novita: NovitaAnswers, header: str, is_accepted: bool) -> None:
    novita.lists(*(make_row(f"i{number}") for number in range(20)))
    client.post("/api/instances/sync")

    for path in ("/api/instances", "/api/instances?page=1", "/", "/admin/instances/auditentry/csv/", "/api/schema"):
        answer: Any = client.get(path, headers={"Accept-Encoding": header})

        assert (answer.get("Content-Encoding") == "gzip") == is_accepted, path
        content = b"".join(answer)
        (gzip.decompress(content) if is_accepted else content).decode()
        assert "Accept-Encoding" in answer["Vary"]


def test_without_the_header_nothing_is_compressed() -> None:
    assert not accepts_gzip("")


# --- Who may keep it


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("paths", group(ROUTES_OF_EACH_KIND), ids=lambda paths: paths[0])
@pytest.mark.thorough
def test_no_cache_keeps_what_is_somebodys_own(client: Client, paths: list[str]) -> None:
    for path, accept in [(one, accept) for one in paths for accept in list_forms(one)]:
        answer: Any = client.get(path, headers={"accept": accept})
        b"".join(answer)
        kept = answer["Cache-Control"]

        if path.startswith("/static/") and answer.status_code == 200:
            assert "public" in kept, (path, accept)
        elif path == "/api/instances":
            assert kept == "private, no-cache", (path, accept)
        else:
            assert "private" in kept and ("no-store" in kept or "no-cache" in kept), (path, accept, kept)


@pytest.mark.parametrize(("method", "path", "options", "status"), REFUSALS)
def test_no_cache_keeps_a_refusal(client: Client, method: str, path: str, options: dict[str, Any], status: int) -> None:
    answer = client.generic(method, path, **options)

    assert answer.status_code == status
    assert "no-store" in answer["Cache-Control"]


def test_no_cache_keeps_a_login(client: Client, settings: Any) -> None:
    settings.REQUIRE_LOGIN = True
    User.objects.create_superuser("ann", password="FAKE-SECRET-password")
    visitor = Client()

    for answer in (
        visitor.get("/login/"),
        visitor.get("/"),
        visitor.get("/api/instances"),
        visitor.post("/login/", {"username": "ann", "password": "wrong"}),
        visitor.post("/login/", {"username": "ann", "password": "FAKE-SECRET-password"}),
        visitor.get("/"),
    ):
        assert "private" in answer["Cache-Control"] and "no-store" in answer["Cache-Control"]


# --- HEAD


@cache
def make_handler() -> WSGIHandler:
    return WSGIHandler()


def ask_server(method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask as a server does. Django's own client drops bodies where there must be none."""
    told: list[Any] = []
    environ = {
        **RequestFactory()._base_environ(),
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "wsgi.input": BytesIO(),
        **headers,
    }
    answer = make_handler()(environ, lambda status, headers, exc_info=None: told.extend([status, dict(headers)]))
    body = b"".join(answer)
    # Its files; closing the answer would close the test's database with them.
    for close in getattr(answer, "_resource_closers", ()):
        close()
    return int(told[0].split()[0]), told[1], body


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    "paths", group([*ROUTES_OF_EACH_KIND, "/nope", "/api/instances/nope"]), ids=lambda paths: paths[0]
)
@pytest.mark.thorough
def test_head_has_no_body_and_the_headers_of_get(paths: list[str]) -> None:
    for path, accept in [(one, accept) for one in paths for accept in list_forms(one)]:
        got = ask_server("GET", path, HTTP_ACCEPT=accept)
        status, headers, body = ask_server("HEAD", path, HTTP_ACCEPT=accept)

        assert body == b"", (path, accept)
        if got[0] == 405:
            continue  # the page that says so differs by the method's name
        assert status == got[0], (path, accept)
        varying = {"Set-Cookie", "X-Request-Id", "Content-Length"}
        assert headers.keys() | varying == got[1].keys() | varying, (path, accept)


@pytest.mark.usefixtures("account")
def test_what_has_not_changed_has_no_body() -> None:
    tag = ask_server("GET", "/api/instances")[1]["ETag"]

    for method in ("GET", "HEAD"):
        status, _, body = ask_server(method, "/api/instances", HTTP_IF_NONE_MATCH=tag)
        assert status == 304
        assert body == b""
