"""The dialog that confirms one action: it says what happens, and nothing happens by mistake."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import NARROW, WIDE, Panel, Visit, confirm

pytestmark = pytest.mark.xdist_group("browser 2")

ALPHA = {"id": "a", "name": "alpha", "gpuNum": "2"}


def ask(page: Page, button: str) -> Locator:
    page.get_by_role("button", name=button, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


# The browser tells that a dialog was closed when it has time.
CLOSE_AND_ASK_AGAIN = """async ([close, ask]) => {
    document.querySelector(close).click();
    await null;
    document.querySelector(ask).click();
    await new Promise(done => setTimeout(done, 100));
}"""


def test_question_asked_again_at_once_is_answered(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    ask(page, "Stop alpha")

    page.evaluate(CLOSE_AND_ASK_AGAIN, ["#confirm button[type=button]", "tr[data-id=a] [data-action=stop]"])
    confirm(page)

    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("tr[data-id=a] .message")).to_have_text("Stop requested.")


def test_question_names_instance_price_and_loss(panel: Panel, visit: Visit) -> None:
    prepaid = {"billingMode": "monthly", "status": "exited"}
    unknown = {"instancePrice": "0", "productId": "gone", "gpuNum": "1"}
    panel.hold(ALPHA, {"id": "b", "name": "beta", **prepaid}, {"id": "c", "name": "gamma", **unknown})
    page = visit()
    stops, starts = panel.novita.count_calls("stop"), panel.novita.count_calls("start")

    said = []
    for button in ("Stop alpha", "Start beta", "Stop gamma"):
        dialog = ask(page, button)
        said.append(dialog.inner_text())
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name=button)).to_be_focused()

    assert said[0].startswith("Stop alpha?\n\n2 × ")
    assert "Saves $0.70/h." in said[0]
    assert "Data on local disks may be lost; Novita keeps it for up to 7 days." in said[0]
    assert "Prepaid by the month: starting costs nothing more." in said[1]
    assert "What this saves is not known: its price is unknown." in said[2]
    assert panel.novita.count_calls("stop") == stops
    assert panel.novita.count_calls("start") == starts


def test_second_press_at_the_same_place_confirms_nothing(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"id": f"id-{number:02}", "name": f"vm-{number:02}"} for number in range(30)))
    page = visit("/?ordering=name")
    expect(page.locator("tr[data-id]")).to_have_count(30)
    stops = panel.novita.count_calls("stop")

    for viewport in (WIDE, NARROW):
        page.set_viewport_size(viewport)
        buttons = ask(page, "Stop vm-20").get_by_role("button")
        heights = buttons.evaluate_all("all => all.map(one => one.getBoundingClientRect().top)")
        page.keyboard.press("Escape")

        # A row's button at both ends of the screen, and as high as each of the dialog's own buttons.
        for height in (100, *heights, viewport["height"] - 60):
            button = page.get_by_role("button", name="Stop vm-20")
            button.evaluate("(element, y) => scrollBy(0, element.getBoundingClientRect().top - y)", height)
            place = button.bounding_box()
            assert place
            page.mouse.dblclick(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_be_hidden()

        assert panel.novita.count_calls("stop") == stops, viewport


def test_enter_cancels_and_focus_returns_to_a_row_that_moved(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, {"id": "b", "name": "beta"})
    page = visit("/?ordering=name")
    stops = panel.novita.count_calls("stop")
    ask(page, "Stop alpha")
    panel.set("a", name="zeta")
    panel.sync()
    expect(page.locator("tr[data-id=a]")).to_contain_text("zeta")

    page.keyboard.press("Enter")

    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Stop zeta")).to_be_focused()
    assert panel.novita.count_calls("stop") == stops


def test_focus_returns_to_the_page_when_the_instance_is_gone(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    ask(page, "Stop alpha")
    panel.hold()
    expect(page.locator("tr[data-id=a]")).to_have_count(0)

    page.keyboard.press("Escape")

    expect(page.get_by_role("main")).to_be_focused()


def test_result_changes_no_height_and_goes_away(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit(is_alone=True)
    row = page.locator("tr[data-id=a]")
    before = row.bounding_box()
    page.clock.install()
    page.clock.resume()
    ask(page, "Stop alpha")

    confirm(page)

    expect(row.locator(".message")).to_have_text("Stop requested.")
    expect(row.locator(".message")).to_contain_text("Stopped at")
    assert row.bounding_box() == before
    page.clock.fast_forward(21_000)
    expect(row.locator(".message")).to_have_count(0)
