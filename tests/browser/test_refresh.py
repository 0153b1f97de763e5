"""Automatic refresh: it changes only rows that differ, costs little, and recovers from failures."""

import logging
import re
import signal
import time

import pytest
from playwright.sync_api import CDPSession, Page, Request, Route, expect

from tests.browser.conftest import Panel, Visit, Witness

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
SET_VISIBILITY = """isHidden => {
    Object.defineProperty(document, 'hidden', {value: isHidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


def is_listing(url: str) -> bool:
    return url.endswith("/api/instances")


def refresh(page: Page) -> int:
    """Press *Refresh data*, and return the status of the listing's answer."""
    with page.expect_response(lambda answer: is_listing(answer.url)) as listing:
        page.get_by_role("button", name="Refresh data").click()
    expect(page.locator("#status")).to_contain_text("Refreshed")
    return listing.value.status


def read_busy_ms(session: CDPSession) -> float:
    """Return how long the page's main thread has worked so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return 1000 * next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


class Clock:
    """A page whose time a test moves; counts its requests for the list."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests = 0
        page.on("request", self._count)

    def _count(self, request: Request) -> None:
        self.requests += is_listing(request.url)

    def pass_by(self, seconds: float) -> int:
        """Move the time; return the number of requests for the list meanwhile."""
        before = self.requests
        self.page.clock.run_for(round(seconds * 1000))
        # Requests and answers take real time, and more of it on a busy machine.
        ends_at = time.monotonic() + 4
        while self.requests == before and time.monotonic() < ends_at:
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(800)
        return self.requests - before

    def expect_next_in(self, seconds: int) -> None:
        expect(self.page.locator("#next-refresh")).to_have_text(f"Next refresh in {seconds} s")


@pytest.fixture
def stop_clock(visit: Visit) -> Clock:
    """An empty page with a stopped clock; the test opens the dashboard."""
    page = visit("about:blank")
    page.clock.install()
    return Clock(page)


def open_page(clock: Clock) -> Page:
    with clock.page.expect_response(lambda answer: is_listing(answer.url)):
        clock.page.goto("/")
    expect(clock.page.locator("#next-refresh")).to_contain_text("Next refresh in")
    clock.page.clock.pause_at(clock.page.evaluate("Date.now() + 100"))
    return clock.page


def test_unchanged_list_is_answered_by_304(panel: Panel, visit: Visit) -> None:
    panel.hold({"name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    panel.sync()

    assert refresh(page) == 304
    expect(page.locator("tr[data-id]")).to_have_count(1)


def test_refresh_button_waits_for_an_answer_requested_after_the_press(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    held: list[Route] = []
    page.route("**/api/instances", lambda route: held.append(route), times=1)
    page.evaluate(SET_VISIBILITY, True)
    page.evaluate(SET_VISIBILITY, False)
    for _ in range(100):
        if not held:
            page.wait_for_timeout(100)
    older = held[0].fetch()
    panel.set("a", name="beta")
    panel.sync()

    page.get_by_role("button", name="Refresh data").click()
    held[0].fulfill(response=older)

    expect(page.locator("#status")).to_have_text("Refreshed: 1 instance.")
    assert page.locator("tr[data-id] th").inner_text() == "beta"


def test_refresh_touches_only_changed_rows(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"id": f"id{number:03}", "name": f"vm-{number:03}"} for number in range(1000)))
    page = visit("/?ordering=name")
    expect(page.locator("tr[data-id]")).to_have_count(100)
    page.evaluate(WATCH_ROWS)
    changed = [f"id{number:03}" for number in range(0, 100, 10)]
    panel.novita.change(set={instance_id: {"name": f"vm-{instance_id[2:]} new"} for instance_id in changed})
    panel.sync()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    busy_ms = read_busy_ms(session)

    assert refresh(page) == 200

    expect(page.locator("tr[data-id=id090] th")).to_have_text("vm-090 new")
    assert sorted(page.evaluate("[...touched]")) == changed
    spent = read_busy_ms(session) - busy_ms
    log.warning("refresh of 1,000 rows with 10 changed: %.0f ms of the main thread", spent)


def test_refresh_keeps_scroll_focus_open_rows_and_typed_text(panel: Panel, visit: Visit) -> None:
    panel.hold(*({"id": f"id{number:03}", "name": f"vm-{number:03}"} for number in range(100)))
    page = visit("/?ordering=name")
    page.get_by_role("button", name="vm-080", exact=True).click()
    page.get_by_role("button", name="Stop vm-070").click()
    page.get_by_role("searchbox").fill("vm-0")
    page.get_by_role("button", name="Restart vm-090").focus()
    page.evaluate("scrollTo(0, 2000)")
    panel.novita.change(set={"id080": {"name": "vm-080 new"}}, remove=["id095"], add=[{"id": "new", "name": "vm-099b"}])
    panel.sync()

    page.evaluate(SET_VISIBILITY, True)
    page.evaluate(SET_VISIBILITY, False)

    expect(page.locator("tr[data-id=id080]:not(.detail) th")).to_have_text("vm-080 new")
    expect(page.locator("tr.detail")).to_contain_text("id080")
    expect(page.get_by_role("button", name="Restart vm-090")).to_be_focused()
    expect(page.locator("tr[data-id=id070] .confirm")).to_be_visible()
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


def test_page_refreshes_every_30_seconds_and_counts_down(panel: Panel, stop_clock: Clock) -> None:
    page = open_page(stop_clock)
    stop_clock.expect_next_in(30)

    assert stop_clock.pass_by(10) == 0
    stop_clock.expect_next_in(20)
    panel.hold({"name": "alpha"})
    assert stop_clock.pass_by(20) == 1
    expect(page.locator("tr[data-id]")).to_have_count(1)
    stop_clock.expect_next_in(30)


@pytest.mark.parametrize("status", ["pulling", "toStop", "restarting"])
def test_page_refreshes_every_3_seconds_while_an_instance_is_moving(
    panel: Panel, stop_clock: Clock, status: str
) -> None:
    panel.hold({"id": "a", "name": "alpha", "status": status}, {"name": "beta"})
    open_page(stop_clock)

    stop_clock.expect_next_in(3)
    assert [stop_clock.pass_by(3.1) for _ in range(2)] == [1, 1]


def test_page_slows_down_when_nothing_is_moving(panel: Panel, stop_clock: Clock) -> None:
    panel.hold({"id": "a", "name": "alpha", "status": "toStop"})
    open_page(stop_clock)
    panel.set("a", status="exited")
    panel.sync()

    stop_clock.pass_by(3.1)

    stop_clock.expect_next_in(30)


def test_refresh_can_be_paused(panel: Panel, stop_clock: Clock) -> None:
    page = open_page(stop_clock)
    page.get_by_role("button", name="Pause refresh").click()

    expect(page.locator("#next-refresh")).to_have_text("Refresh paused")
    expect(page.locator("button[aria-pressed=true]")).to_have_count(1)
    assert stop_clock.pass_by(120) == 0

    page.locator("button[aria-pressed=true]").click()
    assert stop_clock.pass_by(31) >= 1


def test_hidden_tab_sends_nothing_and_refreshes_when_shown(panel: Panel, stop_clock: Clock) -> None:
    page = open_page(stop_clock)

    page.evaluate(SET_VISIBILITY, True)
    assert stop_clock.pass_by(120) == 0

    before = stop_clock.requests
    page.evaluate(SET_VISIBILITY, False)
    stop_clock.pass_by(0.1)
    assert stop_clock.requests == before + 1


def test_failed_refresh_keeps_rows_names_its_start_and_recovers(
    panel: Panel, stop_clock: Clock, witness: Witness
) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha"})
    page = open_page(stop_clock)
    page.context.set_offline(True)

    assert stop_clock.pass_by(30) >= 1

    expect(page.locator("#warnings")).to_contain_text(re.compile(r"can't be reached. Failing since \d+:\d+:\d+"))
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    expect(page.locator("#instances")).to_have_class("is-old")
    assert page.title().startswith("⚠")
    for _ in range(7):
        expect(page.locator("#next-refresh")).to_have_text(re.compile("in [1-4] s"))
        assert stop_clock.pass_by(4.1) >= 1

    expect(page.locator("#next-refresh")).to_have_text(re.compile("in [1-4] s"))
    page.context.set_offline(False)
    stop_clock.pass_by(4.1)

    expect(page.locator("#warnings")).to_be_empty()
    expect(page.locator("#instances")).not_to_have_class("is-old")
    stop_clock.expect_next_in(30)
    assert page.title() == "(1) Novita panel"


def test_redis_outage_and_recovery_are_shown(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    panel.hold({"name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    panel.redis.signal(signal.SIGSTOP)

    page.get_by_role("button", name="Refresh data").click()

    expect(page.locator("#figure-redis")).to_have_text("down")
    expect(page.locator("#warnings p")).to_have_count(1)
    expect(page.locator("#warnings")).to_contain_text("Redis")
    expect(page.locator("tr[data-id] th")).to_have_text("alpha")
    panel.redis.signal(signal.SIGCONT)
    expect(page.locator("#figure-redis")).to_have_text("up")
    expect(page.locator("#warnings")).to_be_empty()


def test_answer_without_a_list_counts_as_failure(panel: Panel, visit: Visit, witness: Witness) -> None:
    panel.hold({"name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    page.route("**/api/instances", lambda route: route.fulfill(body="<html>a proxy's page</html>"))

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
    expect(page.locator("#warnings")).to_contain_text("Synchronization has been failing since")


def test_automatic_refresh_announces_nothing(panel: Panel, stop_clock: Clock) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = open_page(stop_clock)
    live = "[role=status], [role=alert], [aria-live]"
    before = page.locator(live).all_inner_texts()
    panel.set("a", name="beta")
    panel.sync()

    stop_clock.pass_by(31)

    expect(page.locator("tr[data-id] th")).to_have_text("beta")
    assert page.locator(live).all_inner_texts() == before
