"""How GET /api/instances filters, searches, sorts and pages."""

import csv
import io
from datetime import datetime
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.utils import timezone
from fakeredis import FakeRedis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis import Redis

from instances.api.serializers import ORDERINGS
from instances.inventory import bodies, store
from instances.inventory.queries import get_natural_key, select
from tests.inventories import fill_inventory
from tests.natural_order import NAMES, SEARCHES
from tests.novita_answers import NovitaAnswers, make_row
from tests.redis_keys import name_of

pytestmark = pytest.mark.django_db

ROWS = [
    make_row("a1", name="Train-A", createdAt="1760000300", gpuNum="8"),
    make_row("b2", name="eval", status="exited", createdAt="1760000100", lastStartedAt="0"),
    make_row("c3", name="Über-größe", status="toStop", createdAt="0", gpuNum=None, clusterName="EU-West-1"),
    make_row("d4", name="train-b", status="dreaming", createdAt="1760000300", clusterId="eu-1", clusterName=""),
    make_row("e5", name="", createdAt="1760000200", productId="H100.1", productName="H100 SXM 80GB"),
]


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.lists(*ROWS)
    fill_inventory()


def list_ids(client: Client, **query: Any) -> str:
    """Return the ids in order, and the total, in one line."""
    answer = client.get(f"/api/instances?{urlencode(query)}").json()
    return " ".join([*(instance["id"] for instance in answer["instances"]), f"of {answer['total']}"])


MATCHES: list[tuple[dict[str, str], str]] = [
    ({"status": "running"}, "a1 e5 of 2"),
    ({"status": "running,exited"}, "a1 e5 b2 of 3"),
    ({"status": "dreaming"}, "d4 of 1"),
    ({"status": "Running"}, "of 0"),
    ({"status": "run"}, "of 0"),
    ({"group": "stopping"}, "c3 of 1"),
    ({"group": "other"}, "d4 of 1"),
    ({"group": "gone"}, "of 0"),
    ({"group": "moving"}, "c3 of 1"),
    ({"region": "eu-west-1"}, "c3 of 1"),
    ({"region": "us-ca-6"}, "a1 e5 b2 c3 of 4"),
    ({"region": "eu-1"}, "d4 of 1"),
    ({"region": "us-ca"}, "of 0"),
    ({"gpu": "h100"}, "e5 of 1"),
    ({"gpu": "4090.16C62G"}, "d4 a1 b2 c3 of 4"),
    ({"search": "train"}, "d4 a1 of 2"),
    ({"search": "GRÖSSE"}, "c3 of 1"),
    ({"search": "E5"}, "e5 of 1"),
    ({"search": "eu-"}, "d4 c3 of 2"),
    ({"search": "sxm"}, "e5 of 1"),
    ({"search": "running"}, "of 0"),
    ({"search": "train", "status": "running", "gpu": "rtx"}, "a1 of 1"),
    ({"search": "train", "group": "stopped"}, "of 0"),
]
ORDERS = [
    ("", "d4 a1 e5 b2 c3"),
    ("-createdAt", "d4 a1 e5 b2 c3"),
    ("createdAt", "c3 b2 e5 a1 d4"),
    ("name", "e5 b2 a1 d4 c3"),
    ("-name", "c3 d4 a1 b2 e5"),
    ("id", "a1 b2 c3 d4 e5"),
    ("-id", "e5 d4 c3 b2 a1"),
    ("status", "d4 b2 a1 e5 c3"),
    ("group", "d4 a1 e5 b2 c3"),
    ("region", "d4 c3 a1 b2 e5"),
    ("productName", "e5 a1 b2 c3 d4"),
    ("gpuNum", "c3 b2 d4 e5 a1"),
    ("-gpuNum", "a1 e5 d4 b2 c3"),
    ("lastStartedAt", "b2 a1 c3 d4 e5"),
    ("upFor", "b2 c3 d4 a1 e5"),
    ("billingMode", "a1 b2 c3 d4 e5"),
]


@pytest.mark.usefixtures("account")
def test_only_matches_are_listed(client: Client) -> None:
    assert [(query, list_ids(client, **query)) for query, _ in MATCHES] == MATCHES


@pytest.mark.usefixtures("account")
def test_listing_has_the_requested_order(client: Client) -> None:
    listed = [(ordering, list_ids(client, ordering=ordering)) for ordering, _ in ORDERS]

    assert listed == [(ordering, f"{order} of 5") for ordering, order in ORDERS]


@pytest.mark.usefixtures("account")
def test_descending_order_is_the_reverse_of_ascending(client: Client) -> None:
    for name in ORDERINGS:
        there = list_ids(client, ordering=name).split(" of ")[0].split()
        back = list_ids(client, ordering=f"-{name}").split(" of ")[0].split()

        assert len(there) == 5, name
        assert there == back[::-1], name


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"pageSize": 2}, "d4 a1 of 5"),
        ({"pageSize": 2, "page": 1}, "d4 a1 of 5"),
        ({"pageSize": 2, "page": 2}, "e5 b2 of 5"),
        ({"pageSize": 2, "page": 3}, "c3 of 5"),
        ({"pageSize": 2, "page": 4}, "of 5"),
        ({"pageSize": 1000, "page": 1_000_000_000}, "of 5"),
        ({"pageSize": 1, "page": 2, "search": "train"}, "a1 of 2"),
        ({"page": 1}, "d4 a1 e5 b2 c3 of 5"),
    ],
    ids=str,
)
def test_page_is_a_part_and_the_total_counts_all_matches(client: Client, query: dict[str, Any], found: str) -> None:
    assert list_ids(client, **query) == found


def test_order_of_attention_puts_errors_first_and_expensive_instances_before_cheap_ones(
    client: Client, novita: NovitaAnswers
) -> None:
    novita.lists(
        make_row("1", name="stopped", status="exited"),
        make_row("2", name="cheap", instancePrice="35000"),
        make_row("3", name="dear", instancePrice="258000", gpuNum="8"),
        make_row("4", name="price unknown"),
        make_row("5", name="by the month", billingMode="monthly", instancePrice="900000"),
        make_row("6", name="worker-10", status="toStop"),
        make_row("7", name="worker-2", status="pulling"),
        make_row("8", name="broken", status="exited", statusError={"state": "ImagePullFailed", "message": ""}),
        make_row("9", name="removed", status="removed", statusError={"state": "ImagePullFailed", "message": ""}),
        make_row("a", name="dreaming", status="dreaming"),
    )
    fill_inventory()

    assert list_ids(client, ordering="attention") == "8 7 6 a 4 3 2 5 1 9 of 10"


def set_time(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(timezone, "now", lambda: datetime.fromisoformat(text))


def test_instances_are_sorted_by_what_they_have_cost_since_their_start(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    novita.lists(
        make_row("a", lastStartedAt="1760000000", instancePrice="100000"),
        make_row("b", lastStartedAt="1750000000", instancePrice="35000"),
        make_row("c", lastStartedAt="1700000000"),
        make_row("d", lastStartedAt="1700000000", instancePrice="100000", status="exited"),
    )
    fill_inventory()

    set_time(monkeypatch, "2025-10-10T00:00:00Z")
    assert list_ids(client, ordering="-spent") == "b a d c of 4"

    set_time(monkeypatch, "2026-01-15T00:00:00Z")

    assert list_ids(client, ordering="-spent") == "a b d c of 4"
    # Time alone changes this order.
    assert "ETag" not in client.get("/api/instances?ordering=-spent")


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("query", ["", "search=train&ordering=name", "page=2&pageSize=2"])
def test_fields_leave_out_all_others(client: Client, query: str) -> None:
    names = ["status", "portMappings", "name"]
    whole = client.get(f"/api/instances?{query}").json()

    found = client.get(f"/api/instances?{query}&fields=status,portMappings,name").json()

    assert found["total"] == whole["total"]
    assert found["instances"] == [{name: one[name] for name in names} for one in whole["instances"]]
    assert {tuple(one) for one in found["instances"]} == {tuple(names)}


@pytest.mark.usefixtures("account")
def test_fields_are_rendered_once_for_all_processes_and_cost_one_command(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, gzipped = "/api/instances?fields=id,name", {"Accept-Encoding": "gzip"}
    first = client.get(path, headers=gzipped)
    send = Mock(side_effect=Redis.execute_command)
    monkeypatch.setattr(Redis, "execute_command", lambda *args, **options: send(*args, **options))
    render = Mock()
    monkeypatch.setattr(bodies, "render", render)

    again = client.get(path, headers=gzipped)
    unchanged = client.get(path, headers={"If-None-Match": first["ETag"]})

    monkeypatch.setattr(store, "_kept", {})  # As in another process.
    elsewhere = client.get(path, headers=gzipped)

    assert again.content == first.content == elsewhere.content
    assert unchanged.status_code == 304
    assert unchanged["Data-As-Of"]
    assert send.call_count == 3
    render.assert_not_called()


@pytest.mark.usefixtures("account")
def test_at_most_four_lists_of_a_revision_are_kept(client: Client, raw_redis: FakeRedis) -> None:
    lists = ["", "?fields=id", "?fields=name", "?fields=id,name", "?fields=status", "?fields=region"]
    found = [client.get(f"/api/instances{query}").json()["instances"][0] for query in lists]

    (name,) = raw_redis.keys(name_of("body:*"))
    assert raw_redis.hkeys(name) == [b"", b"id", b"name", b"id,name"]
    assert len(store._kept) <= 4
    assert [",".join(one) for one in found[1:]] == ["id", "name", "id,name", "status", "region"]


def read_csv(client: Client, query: str = "") -> list[dict[str, str]]:
    answer = client.get(f"/api/instances.csv{query}")
    assert answer.status_code == 200
    text = b"".join(answer.streaming_content).decode("utf-8-sig")  # type: ignore[attr-defined]  # a stream
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_file_has_all_matches_and_no_formulas(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"state": "ImagePullFailed", "message": "no such tag"}
    novita.lists(
        make_row("x", name="=1+1", statusError=error, instancePrice="100000", gpuNum="2", lastStartedAt="1760000000"),
        *(make_row(f"i{number:03}") for number in range(130)),
        make_row("y", status="exited"),
    )
    fill_inventory()

    set_time(monkeypatch, "2025-10-09T18:53:20Z")

    first, *rest = read_csv(client, "?group=running&ordering=attention")

    assert first["name"] == "'=1+1"
    assert {name: first[name] for name in ("costPerHour", "spent", "createdAt", "statusError")} == {
        "costPerHour": "2.0",
        "spent": "20.0",
        "createdAt": "2025-10-09T08:53:20Z",
        "statusError": "ImagePullFailed no such tag",
    }
    assert [one["id"] for one in rest] == [f"i{number:03}" for number in range(130)]


@pytest.mark.parametrize("query", ["page=1", "pageSize=5", "nope=1", "group=nope"])
def test_csv_file_refuses_a_query_that_it_does_not_know(client: Client, query: str) -> None:
    assert client.get(f"/api/instances.csv?{query}").status_code == 400


def test_page_has_100_instances_by_default(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(*(make_row(f"i{number}") for number in range(130)))
    fill_inventory()

    sizes = [len(client.get(f"/api/instances?page={page}").json()["instances"]) for page in (1, 2)]

    assert sizes == [100, 30]


TEXTS = st.text(max_size=3)
SHOWN = st.fixed_dictionaries(
    {
        "id": st.uuids().map(str),
        "name": TEXTS,
        "status": st.sampled_from(["running", "exited", "toStop", "dreaming"]),
        "group": st.sampled_from(["running", "stopped", "stopping", "other"]),
        "statusError": st.none() | st.just({"state": "Bad", "message": ""}),
        "pricePerHour": st.none() | st.just(1.5),
        "prepaid": st.booleans(),
        "billingMode": st.none() | st.just("spot"),
        "region": TEXTS,
        "clusterId": TEXTS,
        "productId": TEXTS,
        "productName": TEXTS,
        "gpuNum": st.none() | st.integers(0, 8),
        "createdAt": st.none() | st.sampled_from(["2026-01-15T10:30:00Z", "2026-01-16T10:30:00Z"]),
        "lastStartedAt": st.none() | st.just("2026-01-15T10:30:00Z"),
        "changedAt": st.just("2026-01-15T10:30:00Z"),
        "costPerHour": st.none() | st.floats(0, 9),
        "owner": st.none() | TEXTS,
        "project": st.none() | TEXTS,
    }
)
INSTANCES = st.lists(SHOWN, max_size=15, unique_by=lambda shown: str(shown["id"]))
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["running", "running,exited"]),
        "group": st.sampled_from(["running", "other"]),
        "search": st.text(max_size=1),
        "ordering": st.sampled_from([sign + name for name in ORDERINGS for sign in ("", "-")]),
    },
)


@pytest.mark.thorough
@hypothesis_settings(max_examples=50, deadline=None)
@given(instances=INSTANCES, query=FILTERS, size=st.integers(1, 6))
def test_pages_together_have_every_instance_once(
    instances: list[dict[str, Any]], query: dict[str, Any], size: int
) -> None:
    everything, total = select(instances, query)

    pages = [select(instances, {**query, "page": page, "pageSize": size}) for page in range(1, 17)]

    assert [instance for page, _ in pages for instance in page] == everything
    assert {count for _, count in pages} == {total} == {len(everything)}
    assert all(instance in instances for instance in everything)


@pytest.mark.thorough
@hypothesis_settings(max_examples=50, deadline=None)
@given(instances=INSTANCES, query=FILTERS, data=st.data())
def test_order_does_not_depend_on_the_previous_order(
    instances: list[dict[str, Any]], query: dict[str, Any], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(instances))

    assert select(shuffled, query) == select(instances, query)


# --- Names as people read them


@pytest.fixture
def named(novita: NovitaAnswers) -> None:
    # The ids have another order than the names.
    novita.lists(*(make_row(f"id{(7 * at) % len(NAMES):03}", name=name) for at, name in enumerate(NAMES)))
    fill_inventory()


@pytest.mark.usefixtures("named")
def test_names_are_sorted_by_their_numbers_and_not_by_their_encoding(client: Client) -> None:
    there = client.get("/api/instances?ordering=name").json()["instances"]
    back = client.get("/api/instances?ordering=-name").json()["instances"]
    page = client.get("/?ordering=name").context["rows"]

    assert [one["name"] for one in there] == NAMES
    # The page shows the id where a name is missing. Its script adds the rows that it comes without.
    assert len(page) >= 20
    assert [one["id"] for one in page] == [one["id"] for one in there[: len(page)]]
    assert [one["name"] for one in back] == NAMES[::-1]


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize(("search", "found"), SEARCHES.items())
def test_search_finds_a_name_in_any_encoding(client: Client, search: str, found: list[str]) -> None:
    answer = client.get("/api/instances", {"search": search, "ordering": "name"}).json()
    page = client.get("/", {"search": search, "ordering": "name"}).context["rows"]

    assert [one["name"] for one in answer["instances"]] == [one["name"] for one in page] == found


@hypothesis_settings(deadline=None)
@given(text=st.text(), other=st.text())
def test_any_text_can_be_sorted(text: str, other: str) -> None:
    assert (get_natural_key(text) < get_natural_key(other)) == (get_natural_key(other) > get_natural_key(text))
