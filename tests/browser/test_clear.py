"""A cleared cache: the page keeps the time of the last synchronization, and has its rows again within seconds."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Panel, Visit, confirm
from tests.system.processes import Novita, ended, wait_until

pytestmark = pytest.mark.xdist_group("browser 1")


@pytest.fixture(scope="module")
def shared_panel(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path, simulated_novita: Novita
) -> Iterator[Panel]:
    """A panel that synchronizes every hour, and has just done so."""
    simulated_novita.change(remove=list(simulated_novita.get_truth()))
    simulated_novita.change(add=[{"id": "a", "name": "alpha"}, {"id": "b", "name": "beta"}])
    folder = tmp_path_factory.mktemp("filling")
    with ended(Panel(folder, migrated_database, simulated_novita, NOVITA_SYNC_INTERVAL="3600")) as panel:
        yield panel.service.wait_until_ready() and panel


@pytest.fixture
def panel(shared_panel: Panel) -> Panel:
    wait_until(lambda: len(shared_panel.service.list_ids()) == 2, "the copy is there")
    return shared_panel


def clear(page: Page) -> None:
    page.get_by_role("button", name="Clear cache").click()
    confirm(page)


def test_cleared_cache_is_filled_within_seconds(panel: Panel, visit: Visit) -> None:
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(2)

    clear(page)

    expect(page.locator("#status")).to_have_text(
        "Cleared 2 instances from the cache, and synchronized again: 2 instances.", timeout=8000
    )
    expect(page.locator("tr[data-id]")).to_have_count(2)
    expect(page.locator("#warnings p")).to_have_count(0)


def test_cleared_cache_keeps_age_of_last_synchronization(panel: Panel, visit: Visit) -> None:
    page = visit()
    expect(page.locator("#figure-sync")).to_have_text(re.compile(" ago$"))
    panel.novita.fault("list", "status", status=503)

    clear(page)

    expect(page.locator("#figure-total")).to_have_text("–")
    expect(page.locator("#figure-sync")).to_have_text(re.compile(" ago$"))
    expect(page.locator("#status")).to_have_text(
        "Cleared 2 instances from the cache. The next synchronization fills it."
    )
    panel.novita.clear_faults()
