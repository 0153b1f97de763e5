"""The money of the simulator: prices, the meter, bills and the balance, with time driven by the test."""

from collections import Counter
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from instances.simulator import Account, make_clock
from instances.simulator import account as account_module
from instances.simulator.account import PageQuery
from instances.simulator.answers import Refusal
from instances.simulator.rows import PRODUCTS

BEGIN = 1_765_152_000  # 2025-12-08T00:00:00Z
HOUR, DAY = 3600, 86_400


class Clock:
    def __init__(self) -> None:
        self.now = float(BEGIN)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def account(clock: Clock) -> Account:
    """An account after two days and three hours, with a stop and a start on each of them."""
    account = Account(25, clock=clock, step_seconds=0)
    running = [row["id"] for row in account.list_rows() if row["status"] == "running"]
    for number in range(51):
        clock.now = BEGIN + number * HOUR + 1234.5
        account.act("stop" if number % 2 == 0 else "start", running[number // 2 % len(running)])
    clock.now = BEGIN + 2 * DAY + 3 * HOUR
    return account


def list_bills(account: Account, cycle: str, **more: str) -> list[dict[str, Any]]:
    query = {"cycleType": cycle, "productCategory": "gpu", "startTime": str(BEGIN), "endTime": str(BEGIN + 3 * DAY)}
    bills: list[dict[str, Any]] = account.list_bills({**query, **more})["bills"]
    return bills


def sum_by_instance(bills: list[dict[str, Any]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for bill in bills:
        sums[bill["ownerID"]] += int(bill["amount"])
    return sums


def test_some_rows_have_a_price_and_some_have_none() -> None:
    prices = [one.row.get("instancePrice") for one in Account().list_page(PageQuery(100, 1)).shown]

    assert {type(price) for price in prices} == {str, int, type(None)}


def test_products_have_prices_for_spot_and_by_the_month() -> None:
    assert any(int(product["spotPrice"]) for product in PRODUCTS)
    assert any(not int(product["spotPrice"]) for product in PRODUCTS)
    assert any(product["monthlyPrice"] for product in PRODUCTS)


def test_bills_by_hour_are_together_those_by_day(account: Account) -> None:
    days = sum_by_instance(list_bills(account, "Day"))

    hours = [bill for bill in list_bills(account, "Hour") if int(bill["startTime"]) < BEGIN + 2 * DAY]

    assert sum_by_instance(hours) == days


def test_bills_agree_with_the_meter(account: Account, clock: Clock) -> None:
    bills = sum_by_instance(list_bills(account, "Day"))

    for id_, amount in bills.items():
        metered = account.meter.measure(id_, BEGIN, BEGIN + 2 * DAY, clock.now)
        # In 1e-4 and 1e-5 USD.
        assert abs(amount - metered / 10) <= Fraction(1, 2)
    total = account.meter.measure_all(BEGIN, BEGIN + 2 * DAY, clock.now) / 10
    assert abs(sum(bills.values()) - total) < len(bills)


def test_day_is_billed_some_hours_after_its_end(account: Account, clock: Clock) -> None:
    clock.now = BEGIN + 2 * DAY + HOUR

    assert {int(bill["startTime"]) for bill in list_bills(account, "Day")} == {BEGIN}


def test_bills_can_be_those_of_one_instance(account: Account) -> None:
    id_ = list_bills(account, "Day")[0]["ownerID"]

    assert {bill["ownerID"] for bill in list_bills(account, "Day", ownerId=id_)} == {id_}


@pytest.mark.parametrize(
    "more", [{"endTime": str(BEGIN + 32 * DAY)}, {"endTime": str(BEGIN - 1)}, {"startTime": ""}, {"cycleType": "Year"}]
)
def test_invalid_query_for_bills_is_refused(account: Account, more: dict[str, str]) -> None:
    with pytest.raises(Refusal):
        list_bills(account, "Day", **more)


def test_balance_falls_by_what_the_meter_counts(account: Account, clock: Clock) -> None:
    before = int(account.read_balance()["availableBalance"])
    since = clock.now

    clock.now += 10 * HOUR

    fallen = before - int(account.read_balance()["availableBalance"])
    assert fallen > 0
    assert abs(fallen - account.meter.measure_all(since, clock.now, clock.now) / 10) <= 1


def test_stopped_account_spends_less(account: Account, clock: Clock) -> None:
    def spend() -> int:
        before = int(account.read_balance()["availableBalance"])
        clock.now += HOUR
        return before - int(account.read_balance()["availableBalance"])

    running = spend()
    for row in account.list_rows():
        if row["status"] == "running":
            account.act("stop", row["id"])

    assert 0 < spend() < running / 10


def test_monthly_instance_is_charged_nothing(account: Account, clock: Clock) -> None:
    monthly = [row["id"] for row in account.list_rows() if row["billingMode"] == "monthly"]

    assert monthly
    assert [account.meter.measure(id_, BEGIN, clock.now, clock.now) for id_ in monthly] == [0] * len(monthly)


def test_clock_runs_faster_by_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([100.0, 103.0])
    machine = SimpleNamespace(time=lambda: float(BEGIN), monotonic=lambda: next(seconds))
    monkeypatch.setattr(account_module, "time", machine)

    assert make_clock(1000)() == BEGIN + 3000
