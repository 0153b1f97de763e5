"""What policies found, on the page: a mark in the row, and the drawer's section, where a finding is snoozed."""

import re
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Panel, Visit, change_overview

pytestmark = pytest.mark.xdist_group("browser 2")

FINDING = {
    "id": 7,
    "policy": "Idle machines",
    "rule": "idle",
    "policyId": 1,
    "mode": "stop",
    "instanceId": "a1",
    "name": "alpha",
    "state": "warned",
    "message": "Stops at 2026-01-15T18:30:00Z: No work above 5 % since 2026-01-15T17:00:00Z.",
    "reason": "No work above 5 % since 2026-01-15T17:00:00Z.",
    "since": "2026-01-15T17:00:00Z",
    "savesPerHour": 0.5,
    "warnedAt": "2026-01-15T18:00:00Z",
    "stopsAt": "2026-01-15T18:30:00Z",
    "snoozedUntil": None,
    "snoozedBy": None,
    "endedAt": None,
    "operationId": None,
}


def test_finding_is_marked_in_its_row_and_snoozed_in_its_drawer(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a1", "name": "alpha"}, {"id": "b2", "name": "beta"})
    page = visit("about:blank", timezone_id="UTC")
    wishes: list[Any] = []

    def take(route: Route) -> None:
        wishes.append(route.request.post_data_json)
        route.fulfill(json={**FINDING, "state": "snoozed", "message": "Snoozed until 2026-01-15T22:00:00Z by ann."})

    change_overview(page, findings=[FINDING])
    page.route("**/api/policies/findings/7/snooze", take)
    page.goto("/")

    marked, other = (page.get_by_role("row").filter(has_text=name) for name in ("alpha", "beta"))
    expect(marked.get_by_text("18:30")).to_have_attribute("title", re.compile("^Idle machines: Stops at "))
    expect(other.get_by_text("18:30")).to_have_count(0)
    marked.get_by_role("button", name="alpha", exact=True).click()
    section = page.get_by_role("complementary").get_by_role("group", name="Policies")
    expect(section).to_contain_text("No work above 5 %")
    section.get_by_role("button", name="4 h").click()

    expect(page.get_by_role("complementary").get_by_text("Snoozed until")).to_be_visible()
    assert wishes == [{"for": "4h"}]


def test_drawer_says_that_metrics_are_being_read(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a1", "name": "alpha", "status": "running"})

    page = visit("/?instance=a1")

    section = page.get_by_role("complementary").get_by_role("group", name="Utilization")
    expect(section).to_contain_text("Novita's metrics are being read.")
