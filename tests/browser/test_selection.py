"""The selection: it survives filters and refreshes, and its buttons count the instances they apply to."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Panel, Visit

pytestmark = pytest.mark.xdist_group("browser with a worker")

ROWS = [
    {"id": "a", "name": "alpha", "instancePrice": "100000", "gpuNum": "1"},
    {"id": "b", "name": "beta", "instancePrice": "250000", "gpuNum": "1"},
    {"id": "c", "name": "gamma", "status": "exited"},
    {"id": "d", "name": "delta", "status": "exited"},
]


@pytest.fixture(scope="module")
def shared_panel(working_panel: Panel) -> Panel:
    return working_panel


@pytest.fixture
def rows(panel: Panel) -> Panel:
    panel.hold(*ROWS)
    return panel


def choose(page: Page, *names: str) -> None:
    for name in names:
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()


def get_words(page: Page) -> Locator:
    return page.locator("#selection").get_by_role("status")


def list_chosen(page: Page) -> list[str]:
    return page.locator("tr[data-id]:has(input:checked) th").all_inner_texts()


def test_bar_shows_only_while_instances_are_selected(rows: Panel, visit: Visit) -> None:
    page = visit()
    expect(page.get_by_role("button", name="Clear selection")).to_be_hidden()

    choose(page, "alpha", "beta")

    expect(get_words(page)).to_have_text("2 selected · $3.50/h")
    table = page.locator("#instances").bounding_box()
    page.get_by_role("button", name="Clear selection").click()
    expect(get_words(page)).to_be_empty()
    expect(page.get_by_role("button", name="Clear selection")).to_be_hidden()
    expect(page.get_by_role("checkbox", name="Select all 4 that match")).to_be_focused()
    assert list_chosen(page) == []
    # The bar moves nothing.
    assert page.locator("#instances").bounding_box() == table


def test_hidden_instances_stay_selected_and_are_counted(rows: Panel, visit: Visit) -> None:
    page = visit("/?ordering=name")
    choose(page, "alpha", "beta", "gamma")

    page.get_by_role("link", name="Running 2").click()
    expect(get_words(page)).to_have_text(re.compile(r"^3 selected · \S+, 1 of them hidden by the filter$"))
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    page.get_by_role("button", name="Clear filters").click()

    expect(get_words(page)).to_have_text(re.compile(r"^3 selected · \S+$"))
    assert list_chosen(page) == ["gamma", "beta", "alpha"]


def test_refresh_keeps_selection_without_removed_instances(rows: Panel, visit: Visit) -> None:
    page = visit()
    choose(page, "alpha", "beta", "gamma")
    rows.novita.change(remove=["b"], set={"a": {"name": "aleph"}})
    rows.sync()

    page.get_by_role("button", name="Refresh data").click()

    expect(get_words(page)).to_contain_text("2 selected ·")
    assert sorted(list_chosen(page)) == ["aleph", "gamma"]


def test_heading_box_selects_all_matches(rows: Panel, visit: Visit) -> None:
    page = visit("/?group=running")
    heading = page.locator("thead").get_by_role("checkbox")
    choose(page, "alpha")
    assert heading.evaluate("box => box.indeterminate")

    heading.click()

    expect(get_words(page)).to_contain_text("2 selected ·")
    expect(heading).to_have_accessible_name("Select all 2 that match")
    assert heading.evaluate("box => box.checked && !box.indeterminate")
    page.get_by_role("button", name="Clear filters").click()
    expect(get_words(page)).to_contain_text("2 selected ·")
    assert heading.evaluate("box => box.indeterminate")


def test_heading_box_selects_matches_on_other_pages(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"id": f"id{number:03}", "name": f"vm-{number:03}"} for number in range(150)))
    page = visit("/?ordering=name")
    expect(page.locator("tr[data-id]")).to_have_count(100)

    page.locator("thead").get_by_role("checkbox").check()

    expect(get_words(page)).to_have_text(re.compile("^150 selected · .*, 50 on other pages$"))
    page.get_by_role("link", name="Next").click()
    expect(get_words(page)).to_have_text(re.compile("^150 selected · .*, 100 on other pages$"))
    assert len(list_chosen(page)) == 50


def test_shift_selects_a_range(rows: Panel, visit: Visit) -> None:
    page = visit("/?ordering=name")
    choose(page, "alpha")

    page.get_by_role("checkbox", name="Select delta").click(modifiers=["Shift"])

    expect(get_words(page)).to_contain_text("3 selected ·")
    assert list_chosen(page) == ["alpha", "beta", "delta"]


def test_each_button_counts_the_instances_it_applies_to(rows: Panel, visit: Visit) -> None:
    page = visit()
    choose(page, "alpha", "beta", "gamma")
    buttons = page.locator(".selection-buttons").get_by_role("button")
    expect(buttons).to_have_text(["Start 1", "Stop 2", "Restart 2", "Set owner…", "Clear selection"])

    page.get_by_role("checkbox", name="Select gamma").uncheck()

    start = page.get_by_role("button", name="Start 0")
    expect(start).to_have_attribute("aria-disabled", "true")
    expect(start).to_have_accessible_description("None of the selected instances can be started now.")
    start.click(force=True)
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_two_presses_stop_only_selected_instances(rows: Panel, visit: Visit) -> None:
    page = visit()
    choose(page, "alpha", "gamma")

    page.get_by_role("button", name="Stop 1").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 instance will be stopped:")
    expect(dialog.get_by_role("list", name="1 skipped")).to_contain_text("gamma Already stopped.")
    expect(dialog.get_by_label("Enter")).to_be_hidden()
    expect(dialog.get_by_role("button", name="Stop 1 instance")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.locator("#operation-summary")).to_contain_text(re.compile("^All 2 are stopped. Verified at"))
    truth = rows.novita.get_truth()
    assert {instance_id: truth[instance_id]["status"] for instance_id in "ab"} == {"a": "exited", "b": "running"}


@pytest.mark.parametrize(
    ("action", "name", "done"), [("Start", "gamma", "is running"), ("Restart", "alpha", "has restarted")]
)
def test_selected_instances_are_started_and_restarted(
    rows: Panel, visit: Visit, action: str, name: str, done: str
) -> None:
    page = visit()
    choose(page, name)

    page.get_by_role("button", name=f"{action} 1").click()
    page.get_by_role("dialog").get_by_role("button", name=f"{action} 1 instance").click()

    expect(page.locator("#operation-summary")).to_contain_text(f"The instance {done}. Verified at")


def test_selection_works_by_keyboard(rows: Panel, visit: Visit) -> None:
    page = visit("/?ordering=name")
    page.get_by_role("checkbox", name="Select alpha").focus()

    page.keyboard.press("Space")
    expect(get_words(page)).to_contain_text("1 selected ·")
    page.get_by_role("button", name="Stop 1").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop 1 instance")).to_be_focused()
    page.keyboard.press("Escape")

    expect(page.get_by_role("button", name="Stop 1", exact=True)).to_be_focused()
    assert rows.list_operations() == []
    page.keyboard.press("Escape")
    expect(get_words(page)).to_be_empty()


def test_selection_is_absent_without_script(rows: Panel, visit: Visit) -> None:
    page = visit(java_script_enabled=False)

    expect(page.locator("#instances tbody tr")).to_have_count(4)
    expect(page.locator("[type=checkbox]:visible")).to_have_count(0)
    expect(page.get_by_role("button", name="Stop all")).to_be_hidden()
