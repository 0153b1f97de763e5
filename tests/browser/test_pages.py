"""The pages of an open panel: each obeys its policy, and they link to each other. Behind a login: test_every_page."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Panel, Visit, Witness
from tests.browser.test_every_page import ADVICE, REFUSED, find_kind, make_records, read_all

pytestmark = pytest.mark.xdist_group("browser 2")


def test_every_kind_of_page_obeys_its_policy(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow(REFUSED)
    witness.allow(ADVICE)
    make_records(panel)

    # The records of all models have the same templates, and so have the answers of the API.
    def find_template(path: str) -> str:
        path = re.sub("^/admin/[a-z]+/[a-z]+/", "/admin/*/*/", find_kind(path))
        return re.sub(
            "^/api/(activity|cache|costs|operations|overview|policies|protections|start-freeze)\\b.*", "/api/*", path
        )

    seen = read_all(
        visit(),
        panel.service.url,
        witness,
        find_template,
        # Its scripts take as long as twenty pages; axe reads it without a login.
        except_for="/api/docs",
    )

    assert {"/", "/costs/", "/activity/", "/admin/"} <= seen
    assert [path for path in seen if re.fullmatch("/admin/instances/[a-z]+/", path)]
    assert [path for path in seen if "/change/" in path]


def test_missing_page_links_back(visit: Visit, witness: Witness) -> None:
    witness.allow("status of 404")
    page = visit("/nope")

    page.locator("a[href='/']").first.click()

    expect(page).to_have_title("(0) Novita panel")


def test_dashboard_and_records_link_to_each_other(visit: Visit) -> None:
    page = visit()

    page.get_by_role("link", name="Records").click()
    expect(page.get_by_role("heading", name="Records")).to_be_visible()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Instances").click()
    expect(page).to_have_title("(0) Novita panel")
    expect(page.get_by_role("link", name="API", exact=True)).to_have_attribute("href", "/api/docs")


def test_sync_run_lists_changes_with_old_and_new_values(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"}, {"id": "b", "name": "beta"})
    panel.novita.change(set={"a": {"name": "aleph"}}, remove=["b"], add=[{"id": "c", "name": "gamma"}])
    panel.sync()
    page = visit("/admin/instances/syncrun/")

    page.locator("#result_list tbody th a").first.click()

    for words in ("gamma", "aleph", "name: alpha → aleph", "beta"):
        expect(page.locator("#content")).to_contain_text(words)


def test_sync_can_be_started_from_the_records(panel: Panel, visit: Visit) -> None:
    page = visit("/admin/instances/syncrun/")
    syncs = panel.novita.count_syncs()

    page.get_by_role("button", name="Sync with Novita.ai").click()

    expect(page.locator(".messagelist .success")).to_be_visible()
    assert panel.novita.count_syncs() == syncs + 1


def test_theme_is_chosen_once_for_all_pages(visit: Visit, witness: Witness) -> None:
    witness.allow("status of 404")
    page = visit(color_scheme="light", viewport={"width": 1280, "height": 800})
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.get_by_role("button", name="Theme: automatic").click()

    for path in ("/", "/admin/", "/nope"):
        page.goto(path)
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
