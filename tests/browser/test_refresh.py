"""Automatic refresh: it changes only rows that differ, costs little, and recovers from failures."""

import logging
import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import CDPSession, Page, Route, expect

from tests.browser.conftest import Panel, Visit, Witness
from tests.system.processes import wait_until

pytestmark = pytest.mark.xdist_group("browser 1")

log = logging.getLogger(__name__)

WATCH_ROWS = """() => {
    window.touched = new Set();
    new MutationObserver(records => {
        for (const record of records) {
            const element = record.target.nodeType === Node.ELEMENT_NODE ? record.target : record.target.parentElement;
            const row = element && element.closest('tr');
            touched.add(row ? row.dataset.id : element ? element.tagName : 'removed');
        }
    }).observe(document.querySelector('#instances tbody'), {
        subtree: true, childList: true, characterData: true, attributes: true,
    });
}"""
# The page's time moves in steps of half a second: then no request is later than that.
STEP_MS = 500
SET_VISIBILITY = """isHidden => {
    Object.defineProperty(document, 'hidden', {value: isHidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


# Every request of the page, and how many wait for their answer or its body. Retries come in the middle of their range.
WATCH_REQUESTS = """
window.requested = [];
window.waiting = 0;
window.statuses = [];
Math.random = () => 0.5;
const wait = promise => { waiting += 1; return promise.finally(() => { waiting -= 1; }); };
const [realFetch, realJson] = [fetch, Response.prototype.json];
window.fetch = (address, options) => {
    requested.push(address);
    return wait(realFetch(address, options).then(answer => { statuses.push(answer.status); return answer; }));
};
Response.prototype.json = function () { return wait(realJson.call(this)); };
"""


def refresh(page: Page) -> None:
    page.get_by_role("button", name="Refresh data").click()
    expect(page.locator("#status")).to_contain_text("Refreshed")


def read_busy_ms(session: CDPSession) -> float:
    """Return how long the page's main thread has worked so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return 1000 * next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


class Clock:
    """A page whose time a test moves."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def pass_by(self, seconds: float, step_ms: int = STEP_MS) -> list[str]:
        """Move the time, and let each request be answered at the moment when it is sent; return the requests."""
        self.settle()
        before = len(self.page.evaluate("requested"))
        left = round(seconds * 1000)
        while left > 0:
            self.page.clock.run_for(min(left, step_ms))
            left -= step_ms
            self.settle()
        requested: list[str] = self.page.evaluate("requested")
        return requested[before:]

    def settle(self) -> None:
        """Wait until the page has all answers, however long that takes."""
        wait_until(lambda: self.page.evaluate("waiting") == 0, "the page has its answers")

    def expect_next_in(self, seconds: int) -> None:
        expect(self.page.locator("#next-refresh")).to_have_text(f"Next refresh in {seconds} s")


@pytest.fixture
def stop_clock(visit: Visit) -> Clock:
    """An empty page with a stopped clock; the test opens the dashboard."""
    page = visit("about:blank", is_alone=True)
    page.add_init_script(WATCH_REQUESTS)
    page.clock.install()
    return Clock(page)


def open_page(clock: Clock) -> Page:
    clock.page.goto("/")
    expect(clock.page.locator("#next-refresh")).to_contain_text("Next refresh in")
    clock.page.clock.pause_at(clock.page.evaluate("Date.now() + 100"))
    clock.settle()
    return clock.page


def test_unchanged_list_is_not_requested_again(panel: Panel, stop_clock: Clock) -> None:
    panel.hold({"name": "alpha"})
    page = open_page(stop_clock)
    expect(page.locator("tr[data-id]")).to_have_count(1)
    panel.sync()

    page.get_by_role("button", name="Refresh data").click()

    expect(page.locator("#status")).to_have_text("Refreshed: 1 instance.")
    assert page.evaluate("requested.filter(one => one.startsWith('/api/instances')).length") == 1
    expect(page.locator("tr[data-id]")).to_have_count(1)


def test_refresh_button_waits_for_an_answer_requested_after_the_press(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    held: list[Route] = []
    page.route("**/api/overview", lambda route: held.append(route), times=1)
    page.evaluate(SET_VISIBILITY, True)
    page.evaluate(SET_VISIBILITY, False)
    wait_until(lambda: page.evaluate("1") and held, "the page requests the overview")
    older = held[0].fetch()
    panel.set("a", name="beta")
    panel.sync()

    page.get_by_role("button", name="Refresh data").click()
    held[0].fulfill(response=older)

    expect(page.locator("#status")).to_have_text("Refreshed: 1 instance.")
    assert page.locator("tr[data-id] th").inner_text() == "beta"


def test_refresh_touches_only_changed_rows(panel: Panel, visit: Visit) -> None:
    # Of a running instance, the time and the money since its start change by themselves.
    rows = ({"id": f"id{number:03}", "name": f"vm-{number:03}", "status": "exited"} for number in range(1000))
    panel.hold(*rows)
    page = visit("/?ordering=name")
    expect(page.locator("tr[data-id]")).to_have_count(100)
    page.evaluate(WATCH_ROWS)
    changed = [f"id{number:03}" for number in range(0, 100, 10)]
    panel.novita.change(set={instance_id: {"name": f"vm-{instance_id[2:]} new"} for instance_id in changed})
    panel.sync()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    busy_ms = read_busy_ms(session)

    refresh(page)

    expect(page.locator("tr[data-id=id090] th")).to_have_text("vm-090 new")
    assert sorted(page.evaluate("[...touched]")) == changed
    spent = read_busy_ms(session) - busy_ms
    log.warning("refresh of 1,000 rows with 10 changed: %.0f ms of the main thread", spent)


def test_refresh_keeps_scroll_focus_drawer_and_typed_text(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"id": f"id{number:03}", "name": f"vm-{number:03}"} for number in range(100)))
    page = visit("/?ordering=name")
    page.get_by_role("button", name="vm-080", exact=True).click()
    page.get_by_role("searchbox").fill("vm-0")
    page.get_by_role("button", name="Stop vm-090").focus()
    page.evaluate("scrollTo(0, 2000)")
    panel.novita.change(set={"id080": {"name": "vm-080 new"}}, remove=["id095"], add=[{"id": "new", "name": "vm-099b"}])
    panel.sync()

    page.evaluate(SET_VISIBILITY, True)
    page.evaluate(SET_VISIBILITY, False)

    expect(page.locator("tr[data-id=id080] th")).to_have_text("vm-080 new")
    expect(page.get_by_role("complementary", name="vm-080 new")).to_contain_text("id080")
    expect(page.get_by_role("button", name="Stop vm-090")).to_be_focused()
    expect(page.get_by_role("searchbox")).to_have_value("vm-0")
    expect(page.locator("tr[data-id=id095]")).to_have_count(0)
    assert page.evaluate("scrollY") == 2000


def test_moved_row_keeps_its_focus(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"id": f"id{number}", "name": f"vm-{number}"} for number in range(5)))
    page = visit("/?ordering=name")
    page.get_by_role("button", name="Stop vm-0").focus()
    panel.set("id0", name="vm-9")
    panel.sync()

    page.evaluate(SET_VISIBILITY, True)
    page.evaluate(SET_VISIBILITY, False)

    expect(page.locator("tr[data-id]").last).to_contain_text("vm-9")
    expect(page.get_by_role("button", name="Stop vm-9")).to_be_focused()


def test_page_counts_down_to_the_next_refresh(panel: Panel, stop_clock: Clock) -> None:
    page = open_page(stop_clock)
    page.get_by_role("button", name="Refresh data").click()
    stop_clock.settle()
    stop_clock.expect_next_in(30)

    stop_clock.pass_by(10)

    stop_clock.expect_next_in(20)
    stop_clock.pass_by(20)
    stop_clock.expect_next_in(30)


def test_page_at_rest_sends_one_request_every_3_seconds_answered_by_304(panel: Panel, stop_clock: Clock) -> None:
    panel.hold({"name": "alpha"}, {"name": "beta", "status": "toStop"})
    page = open_page(stop_clock)
    # The first second may belong to the page's start.
    stop_clock.pass_by(3)
    page.evaluate("statuses.length = 0")

    assert stop_clock.pass_by(24) == ["/api/overview"] * 8

    assert page.evaluate("statuses") == [304] * 8


def test_page_looks_every_2_seconds_while_novita_is_away(panel: Panel, stop_clock: Clock) -> None:
    panel.hold({"name": "alpha"})
    panel.novita.fault("list", "status", status=401)
    assert not panel.service.post("/api/instances/sync").ok
    open_page(stop_clock)
    stop_clock.pass_by(3)

    assert stop_clock.pass_by(24).count("/api/overview") == 12


def stop_one(panel: Panel) -> None:
    assert panel.service.post("/api/instances/c/stop").ok


def protect_one(panel: Panel) -> None:
    assert panel.service.post("/api/instances/a/protect", json={"reason": "the demo"}).ok


def stop_all(panel: Panel) -> None:
    assert panel.service.post("/api/instances/stop-all", json={"reason": "the budget"}).ok


def rename_at_novita(panel: Panel) -> None:
    panel.set("a", name="omega")
    panel.sync()


def test_changes_made_elsewhere_are_shown_after_3_seconds(panel: Panel, stop_clock: Clock) -> None:
    panel.hold({"id": "a", "name": "alpha"}, {"id": "b", "name": "beta"}, {"id": "c", "name": "gamma"})
    page = open_page(stop_clock)
    stop_clock.pass_by(5)
    changes: dict[str, Callable[[Panel], None]] = {
        # It stops within a second, in which the page may not look.
        "tr[data-id=c] :text-matches('Stopp(ing|ed)')": stop_one,
        "tr[data-id=a] [title='Protected: the demo']": protect_one,
        "tr[data-id=a] th :text('omega')": rename_at_novita,
        "#operation :text-matches('Stopping [12]')": stop_all,
        "#nothing :text('The cache is empty.')": Panel.clear,
    }

    for element, change in changes.items():
        expect(page.locator(element)).to_have_count(0)
        change(panel)
        # All readers share a read of the database for 0.2 s, which the page's clock does not pass.
        time.sleep(0.3)
        stop_clock.pass_by(3)

        expect(page.locator(element).first).to_be_visible()


def test_paused_page_and_hidden_tab_send_nothing_until_they_refresh_at_once(panel: Panel, stop_clock: Clock) -> None:
    page = open_page(stop_clock)
    page.get_by_role("button", name="Pause refresh").click()

    expect(page.locator("#live")).to_contain_text("Paused")
    assert stop_clock.pass_by(120, step_ms=10_000) == []

    page.get_by_role("button", name="Resume refresh").click()
    assert stop_clock.pass_by(0.1).count("/api/overview") == 1

    page.evaluate(SET_VISIBILITY, True)
    assert stop_clock.pass_by(120, step_ms=10_000) == []

    page.evaluate("requested.length = 0")
    page.evaluate(SET_VISIBILITY, False)
    stop_clock.settle()
    assert page.evaluate("requested").count("/api/overview") == 1


def test_failed_refresh_keeps_rows_names_its_start_and_recovers(
    panel: Panel, stop_clock: Clock, witness: Witness
) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha"})
    page = open_page(stop_clock)
    page.context.set_offline(True)

    stop_clock.pass_by(30, step_ms=3_000)

    expect(page.locator("#warnings")).to_contain_text(re.compile(r"can't be reached. Failing since \d+:\d+:\d+"))
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#instances")).to_have_class(re.compile("is-old"))
    assert page.title().startswith("⚠")
    # One attempt after three to four seconds, however long the failure lasts.
    assert stop_clock.pass_by(35).count("/api/overview") == 10

    page.context.set_offline(False)
    stop_clock.pass_by(4)

    expect(page.locator("#warnings")).to_be_empty()
    expect(page.locator("#instances")).not_to_have_class(re.compile("is-old"))
    assert page.title() == "(1) Novita panel"


def test_answer_without_a_list_counts_as_failure(panel: Panel, visit: Visit, witness: Witness) -> None:
    panel.hold({"name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    page.route("**/api/instances?*", lambda route: route.fulfill(body="<html>a proxy's page</html>"))
    panel.set(panel.service.list_ids().pop(), name="beta")
    panel.sync()

    page.get_by_role("button", name="Refresh data").click()

    expect(page.locator("#warnings")).to_contain_text("Failing since")
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")


def test_title_and_icon_show_number_of_running_instances(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a"}, {"id": "b"})
    page = visit()
    expect(page).to_have_title("(2) Novita panel")
    icon = page.locator("link[rel=icon]").get_attribute("href")
    panel.set("b", status="exited")
    panel.sync()

    refresh(page)

    expect(page).to_have_title("(1) Novita panel")
    assert page.locator("link[rel=icon]").get_attribute("href") != icon


def test_failing_synchronization_shows_in_title(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"id": "a"})
    panel.novita.fault("list", "status", status=401)
    panel.service.post("/api/instances/sync")

    page = visit()

    expect(page).to_have_title("⚠ (1) Novita panel")
    expect(page.locator("#warnings")).to_contain_text("Sync has been failing since")


def test_automatic_refresh_announces_nothing(panel: Panel, stop_clock: Clock) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = open_page(stop_clock)
    live = "[role=status], [role=alert], [aria-live]"
    before = page.locator(live).all_inner_texts()
    panel.set("a", name="beta")
    panel.sync()

    stop_clock.pass_by(31, step_ms=3_000)

    expect(page.locator("tr[data-id] th")).to_have_text("beta")
    assert page.locator(live).all_inner_texts() == before
