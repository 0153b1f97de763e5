"""The page's script sorts and searches as the server does. A form on an API page stops nothing at the first press."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Panel, Visit, Witness
from tests.natural_order import NAMES, SEARCHES

pytestmark = pytest.mark.xdist_group("browser 2")

NAMES_SHOWN = "#instances tbody th"


@pytest.fixture
def named(panel: Panel) -> Panel:
    panel.hold(*({"id": f"id{(7 * at) % len(NAMES):03}", "name": name} for at, name in enumerate(NAMES)))
    return panel


def test_names_are_sorted_alike_with_and_without_script(named: Panel, visit: Visit) -> None:
    listed = named.service.get("/api/instances?ordering=name").json()["instances"]
    # An instance without a name is shown by its id.
    shown = [name or "id000" for name in NAMES]

    scripted = visit()
    expect(scripted.locator("#instances tbody tr[data-id]")).to_have_count(len(NAMES))
    for ordering, names in (("name", shown), ("-name", shown[::-1])):
        scripted.get_by_role("columnheader", name="Name").get_by_role("link").click()
        expect(scripted).to_have_url(re.compile(f"ordering={ordering}$"))
        expect(scripted.locator(NAMES_SHOWN)).to_have_text(names)
    plain = visit("/?ordering=name", java_script_enabled=False)

    assert [one["name"] for one in listed] == NAMES
    expect(plain.locator(NAMES_SHOWN)).to_have_text(shown)


def test_search_finds_the_same_with_and_without_script(named: Panel, visit: Visit) -> None:
    page = visit("/?ordering=name")
    for search, found in SEARCHES.items():
        page.locator("input[name=search]").fill(search)
        expect(page.locator("#instances tbody tr[data-id]")).to_have_count(len(found))
        expect(page.locator(NAMES_SHOWN)).to_have_text(found)


def test_first_press_on_an_api_form_is_a_dry_run(panel: Panel, visit: Visit, witness: Witness) -> None:
    # The page of a POST-only address is answered by 405.
    witness.allow("405")
    panel.hold({"id": "a", "status": "running"}, {"id": "b", "status": "running"})
    stops = panel.novita.list_stops()
    page = visit("about:blank")
    for path in ("/api/instances/stop-all", "/api/operations"):
        page.goto(path)
        assert json.loads(page.locator("textarea").input_value())["dryRun"] is True, path

        page.get_by_role("button", name="POST").click()

        expect(page.locator(".response-info")).to_contain_text("Would stop")
        assert panel.novita.list_stops() == stops, path
        assert panel.list_operations() == [], path
