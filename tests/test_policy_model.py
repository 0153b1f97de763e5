"""A model of the policies over random loads, gaps, clock jumps, restarted workers, edits, snoozes and protections.

The model counts in true seconds, which no clock of the service shows.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from instances.access.audit import Actor
from instances.instance import format_time
from instances.models import AuditEntry, Finding, FindingStep, Operation, Policy, Protection, Snooze
from instances.models.policy import EvaluationState
from instances.policies import editing, snoozing
from instances.utilization.reading import Reading
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import move_on, sync
from tests.policy_steps import Time, evaluate, make_policy, make_reading, protect, show

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

ANN = Actor("ann")
IDS = ("a", "b", "c")
GRACE_SECONDS = 4 * 60
LIMIT = 6
LOADS = (*["idle"] * 12, "busy", "missing", *["nonsense"] * 3, "late", "one GPU busy")
EVENTS = (
    "snooze",
    "protect",
    "edit",
    "restart worker",
    "start again",
    "start again",
    "stale",
    "jump ahead",
    "jump ahead",
    "jump back",
    "switch off",
    "switch on",
    "switch on",
)

steps = st.lists(
    st.tuples(
        st.integers(1, 8),
        st.tuples(*[st.sampled_from(LOADS)] * len(IDS)),
        st.sampled_from((None, *EVENTS)),
        st.sampled_from(IDS),
    ),
    min_size=12,
    max_size=16,
)


@dataclass
class Model:
    """What is true: since when each instance could be stopped, and when each stop was requested."""

    time: Time
    policy: Policy
    # Instance → the true second of its present warning.
    warned: dict[str, float] = field(default_factory=dict)
    stops: list[float] = field(default_factory=list)
    is_off: bool = False
    is_stale: bool = False

    @property
    def now(self) -> float:
        return self.time.steady


def read(load: str, time: Time) -> Reading | None:
    now = time.now
    return {
        "idle": make_reading(now, 0.0, 0.0),
        "busy": make_reading(now, 90.0, 90.0),
        "one GPU busy": make_reading(now, 0.0, [0.0] * 59 + [90.0]),
        "missing": None,
        "nonsense": make_reading(now, 0.0, [float("nan")] * 60),
        "late": make_reading(now - timedelta(minutes=40), 0.0, 0.0),
    }[load]


def happen(event: str | None, id_: str, model: Model, account: Account) -> None:
    finding = Finding.objects.filter(instance_id=id_, ended_at=None).exclude(state="stopping").first()
    model.is_stale = event == "stale"
    match event:
        case "snooze" if finding:
            # The service's clock is not set back for a snooze.
            until = max(model.time.now, timezone.now()) + timedelta(hours=3)
            snoozing.snooze(finding, until, "", actor=ANN)
        case "protect":
            protect(id_)
        case "edit":
            model.policy.max_stops_per_hour = LIMIT
            editing.save(model.policy, actor=ANN)
            model.warned.clear()
        case "restart worker":
            model.time.start_worker()
        case "start again" if account.rows[id_]["status"] == "running":
            # Long before the window, so that the new run is judged as idle, too.
            account.change(id_, "running", lastStartedAt=str(int(account.rows[id_]["lastStartedAt"]) + 60))
            model.warned.pop(id_, None)
        case "jump ahead":
            model.time.jump(7200)
        case "jump back":
            model.time.jump(-7200)
        case "switch off" | "switch on":
            editing.switch(is_off=event == "switch off", actor=ANN)
            model.is_off = event == "switch off"


def check(model: Model, account: Account, loads: dict[str, str], seen: int) -> None:
    """Compare what the evaluation did with what is true."""
    stopped = [call.removeprefix("stop ") for call in account.calls[seen:] if call.startswith("stop ")]
    for id_ in stopped:
        assert id_ in model.warned, f"{id_} was stopped without a warning"
        assert model.now - model.warned[id_] >= GRACE_SECONDS, f"{id_} was stopped too early"
        assert loads[id_] == "idle", f"{id_} was stopped while its load was {loads[id_]}"
        assert not Protection.objects.filter(instance_id=id_).exists(), f"{id_} is protected"
        in_force = Snooze.objects.filter(instance_id=id_, removed_at=None, until__gt=model.time.now)
        assert not in_force.exists(), f"{id_} is snoozed"
        assert not model.is_off, "acting is switched off"
        assert not model.is_stale, "the inventory is stale"
        model.stops.append(model.now)
    recent = [second for second in model.stops if second > model.now - 3600]
    assert len(recent) <= LIMIT, "more were stopped than the hourly limit allows"

    states = dict(Finding.objects.filter(ended_at=None).values_list("instance_id", "state"))
    for id_, load in loads.items():
        if load in ("busy", "one GPU busy") and not model.is_stale:
            assert states.get(id_, "stopping") == "stopping", f"work did not clear the warning of {id_}"
        if states.get(id_) not in ("warned", "due", "stopping"):
            model.warned.pop(id_, None)
        elif states[id_] == "warned":
            model.warned.setdefault(id_, model.now)


def start_stopped(account: Account) -> None:
    """Let the worker verify all stops, and people start what was stopped."""
    account.settle()
    for operation in Operation.objects.filter(finished_at=None):
        move_on({"operationId": str(operation.pk)})
    for id_, row in account.rows.items():
        if row["status"] == "exited":
            account.change(id_, "running", lastStartedAt=str(int(row["lastStartedAt"]) + 60))


def forget_all() -> None:
    for record in (Finding, Policy, Operation, Protection, Snooze, AuditEntry, EvaluationState):
        record.objects.all().delete()


# A failure is not shrunk: that would take minutes. On PostgreSQL, a busy machine needs more than two.
@pytest.mark.thorough
@pytest.mark.timeout(600)
@settings(
    max_examples=8,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_policy_never_stops_without_cause(
    steps: list[Any], client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(django_settings, "POLICIES_START_MINUTES", 0)
    forget_all()
    account = account_of(novita, client)
    time = Time()
    policy = make_policy(warning_minutes=GRACE_SECONDS // 60, max_stops_per_hour=LIMIT, start_grace_minutes=0)
    model = Model(time, policy)
    for minutes, chosen, event, id_ in steps:
        loads = dict(zip(IDS, chosen, strict=True))
        start_stopped(account)
        # The listing is as old as the step: it doesn't show what is started during the step.
        starts = {one: account.rows[one]["lastStartedAt"] for one in IDS}
        happen(event, id_, model, account)
        for _ in range(minutes):
            time.pass_seconds(60)
            seen = len(account.calls)
            running = [
                show(one, gpuNum=2, lastStartedAt=format_time(datetime.fromtimestamp(int(starts[one]), UTC)))
                for one in IDS
                if account.rows[one]["status"] == "running"
            ]
            readings = {one: reading for one in IDS if (reading := read(loads[one], time))}
            if evaluate(time, *running, readings=readings, is_stale=model.is_stale):
                check(model, account, {one["id"]: loads[one["id"]] for one in running}, seen)
    assert FindingStep.objects.count() >= Finding.objects.count()


_accounts: dict[int, Account] = {}


def account_of(novita: NovitaAnswers, client: Client) -> Account:
    """Return the account of this test, with all instances running again."""
    account = _accounts.get(id(novita))
    if account is None:
        account = _accounts[id(novita)] = novita.holds(*[make_row(one) for one in IDS])
        sync(client, account)
    for one in IDS:
        account.change(one, "running")
    account.calls.clear()
    return account
