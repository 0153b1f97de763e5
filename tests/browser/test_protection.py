"""Protection: a protected instance shows the reason and offers no stop until the protection is removed."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import PLAIN_ROW, Panel, Visit, refresh
from tests.browser.test_drawer import get_drawer, open_drawer, open_menu
from tests.browser.test_table import HOSTILE

pytestmark = pytest.mark.xdist_group("browser 2")


@pytest.fixture
def alpha(panel: Panel) -> Panel:
    panel.hold({"id": "a", "name": "alpha"}, {"id": "b", "name": "beta"})
    return panel


def protect(panel: Panel, reason: str) -> None:
    assert panel.service.post("/api/instances/a/protect", json={"reason": reason}).ok


def get_lock(page: Page, reason: str, name: str = "alpha") -> Locator:
    return page.get_by_role("row", name=name).get_by_role("img", name=f"Protected: {reason}")


def test_protected_row_shows_reason_and_offers_a_start_but_no_stop(alpha: Panel, visit: Visit) -> None:
    alpha.novita.change(add=[{**PLAIN_ROW, "id": "g", "name": "gamma", "status": "exited"}])
    alpha.sync()
    protect(alpha, "the demo of Friday")
    assert alpha.service.post("/api/instances/g/protect", json={"reason": "the demo of Monday"}).ok

    page = visit()

    expect(get_lock(page, "the demo of Friday")).to_have_attribute("title", "Protected: the demo of Friday")
    expect(page.get_by_role("button", name="Stop alpha")).to_have_count(0)
    expect(page.get_by_role("button", name="Stop beta")).to_be_visible()
    expect(page.get_by_role("row", name="beta").get_by_role("img")).to_have_count(0)
    expect(get_lock(page, "the demo of Monday", "gamma")).to_be_visible()
    expect(page.get_by_role("button", name="Start gamma")).to_be_visible()


@pytest.mark.parametrize("place", ["drawer", "menu"])
def test_instance_is_protected_with_a_reason(alpha: Panel, visit: Visit, place: str) -> None:
    page = visit()
    if place == "drawer":
        open_drawer(page).get_by_role("button", name="Protect…").click()
    else:
        open_menu(page).get_by_role("menuitem", name="Protect…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Protect alpha?")).to_be_visible()
    expect(dialog.get_by_label("Reason")).to_be_focused()
    page.keyboard.type("  ")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    assert alpha.service.get("/api/protections").json()["total"] == 0

    page.keyboard.type("the demo")
    page.keyboard.press("Enter")

    expect(get_lock(page, "the demo")).to_be_visible()
    if place == "drawer":
        section = get_drawer(page).get_by_role("group", name="Protection")
        expect(section).to_contain_text(re.compile(r"Protected by local-owner on .* \(.* ago\): the demo"))
        expect(section.get_by_role("button", name="Remove protection…")).to_be_focused()
    else:
        expect(page.get_by_role("button", name="More actions for alpha")).to_be_focused()
    assert alpha.service.get("/api/protections").json()["protections"][0]["reason"] == "the demo"


def test_removing_protection_requires_confirmation(alpha: Panel, visit: Visit) -> None:
    protect(alpha, "the demo")
    page = visit()
    drawer = open_drawer(page)

    drawer.get_by_role("button", name="Remove protection…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Remove protection from alpha?")
    expect(dialog).to_contain_text("the demo")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    assert alpha.service.get("/api/protections").json()["total"] == 1
    dialog.get_by_role("button", name="Remove protection").click()

    expect(get_lock(page, "the demo")).to_have_count(0)
    expect(drawer.get_by_role("button", name="Stop alpha")).to_be_visible()
    expect(drawer.get_by_role("button", name="Protect…")).to_be_focused()


def test_refresh_shows_protection_added_elsewhere(alpha: Panel, visit: Visit) -> None:
    page = visit()
    page.get_by_role("checkbox", name="Select all").check()
    expect(page.locator("#selection [data-kind=stop]")).to_have_text("Stop 2")
    protect(alpha, "the demo")

    refresh(page)

    expect(get_lock(page, "the demo")).to_be_visible()
    expect(page.locator("#selection [data-kind=stop]")).to_have_text("Stop 1")


def test_hostile_reason_stays_text_with_and_without_script(alpha: Panel, visit: Visit) -> None:
    protect(alpha, HOSTILE["markup"])

    plain, page = visit(java_script_enabled=False), visit()

    for one in (plain, page):
        expect(get_lock(one, HOSTILE["markup"])).to_be_visible()
    expect(open_drawer(page)).to_contain_text(HOSTILE["markup"])
    assert page.locator("main :is(img, script), aside :is(img, script)").count() == 0
