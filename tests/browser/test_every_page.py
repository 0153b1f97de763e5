"""Every page that a link leads to, behind a login: no console message, no violation of the policy, no request to
another origin. The panel is served under a path, and no request or link leaves that path. Without a login: test_pages.
"""

import base64
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests import python
from tests.browser.conftest import GUARDED, Panel, Visit, Witness
from tests.system.processes import ROOT, Novita, find_free_port, wait_until

pytestmark = pytest.mark.xdist_group("browser 3")

PASSWORD = "FAKE-SECRET-password"
STARTS = [
    "/",
    "/admin/",
    "/api",
    "/api/docs",
    "/health",
    "/api/instances/sync",
    "/api/instances/stop-all",
    "/api/cache/clear",
    "/api/instances",
    "/api/instances?page=0",
    "/api/cache/stats",
    "/api/nope",
    "/nope",
    "/admin/nope/",
    "/admin/instances/syncrun/add/",
    "/admin/auth/user/add/",
]
MAX_PAGES = 150
# Chromium's own message about a refused page.
REFUSED = r"Failed to load resource: the server responded with a status of 4\d\d"
# Chromium's advice on Django's own user forms.
ADVICE = "console verbose: .DOM. "


def make_admin(database: Path) -> str:
    """Make the account "ann"; returns a token of hers."""
    environment = {
        **os.environ,
        **GUARDED,
        "DATABASE_URL": f"sqlite:///{database}",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
    }
    for command in (
        ["createsuperuser", "--noinput", "--username", "ann", "--email", "ann@example.com"],
        ["create_token", "ann", "--name", "script", "--role", "admin"],
    ):
        run = python.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
    return run.stdout.strip()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> tuple[Path, str]:
    """A database with an admin, and a token of the admin."""
    database = shutil.copy(migrated_database, tmp_path_factory.mktemp("prepared") / "db.sqlite3")
    return database, make_admin(database)


@pytest.fixture(scope="module")
def shared_panel(
    tmp_path_factory: pytest.TempPathFactory,
    prepared: tuple[Path, str],
    simulated_novita: Novita,
) -> Iterator[Panel]:
    folder = tmp_path_factory.mktemp("every")
    database, token = prepared
    panel = Panel(
        folder,
        database,
        simulated_novita,
        **GUARDED,
        PATH_PREFIX="/panel",
        WEBHOOK_SECRET="whsec_" + base64.b64encode(b"FAKE-SECRET-of-32-bytes-in-total").decode(),
        WEBHOOK_ALLOWED_HOSTS="127.0.0.1",
        WEBHOOK_ALLOWED_PORTS=str(port := find_free_port()),
    )
    panel.service.session.headers["Authorization"] = f"Bearer {token}"
    panel.receiver_url = f"http://127.0.0.1:{port}/"  # type: ignore[attr-defined]  # for this file's tests only
    panel.service.wait_until_ready()
    yield panel
    panel.end()


@pytest.fixture
def root(shared_panel: Panel) -> str:
    """The panel's address, without a slash at its end."""
    return shared_panel.service.url + shared_panel.environment["PATH_PREFIX"]


@pytest.fixture
def witness(root: str) -> Witness:
    return Witness(root)


def make_records(panel: Panel, **wish: str) -> None:
    """Create records with hostile names."""
    name = "'\"><style>*{color:red}</style><img src=x onerror=alert(1)>"
    panel.hold({"id": "a", "name": name, "status": "running"}, {"id": "b", "name": name, "status": "running"})
    assert panel.service.post("/api/instances/a/protect", json={"reason": "<script>alert(1)</script>"}).ok
    panel.service.stop_all(**wish)


def log_in(page: Page) -> None:
    """Log in through the page, after a failure."""
    for password in ("FAKE-SECRET-wrong", PASSWORD):
        page.get_by_label("Username").fill("ann")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_load_state("networkidle")
    expect(page.get_by_role("heading", name="GPU instances")).to_be_visible()


def list_links(page: Page, root: str) -> Iterator[str]:
    """Yield the paths of the page's links within the panel, without their queries, as from its root."""
    origin, path = re.fullmatch(r"(https?://[^/]+)(.*)", root).groups()  # type: ignore[union-attr]  # it matches
    for link in page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)"):
        parts = urlsplit(urldefrag(link).url)
        if f"{parts.scheme}://{parts.netloc}" != origin:
            continue
        assert parts.path.startswith(f"{path}/"), f"{link} leaves the panel"
        # Downloads are no pages.
        if not parts.path.endswith(("/csv/", ".csv", "/schema")):
            yield parts.path.removeprefix(path)


def read_all(
    page: Page, root: str, witness: Witness, find_kind: Callable[[str], str], except_for: str = ""
) -> set[str]:
    """Open the pages that links lead to, one of each kind; return their paths."""
    seen: dict[str, str] = {except_for: except_for}
    waiting = list(STARTS)
    while waiting:
        path = waiting.pop(0)
        kind = find_kind(path)
        if kind in seen:
            continue
        assert len(seen) < MAX_PAGES
        seen[kind] = path
        # Scripts of these two pages load more.
        answer = page.goto(root + path, wait_until="networkidle" if path in {"/", "/api/docs"} else "load")
        assert answer is not None and answer.status < 500, path
        assert "/login/" not in page.url, path
        assert page.evaluate("document.body.childElementCount"), path
        assert witness.problems == [], path
        waiting += list_links(page, root)
    return set(seen.values())


def find_kind(path: str) -> str:
    return re.sub(r"/(\d+|[0-9a-f-]{32,})(?=/)", "/*", path)


@pytest.mark.timeout(300)
def test_every_page_obeys_its_policy(panel: Panel, visit: Visit, witness: Witness, root: str) -> None:
    witness.allow(REFUSED)
    witness.allow(ADVICE)
    make_records(panel, webhookUrl=panel.receiver_url)  # type: ignore[attr-defined]  # likewise
    page = visit(f"{root}/")
    log_in(page)

    seen = read_all(page, root, witness, find_kind)

    for model in ("syncrun", "operation", "target", "webhookdelivery", "protection", "auditentry", "token"):
        assert f"/admin/instances/{model}/" in seen
        assert [path for path in seen if path.startswith(f"/admin/instances/{model}/") and "/change/" in path], model


def test_everything_is_stopped_from_the_page(panel: Panel, visit: Visit, root: str) -> None:
    panel.hold({"id": "c", "status": "running"})
    page = visit(f"{root}/")
    log_in(page)

    page.get_by_role("button", name="Stop all").click()
    page.get_by_role("dialog").get_by_label("Enter 1 to stop").fill("1")
    page.keyboard.press("Enter")

    wait_until(lambda: page.evaluate("1") and panel.novita.get_truth()["c"]["status"] != "running", "c is stopped")


def test_witness_reports_violations(visit: Visit, witness: Witness, root: str) -> None:
    page = visit(f"{root}/")

    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=color:red>')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:1/x.png'}))"
    )
    wait_until(lambda: page.evaluate("1") and len(witness.problems) >= 2, "both are seen")

    seen = "\n".join(witness.problems)
    witness.problems.clear()
    assert "style" in seen and "img-src" in seen, seen
