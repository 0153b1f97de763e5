"""The page of costs, and the burn rate over time, as the server renders them."""

import html
import re
from datetime import timedelta
from unittest.mock import Mock

import pytest
from django.db import OperationalError, connection
from django.test import Client
from fakeredis import FakeServer
from pytest_django import DjangoAssertNumQueries, Settings

from instances.costs import balance, ledger, reports, trend
from instances.models import LabelRule, LedgerState
from instances.pages import costs
from tests.novita_answers import NovitaAnswers, make_row
from tests.test_costs import NOON, State, answer_balance, answer_bills, now, record  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db

BY_INSTANCE = 'id="by-instance"'
BILLED = "from=2026-01-13&to=2026-01-15"


def read(client: Client, address: str = "/costs/", status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status
    return answer.content.decode()


def list_cells(page: str, heading: str) -> list[list[str]]:
    """Return the texts of the rows of the first table after a heading."""
    table = page.partition(heading)[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row) for row in rows]
    return [[html.unescape(re.sub("<.*?>", "", cell)) for cell in row] for row in cells]


@pytest.fixture
def week(now: object) -> None:  # noqa: F811 - the fixture
    """Two instances, one of them removed, and a gap of two hours."""
    LabelRule.objects.create(pattern="name-a", owner="ada", project="llm")
    record("a", (State.GPU, 100, 50, 2), (State.GAP, 50, 48, None), (State.GPU, 48, None, 2), gpu="H100")
    record("b", (State.GPU, 60, 50, 0.5), (State.GPU, 50, 49, None))


@pytest.mark.usefixtures("week")
def test_page_has_the_sums_of_the_period_and_a_row_for_each_instance(client: Client) -> None:
    page = read(client)

    assert "$201.00" in page
    assert list_cells(page, BY_INSTANCE) == [
        ["name-a", "$196.00", "98.0", "H100", "ada", "llm", "", "2.0 h"],
        ["name-b", "$5.00", "11.0", "RTX 4090", "–", "–", "", ""],
    ]
    assert 'href="/?instance=a"' in page


@pytest.mark.usefixtures("week")
@pytest.mark.parametrize(
    ("query", "first"),
    [("sort=cost", "name-b"), ("sort=-gpuHours", "name-a"), ("sort=-name", "name-b"), ("sort=nope", "name-a")],
)
def test_rows_have_the_order_of_the_address(client: Client, query: str, first: str) -> None:
    assert list_cells(read(client, f"/costs/?{query}"), BY_INSTANCE)[0][0] == first


@pytest.mark.usefixtures("week")
@pytest.mark.parametrize(
    ("group", "names"),
    [("gpu", ["H100", "RTX 4090"]), ("owner", ["ada", "No owner"]), ("project", ["llm", "No project"])],
)
def test_days_are_split_by_gpu_owner_or_project(client: Client, group: str, names: list[str]) -> None:
    page = read(client, f"/costs/?by={group}")

    assert re.findall(r"</svg><span>(.*?)</span>", page.partition("chart-key")[2]) == names
    assert list_cells(page, "Show as a table")[-1] == ["2026-01-15", "24.00", "0.00", "24.00"]


@pytest.mark.usefixtures("week")
@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("range=24h", ["2026-01-14", "2026-01-15"]),
        ("from=2026-01-12&to=2026-01-13", ["2026-01-12", "2026-01-13"]),
        ("from=2026-01-12T06:00:00Z&to=2026-01-12T18:00:00Z", ["2026-01-12"]),
    ],
)
def test_period_is_that_of_the_address(client: Client, query: str, days: list[str]) -> None:
    assert [row[0] for row in list_cells(read(client, f"/costs/?{query}"), "Show as a table")] == days


@pytest.mark.usefixtures("week")
@pytest.mark.parametrize(("name", "count"), [("7d", 7), ("30d", 30), ("month", 15)])
def test_presets_end_today(client: Client, name: str, count: int) -> None:
    days = [row[0] for row in list_cells(read(client, f"/costs/?range={name}"), "Show as a table")]

    assert len(days) == count
    assert days[-1] == "2026-01-15"


@pytest.mark.usefixtures("week")
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("from=yesterday", "From must be a date or a time in UTC, such as 2026-01-31 or 2026-01-31T10:00:00Z."),
        ("from=2026-01-14&to=2026-01-12", "From must be before the end, 2026-01-13T00:00:00Z."),
        ("from=2020-01-01", "From must be at most 400 days before the end, 2026-01-15T12:00:00Z."),
        ("to=2026-02-30", "To must be a date that exists, such as 2026-01-31"),
    ],
)
def test_bad_period_is_explained_on_the_page_beside_the_last_week(client: Client, query: str, words: str) -> None:
    page = html.unescape(read(client, f"/costs/?{query}", 400))

    assert f"This period can't be shown. {words}" in page
    assert len(list_cells(page, "Show as a table")) == 7
    field, value = query.split("&")[0].split("=")
    assert f'name="{field}" value="{value[:10]}" aria-invalid="true"' in page


@pytest.mark.usefixtures("week")
def test_page_without_redis_has_the_costs_and_no_balance(client: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False

    page = html.unescape(read(client))

    assert "$201.00" in page
    assert re.search(r"<dt>Balance</dt><dd>.*Redis can't be reached", page)


def test_page_without_costs_says_so(client: Client) -> None:
    page = read(client)

    assert "No costs recorded yet" in page
    assert BY_INSTANCE not in page


@pytest.mark.usefixtures("week")
def test_page_says_since_when_costs_are_recorded(client: Client) -> None:
    LedgerState.objects.update(began_ms=ledger.to_ms(NOON - timedelta(hours=100)))

    page = read(client)

    assert "Costs are recorded since 2026-01-11 08:00 UTC." in page
    assert list_cells(page, "Show as a table")[0] == ["2026-01-09", "", "", "not recorded"]


@pytest.mark.usefixtures("week")
def test_day_before_the_ledger_is_not_compared_with_its_bill(client: Client, novita: NovitaAnswers) -> None:
    LedgerState.objects.update(began_ms=ledger.to_ms(NOON - timedelta(hours=30)))
    answer_bills(novita, ("2026-01-13", 400_000))
    answer_bills(novita, category="cloud_storage")

    rows = list_cells(read(client, f"/costs/bill/?{BILLED}"), "Difference")

    assert rows[2] == ["2026-01-13", "not recorded", "$40.00", ""]


@pytest.mark.usefixtures("week")
def test_csv_links_have_the_period(client: Client) -> None:
    page = html.unescape(read(client, "/costs/?from=2026-01-12&to=2026-01-13"))

    links = re.findall(r'href="(/api/costs/\w+\.csv\?.*?)"', page)
    assert [client.get(link).status_code for link in links[:2]] == [200, 200]
    assert links[2] == "/api/costs/bill.csv?from=2026-01-12&to=2026-01-13"
    assert links[0] == "/api/costs/instances.csv?from=2026-01-12T00%3A00%3A00Z&to=2026-01-14T00%3A00%3A00Z"


@pytest.mark.usefixtures("week")
def test_page_waits_for_no_bill_and_says_how_to_read_it(client: Client) -> None:
    assert "Read Novita's bill</a>, which can take some seconds." in read(client)


@pytest.mark.usefixtures("week")
@pytest.mark.parametrize("address", [f"/costs/?bill=read&{BILLED}", f"/costs/bill/?{BILLED}"])
def test_bill_is_compared_by_day(client: Client, novita: NovitaAnswers, address: str) -> None:
    answer_bills(novita, ("2026-01-13", 400_000))
    answer_bills(novita, category="cloud_storage")

    rows = list_cells(read(client, address), "Difference")

    assert rows[1] == ["2026-01-14", "$48.00", "not billed yet", ""]
    assert rows[2] == ["2026-01-13", "$49.00", "$40.00", "−$9.00"]
    assert "Read Novita's bill</a>" not in read(client, f"/costs/?{BILLED}")


def test_balance_and_how_long_it_lasts_are_shown(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a", instancePrice="100000"))
    client.post("/api/instances/sync")
    record("b", (State.GPU, 4, None, 1))
    answer_balance(novita)
    balance.refresh(None)

    page = read(client, f"/costs/?{BILLED}")

    assert re.search(r"<dt>Balance</dt><dd>\$49\.80</dd>", page)
    assert re.search(r"<dt>Balance lasts</dt><dd>50 h ", page)


@pytest.mark.usefixtures("week")
@pytest.mark.parametrize("address", ["/costs/charts/?range=7d", "/costs/trend/", f"/costs/bill/?{BILLED}"])
def test_fragment_is_conditional(client: Client, novita: NovitaAnswers, address: str) -> None:
    novita.mock.assert_all_requests_are_fired = False
    answer_bills(novita)
    answer_bills(novita, category="cloud_storage")
    first = client.get(address)

    second = client.get(address, headers={"If-None-Match": first["ETag"]})

    assert first.status_code == 200
    assert second.status_code == 304
    assert second.content == b""


@pytest.mark.usefixtures("week")
def test_fragment_is_what_the_page_has(client: Client) -> None:
    assert client.get("/costs/charts/?range=7d").content.decode().strip() in read(client, "/costs/?range=7d")


@pytest.mark.usefixtures("week")
def test_page_needs_a_bounded_number_of_queries(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    read(client)
    for number in range(50):
        record(f"c{number}", (State.GPU, 20, None, 1))

    with django_assert_max_num_queries(15):
        read(client)


def test_rows_beyond_the_first_hundred_are_a_link_away(client: Client, now: object) -> None:  # noqa: F811 - the fixture
    for number in range(103):
        record(f"c{number}", (State.GPU, 20, None, 1))

    page = read(client)

    assert len(list_cells(page, BY_INSTANCE)) == 100
    assert "Show the other 3 instances" in page
    assert len(list_cells(read(client, "/costs/?rows=all"), BY_INSTANCE)) == 103


# --- Over time


def find_levels(hours: float, step_ms: int) -> list[trend.Level]:
    end_ms = ledger.to_ms(NOON)
    begin_ms = end_ms - round(hours * reports.HOUR_MS)
    return trend.find_levels(list(reports.read_pieces(begin_ms, end_ms)), begin_ms, step_ms)


@pytest.mark.usefixtures("now")
def test_burn_rate_over_time_is_an_average_and_a_gap_is_not_zero() -> None:
    record("a", (State.GPU, 4, 2, 2), (State.GAP, 2, 1, None), (State.GPU, 1, None, 2))
    record("b", (State.STORAGE, 4, 3.5, 0.5), (State.GPU, 3.5, 2, 1), (State.GAP, 2, 1, None), (State.GPU, 1, None, 1))

    levels = find_levels(4, reports.HOUR_MS)

    assert [one.usd_per_hour for one in levels] == [2.75, 3, None, 3]
    assert [one.gpus for one in levels] == [1.5, 2, None, 2]


@pytest.mark.usefixtures("now")
def test_step_that_was_observed_for_most_of_its_time_counts_with_that_part() -> None:
    record("a", (State.GPU, 2, 1.25, 2), (State.GAP, 1.25, 0.25, None), (State.GPU, 0.25, None, 2))

    assert [one.usd_per_hour for one in find_levels(2, reports.HOUR_MS)] == [2, None]


@pytest.mark.usefixtures("now")
def test_time_before_the_first_observation_is_not_zero() -> None:
    record("a", (State.GPU, 1, None, 2))

    assert [one.usd_per_hour for one in find_levels(3, reports.HOUR_MS)] == [None, None, 2]


@pytest.mark.usefixtures("now")
def test_hour_in_which_the_record_begins_has_the_rate_since_then() -> None:
    record("a", (State.GPU, 0.25, None, 2))

    assert [one.usd_per_hour for one in find_levels(2, reports.HOUR_MS)] == [None, 2]


@pytest.mark.usefixtures("now")
def test_scale_of_cents_is_told_in_cents(client: Client) -> None:
    record("a", (State.GPU, 0.25, None, 2))

    assert re.findall(r'class="chart-scale.*?>(.*?)<', read(client))[-2:] == ["$0.50", "$0.25"]


@pytest.mark.usefixtures("now")
def test_line_ends_at_the_last_observation() -> None:
    """A synchronization was a moment ago: the rest of the step is not observed yet, and no dip."""
    record("a", (State.GPU, 3, None, 2))
    LedgerState.objects.update(observed_ms=ledger.to_ms(NOON - timedelta(minutes=1)))

    assert [one.usd_per_hour for one in find_levels(2, reports.HOUR_MS)] == [2, 2]


@pytest.mark.usefixtures("now")
def test_stale_time_is_a_gap_until_now(client: Client) -> None:
    record("a", (State.GPU, 3, None, 2))
    LedgerState.objects.update(observed_ms=ledger.to_ms(NOON - timedelta(hours=1)))

    assert [one.usd_per_hour for one in find_levels(2, reports.HOUR_MS)] == [2, None]
    assert "With gaps" in read(client, "/costs/?range=24h")


@pytest.mark.usefixtures("now")
def test_groups_beyond_the_most_expensive_ones_are_one() -> None:
    for number in range(5):
        record(f"i{number}", (State.GPU, 2, None, 5 - number), gpu=f"GPU {number}")
    end_ms = ledger.to_ms(NOON)
    pieces = list(reports.read_pieces(end_ms - reports.DAY_MS, end_ms))

    found = trend.split(pieces, reports.sum_by_instance(pieces), "gpu", end_ms - reports.DAY_MS, end_ms, most=3)

    assert [(one.name, float(one.total.usd)) for one in found] == [("GPU 0", 10), ("GPU 1", 8), (None, 12)]
    assert [float(one.points[-1].sums.usd) for one in found] == [10, 8, 12]


# --- The card of the dashboard


def read_trend(client: Client) -> str:
    page: str = client.get("/").content.decode().partition('class="card-trend"')[2].partition("</a>")[0]
    return page


@pytest.mark.usefixtures("now")
def test_dashboard_has_the_burn_rate_of_24_hours_with_a_sentence(client: Client) -> None:
    record("a", (State.GPU, 30, 2, 2), (State.GPU, 2, None, 4))

    trend_ = read_trend(client)

    assert "Burn rate of the last 24 hours: between $2.00 and $4.00 per hour, $4.00 last." in trend_
    assert 'd="M0 25H220V0H240"' in trend_


@pytest.mark.usefixtures("now")
def test_dashboard_has_no_line_of_the_first_two_hours(client: Client) -> None:
    record("a", (State.GPU, 1.9, None, 4))

    assert "<svg" not in read_trend(client)


def test_dashboard_without_a_ledger_has_no_line(client: Client) -> None:
    assert "<svg" not in read_trend(client)


def test_dashboard_without_the_database_has_no_line(client: Client) -> None:
    client.get("/")

    with connection.execute_wrapper(Mock(side_effect=OperationalError("disk full"))):
        assert "<svg" not in read_trend(client)


@pytest.mark.parametrize("path", ["/costs/", "/costs/charts/", "/costs/bill/", "/costs/trend/"])
def test_costs_require_a_login_where_others_can_reach_the_panel(client: Client, settings: Settings, path: str) -> None:
    settings.REQUIRE_LOGIN = True

    assert client.get(path).status_code == 302


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, ""), (1, "< 1 min"), (90, "2 min"), (3600, "1.0 h"), (3_600_000, "1,000 h")]
)
def test_short_time_is_not_said_to_be_none(seconds: int, words: str) -> None:
    assert costs.say_hours(1000 * seconds) == words
