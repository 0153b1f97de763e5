"""A login that changes in another tab: the buttons of the first tab still work, or it says what to do before they
are needed; never does it act as somebody else.
"""

import re

import pytest
from playwright.sync_api import BrowserContext, Page, Request, expect

from tests.browser.conftest import Panel
from tests.browser.test_refresh import SET_VISIBILITY
from tests.browser.test_roles import PASSWORD, context, guarded_panel, log_in  # noqa: F401 - fixtures

NOTICE = "#login-notice"


@pytest.fixture
def page(context: BrowserContext, guarded_panel: Panel) -> Page:  # noqa: F811 - the fixtures
    """The dashboard of the admin."""
    page = log_in(context, "admin")
    expect(page.get_by_role("row", name="trainer")).to_be_visible()
    return page


def log_out(context: BrowserContext) -> Page:  # noqa: F811 - the fixture
    tab = context.new_page()
    tab.goto("/")
    tab.get_by_role("button", name="Log out").click()
    expect(tab.get_by_role("button", name="Log in")).to_be_visible()
    return tab


def log_in_again(context: BrowserContext, name: str = "admin") -> None:  # noqa: F811 - the fixture
    """Log out and in again in a second tab."""
    log_out(context).close()
    tab = log_in(context, name)
    expect(tab.get_by_role("row", name="trainer")).to_be_visible()
    tab.close()


def come_back(page: Page) -> None:
    page.evaluate(SET_VISIBILITY, True)
    page.evaluate(SET_VISIBILITY, False)


def press_sync(page: Page) -> None:
    page.get_by_role("button", name="Sync with Novita.ai").click()


def test_after_a_new_login_elsewhere_a_button_works_and_sends_one_more_request(
    context: BrowserContext,  # noqa: F811 - the fixture
    page: Page,
) -> None:
    log_in_again(context)
    sent: list[str] = []

    def note(request: Request) -> None:
        if request.method == "POST":
            sent.append(request.url)

    page.on("request", note)
    press_sync(page)

    expect(page.locator("#status")).to_have_text(re.compile(r"^1 instance: "))
    assert len(sent) == 2
    expect(page.locator(NOTICE)).to_be_empty()


def test_a_request_that_stays_refused_is_sent_twice_and_no_more(page: Page) -> None:
    sent = []
    answer = {"success": False, "code": "CSRF_FAILED", "message": "Nothing was done.", "suggestion": "Reload the page."}
    page.route("**/sync", lambda route: (sent.append(1), route.fulfill(status=403, json=answer)))

    press_sync(page)

    expect(page.locator("#status")).to_have_text("Nothing was done. Reload the page.")
    assert len(sent) == 2


def test_a_page_whose_login_ended_says_so_before_a_button_is_needed(
    context: BrowserContext,  # noqa: F811 - the fixture
    page: Page,
) -> None:
    log_out(context).close()

    come_back(page)

    expect(page.locator(NOTICE)).to_have_text("You are logged out. Log in again.")
    expect(page.locator("#warnings")).to_contain_text("you are logged out")
    expect(page.get_by_role("row", name="trainer")).to_be_visible()
    press_sync(page)
    expect(page.locator("#status")).to_have_text("You are logged out. Log in again.")
    page.get_by_role("link", name="Log in again").click()
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("row", name="trainer")).to_be_visible()


def test_a_page_whose_login_came_back_elsewhere_recovers_by_itself(
    context: BrowserContext,  # noqa: F811 - the fixture
    page: Page,
) -> None:
    log_out(context).close()
    come_back(page)
    expect(page.locator(NOTICE)).to_contain_text("You are logged out.")
    page.get_by_role("button", name="Refresh data").click()
    # The reason stands in the banner and, with the way to log in, in the notice.
    expect(page.locator("#status-error")).to_have_text("Not refreshed.")
    expect(page.locator("#warnings")).to_contain_text("you are logged out")
    expect(log_in(context, "admin").get_by_role("row", name="trainer")).to_be_visible()

    come_back(page)

    expect(page.locator(NOTICE)).to_be_empty()
    expect(page.locator("#warnings")).to_be_empty()
    expect(page.locator("#status")).to_be_empty()


def test_a_page_never_acts_as_somebody_else(
    context: BrowserContext,  # noqa: F811 - the fixture
    page: Page,
    guarded_panel: Panel,  # noqa: F811 - the fixture
) -> None:
    log_in_again(context, "operator")
    stops = guarded_panel.novita.count_calls("stop")

    page.get_by_role("button", name="Stop trainer").click()
    page.get_by_role("button", name="Stop it").click()

    message = page.get_by_role("row", name="trainer").locator(".message")
    expect(message).to_have_text("Nothing was done. You are now logged in as operator. Reload the page.")
    expect(page.locator(NOTICE)).to_contain_text("You are now logged in as operator.")
    assert guarded_panel.novita.count_calls("stop") == stops
    page.get_by_role("link", name="Reload the page").click()
    expect(page.get_by_role("button", name="Stop all")).to_be_hidden()
    expect(page.locator(NOTICE)).to_be_empty()


def test_somebody_else_is_noticed_before_a_button_is_needed(
    context: BrowserContext,  # noqa: F811 - the fixture
    page: Page,
) -> None:
    log_in_again(context, "viewer")

    come_back(page)

    expect(page.locator(NOTICE)).to_contain_text("You are now logged in as viewer.")


def test_a_form_of_the_records_survives_a_new_login_with_what_was_typed(
    context: BrowserContext,  # noqa: F811 - the fixture
    page: Page,
) -> None:
    page.goto("/admin/instances/token/add/")
    page.get_by_label("Name").fill("the script")
    log_in_again(context)

    with page.expect_response("**/api/session"):
        come_back(page)
    page.get_by_label("User").select_option("admin")
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.locator("#content")).to_contain_text("the script")
    expect(page.get_by_role("heading", name="Nothing was done")).to_have_count(0)


def test_a_form_that_is_refused_says_what_to_do_and_keeps_what_was_typed(
    context: BrowserContext,  # noqa: F811 - the fixture
    page: Page,
) -> None:
    page.goto("/admin/instances/token/add/")
    page.get_by_label("Name").fill("the script")
    page.get_by_label("User").select_option("admin")
    log_in_again(context)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="Nothing was done")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("CSRF")

    with page.expect_response("**/api/session"):
        page.get_by_role("link", name="Go back").click()

    expect(page.get_by_label("Name")).to_have_value("the script")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="Nothing was done")).to_have_count(0)
    expect(page.locator("#content")).to_contain_text("the script")
