"""What a person sees and does on the dashboard: the figures, the actions on the whole account and on a row."""

import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Panel, Visit, Witness


def get_row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader").filter(has_text=name))


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_four_figures_tell_how_it_stands(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "a"}, {"name": "b"}, {"name": "c", "status": "exited"})

    page = visit()

    expect(page.locator("#figure-total")).to_have_text("3")
    expect(page.locator("#figure-running")).to_have_text("2")
    expect(page.locator("#figure-redis")).to_have_text("up")
    expect(page.locator("#figure-sync")).to_have_text(re.compile(r"^\d+ s ago$"))


def test_the_age_of_the_copy_counts_up_by_itself(panel: Panel, visit: Visit) -> None:
    page = visit()
    expect(page.locator("#figure-sync")).to_have_text(re.compile(r"^\d+ s ago$"))
    age = page.locator("#figure-sync").inner_text()

    expect(page.locator("#figure-sync")).not_to_have_text(age)
    expect(page.locator("#figure-sync")).to_have_text(re.compile(r"^\d+ s ago$"))


def test_the_simulated_account_says_what_it_is(visit: Visit) -> None:
    expect(visit().locator(".banner").first).to_contain_text("Simulated account")


def test_a_sync_says_in_words_what_it_did(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"}, {"id": "b", "name": "beta"}, {"id": "c", "name": "gamma"})
    page = visit()
    expect(get_row(page, "gamma")).to_be_visible()
    panel.novita.change(set={"b": {"name": "beth"}}, remove=["c"], add=[{"id": "d", "name": "delta"}])

    press(page, "Sync with Novita.ai")

    expect(page.locator("#status")).to_have_text(
        re.compile(r"^3 instances: 1 new, 1 changed, 1 gone, 1 unchanged, \d+\.\d s\. *$")
    )
    expect(get_row(page, "delta")).to_be_visible()
    expect(get_row(page, "beth")).to_be_visible()
    expect(get_row(page, "gamma")).to_have_count(0)


def test_a_refused_sync_says_why_and_what_to_do(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    page = visit()
    panel.novita.fault("list", "status", status=401)

    press(page, "Sync with Novita.ai")

    expect(page.locator("#status")).to_contain_text("NOVITA_API_KEY")
    expect(page.locator("#status")).to_have_class(re.compile("is-error"))
    expect(page.locator("#warnings")).to_contain_text("Synchronization has been failing since")


def test_a_busy_button_can_not_be_pressed_twice(panel: Panel, visit: Visit) -> None:
    page = visit()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    panel.novita.fault("list", "delay", seconds=1, times=1)

    page.get_by_role("button", name="Sync with Novita.ai").dblclick()

    busy = page.locator("button[aria-busy=true][aria-disabled=true]")
    expect(busy).to_have_text("Sync with Novita.ai")
    expect(page.locator("#status")).to_have_text("Synchronizing with Novita.ai …")
    expect(page.locator("#status")).to_contain_text("0 instances")
    expect(busy).to_have_count(0)
    assert len(sent) == 1


def test_refresh_shows_what_another_changed(panel: Panel, visit: Visit) -> None:
    page = visit()
    expect(page.locator("#nothing")).to_contain_text("no instances")
    panel.hold({"name": "alpha"})

    press(page, "Refresh data")

    expect(page.locator("#status")).to_have_text("Refreshed: 1 instance.")
    expect(get_row(page, "alpha")).to_be_visible()


def test_clearing_the_cache_asks_by_a_second_press_that_names_what_happens(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"}, {"name": "beta"})
    page = visit()
    expect(get_row(page, "beta")).to_be_visible()

    press(page, "Clear cache")
    expect(page.locator("#clear-confirm")).to_contain_text(
        "Clear the copy of 2 instances? The page stays empty until the next synchronization."
    )
    expect(get_row(page, "alpha")).to_be_visible()
    page.locator("#clear-confirm").get_by_role("button").first.click()

    expect(get_row(page, "alpha")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("2")
    expect(page.locator("#figure-total")).to_have_text("–")
    expect(page.locator("#figure-sync")).not_to_contain_text("never")


def test_clearing_can_not_be_pressed_twice(panel: Panel, visit: Visit) -> None:
    page = visit()
    held: list[Route] = []
    page.route("**/api/cache/clear", lambda route: held.append(route))
    press(page, "Clear cache")
    press(page, "Clear it")
    expect(page.locator("button[aria-busy=true]")).to_have_text("Clear cache")

    page.get_by_role("button", name="Clear cache").click(force=True)

    expect(page.locator("#clear-confirm")).to_be_hidden()
    held[0].continue_()
    expect(page.locator("button[aria-busy=true]")).to_have_count(0)
    assert len(held) == 1


def test_an_emptied_cache_is_filled_by_sync_now(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    panel.clear()
    page = visit()

    page.locator("#nothing").get_by_role("button", name="Sync now").click()

    expect(get_row(page, "alpha")).to_be_visible()
    expect(page.locator("#nothing")).to_be_hidden()


@pytest.mark.parametrize(
    ("status", "actions"), [("running", ["Stop", "Restart"]), ("exited", ["Start"]), ("toStop", [])]
)
def test_a_row_offers_what_its_status_allows(panel: Panel, visit: Visit, status: str, actions: list[str]) -> None:
    panel.hold({"name": "alpha", "status": status})

    row = get_row(visit(), "alpha")

    expect(row.locator(".status")).to_have_text(status)
    expect(row.locator(".buttons button")).to_have_text(actions)


def test_a_stop_asks_twice_and_says_what_it_costs(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit()

    stops = panel.novita.count_calls("stop")

    press(page, "Stop alpha")

    row = get_row(page, "alpha")
    expect(row).to_contain_text("Its data is kept 7 days at most, and a restart is not guaranteed")
    expect(row.get_by_role("button", name="Stop it")).to_be_focused()
    assert panel.novita.count_calls("stop") == stops


@pytest.mark.parametrize("question", ["Stop alpha", "Clear cache"])
def test_escape_takes_a_question_back(panel: Panel, visit: Visit, question: str) -> None:
    panel.hold({"name": "alpha"})
    page = visit()
    press(page, question)
    expect(page.locator(".confirm:visible")).to_have_count(1)

    page.keyboard.press("Escape")

    expect(page.locator(".confirm:visible")).to_have_count(0)
    expect(page.get_by_role("button", name=question)).to_be_focused()


def test_a_stop_is_asked_then_moving_then_seen_stopped(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit()
    row = get_row(page, "alpha")
    panel.novita.fault("stop", "delay", seconds=1)

    press(page, "Stop alpha")
    row.get_by_role("button", name="Stop it").click()

    expect(row.locator(".status")).to_have_attribute("data-group", "requested")
    expect(row.locator(".status")).to_have_text("stop asked")
    expect(row.locator(".status")).to_have_attribute("data-group", "stopping")
    expect(row.locator(".message")).to_have_text("Stop initiated for alpha.")
    expect(row.locator(".status")).to_have_attribute("data-group", "stopped")
    expect(row.locator(".status")).to_have_text("exited")
    expect(row.locator(".message")).to_have_text(re.compile("^Seen exited at "))
    expect(row.locator(".buttons button")).to_have_text(["Start"])


def test_a_refusal_shows_its_reason_and_the_suggestion_beside_the_row(
    panel: Panel, visit: Visit, witness: Witness
) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha", "status": "exited"})
    page = visit()
    body = {"code": 400, "reason": "INSUFFICIENT_RESOURCE", "message": "no GPU of this kind is free", "metadata": {}}
    panel.novita.fault("start", "status", status=400, body=body)

    press(page, "Start alpha")

    message = get_row(page, "alpha").locator(".message")
    expect(message).to_have_class(re.compile("is-error"))
    expect(message).to_have_text(
        "Novita has no free GPU for this instance. Try again later, or create an instance in another region."
    )
    expect(get_row(page, "alpha").locator(".status")).to_have_text("exited")
    expect(page.get_by_role("button", name="Start alpha")).not_to_have_attribute("aria-disabled", "true")


def test_an_action_can_not_be_asked_twice(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha", "status": "exited"})
    page = visit()
    panel.novita.fault("start", "delay", seconds=1)
    before = panel.novita.count_calls("start")

    page.get_by_role("button", name="Start alpha").dblclick()

    expect(get_row(page, "alpha").locator(".status")).to_have_attribute("data-group", "starting")
    assert panel.novita.count_calls("start") == before + 1
