"""The API of costs: now, over time, by instance, against the bill; the balance, owners and projects."""

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.test import Client as DjangoClient
from django.utils import timezone
from fakeredis import FakeRedis
from responses import matchers

from instances import health, redis_client
from instances.costs import balance, burn, labels, ledger
from instances.instance import format_time
from instances.inventory import additions, store
from instances.models import Annotation, AuditEntry, LabelRule, LedgerState, MeteredInstance, UsageInterval
from instances.operations import annotations
from tests.conftest import ApiClient
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_refusal, make_row

pytestmark = pytest.mark.django_db

BILLING = "https://novita.test/openapi/v1/billing"
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
State = UsageInterval.State
Json = dict[str, Any]


def fill(novita: NovitaAnswers, *rows: Json) -> None:
    novita.lists(*rows)
    fill_inventory()


def read(client: Client, path: str, status: int = 200) -> Json:
    answer = client.get(path)
    assert answer.status_code == status, answer.content
    body: Json = answer.json()
    return body


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    monkeypatch.setattr(timezone, "now", lambda: NOON)
    return NOON


def record(id_: str, *intervals: tuple[State, float, float | None, float | None], **fields: Any) -> None:
    """Add intervals of an instance with one GPU: state, begin and end in hours before noon, USD per hour."""
    instance, _ = MeteredInstance.objects.get_or_create(
        instance_id=id_, defaults={"name": f"name-{id_}", "gpu": "RTX 4090", "region": "US", **fields}
    )
    noon = ledger.to_ms(NOON)
    for state, begin, end, price in intervals:
        UsageInterval.objects.create(
            instance=instance,
            state=state,
            began_ms=noon - round(begin * 3_600_000),
            ended_ms=None if end is None else noon - round(end * 3_600_000),
            price=None if price is None else round(price * 10**10),
            gpus=int(state == State.GPU),
        )
    LedgerState.objects.update_or_create(pk=1, defaults={"observed_ms": noon, "digest": "x"})


# --- Now


def test_burn_rate_is_the_sum_of_all_costs(client: Client, novita: NovitaAnswers) -> None:
    LabelRule.objects.create(pattern="train-*", owner="ada", project="llm")
    fill(
        novita,
        make_row("a", name="train-1", instancePrice="35000", gpuNum="2"),
        make_row("b", name="train-2", status="exited", rootfsSize=108, instancePrice="35000"),
        make_row("c", instancePrice="100000", productName="H100", clusterName="EU"),
        make_row("d", billingMode="monthly", instancePrice="100000"),
        make_row("e"),
        make_row("f", status="exited"),
        make_row("g", status="creating"),
    )

    costs = read(client, "/api/costs")

    assert costs["perHour"] == 1.71
    assert costs["perDay"] == 41.04
    assert costs["gpuPerHour"] == 1.7
    assert costs["storagePerHour"] == 0.01
    assert costs["unknownPrices"] == 1
    assert costs["prepaid"] == 1
    assert costs["byGpu"] == [
        {"name": "H100", "perHour": 1.0, "instances": 1, "gpus": 1},
        {"name": "RTX 4090 24GB", "perHour": 0.71, "instances": 3, "gpus": 4},
    ]
    assert [one["name"] for one in costs["byRegion"]] == ["EU", "US-CA-06 (California)"]
    assert costs["byOwner"][1] == {"name": "ada", "perHour": 0.71, "instances": 1, "gpus": 2}
    assert [one["name"] for one in costs["byProject"]] == [None, "llm"]
    assert costs["asOf"]
    assert costs["stale"] is False


def test_costs_without_an_inventory_are_stale(client: Client) -> None:
    costs = read(client, "/api/costs")

    assert costs["asOf"] is None
    assert costs["stale"] is True
    rates = ("perHour", "perDay", "gpuPerHour", "storagePerHour")
    assert {costs[name] for name in rates} == {None}
    assert costs["balance"]["hoursLeft"] is None


def test_burn_rate_of_an_empty_account_is_zero(client: Client, novita: NovitaAnswers) -> None:
    fill(novita)

    assert read(client, "/api/costs")["perHour"] == 0


def test_burn_rate_of_unknown_prices_alone_is_unknown(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a"), make_row("b", status="migrating", productName="H100"))

    costs = read(client, "/api/costs")

    assert costs["perHour"] is None
    assert costs["perDay"] is None
    assert costs["gpuPerHour"] is None
    assert costs["storagePerHour"] == 0
    assert costs["unknownPrices"] == 2
    assert [one["perHour"] for one in costs["byGpu"]] == [None, None]


def test_unknown_price_beside_a_known_one_adds_nothing(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a", instancePrice="35000"), make_row("b"), make_row("c", status="exited"))

    costs = read(client, "/api/costs")

    assert costs["perHour"] == 0.35
    assert costs["byGpu"] == [{"name": "RTX 4090 24GB", "perHour": 0.35, "instances": 2, "gpus": 2}]


def test_costs_have_no_parameters(client: Client) -> None:
    assert read(client, "/api/costs?from=2026-01-01", 400)["fields"] == {
        "from": "Unknown parameter. There are none here."
    }


def test_burn_rate_needs_a_bounded_number_of_queries(
    client: Client, novita: NovitaAnswers, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    fill(novita, *(make_row(f"i{number}", instancePrice="35000") for number in range(300)))
    read(client, "/api/costs")

    with django_assert_max_num_queries(2):
        read(client, "/api/costs")


def test_burn_rate_is_computed_once_for_a_revision() -> None:
    found = burn.find(7, [])

    assert burn.find(7, []) is found
    assert burn.find(8, []) is not found


# --- The balance


def answer_balance(novita: NovitaAnswers, **answer: Any) -> None:
    body = {"availableBalance": "497975", "cashBalance": "1", "creditLimit": 10000, "outstandingInvoices": "0"}
    novita.mock.get(f"{BILLING}/balance/detail", **{"json": body, **answer})


def test_balance_shows_the_hours_that_are_left(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a", instancePrice="100000"))
    answer_balance(novita)
    balance.refresh(None)

    shown = read(client, "/api/costs")["balance"]

    assert shown["available"] == 49.7975
    assert shown["creditLimit"] == 1.0
    assert shown["hoursLeft"] == 49.7975
    assert shown["error"] is None
    assert shown["asOf"]


def test_used_up_balance_lasts_for_no_time(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a", instancePrice="100000"))
    answer_balance(novita, json={"availableBalance": "-50000"})
    balance.refresh(None)

    shown = read(client, "/api/costs")["balance"]

    assert shown["available"] == -5.0
    assert shown["hoursLeft"] == 0.0


def test_balance_is_read_once_in_five_minutes(novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    answer_balance(novita)

    balance.refresh(None)
    balance.refresh(None)

    assert len(novita.mock.calls) == 1
    assert 240 < raw_redis.ttl(redis_client.BALANCE_TURN) <= 300


@pytest.mark.usefixtures("no_pauses")
def test_key_without_the_right_is_reported_once(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    answer_balance(novita)
    balance.refresh(None)
    read_at = read(client, "/api/costs")["balance"]["asOf"]
    novita.mock.reset()
    answer_balance(novita, status=403, json=make_refusal(403, "FORBIDDEN", "no"))
    for _ in range(3):
        raw_redis.delete(redis_client.BALANCE_TURN)
        balance.refresh(None)

    shown = read(client, "/api/costs")["balance"]

    assert shown == {
        "available": None,
        "creditLimit": None,
        "asOf": read_at,
        "hoursLeft": None,
        "error": "The API key may not read the balance.",
    }
    assert [record.levelname for record in caplog.records if "balance" in record.message].count("WARNING") == 1


@pytest.mark.parametrize("body", [None, [], {}, {"availableBalance": "x"}, {"availableBalance": None}])
def test_unreadable_balance_is_unknown(client: Client, novita: NovitaAnswers, body: Any) -> None:
    answer_balance(novita, json=body)

    balance.refresh(None)

    assert read(client, "/api/costs")["balance"]["available"] is None


def test_balance_that_was_never_read_says_so(client: Client) -> None:
    assert read(client, "/api/costs")["balance"]["error"] == "Not read yet."


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b'{"available": "x"}', b"\xff"])
def test_damaged_balance_counts_as_not_read(client: Client, raw_redis: FakeRedis, text: bytes) -> None:
    raw_redis.set(redis_client.BALANCE, text)

    assert read(client, "/api/costs")["balance"]["available"] is None


@pytest.mark.parametrize(("hours", "is_low"), [(23.9, True), (24.1, False), (0.0, True)])
def test_health_warns_of_a_low_balance(
    client: Client, raw_redis: FakeRedis, monkeypatch: pytest.MonkeyPatch, hours: float, is_low: bool
) -> None:
    monkeypatch.setattr(health, "_find_low_balance", health._say_low_balance)
    raw_redis.set(redis_client.BALANCE, f'{{"available": "{hours * 2}", "per_hour": "2", "error": ""}}')

    warnings = read(client, "/health")["warnings"]

    assert any("balance" in warning for warning in warnings) is is_low


@pytest.mark.parametrize(("limit", "is_low"), [(0, False), (12, False), (13, True)])
def test_limit_of_a_low_balance_is_a_setting(
    client: Client, raw_redis: FakeRedis, monkeypatch: pytest.MonkeyPatch, settings: Any, limit: int, is_low: bool
) -> None:
    settings.BALANCE_WARN_HOURS = limit
    monkeypatch.setattr(health, "_find_low_balance", health._say_low_balance)
    raw_redis.set(redis_client.BALANCE, '{"available": "25", "per_hour": "2", "error": ""}')

    warnings = read(client, "/health")["warnings"]

    assert any("balance" in warning for warning in warnings) is is_low


# --- Over time


@pytest.mark.usefixtures("now")
def test_history_has_a_point_for_each_day(client: Client) -> None:
    record(
        "a", (State.GPU, 36, 24, 2.0), (State.GAP, 24, 18, None), (State.STORAGE, 18, 6, 0.5), (State.GPU, 6, None, 2)
    )

    points = read(client, "/api/costs/history?from=2026-01-14&to=2026-01-15")["points"]

    assert points == [
        {
            "at": "2026-01-14T00:00:00Z",
            "cost": 27.0,
            "gpuHours": 12.0,
            "gapSeconds": 21600.0,
            "inferredSeconds": 0.0,
            "unpricedSeconds": 0.0,
        },
        {
            "at": "2026-01-15T00:00:00Z",
            "cost": 15.0,
            "gpuHours": 6.0,
            "gapSeconds": 0.0,
            "inferredSeconds": 0.0,
            "unpricedSeconds": 0.0,
        },
    ]


@pytest.mark.usefixtures("now")
def test_history_by_hour_begins_and_ends_within_an_hour(client: Client) -> None:
    record("a", (State.GPU, 5, None, 2.0))

    points = read(client, "/api/costs/history?step=hour&from=2026-01-15T08:30:00Z&to=2026-01-15T10:15:00Z")["points"]

    assert [(point["at"], point["cost"]) for point in points] == [
        ("2026-01-15T08:30:00Z", 1.0),
        ("2026-01-15T09:00:00Z", 2.0),
        ("2026-01-15T10:00:00Z", 0.5),
    ]


@pytest.mark.usefixtures("now")
def test_history_ends_now(client: Client) -> None:
    record("a", (State.GPU, 5, None, 2.0))

    points = read(client, "/api/costs/history?step=hour&from=2026-01-15&to=2026-01-15")["points"]

    assert points[-1]["at"] == "2026-01-15T11:00:00Z"


@pytest.mark.usefixtures("now")
def test_instances_show_what_each_has_cost(client: Client) -> None:
    Annotation.objects.create(instance_id="a", owner="ada")
    LabelRule.objects.create(pattern="name-*", project="rest")
    record("a", (State.GPU, 10, 8, 1.0))
    record("b", (State.GPU, 10, 6, 1.0), (State.GPU, 6, 4, None))
    record("c", (State.GPU, 3, 2, None))

    body = read(client, "/api/costs/instances")

    assert [(one["id"], one["owner"], one["project"], one["cost"]) for one in body["instances"]] == [
        ("b", None, "rest", 4.0),
        ("a", "ada", None, 2.0),
        ("c", None, "rest", None),
    ]
    assert body["instances"][0]["gpuHours"] == 6.0
    assert body["instances"][0]["unpricedSeconds"] == 7200.0
    assert body["total"] == 6.0


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ("from=2026-02-30", "from", "Must be a date that exists, such as 2026-01-31"),
        ("from=yesterday", "from", "Must be a date or a time in UTC, such as"),
        ("to=2026-1-5", "to", "2026-01-31"),
        ("from=2026-01-15&to=2026-01-14", "from", "Must be before the end"),
        ("from=2026-01-15T10:00:00Z&to=2026-01-15T10:00:00Z", "from", "Must be before the end"),
        ("from=2020-01-01", "from", "Must be at most 400 days"),
        ("from=2026-06-01&to=2026-06-02", "from", "Must not be in the future"),
        ("to=9999-12-31", "to", "Must be in the years 2000 to 2999."),
        ("to=0001-01-01", "to", "Must be in the years 2000 to 2999."),
        ("form=2026-01-01", "form", "Unknown parameter. Valid are: "),
        ("from=2026-01-01&from=2026-01-02", "from", "more than once"),
    ],
)
@pytest.mark.parametrize("report", ["history", "instances", "bill", "history.csv"])
@pytest.mark.usefixtures("now")
def test_bad_period_is_refused_with_a_valid_one(
    client: Client, report: str, query: str, field: str, reason: str
) -> None:
    if report == "bill":
        reason = reason.replace("400", "31")

    answer = read(client, f"/api/costs/{report}?{query}", 400)

    assert reason in answer["fields"][field]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("history?step=week", {"step": "Use hour or day."}),
        (
            "history?step=hour&from=2025-12-01&to=2026-01-10",
            {"from": "Must be at most 31 days before the end, 2026-01-11T00:00:00Z."},
        ),
        ("bill?step=day", {"step": "Unknown parameter. Valid are: from, to."}),
        ("bill.csv?step=day", {"step": "Unknown parameter. Valid are: from, to."}),
        ("history.csv?instance=a", {"instance": "Unknown parameter. Valid are: step, from, to."}),
    ],
)
@pytest.mark.usefixtures("now")
def test_bad_step_is_refused_with_the_valid_ones(client: Client, query: str, fields: Json) -> None:
    assert read(client, f"/api/costs/{query}", 400)["fields"] == fields


@pytest.mark.usefixtures("now")
def test_time_at_unknown_prices_alone_has_an_unknown_cost(client: Client) -> None:
    record("a", (State.GPU, 36, 24, None))

    points = read(client, "/api/costs/history?from=2026-01-14&to=2026-01-15")["points"]

    assert [point["cost"] for point in points] == [None, 0.0]
    assert points[0]["unpricedSeconds"] == 43200.0


@pytest.mark.parametrize("report", ["history", "instances"])
def test_report_says_since_when_the_ledger_knows(client: Client, novita: NovitaAnswers, report: str) -> None:
    assert read(client, f"/api/costs/{report}")["since"] is None
    novita.lists(make_row("a"))
    client.post("/api/instances/sync")
    first = ledger.to_ms(timezone.now()) - 3_600_000
    LedgerState.objects.update(began_ms=first)
    novita.lists(make_row("a", status="exited"))
    client.post("/api/instances/sync")

    assert read(client, f"/api/costs/{report}")["since"] == format_time(datetime.fromtimestamp(first / 1000, UTC))


@pytest.mark.usefixtures("now")
def test_reports_are_csv_files_too(client: Client) -> None:
    record("a", (State.GPU, 10, 8, 1.0), name="=cmd")
    record("b", (State.GPU, 10, 8, 1.0))

    answer = client.get("/api/costs/instances.csv?instance=a")

    text = b"".join(answer.streaming_content).decode("utf-8-sig")  # type: ignore[attr-defined]  # a stream
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["cost"] == "2.0"
    assert row["name"] == "'=cmd"
    assert answer["Content-Disposition"] == 'attachment; filename="costs-instances-2026-01-15.csv"'


# --- Against the bill


def answer_bills(novita: NovitaAnswers, *bills: tuple[str, Any], category: str = "gpu") -> None:
    rows = [
        {"startTime": str(int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())), "amount": amount}
        for day, amount in bills
    ]
    query = {"productCategory": category, "cycleType": "Day", "startTime": "1768262400", "endTime": "1768521600"}
    novita.mock.get(f"{BILLING}/bill/list", json={"bills": rows}, match=[matchers.query_param_matcher(query)])


@pytest.mark.usefixtures("now")
def test_bill_shows_each_day_beside_the_estimate(client: Client, novita: NovitaAnswers) -> None:
    record("a", (State.GPU, 36, 12, 2.0))
    answer_bills(novita, ("2026-01-14", "479000"), ("2026-01-14", 2000))
    answer_bills(novita, category="cloud_storage")

    days = read(client, "/api/costs/bill?from=2026-01-13&to=2026-01-15")["days"]

    assert days == [
        {"date": "2026-01-13", "estimated": 0.0, "billed": 0.0, "difference": 0.0},
        {"date": "2026-01-14", "estimated": 48.0, "billed": 48.1, "difference": 0.1},
        {"date": "2026-01-15", "estimated": 0.0, "billed": None, "difference": None},
    ]


@pytest.mark.usefixtures("now")
def test_day_before_the_ledger_is_not_compared(client: Client, novita: NovitaAnswers) -> None:
    record("a", (State.GPU, 30, None, 2.0))
    LedgerState.objects.update(began_ms=ledger.to_ms(NOON) - 30 * 3_600_000)
    answer_bills(novita, ("2026-01-13", "30000"), ("2026-01-14", "360000"))
    answer_bills(novita, category="cloud_storage")

    days = read(client, "/api/costs/bill?from=2026-01-13&to=2026-01-15")["days"]

    assert days == [
        {"date": "2026-01-13", "estimated": 0.0, "billed": 3.0, "difference": None},
        {"date": "2026-01-14", "estimated": 36.0, "billed": 36.0, "difference": 0.0},
        {"date": "2026-01-15", "estimated": 24.0, "billed": None, "difference": None},
    ]


@pytest.mark.usefixtures("now")
def test_bill_has_whole_days(client: Client, novita: NovitaAnswers) -> None:
    answer_bills(novita)
    answer_bills(novita, category="cloud_storage")

    answer = read(client, "/api/costs/bill?from=2026-01-13T17:00:00Z&to=2026-01-15T09:00:00Z")

    assert [day["date"] for day in answer["days"]] == ["2026-01-13", "2026-01-14", "2026-01-15"]


@pytest.mark.usefixtures("now")
def test_bill_of_more_days_than_novita_accepts_is_refused(client: Client) -> None:
    query = "from=2025-12-15T10:00:00Z&to=2026-01-15T10:00:00Z"

    assert "Must be at most 31 days" in read(client, f"/api/costs/bill?{query}", 400)["fields"]["from"]


@pytest.mark.usefixtures("now")
def test_day_without_bills_is_not_billed_yet(client: Client, novita: NovitaAnswers) -> None:
    answer_bills(novita)
    answer_bills(novita, category="cloud_storage")

    days = read(client, "/api/costs/bill?from=2026-01-13&to=2026-01-15")["days"]

    assert [day["billed"] for day in days] == [None, None, None]


@pytest.mark.usefixtures("now")
def test_day_without_bills_cost_nothing_once_it_is_older(client: Client, novita: NovitaAnswers) -> None:
    novita.mock.get(f"{BILLING}/bill/list", json={"bills": []})

    days = read(client, "/api/costs/bill?from=2026-01-11&to=2026-01-14")["days"]

    assert [day["billed"] for day in days] == [0.0, 0.0, None, None]


@pytest.mark.usefixtures("now")
def test_day_that_is_not_over_is_not_billed_yet(client: Client, novita: NovitaAnswers) -> None:
    answer_bills(novita, ("2026-01-15", "1000"))
    answer_bills(novita, category="cloud_storage")

    days = read(client, "/api/costs/bill?from=2026-01-13&to=2026-01-15")["days"]

    assert [day["billed"] for day in days] == [0.0, 0.0, None]


@pytest.mark.usefixtures("now", "no_pauses")
@pytest.mark.parametrize(
    "body", [[], {"bills": 1}, {"bills": [{}]}, {"bills": [{"startTime": "1", "amount": None}]}, {"bills": [None]}]
)
def test_bill_that_can_not_be_read_leaves_the_estimate(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, body: Any
) -> None:
    novita.mock.get(f"{BILLING}/bill/list", json=body)
    record("a", (State.GPU, 36, 12, 2.0))

    answer = read(client, "/api/costs/bill?from=2026-01-14&to=2026-01-14")
    read(client, "/api/costs/bill?from=2026-01-14&to=2026-01-14")

    assert 0 < raw_redis.ttl(f"{redis_client.BILLS}20260114-20260115") <= 60
    assert answer["days"] == [{"date": "2026-01-14", "estimated": 48.0, "billed": None, "difference": None}]
    assert "bill can't be read" in answer["error"]
    assert len(novita.mock.calls) == 1


# --- Owner, project and note


def annotate(client: Client, id_: str, status: int = 200, **body: Any) -> Json:
    answer = client.put(f"/api/instances/{id_}/annotation", body, content_type="application/json")
    assert answer.status_code == status, answer.content
    result: Json = answer.json()
    return result


def test_annotation_is_shown_at_once_and_stays(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a"), make_row("b"))
    etag = client.get("/api/instances")["ETag"]

    answer = annotate(client, "a", owner=" ada ", project="llm", note="until Friday")

    assert answer["owner"] == "ada"
    assert client.get("/api/instances")["ETag"] != etag
    shown = {one["id"]: one["owner"] for one in read(client, "/api/instances")["instances"]}
    assert shown == {"a": "ada", "b": None}
    etag = client.get("/api/instances")["ETag"]
    assert client.post("/api/instances/sync").status_code == 200
    assert client.get("/api/instances", headers={"If-None-Match": etag}).status_code == 304
    assert read(client, "/api/instances/a/annotation")["note"] == "until Friday"


def test_empty_annotation_returns_to_the_rules(client: Client, novita: NovitaAnswers) -> None:
    LabelRule.objects.create(pattern="*", owner="rule")
    fill(novita, make_row("a"))
    annotate(client, "a", owner="hand")

    answer = annotate(client, "a")

    assert answer["owner"] == "rule"
    assert read(client, "/api/instances/a")["owner"] == "rule"
    assert not Annotation.objects.exists()


def test_annotation_is_recorded_as_activity(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a"))
    annotate(client, "a", owner="ada")
    annotate(client, "a", owner="bob", note="mine")

    entry = AuditEntry.objects.filter(action="annotation.set").latest("pk")
    assert entry.target == "a"
    assert entry.before == "owner ada"
    assert entry.after == "owner bob, note mine"


def test_annotation_of_an_unknown_instance_is_refused(client: Client) -> None:
    annotate(client, "nope", 404, owner="ada")


@pytest.mark.parametrize("body", [{"owner": 1}, {"owner": "x" * 101}, {"ower": "x"}, {"note": "x" * 1001}])
def test_invalid_annotation_is_refused(client: Client, novita: NovitaAnswers, body: Json) -> None:
    fill(novita, make_row("a"))

    assert annotate(client, "a", 400, **body)["fields"]


@pytest.mark.parametrize(
    ("query", "ids"), [("owner=ada", ["a"]), ("project=LLM", ["a", "b"]), ("search=llm", ["a", "b"]), ("owner=x", [])]
)
def test_list_is_filtered_by_owner_and_project(
    client: Client, novita: NovitaAnswers, query: str, ids: list[str]
) -> None:
    fill(novita, make_row("a"), make_row("b"), make_row("c"))
    annotate(client, "a", owner="Ada", project="llm")
    annotate(client, "b", project="llm")

    found = read(client, f"/api/instances?{query}&ordering=id")["instances"]

    assert [one["id"] for one in found] == ids


def test_several_instances_are_annotated_and_keep_their_notes(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a"), make_row("b"), make_row("c"))
    annotate(client, "a", owner="old", note="mine")
    body = {"ids": ["a", "b", "gone"], "owner": "ada", "project": "llm"}

    answer = client.put("/api/annotations", body, content_type="application/json").json()

    assert answer["missing"] == ["gone"]
    assert answer["success"] is False
    owners = {one["id"]: one["owner"] for one in read(client, "/api/instances")["instances"]}
    assert owners == {"a": "ada", "b": "ada", "c": None}
    assert read(client, "/api/instances/a/annotation")["note"] == "mine"
    assert AuditEntry.objects.filter(action="annotation.set").count() == 3


def do_once_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object]) -> None:
    """Let something else happen after the first call of a function, before its caller goes on."""
    waiting, function = [act], getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        found = function(*args, **options)
        if waiting:
            waiting.pop()()
        return found

    monkeypatch.setattr(owner, name, call)


def test_inventory_shows_the_later_of_two_annotations(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(novita, make_row("a"))
    do_once_after(monkeypatch, labels, "read_book", lambda: annotate(ApiClient(), "a", owner="later"))

    annotate(client, "a", owner="earlier")

    assert Annotation.objects.get().owner == "later"
    assert read(client, "/api/instances/a")["owner"] == "later"


@pytest.mark.parametrize(("owner", "name"), [(labels, "read_book"), (store, "read_stored")], ids=["book", "rows"])
def test_refresh_does_not_undo_an_annotation_made_meanwhile(
    owner: Any, name: str, client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(novita, make_row("a"))
    do_once_after(monkeypatch, owner, name, lambda: annotate(ApiClient(), "a", owner="ada"))

    additions.refresh()

    assert read(client, "/api/instances/a")["owner"] == "ada"


def test_annotation_of_several_keeps_a_note_that_was_written_meanwhile(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(novita, make_row("a"))
    annotate(client, "a", owner="old")
    do_once_after(monkeypatch, annotations, "_say", lambda: annotate(ApiClient(), "a", owner="old", note="mine"))

    client.put("/api/annotations", {"ids": ["a"], "owner": "ada"}, content_type="application/json")

    assert read(client, "/api/instances/a/annotation")["note"] == "mine"
    assert read(client, "/api/instances/a")["owner"] == "ada"


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": ["a"], "owner": 1}, {"ids": ["a"], "note": "x"}])
def test_invalid_annotation_of_several_is_refused(client: Client, body: Json) -> None:
    answer = client.put("/api/annotations", body, content_type="application/json")

    assert answer.status_code == 400
    assert answer.json()["fields"]


# --- manage.py costs


@pytest.fixture
def used(now: datetime) -> None:
    Annotation.objects.create(instance_id="a", owner="ada", project="llm")
    record("a", (State.GPU, 36, 34, 1.0))
    record("b", (State.GPU, 10, 6, 1.0), (State.STORAGE, 6, 4, 0.25), (State.GPU, 4, 2, None))


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("costs", *args, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("by", "first"),
    [("instance", "name-b"), ("owner", "(none)"), ("project", "(none)"), ("gpu", "RTX 4090"), ("region", "US")],
)
@pytest.mark.usefixtures("used")
def test_command_sums_by(by: str, first: str) -> None:
    lines = run("--by", by).splitlines()

    assert lines[1].startswith(first)
    assert lines[-1].startswith("Total")
    assert "6.50" in lines[-1]


@pytest.mark.usefixtures("used")
def test_command_sums_by_day() -> None:
    lines = run("--by", "day", "--from", "2026-01-14", "--to", "2026-01-15").splitlines()

    assert [line.split()[0] for line in lines[1:]] == ["2026-01-14", "2026-01-15", "Total"]


@pytest.mark.parametrize("args", [["--json"], ["--csv"]])
@pytest.mark.usefixtures("used")
def test_command_writes_json_and_csv(args: list[str]) -> None:
    assert "6.5" in run("--by", "region", *args)


def test_command_says_that_the_database_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MeteredInstance._meta, "db_table", "missing")
    monkeypatch.setattr(LedgerState._meta, "db_table", "missing")

    with pytest.raises(CommandError, match="The database can't be used"):
        run()


# --- The rules in /admin/


def test_rule_is_shown_at_once_and_recorded(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a", name="train-1"))
    form = {"pattern": "train-*", "owner": "ada", "project": "", "position": "10"}

    answer = DjangoClient().post("/admin/instances/labelrule/add/", form)

    assert answer.status_code == 302
    assert read(client, "/api/instances/a")["owner"] == "ada"
    entry = AuditEntry.objects.get(action="rules.change")
    assert entry.after == "10: train-* → owner ada, project –"


def test_deleted_rule_no_longer_gives_an_owner(client: Client, novita: NovitaAnswers) -> None:
    rule = LabelRule.objects.create(pattern="*", owner="ada")
    fill(novita, make_row("a"))

    DjangoClient().post(f"/admin/instances/labelrule/{rule.pk}/delete/", {"post": "yes"})

    assert read(client, "/api/instances/a")["owner"] is None


def test_selected_rules_are_deleted_with_a_record_of_each(client: Client, novita: NovitaAnswers) -> None:
    rules = [LabelRule.objects.create(pattern=pattern, owner="ada") for pattern in ("*", "x*")]
    fill(novita, make_row("a"))
    form = {"action": "delete_selected", "_selected_action": [rule.pk for rule in rules], "post": "yes"}

    DjangoClient().post("/admin/instances/labelrule/", form)

    assert read(client, "/api/instances/a")["owner"] is None
    assert AuditEntry.objects.filter(action="rules.change").count() == 2


def test_first_rule_by_position_counts(client: Client, novita: NovitaAnswers) -> None:
    LabelRule.objects.create(pattern="*", owner="late", position=20)
    LabelRule.objects.create(pattern="name-?", owner="early", position=5)
    fill(novita, make_row("a"), make_row("bb"))

    assert read(client, "/api/instances/a")["owner"] == "early"
    assert read(client, "/api/instances/bb")["owner"] == "late"


@pytest.mark.parametrize("kind", ["usageinterval", "annotation", "labelrule"])
def test_records_of_costs_have_pages(client: Client, kind: str) -> None:
    record("a", (State.GPU, 2, 1, 1.0), (State.GPU, 1, None, None))
    Annotation.objects.create(instance_id="a", owner="ada")
    LabelRule.objects.create(pattern="*", owner="ada")

    assert "a" in client.get(f"/admin/instances/{kind}/").content.decode()
