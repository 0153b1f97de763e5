"""A login that changes in another tab: buttons of the first tab still work, or the page says what to do; it never acts
as another user.
"""

import pytest
from playwright.sync_api import BrowserContext, Page, Request, expect

from tests.browser.conftest import PASSWORD, Panel, log_in, open_tab, open_visitor_menu, send_login, send_logout
from tests.browser.test_refresh import SET_VISIBILITY

pytestmark = pytest.mark.xdist_group("browser 3")

NOTICE = "#login-notice"


@pytest.fixture
def page(context: BrowserContext, guarded_panel: Panel) -> Page:
    """The dashboard with an admin logged in."""
    page = log_in(context, "admin")
    expect(page.get_by_role("row", name="trainer")).to_be_visible()
    return page


def log_in_again(context: BrowserContext, name: str = "admin") -> None:
    """Log out and in again, as another tab would."""
    send_logout(context)
    send_login(context, name)


def fill_in(page: Page) -> None:
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def come_back(page: Page) -> None:
    page.evaluate(SET_VISIBILITY, True)
    page.evaluate(SET_VISIBILITY, False)


def press_sync(page: Page) -> None:
    page.get_by_role("button", name="Sync with Novita.ai").click()


def test_button_works_after_a_new_login_in_another_tab(
    context: BrowserContext,
    page: Page,
) -> None:
    tab = open_tab(context)
    tab.goto("/")
    open_visitor_menu(tab)
    tab.get_by_role("button", name="Log out").click()
    fill_in(tab)
    expect(tab.get_by_role("row", name="trainer")).to_be_visible()
    sent: list[str] = []

    def note(request: Request) -> None:
        if request.method == "POST":
            sent.append(request.url)

    page.on("request", note)
    press_sync(page)

    expect(page.locator("#status")).to_contain_text("Synchronized: 1 instance")
    assert len(sent) == 2
    expect(page.locator(NOTICE)).to_be_empty()


def test_request_with_refused_token_is_sent_twice_at_most(page: Page) -> None:
    sent = []
    answer = {"success": False, "code": "CSRF_FAILED", "message": "Nothing was done.", "suggestion": "Reload the page."}
    page.route("**/sync", lambda route: (sent.append(1), route.fulfill(status=403, json=answer)))

    press_sync(page)

    expect(page.locator("#status")).to_have_text("Nothing was done. Reload the page.")
    assert len(sent) == 2


def test_ended_login_is_shown_before_a_button_is_pressed(
    context: BrowserContext,
    page: Page,
) -> None:
    send_logout(context)

    come_back(page)

    expect(page.locator(NOTICE)).to_have_text("You are logged out. Log in again.")
    expect(page.locator("#live")).to_contain_text("Logged out since")
    expect(page.get_by_role("row", name="trainer")).to_be_visible()
    press_sync(page)
    expect(page.locator("#status")).to_have_text("You are logged out. Log in again.")
    page.get_by_role("link", name="Log in again").click()
    fill_in(page)
    expect(page.get_by_role("row", name="trainer")).to_be_visible()


def test_button_of_a_paused_page_shows_that_the_login_has_ended(
    context: BrowserContext,
    page: Page,
) -> None:
    page.get_by_role("button", name="Pause refresh").click()
    # Closing another tab would show this one again, which checks the login, too.
    context.clear_cookies()

    # This button, when it is refused, refreshes nothing.
    page.get_by_role("button", name="Clear cache").click()
    page.get_by_role("button", name="Clear cache").last.click()

    expect(page.locator("#status")).to_have_text("You are logged out. Log in again.")
    expect(page.locator(NOTICE)).to_have_text("You are logged out. Log in again.")


def test_page_shows_the_buttons_of_a_changed_role(page: Page) -> None:
    expect(page.get_by_role("button", name="Stop all")).to_be_visible()
    page.route("**/api/session", lambda route: route.fulfill(json={**route.fetch().json(), "role": "viewer"}))

    come_back(page)

    expect(page.get_by_role("button", name="Stop all")).to_be_hidden()


def test_page_recovers_after_a_login_in_another_tab(
    context: BrowserContext,
    page: Page,
) -> None:
    send_logout(context)
    come_back(page)
    expect(page.locator(NOTICE)).to_contain_text("You are logged out.")
    page.get_by_role("button", name="Refresh data").click()
    # The notice has the reason, and a link to log in.
    expect(page.locator("#status-error")).to_have_text("Not refreshed.")
    expect(page.locator("#live")).to_contain_text("Logged out since")
    send_login(context, "admin")

    come_back(page)

    expect(page.locator(NOTICE)).to_be_empty()
    expect(page.locator("#warnings")).to_be_empty()
    expect(page.locator("#status")).to_be_empty()


def test_page_never_acts_as_another_user(
    context: BrowserContext,
    page: Page,
    guarded_panel: Panel,
) -> None:
    log_in_again(context, "operator")
    stops = guarded_panel.novita.count_calls("stop")

    page.get_by_role("button", name="Stop trainer").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()

    message = page.get_by_role("row", name="trainer").locator(".message")
    expect(message).to_have_text("Nothing was done. You are now logged in as operator. Reload the page.")
    expect(page.locator(NOTICE)).to_contain_text("You are now logged in as operator.")
    assert guarded_panel.novita.count_calls("stop") == stops
    page.get_by_role("link", name="Reload the page").click()
    expect(page.get_by_role("button", name="Stop all")).to_be_hidden()
    expect(page.locator(NOTICE)).to_be_empty()


def test_changed_user_is_shown_before_a_button_is_pressed(
    context: BrowserContext,
    page: Page,
) -> None:
    log_in_again(context, "viewer")

    come_back(page)

    expect(page.locator(NOTICE)).to_contain_text("You are now logged in as viewer.")


def test_admin_form_survives_a_new_login_in_another_tab(
    context: BrowserContext,
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


def test_form_restored_by_the_browser_gets_the_new_token(
    context: BrowserContext,
    page: Page,
) -> None:
    """A browser may restore a page whole, as Chromium does outside of tests."""
    page.goto("/admin/instances/token/add/")
    token = page.locator("#token_form [name=csrfmiddlewaretoken]")
    old = token.input_value()
    log_in_again(context)

    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")

    expect(token).not_to_have_value(old)


def test_refused_admin_form_names_the_remedy_and_keeps_typed_text(
    context: BrowserContext,
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


def test_way_back_works_in_a_tab_without_a_history(
    context: BrowserContext,
    page: Page,
) -> None:
    page.goto("/admin/instances/token/add/")
    page.get_by_label("Name").fill("the script")
    page.get_by_label("User").select_option("admin")
    page.evaluate("document.getElementById('token_form').target = '_blank'")
    log_in_again(context)
    with page.expect_popup() as opened:
        page.get_by_role("button", name="Save", exact=True).click()
    tab = opened.value

    tab.get_by_role("link", name="Go back").click()

    expect(tab.get_by_label("Name")).to_be_visible()
