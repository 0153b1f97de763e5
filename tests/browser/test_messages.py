"""Messages about failures and refusals: shown once, worded correctly, and gone when they no longer apply."""

import re
import signal
import time
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Panel, Visit, Witness, confirm, show_operations
from tests.browser.test_truth import format_time, make_ended_operation, press

pytestmark = pytest.mark.xdist_group("browser 3")

DAY_SECONDS = 86_400


@pytest.fixture(autouse=True)
def tolerant(witness: Witness) -> None:
    witness.allow("Failed to load resource")


def make_running_operation(names: dict[str, str], *, due_in_seconds: float = 300) -> dict[str, Any]:
    """Return a stop that is running; `names` maps the names of its targets to their states."""
    operation = make_ended_operation(1, success=None, state="requesting", finishedAt=None)
    (target,) = operation["targets"]
    targets = [{**target, "instanceId": f"id-{name}", "name": name, "state": state} for name, state in names.items()]
    counts = {state: list(names.values()).count(state) for state in operation["counts"]}
    due = format_time(time.time() + due_in_seconds)
    return {**operation, "id": "running", "deadlineAt": due, "counts": counts, "targets": targets}


def test_running_operation_says_when_nothing_has_been_read_for_long(panel: Panel, visit: Visit) -> None:
    operation = make_running_operation({"alpha": "requested", "beta": "confirmed"})
    for target in operation["targets"]:
        target["readAt"] = format_time(time.time() - 25)
    page = visit("about:blank")
    show_operations(page, operation)

    page.goto("/")

    summary = page.locator("#operation-summary")
    expect(summary).to_have_text(re.compile(r"^1 stopped · 1 stopping · last read at \d+:\d\d:\d\d\s[AP]M$"))


# --- A refused cancellation


def cancel(page: Page) -> None:
    press(page, "Cancel")
    press(page, "Cancel the remaining stops")


def test_refused_cancellation_is_shown_until_the_next_action(panel: Panel, visit: Visit) -> None:
    page = visit("about:blank")
    show_operations(page, make_running_operation({"alpha": "requested"}))
    refusal = {"status": 403, "json": {"message": "You may not.", "suggestion": "Ask Anna."}}

    def refuse(route: Route) -> None:
        route.fulfill(**refusal) if refusal else route.abort()

    page.route("**/api/operations/running/cancel", refuse)
    page.goto("/")

    cancel(page)

    said = page.locator("#operation").get_by_role("status").filter(has_text="cancelled")
    expect(said).to_have_text("Not cancelled: You may not. Ask Anna.")
    for _ in range(2):
        with page.expect_response("**/api/operations/running"):
            pass
    expect(said).to_have_text("Not cancelled: You may not. Ask Anna.")

    press(page, "Cancel")
    expect(said).to_have_count(0)
    refusal.clear()
    press(page, "Cancel the remaining stops")
    expect(said).to_have_text("It is not known whether the operation was cancelled: The service can't be reached.")
    with page.expect_response("**/api/operations/running"):
        pass
    expect(said).to_be_visible()


# --- An outage


def test_outage_messages_disappear_with_the_outage(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"}, {"id": "b", "name": "beta"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(2)
    # Some actions work without Redis; this one doesn't.
    outage = {"status": 503, "json": {"message": "Redis can't be reached.", "code": "CACHE_UNAVAILABLE"}}
    page.route("**/api/instances/a/stop", lambda route: route.fulfill(**outage))
    panel.redis.signal(signal.SIGSTOP)
    press(page, "Stop alpha")
    confirm(page)
    press(page, "Sync with Novita.ai")
    message, error = page.locator("tr[data-id=a] .message"), page.locator("#status-error")
    expect(message).to_contain_text("Redis")
    expect(error).to_contain_text("Redis")

    # The reason is in the banner alone.
    expect(page.locator("#failure")).to_contain_text("Redis")
    press(page, "Refresh data")
    expect(error).to_have_text("Not refreshed.")
    expect(page.locator("#failure p")).to_have_count(1)
    press(page, "Sync with Novita.ai")
    expect(error).to_contain_text("Redis")

    panel.redis.signal(signal.SIGCONT)

    expect(page.locator("#failure")).to_be_empty()
    expect(message).to_have_count(0)
    expect(error).to_be_empty()


def test_old_list_says_nothing_of_a_stop_sent_without_redis(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    panel.redis.signal(signal.SIGSTOP)
    press(page, "Stop alpha")
    confirm(page)
    message = page.locator("tr[data-id=a] .message")
    said = "Stop requested. The dashboard shows it later: Redis did not answer in time."
    expect(message).to_have_text(said)

    press(page, "Refresh data")

    expect(page.locator("#status-error")).to_have_text("Not refreshed.")
    expect(message).to_have_text(said)
    panel.redis.signal(signal.SIGCONT)
    expect(page.locator("#failure")).to_be_empty()
    expect(message).to_have_text(said)


def test_refusal_outlives_an_outage(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = visit()
    refusal = {"status": 409, "json": {"message": "Novita refused.", "code": "NOVITA_REFUSED"}}
    page.route("**/api/instances/a/stop", lambda route: route.fulfill(**refusal))
    press(page, "Stop alpha")
    confirm(page)
    message = page.locator("tr[data-id=a] .message")
    expect(message).to_have_text("Novita refused.")
    page.context.set_offline(True)
    press(page, "Refresh data")
    expect(page.locator("#status-error")).to_have_text("Not refreshed.")

    page.context.set_offline(False)

    expect(page.locator("#failure")).to_be_empty()
    expect(page.locator("#status-error")).to_be_empty()
    expect(message).to_have_text("Novita refused.")


def test_message_about_cleared_cache_is_updated_when_filled(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a", "name": "alpha"})
    page = visit()
    expect(page.locator("tr[data-id]")).to_have_count(1)
    press(page, "Clear cache")
    confirm(page)
    status = page.locator("#status-words")
    expect(status).to_have_text("Cleared 1 instance from the cache. The next synchronization fills it.")

    panel.sync()

    expect(page.locator("tr[data-id]")).to_have_count(1)
    expect(status).to_have_text("Cleared 1 instance from the cache, and synchronized again: 1 instance.")


def test_title_shows_trouble_and_operation_on_a_page_opened_in_an_outage(panel: Panel, visit: Visit) -> None:
    panel.redis.signal(signal.SIGSTOP)
    page = visit("about:blank")
    show_operations(page, make_running_operation({"alpha": "requested", "beta": "confirmed"}))
    page.goto("/")

    expect(page).to_have_title("⚠ Stopping 1/2 – Novita panel")
    page.unroute_all()
    other = visit()
    expect(other).to_have_title("⚠ Novita panel")


# --- Times to come


def test_end_of_monthly_instance_is_shown_as_future(panel: Panel, visit: Visit) -> None:
    ends = {"billingMode": "monthly", "endTime": str(int(time.time()) + 180 * DAY_SECONDS)}
    panel.hold({"id": "a", "name": "alpha", **ends})
    page = visit()

    press(page, "alpha")

    expect(page.get_by_role("complementary", name="alpha")).to_contain_text("(in 180 days)")


def test_passed_deadline_is_overdue_and_names_are_in_natural_order(panel: Panel, visit: Visit) -> None:
    names = {f"worker-{number}": "requested" for number in (1, 19, 2, 20, 10)}
    operation = make_running_operation(names)
    page = visit("about:blank")
    show_operations(page, operation)
    page.goto("/")
    under_way = page.locator("#targets-under-way .target-name")
    expect(under_way).to_have_text([f"worker-{number}" for number in (1, 2, 10, 19, 20)])
    expect(page.locator("#operation-when")).to_contain_text(re.compile(r"Result by \d+:\d\d"))

    # worker-19 and worker-20 are confirmed first; worker-2, which sorts before them, last.
    for number in (1, 3):
        operation["targets"][number]["state"] = "confirmed"
    operation["counts"] |= {"requested": 3, "confirmed": 2}
    confirmed = page.locator("#targets-confirmed .target-name")
    expect(confirmed).to_have_text(["worker-19", "worker-20"])
    operation["targets"][2]["state"] = "confirmed"
    operation["counts"] |= {"requested": 2, "confirmed": 3}
    operation["deadlineAt"] = format_time(time.time() - 60)

    expect(confirmed).to_have_text(["worker-2", "worker-19", "worker-20"])
    expect(under_way).to_have_text(["worker-1", "worker-10"])
    expect(page.locator("#operation-when")).to_contain_text(re.compile(r"overdue since \d+:\d\d"))
    expect(page.locator("#operation-when")).not_to_contain_text("Result by")
