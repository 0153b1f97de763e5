"""Protection: a protected instance shows the reason and offers no stop until somebody removes the protection."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Panel, Visit
from tests.browser.test_table import HOSTILE


@pytest.fixture
def alpha(panel: Panel) -> Panel:
    panel.hold({"id": "a", "name": "alpha"}, {"id": "b", "name": "beta"})
    return panel


def protect(panel: Panel, reason: str) -> None:
    assert panel.service.post("/api/instances/a/protect", json={"reason": reason}).ok


def open_details(page: Page) -> Locator:
    page.get_by_role("button", name="alpha", exact=True).click()
    return page.locator("tr.detail")


def get_row(page: Page) -> Locator:
    return page.locator("tr[data-id=a]:not(.detail)")


def test_a_protected_row_says_why_and_offers_no_stop(alpha: Panel, visit: Visit) -> None:
    protect(alpha, "the demo of Friday")

    page = visit()

    expect(get_row(page)).to_contain_text("🔒 protected: the demo of Friday")
    expect(get_row(page).locator(".buttons button")).to_have_count(0)
    expect(page.locator("tr[data-id=b] .buttons button")).to_have_text(["Stop", "Restart"])
    expect(page.locator("tr[data-id=b] .protection")).to_be_empty()


def test_a_protected_one_that_is_stopped_can_be_started(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha", "status": "exited"})
    protect(panel, "the demo")

    page = visit()

    expect(get_row(page)).to_contain_text("🔒 protected")
    expect(get_row(page).locator(".buttons button")).to_have_text(["Start"])


def test_one_is_protected_with_a_reason(alpha: Panel, visit: Visit) -> None:
    page = visit()
    details = open_details(page)

    details.get_by_role("button", name="Protect alpha…").click()
    expect(details.get_by_label("Why is it protected?")).to_be_focused()
    page.keyboard.type("the demo")
    page.keyboard.press("Enter")

    expect(get_row(page)).to_contain_text("🔒 protected: the demo")
    expect(get_row(page).locator(".message")).to_have_text("alpha is protected.")
    expect(details).to_contain_text(re.compile("Protected by .* at .*: the demo"))
    expect(page.get_by_role("button", name="Remove protection of alpha")).to_be_focused()
    assert alpha.service.get("/api/protections").json()["protections"][0]["reason"] == "the demo"


def test_a_protection_needs_a_reason(alpha: Panel, visit: Visit) -> None:
    page = visit()
    details = open_details(page)
    details.get_by_role("button", name="Protect alpha…").click()

    page.keyboard.type("  ")
    details.get_by_role("button", name="Protect it").click()

    expect(get_row(page).locator(".message")).to_have_text("A protection needs a reason.")
    expect(details.get_by_label("Why is it protected?")).to_be_focused()
    page.keyboard.press("Escape")
    expect(details.get_by_role("button", name="Protect alpha…")).to_be_focused()
    assert alpha.service.get("/api/protections").json()["total"] == 0


def test_a_protection_is_lifted_by_a_second_press(alpha: Panel, visit: Visit) -> None:
    protect(alpha, "the demo")
    page = visit()
    details = open_details(page)

    details.get_by_role("button", name="Remove protection of alpha").click()
    expect(details).to_contain_text("Remove the protection of alpha?")
    expect(details.get_by_role("button", name="Remove protection")).to_be_focused()
    assert alpha.service.get("/api/protections").json()["total"] == 1
    page.keyboard.press("Enter")

    expect(get_row(page).locator(".protection")).to_be_empty()
    expect(get_row(page).locator(".buttons button")).to_have_text(["Stop", "Restart"])
    expect(details.get_by_role("button", name="Protect alpha…")).to_be_focused()


def test_a_refresh_keeps_a_reason_that_is_being_typed(alpha: Panel, visit: Visit) -> None:
    page = visit()
    details = open_details(page)
    details.get_by_role("button", name="Protect alpha…").click()
    page.keyboard.type("the de")
    alpha.set("a", name="aleph")
    alpha.sync()

    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    expect(get_row(page)).to_contain_text("aleph")
    expect(details.get_by_label("Why is it protected?")).to_have_value("the de")
    expect(details.get_by_label("Why is it protected?")).to_be_focused()


def test_what_another_protects_is_seen_with_the_next_refresh(alpha: Panel, visit: Visit) -> None:
    page = visit()
    page.get_by_role("checkbox", name="Select all").check()
    expect(page.locator("#selection [data-kind=stop]")).to_have_text("Stop 2")
    protect(alpha, "the demo")

    page.get_by_role("button", name="Refresh data").click()

    expect(get_row(page)).to_contain_text("🔒 protected: the demo")
    expect(page.locator("#selection [data-kind=stop]")).to_have_text("Stop 1")


def test_without_a_script_protections_are_there_to_read(alpha: Panel, visit: Visit) -> None:
    protect(alpha, HOSTILE["markup"])

    page = visit(java_script_enabled=False)

    expect(page.locator("#instances tbody tr").filter(has_text="alpha")).to_contain_text(
        f"🔒 protected: {HOSTILE['markup']}"
    )


def test_a_hostile_reason_is_text(alpha: Panel, visit: Visit) -> None:
    protect(alpha, HOSTILE["markup"])

    page = visit()

    expect(get_row(page)).to_contain_text(f"🔒 protected: {HOSTILE['markup']}")
    expect(open_details(page)).to_contain_text(HOSTILE["markup"])
    assert page.locator("#instances :is(img, script)").count() == 0
