"""The dashboard: the figures, the toolbar, and the actions of a row."""

import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Panel, Visit, Witness, confirm

pytestmark = pytest.mark.xdist_group("browser 1")


def get_row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader").filter(has_text=name))


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_figures_show_totals_redis_and_an_age_that_counts_up(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "a"}, {"name": "b"}, {"name": "c", "status": "exited"})

    page = visit()

    expect(page.get_by_role("banner")).to_contain_text("Demo data")
    expect(page.locator("#figure-total")).to_have_text("3")
    expect(page.locator("#figure-running")).to_have_text("2")
    expect(page.locator("#figure-redis")).to_have_text("up")
    expect(page.locator("#figure-sync")).to_have_text(re.compile(r"^\d+ s ago$"))
    age = page.locator("#figure-sync").inner_text()
    expect(page.locator("#figure-sync")).not_to_have_text(age)
    expect(page.locator("#figure-sync")).to_have_text(re.compile(r"^\d+ s ago$"))


def test_page_without_script_has_its_rows_even_after_visits_with_one(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    name = visit().locator("#dashboard").get_attribute("data-script-cookie")
    assert name
    page = visit("about:blank", java_script_enabled=False)
    page.context.add_cookies([{"name": name, "value": "1", "url": panel.service.url}])

    page.goto("/")

    expect(page.locator("#instances tbody tr")).to_have_text(re.compile("alpha"))


def test_repeated_visit_transfers_less_than_5_kb(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"name": f"vm-{number}"} for number in range(100)))
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(100)
    sizes: list[float] = []
    session = page.context.new_cdp_session(page)
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    session.send("Network.enable")

    page.goto("/?ordering=name")

    expect(page.locator("tr[data-id] th").first).to_have_text("vm-0")
    assert 0 < sum(sizes) < 5_000


def test_sync_reports_its_changes(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"}, {"id": "b", "name": "beta"}, {"id": "c", "name": "gamma"})
    page = visit()
    expect(get_row(page, "gamma")).to_be_visible()
    panel.novita.change(set={"b": {"name": "beth"}}, remove=["c"], add=[{"id": "d", "name": "delta"}])

    press(page, "Sync with Novita.ai")

    expect(page.locator("#status")).to_have_text(
        re.compile(r"^Synchronized: 3 instances, 1 new, 1 changed, 1 removed, 1 unchanged, in \d+\.\d s\. *$")
    )
    expect(get_row(page, "delta")).to_be_visible()
    expect(get_row(page, "beth")).to_be_visible()
    expect(get_row(page, "gamma")).to_have_count(0)


def test_refused_sync_shows_reason_and_remedy(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    page = visit()
    panel.novita.fault("list", "status", status=401)

    press(page, "Sync with Novita.ai")

    expect(page.locator("#status")).to_contain_text("NOVITA_API_KEY")
    expect(page.locator("#status")).to_have_class(re.compile("is-error"))
    expect(page.locator("#warnings")).to_contain_text("Sync has been failing since")


def test_busy_button_ignores_second_press(panel: Panel, visit: Visit) -> None:
    page = visit()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    panel.novita.fault("list", "delay", seconds=1, times=1)

    page.get_by_role("button", name="Sync with Novita.ai").dblclick()

    busy = page.locator("button[aria-busy=true][aria-disabled=true]")
    expect(busy).to_have_text("Sync with Novita.ai")
    expect(page.locator("#status")).to_have_text("Synchronizing with Novita.ai…")
    expect(page.locator("#status")).to_contain_text("Synchronized: 0 instances")
    expect(busy).to_have_count(0)
    assert len(sent) == 1


def test_refresh_shows_changes_made_elsewhere(panel: Panel, visit: Visit) -> None:
    page = visit()
    expect(page.locator("#nothing")).to_contain_text("no instances")
    panel.hold({"name": "alpha"})

    press(page, "Refresh data")

    expect(page.locator("#status")).to_have_text("Refreshed: 1 instance.")
    expect(get_row(page, "alpha")).to_be_visible()


def test_clearing_the_cache_requires_confirmation_that_names_the_effect(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"}, {"name": "beta"})
    page = visit()
    expect(get_row(page, "beta")).to_be_visible()

    press(page, "Clear cache")
    dialog = page.get_by_role("dialog", name="Clear the cache?")
    expect(dialog).to_contain_text("2 instances cached. The list stays empty until the next synchronization.")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    expect(get_row(page, "alpha")).to_be_visible()
    confirm(page)

    expect(get_row(page, "alpha")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("2")
    expect(page.locator("#figure-total")).to_have_text("–")
    expect(page.locator("#figure-sync")).not_to_contain_text("never")


def test_clear_button_ignores_second_press(panel: Panel, visit: Visit) -> None:
    page = visit()
    held: list[Route] = []
    page.route("**/api/cache/clear", lambda route: held.append(route))
    press(page, "Clear cache")
    confirm(page)
    expect(page.locator("button[aria-busy=true]")).to_have_text("Clear cache")

    page.get_by_role("button", name="Clear cache").click(force=True)

    expect(page.get_by_role("dialog")).to_be_hidden()
    held[0].continue_()
    expect(page.locator("button[aria-busy=true]")).to_have_count(0)
    assert len(held) == 1


def test_sync_now_fills_an_empty_cache(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    panel.clear()
    page = visit()

    page.locator("#nothing").get_by_role("button", name="Sync now").click()

    expect(get_row(page, "alpha")).to_be_visible()
    expect(page.locator("#nothing")).to_be_hidden()


def test_row_offers_only_the_action_that_its_status_allows(panel: Panel, visit: Visit) -> None:
    # Novita's status, the word for people, the button.
    expected = {
        "running": ("Running", ["Stop"]),
        "exited": ("Stopped", ["Start"]),
        "toStop": ("Stopping", []),
        "pulling": ("Pulling image", []),
        "newStatus": ("newStatus", []),
    }
    panel.hold(*({"name": f"vm-{status}", "status": status} for status in expected))
    page = visit()

    for status, (label, actions) in expected.items():
        row = get_row(page, f"vm-{status}")
        expect(row.get_by_title(status, exact=True)).to_have_text(label)
        expect(row.locator(".buttons button")).to_have_text(actions)


def test_stop_requires_confirmation_that_names_the_risk(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit()

    stops = panel.novita.count_calls("stop")

    press(page, "Stop alpha")

    dialog = page.get_by_role("dialog", name="Stop alpha?")
    expect(dialog).to_contain_text("Data on local disks may be lost; Novita keeps it for up to 7 days.")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Stop alpha")).to_be_focused()
    assert panel.novita.count_calls("stop") == stops


def test_stop_shows_requested_then_stopping_then_stopped(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit()
    row = get_row(page, "alpha")
    panel.novita.fault("stop", "delay", seconds=1)

    press(page, "Stop alpha")
    confirm(page)

    expect(row.locator(".status")).to_have_attribute("data-group", "requested")
    expect(row.locator(".status")).to_have_text("Stop requested")
    expect(row.locator(".status")).to_have_attribute("data-group", "stopping")
    expect(row.locator(".message")).to_have_text("Stop requested.")
    expect(row.locator(".status")).to_have_attribute("data-group", "stopped")
    expect(row.locator(".status")).to_have_text("Stopped")
    expect(row.locator(".message")).to_have_text(re.compile(r"^Stopped at \d+:\d\d"))
    expect(row.locator(".buttons button")).to_have_text(["Start"])


def test_refused_action_shows_reason_and_suggestion_in_its_row(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha", "status": "exited"})
    page = visit()
    body = {"code": 400, "reason": "INSUFFICIENT_RESOURCE", "message": "no GPU of this kind is free", "metadata": {}}
    panel.novita.fault("start", "status", status=400, body=body)

    press(page, "Start alpha")
    confirm(page)

    message = get_row(page, "alpha").locator(".message")
    expect(message).to_have_class(re.compile("is-error"))
    expect(message).to_have_text(
        "Novita has no free GPU for this instance. Try again later, or create an instance in another region."
    )
    expect(get_row(page, "alpha").locator(".status")).to_have_text("Stopped")
    expect(page.get_by_role("button", name="Start alpha")).not_to_have_attribute("aria-disabled", "true")


def test_double_press_sends_an_action_once(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha", "status": "exited"})
    page = visit()
    panel.novita.fault("start", "delay", seconds=1)
    before = panel.novita.count_calls("start")

    press(page, "Start alpha")
    page.get_by_role("dialog").get_by_role("button", name="Start").dblclick()

    expect(get_row(page, "alpha").locator(".status")).to_have_attribute("data-group", "starting")
    assert panel.novita.count_calls("start") == before + 1
