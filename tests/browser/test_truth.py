"""Correct facts: ages by the server's clock, the same count everywhere, failures shown while they last."""

import re
import signal
import time
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Panel, Visit, Witness, show_operations
from tests.browser.test_refresh import SET_VISIBILITY

pytestmark = pytest.mark.xdist_group("browser 2")

# A browser whose clock is wrong by `wrongMs`. A change of it looks like a clock that was set, or like a computer that
# slept while its monotonic clock stopped.
WRONG_CLOCK = """
window.wrongMs = %d;
const RealDate = Date;
window.Date = class extends RealDate {
    constructor(...given) { given.length ? super(...given) : super(RealDate.now() + window.wrongMs); }
    static now() { return RealDate.now() + window.wrongMs; }
};
"""
HOUR_MS = 3_600_000
ROWS = [
    *({"id": f"r{number}", "name": f"run-{number}"} for number in range(4)),
    *({"id": f"s{number}", "name": f"start-{number}", "status": "pulling"} for number in range(2)),
    {"id": "m", "name": "moving", "status": "migrating"},
    {"id": "x", "name": "off", "status": "exited"},
    {"id": "t", "name": "ending", "status": "toStop"},
]


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def press_stop_all(page: Page) -> None:
    page.get_by_role("button", name="Stop all").click()


def read_age(page: Page) -> int:
    """Return the age of the last synchronization, in seconds, as the page shows it."""
    figure = page.locator("#figure-sync")
    expect(figure).to_have_text(re.compile(r"^\d+ (s|min) ago$"))
    number, unit = figure.inner_text().split()[:2]
    return int(number) * {"s": 1, "min": 60}[unit]


# --- Ages


@pytest.fixture
def aged(panel: Panel) -> Panel:
    """A panel whose inventory is some minutes old."""
    panel.hold({"id": "a", "name": "alpha", "createdAt": str(int(time.time()) - 600)})
    (key,) = panel.redis.find("sync")
    panel.redis.client.hset(key, "as_of", int(panel.redis.client.hget(key, "as_of")) - 207_000)
    return panel


@pytest.mark.parametrize("wrong_ms", [-HOUR_MS, 26 * HOUR_MS])
def test_ages_are_right_despite_a_wrong_browser_clock(aged: Panel, visit: Visit, wrong_ms: int) -> None:
    page = visit("about:blank")
    page.add_init_script(WRONG_CLOCK % wrong_ms)
    page.goto("/")

    expect(page.locator("tr[data-id] .col-created")).to_have_text("10 min ago")
    assert read_age(page) == 180
    press(page, "alpha")
    expect(page.get_by_role("complementary", name="alpha")).to_contain_text("(10 min ago)")


def test_clock_jump_is_corrected_by_the_service(aged: Panel, visit: Visit) -> None:
    page = visit("about:blank")
    page.add_init_script(WRONG_CLOCK % 0)
    page.goto("/")
    assert read_age(page) == 180

    for jump_ms in (-HOUR_MS, 8 * HOUR_MS):
        with page.expect_response("**/api/overview"):
            page.evaluate("jump => { window.wrongMs += jump; }", jump_ms)

        expect(page.locator("tr[data-id] .col-created")).to_have_text("10 min ago")
        assert read_age(page) == 180, jump_ms


def test_no_age_is_shown_after_a_sleep_without_the_service(aged: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    page = visit("about:blank")
    page.add_init_script(WRONG_CLOCK % 0)
    page.goto("/")
    assert read_age(page) == 180
    page.context.set_offline(True)

    page.evaluate("jump => { window.wrongMs += jump; }", 8 * HOUR_MS)

    expect(page.locator("#figure-sync")).to_have_text(re.compile(r"\d+:\d\d"))
    expect(page.locator("#warnings")).to_contain_text("can't be reached")


def test_paused_page_corrects_its_clock_after_a_sleep(aged: Panel, visit: Visit) -> None:
    page = visit("about:blank")
    page.add_init_script(WRONG_CLOCK % 0)
    page.goto("/")
    press(page, "Pause refresh")
    read_age(page)

    with page.expect_response(lambda answer: answer.url.endswith("/api/session")):
        page.evaluate("jump => { window.wrongMs += jump; }", 8 * HOUR_MS)

    assert read_age(page) == 180


def make_ended_operation(minutes_ago: float, **fields: Any) -> dict[str, Any]:
    ended = time.time() - 60 * minutes_ago
    counts = dict.fromkeys(("pending", "requested", "confirmed", "stillRunning", "failed", "skipped", "unknown"), 0)
    return {
        **{"id": f"ended-{minutes_ago}", "kind": "stop", "state": "finished", "success": False},
        **{"result": "1 of 1 is still running.", "isWholeAccount": True, "reason": "", "requestedBy": "anna"},
        **{"source": "novita", "notes": [], "retryOf": None, "supersededBy": None},
        **{"dismissedAt": None, "dismissedBy": None},
        "createdAt": format_time(ended - 60),
        "deadlineAt": format_time(ended),
        "finishedAt": format_time(ended),
        "counts": {**counts, "stillRunning": 1},
        "targets": [
            {"instanceId": "a", "name": "alpha", "state": "stillRunning", "status": "running", "attempts": 1}
            | {"message": "Still running at the deadline (1 attempt)."}
            | dict.fromkeys(("requestedAt", "confirmedAt", "readAt", "error"))
        ],
        **fields,
    }


def format_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# By a fast clock the recent result is an old one; by a slow clock the old result is a recent one.
@pytest.mark.parametrize(("wrong_ms", "minutes_ago", "is_shown"), [(HOUR_MS, 0.1, True), (-HOUR_MS, 5, False)])
def test_recent_result_is_judged_by_the_server_clock(
    panel: Panel, visit: Visit, wrong_ms: int, minutes_ago: int, is_shown: bool
) -> None:
    page = visit("about:blank")
    page.add_init_script(WRONG_CLOCK % wrong_ms)
    show_operations(page, make_ended_operation(minutes_ago, success=True))
    page.goto("/")
    expect(page.locator("#next-refresh")).to_contain_text("Next refresh in")

    expect(page.locator("#operation-summary")).to_be_visible(visible=is_shown)


def test_failure_is_shown_until_somebody_dismisses_it(panel: Panel, visit: Visit) -> None:
    page = visit("about:blank")
    show_operations(page, make_ended_operation(600))
    page.goto("/")

    expect(page.locator("#operation-summary")).to_be_visible()
    expect(page.locator("#operation-when")).to_have_text(", ended 10 h ago.")

    page.unroute_all()
    show_operations(page, make_ended_operation(600, dismissedAt="2026-01-15T10:30:00Z", dismissedBy="ann"))
    press(page, "Refresh data")
    expect(page.locator("#operation-summary")).to_be_hidden()


# --- One result: a retry replaces the operation that it retried


def test_retried_operation_is_no_longer_shown(panel: Panel, visit: Visit) -> None:
    page = visit("about:blank")
    retry = make_ended_operation(5, success=True, retryOf="ended-9", result="The instance is stopped.")

    show_operations(page, retry, make_ended_operation(9, supersededBy="ended-5"))
    page.goto("/")

    expect(page.locator("#next-refresh")).to_contain_text("Next refresh in")
    expect(page.locator("#operation-summary")).to_be_hidden()


def test_page_drops_a_failure_that_was_retried_long_ago(panel: Panel, visit: Visit) -> None:
    page = visit("about:blank")
    show_operations(page, make_ended_operation(3))
    page.goto("/")
    expect(page.locator("#operation-summary")).to_be_visible()

    page.unroute_all()
    show_operations(page, make_ended_operation(20, success=True), make_ended_operation(3, supersededBy="ended-20"))
    press(page, "Refresh data")

    expect(page.locator("#operation-summary")).to_be_hidden()


# --- One count


def get_plan(page: Page) -> Locator:
    return page.get_by_role("dialog").locator("#plan-state")


def test_running_and_starting_instances_are_counted_alike_everywhere(panel: Panel, visit: Visit) -> None:
    panel.hold(*ROWS)
    assert panel.service.post("/api/instances/r0/protect", json={"reason": "the demo"}).ok
    static = visit(java_script_enabled=False)
    expect(static.locator("#figure-running")).to_have_text("4")
    expect(static.get_by_role("img", name="4 running, 2 starting")).to_be_visible()
    page = visit()
    expect(page.locator("#figure-running")).to_have_text("4")
    expect(page.get_by_role("img", name="4 running, 2 starting")).to_be_visible()
    expect(page).to_have_title("(4) Novita panel")

    press_stop_all(page)

    words = "5 instances will be stopped: 3 running, 2 starting. 1 more is stopping already."
    expect(get_plan(page)).to_have_text(words)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("list", name="2 skipped")).to_contain_text("run-0 Protected: the demo")
    expect(dialog.get_by_role("button", name="Stop 5 instances")).to_be_visible()
    body = panel.service.post("/api/instances/stop-all", json={"dryRun": True}).json()
    assert body["message"] == "Would stop 5 instances (3 running, 2 starting)"
    assert body["total"] == 5


def test_ended_operation_counts_what_is_done_and_what_is_not(visit: Visit) -> None:
    page = visit("about:blank")
    counts = {"confirmed": 3, "stillRunning": 2, "failed": 1, "unknown": 1, "skipped": 5}
    show_operations(page, make_ended_operation(1, counts=counts | {"pending": 0, "requested": 0}))
    page.goto("/")

    expect(page.locator("#operation-figures")).to_have_text("3 stopped, 4 not stopped, 5 skipped.")


def test_dialog_says_when_the_list_is_older(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    panel.novita.change(add=[{"id": "b", "name": "beta"}])

    press_stop_all(page)

    expect(get_plan(page)).to_have_text(
        "2 instances will be stopped. The list on this page is older and shows 1.",
    )


def test_selection_button_and_dialog_show_the_same_count(panel: Panel, visit: Visit) -> None:
    panel.hold(*ROWS)
    assert panel.service.post("/api/instances/r0/protect", json={"reason": "the demo"}).ok
    page = visit()
    page.get_by_role("checkbox", name="Select all").check()
    expect(page.locator("#selection").get_by_role("status")).to_contain_text("9 selected")

    for kind, number in (("Start", 1), ("Stop", 6), ("Restart", 3)):
        page.get_by_role("button", name=f"{kind} {number}", exact=True).click()

        dialog = page.get_by_role("dialog")
        expect(get_plan(page)).to_contain_text(f"{number} instance")
        expect(get_plan(page)).not_to_contain_text("older")
        expect(dialog.locator("#plan-targets li")).to_have_count(number)
        expect(dialog.locator("#plan-skipped li")).to_have_count(9 - number)
        assert all(dialog.locator("#plan-skipped .why").all_inner_texts()), "a reason is missing"
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()


# --- Restart


def test_restart_of_selection_names_its_effect(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"}, {"id": "x", "name": "off", "status": "exited"})
    page = visit()
    page.get_by_role("checkbox", name="Select all").check()
    press(page, "Restart 1")
    expect(page.get_by_role("dialog")).to_contain_text("A restart ends all jobs on the instances.")

    press(page, "Cancel")
    press(page, "Start 1")

    expect(get_plan(page)).to_contain_text("1 instance will be started")
    expect(page.get_by_role("dialog")).not_to_contain_text("ends all jobs")


# --- Failures


def test_recovery_is_noticed_within_five_seconds(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"id": "a", "name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    panel.redis.signal(signal.SIGSTOP)
    page.evaluate(SET_VISIBILITY, True)
    page.evaluate(SET_VISIBILITY, False)
    # Several looks find the outage; a pause that doubled each time would be 16 s by now.
    for _ in range(3):
        with page.expect_response("**/api/overview"):
            pass
    expect(page.locator("#failure")).to_contain_text("Redis")

    panel.redis.signal(signal.SIGCONT)

    expect(page.locator("#warnings p")).to_have_count(0, timeout=6000)
    expect(page.locator("#figure-redis")).to_have_text("up")


def test_failure_is_announced_once(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"id": "a", "name": "alpha"})
    panel.age(hours=1)
    page = visit()
    expect(page.locator("#warning p")).to_have_count(1)
    expect(page.get_by_role("status").filter(has_text="The data is stale")).to_be_visible()
    page.evaluate("""() => {
        window.announced = [];
        const live = [...document.querySelectorAll('[role=status], [role=alert], [aria-live]')];
        for (const region of live) {
            new MutationObserver(() => region.textContent && announced.push(region.textContent))
                .observe(region, {subtree: true, childList: true, characterData: true});
        }
    }""")
    page.context.set_offline(True)

    for _ in range(3):
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/api/overview")):
            pass

    expect(page.get_by_role("alert").filter(has_text="can't be reached")).to_be_visible()
    announced = page.evaluate("announced")
    assert [text for text in announced if "can't be reached" in text] == announced[:1]
    assert announced[1:] == ["Not refreshed"]


def test_errors_are_alerts_and_results_are_polite(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    page = visit()
    panel.novita.fault("list", "status", status=401)
    press(page, "Sync with Novita.ai")
    expect(page.get_by_role("alert").filter(has_text="NOVITA_API_KEY")).to_be_visible()
    panel.novita.clear_faults()

    press(page, "Sync with Novita.ai")

    expect(page.locator("#status").get_by_role("status")).to_contain_text("0 instances")
    expect(page.locator("#status").get_by_role("alert")).to_be_empty()
