"""What an instance costs: its price from its row, from the product list or unknown, and its cost in its status."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from fakeredis import FakeRedis

from instances import redis_client, tasks
from instances.costs import labels, products
from instances.costs.prices import decode
from instances.instance import STATUSES
from instances.inventory import additions, exchanges, publishing, store
from instances.models import Annotation, LabelRule, UsageInterval
from instances.novita.rows import from_novita
from tests.inventories import fill_inventory
from tests.novita_answers import API, NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

UNKNOWN = ["0", 0, None, "", "x", -35000, "-1", "NaN", float("nan"), float("inf"), True, [], "9" * 20, 10**25]
Synchronize = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def synchronize(client: Client, novita: NovitaAnswers) -> Synchronize:
    """Synchronize an account with these rows, and return the instances as the API shows them."""

    def run(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
        novita.mock.reset()
        novita.lists(*rows)
        fill_inventory()
        return {one["id"]: one for one in client.get("/api/instances").json()["instances"]}

    return run


def list_products(novita: NovitaAnswers, *rows: dict[str, Any]) -> None:
    novita.mock.get(f"{API}/products", json={"data": list(rows)})


def read_products(novita: NovitaAnswers, raw_redis: FakeRedis, **row: Any) -> None:
    novita.mock.reset()
    list_products(novita, {"id": "4090.16c62g", "name": "RTX 4090", "price": "35000", "spotPrice": 17500, **row})
    raw_redis.delete(redis_client.PRODUCTS_TURN)
    products.refresh()


# --- From the row


@pytest.mark.parametrize("price", ["67000", 67000, 67000.0, " 67000 "])
def test_price_in_the_row_is_per_gpu(synchronize: Synchronize, price: object) -> None:
    shown = synchronize(make_row("a", instancePrice=price, gpuNum="4"))["a"]

    assert shown["pricePerHour"] == 2.68
    assert shown["costPerHour"] == 2.68
    assert shown["priceSource"] == "instance"


@pytest.mark.parametrize("price", UNKNOWN)
def test_unknown_price_is_null_and_never_free(synchronize: Synchronize, price: Any) -> None:
    instance = from_novita(make_row("a", instancePrice=price))

    assert instance.price_per_hour is None
    assert instance.cost_per_hour is None
    assert instance.price_source is None


@pytest.mark.parametrize("gpus", ["0", None, "-1", "x", "1001", "9" * 20])
def test_price_without_a_number_of_gpus_is_unknown(gpus: Any) -> None:
    assert from_novita(make_row(instancePrice="35000", gpuNum=gpus)).price_per_hour is None


def test_price_that_a_later_listing_lacks_stays(synchronize: Synchronize, client: Client) -> None:
    first = synchronize(make_row("a", instancePrice="35000"))
    etag = client.get("/api/instances")["ETag"]

    second = synchronize(make_row("a"))

    assert second == first
    assert client.get("/api/instances")["ETag"] == etag


@pytest.mark.parametrize("change", [{"gpuNum": "2"}, {"productId": "other"}, {"billingMode": "spot"}])
def test_price_of_another_configuration_does_not_stay(synchronize: Synchronize, change: dict[str, str]) -> None:
    synchronize(make_row("a", instancePrice="35000"))

    assert synchronize(make_row("a", **change))["a"]["pricePerHour"] is None


def test_price_stays_when_another_fact_changes(synchronize: Synchronize) -> None:
    synchronize(make_row("a", instancePrice="35000"))

    shown = synchronize(make_row("a", status="exited", rootfsSize=100))["a"]

    assert shown["pricePerHour"] == 0.35
    assert shown["costPerHour"] == 0.00833


# --- From the product list


@pytest.mark.parametrize(
    ("mode", "price"), [("onDemand", 0.7), ("", 0.7), ("spot", 0.35), ("monthly", None), ("new mode", None)]
)
def test_product_has_a_price_for_each_billing_mode(
    synchronize: Synchronize, novita: NovitaAnswers, raw_redis: FakeRedis, mode: str, price: float | None
) -> None:
    read_products(novita, raw_redis)

    shown = synchronize(make_row("a", billingMode=mode, gpuNum="2"))["a"]

    assert shown["pricePerHour"] == price
    assert shown["priceSource"] == ("product" if price else None)


@pytest.mark.parametrize("price", UNKNOWN)
def test_product_without_a_price_leaves_the_price_unknown(
    synchronize: Synchronize, novita: NovitaAnswers, raw_redis: FakeRedis, price: Any
) -> None:
    read_products(novita, raw_redis, price=None if isinstance(price, float) else price)

    assert synchronize(make_row("a"))["a"]["costPerHour"] is None


def test_products_price_is_corrected_by_a_later_price_list(
    synchronize: Synchronize, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    read_products(novita, raw_redis)
    synchronize(make_row("a"))
    read_products(novita, raw_redis, price="40000")

    assert synchronize(make_row("a"))["a"]["costPerHour"] == 0.4


def test_price_stays_while_there_is_no_price_list(
    synchronize: Synchronize, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    read_products(novita, raw_redis)
    synchronize(make_row("a"))
    raw_redis.delete(redis_client.PRODUCTS)

    assert synchronize(make_row("a"))["a"]["priceSource"] == "product"


def test_price_list_is_read_once_in_ten_minutes(novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    list_products(novita)

    assert products.refresh() is not None
    assert products.refresh() is None
    assert len(novita.mock.calls) == 1
    assert 0 < raw_redis.ttl(redis_client.PRODUCTS_TURN) <= 600


def test_failed_read_of_the_price_list_keeps_the_last_one(
    novita: NovitaAnswers, raw_redis: FakeRedis, no_pauses: None
) -> None:
    read_products(novita, raw_redis)
    known = products.read()
    raw_redis.delete(redis_client.PRODUCTS_TURN)
    novita.mock.reset()
    novita.mock.get(f"{API}/products", status=403, json={})

    assert products.refresh() is None
    assert products.read() == known
    assert raw_redis.ttl(redis_client.PRODUCTS_TURN) <= 60


def test_turn_without_an_end_does_not_last_for_ever(novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    raw_redis.set(redis_client.PRODUCTS_TURN, "damaged")
    list_products(novita)

    assert products.refresh() is not None


@pytest.mark.parametrize("text", ["", "[]", "1", '{"a": 1}', "{"])
def test_damaged_price_list_counts_as_none(text: str) -> None:
    assert decode(text) is None


def test_refresh_gives_the_inventory_its_prices_at_once(
    synchronize: Synchronize, client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    before = synchronize(make_row("a"), make_row("b", instancePrice="10000"))
    read_products(novita, raw_redis)

    assert additions.refresh() == 1

    after = {one["id"]: one for one in client.get("/api/instances").json()["instances"]}
    assert after["a"]["costPerHour"] == 0.35
    assert after["b"] == before["b"]
    assert after["a"]["changedAt"] == before["a"]["changedAt"]


def test_second_refresh_changes_nothing(
    synchronize: Synchronize, client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    synchronize(make_row("a"))
    read_products(novita, raw_redis)
    additions.refresh()
    etag = client.get("/api/instances")["ETag"]

    assert additions.refresh() == 0
    assert client.get("/api/instances")["ETag"] == etag


def test_price_list_that_comes_during_the_first_synchronization_is_not_missed(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    list_products(novita, {"id": "4090.16c62g", "price": "35000"})
    novita.lists_during(tasks.refresh_prices, make_row("a"))

    client.post("/api/instances/sync")

    assert client.get("/api/instances/a").json()["pricePerHour"] == 0.35
    assert UsageInterval.objects.get().price == 3_500_000_000


def test_refresh_repeats_what_a_write_has_prevented(
    synchronize: Synchronize, client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronize(make_row("a"), make_row("b"))
    list_products(novita, {"id": "4090.16c62g", "price": "35000"})
    products.refresh()
    write_before(monkeypatch, lambda: store.write_instance(from_novita(make_row("a", status="toStop"))))

    additions.refresh()

    shown = {one["id"]: one for one in client.get("/api/instances").json()["instances"]}
    assert shown["a"]["status"] == "toStop"
    assert shown["a"]["pricePerHour"] == 0.35
    assert shown["b"]["pricePerHour"] == 0.35


def test_annotation_repeats_what_a_write_has_prevented(
    synchronize: Synchronize, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronize(make_row("a"))
    write_before(monkeypatch, lambda: store.write_instance(from_novita(make_row("a", status="toStop"))))

    additions.label("a", labels.Labels("ada", "llm"))

    shown = client.get("/api/instances/a").json()
    assert shown["status"] == "toStop"
    assert shown["owner"] == "ada"
    assert shown["project"] == "llm"


# Before a synchronization publishes what it listed, the same instance is annotated, alone or beside a direct read.
MEANWHILE = {
    "annotated": (["label"], ("exited", "new")),
    "annotated twice": (["label", "label"], ("exited", "new")),
    "read, then annotated": (["write", "label"], ("toStop", "old")),
    "annotated, then read": (["label", "write"], ("toStop", "old")),
}


@pytest.mark.parametrize("case", MEANWHILE)
def test_annotation_during_a_synchronization_keeps_the_newer_facts(
    novita: NovitaAnswers, client: Client, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    steps, (status, name) = MEANWHILE[case]
    novita.lists(make_row("a", name="old"))
    client.post("/api/instances/sync")
    acts = {
        "label": lambda: additions.label("a", labels.Labels("ada", f"project {len(steps)}")),
        "write": lambda: store.write_instance(from_novita(make_row("a", name="old", status="toStop"))),
    }
    publish = publishing.publish

    def act_before(*args: Any, **options: Any) -> Any:
        for step in steps:
            acts[step]()
        return publish(*args, **options)

    monkeypatch.setattr(publishing, "publish", act_before)
    novita.mock.reset()
    novita.lists(make_row("a", name="new", status="exited"))

    assert client.post("/api/instances/sync").status_code == 200

    shown = client.get("/api/instances/a").json()
    assert shown["owner"] == "ada"
    assert shown["status"] == status
    assert shown["name"] == name


def write_before(monkeypatch: pytest.MonkeyPatch, write: Callable[[], object]) -> None:
    """Let something else be written before the first exchange."""
    exchange, writes = exchanges.exchange, [write]

    def run(changes: Any) -> int:
        if writes:
            writes.pop()()
        return exchange(changes)

    monkeypatch.setattr(exchanges, "exchange", run)


# --- In a status


FREE = {"pending", "toCreate", "creating", "removed"}
NOT_KNOWN = {"migrating", "unknown", "dreaming"}


@pytest.mark.parametrize("status", [*STATUSES, "dreaming"])
def test_cost_follows_the_status(status: str) -> None:
    instance = from_novita(make_row(status=status, instancePrice="35000", rootfsSize=108))

    expected = Decimal("0.35")
    if status == "exited":
        expected = Decimal("0.01")
    elif status in FREE:
        expected = Decimal(0)
    assert instance.cost_per_hour == (None if status in NOT_KNOWN else expected)


@pytest.mark.parametrize("status", ["running", "exited", "pulling"])
def test_prepaid_instance_costs_nothing_per_hour(status: str) -> None:
    instance = from_novita(make_row(status=status, billingMode="monthly", instancePrice="35000"))

    assert instance.is_prepaid
    assert instance.cost_per_hour == 0


def test_storage_of_a_stopped_instance_without_a_size_is_unknown() -> None:
    assert from_novita(make_row(status="exited", rootfsSize=None)).cost_per_hour is None


# --- Reads of one instance


@pytest.mark.parametrize(
    ("status", "cost"), [("toStop", 0.35), ("exited", 0.01), ("creating", 0.0), ("dreaming", None)]
)
def test_direct_read_keeps_the_price_and_follows_the_status(
    synchronize: Synchronize, client: Client, status: str, cost: float | None
) -> None:
    synchronize(make_row("a", instancePrice="35000", rootfsSize=108))

    store.write_instance(from_novita(make_row("a", status=status, rootfsSize=108)))

    shown = client.get("/api/instances/a").json()
    assert shown["pricePerHour"] == 0.35
    assert shown["costPerHour"] == cost


def test_direct_read_brings_a_price_that_stays(synchronize: Synchronize) -> None:
    synchronize(make_row("a"))

    store.write_instance(from_novita(make_row("a", instancePrice="35000")))

    assert synchronize(make_row("a"))["a"]["pricePerHour"] == 0.35


def test_direct_read_keeps_owner_and_project(synchronize: Synchronize, client: Client) -> None:
    Annotation.objects.create(instance_id="a", owner='an "owner", "changedAt":"x"', project=',"owner":"y')
    before = synchronize(make_row("a"))["a"]

    store.write_instance(from_novita(make_row("a", status="toStop")))

    after = client.get("/api/instances/a").json()
    assert after["owner"] == before["owner"] == 'an "owner", "changedAt":"x"'
    assert after["project"] == before["project"] == ',"owner":"y'


# --- Owner and project


def test_rules_give_owner_and_project_by_name(synchronize: Synchronize) -> None:
    LabelRule.objects.create(position=2, pattern="*", project="rest")
    LabelRule.objects.create(position=1, pattern="TRAIN-?[1]", owner="ada", project="llm")

    shown = synchronize(make_row("a", name="train-x[1]"), make_row("b", name="train-x1"))

    assert shown["a"]["owner"] == "ada"
    assert shown["a"]["project"] == "llm"
    assert shown["b"]["owner"] is None
    assert shown["b"]["project"] == "rest"


def test_annotation_overrides_all_rules(synchronize: Synchronize) -> None:
    LabelRule.objects.create(pattern="*", owner="rule", project="rule")
    Annotation.objects.create(instance_id="a", owner="hand")
    Annotation.objects.create(instance_id="b", note="only a note")

    shown = synchronize(make_row("a"), make_row("b"))

    assert shown["a"]["owner"] == "hand"
    assert shown["a"]["project"] is None
    assert shown["b"]["owner"] == "rule"
    assert shown["b"]["project"] == "rule"


def test_renamed_instance_follows_the_rules_for_its_new_name(synchronize: Synchronize) -> None:
    LabelRule.objects.create(pattern="new", owner="ada")
    synchronize(make_row("a", name="old"))

    assert synchronize(make_row("a", name="new"))["a"]["owner"] == "ada"
