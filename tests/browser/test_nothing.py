"""Four kinds of nothing, each with its own look and its own way out; and old rows that don't pass for fresh ones."""

import signal

from playwright.sync_api import expect

from tests.browser.conftest import Panel, Visit, Witness


def test_an_account_without_instances_says_so(visit: Visit) -> None:
    page = visit()

    expect(page.locator("#nothing")).to_have_text("There are no instances in the account.")
    expect(page.locator("#nothing button")).to_have_count(0)
    expect(page.locator("#figure-total")).to_have_text("0")


def test_a_filter_that_matches_none_leads_back(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit("/?search=nope")
    expect(page.locator("#nothing p")).to_have_text("No instance matches.")

    page.locator("#nothing").get_by_role("button", name="Clear filters").click()

    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#nothing")).to_be_hidden()


def test_an_emptied_cache_is_no_empty_account(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    panel.clear()

    page = visit()

    expect(page.locator("#nothing p")).to_have_text("The cache is empty. A synchronization fills it.")
    expect(page.locator("#nothing button")).to_have_text("Sync now")
    expect(page.locator("#figure-total")).to_have_text("–")
    expect(page.locator("#warnings")).to_contain_text("The cache was cleared")


def test_what_can_not_be_reached_keeps_the_last_rows_and_their_age(
    panel: Panel, visit: Visit, witness: Witness
) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    panel.redis.signal(signal.SIGSTOP)

    page.get_by_role("button", name="Refresh data").click()

    expect(page.locator("#warnings")).to_contain_text("Since")
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#nothing")).to_be_hidden()
    expect(page.locator("#figure-sync")).to_contain_text("ago")


def test_a_page_opened_while_redis_is_away_says_so_and_fills_itself(
    panel: Panel, visit: Visit, witness: Witness
) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha"})
    panel.redis.signal(signal.SIGSTOP)
    page = visit()
    expect(page.locator("#nothing")).to_contain_text("Redis can't be reached")
    expect(page.locator("#figure-redis")).to_have_text("down")
    expect(page.locator("#figure-total")).to_have_text("–")

    panel.redis.signal(signal.SIGCONT)

    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#figure-redis")).to_have_text("up")


def test_stale_data_says_of_when_it_is(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    panel.age(hours=1)

    page = visit()

    expect(page.locator("#warnings")).to_contain_text("The data is stale")
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#figure-sync")).to_have_text("1 h ago")
