"""Roles: each sees exactly the buttons that it may use."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import PATIENCE_MS, WIDE, Panel, Witness
from tests.system.conftest import migrated_database  # noqa: F401 - a fixture
from tests.system.processes import ROOT, Novita, ended

PASSWORD = "a-long-one-for-the-tests"
MAKE_USERS = f"""
from django.contrib.auth.models import Group, User
for role in ("viewer", "operator", "admin", ""):
    user = User.objects.create_user(role or "nobody", password="{PASSWORD}")
    user.groups.set([Group.objects.get_or_create(name=role)[0]] if role else [])
"""
SEEN = {
    "viewer": ["Refresh data", "Pause refresh"],
    "operator": ["Refresh data", "Sync with Novita.ai", "Pause refresh"],
    "admin": ["Stop all", "Refresh data", "Sync with Novita.ai", "Clear cache", "Pause refresh"],
}


@pytest.fixture(scope="module")
def guarded_panel(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,  # noqa: F811 - likewise
    simulated_novita: Novita,
) -> Iterator[Panel]:
    """A panel that requires a login: a user of each role, a user without a role, one running instance."""
    # Instances of another module may still exist.
    simulated_novita.change(remove=list(simulated_novita.get_truth()))
    simulated_novita.change(add=[{"id": "a" * 16, "name": "trainer", "status": "running"}])
    folder = tmp_path_factory.mktemp("guarded")
    with ended(Panel(folder, migrated_database, simulated_novita, REQUIRE_LOGIN="1")) as panel:
        command = [sys.executable, "manage.py", "shell", "-c", MAKE_USERS]
        subprocess.run(command, cwd=ROOT, env=panel.environment, check=True, timeout=60)
        yield panel.service.wait_until_ready() and panel


@pytest.fixture
def context(browser: Browser, guarded_panel: Panel) -> Iterator[BrowserContext]:
    witness = Witness(guarded_panel.service.url)
    context = browser.new_context(base_url=guarded_panel.service.url, viewport=WIDE)
    context.set_default_timeout(PATIENCE_MS)
    witness.watch(context)
    yield context
    context.close()
    assert [one for one in witness.problems if not re.search("status of 40[13]", one)] == []


def log_in(context: BrowserContext, name: str) -> Page:
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    return page


@pytest.mark.parametrize("role", SEEN)
def test_role_sees_only_buttons_it_may_use(context: BrowserContext, role: str) -> None:
    page = log_in(context, role)

    expect(page.get_by_role("row", name="trainer")).to_be_visible()
    toolbar = page.get_by_role("group", name="The whole account")
    expect(toolbar.get_by_role("button")).to_have_text(SEEN[role])
    may_act = int(role != "viewer")
    expect(page.get_by_role("button", name="Stop trainer")).to_have_count(may_act)
    expect(page.get_by_role("row", name="trainer").get_by_role("checkbox")).to_have_count(may_act)
    page.get_by_role("button", name="trainer", exact=True).click()
    expect(page.get_by_role("button", name="Protect trainer")).to_have_count(may_act)


def test_user_without_role_is_told_and_can_log_out(context: BrowserContext) -> None:
    page = log_in(context, "nobody")

    expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_wrong_password_shows_an_error_and_keeps_the_username(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/login/")
    page.get_by_label("Username").fill("viewer")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_role("alert")).to_contain_text("Wrong username or password")
    expect(page.get_by_label("Username")).to_have_value("viewer")
