"""What policies found, on the page: a mark in the row, and the drawer's section, where a finding is snoozed."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.browser.conftest import WIDE, Panel, Visit, change_overview

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

IS_CUT = "one => one.scrollWidth > one.clientWidth"


def test_finding_is_marked_in_its_row_at_every_width_and_snoozed_in_its_drawer(panel: Panel, visit: Visit) -> None:
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
    expect(marked.get_by_text("stops 18:30")).to_have_attribute("title", re.compile("^Idle machines: Stops at "))
    expect(other.get_by_text("stops")).to_have_count(0)
    mark = marked.get_by_text("stops 18:30")
    cut: list[int | str] = []
    for width in (360, 640, 768, 900, 1024, 1280, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        expect(mark).to_be_visible()
        cut += [width] * mark.evaluate(IS_CUT)
    marked.get_by_role("button", name="alpha", exact=True).click()
    expect(page.get_by_role("complementary")).to_be_visible()
    cut += ["beside a drawer"] * mark.evaluate(IS_CUT)
    assert cut == [], "the time at which the policy stops the instance is not whole"
    section = page.get_by_role("complementary").get_by_role("group", name="Policies")
    expect(section).to_contain_text("No work above 5 %")
    section.get_by_role("button", name="4 h").click()

    expect(page.get_by_role("complementary").get_by_text("Snoozed until")).to_be_visible()
    assert wishes == [{"for": "4h"}]


def test_idle_instances_need_attention(panel: Panel, visit: Visit) -> None:
    names = {"a1": "alpha", "b2": "beta", "c3": "gamma"}
    panel.hold(*[{"id": id_, "name": name, "status": "running"} for id_, name in names.items()])
    page = visit("about:blank")
    snoozed = {**FINDING, "id": 8, "instanceId": "b2", "state": "snoozed"}
    # The finding of gamma is beyond those that are listed.
    change_overview(page, findings=[FINDING, snoozed], openFindings=250, moreIdle={"c3": FINDING["since"]})
    page.goto("/")

    page.get_by_role("link", name="2 idle").click()

    expect(page.get_by_role("row").filter(has_text="alpha")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="beta")).to_have_count(0)
    expect(page.get_by_role("row").filter(has_text="gamma")).to_contain_text("idle")
    expect(page.get_by_role("link", name="Idle 2", exact=True)).to_have_attribute("aria-current", "true")
    expect(page.get_by_text("Policies have 250 open findings. This page shows 2 of them.")).to_be_visible()

    # Its drawer reads the finding that the page doesn't list.
    unlisted = {**FINDING, "id": 9, "instanceId": "c3"}
    page.route("**/api/policies/findings?**", lambda route: route.fulfill(json={"findings": [unlisted], "total": 1}))
    page.get_by_role("button", name="gamma", exact=True).click()

    snooze = page.get_by_role("complementary").get_by_role("button", name="Snooze 1 h")
    expect(snooze).to_have_attribute("data-finding", "9")


def test_admin_freezes_starts_and_switches_policies_off_and_takes_both_back(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a1", "name": "alpha"})
    page = visit("/", viewport=WIDE)
    warning, more = page.locator("#warning"), page.get_by_role("button", name="More", exact=True)

    def confirm(opener: Locator, action: str, reason: str = "") -> None:
        opener.click()
        if reason:
            page.get_by_role("dialog").get_by_label("Reason").fill(reason)
        page.get_by_role("dialog").get_by_role("button", name=action).click()

    more.click()
    confirm(page.get_by_role("button", name="Freeze starts…"), "Freeze starts", "budget spent")
    expect(warning).to_contain_text(re.compile("Starts are frozen until .* by local-owner: budget spent"))
    assert panel.service.get("/api/start-freeze").json()["frozen"]
    more.click()
    confirm(page.get_by_role("button", name="Switch policies off…"), "Switch off")
    expect(warning).to_contain_text("Policies stop nothing: local-owner has switched them off.")
    assert not panel.service.get("/api/policies").json()["acting"]["on"]

    confirm(warning.get_by_role("button", name="Allow starts…"), "Allow starts")
    confirm(warning.get_by_role("button", name="Switch on…"), "Switch on")

    expect(warning).to_be_empty()
    assert not panel.service.get("/api/start-freeze").json()["frozen"]
    assert panel.service.get("/api/policies").json()["acting"]["on"]


def test_warning_of_the_account_s_spending_is_a_banner_that_snoozes_until_a_date(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a1", "name": "alpha"})
    page = visit("about:blank")
    wishes: list[Any] = []
    budget = {**FINDING, "policy": "Budget", "rule": "budget", "mode": "notify", "instanceId": None, "state": "due"}
    budget["message"] = "Due: The burn rate is $26.44/h, above $20.00/h."

    def take(route: Route) -> None:
        wishes.append(route.request.post_data_json)
        route.fulfill(json={**budget, "state": "snoozed", "message": "Snoozed until 2026-01-15T22:00:00Z by ann."})

    change_overview(page, findings=[budget])
    page.route("**/api/policies/findings/7/snooze", take)
    page.goto("/")

    expect(page.locator("#warning")).to_contain_text("Policy Budget: Due: The burn rate is $26.44/h, above $20.00/h.")
    page.locator("#warning").get_by_role("button", name="Snooze…").click()
    page.get_by_role("dialog").get_by_label("Until").select_option(index=6)
    page.get_by_role("dialog").get_by_label("Reason").fill("a deadline")
    page.get_by_role("dialog").get_by_role("button", name="Snooze").click()

    expect(page.get_by_text("Snoozed until")).to_be_visible()
    (wish,) = wishes
    assert wish["reason"] == "a deadline"
    week = datetime.fromisoformat(wish["until"]) - datetime.now(UTC)
    assert timedelta(days=5.9) < week < timedelta(days=8)


def test_drawer_says_that_metrics_are_being_read(panel: Panel, visit: Visit) -> None:
    panel.hold({"id": "a1", "name": "alpha", "status": "running"})

    page = visit("/?instance=a1")

    section = page.get_by_role("complementary").get_by_role("group", name="Utilization")
    expect(section).to_contain_text("Novita's metrics are being read.")
