"""The dashboard as the server renders it: what somebody reads whose browser runs no script."""

import gzip
import html
import re
from datetime import datetime
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import parse_qsl

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from fakeredis import FakeServer
from pytest_django import DjangoAssertNumQueries, Settings

from instances import simulator
from instances.errors import CacheUnavailable
from instances.inventory import store
from instances.models import Protection
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    """250 instances; every fifth is stopped and in another region. The first ones cost the most."""
    rows = [
        make_row(f"{number:03}", createdAt=str(1_760_000_000 + number), instancePrice=str(90_000 - number))
        for number in range(250)
    ]
    for row in rows[::5]:
        row |= {"status": "exited", "clusterId": "eu-1", "clusterName": "EU-01 (Frankfurt)"}
    novita.lists(*rows)
    fill_inventory()


def read(client: Client, address: str = "/") -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


def list_names(page: str) -> list[str]:
    return [
        html.unescape(name) for name in re.findall(r'<th scope="row".*?><a .*?><bdi.*?>(.*?)</bdi>', read_body(page))
    ]


def read_body(page: str) -> str:
    """Return the table's rows; the templates of the script follow below."""
    return page.partition("<tbody>")[2].partition("</tbody>")[0]


def list_cells(page: str, column: str) -> list[str]:
    """Return the texts of a column."""
    return [
        re.sub("<.*?>", "", cell) for cell in re.findall(rf'<td class="col-{column}".*?>(.*?)</td>', read_body(page))
    ]


def list_tabs(page: str) -> dict[str, str]:
    """Return the number in each visible tab, by its word; that of the current one in brackets."""
    found = re.findall(r'<a href="[^"]*" data-\w+="\w*"(.*?)>(.*?) <span>(.*?)</span></a>', page)
    return {
        word: f"[{number}]" if "aria-current" in state else number
        for state, word, number in found
        if "hidden" not in state
    }


def read_figure(page: str, name: str) -> str:
    match = re.search(rf'id="figure-{name}"[^>]*>(.*?)</(?:a|dd|span)>', page)
    assert match
    return re.sub("<.*?>", "", match[1])


@pytest.mark.usefixtures("account")
def test_the_figures_tell_how_it_stands(client: Client) -> None:
    page = read(client)

    assert [read_figure(page, name) for name in ("total", "running", "redis")] == ["250", "200", "up"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", read_figure(page, "sync"))


@pytest.mark.usefixtures("account")
def test_the_most_expensive_hundred_come_first_and_the_rest_is_a_link_away(client: Client) -> None:
    page = read(client, "/?script=off")

    running = [f"name-{number:03}" for number in range(250) if number % 5]
    assert list_names(page) == running[:100]
    assert 'name="page" value="1"' in page
    assert list_names(read(client, "/?page=3&script=off")) == [f"name-{number:03}" for number in range(0, 250, 5)]


@pytest.mark.thorough
@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("address", "matches", "first"),
    [
        ("/?search=NAME-01", "10 of 250 match", "name-011"),
        ("/?search=frankfurt", "50 of 250 match", "name-000"),
        ("/?group=stopped", "50 of 250 match", "name-000"),
        ("/?group=moving", "0 of 250 match", None),
        ("/?attention=error", "0 of 250 match", None),
        ("/?gpu=rtx+4090", "250 instances", "name-001"),
        ("/?region=EU-01+(Frankfurt)&group=running", "0 of 250 match", None),
        ("/?ordering=name", "250 instances", "name-000"),
        ("/?ordering=costPerHour", "250 instances", "name-000"),
        ("/?ordering=-createdAt", "250 instances", "name-249"),
        ("/?group=stopped&ordering=-name&page=1", "50 of 250 match", "name-245"),
    ],
)
def test_an_address_shows_what_it_asks_for(client: Client, address: str, matches: str, first: str | None) -> None:
    page = read(client, address)

    assert f'<span id="matches" role="status">{matches}</span>' in page
    assert (list_names(page) or [None])[0] == first


def test_numbers_of_a_large_account_have_separators(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(*(make_row(f"{number:04}", gpuNum="2") for number in range(1200)))
    fill_inventory()

    page = read(client)

    assert '<span id="matches" role="status">1,200 instances</span>' in page
    assert "of 1,200 · 2,400 GPUs" in html.unescape(page).replace("\N{NO-BREAK SPACE}", " ")
    assert list_tabs(page)["Running"] == "1,200"
    assert read_figure(page, "running") == "1,200"
    assert [read_figure(page, name) for name in ("running", "total", "attention")] == ["1,200", "1,200", "1,200"]
    assert "Stops 1,200 instances." in page


@pytest.mark.usefixtures("account")
def test_each_tab_counts_what_matches_the_other_filters(client: Client) -> None:
    assert list_tabs(read(client)) == {"All": "[250]", "Running": "200", "Moving": "0", "Stopped": "50", "Errors": "0"}

    page = read(client, "/?search=name-01&group=running")

    assert list_tabs(page) == {"All": "10", "Running": "[8]", "Moving": "0", "Stopped": "2", "Errors": "0"}
    assert 'href="?search=name-01&amp;group=stopped"' in page


def test_tab_for_other_statuses_stands_there_when_it_is_needed(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b", status="dreaming"), make_row("c", spotStatus="reclaiming"))
    fill_inventory()

    assert "Other" in list_tabs(read(client))
    assert "Spot reclaims" not in list_tabs(read(client))

    assert list_tabs(read(client, "/?attention=spotReclaim"))["Spot reclaims"] == "[1]"


@pytest.mark.thorough
@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    "address",
    [
        "/?page=0",
        "/?page=-1",
        "/?page=x",
        "/?page=²",
        "/?group=nope",
        "/?group=none",
        "/?ordering=nope",
        "/?columns=nope",
        "/?nope=1",
    ],
)
def test_what_makes_no_sense_in_an_address_counts_as_absent(client: Client, address: str) -> None:
    assert list_names(read(client, address)) == list_names(read(client))


def read_headings(client: Client, address: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Return each heading's order, and the query that a press leads to."""
    found = re.findall(r'data-column="(\w+)"[^>]*? aria-sort="(\w+)"[^>]*><a href="\?(.*?)"', read(client, address))
    return {name: (sort, dict(parse_qsl(html.unescape(link)))) for name, sort, link in found}


@pytest.mark.usefixtures("account")
def test_a_heading_sorts_then_the_other_way_round_then_not_at_all(client: Client) -> None:
    first = read_headings(client, "/?group=stopped")
    assert first["name"] == ("none", {"group": "stopped", "ordering": "name"})
    assert first["costPerHour"] == ("none", {"group": "stopped", "ordering": "-costPerHour"})

    assert read_headings(client, "/?ordering=name")["name"] == ("ascending", {"ordering": "-name"})
    assert read_headings(client, "/?ordering=-name")["name"] == ("descending", {})
    assert read_headings(client, "/?ordering=-costPerHour")["costPerHour"] == (
        "descending",
        {"ordering": "costPerHour"},
    )


@pytest.mark.usefixtures("account")
def test_columns_of_a_shared_view_are_in_its_address(client: Client) -> None:
    assert 'id="instances" class="card lacks-owner"' in read(client)

    page = read(client, "/?columns=name,status,price")

    table = re.search(r'id="instances" class="(.*?)"', page)
    assert table
    hidden = {name.removeprefix("hides-") for name in table[1].split() if name.startswith("hides-")}
    assert hidden == {"gpu", "up", "spent", "created", "owner", "project", "region", "billing"}


def test_a_row_says_what_its_instance_costs_and_since_when(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_ago = {"lastStartedAt": "1767225600", "createdAt": "1767225600"}
    novita.lists(
        make_row("a", instancePrice="12500000", gpuNum="2", **hour_ago),
        make_row("b", **hour_ago),
        make_row("c", instancePrice="500", billingMode="monthly", **hour_ago),
        make_row("d", status="exited", rootfsSize=60, **hour_ago),
        make_row("e", statusError={"state": "ImagePullFailed", "message": ""}, createdAt="0"),
    )
    fill_inventory()
    monkeypatch.setattr(timezone, "now", lambda: datetime.fromisoformat("2026-01-01T01:59:00Z"))

    page = read(client)

    assert list_names(page) == ["name-e", "name-b", "name-a", "name-c", "name-d"]
    assert list_cells(page, "price") == ["unknown", "unknown", "250.00", "prepaid", "0.00"]
    assert list_cells(page, "up")[1:] == ["1 h", "1 h", "1 h", "–"]
    assert list_cells(page, "spent") == ["–", "–", "$496", "–", "–"]
    assert list_cells(page, "created") == ["–", "1 h ago", "1 h ago", "1 h ago", "1 h ago"]
    assert list_cells(page, "status")[0] == "Running ImagePullFailed"


def test_an_empty_account_is_not_an_empty_cache(client: Client, novita: NovitaAnswers) -> None:
    assert "Never synchronized with Novita.ai." in read(client)

    novita.lists()
    fill_inventory()

    assert "There are no instances in the account" in read(client)
    client.post("/api/cache/clear")
    assert "The cache is empty" in read(client)


def test_redis_away_is_said_and_not_shown_as_nothing(client: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False

    page = read(client)

    assert "Redis can&#x27;t be reached" in page
    assert read_figure(page, "redis") == "down"
    assert [read_figure(page, name) for name in ("total", "running", "sync")] == ["–", "–", "unknown"]
    assert set(list_tabs(page).values()) == {"[]", ""}
    assert '<span id="matches" role="status"></span>' in page


def test_redis_that_goes_away_after_the_check_is_said(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*known: int | None) -> None:
        raise CacheUnavailable("Redis can't be reached.")

    monkeypatch.setattr(store, "_read_all", fail)

    page = read(client)

    assert "Redis can&#x27;t be reached" in page
    assert read_figure(page, "total") == "–"


@pytest.mark.usefixtures("account")
def test_stale_data_is_said_with_its_age(client: Client, settings: Settings) -> None:
    settings.NOVITA_STALE_AFTER = -1

    assert "The data is stale: it was read at" in read(client)


@pytest.mark.parametrize("is_simulated", [True, False])
def test_a_simulated_account_says_that_it_is(client: Client, settings: Settings, is_simulated: bool) -> None:
    settings.IS_SIMULATED = is_simulated

    assert ("Simulated account" in read(client)) is is_simulated


def test_a_hostile_name_is_text(client: Client, novita: NovitaAnswers) -> None:
    name = '<img src=x onerror="alert(1)">\u202egnp.exe'
    novita.lists(make_row("a", name=name))
    fill_inventory()

    page = read(client)

    assert list_names(page) == [name]
    assert "<img" not in page


@pytest.mark.usefixtures("account")
def test_a_protected_instance_says_so_with_its_reason(client: Client) -> None:
    Protection.objects.create(instance_id="001", reason="<b>the demo</b> of Friday")
    Protection.objects.create(instance_id="000", reason="on another page")

    page = read(client)

    assert re.findall(r'aria-label="(Protected[^"]*)"', page) == ["Protected: &lt;b&gt;the demo&lt;/b&gt; of Friday"]


@pytest.mark.usefixtures("account")
def test_without_the_database_the_rows_are_shown_all_the_same(client: Client) -> None:
    read(client)

    with connection.execute_wrapper(Mock(side_effect=OperationalError("disk full"))):
        page = read(client)

    assert len(list_names(page)) == 24
    assert "The database can&#x27;t be used: its disk is full." in page


@pytest.mark.usefixtures("account")
def test_the_page_comes_without_rows_where_its_script_has_run(client: Client, settings: Settings) -> None:
    client.cookies[settings.SCRIPT_COOKIE_NAME] = "1"

    page = read(client, "/?group=running")

    assert list_names(page) == []
    assert read_figure(page, "running") == "200"
    assert '<noscript><meta http-equiv="refresh" content="0; url=?group=running&amp;page=1&amp;script=off">' in page


@pytest.mark.usefixtures("account")
def test_the_rows_come_again_where_the_script_no_longer_runs(client: Client, settings: Settings) -> None:
    client.cookies[settings.SCRIPT_COOKIE_NAME] = "1"

    assert len(list_names(read(client, "/?script=off"))) == 100

    page = read(client)
    assert len(list_names(page)) == 24
    assert 'These are the first 24 rows of this page. <a href="?page=1&amp;script=off">Show all</a>' in page
    assert '<noscript><meta http-equiv="refresh"' in page


@pytest.mark.usefixtures("account")
def test_the_page_asks_the_database_next_to_nothing(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    read(client)

    # Four of them, and four more on PostgreSQL, test whether the database can be written and has its tables; a service
    # remembers that for a while.
    with django_assert_max_num_queries(18 if connection.vendor == "sqlite" else 22):
        read(client)


def test_the_dashboard_and_the_records_lead_to_each_other(client: Client) -> None:
    assert 'href="/admin/"' in read(client)
    assert 'href="/"' in read(client, "/admin/")


def test_where_a_login_is_wanted_the_dashboard_wants_it(client: Client, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True

    answer = client.get("/")

    assert answer.status_code == 302
    assert answer["Location"] == "/login/?next=/"


def test_page_without_script_shows_costs(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a", instancePrice="35000", gpuNum="2"), make_row("b"))
    fill_inventory()

    page = read(client)

    assert [read_figure(page, name) for name in ("cost", "day")] == ["$0.70/h", "≈ $17/day · 1 price unknown"]
    assert list_cells(page, "price") == ["unknown", "0.70"]


def test_burn_rate_of_a_thousand_dollars_has_no_cents(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a", instancePrice="123456789", gpuNum="1"))
    fill_inventory()

    assert read_figure(read(client), "cost") == "$1,235/h"


def test_first_visit_with_1000_instances_loads_86_kb(client: Client, novita: NovitaAnswers) -> None:
    account = simulator.Account(instances=1000)
    account.change({"running": True})
    novita.holds(*account.list_rows())
    fill_inventory()
    gzipped = {"Accept-Encoding": "gzip"}

    page = client.get("/", headers=gzipped)
    text = gzip.decompress(page.content).decode()
    files = re.findall(r'<(?:link rel="stylesheet" href|script[^>]* src)="([^"]+)"', text)
    fields = re.search(
        r"const FIELDS = (\[.+?\]);", Path("instances/static/instances/list/inventory.js").read_text(), re.DOTALL
    )
    assert fields
    names = ",".join(re.findall(r"'(\w+)'", fields[1]))
    answers = [page, client.get(f"/api/instances?fields={names}", headers=gzipped)]
    answers += [client.get(path, headers=gzipped) for path in files]

    assert len(files) == 3
    assert {answer.status_code for answer in answers} == {200}
    # With the headers of the five answers, which take 4 kB, it is below 90,000.
    assert sum(len(answer.content) for answer in answers) < 86_000
