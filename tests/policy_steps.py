"""Steps that the tests of policies share: a time that the test drives, metrics of any load, and an evaluation."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.test import override_settings
from django.utils import timezone

from instances.instance import format_time
from instances.models import Finding, Policy, Protection, Snooze
from instances.operations import protections
from instances.policies import evaluation
from instances.policies.evaluation import Facts
from instances.policies.judging import Account as Budget
from instances.policies.watch import Watch
from instances.utilization.reading import Reading, Sample
from tests.novita_answers import Account, make_row

BEGAN = datetime(2026, 1, 15, 12, tzinfo=UTC)
# The last start of a row of Novita's, unless a test changes it.
STARTED = datetime.fromtimestamp(int(make_row()["lastStartedAt"]), UTC)
UPTIME_SECONDS = 3600.0


def make_policy(rule: str = "idle", mode: str = "stop", **fields: Any) -> Policy:
    """Return a stored policy that stops after 30 min of warning, unless the fields say otherwise."""
    needed = {"lease": {"max_hours": 8}, "schedule": {"hours": "Mon-Fri 08:00-20:00", "time_zone": "UTC"}}.get(rule, {})
    return Policy.objects.create(**{"name": f"{rule} machines", "rule": rule, "mode": mode, **needed, **fields})


def make_finding(**fields: Any) -> Finding:
    """Return a stored finding: a warning of the instance `a`, unless the fields say otherwise."""
    policy = fields.pop("policy", None) or make_policy()
    values = {
        "policy": policy,
        "policy_name": policy.name,
        "policy_version": 1,
        "mode": policy.mode,
        "instance_id": "a",
        "name": "train",
        "state": "warned",
        "reason": "No work above 5 % since 17:00.",
        "stops_at": timezone.now().replace(microsecond=0) + timedelta(minutes=20),
        "usd_per_hour": "0.5",
    }
    return Finding.objects.create(**{**values, **fields})


def show(id_: str = "a", **fields: Any) -> dict[str, Any]:
    """Return a running instance with one GPU, as the API shows it, which was started long ago."""
    return {
        "id": id_,
        "name": f"name-{id_}",
        "status": "running",
        "group": "running",
        "region": "US-CA-06 (California)",
        "clusterId": "us-ca-06",
        "productName": "RTX 4090 24GB",
        "gpuNum": 1,
        "billingMode": "onDemand",
        "owner": None,
        "project": None,
        "lastStartedAt": format_time(STARTED),
        "costPerHour": 0.5,
        "prepaid": False,
        **fields,
    }


def make_reading(at: datetime, *gpus: Sequence[float] | float, minutes: int = 60, **fields: Any) -> Reading:
    """Return a reading of the last minutes, a sample a minute; a number stands for a constant load of one GPU."""
    began = at - timedelta(minutes=minutes)
    series = [make_series(began, load if isinstance(load, Sequence) else [load] * minutes) for load in gpus or (0.0,)]
    values = {"read_at": at, "began_at": began, "ended_at": at, "interval_seconds": 60, "gpus": series}
    return Reading(**{**values, **fields})


def make_series(began: datetime, loads: Sequence[float]) -> list[Sample]:
    return [Sample(began + timedelta(minutes=number), load) for number, load in enumerate(loads, 1)]


class Time:
    """A wall clock and a steady clock. `jump` moves the wall clock alone."""

    def __init__(self) -> None:
        self.now = timezone.now().replace(microsecond=0)
        self.steady = 1000.0
        self.watch = self.start_worker()

    def start_worker(self) -> Watch:
        self.watch = Watch(lambda: self.steady)
        self.steady_at_start = self.steady
        return self.watch

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.steady += seconds

    def jump(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def evaluate(
    time: Time,
    *shown: Mapping[str, Any],
    readings: Mapping[str, Reading] | None = None,
    uptime_seconds: float | None = UPTIME_SECONDS,
    is_stale: bool = False,
    budget: Budget | None = None,
) -> bool:
    """Evaluate all policies now, with these instances and metrics; False when it was not this worker's turn."""
    with time.watch.turn(time.now) as at:
        if at is None:
            return False
        facts = Facts(
            at=at,
            listed=None if is_stale else list(shown),
            protected=protections.read(),
            readings=readings or {},
            account=budget or Budget(None, None),
            snoozes=list(Snooze.objects.filter(until__gt=at.now, removed_at=None)),
        )
        uptime_seconds = time.watch.uptime_seconds if uptime_seconds is None else uptime_seconds
        evaluation.evaluate(facts, uptime_seconds=uptime_seconds)

        return True


def watch_for(time: Time, minutes: float, *shown: Mapping[str, Any], load: float = 0.0, **options: Any) -> None:
    """Let the time pass, with fresh metrics of this load.

    An evaluation takes 4 ms. So there are the first one and the last two of one a minute, and between these one in six
    minutes: each counts as much as two of the interval of the settings.
    """
    left = round(minutes)
    while left:
        step = min(6, left - 2) if 3 < left < round(minutes) else 1
        left -= step
        time.pass_seconds(60 * step)
        readings = {one["id"]: make_reading(time.now, *[load] * one["gpuNum"]) for one in shown if one["gpuNum"]}
        with override_settings(POLICIES_EVALUATE_SECONDS=max(60, 30 * step)):
            evaluate(time, *shown, **{"readings": readings, **options})


def find(**fields: Any) -> Finding:
    return Finding.objects.get(**fields)


def list_states() -> dict[str, str]:
    """Return the state of the newest finding of each instance."""
    return {one.instance_id: str(one.state) for one in Finding.objects.order_by("began_at", "pk")}


def protect(id_: str) -> None:
    Protection.objects.update_or_create(instance_id=id_, defaults={"reason": "trains"})


def list_stops(account: Account) -> list[str]:
    return [call.removeprefix("stop ") for call in account.calls if call.startswith("stop ")]
