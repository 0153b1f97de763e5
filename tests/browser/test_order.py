"""The page's script sorts and searches as the server does; and a press on a form of the API's pages stops nothing."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Panel, Visit, Witness
from tests.natural_order import NAMES, SEARCHES

NAMES_SHOWN = "#instances tbody th"


@pytest.fixture
def named(panel: Panel) -> Panel:
    panel.hold(*({"id": f"id{(7 * at) % len(NAMES):03}", "name": name} for at, name in enumerate(NAMES)))
    return panel


def test_names_have_the_same_order_with_and_without_the_script(named: Panel, visit: Visit) -> None:
    listed = named.service.get("/api/instances?ordering=name").json()["instances"]
    # An instance without a name is shown by its id.
    shown = [name or "id000" for name in NAMES]

    scripted = visit("/?ordering=name")
    expect(scripted.locator("#instances tbody tr[data-id]")).to_have_count(len(NAMES))
    # The script has drawn the rows once its own order has come back from the other.
    for ordering, names in (("-name", shown[::-1]), ("name", shown)):
        scripted.get_by_role("columnheader", name="Name").get_by_role("link").click()
        expect(scripted).to_have_url(re.compile(f"ordering={ordering}$"))
        expect(scripted.locator(NAMES_SHOWN)).to_have_text(names)
    plain = visit("/?ordering=name", java_script_enabled=False)

    assert [one["name"] for one in listed] == NAMES
    expect(plain.locator(NAMES_SHOWN)).to_have_text(shown)


def test_a_search_finds_the_same_with_and_without_the_script(named: Panel, visit: Visit) -> None:
    page = visit("/?ordering=name")
    for search, found in SEARCHES.items():
        page.locator("input[name=search]").fill(search)
        expect(page.locator("#instances tbody tr[data-id]")).to_have_count(len(found))
        expect(page.locator(NAMES_SHOWN)).to_have_text(found)


@pytest.mark.parametrize("path", ["/api/instances/stop-all", "/api/operations"])
def test_one_press_on_a_form_that_stops_many_stops_nothing(
    panel: Panel, visit: Visit, witness: Witness, path: str
) -> None:
    # A page of what can only be posted to says so.
    witness.allow("405")
    panel.hold({"id": "a", "status": "running"}, {"id": "b", "status": "running"})
    stops = panel.novita.list_stops()
    page = visit(path)
    assert json.loads(page.locator("textarea").input_value())["dryRun"] is True

    page.get_by_role("button", name="POST").click()

    expect(page.locator(".response-info")).to_contain_text("Would stop")
    assert panel.novita.list_stops() == stops
    assert panel.list_operations() == []
