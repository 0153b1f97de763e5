"""What every page keeps: a strict Content-Security-Policy, and markup that needs nothing that it forbids."""

import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
from django.conf import settings as project
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from fakeredis import FakeServer
from pytest_django import Settings

from instances.access import admin_site
from instances.api import renderers
from instances.api.views import ApiView
from instances.models import SyncRun
from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

HTML = {"accept": "text/html"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1) style=color:red>"
PAGES = {
    "/": 200,
    "/?search=a&group=running&region=x&ordering=-name&page=2": 200,
    "/costs/": 200,
    "/activity/": 200,
    "/admin/": 200,
    "/admin/instances/": 200,
    "/admin/instances/syncrun/": 200,
    "/admin/instances/syncrun/?outcome__exact=failed&q=x": 200,
    "/admin/instances/syncrun/{run}/change/": 200,
    "/admin/instances/syncrun/{run}/history/": 200,
    "/admin/instances/syncrun/add/": 403,
    "/admin/auth/user/": 200,
    "/admin/auth/user/add/": 200,
    "/admin/auth/user/{user}/change/": 200,
    "/admin/auth/user/{user}/delete/": 200,
    "/admin/auth/user/{user}/password/": 200,
    "/admin/instances/token/": 200,
    "/admin/instances/token/add/": 200,
    "/admin/password_change/": 200,
    "/admin/nope/": 404,
    "/api": 200,
    "/api/instances": 200,
    "/api/instances?group=running&ordering=-name&page=1": 200,
    "/api/instances?page=0": 400,
    "/api/instances/a": 200,
    "/api/instances/nope": 404,
    "/api/instances/a/start": 405,
    "/api/instances/a/stop": 405,
    "/api/instances/a/restart": 405,
    "/api/instances/sync": 405,
    "/api/cache/clear": 405,
    "/api/cache/stats": 200,
    "/api/nope": 404,
    "/api/docs": 200,
    "/health": 200,
    "/nope": 404,
    "/static/nope.css": 404,
}


@pytest.fixture
def open_page(client: Client, novita: NovitaAnswers) -> Callable[[str], Any]:
    """Open a page of an account whose names are hostile."""
    row = make_row(
        "a", name=HOSTILE, status=HOSTILE, imageUrl="javascript:alert(1)", portMappings=[{"endpoint": HOSTILE}]
    )
    novita.lists(row)
    assert client.post("/api/instances/sync").status_code == 200
    other = User.objects.create_user("other")

    def open_page(path: str) -> Any:
        path = path.format(run=SyncRun.objects.latest("pk").pk, user=other.pk)
        return client.get(path, headers=HTML)

    return open_page


def assert_strict(answer: Any) -> None:
    """Hold an answer's Content-Security-Policy against what every page promises."""
    parts = [part.split() for part in answer["Content-Security-Policy"].split(";")]
    policy = {name: set(sources) for name, *sources in parts}
    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == {"'none'"}
    assert policy["form-action"] == {"'self'"}
    assert set().union(*policy.values()) <= {"'none'", "'self'", "data:"}
    assert "data:" not in policy["script-src"]
    assert answer["X-Content-Type-Options"] == "nosniff"


class Inspector(HTMLParser):
    """Collects what the policy forbids in a document: what is inline, and what comes from elsewhere."""

    LOADS = {"src", "srcset", "data", "poster", "action", "formaction", "background", "manifest"}

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.tags = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags += 1
        given = {name: value or "" for name, value in attributes}
        # A script of a data type is not run.
        is_code = tag == "script" and given.get("type", "text/javascript") in {"text/javascript", "module", ""}
        if tag == "style" or (is_code and "src" not in given):
            self.problems.append(f"inline <{tag}>")
        loads = self.LOADS | {"href"} if tag in {"link", "base", "use", "image"} else self.LOADS
        for name, value in given.items():
            if name == "style" or name.startswith("on"):
                self.problems.append(f"<{tag} {name}={value!r}>")
            if re.match(r"\s*(javascript|vbscript|data\s*:\s*text)", value, re.IGNORECASE) and name in {*loads, "href"}:
                self.problems.append(f"<{tag} {name}={value!r}>")
            if name in loads and urlsplit(value).netloc:
                self.problems.append(f"elsewhere: <{tag} {name}={value!r}>")


def find_problems(html: str) -> list[str]:
    inspector = Inspector()
    inspector.feed(html)
    assert inspector.tags > 3, "no document"
    return inspector.problems


@pytest.mark.thorough
@pytest.mark.parametrize(("path", "status"), PAGES.items())
def test_a_page_is_strict_and_keeps_to_it(open_page: Callable[[str], Any], path: str, status: int) -> None:
    answer = open_page(path)

    assert answer.status_code == status
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    assert_strict(answer)
    assert find_problems(answer.content.decode()) == []


@pytest.mark.parametrize("path", ["/login/", "/login/?next=/api/docs", "/admin/login/"])
def test_the_login_page_is_strict_and_keeps_to_it(client: Client, settings: Settings, path: str) -> None:
    settings.REQUIRE_LOGIN = True

    answer = client.get(path)

    assert_strict(answer)
    assert find_problems(answer.content.decode()) == []


def test_a_refused_login_is_strict_too(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True

    answer = Client().post("/login/", {"username": HOSTILE, "password": "x"})

    assert_strict(answer)
    assert find_problems(answer.content.decode()) == []


def test_the_page_of_a_bug_is_strict_and_keeps_to_it() -> None:
    client = ApiClient(raise_request_exception=False)

    with connection.execute_wrapper(Mock(side_effect=Exception("FAKE-SECRET"))):
        answer = client.get("/admin/", headers=HTML)

    assert answer.status_code == 500
    assert_strict(answer)
    assert find_problems(answer.content.decode()) == []
    assert b"FAKE-SECRET" not in answer.content
    assert b'class="bar"' in answer.content
    assert b"Back to the dashboard" in answer.content


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/api/instances", {}),
        ("GET", "/api/schema", {}),
        ("GET", "/livez", {}),
        ("GET", "/readyz", {}),
        ("GET", "/", {}),
        ("GET", "/static/admin/css/base.css", {}),
        ("GET", "/health", {"Host": "evil.test"}),
        ("POST", "/api/cache/clear", {"Sec-Fetch-Site": "cross-site"}),
        ("GET", "/admin/", {"X-Forwarded-For": "192.0.2.7"}),
        ("GET", "/api/instances", {"X-Forwarded-For": "192.0.2.7"}),
    ],
)
def test_what_is_no_page_is_strict_too(client: Client, method: str, path: str, headers: dict[str, str]) -> None:
    answer = client.generic(method, path, headers=headers)
    answer.close()

    assert_strict(answer)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "path", [path for path in PAGES if PAGES[path] == 200 and path.startswith(("/admin", "/api", "/health"))]
)
def test_what_a_page_loads_is_there(open_page: Callable[[str], Any], client: Client, path: str) -> None:
    html = open_page(path).content.decode()

    files = set(re.findall(r'(?:<link[^>]*href|src)="(/[^"]+\.(?:css|js|svg|png)[^"]*)"', html))
    answers = {file: client.get(file) for file in files}
    assert files
    assert {file: answer.status_code for file, answer in answers.items() if answer.status_code != 200} == {}
    for answer in answers.values():
        answer.close()


TEMPLATES = sorted(Path(project.BASE_DIR, "templates").rglob("*.html"))


def test_the_templates_are_found() -> None:
    assert len(TEMPLATES) > 4


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_of_ours_writes_nothing_inline(template: Path) -> None:
    inspector = Inspector()
    inspector.feed(re.sub(r"\{#.*?#\}|\{%.*?%\}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL))

    assert inspector.problems == []


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>",
        "<script type=module>x</script>",
        "<style>x</style>",
        "<p style='color:red'>",
        "<p ONCLICK=x>",
        "<a href=' javascript:x'>",
        "<script src=//evil.test/x.js></script>",
        "<link href=https://evil.test/x.css>",
        "<form action=https://evil.test/>",
        "<img src=http://evil.test/x.png>",
    ],
)
def test_the_inspector_sees(html: str) -> None:
    assert find_problems(f"<p><p><p><p>{html}")


def test_page_of_an_unknown_address_needs_neither_database_nor_redis(client: Client, redis_server: FakeServer) -> None:
    client.force_login(User.objects.create_superuser("ann"))
    redis_server.connected = False

    with connection.execute_wrapper(Mock(side_effect=Exception("no database"))):
        answer = client.get("/nope", headers=HTML)

    assert answer.status_code == 404
    assert 'class="bar"' in answer.content.decode()
    assert "Back to the dashboard" in answer.content.decode()


def test_bar_has_no_id_that_django_styles_on_the_pages_of_records() -> None:
    bar = "".join(path.read_text() for path in TEMPLATES if path.name == "bar.html" or path.parent.name == "bar")
    styles = Path(finders.find("admin/css/base.css") or "").read_text()

    assert set(re.findall(r'\bid="([^"]+)"', bar)) & set(re.findall(r"#([a-z-]+)", styles)) == set()


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/api", "API"),
        ("/api/instances", "Instances"),
        ("/api/instances/a", "Instance"),
        ("/api/instances/stop-all", "Instances: stop all"),
        ("/api/policies/1/confirm-stop", "Policy: confirm stop"),
        ("/api/start-freeze", "Start freeze"),
        ("/api/nope", "No such address"),
    ],
)
def test_page_of_the_browsable_api_has_a_title_for_people_and_a_skip_link(
    client: Client, path: str, title: str
) -> None:
    html = client.get(path, headers=HTML).content.decode()

    assert re.sub(r"\s+", " ", re.findall(r"<h1>(.*?)</h1>", html, re.DOTALL)[0]).strip() == title
    assert "API · Novita panel</title>" in html
    assert html.index('<a href="#content" class="skip-link">') < html.index('<header class="bar">')
    assert 'id="content"' in html


@pytest.mark.parametrize("path", ["/api/schema", "/api/docs"])
def test_options_of_a_view_of_a_library_are_answered(client: Client, path: str) -> None:
    assert client.options(path).status_code == 200


def test_each_view_of_the_api_has_a_title() -> None:
    views = {view.__name__ for view in itertools.chain(*map(list_kinds, ApiView.__subclasses__()))}

    assert views - renderers.TITLES.keys() == set()


def list_kinds(view: type) -> list[type]:
    return [view, *itertools.chain(*map(list_kinds, view.__subclasses__()))]


def test_browser_at_an_unknown_host_gets_a_page(client: Client) -> None:
    answer = client.get("/", headers={**HTML, "Host": "evil.test"})

    assert answer.status_code == 400
    assert_strict(answer)
    assert find_problems(answer.content.decode()) == []
    assert "ALLOWED_HOSTS" in answer.content.decode()
    assert "evil.test" not in answer.content.decode()


@pytest.mark.parametrize("path", ["/nope", "/admin/nope/"])
def test_a_lost_reader_is_led_to_the_start(client: Client, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 404
    assert 'href="/"' in answer.content.decode()


def test_records_are_grouped_by_what_they_are_for(client: Client) -> None:
    page = client.get("/admin/").content.decode()

    assert re.findall(r"<caption>(.*?)</caption>", page) == ["Access", "Rules", "History"]
    names = {model.__name__ for model in admin.site._registry}
    assert names.issuperset(itertools.chain(*admin_site.RECORD_GROUPS.values()))
