"""Protection: a protected instance shows the reason and offers no stop until the protection is removed."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Panel, Visit
from tests.browser.test_table import HOSTILE

pytestmark = pytest.mark.xdist_group("browser 2")


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


def test_protected_row_shows_reason_and_offers_no_stop(alpha: Panel, visit: Visit) -> None:
    protect(alpha, "the demo of Friday")

    page = visit()

    expect(get_row(page)).to_contain_text("🔒 Protected: the demo of Friday")
    expect(get_row(page).locator(".buttons button")).to_have_count(0)
    expect(page.locator("tr[data-id=b] .buttons button")).to_have_text(["Stop", "Restart"])
    expect(page.locator("tr[data-id=b] .protection")).to_be_empty()


def test_stopped_protected_instance_can_be_started(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha", "status": "exited"})
    protect(panel, "the demo")

    page = visit()

    expect(get_row(page)).to_contain_text("🔒 Protected")
    expect(get_row(page).locator(".buttons button")).to_have_text(["Start"])


def test_instance_is_protected_with_a_reason(alpha: Panel, visit: Visit) -> None:
    page = visit()
    details = open_details(page)

    details.get_by_role("button", name="Protect alpha…").click()
    expect(details.get_by_label("Reason for the protection")).to_be_focused()
    page.keyboard.type("the demo")
    page.keyboard.press("Enter")

    expect(get_row(page)).to_contain_text("🔒 Protected: the demo")
    expect(get_row(page).locator(".message")).to_have_text("alpha is protected.")
    expect(details).to_contain_text(re.compile("Protected by .* at .*: the demo"))
    expect(page.get_by_role("button", name="Remove protection from alpha")).to_be_focused()
    assert alpha.service.get("/api/protections").json()["protections"][0]["reason"] == "the demo"


def test_protection_requires_a_reason(alpha: Panel, visit: Visit) -> None:
    page = visit()
    details = open_details(page)
    details.get_by_role("button", name="Protect alpha…").click()

    page.keyboard.type("  ")
    details.get_by_role("button", name="Protect", exact=True).click()

    expect(get_row(page).locator(".message")).to_have_text("Enter a reason for the protection.")
    expect(details.get_by_label("Reason for the protection")).to_be_focused()
    page.keyboard.press("Escape")
    expect(details.get_by_role("button", name="Protect alpha…")).to_be_focused()
    assert alpha.service.get("/api/protections").json()["total"] == 0


def test_removing_protection_requires_confirmation(alpha: Panel, visit: Visit) -> None:
    protect(alpha, "the demo")
    page = visit()
    details = open_details(page)

    details.get_by_role("button", name="Remove protection from alpha").click()
    expect(details).to_contain_text("Remove protection from alpha?")
    expect(details.get_by_role("button", name="Remove protection", exact=True)).to_be_focused()
    assert alpha.service.get("/api/protections").json()["total"] == 1
    page.keyboard.press("Enter")

    expect(get_row(page).locator(".protection")).to_be_empty()
    expect(get_row(page).locator(".buttons button")).to_have_text(["Stop", "Restart"])
    expect(details.get_by_role("button", name="Protect alpha…")).to_be_focused()


def test_refresh_keeps_a_half_typed_reason(alpha: Panel, visit: Visit) -> None:
    page = visit()
    details = open_details(page)
    details.get_by_role("button", name="Protect alpha…").click()
    page.keyboard.type("the de")
    alpha.set("a", name="aleph")
    alpha.sync()

    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    expect(get_row(page)).to_contain_text("aleph")
    expect(details.get_by_label("Reason for the protection")).to_have_value("the de")
    expect(details.get_by_label("Reason for the protection")).to_be_focused()


def test_refresh_shows_protection_added_elsewhere(alpha: Panel, visit: Visit) -> None:
    page = visit()
    page.get_by_role("checkbox", name="Select all").check()
    expect(page.locator("#selection [data-kind=stop]")).to_have_text("Stop 2")
    protect(alpha, "the demo")

    page.get_by_role("button", name="Refresh data").click()

    expect(get_row(page)).to_contain_text("🔒 Protected: the demo")
    expect(page.locator("#selection [data-kind=stop]")).to_have_text("Stop 1")


def test_protections_are_readable_without_script(alpha: Panel, visit: Visit) -> None:
    protect(alpha, HOSTILE["markup"])

    page = visit(java_script_enabled=False)

    expect(page.locator("#instances tbody tr").filter(has_text="alpha")).to_contain_text(
        f"🔒 Protected: {HOSTILE['markup']}"
    )


def test_hostile_reason_stays_text(alpha: Panel, visit: Visit) -> None:
    protect(alpha, HOSTILE["markup"])

    page = visit()

    expect(get_row(page)).to_contain_text(f"🔒 Protected: {HOSTILE['markup']}")
    expect(open_details(page)).to_contain_text(HOSTILE["markup"])
    assert page.locator("#instances :is(img, script)").count() == 0
