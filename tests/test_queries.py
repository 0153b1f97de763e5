"""How GET /api/instances filters, searches, sorts and pages."""

from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instances.api.serializers import ORDERINGS
from instances.inventory.queries import get_natural_key, select
from tests.natural_order import NAMES, SEARCHES
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

ROWS = [
    make_row("a1", name="Train-A", createdAt="1760000300", gpuNum="8"),
    make_row("b2", name="eval", status="exited", createdAt="1760000100", lastStartedAt="0"),
    make_row("c3", name="Über-größe", status="toStop", createdAt="0", gpuNum=None, clusterName="EU-West-1"),
    make_row("d4", name="train-b", status="dreaming", createdAt="1760000300", clusterId="eu-1", clusterName=""),
    make_row("e5", name="", createdAt="1760000200", productId="H100.1", productName="H100 SXM 80GB"),
]


@pytest.fixture
def account(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(*ROWS)
    client.post("/api/instances/sync")


def list_ids(client: Client, **query: Any) -> str:
    """Return the ids in order, and the total, in one line."""
    answer = client.get(f"/api/instances?{urlencode(query)}").json()
    return " ".join([*(instance["id"] for instance in answer["instances"]), f"of {answer['total']}"])


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "running"}, "a1 e5 of 2"),
        ({"status": "running,exited"}, "a1 e5 b2 of 3"),
        ({"status": "dreaming"}, "d4 of 1"),
        ({"status": "Running"}, "of 0"),
        ({"status": "run"}, "of 0"),
        ({"group": "stopping"}, "c3 of 1"),
        ({"group": "other"}, "d4 of 1"),
        ({"group": "gone"}, "of 0"),
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
    ],
    ids=str,
)
def test_only_matches_are_listed(client: Client, query: dict[str, str], found: str) -> None:
    assert list_ids(client, **query) == found


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("ordering", "order"),
    [
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
    ],
)
def test_listing_has_the_requested_order(client: Client, ordering: str, order: str) -> None:
    assert list_ids(client, ordering=ordering) == f"{order} of 5"


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("name", ORDERINGS)
def test_descending_order_is_the_reverse_of_ascending(client: Client, name: str) -> None:
    there = list_ids(client, ordering=name).split(" of ")[0].split()
    back = list_ids(client, ordering=f"-{name}").split(" of ")[0].split()

    assert len(there) == 5
    assert there == back[::-1]


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


def test_page_has_100_instances_by_default(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(*(make_row(f"i{number}") for number in range(130)))
    client.post("/api/instances/sync")

    sizes = [len(client.get(f"/api/instances?page={page}").json()["instances"]) for page in (1, 2)]

    assert sizes == [100, 30]


TEXTS = st.text(max_size=3)
SHOWN = st.fixed_dictionaries(
    {
        "id": st.uuids().map(str),
        "name": TEXTS,
        "status": st.sampled_from(["running", "exited", "toStop", "dreaming"]),
        "group": st.sampled_from(["running", "stopped", "stopping", "other"]),
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


@hypothesis_settings(deadline=None)
@given(instances=INSTANCES, query=FILTERS, size=st.integers(1, 6))
def test_pages_together_have_every_instance_once(
    instances: list[dict[str, Any]], query: dict[str, Any], size: int
) -> None:
    everything, total = select(instances, query)

    pages = [select(instances, {**query, "page": page, "pageSize": size}) for page in range(1, 17)]

    assert [instance for page, _ in pages for instance in page] == everything
    assert {count for _, count in pages} == {total} == {len(everything)}
    assert all(instance in instances for instance in everything)


@hypothesis_settings(deadline=None)
@given(instances=INSTANCES, query=FILTERS, data=st.data())
def test_order_does_not_depend_on_the_previous_order(
    instances: list[dict[str, Any]], query: dict[str, Any], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(instances))

    assert select(shuffled, query) == select(instances, query)


# --- Names as people read them


@pytest.fixture
def named(client: Client, novita: NovitaAnswers) -> None:
    # The ids have another order than the names.
    novita.lists(*(make_row(f"id{(7 * at) % len(NAMES):03}", name=name) for at, name in enumerate(NAMES)))
    client.post("/api/instances/sync")


@pytest.mark.usefixtures("named")
def test_names_are_sorted_by_their_numbers_and_not_by_their_encoding(client: Client) -> None:
    there = client.get("/api/instances?ordering=name").json()["instances"]
    back = client.get("/api/instances?ordering=-name").json()["instances"]
    page = client.get("/?ordering=name").context["rows"]

    assert [one["name"] for one in there] == [one["name"] for one in page] == NAMES
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
