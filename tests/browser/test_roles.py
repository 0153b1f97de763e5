"""Roles: each sees exactly the buttons that it may use."""

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import log_in, open_tab
from tests.browser.test_accessibility import find_violations

pytestmark = pytest.mark.xdist_group("browser 3")

SEEN = {
    "viewer": ["Refresh data"],
    "operator": ["Refresh data", "Sync with Novita.ai"],
    "admin": ["Refresh data", "Sync with Novita.ai", "Clear cache", "More"],
}


@pytest.mark.parametrize("role", SEEN)
def test_role_sees_only_buttons_it_may_use(context: BrowserContext, role: str) -> None:
    page = log_in(context, role)

    expect(page.get_by_role("row", name="trainer")).to_be_visible()
    toolbar = page.get_by_role("group", name="The whole account")
    expect(toolbar.get_by_role("button")).to_have_text(SEEN[role])
    stop_all = page.get_by_role("button", name="Stop all")
    expect(stop_all).to_have_count(int(role == "admin"))
    may_act = int(role != "viewer")
    expect(page.get_by_role("button", name="Stop trainer")).to_have_count(may_act)
    expect(page.get_by_role("row", name="trainer").get_by_role("checkbox")).to_have_count(may_act)
    page.get_by_role("button", name="More actions for trainer").click()
    expect(page.get_by_role("menuitem")).to_have_text(
        [*["Restart…", "Protect…"] * may_act, "Copy ID", "Copy endpoint", "Open Novita's console"]
    )
    page.keyboard.press("Escape")
    page.get_by_role("button", name="trainer", exact=True).click()
    drawer = page.get_by_role("complementary", name="trainer")
    for name in ("Stop trainer", "Edit…", "Protect…"):
        expect(drawer.get_by_role("button", name=name)).to_have_count(may_act)


def test_user_without_role_is_told_and_can_log_out(context: BrowserContext) -> None:
    page = log_in(context, "nobody")

    expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_wrong_password_shows_an_error_and_keeps_the_username(context: BrowserContext) -> None:
    page = open_tab(context)
    page.goto("/login/")
    page.get_by_label("Username").fill("viewer")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_role("alert")).to_contain_text("Wrong username or password")
    expect(page.get_by_label("Username")).to_have_value("viewer")
    assert find_violations(page) == []
