"""The cards of the dashboard, and the pages of costs and activity, from a user's side."""

import re
import time

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NARROW, WIDE, Panel, Visit, Witness
from tests.browser.test_accessibility import find_violations

pytestmark = pytest.mark.xdist_group("browser 2")

HOUR_MS = 3_600_000
FAILED = {"state": "ImagePullFailed", "message": "image pull failed"}


def make_row(name: str, days_up: float = 1, **fields: object) -> dict[str, object]:
    started = str(int(time.time() - 86_400 * days_up))
    return {"id": name, "name": name, "gpuNum": "2", "billingMode": "onDemand", "lastStartedAt": started, **fields}


@pytest.fixture
def fleet(panel: Panel) -> Panel:
    panel.hold(
        make_row("alpha", 9, instancePrice="100000", productName="A100"),
        make_row("beta", instancePrice="35000", productName="RTX 4090"),
        make_row("gamma", instancePrice="35000", productName="RTX 4090", status="pulling"),
        make_row("delta", instancePrice="20000", productName="L40S", status="toStop"),
        make_row("epsilon", instancePrice="10000", productName="RTX 3090"),
        make_row("zeta", status="creating", productName="H200", statusError=FAILED, instancePrice="10000"),
        make_row(
            "eta", status="exited", productName="H200", billingMode="spot", spotStatus="terminated", rootfsSize=60
        ),
    )
    return panel


def read_cards(page: Page) -> str:
    """Return the words of the cards, without the age."""
    words = page.get_by_role("region", name="Overview").inner_text()
    return re.sub(r"\s+", " ", words.partition("Last synchronization")[0])


@pytest.mark.usefixtures("fleet")
def test_cards_and_the_bar_of_the_groups_say_the_same_with_and_without_the_script(visit: Visit) -> None:
    static = visit(java_script_enabled=False)
    page = visit()
    expect(page.locator("#figure-sync")).to_have_text(re.compile(" ago$"))

    assert read_cards(page) == read_cards(static)
    for words in (
        "Running 3 of 7 · 6 GPUs 3 moving",
        "Burn rate $4.00/h ≈ $96/day",
        "By GPU A100 $2.00 RTX 4090 $1.40 L40S $0.40",
        "Needs attention 3 1 error 1 up > 7 days 1 spot reclaim",
        "Instances 7 Redis up",
    ):
        assert words in read_cards(page)
    for one in (page, static):
        expect(one.get_by_role("img", name="3 running, 2 starting, 1 stopping, 1 stopped")).to_be_visible()


@pytest.mark.usefixtures("fleet")
def test_each_part_of_a_card_filters_the_table(visit: Visit) -> None:
    page = visit()
    rows = page.locator("#instances tbody").get_by_role("rowheader")
    parts = {
        "1 error": ["zeta"],
        "1 up > 7 days": ["alpha"],
        "1 spot reclaim": ["eta"],
        "RTX 4090": ["gamma", "beta"],
        "3 moving": ["zeta", "gamma", "delta"],
    }

    for link, names in parts.items():
        page.get_by_role("region", name="Overview").get_by_role("link", name=link, exact=True).click()

        expect(rows).to_have_count(len(names))
        assert {text.split("\n")[0] for text in rows.all_inner_texts()} == set(names)
        page.get_by_role("button", name="Clear filters").click()
    page.go_back()
    page.reload()
    expect(rows).to_have_count(len(names))


def test_calm_account_needs_no_attention_and_stale_data_does(panel: Panel, visit: Visit) -> None:
    panel.hold(make_row("alpha"))
    page = visit()
    overview = page.get_by_role("region", name="Overview")
    expect(overview.get_by_text("Nothing needs attention")).to_be_visible()

    panel.age(hours=1)

    expect(overview.get_by_role("link", name="stale data")).to_be_visible()
    expect(overview.get_by_text("Nothing needs attention")).to_be_hidden()


def test_chart_of_the_card_is_read_again_every_five_minutes(panel: Panel, visit: Visit) -> None:
    page = visit("about:blank", is_alone=True)
    page.clock.install()
    page.goto("/")
    expect(page.locator("#figure-sync")).to_have_text(re.compile("ago$|:"))

    with page.expect_request("**/costs/trend/") as request:
        page.clock.run_for(301_000)

    assert request.value.response().status in {200, 304}


# --- Costs


def record_costs(panel: Panel) -> None:
    """Give the ledger two instances of the last ten days, and a gap of a day."""
    now = round(1000 * time.time())
    day = 24 * HOUR_MS

    def interval(pk: int, state: int, begin: int, end: int, usd: float) -> str:
        columns = "instance_id, state, began_ms, ended_ms, price, gpus, is_inferred"
        price = round(usd * 10**10) if usd else "NULL"
        return (
            f"INSERT INTO instances_usageinterval ({columns}) "  # noqa: S608 - our own numbers
            f"VALUES ({pk}, {state}, {now - begin * day}, {now - end * day}, {price}, {2 if usd else 0}, 0)"
        )

    panel.change_records(
        "DELETE FROM instances_usageinterval",
        "DELETE FROM instances_meteredinstance",
        "INSERT INTO instances_meteredinstance (id, instance_id, name, product_id, gpu, region, billing_mode) "
        "VALUES (1, 'a', 'alpha', '', 'A100', 'US', ''), (2, 'b', 'beta', '', 'RTX 4090', 'US', '')",
        interval(1, 1, 10, 4, 2),
        interval(1, 4, 4, 3, 0),
        interval(1, 1, 3, 0, 2),
        interval(2, 1, 9, 4, 0.5),
    )


def test_costs_are_charts_with_sentences_and_a_table_by_instance(panel: Panel, visit: Visit) -> None:
    record_costs(panel)
    page = visit("/costs/")

    page.get_by_role("link", name="30 days").click()

    expect(page.get_by_role("img", name=re.compile(r"^Burn rate over time, UTC: .*With gaps"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile(r"^Running GPUs over time, UTC: "))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile(r"^Cost per day by GPU, UTC: \$492\.00"))).to_be_visible()
    rows = page.get_by_role("region", name="Per instance").get_by_role("rowheader")
    expect(rows).to_have_text(["alpha", "beta"])
    page.get_by_role("link", name="GPU hours").click()
    page.get_by_role("link", name="GPU hours").click()
    expect(rows).to_have_text(["beta", "alpha"])
    # The script reads the bill, which the page does not wait for.
    expect(page.get_by_role("region", name="Estimated and billed per day")).to_contain_text("not billed yet")


def test_costs_work_without_the_script(panel: Panel, visit: Visit, witness: Witness) -> None:
    witness.allow("Failed to load resource")
    record_costs(panel)
    page = visit("/costs/?from=2020-01-01", java_script_enabled=False)
    expect(page.get_by_text("From must be at most 400 days before")).to_be_visible()

    page.get_by_role("link", name="Owner", exact=True).first.click()

    expect(page.get_by_role("img", name=re.compile("^Cost per day by Owner"))).to_be_visible()
    page.goto("/costs/?bill=read")
    expect(page.get_by_role("region", name="Estimated and billed per day")).to_be_visible()


@pytest.mark.parametrize("address", ["/costs/?range=30d&by=owner", "/activity/"])
def test_report_passes_axe_and_fits_a_phone(fleet: Panel, visit: Visit, address: str) -> None:
    record_costs(fleet)
    page = visit(address)
    expect(page.get_by_role("heading", level=1)).to_be_visible()

    assert find_violations(page, WIDE, NARROW) == []
    assert page.viewport_size == NARROW
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


# --- Activity


def test_activity_shows_a_stop_and_leads_to_its_instance_and_older_events(panel: Panel, visit: Visit) -> None:
    panel.hold(make_row("alpha"))
    assert panel.service.post("/api/instances/alpha/stop").ok
    page = visit()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Activity").click()
    page.get_by_role("link", name="Actions").click()
    line = page.get_by_role("listitem").filter(has_text="Stop requested.").first
    expect(line).to_contain_text("local-owner")

    line.get_by_role("link", name="alpha").click()

    expect(page).to_have_url(re.compile(r"/\?instance=alpha$"))
    page.go_back()
    page.get_by_label("Person").select_option("local-owner")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("listitem").filter(has_text="Stop requested.").first).to_be_visible()
    expect(page).to_have_url(re.compile("kind=action&actor=local-owner"))
