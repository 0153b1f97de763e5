"""Stop all: the plan, the number that confirms it, the progress, and the verified result."""

import json
import re

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.browser.conftest import NARROW, WIDE, Panel, Visit, Witness, make_operation, show_operations
from tests.browser.test_accessibility import ROWS, find_violations
from tests.browser.test_confirm import CLOSE_AND_ASK_AGAIN
from tests.browser.test_table import HOSTILE

pytestmark = pytest.mark.xdist_group("browser with a worker")

ALPHA, BETA, GAMMA = ({"id": name[0], "name": name} for name in ("alpha", "beta", "gamma"))
STOPPED = {"id": "z", "name": "zeta", "status": "exited"}


@pytest.fixture(scope="module")
def shared_panel(working_panel: Panel) -> Panel:
    return working_panel


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def open_dialog(page: Page) -> Locator:
    page.get_by_role("button", name="Stop all").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#plan-state")).to_contain_text(re.compile("will be stopped|Nothing is running"))
    return dialog


def stop_all(page: Page, count: int) -> None:
    open_dialog(page).get_by_label(f"Enter {count} to stop").fill(str(count))
    page.keyboard.press("Enter")


def get_summary(page: Page) -> Locator:
    return page.locator("#operation-summary")


def get_heading(page: Page) -> Locator:
    return page.locator("#operation-title")


def get_target(page: Page, name: str) -> Locator:
    return page.locator("#operation-drawer .targets li").filter(has_text=name)


def is_order(request: Request) -> bool:
    return request.method == "POST" and request.url.endswith("/stop-all") and not json.loads(request.post_data or "")


def test_stop_all_stops_and_verifies_all(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA, STOPPED)
    page = visit()
    dialog = open_dialog(page)
    expect(dialog).to_contain_text("2 instances will be stopped:")
    expect(dialog.get_by_role("list", name="Included instances").get_by_role("listitem")).to_have_text(
        ["alpha", "beta"]
    )
    expect(dialog).to_contain_text("Data on local disks may be lost; Novita keeps it for up to 7 days.")

    dialog.get_by_label("Enter 2 to stop them").fill("2")
    dialog.get_by_label("Reason").fill("the weekend")
    dialog.get_by_role("button", name="Stop 2 instances").click()

    expect(dialog).to_be_hidden()
    expect(get_heading(page)).to_have_text("Stopping 2")
    expect(page).to_have_title(re.compile(r"^Stopping \d/2 – "))
    expect(get_summary(page)).to_have_text(
        re.compile(r"^All 2 are stopped\. Verified at \d+:\d\d:\d\d.*\. Saves \$0\.70/h\.$")
    )
    expect(get_target(page, "alpha")).to_have_text(re.compile(r"^alpha\s+Stopped \(verified\)\.\s+\d+:\d\d:\d\d"))
    expect(page.locator("#operation-drawer")).to_contain_text("“the weekend”")
    expect(page.locator("tr[data-id=a] .status")).to_have_text("Stopped")
    expect(page).to_have_title("(0) Novita panel")
    assert {row["status"] for row in panel.novita.get_truth().values()} == {"exited"}


def test_stop_all_works_by_keyboard(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    page = visit()
    page.get_by_role("button", name="Stop all").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Enter 2 to stop them")).to_be_focused()

    page.keyboard.type("2")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Stop all")).to_be_focused()
    expect(get_summary(page)).to_contain_text("All 2 are stopped")
    assert page.evaluate("document.querySelector('#operation').contains(document.activeElement)"), "the focus is lost"


def test_wrong_number_stops_nothing(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA, GAMMA)
    page = visit()
    dialog = open_dialog(page)
    stops = panel.novita.count_calls("stop")

    for typed in ("", "2", "33", "three"):
        dialog.get_by_label("Enter 3 to stop them").fill(typed)
        page.keyboard.press("Enter")
        dialog.get_by_role("button", name="Stop 3 instances").click(force=True)

        expect(dialog.get_by_role("button", name="Stop 3 instances")).to_have_attribute("aria-disabled", "true")
        expect(dialog).to_contain_text("That doesn't match. Enter 3." if typed else "Enter 3 to enable the button.")
        expect(dialog.get_by_label("Enter 3 to stop them")).to_be_focused()
    assert panel.list_operations() == []
    assert panel.novita.count_calls("stop") == stops


def test_closing_the_dialog_stops_nothing(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    field = open_dialog(page).get_by_label("Enter 1 to stop it")

    for close in (lambda: page.keyboard.press("Escape"), lambda: press(page, "Cancel")):
        field.fill("1")
        close()

        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.get_by_role("button", name="Stop all")).to_be_focused()
        assert panel.list_operations() == []
        open_dialog(page)
        expect(field).to_have_value("")


def test_dialog_opened_again_at_once_has_its_plan(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    open_dialog(page)

    page.evaluate(CLOSE_AND_ASK_AGAIN, ["#plan-close", "[data-do=stop-all]"])

    expect(page.get_by_label("Enter 1 to stop it")).to_be_focused()
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(get_heading(page)).to_have_text("Stopping 1")


def test_double_press_sends_one_stop_all(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if is_order(request) else None)
    dialog = open_dialog(page)
    dialog.get_by_label("Enter 1 to stop it").fill("1")

    dialog.get_by_role("button", name="Stop 1 instance").dblclick()

    expect(get_heading(page)).to_have_text("Stopping 1")
    assert len(sent) == 1


def test_dialog_without_running_instances_can_only_be_closed(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    expect(page.locator("tr[data-id=a]")).to_be_visible()
    panel.set("a", status="exited")

    dialog = open_dialog(page)

    expect(dialog).to_contain_text("Nothing is running.")
    expect(dialog.locator("button:visible")).to_have_text(["Close"])
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()


def test_unreadable_account_is_shown_and_can_be_read_again(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    panel.clear()
    panel.novita.fault("list", "status", status=401)
    page = visit()
    page.get_by_role("button", name="Stop all").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The account can't be read:")
    expect(dialog.get_by_role("button", name="Try again")).to_be_focused()
    panel.novita.clear_faults()

    dialog.get_by_role("button", name="Try again").click()

    expect(dialog).to_contain_text("1 instance will be stopped:")
    expect(dialog.get_by_label("Enter 1 to stop it")).to_be_focused()


def test_dialog_shows_that_the_account_is_being_read(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    held: list[Route] = []
    page.route("**/stop-all", lambda route: held.append(route))

    page.get_by_role("button", name="Stop all").click()

    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Reading the account…")
    expect(dialog.locator("button:visible")).to_have_text(["Close"])
    held[0].continue_()
    expect(dialog).to_contain_text("1 instance will be stopped:")


def test_equal_names_are_shown_with_their_ids(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "id-1", "name": "twin"}, {"id": "id-2", "name": "twin"}, ALPHA)

    names = open_dialog(visit()).get_by_role("list", name="Included instances").get_by_role("listitem")

    assert sorted(" ".join(text.split()) for text in names.all_inner_texts()) == ["alpha", "twin id-1", "twin id-2"]


def test_plan_names_the_instances_that_are_stopping_already(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a"}, {"id": "b", "status": "toStop"})
    page = visit()

    page.get_by_role("button", name="Stop all").click()

    # The operation's strip counts two.
    expect(page.locator("#plan-state")).to_have_text("1 instance will be stopped. 1 more is stopping already.")


def test_skipped_instance_shows_its_reason(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    panel.service.post("/api/instances/b/protect", json={"reason": "the demo"})
    page = visit()
    dialog = open_dialog(page)
    expect(dialog.get_by_role("list", name="1 skipped")).to_contain_text("beta Protected: the demo")

    dialog.get_by_label("Enter 1 to stop it").fill("1")
    page.keyboard.press("Enter")

    expect(get_target(page, "beta")).to_contain_text("Protected: the demo")
    expect(get_target(page, "alpha")).to_contain_text("Stop requested")
    assert panel.novita.get_truth()["b"]["status"] == "running"


def test_operation_shows_in_another_dashboard(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    panel.novita.fault("stop", "ignore", instanceId="b")
    page, other = visit(), visit()
    stop_all(page, 2)
    expect(get_heading(page)).to_have_text("Stopping 2")

    press(other, "Refresh data")

    for one in (page, other):
        expect(get_summary(one)).to_have_text("1 stopped · 1 stopping")
        expect(one).to_have_title(re.compile("^Stopping 1/2 – "))


def test_reload_keeps_showing_the_operation(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    panel.novita.fault("stop", "ignore", instanceId="b")
    page = visit()
    stop_all(page, 2)
    expect(get_summary(page)).to_contain_text("1 stopped")

    page.reload()

    expect(get_summary(page)).to_have_text("1 stopped · 1 stopping")
    expect(get_target(page, "beta")).to_contain_text("Stop requested; not yet stopped.")


def test_instance_that_is_still_running_is_shown_and_retried(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA, GAMMA)
    panel.novita.fault("stop", "ignore", instanceId="b")
    page = visit()
    dialog = open_dialog(page)
    dialog.get_by_label("Enter 3 to stop them").fill("3")
    dialog.get_by_label("Reason").fill("the weekend")
    page.keyboard.press("Enter")
    expect(get_summary(page)).to_contain_text("2 stopped")

    panel.let_time_run_out()

    expect(get_summary(page)).to_have_text("1 of 3 is still running.")
    assert "⚠" in get_summary(page).evaluate("element => getComputedStyle(element, '::before').content")
    expect(get_target(page, "beta")).to_contain_text("Still running at the deadline (")
    expect(page).to_have_title("⚠ (1) Novita panel")
    panel.novita.clear_faults()
    press(page, "Retry 1 instance")
    expect(get_summary(page)).to_contain_text("The instance is stopped. Verified at")
    again, first = panel.list_operations()
    assert again["counts"]["confirmed"] == 1
    assert again["reason"] == "the weekend"
    assert again["retryOf"] == first["id"]
    assert first["supersededBy"] == again["id"]
    other = visit()
    press(page, "Dismiss")
    for one in (page, other):
        with one.expect_response("**/api/overview"):
            press(one, "Refresh data")
        expect(get_summary(one)).to_be_hidden()
    assert panel.novita.get_truth()["b"]["status"] == "exited"


def test_cancelling_requires_confirmation(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    panel.novita.fault("stop", "ignore")
    page = visit()
    stop_all(page, 1)
    expect(get_summary(page)).to_contain_text("1 stopping")

    press(page, "Cancel")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("All stops are requested already; none is repeated.")
    expect(dialog.get_by_role("button", name="Keep stopping")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_focused()
    assert panel.list_operations()[0]["state"] == "verifying"
    page.keyboard.press("Enter")
    press(page, "Cancel the remaining stops")

    expect(get_summary(page)).to_contain_text("Cancelled")
    assert panel.list_operations()[0]["state"] == "cancelled"
    assert page.evaluate("document.querySelector('#operation').contains(document.activeElement)"), "the focus is lost"


def test_dismissed_operation_is_hidden_for_everybody(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    stop_all(page, 1)
    expect(get_summary(page)).to_contain_text("The instance is stopped")

    press(page, "Dismiss")
    expect(page.get_by_role("button", name="Stop all")).to_be_focused()
    page.reload()
    expect(page.locator("tr[data-id=a]")).to_be_visible()

    expect(get_summary(page)).to_be_hidden()
    other = visit(is_alone=True)
    expect(other.locator("tr[data-id=a]")).to_be_visible()
    expect(get_summary(other)).to_be_hidden()
    (operation,) = panel.list_operations()
    assert operation["dismissedBy"] == "local-owner"


def test_operation_is_found_after_its_answer_was_lost(panel: Panel, visit: Visit, witness: Witness) -> None:
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

    expect(get_heading(page)).to_have_text("Stopping 1")


def test_lost_request_is_not_reported_as_started(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    page = visit()
    page.route("**/stop-all", lambda route: route.abort() if is_order(route.request) else route.continue_())

    stop_all(page, 1)

    expect(get_summary(page)).to_contain_text(
        "It is not known whether the operation started: The service can't be reached."
    )
    expect(page.locator("#operation")).to_have_attribute("data-tone", "trouble")
    press(page, "Dismiss")
    expect(get_summary(page)).to_be_hidden()


def test_stop_that_could_not_start_shows_its_result(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    page = visit()
    open_dialog(page).get_by_label("Enter 1 to stop it").fill("1")
    panel.clear()
    panel.novita.fault("list", "status", status=401)

    page.keyboard.press("Enter")

    expect(get_summary(page)).to_contain_text("Nothing was done.")
    expect(page.locator("#operation")).to_have_attribute("data-tone", "trouble")
    assert panel.novita.get_truth()["a"]["status"] == "running"


def test_refused_stop_is_not_reported_as_started(panel: Panel, visit: Visit, witness: Witness) -> None:
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


def test_unreadable_operation_names_its_start_and_keeps_last_state(
    panel: Panel, visit: Visit, witness: Witness
) -> None:
    witness.allow("Failed to load resource")
    panel.hold(ALPHA)
    panel.novita.fault("stop", "ignore")
    page = visit()
    stop_all(page, 1)
    expect(get_target(page, "alpha")).to_contain_text("Stop requested")

    page.context.set_offline(True)

    expect(page.locator("#operation-failure")).to_have_text(
        re.compile(r"^The operation continues, but can't be read since \d+:\d\d:\d\d.*: The service can't be reached\.")
    )
    expect(get_summary(page)).to_contain_text("1 stopping")
    page.context.set_offline(False)
    expect(page.locator("#operation-failure")).to_be_hidden()


def test_newest_operation_is_shown_and_others_are_counted(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    panel.novita.fault("stop", "ignore")
    for instance_id in ("a", "b"):
        panel.service.post("/api/operations", json={"kind": "stop", "ids": [instance_id]})

    page = visit()

    press(page, "Details (1 more)")
    expect(get_target(page, "beta")).to_be_visible()
    drawer = page.locator("#operation-drawer")
    drawer.get_by_role("button", name="Stopping 1: 0 of 1 done").click()
    expect(get_target(page, "alpha")).to_be_visible()
    expect(get_target(page, "beta")).to_have_count(0)
    oldest = panel.list_operations()[-1]["id"]
    expect(drawer.get_by_role("link", name="Its record")).to_have_attribute(
        "href", f"/admin/instances/operation/{oldest}/change/"
    )


def test_stopped_instances_are_started_again_from_the_drawer(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    page = visit()
    stop_all(page, 2)
    expect(get_summary(page)).to_contain_text("All 2 are stopped")
    press(page, "Details")

    press(page, "Start these 2 again…")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 instances will be started:")
    dialog.get_by_role("button", name="Start 2 instances").click()

    expect(get_summary(page)).to_contain_text("All 2 are running.")
    assert {row["status"] for row in panel.novita.get_truth().values()} == {"running"}
    assert panel.list_operations()[0]["kind"] == "start"


def test_open_plan_says_what_has_changed_since(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA, BETA)
    page = visit()
    dialog = open_dialog(page)

    panel.set("b", status="exited")
    panel.sync()

    expect(dialog).to_contain_text("Meanwhile this has changed: it would be 1 instance now.")
    press(page, "Read again")
    expect(dialog).to_contain_text("1 instance will be stopped:")
    expect(dialog.get_by_label("Enter 1 to stop it")).to_have_value("")


def test_destructive_button_never_takes_the_place_of_a_harmless_one(panel: Panel, visit: Visit) -> None:
    panel.hold(ALPHA)
    page = visit()
    held: list[Route] = []
    page.route("**/stop-all", lambda route: held.append(route))
    close = page.locator("#plan-close")

    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 740})
        page.get_by_role("button", name="Stop all").click()
        expect(close).to_be_visible()
        before = close.bounding_box()

        held.pop().continue_()

        expect(page.locator("#plan-go")).to_be_visible()
        after = page.locator("#plan-go").bounding_box()
        assert before and after
        assert after["x"] >= before["x"] + before["width"], width
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_hostile_names_stay_text_in_dialog_and_panel(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"name": name} for name in HOSTILE.values()))
    page = visit()
    dialog = open_dialog(page)
    # The records hold 255 characters of a name.
    names = sorted(" ".join(name[:255].split()) for name in HOSTILE.values())
    assert sorted(dialog.locator(".target-name").all_inner_texts()) == names

    dialog.get_by_label("Enter 6 to stop them").fill("6")
    dialog.get_by_label("Reason").fill(HOSTILE["markup"])
    page.keyboard.press("Enter")

    expect(get_summary(page)).to_contain_text("All 6 are stopped")
    press(page, "Details")
    assert sorted(page.locator("#operation-drawer .target-name").all_inner_texts()) == names
    assert page.locator(":is(#content, .drawer) :is(img, script)").count() == 0
    assert "hacked" not in page.title()


def test_panel_touches_only_changed_rows_of_1000(panel: Panel, visit: Visit) -> None:
    states = {f"{number:04}": "requested" for number in range(1000)}
    page = visit("about:blank")
    show_operations(page, make_operation(states))
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


def test_operation_panel_passes_axe(panel: Panel, visit: Visit) -> None:
    panel.hold(*ROWS, {"name": "x" * 300}, {"name": "no-space-" * 30})
    panel.novita.fault("stop", "ignore", instanceId="a")
    page = visit()
    stop_all(page, 4)
    expect(get_summary(page)).to_contain_text("stopping")
    press(page, "Cancel")
    assert find_violations(page, NARROW, WIDE) == []
    press(page, "Keep stopping")

    panel.let_time_run_out()

    expect(page.locator("#operation[data-tone=trouble]")).to_be_visible()
    for viewport in (WIDE, NARROW):
        assert find_violations(page, viewport) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
