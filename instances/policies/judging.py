"""What a rule says about one instance at one moment: broken, kept, or unknown. Pure: no clock, no database, no call.

Unknown is never a reason to stop: what is missing, late or contradictory is unknown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain, pairwise
from typing import Any, Final

from instances.instance import format_time, parse_time
from instances.models import Policy
from instances.policies import schedule
from instances.utilization.reading import Reading, Sample

# So much of the window must be covered: a sample stands for one interval at most, however many there are in it.
MIN_COVERAGE: Final = 0.8
# An older reading says nothing about now.
MAX_READING_AGE: Final = timedelta(minutes=30)
# Novita's metrics are about a minute late; the newest sample must not be older than this at the time of the reading.
MAX_LAG: Final = timedelta(minutes=10)
# A time that is further in the future contradicts the clock.
MAX_AHEAD: Final = timedelta(minutes=5)

Shown = Mapping[str, Any]


class Verdict(StrEnum):
    KEPT = "kept"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Judgement:
    """`since` is when the rule was first broken, as far as known."""

    verdict: Verdict
    reason: str
    since: datetime | None = None

    @property
    def is_broken(self) -> bool:
        return self.verdict == Verdict.BROKEN


def kept(reason: str) -> Judgement:
    return Judgement(Verdict.KEPT, reason)


def unknown(reason: str) -> Judgement:
    return Judgement(Verdict.UNKNOWN, reason)


def broken(reason: str, since: datetime | None) -> Judgement:
    return Judgement(Verdict.BROKEN, reason, since)


def judge(policy: Policy, shown: Shown, reading: Reading | None, now: datetime) -> Judgement:
    """Judge a running instance, as the API shows it. A budget is judged for the account: `judge_budget`."""
    started_at = parse_time(shown["lastStartedAt"]) if shown["lastStartedAt"] else None
    if started_at is not None and started_at > now + MAX_AHEAD:
        return unknown("The last start lies in the future: a clock is wrong.")
    match policy.rule:
        case Policy.Rule.IDLE:
            return judge_idle(policy, shown, reading, started_at, now)
        case Policy.Rule.LEASE:
            return judge_lease(policy, started_at, now)
        case Policy.Rule.SCHEDULE:
            return judge_schedule(policy, started_at, now)
    return unknown(f"The rule {policy.rule} is not one for an instance.")


# --- Lease


def judge_lease(policy: Policy, started_at: datetime | None, now: datetime) -> Judgement:
    if started_at is None or policy.max_hours is None:
        return unknown("The time of the last start is not known.")
    ends_at = started_at + timedelta(hours=policy.max_hours)
    if now <= ends_at:
        return kept(f"Its lease ends at {format_time(ends_at)}.")
    return broken(f"Running since {format_time(started_at)}, for more than {policy.max_hours:g} h.", ends_at)


# --- Schedule


def judge_schedule(policy: Policy, started_at: datetime | None, now: datetime) -> Judgement:
    """Judge by the actual state: somebody may start an instance outside the hours, and keeps it for a while."""
    try:
        plan = schedule.read(policy.hours, policy.time_zone, policy.excepted_days)
    except schedule.WrongSchedule as exc:
        return unknown(f"The schedule can't be read: {exc}")
    if plan.is_open(now):
        return kept(f"Inside the allowed hours ({policy.hours} {policy.time_zone}).")
    if started_at is None:
        return unknown("The time of the last start is not known.")
    closed_at = plan.find_last_end(now)
    words = f"Outside the allowed hours ({policy.hours} {policy.time_zone})"
    if closed_at is None or started_at >= closed_at:
        judged_at = started_at + timedelta(hours=policy.hand_start_hours)
        if now < judged_at:
            return kept(
                f"Started at {format_time(started_at)}, outside the allowed hours: judged after "
                f"{policy.hand_start_hours:g} h."
            )
        return broken(f"{words} since its start at {format_time(started_at)}.", judged_at)
    return broken(f"{words} since {format_time(closed_at)}.", closed_at)


# --- Idle


def judge_idle(
    policy: Policy, shown: Shown, reading: Reading | None, started_at: datetime | None, now: datetime
) -> Judgement:
    """Judge by the samples of the last `window_minutes` before the reading: one above the threshold is activity."""
    grace, window = timedelta(minutes=policy.start_grace_minutes), timedelta(minutes=policy.window_minutes)
    if started_at is not None and now < started_at + grace:
        return kept(f"Started at {format_time(started_at)}; judged {policy.start_grace_minutes} min after a start.")
    if started_at is None and grace > window:
        return unknown("The time of the last start is not known.")
    if reading is None:
        return unknown("No metrics have been read.")
    if reading.error:
        return unknown(f"Metrics can't be read: {reading.error}")
    if not -MAX_AHEAD <= now - reading.read_at <= MAX_READING_AGE:
        return unknown(f"The metrics were last read at {format_time(reading.read_at)}.")
    began = reading.ended_at - window
    if reading.began_at > began:
        return unknown("The metrics don't cover the time that the policy judges.")
    if started_at is not None and started_at > began:
        return kept(
            f"Started at {format_time(started_at)}, less than {policy.window_minutes} min before the metrics end."
        )
    series = _choose_series(shown, reading)
    if isinstance(series, str):
        return unknown(series)
    return _judge_samples(series, began, reading, policy.threshold_percent)


def _choose_series(shown: Shown, reading: Reading) -> Sequence[Sequence[Sample]] | str:
    """Return the series that must all be idle, or why it can't be judged."""
    gpu_num = shown["gpuNum"]
    if gpu_num is None:
        return "The number of GPUs is not known."
    if gpu_num == 0:
        return [reading.cpu] if reading.cpu else "No sample of the CPU was sent."
    if len(reading.gpus) != gpu_num:
        return f"{len(reading.gpus)} of {gpu_num} GPUs sent samples."
    return reading.gpus


def _judge_samples(
    series: Sequence[Sequence[Sample]], began: datetime, reading: Reading, threshold: float
) -> Judgement:
    last_active: datetime | None = None
    latest = reading.read_at + MAX_AHEAD
    is_wrong = False
    # The average of the GPUs decides nothing, but it may contradict them.
    for at, value in chain(reading.gpu_average, *series):
        if at < began:
            continue
        if not math.isfinite(value) or not 0 <= value <= 101 or at > latest:
            is_wrong = True
        elif value > threshold:
            last_active = max(last_active or at, at)
    if last_active is not None:
        return kept(f"It worked at {format_time(last_active)}.")
    if is_wrong:
        return unknown("The metrics contain values that are no percentages, or times in the future.")
    # The GPUs of an instance usually have the same times, which are measured once.
    different: list[list[datetime]] = []
    for samples in series:
        found = [at for at, _ in samples if began <= at <= reading.ended_at]
        if found not in different:
            different.append(found)
    times = [sorted(set(one)) for one in different]
    coverage = min(_measure_coverage(one, reading.interval_seconds, reading.ended_at - began) for one in times)
    if coverage < MIN_COVERAGE:
        return unknown(f"{coverage:.0%} of the samples are there; {MIN_COVERAGE:.0%} are needed.")
    newest = min(one[-1] for one in times)
    if reading.read_at - newest > MAX_LAG:
        return unknown(f"The metrics end at {format_time(newest)}, {MAX_LAG.seconds // 60} min and more before now.")
    return broken(f"No work above {threshold:g} % since {format_time(began)}.", began)


def _measure_coverage(times: Sequence[datetime], interval_seconds: int, window: timedelta) -> float:
    """Return how much of the window the samples cover. Many samples of the same minute cover this minute alone."""
    interval = timedelta(seconds=interval_seconds)
    gaps = (min(later - earlier, interval) for earlier, later in pairwise(times))
    return sum(gaps, interval) / window if times else 0.0


# --- Budget


@dataclass(frozen=True)
class Account:
    """What a budget is judged by. None: not known. With unknown prices the rate is a lower bound, the rest an upper."""

    usd_per_hour: float | None
    hours_left: float | None
    unknown_prices: int = 0


def judge_budget(policy: Policy, account: Account) -> Judgement:
    reasons = []
    is_unknown = False
    if policy.max_usd_per_hour is not None:
        if account.usd_per_hour is None:
            is_unknown = True
        elif account.usd_per_hour > policy.max_usd_per_hour:
            reasons.append(f"The burn rate is ${account.usd_per_hour:,.2f}/h, above ${policy.max_usd_per_hour:,.2f}/h.")
    if policy.min_runway_hours is not None:
        if account.hours_left is None:
            is_unknown = True
        elif account.hours_left < policy.min_runway_hours:
            reasons.append(f"The balance lasts {account.hours_left:.1f} h, less than {policy.min_runway_hours:g} h.")
    if reasons:
        return broken(" ".join(reasons), None)
    if is_unknown:
        return unknown("The burn rate or the balance is not known.")
    if account.unknown_prices:
        return unknown(f"The prices of {account.unknown_prices} instances are not known.")
    return kept("Within the budget.")
