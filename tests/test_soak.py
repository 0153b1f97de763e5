"""The checks of `make soak` notice what they are for. The soak itself takes minutes, and is no test."""

from typing import Any

import pytest

from soak import checks, schedule
from soak.account import WITNESS, CountingAccount
from soak.checks import Order, StopCall

WITNESSES = ("a", "b")


def make_rows(*epochs: int) -> list[dict[str, Any]]:
    return [{"id": id_, "name": f"witness-{epoch}"} for id_, epoch in zip(WITNESSES, epochs, strict=False)]


@pytest.fixture
def oracle() -> checks.Oracle:
    oracle = checks.Oracle(WITNESSES)
    oracle.begin_epoch(5)
    return oracle


def test_whole_listing_of_one_state_is_right(oracle: checks.Oracle) -> None:
    assert oracle.judge(make_rows(5, 5), 10, 11, is_whole=True, etag="W/1") == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (make_rows(4, 5), "mixes the states [4, 5]"),
        (make_rows(5), "1 of 2 witnesses"),
        (make_rows(6, 6), "never was"),
        ([*make_rows(5, 5), *make_rows(5)], "twice"),
    ],
)
def test_wrong_listing_is_noticed(oracle: checks.Oracle, rows: list[dict[str, Any]], words: str) -> None:
    (fault,) = oracle.judge(rows, 10, 11, is_whole=True)

    assert words in fault


def test_mixed_page_is_noticed(oracle: checks.Oracle) -> None:
    assert oracle.judge(make_rows(4, 5), 10, 11, is_whole=False) == ["A listing mixes the states [4, 5]."]


def test_older_listing_is_noticed(oracle: checks.Oracle) -> None:
    oracle.judge(make_rows(5, 5), 10, 11, is_whole=True)

    assert oracle.judge(make_rows(4, 4), 13, 14, is_whole=True) == [
        "A listing has the state 4 after a complete answer had 5."
    ]


def test_request_that_began_before_may_have_the_older_listing(oracle: checks.Oracle) -> None:
    oracle.judge(make_rows(5, 5), 10, 11, is_whole=True)

    assert oracle.judge(make_rows(4, 4), 10.5, 14, is_whole=True) == []


def test_two_listings_with_one_etag_are_noticed(oracle: checks.Oracle) -> None:
    oracle.judge(make_rows(4, 4), 10, 11, is_whole=True, etag="W/1")

    assert oracle.judge(make_rows(5, 5), 10, 11, is_whole=True, etag="W/1") == [
        "Two listings with the ETag W/1 differ."
    ]


@pytest.mark.parametrize("status", [200, 202, 304])
def test_success_is_right(status: int) -> None:
    assert checks.check_answer(status, None) == []


def test_refusal_with_its_reason_is_right() -> None:
    assert checks.check_answer(503, {"code": "CACHE_UNAVAILABLE", "message": "Redis did not answer in time."}) == []


def test_health_gives_its_reason_as_a_warning() -> None:
    assert checks.check_answer(503, {"status": "unhealthy", "warnings": ["Redis can't be reached."]}) == []


@pytest.mark.parametrize(
    ("status", "body"), [(503, None), (404, {"message": "?"}), (500, {"code": "A", "message": "B"})]
)
def test_answer_without_a_reason_is_noticed(status: int, body: object) -> None:
    assert len(checks.check_answer(status, body)) == 1


def test_second_request_of_one_order_is_noticed() -> None:
    calls = [StopCall(1, "a", 0, "running", True), StopCall(2.5, "a", 0, "toStop", False)]

    assert checks.check_stops(calls, [Order("a", 1, 3)]) == [
        "a got a stop request that no order explains (1.50 s after the first, it was toStop)."
    ]


def test_two_orders_may_send_a_request_each() -> None:
    calls = [StopCall(1, "a", 0, "running", True), StopCall(1.5, "a", 0, "toStop", False)]

    assert checks.check_stops(calls, [Order("a", 1, 3), Order("a", 0, 2)]) == []


def test_run_that_two_orders_stop_is_noticed() -> None:
    calls = [StopCall(1, "a", 0, "running", True), StopCall(1.5, "a", 0, "running", True)]

    assert checks.check_stops(calls, [Order("a", 1, 3), Order("a", 0, 2)]) == ["a was stopped twice in one run."]


def test_request_after_the_end_of_its_order_is_noticed() -> None:
    (fault,) = checks.check_stops([StopCall(9, "a", 1, "running", True)], [Order("a", 1, 3)])

    assert "no order explains" in fault


def test_stop_of_the_next_run_is_right() -> None:
    calls = [StopCall(1, "a", 0, "running", True), StopCall(2, "a", 1, "running", True)]

    assert checks.check_stops(calls, [Order("a", 0, 3)]) == []


def test_request_that_meets_a_starting_instance_stops_no_run() -> None:
    calls = [StopCall(1, "a", 1, "starting", False), StopCall(2, "a", 1, "running", True)]

    assert checks.check_stops(calls, [Order("a", 0, 3)]) == []


def test_account_counts_the_runs_of_an_instance() -> None:
    account = CountingAccount(8)
    (one, *_) = account.list_group("single")
    account.step_seconds = 0

    account.act("stop", one)
    account.run((one,))
    account.act("stop", one)

    assert [call.run for call in account.stop_calls] == [0, 1]


def test_witnesses_have_one_name_at_any_time() -> None:
    account = CountingAccount(8)
    witnesses = account.list_group(WITNESS)

    account.rename_witnesses(witnesses, 3)

    names = {row["name"] for row in account.list_rows() if row["id"] in witnesses}
    assert names == {"witness-3"}
    assert len(witnesses) == 4


@pytest.mark.parametrize(("recorded", "words"), [({}, "not recorded"), ({"x": False}, "has not ended")])
def test_lost_operation_is_noticed(recorded: dict[str, bool], words: str) -> None:
    (fault,) = checks.check_operations({"x"}, recorded)

    assert words in fault


@pytest.mark.parametrize(
    ("received", "words"),
    [([], "never arrived"), ([("m1", "x"), ("m2", "x")], "arrived under 2 ids")],
)
def test_lost_or_doubled_message_is_noticed(received: list[tuple[str, str]], words: str) -> None:
    (fault,) = checks.check_sent("webhook", {"m1": "x"}, received)

    assert words in fault


def test_message_that_arrives_again_under_its_id_is_right() -> None:
    assert checks.check_sent("webhook", {"m1": "x"}, [("m1", "x"), ("m1", "x")]) == []


def test_growing_process_is_noticed() -> None:
    growth = checks.measure_growth("web", [(at, 100 + at / 30) for at in range(0, 400, 2)])

    assert growth is not None
    assert checks.check_growth([growth]) == ["web grows by 2.00 MB a minute."]


def test_growth_before_the_warm_up_ends_does_not_count() -> None:
    growth = checks.measure_growth("web", [(at, min(at, 180)) for at in range(0, 400, 2)])

    assert growth is not None
    assert checks.check_growth([growth]) == []


def test_process_that_lived_shortly_is_not_judged() -> None:
    assert checks.measure_growth("web", [(at, 100.0) for at in range(0, 230, 2)]) is None


def test_seed_repeats_the_schedule() -> None:
    assert schedule.plan(3, 600) == schedule.plan(3, 600) != schedule.plan(4, 600)


def test_one_server_and_one_worker_are_spared_for_long_enough_to_judge_their_memory() -> None:
    assert max(blow.at for blow in schedule.plan(3, 600) if blow.number == 1) < 600 - 2 * checks.MIN_JUDGED_SECONDS
