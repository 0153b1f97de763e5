"""What the rules say about an instance. What is missing, late or contradictory is unknown, and no reason to stop."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from instances.instance import format_time
from instances.models import Policy
from instances.policies.judging import Account, judge, judge_budget
from instances.utilization.reading import Reading, Sample
from tests.policy_steps import BEGAN as NOW
from tests.policy_steps import make_reading, make_series, show

IDLE = Policy(rule="idle")
SPIKE = [0.0] * 30 + [80.0] + [0.0] * 29
HOUR_AGO = NOW - timedelta(hours=1)


def judge_idle(reading: Reading | None, policy: Policy = IDLE, **fields: Any) -> str:
    return str(judge(policy, show(**fields), reading, NOW).verdict)


def test_hour_without_work_is_idle() -> None:
    judgement = judge(IDLE, show(), make_reading(NOW, 0.0), NOW)

    assert judgement.is_broken
    assert judgement.since == HOUR_AGO


def test_load_at_the_threshold_is_idle() -> None:
    assert judge_idle(make_reading(NOW, 5.0)) == "broken"


@pytest.mark.parametrize("load", [5.1, 100.0, SPIKE])
def test_one_sample_above_the_threshold_is_work(load: Any) -> None:
    assert judge_idle(make_reading(NOW, load)) == "kept"


def test_one_busy_gpu_of_eight_is_work() -> None:
    assert judge_idle(make_reading(NOW, *[0.0] * 7, SPIKE), gpuNum=8) == "kept"


def test_eight_idle_gpus_are_idle() -> None:
    assert judge_idle(make_reading(NOW, *[0.0] * 8), gpuNum=8) == "broken"


def test_work_before_the_window_does_not_count() -> None:
    reading = make_reading(NOW, [90.0] * 59 + [0.0] * 61, minutes=120)

    assert judge_idle(reading) == "broken"


def test_processor_counts_for_an_instance_without_gpus() -> None:
    idle, busy = ([Sample(HOUR_AGO + timedelta(minutes=n), load) for n in range(1, 61)] for load in (1.0, 50.0))

    assert judge_idle(make_reading(NOW, gpus=(), cpu=idle), gpuNum=0) == "broken"
    assert judge_idle(make_reading(NOW, gpus=(), cpu=busy), gpuNum=0) == "kept"


def test_order_of_samples_does_not_matter() -> None:
    reversed_one = list(reversed(make_series(HOUR_AGO, [0.0] * 60)))

    assert judge_idle(make_reading(NOW, gpus=[reversed_one])) == "broken"


def test_four_fifths_of_the_samples_are_enough() -> None:
    every_fifth_missing = [one for number, one in enumerate(make_series(HOUR_AGO, [0.0] * 60)) if number % 5]

    assert judge_idle(make_reading(NOW, gpus=[every_fifth_missing])) == "broken"


def test_work_after_the_window_s_end_counts() -> None:
    series = [*make_series(HOUR_AGO, [0.0] * 60), Sample(NOW + timedelta(seconds=50), 80.0)]

    assert judge_idle(make_reading(NOW, gpus=[series], read_at=NOW + timedelta(seconds=60))) == "kept"


UNKNOWN: dict[str, Callable[[], tuple[Reading | None, dict[str, Any]]]] = {
    "nothing read": lambda: (None, {}),
    "a failed call": lambda: (make_reading(NOW, 0.0, error="HTTP 500"), {}),
    "a fifth and more missing": lambda: (make_reading(NOW, [0.0] * 47), {}),
    "a fifth missing on one of two GPUs": lambda: (make_reading(NOW, [0.0] * 60, [0.0] * 47), {"gpuNum": 2}),
    "a sample a second, and most of the hour missing": lambda: (
        make_reading(NOW, gpus=[[Sample(NOW - timedelta(seconds=second), 0.0) for second in range(60)]]),
        {},
    ),
    "the last 11 minutes missing": lambda: (make_reading(NOW, [0.0] * 49), {}),
    "the last 4 hours of a day missing": lambda: (make_reading(NOW, [0.0] * 1200, minutes=1440), {"_minutes": 1440}),
    "times in the future": lambda: (
        make_reading(NOW, gpus=[[*make_series(HOUR_AGO, [0.0] * 60), Sample(NOW + timedelta(hours=1), 0.0)]]),
        {},
    ),
    "the same sample repeated": lambda: (make_reading(NOW, gpus=[[Sample(NOW, 0.0)] * 60]), {}),
    "one GPU of two missing": lambda: (make_reading(NOW, 0.0), {"gpuNum": 2}),
    "more GPUs than the instance has": lambda: (make_reading(NOW, 0.0, 0.0), {}),
    "an unknown number of GPUs": lambda: (make_reading(NOW, 0.0), {"gpuNum": None}),
    "no sample at all": lambda: (make_reading(NOW, gpus=[[]]), {}),
    "read 31 minutes ago": lambda: (make_reading(NOW - timedelta(minutes=31), 0.0), {}),
    "read in the future": lambda: (make_reading(NOW + timedelta(minutes=6), 0.0), {}),
    "samples that end 11 minutes before the reading": lambda: (
        make_reading(NOW - timedelta(minutes=11), 0.0, read_at=NOW),
        {},
    ),
    "a shorter time than the window": lambda: (make_reading(NOW, 0.0, minutes=30), {}),
    "negative values": lambda: (make_reading(NOW, [0.0] * 59 + [-1.0]), {}),
    "values above 100 that are no work": lambda: (make_reading(NOW, [0.0] * 59 + [102.0]), {}),
    "values that are no number": lambda: (make_reading(NOW, [0.0] * 59 + [float("nan")]), {}),
    "a start in the future": lambda: (make_reading(NOW, 0.0), {"lastStartedAt": format_time(NOW + timedelta(hours=1))}),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_metrics_that_prove_nothing_are_unknown(case: str) -> None:
    reading, fields = UNKNOWN[case]()
    policy = Policy(rule="idle", window_minutes=fields.pop("_minutes", 60))

    assert judge_idle(reading, policy, **fields) == "unknown"


def test_average_that_contradicts_the_gpus_is_no_proof_of_idleness() -> None:
    reading = make_reading(NOW, 0.0, gpu_average=make_series(HOUR_AGO, SPIKE))

    assert judge_idle(reading) != "broken"


@pytest.mark.parametrize("minutes", [0, 10, 29])
def test_instance_is_not_judged_right_after_a_start(minutes: int) -> None:
    started_at = format_time(NOW - timedelta(minutes=minutes))

    assert judge_idle(make_reading(NOW, 0.0), lastStartedAt=started_at) == "kept"


def test_window_must_lie_after_the_start() -> None:
    started_at = format_time(NOW - timedelta(minutes=45))

    assert judge_idle(make_reading(NOW, 0.0), lastStartedAt=started_at) == "kept"


# --- Lease


def judge_lease(**fields: Any) -> str:
    return str(judge(Policy(rule="lease", max_hours=8), show(**fields), None, NOW).verdict)


@pytest.mark.parametrize(("hours", "verdict"), [(7.99, "kept"), (8, "kept"), (8.01, "broken")])
def test_lease_ends_so_many_hours_after_the_start(hours: float, verdict: str) -> None:
    assert judge_lease(lastStartedAt=format_time(NOW - timedelta(hours=hours))) == verdict


def test_unknown_start_is_no_reason_to_end_a_lease() -> None:
    assert judge_lease(lastStartedAt=None) == "unknown"


# --- Schedule: it is Thursday, 12:00 UTC


def judge_schedule(hours: str, **fields: Any) -> str:
    return str(judge(Policy(rule="schedule", hours=hours, time_zone="UTC"), show(**fields), None, NOW).verdict)


def test_inside_the_hours_all_is_well() -> None:
    assert judge_schedule("Thu 08:00-20:00") == "kept"


def test_running_outside_the_hours_breaks_the_rule() -> None:
    assert judge_schedule("Thu 08:00-11:00") == "broken"


@pytest.mark.parametrize(("minutes", "verdict"), [(59, "kept"), (119, "broken"), (61, "broken")])
def test_start_by_hand_outside_the_hours_gets_a_grace_period(minutes: int, verdict: str) -> None:
    # The hours ended at 11:00: only a start after that was made outside.
    policy = Policy(rule="schedule", hours="Thu 08:00-11:00", time_zone="UTC", hand_start_hours=2)
    started_at = format_time(NOW - timedelta(minutes=minutes))

    assert judge(policy, show(lastStartedAt=started_at), None, NOW).verdict == verdict


def test_start_by_hand_is_judged_again_after_its_grace_period() -> None:
    policy = Policy(rule="schedule", hours="Thu 08:00-11:00", time_zone="UTC", hand_start_hours=0.5)
    started_at = format_time(NOW - timedelta(minutes=31))

    assert judge(policy, show(lastStartedAt=started_at), None, NOW).is_broken


def test_schedule_that_can_not_be_read_stops_nothing() -> None:
    assert judge_schedule("whenever") == "unknown"


# --- Budget


@pytest.mark.parametrize(
    ("limits", "account", "verdict"),
    [
        *(
            ({"max_usd_per_hour": 10}, Account(10.0, None), "kept"),
            ({"max_usd_per_hour": 10}, Account(10.01, None), "broken"),
        ),
        *(
            ({"max_usd_per_hour": 10}, Account(None, 5.0), "unknown"),
            ({"min_runway_hours": 24}, Account(1.0, 24.0), "kept"),
        ),
        *(
            ({"min_runway_hours": 24}, Account(1.0, 23.9), "broken"),
            ({"min_runway_hours": 24}, Account(1.0, None), "unknown"),
        ),
        *(
            ({"max_usd_per_hour": 10}, Account(9.0, None, unknown_prices=1), "unknown"),
            ({"max_usd_per_hour": 10}, Account(11.0, None, unknown_prices=1), "broken"),
            ({"min_runway_hours": 24}, Account(1.0, 30.0, unknown_prices=1), "unknown"),
            ({"min_runway_hours": 24}, Account(1.0, 0.0, unknown_prices=1), "broken"),
        ),
        ({"max_usd_per_hour": 10, "min_runway_hours": 24}, Account(11.0, None), "broken"),
        ({"max_usd_per_hour": 10, "min_runway_hours": 24}, Account(9.0, None), "unknown"),
    ],
)
def test_budget_is_judged_by_what_is_known(limits: dict[str, float], account: Account, verdict: str) -> None:
    assert judge_budget(Policy(rule="budget", **limits), account).verdict == verdict
