"""The bar: one row at every width, the emergency stop within reach, the live state, and the menu."""

import re
import signal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NARROW, Panel, Visit, Witness

pytestmark = pytest.mark.xdist_group("browser 1")


def refresh(page: Page) -> None:
    page.get_by_role("button", name="Refresh data").click()


# Pairs of the bar's parts that stand on each other, with the gap between them.
FIND_OVERLAPS = """() => {
    const parts = [...document.querySelectorAll('.bar > *, #live > *')].filter(one => one.id !== 'live');
    const boxes = parts.map(one => [one.textContent.trim(), one.getBoundingClientRect()])
        .filter(([, box]) => box.width);
    boxes.sort(([, one], [, other]) => one.left - other.left);
    return boxes.slice(1).map(([text, box], at) => [boxes[at][0], text, box.left - boxes[at][1].right])
        .filter(([, , gap]) => gap < 0);
}"""


def test_bar_is_one_row_with_its_parts_at_every_width(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit()
    stop_all = page.get_by_role("button", name="Stop all")
    expect(stop_all).to_contain_text("1 · $")

    for words in ("Live", "Novita unreachable"):
        if words != "Live":
            panel.novita.fault("list", "status", status=503)
            panel.service.post("/api/instances/sync")
        expect(page.locator("#live-word")).to_have_text(words)
        for width in (320, 360, 640, 768, 900, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 740})

            bar = page.get_by_role("banner").bounding_box()
            assert bar and bar["height"] == 48, (words, width)
            assert page.evaluate("document.querySelector('.bar').scrollWidth") <= width, words
            assert page.evaluate(FIND_OVERLAPS) == [], (words, width)
            for part in (stop_all, page.locator("#live-word"), page.get_by_role("banner").get_by_role("link").first):
                expect(part).to_be_in_viewport(ratio=1)


def test_page_whose_list_is_still_loading_keeps_the_true_state(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit("/livez")
    page.route("**/api/instances?*", lambda route: None)

    page.goto("/")

    expect(page.get_by_role("button", name="Pause refresh")).to_be_visible()
    expect(page.locator("#live-word")).to_have_text("Live")


def test_menu_has_the_pages_on_a_phone_and_closes_as_expected(visit: Visit) -> None:
    page = visit(viewport=NARROW)
    menu = page.locator("summary", has_text="Menu")
    records = page.get_by_role("link", name="Records")
    expect(records).to_be_hidden()

    menu.focus()
    page.keyboard.press("Enter")
    expect(records).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(records).to_be_hidden()
    expect(menu).to_be_focused()
    menu.click()
    page.mouse.click(180, 700)
    expect(records).to_be_hidden()
    menu.click()
    page.get_by_role("button", name="Theme: automatic").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    records.click()

    expect(page.get_by_role("heading", name="Records")).to_be_visible()


def test_stop_all_of_another_page_opens_its_dialog(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit("/costs/")

    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Stop all")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.get_by_role("dialog")).to_contain_text("1 instance will be stopped")
    page.reload()
    expect(page.get_by_role("row", name="alpha")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_stop_all_can_be_pressed_although_the_list_has_nothing_to_stop(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha", "status": "exited"})
    page = visit()
    stop_all = page.get_by_role("button", name="Stop all")
    expect(stop_all).to_have_attribute(
        "title", "By this list nothing is to stop: no instance is running. Pressing reads the account anew."
    )
    panel.set("a", status="running")

    stop_all.click()

    expect(page.get_by_role("dialog")).to_contain_text("1 instance will be stopped")


def test_live_state_names_each_trouble_and_its_end(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"id": "a", "name": "alpha"})
    page = visit(viewport={"width": 1280, "height": 800})
    live = page.locator("#live")
    expect(live).to_have_text(re.compile(r"^Live · synced \d+ s ago"))

    panel.novita.fault("list", "status", status=503)
    panel.service.post("/api/instances/sync")
    expect(live).to_contain_text("Novita unreachable · synced")
    panel.novita.clear_faults()
    panel.sync()
    expect(live).to_contain_text("Live · synced", timeout=5000)

    page.context.set_offline(True)
    expect(live).to_contain_text(re.compile(r"Not refreshed since \d+:\d\d"))
    page.context.set_offline(False)
    expect(live).to_contain_text("Live · synced", timeout=5000)

    panel.redis.signal(signal.SIGSTOP)
    expect(live).to_contain_text("Redis unreachable")
    panel.redis.signal(signal.SIGCONT)
    expect(live).to_contain_text("Live · synced", timeout=5000)

    panel.age(hours=1)
    expect(live).to_contain_text("Stale since")
    expect(page.get_by_role("button", name="Stop all")).to_have_text("Stop all… ")


def test_paused_page_says_so_and_resumes_at_once(panel: Panel, visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Pause refresh").click()
    expect(page.locator("#live-word")).to_have_text("Paused")
    panel.hold({"name": "alpha"})

    page.get_by_role("button", name="Resume refresh").click()

    expect(page.locator("#live-word")).to_have_text("Live")
    expect(page.get_by_role("row", name="alpha")).to_be_visible()


def test_page_without_script_says_that_it_is_not_live(panel: Panel, visit: Visit) -> None:
    page = visit(java_script_enabled=False)

    expect(page.locator("#live")).to_contain_text("Not live · synced")
    expect(page.get_by_role("button", name="Stop all")).to_be_hidden()
    expect(page.get_by_role("button", name="Pause refresh")).to_be_hidden()
