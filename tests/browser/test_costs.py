"""Money on the page: the burn rate, what a stop saves, and an instance's price, owner and project."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Panel, Visit
from tests.browser.test_drawer import open_drawer

pytestmark = pytest.mark.xdist_group("browser 2")

PRICED = {"instancePrice": "35000", "gpuNum": "2", "billingMode": "onDemand"}


@pytest.fixture
def fleet(panel: Panel) -> Panel:
    panel.hold({"id": "a", "name": "alpha", **PRICED}, {"id": "b", "name": "beta", **PRICED, "billingMode": "monthly"})
    return panel


@pytest.mark.usefixtures("fleet")
def test_burn_rate_and_what_a_stop_saves_are_said(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#figure-cost")).to_have_text("$0.70/h")
    expect(page.locator("#figure-day")).to_have_text("≈ $17/day")

    page.get_by_role("button", name="Stop all").click()
    expect(page.locator("#plan-money")).to_have_text("Saves $0.70/h, without 1 prepaid.")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Stop alpha", exact=True).click()

    expect(page.get_by_role("dialog", name="Stop alpha?")).to_contain_text("Saves $0.70/h.")


def test_unknown_prices_are_counted_and_named(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha", "instancePrice": "0", "productId": "gone", "gpuNum": "1"})
    page = visit()
    expect(page.locator("#figure-day")).to_have_text("1 price unknown")

    page.get_by_role("button", name="Stop all").click()

    expect(page.locator("#plan-money")).to_have_text("Saves an unknown amount: no price is known.")


@pytest.mark.usefixtures("fleet")
def test_owner_project_and_note_are_edited_in_the_drawer_unless_escape_closes_the_form(visit: Visit) -> None:
    page = visit()
    section = open_drawer(page).get_by_role("group", name="Owner and project")
    section.get_by_role("button", name="Edit…").click()
    expect(section.get_by_role("textbox", name="Owner")).to_be_focused()
    page.keyboard.press("Escape")
    expect(section.get_by_role("textbox", name="Owner")).to_be_hidden()
    expect(section.get_by_role("button", name="Edit…")).to_be_focused()
    page.keyboard.press("Enter")
    expect(section.get_by_role("textbox", name="Owner")).to_be_focused()

    section.get_by_role("textbox", name="Owner").fill("ada")
    section.get_by_role("textbox", name="Project").fill("llm")
    section.get_by_role("textbox", name="Note").fill("until Friday")
    section.get_by_role("button", name="Save").click()

    expect(section.get_by_role("definition")).to_have_text(["ada", "llm", "until Friday", "local-owner"])
    expect(section.get_by_role("button", name="Edit…")).to_be_focused()


def test_rows_show_and_are_sorted_by_cost(panel: Panel, visit: Visit) -> None:
    panel.hold(
        {"id": "a", "name": "alpha", **PRICED, "instancePrice": "100000"},
        {"id": "b", "name": "beta", **PRICED},
        {"id": "c", "name": "gamma", "instancePrice": "0", "productId": "gone", "gpuNum": "1"},
    )
    page = visit()

    page.get_by_role("link", name="$/h", exact=True).click()

    expect(page.locator("tbody .col-price")).to_have_text(["2.00", "0.70", "unknown"])


@pytest.mark.usefixtures("fleet")
def test_owner_is_set_for_a_selection(visit: Visit) -> None:
    page = visit()
    page.get_by_role("checkbox", name="Select all 2 that match").check()
    page.get_by_role("button", name="Set owner…").click()

    page.locator("#selection-annotation").get_by_role("textbox", name="Owner").fill("ada")
    page.locator("#selection-annotation").get_by_role("button", name="Save").click()

    expect(page.locator("#status-words")).to_have_text("2 instances annotated.")
    expect(open_drawer(page).get_by_role("group", name="Owner and project")).to_contain_text("ada")


def test_rows_are_searched_and_filtered_by_owner(fleet: Panel, visit: Visit) -> None:
    assert fleet.service.session.put(fleet.service.url + "/api/instances/a/annotation", json={"owner": "Grace"}).ok
    page = visit()
    page.get_by_label("Search").fill("grace")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Search").fill("")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Filters").click()
    expect(page.get_by_role("combobox", name="Project")).to_be_hidden()

    page.get_by_role("combobox", name="Owner").select_option("Grace")

    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile("owner=Grace"))
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
