"""Fixtures of the browser tests: Chromium, and a service over a simulated account that each test fills.

Playwright's event loop runs as long as these tests do, and Django's ORM refuses to work beside one. Tests therefore
read the service over HTTP.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Route,
    ViewportSize,
    WebError,
    expect,
    sync_playwright,
)

from instances import simulator
from tests import python
from tests.system.conftest import migrated_database  # noqa: F401 - a fixture
from tests.system.processes import ROOT, Novita, Process, Redis, Service, ended, wait_until

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-extensions",
    "--mute-audio",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The tabs of a file's context share one process. A process of its own takes a tab as long as its page does.
    "--renderer-process-limit=1",
    "--disable-site-isolation-trials",
    "--disable-features=SpareRendererForSitePerProcess,IsolateOrigins,site-per-process",
    # No page lives long enough for its script to be worth optimizing: a tenth of a tab's time.
    "--js-flags=--no-opt --no-maglev",
]
# Long enough for a slow, shared machine.
PATIENCE_MS = 15_000
# The narrowest window in which the actions on the account need no menu.
WIDE: ViewportSize = {"width": 1280, "height": 800}
NARROW: ViewportSize = {"width": 360, "height": 740}
CREATED_AT = 1_760_000_000

Row = dict[str, Any]

# What a row has unless a test says otherwise: the simulator's own choices depend on how many it has made before.
PLAIN_ROW: Row = {
    "createdAt": str(CREATED_AT),
    "productId": "4090.16c62g",
    "productName": "RTX 4090 24GB",
    "gpuNum": "1",
    "instancePrice": "35000",
    "billingMode": "onDemand",
    "spotStatus": "",
    "spotReclaimTime": "0",
    "endTime": "-1",
}

expect.set_options(timeout=PATIENCE_MS)


def find_chromium() -> str | None:
    # The headless shell draws no window around each page, which takes more time than the pages do.
    return next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        words = "no Chromium on this machine: install the distribution's package `chromium-headless-shell`"
        pytest.fail(words) if os.environ.get("CI") == "true" else pytest.skip(words)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)


class Panel:
    """A service with its Redis and its simulated account, and with a worker on request."""

    def __init__(
        self, folder: Path, database: Path, novita: Novita, *, has_worker: bool = False, **variables: str
    ) -> None:
        self.novita = novita
        self.redis = Redis(folder)
        self._database = folder / "db.sqlite3"
        shutil.copy(database, self._database)
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.system.quick_settings",
            "SECRET_KEY": "FAKE-SECRET-django",
            "DATABASE_URL": f"sqlite:///{self._database}",
            "REDIS_URL": self.redis.url,
            "NOVITA_API_KEY": "FAKE-SECRET-key",
            "NOVITA_BASE_URL": novita.url,
            "NOVITA_PAGE_SIZE": "1000",
            "WEB_WORKERS": "1",
            # The inventory changes only when a test synchronizes, or while an instance is moving.
            "NOVITA_SYNC_INTERVAL": "0",
            **variables,
        }
        self.environment = environment
        self.service = Service(environment, folder)
        self._worker = None
        if has_worker:
            command = [sys.executable, "-m", "celery", "-q", "-A", "novita_site", "worker"]
            self._worker = Process(command, environment, folder / "worker.log")

    def hold(self, *rows: Row) -> None:
        """Give the account exactly these instances, and synchronize."""
        self.novita.clear_faults()
        before = self.novita.get_truth()
        self.novita.change(remove=list(before), add=[{**PLAIN_ROW, **row} for row in rows])
        # A test begins with an empty account, whose copy needs no clearing.
        if before or not rows:
            self.clear()
        self.sync()

    def set(self, instance_id: str, **fields: Any) -> None:
        """Change an instance at Novita; the next sync shows it."""
        self.novita.change(set={instance_id: fields})

    def sync(self) -> None:
        assert self.service.post("/api/instances/sync").ok

    def clear(self) -> None:
        assert self.service.post("/api/cache/clear").ok

    def wait_for_worker(self) -> None:
        wait_until(lambda: self.service.get("/health").json()["services"]["worker"] == "up", "a worker works")

    def list_operations(self) -> list[dict[str, Any]]:
        # The service closes idle connections; the session's may be one of them.
        answer = wait_until(lambda: self.service.get("/api/operations"), "the operations are listed")
        operations: list[dict[str, Any]] = answer.json()["operations"]
        return operations

    def forget(self) -> None:
        """Delete all operations and protections of the tests before."""
        for (operation,) in self.change_records("SELECT id FROM instances_operation WHERE finished_at IS NULL"):
            self.service.post(f"/api/operations/{operation}/cancel")
        tables = ("target", "operation", "protection")
        self.change_records(*(f"DELETE FROM instances_{table}" for table in tables))  # noqa: S608 - the names above

    def let_time_run_out(self) -> None:
        """Move the deadline of all running operations to now."""
        self.change_records(
            "UPDATE instances_operation SET deadline_at = datetime('now'), next_round_at = datetime('now') "
            "WHERE finished_at IS NULL"
        )

    def change_records(self, *statements: str) -> list[tuple[Any, ...]]:
        """Carry the statements out; return the rows of the last one."""
        connection = sqlite3.connect(self._database, timeout=PATIENCE_MS / 1000)
        rows: list[tuple[Any, ...]] = []
        with connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
        connection.close()
        return rows

    def age(self, hours: int) -> None:
        """Make the inventory so many hours older."""
        (key,) = self.redis.find("sync")
        as_of = int(self.redis.client.hget(key, "as_of"))
        self.redis.client.hset(key, "as_of", as_of - hours * 3_600_000)

    def end(self) -> None:
        if self._worker:
            self._worker.end()
        self.service.end()
        self.redis.end()


@pytest.fixture(scope="package")
def simulated_novita() -> Iterator[Novita]:
    with simulator.start(simulator.Account(instances=0, step_seconds=1), port=0) as server:
        novita = Novita(server.url)
        yield novita
        novita.end()


@pytest.fixture(scope="package")
def shared_panel(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,  # noqa: F811 - likewise
    simulated_novita: Novita,
) -> Iterator[Panel]:
    panel = Panel(tmp_path_factory.mktemp("panel"), migrated_database, simulated_novita)
    panel.service.wait_until_ready()
    yield panel
    panel.end()


@pytest.fixture(scope="package")
def working_panel(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,  # noqa: F811 - likewise
    simulated_novita: Novita,
) -> Iterator[Panel]:
    """A panel with a worker, for modules whose operations must finish."""
    panel = Panel(tmp_path_factory.mktemp("working"), migrated_database, simulated_novita, has_worker=True)
    panel.service.wait_until_ready()
    panel.wait_for_worker()
    yield panel
    panel.end()


@pytest.fixture
def panel(shared_panel: Panel) -> Iterator[Panel]:
    """A panel with an empty account. Redis, if a test suspends it, continues afterwards."""
    shared_panel.redis.signal(signal.SIGCONT)
    shared_panel.forget()
    if shared_panel.novita.get_truth() or shared_panel.service.list_ids():
        shared_panel.hold()
    yield shared_panel
    shared_panel.redis.signal(signal.SIGCONT)
    shared_panel.novita.clear_faults()


# Chromium's note on a field with `autofocus`, as Django's user form has one, in a page that already has a focus.
# The note comes when the page is slow, at any time before the context closes, and nothing is wrong.
AUTOFOCUS = "console info: Autofocus processing was blocked"


class Witness:
    """Collects what no page may do: write to the console, throw, violate its policy, send to another origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._allowed = [AUTOFOCUS]
        self.problems: list[str] = []

    def allow(self, pattern: str) -> None:
        """Accept messages that match the pattern."""
        self._allowed.append(pattern)

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self._hear)
        context.on("weberror", self._catch)
        context.on("request", self._follow)

    def leave(self, context: BrowserContext) -> None:
        context.remove_listener("console", self._hear)
        context.remove_listener("weberror", self._catch)
        context.remove_listener("request", self._follow)

    def _catch(self, error: WebError) -> None:
        self._note(f"error: {error.error}")

    def _hear(self, message: ConsoleMessage) -> None:
        self._note(f"console {message.type}: {message.text} ({message.location['url']})")

    def _follow(self, request: Request) -> None:
        if not request.url.startswith((self._origin + "/", "data:")):
            self._note(f"elsewhere: {request.url}")

    def _note(self, problem: str) -> None:
        if not any(re.search(pattern, problem) for pattern in self._allowed):
            self.problems.append(problem)


@pytest.fixture
def witness(shared_panel: Panel) -> Witness:
    return Witness(shared_panel.service.url)


def make_operation(states: dict[str, str]) -> dict[str, Any]:
    targets = [
        {"instanceId": id_, "name": f"vm-{id_}", "state": state, "status": "toStop", "attempts": 1, "requestedAt": None}
        | {"confirmedAt": "2026-01-15T10:30:00Z" if state == "confirmed" else None, "readAt": None, "error": None}
        | {"message": f"Words about {state}."}
        for id_, state in states.items()
    ]
    names = ("pending", "requested", "confirmed", "stillRunning", "failed", "skipped", "unknown")
    head = {"id": "0", "kind": "stop", "state": "verifying", "success": None, "result": "", "isWholeAccount": True}
    times = {"createdAt": "2026-01-15T10:30:00Z", "deadlineAt": "2026-01-15T10:40:00Z", "finishedAt": None}
    words = {"reason": "", "requestedBy": "anna", "source": "novita", "notes": []}
    counts = {name: list(states.values()).count(name) for name in names}
    return {**head, **times, **words, "counts": counts, "targets": targets}


def show_operations(page: Page, *operations: dict[str, Any]) -> None:
    """Show the page these operations in place of the service's, the newest first."""

    def show(route: Route) -> None:
        wanted = route.request.url.rpartition("/")[2]
        route.fulfill(json=next(one for one in operations if one["id"] == wanted))

    change_overview(page, operations=operations)
    page.route("**/api/operations/*", show)


def change_overview(page: Page, **parts: Any) -> None:
    """Show the page these parts of the overview in place of the service's."""

    def change(overview: dict[str, Any]) -> dict[str, Any]:
        return {**overview, **parts}

    def change_page(route: Route) -> None:
        answer = route.fetch()
        head, start, rest = answer.text().partition('<script id="overview" type="application/json">')
        first, end, tail = rest.partition("</script>")
        first = json.loads(first)
        first = json.dumps({**first, "overview": change(first["overview"])}).replace("<", "\\u003c")
        route.fulfill(body=head + start + first + end + tail, content_type="text/html")

    def change_answer(route: Route) -> None:
        headers = {name: value for name, value in route.request.headers.items() if name != "if-none-match"}
        answer = route.fetch(headers=headers)
        route.fulfill(json=change(answer.json()), headers={"Date": answer.headers["date"]})

    page.route(re.compile(r"^https?://[^/]+/(\?.*)?$"), change_page)
    page.route("**/api/overview", change_answer)


def refresh(page: Page) -> None:
    """Press *Refresh data*. Beside a drawer it stands in a menu."""
    button = page.get_by_role("button", name="Refresh data")
    if not button.is_visible():
        page.get_by_role("button", name="Actions", exact=True).click()
    button.click()


def confirm(page: Page) -> None:
    """Press the button of the open dialog that carries the action out."""
    page.get_by_role("dialog").get_by_role("button").last.click()


@contextlib.contextmanager
def open_context(browser: Browser, url: str, **options: Any) -> Iterator[BrowserContext]:
    # By Playwright's own choice, "none", each new tab has all tabs of the context styled and drawn again, three times.
    context = browser.new_context(base_url=url, **{"viewport": WIDE, "forced_colors": "null", **options})
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@contextlib.contextmanager
def share_context(browser: Browser, url: str, **options: Any) -> Iterator[BrowserContext]:
    """Open a context for all tests of a file: later pages find the scripts in its cache.

    Its first tab stays open, and with the tab the process that draws the pages.
    Statuses don't pulse there: drawing them takes 50 ms of each second that a test waits.
    """
    with open_context(browser, url, reduced_motion="reduce", **options) as context:
        context.new_page().goto("/livez")
        yield context


@contextlib.contextmanager
def watch_context(context: BrowserContext, witness: Witness) -> Iterator[BrowserContext]:
    """Lend the file's context to a test, which finds no cookie, nothing stored and no other page."""
    witness.watch(context)
    yield context
    first, *pages = context.pages
    for page in pages:
        # A handler that is still fetching would fail in the next test.
        page.unroute_all(behavior="ignoreErrors")
        page.close()
    witness.leave(context)
    context.set_offline(False)
    context.clear_cookies()
    first.evaluate("localStorage.clear()")


@pytest.fixture(scope="module")
def shared_context(browser: Browser, shared_panel: Panel) -> Iterator[BrowserContext]:
    with share_context(browser, shared_panel.service.url) as context:
        yield context


def open_tab(context: BrowserContext) -> Page:
    """Open a tab that draws next to nothing: nobody sees it, and drawing takes a tenth of a visit's time.

    What it measures, and where the mouse is, it knows as in a window of the context's size.
    """
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Emulation.setVisibleSize", {"width": 8, "height": 8})
    session.detach()
    return page


Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def plain_context(browser: Browser, shared_panel: Panel) -> Iterator[BrowserContext]:
    """A context whose pages run no script."""
    with share_context(browser, shared_panel.service.url, java_script_enabled=False) as context:
        yield context


@pytest.fixture
def visit(
    request: pytest.FixtureRequest, browser: Browser, panel: Panel, shared_context: BrowserContext, witness: Witness
) -> Iterator[Visit]:
    """Open a path in a new tab.

    The tabs of a test are one visitor's. A visit with `is_alone` is another visitor's, in a context of its own: there a
    test may move the clock, which all tabs of a context share. So is a visit with options of the context.
    """
    with contextlib.ExitStack() as stack:
        lent: list[BrowserContext] = []

        def lend(context: BrowserContext) -> BrowserContext:
            if context not in lent:
                lent.append(stack.enter_context(watch_context(context, witness)))
            return context

        def visit(path: str = "/", *, viewport: ViewportSize = WIDE, is_alone: bool = False, **options: Any) -> Page:
            if options == {"java_script_enabled": False}:
                context = lend(request.getfixturevalue("plain_context"))
            elif options or is_alone:
                context = stack.enter_context(open_context(browser, panel.service.url, **options))
                witness.watch(context)
            else:
                context = lend(shared_context)
            page = open_tab(context)
            if viewport != WIDE:
                page.set_viewport_size(viewport)
            page.goto(path)
            return page

        yield visit
    assert witness.problems == []


# --- A panel that requires a login

PASSWORD = "a-long-one-for-the-tests"
MAKE_USERS = f"""
from django.contrib.auth.models import Group, User
for role in ("viewer", "operator", "admin", ""):
    user = User.objects.create_user(role or "nobody", password="{PASSWORD}")
    user.groups.set([Group.objects.get_or_create(name=role)[0]] if role else [])
"""


GUARDED = {"REQUIRE_LOGIN": "1", "DJANGO_SETTINGS_MODULE": "tests.browser.cheap_settings"}


@pytest.fixture(scope="package")
def guarded_panel(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,  # noqa: F811 - likewise
) -> Iterator[Panel]:
    """A panel that requires a login: a user of each role, a user without a role, one running instance."""
    folder = tmp_path_factory.mktemp("guarded")
    with (
        simulator.start(simulator.Account(instances=0, step_seconds=1), port=0) as server,
        ended(Novita(server.url)) as novita,
        ended(Panel(folder, migrated_database, novita, **GUARDED)) as panel,
    ):
        novita.change(add=[{"id": "a" * 16, "name": "trainer", "status": "running"}])
        command = [sys.executable, "manage.py", "shell", "-c", MAKE_USERS]
        python.run(command, cwd=ROOT, env=panel.environment, check=True, timeout=60)
        yield panel.service.wait_until_ready() and panel


@pytest.fixture(scope="module")
def guarded_context(browser: Browser, guarded_panel: Panel) -> Iterator[BrowserContext]:
    with share_context(browser, guarded_panel.service.url) as context:
        yield context


@pytest.fixture
def context(guarded_panel: Panel, guarded_context: BrowserContext) -> Iterator[BrowserContext]:
    witness = Witness(guarded_panel.service.url)
    with watch_context(guarded_context, witness):
        yield guarded_context
    assert [one for one in witness.problems if not re.search("status of 40[13]", one)] == []


def send_login(context: BrowserContext, name: str) -> None:
    """Log in as the form does, without a page; a former login ends."""
    page = context.request.get("/login/")
    form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": read_token(page.text())}
    answer = context.request.post("/login/", form=form, headers={"Referer": page.url}, max_redirects=0)
    assert answer.status == HTTPStatus.FOUND


def send_logout(context: BrowserContext) -> None:
    """Log out as the button does, without a page."""
    page = context.request.get("/")
    form = {"csrfmiddlewaretoken": read_token(page.text())}
    answer = context.request.post("/logout/", form=form, headers={"Referer": page.url}, max_redirects=0)
    assert answer.status == HTTPStatus.FOUND


def read_token(page: str) -> str:
    """Return the token of the page's forms."""
    return re.findall('name="csrfmiddlewaretoken" value="([^"]+)"', page)[0]


def log_in(context: BrowserContext, name: str) -> Page:
    """Open the dashboard as this user."""
    send_login(context, name)
    page = open_tab(context)
    page.goto("/")
    return page


def open_visitor_menu(page: Page) -> None:
    """Open the menu in the bar that has the links and buttons of the visitor."""
    page.locator(".bar-visitor summary").click()
