"""Empty lists: four causes, each with its own text and remedy. Old rows are marked as old."""

import re
import signal

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Panel, Visit, Witness

pytestmark = pytest.mark.xdist_group("browser 2")


def test_account_without_instances_says_so(visit: Visit) -> None:
    page = visit()

    expect(page.locator("#nothing p")).to_have_text("There are no instances in the account.")
    expect(page.locator("#nothing button")).to_have_text("Sync now")
    expect(page.locator("#figure-total")).to_have_text("0")


def test_filter_without_matches_offers_to_clear_it(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit("/?search=nope")
    expect(page.locator("#nothing p")).to_have_text("No instances match.")

    page.locator("#nothing").get_by_role("button", name="Clear filters").click()

    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#nothing")).to_be_hidden()


def test_empty_cache_differs_from_an_empty_account(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    panel.clear()

    page = visit()

    expect(page.locator("#nothing p")).to_have_text("The cache is empty. A synchronization fills it.")
    expect(page.locator("#nothing button")).to_have_text("Sync now")
    expect(page.locator("#figure-total")).to_have_text("–")
    expect(page.locator("#warnings")).to_contain_text("The cache was cleared")


def test_outage_keeps_last_rows_and_their_age(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    panel.redis.signal(signal.SIGSTOP)

    page.get_by_role("button", name="Refresh data").click()

    expect(page.locator("#figure-redis")).to_have_text("down")
    expect(page.locator("#warnings p")).to_have_text(
        re.compile(r"^Redis did not answer in time. Stops still work. Check Redis. This list is from \d+:\d+\s[AP]M.$")
    )
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#nothing")).to_be_hidden()
    expect(page.locator("#figure-sync")).to_contain_text("ago")
    # The next attempt says nothing new until it is answered.
    page.route("**/api/overview", lambda _: None)
    with page.expect_request("**/api/overview"):
        page.get_by_role("button", name="Refresh data").click()
    assert page.locator("#live-word").inner_text() == "Redis unreachable"


def test_page_opened_during_a_redis_outage_fills_when_it_ends(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha"})
    panel.redis.signal(signal.SIGSTOP)
    listed: list[str] = []
    page = visit("about:blank")
    page.on("request", lambda request: listed.append(request.url) if "/api/instances" in request.url else None)
    page.goto("/")
    expect(page.locator("#nothing")).to_contain_text("Redis can't be reached")
    expect(page.locator("#warnings")).to_have_text("Redis did not answer in time. Stops still work. Check Redis.")
    expect(page.locator("#figure-redis")).to_have_text("down")
    expect(page.locator("#figure-total")).to_have_text("–")
    # The strip of an operation, which can't be read.
    expect(page.get_by_role("button", name="Dismiss")).to_be_hidden()
    # A list that can't be read is not requested.
    assert listed == []

    panel.redis.signal(signal.SIGCONT)

    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#figure-redis")).to_have_text("up")


def test_stale_data_shows_its_age(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    panel.age(hours=1)

    page = visit()

    expect(page.locator("#warnings")).to_contain_text("The data is stale")
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#figure-sync")).to_have_text("1 h ago")
