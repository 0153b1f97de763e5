"""Stop all: first what would happen, then the number to type, then what happens, until each is seen stopped."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.browser.conftest import Panel, Visit, Witness
from tests.browser.test_table import HOSTILE

ALPHA, BETA, GAMMA = ({"id": name[0], "name": name} for name in ("alpha", "beta", "gamma"))
STOPPED = {"id": "z", "name": "zeta", "status": "exited"}


@pytest.fixture(scope="module")
def shared_panel(working_panel: Panel) -> Panel:
    return working_panel


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def open_dialog(page: Page) -> Locator:
    press(page, "Stop all")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#plan-state")).to_contain_text(re.compile("will be stopped|nothing to stop"))
    return dialog


def stop_all(page: Page, count: int) -> None:
    open_dialog(page).get_by_label(f"Type {count} to stop").fill(str(count))
    page.keyboard.press("Enter")


def get_summary(page: Page) -> Locator:
    return page.locator("#operation-summary")


def get_target(page: Page, name: str) -> Locator:
    return page.locator("#operation .targets li").filter(has_text=name)


def is_order(request: Request) -> bool:
    return request.method == "POST" and request.url.endswith("/stop-all") and not json.loads(request.post_data or "")


def test_all_are_stopped_and_seen_stopped(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA, STOPPED)
    page = visit()
    dialog = open_dialog(page)
    expect(dialog).to_contain_text("2 instances will be stopped:")
    expect(dialog.get_by_role("list", name="Will be asked").get_by_role("listitem")).to_have_text(["alpha", "beta"])
    expect(dialog).to_contain_text("Data on local disks may be lost; Novita keeps it for up to 7 days.")

    dialog.get_by_label("Type 2 to stop them").fill("2")
    dialog.get_by_label("Reason").fill("the weekend")
    dialog.get_by_role("button", name="Stop 2 instances").click()

    expect(dialog).to_be_hidden()
    expect(get_summary(page)).to_have_text(re.compile(r"^Stopping 2 instances: "))
    expect(page).to_have_title(re.compile(r"^Stopping \d/2 – "))
    expect(get_summary(page)).to_have_text(re.compile(r"^All 2 are stopped, seen at \d+:\d\d:\d\d"))
    expect(get_target(page, "alpha")).to_contain_text("stopped, seen at")
    expect(page.locator("#operation")).to_contain_text("“the weekend”")
    expect(page.locator("tr[data-id=a] .status")).to_have_text("exited")
    expect(page).to_have_title("(0) Novita panel")
    assert {row["status"] for row in panel.novita.get_truth().values()} == {"exited"}


def test_all_are_stopped_without_a_mouse(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    page = visit()
    page.get_by_role("button", name="Stop all").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Type 2 to stop them")).to_be_focused()

    page.keyboard.type("2")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Stop all")).to_be_focused()
    expect(get_summary(page)).to_contain_text("All 2 are stopped")
    assert page.evaluate("document.querySelector('#operation').contains(document.activeElement)"), "the focus is lost"


@pytest.mark.parametrize("typed", ["", "2", "33", "three"])
def test_another_number_stops_nothing(panel: Panel, visit: Visit, typed: str) -> None:
    panel.hold(ALPHA, BETA, GAMMA)
    page = visit()
    dialog = open_dialog(page)
    stops = panel.novita.count_calls("stop")

    dialog.get_by_label("Type 3 to stop them").fill(typed)
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Stop 3 instances").click(force=True)

    expect(dialog.get_by_role("button", name="Stop 3 instances")).to_have_attribute("aria-disabled", "true")
    expect(dialog).to_contain_text(f"“{typed}” is not 3" if typed else "The button waits for the number 3")
    expect(dialog.get_by_label("Type 3 to stop them")).to_be_focused()
    assert panel.list_operations() == []
    assert panel.novita.count_calls("stop") == stops


@pytest.mark.parametrize("way", ["Escape", "Cancel"])
def test_the_dialog_is_left_without_a_stop(panel: Panel, visit: Visit, way: str) -> None:
    panel.hold(ALPHA)
    page = visit()
    open_dialog(page).get_by_label("Type 1 to stop it").fill("1")

    page.keyboard.press("Escape") if way == "Escape" else press(page, way)

    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Stop all")).to_be_focused()
    assert panel.list_operations() == []
    expect(open_dialog(page).get_by_label("Type 1 to stop it")).to_have_value("")


def test_a_double_press_sends_one_request(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if is_order(request) else None)
    dialog = open_dialog(page)
    dialog.get_by_label("Type 1 to stop it").fill("1")

    dialog.get_by_role("button", name="Stop 1 instance").dblclick()

    expect(get_summary(page)).to_contain_text("The one instance is stopped")
    assert len(sent) == 1


def test_where_nothing_runs_there_is_nothing_to_press(panel: Panel, visit: Visit) -> None:
    panel.hold(STOPPED)

    dialog = open_dialog(visit())

    expect(dialog).to_contain_text("Nothing runs: there is nothing to stop.")
    expect(dialog.locator("button:visible")).to_have_text(["Close"])
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()


def test_an_account_that_can_not_be_read_is_said_and_read_again_by_a_press(
    panel: Panel, visit: Visit, witness: Witness
) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    panel.clear()
    panel.novita.fault("list", "status", status=401)
    page = visit()
    press(page, "Stop all")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The account can't be read:")
    expect(dialog.get_by_role("button", name="Try again")).to_be_focused()
    panel.novita.clear_faults()

    dialog.get_by_role("button", name="Try again").click()

    expect(dialog).to_contain_text("1 instance will be stopped:")
    expect(dialog.get_by_label("Type 1 to stop it")).to_be_focused()


def test_while_the_account_is_read_the_dialog_says_so(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    held: list[Route] = []
    page.route("**/stop-all", lambda route: held.append(route))

    press(page, "Stop all")

    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Reading the account …")
    expect(dialog.locator("button:visible")).to_have_text(["Close"])
    held[0].continue_()
    expect(dialog).to_contain_text("1 instance will be stopped:")


def test_equal_names_are_told_apart_by_their_ids(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "id-1", "name": "twin"}, {"id": "id-2", "name": "twin"}, ALPHA)

    names = open_dialog(visit()).get_by_role("list", name="Will be asked").get_by_role("listitem")

    assert sorted(" ".join(text.split()) for text in names.all_inner_texts()) == ["alpha", "twin id-1", "twin id-2"]


def test_what_is_skipped_is_said_with_its_reason(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    panel.service.post("/api/instances/b/protect", json={"reason": "the demo"})
    page = visit()
    dialog = open_dialog(page)
    expect(dialog.get_by_role("list", name="1 skipped")).to_contain_text("beta Protected: the demo")

    dialog.get_by_label("Type 1 to stop it").fill("1")
    page.keyboard.press("Enter")

    expect(get_summary(page)).to_contain_text("The one instance is stopped")
    expect(get_target(page, "beta")).to_contain_text("skipped Protected: the demo")
    assert panel.novita.get_truth()["b"]["status"] == "running"


def test_another_dashboard_sees_it_too(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    panel.novita.fault("stop", "ignore", instanceId="b")
    page, other = visit(), visit()
    stop_all(page, 2)
    expect(get_summary(page)).to_contain_text("Stopping 2 instances")

    press(other, "Refresh data")

    for one in (page, other):
        expect(get_summary(one)).to_have_text("Stopping 2 instances: 1 confirmed stopped, 1 asked.")
        expect(one).to_have_title(re.compile("^Stopping 1/2 – "))


def test_a_reload_in_the_middle_loses_nothing(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    panel.novita.fault("stop", "ignore", instanceId="b")
    page = visit()
    stop_all(page, 2)
    expect(get_summary(page)).to_contain_text("1 confirmed stopped")

    page.reload()

    expect(get_summary(page)).to_have_text("Stopping 2 instances: 1 confirmed stopped, 1 asked.")
    expect(get_target(page, "beta")).to_contain_text("not yet seen stopped")


def test_what_still_runs_is_said_and_tried_again(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA, GAMMA)
    panel.novita.fault("stop", "ignore", instanceId="b")
    page = visit()
    dialog = open_dialog(page)
    dialog.get_by_label("Type 3 to stop them").fill("3")
    dialog.get_by_label("Reason").fill("the weekend")
    page.keyboard.press("Enter")
    expect(get_summary(page)).to_contain_text("2 confirmed stopped")

    panel.let_time_run_out()

    expect(get_summary(page)).to_have_text("1 of 3 is still running.")
    assert "⚠" in get_summary(page).evaluate("element => getComputedStyle(element, '::before').content")
    expect(get_target(page, "beta")).to_contain_text("still runs, seen running at")
    expect(page).to_have_title("⚠ (1) Novita panel")
    panel.novita.clear_faults()
    (first,) = panel.list_operations()
    press(page, "Try again for 1")
    expect(get_summary(page)).to_contain_text("The one instance is stopped, seen at")
    again = panel.list_operations()[0]
    assert (again["counts"]["confirmed"], again["reason"]) == (1, "the weekend")
    assert (again["retryOf"], panel.list_operations()[1]["supersededBy"]) == (first["id"], again["id"])
    for one in (page, visit()):
        press(one, "Dismiss")
        with one.expect_response("**/api/operations?*"):
            press(one, "Refresh data")
        expect(get_summary(one)).to_be_hidden()
    assert panel.novita.get_truth()["b"]["status"] == "exited"


def test_the_asking_is_ended_by_a_second_press(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    panel.novita.fault("stop", "ignore")
    page = visit()
    stop_all(page, 1)
    expect(get_summary(page)).to_contain_text("1 asked")

    press(page, "Cancel")
    expect(page.get_by_role("button", name="End the asking")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")

    expect(get_summary(page)).to_contain_text("Cancelled")
    assert panel.list_operations()[0]["state"] == "cancelled"
    assert page.evaluate("document.querySelector('#operation').contains(document.activeElement)"), "the focus is lost"


def test_what_is_dismissed_stays_away(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    stop_all(page, 1)
    expect(get_summary(page)).to_contain_text("The one instance is stopped")

    press(page, "Dismiss")
    expect(page.get_by_role("button", name="Stop all")).to_be_focused()
    with page.expect_response("**/api/operations?*"):
        page.reload()
    expect(page.locator("tr[data-id=a]")).to_be_visible()

    expect(get_summary(page)).to_be_hidden()
    expect(get_summary(visit())).to_contain_text("The one instance is stopped")


def test_an_answer_that_gets_lost_is_looked_for(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    page = visit()

    def lose(route: Route) -> None:
        if is_order(route.request):
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/stop-all", lose)

    stop_all(page, 1)

    expect(get_summary(page)).to_contain_text("The one instance is stopped")


def test_a_request_that_gets_lost_is_not_called_begun(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    page = visit()
    page.route("**/stop-all", lambda route: route.abort() if is_order(route.request) else route.continue_())

    stop_all(page, 1)

    expect(get_summary(page)).to_contain_text("It is not known whether it began: The service can't be reached.")
    expect(page.locator("#operation")).to_have_attribute("data-tone", "trouble")
    press(page, "Dismiss")
    expect(get_summary(page)).to_be_hidden()


def test_a_stop_that_could_not_begin_is_found_and_told(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    page = visit()
    open_dialog(page).get_by_label("Type 1 to stop it").fill("1")
    panel.clear()
    panel.novita.fault("list", "status", status=401)

    page.keyboard.press("Enter")

    expect(get_summary(page)).to_contain_text("Nothing was done.")
    expect(page.locator("#operation")).to_have_attribute("data-tone", "trouble")
    assert panel.novita.get_truth()["a"]["status"] == "running"


def test_a_refused_stop_is_not_called_begun(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    page = visit()

    def refuse(route: Route) -> None:
        if is_order(route.request):
            route.fulfill(status=403, json={"message": "You may not.", "suggestion": "Ask Anna."})
        else:
            route.continue_()

    page.route("**/stop-all", refuse)

    stop_all(page, 1)

    expect(get_summary(page)).to_have_text("Nothing was started: You may not. Ask Anna.")


def test_one_that_can_not_be_read_says_since_when_and_keeps_what_was_seen(
    panel: Panel, visit: Visit, witness: Witness
) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    panel.novita.fault("stop", "ignore")
    page = visit()
    stop_all(page, 1)
    expect(get_target(page, "alpha")).to_contain_text("asked at")

    page.context.set_offline(True)

    expect(page.locator("#operation-failure")).to_have_text(
        re.compile(r"^It can't be read since \d+:\d\d:\d\d.*: The service can't be reached\.")
    )
    expect(get_summary(page)).to_contain_text("1 asked")
    page.context.set_offline(False)
    expect(page.locator("#operation-failure")).to_be_hidden()


def test_of_several_the_newest_is_shown_and_the_others_counted(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    panel.novita.fault("stop", "ignore")
    for instance_id in ("a", "b"):
        panel.service.post("/api/operations", json={"kind": "stop", "ids": [instance_id]})

    page = visit()

    expect(get_target(page, "beta")).to_be_visible()
    expect(page.get_by_role("link", name="and 1 more")).to_have_attribute("href", "/admin/instances/operation/")


def test_hostile_names_are_text_in_the_dialog_and_the_panel(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"name": name} for name in HOSTILE.values()))
    page = visit()
    dialog = open_dialog(page)
    # The records hold 255 characters of a name.
    names = sorted(" ".join(name[:255].split()) for name in HOSTILE.values())
    assert sorted(dialog.locator(".target-name").all_inner_texts()) == names

    dialog.get_by_label("Type 6 to stop them").fill("6")
    dialog.get_by_label("Reason").fill(HOSTILE["markup"])
    page.keyboard.press("Enter")

    expect(get_summary(page)).to_contain_text("All 6 are stopped")
    assert sorted(page.locator("#operation .target-name").all_inner_texts()) == names
    assert page.locator("#dashboard :is(img, script)").count() == 0
    assert "hacked" not in page.title()


def make_operation(states: dict[str, str]) -> dict[str, Any]:
    targets = [
        {"instanceId": id_, "name": f"vm-{id_}", "state": state, "status": "toStop", "attempts": 1, "requestedAt": None}
        | {"confirmedAt": "2026-01-15T10:30:00Z" if state == "confirmed" else None, "readAt": None, "error": None}
        for id_, state in states.items()
    ]
    names = ("pending", "requested", "confirmed", "stillRunning", "failed", "skipped", "unknown")
    head = {"id": "0", "kind": "stop", "state": "verifying", "success": None, "result": "", "isWholeAccount": True}
    times = {"createdAt": "2026-01-15T10:30:00Z", "deadlineAt": "2026-01-15T10:40:00Z", "finishedAt": None}
    words = {"reason": "", "requestedBy": "anna", "source": "novita", "notes": []}
    counts = {name: list(states.values()).count(name) for name in names}
    return {**head, **times, **words, "counts": counts, "targets": targets}


def test_of_a_thousand_only_the_rows_that_change_are_touched(panel: Panel, visit: Visit) -> None:
    states = {f"{number:04}": "requested" for number in range(1000)}
    page = visit("about:blank")
    page.route("**/api/operations?*", lambda route: route.fulfill(json={"operations": [make_operation(states)]}))
    page.route("**/api/operations/0", lambda route: route.fulfill(json=make_operation(states)))
    page.goto("/")
    expect(page.locator("#targets-under-way li")).to_have_count(1000)
    page.evaluate("""() => {
        window.touched = new Set();
        new MutationObserver(records => {
            for (const {target, addedNodes} of records) {
                for (const node of [target, ...addedNodes]) {
                    const row = (node.closest ? node : node.parentElement)?.closest('li');
                    if (row) {
                        touched.add(row.querySelector('.target-name').textContent);
                    }
                }
            }
        }).observe(document.getElementById('operation-targets'), {
            subtree: true, childList: true, characterData: true, attributes: true,
        });
    }""")

    states["0007"] = "confirmed"

    expect(page.locator("#targets-confirmed li")).to_have_text([re.compile("vm-0007")])
    assert page.evaluate("[...touched]") == ["vm-0007"]
