"""The life of a policy's findings: warned, due, stopped and verified; and everything that keeps a stop back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from instances.access.audit import Actor
from instances.errors import CacheUnavailable, FindingEnded, InvalidRequest, NameTaken, PolicyChanged
from instances.instance import format_time
from instances.models import Finding, FindingStep, Operation, Policy, Snooze
from instances.operations import emergency
from instances.operations.orders import Wish
from instances.policies import editing, evaluation, snoozing
from instances.policies.judging import Account as Budget
from instances.policies.lifecycle import Moment
from instances.utilization import readings
from tests.inventories import fill_inventory
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import move_on, order, sync
from tests.policy_steps import (
    BEGAN,
    Time,
    evaluate,
    find,
    list_states,
    list_stops,
    make_policy,
    make_reading,
    protect,
    show,
    watch_for,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

ANN = Actor("ann")


@pytest.fixture
def account(novita: NovitaAnswers) -> Account:
    """An account with two running instances, and its inventory."""
    account = novita.holds(make_row("a", name="train"), make_row("b", name="serve"))
    fill_inventory()
    account.calls.clear()
    return account


@pytest.fixture
def time() -> Time:
    return Time()


def verify(account: Account) -> None:
    """Let Novita carry out the stop, and the worker verify it."""
    account.settle()
    operation = Operation.objects.get()
    move_on({"operationId": str(operation.pk)})


# --- Warn, then act


def test_idle_instance_is_warned_of_first(account: Account, time: Time) -> None:
    make_policy()

    evaluate(time, show(), readings={"a": make_reading(time.now, 0.0)})

    finding = find()
    assert finding.state == "warned"
    assert finding.stops_at == time.now + timedelta(minutes=30)
    assert finding.since == time.now - timedelta(hours=1)
    assert "No work above 5 %" in finding.reason
    assert list_stops(account) == []


def test_warned_instance_is_stopped_after_the_grace_period_and_not_before(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 30, show())
    assert list_stops(account) == []

    watch_for(time, 2, show())

    assert list_stops(account) == ["a"]
    assert list_states() == {"a": "stopping"}


def test_stop_is_an_operation_of_the_policy(account: Account, time: Time) -> None:
    make_policy()

    watch_for(time, 32, show())

    operation = Operation.objects.get()
    assert operation.requested_by == "policy:idle machines"
    assert "No work above 5 %" in operation.reason
    assert find().operation_id == operation.pk


def test_finding_is_stopped_when_the_stop_is_verified(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 32, show())
    verify(account)

    watch_for(time, 1)

    assert list_states() == {"a": "stopped"}
    assert find().ended_at is not None


def test_stop_that_failed_is_warned_of_again(account: Account, time: Time) -> None:
    make_policy()
    account.answers("stop a", 500)
    watch_for(time, 32, show())
    Operation.objects.update(deadline_at=BEGAN, next_round_at=BEGAN)
    move_on({"operationId": str(Operation.objects.get().pk)})

    watch_for(time, 1, show())

    finding = find()
    assert finding.state == "warned"
    assert finding.reason.startswith("The stop failed: ")
    assert finding.stops_at == time.now + timedelta(minutes=30)


def test_steps_are_kept_as_a_record(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 32, show())
    verify(account)
    watch_for(time, 1)

    assert [step.state for step in FindingStep.objects.all()] == ["warned", "due", "stopping", "stopped"]


@pytest.mark.parametrize("mode", ["observe", "notify"])
def test_other_modes_record_what_a_stop_would_do_and_stop_nothing(mode: str, account: Account, time: Time) -> None:
    make_policy(mode=mode)

    watch_for(time, 90, show())

    finding = find()
    assert finding.state == "due"
    assert finding.usd_per_hour == pytest.approx(0.5)
    assert list_stops(account) == []


# --- What ends or suspends a warning


def test_work_clears_a_warning(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 29, show())

    watch_for(time, 1, show(), load=50)

    finding = find()
    assert finding.state == "cleared"
    assert finding.reason.startswith("It worked at ")


def test_work_begins_the_grace_period_anew(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 29, show())
    watch_for(time, 1, show(), load=50)

    watch_for(time, 30, show())

    assert list_stops(account) == []


def test_unknown_begins_the_grace_period_anew(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 29, show())
    time.pass_seconds(60)
    evaluate(time, show(), readings={})
    assert list_states() == {"a": "unknown"}

    watch_for(time, 30, show())

    assert list_stops(account) == []
    assert list_states() == {"a": "warned"}


def test_stale_inventory_stops_nothing(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 30, show())

    watch_for(time, 60, show(), is_stale=True)

    assert list_stops(account) == []
    assert list_states() == {"a": "unknown"}


def test_instance_that_no_longer_runs_clears_its_warning(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 10, show())

    watch_for(time, 1, show(status="exited", group="stopped"))

    assert list_states() == {"a": "cleared"}


def test_protected_instance_is_not_judged(account: Account, time: Time) -> None:
    make_policy()
    protect("a")

    watch_for(time, 60, show(), show("b"))

    assert list_stops(account) == ["b"]


def test_protection_ends_a_warning(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 29, show())
    protect("a")

    watch_for(time, 10, show())

    assert list_stops(account) == []
    assert find().reason == "Protected: trains"


@pytest.mark.parametrize(
    "fields",
    [
        *({"name_pattern": "serve-*"}, {"region": "EU-DE-01"}, {"gpu": "H100"}, {"owner": "bob"}, {"project": "x"}),
        {"billing_mode": "spot"},
    ],
    ids=str,
)
def test_policy_leaves_other_instances_alone(fields: dict[str, str], account: Account, time: Time) -> None:
    make_policy(**fields)

    watch_for(time, 40, show(owner="ann", project="llm"))

    assert list_states() == {}


def test_policy_applies_to_what_matches_all_of_its_fields(account: Account, time: Time) -> None:
    make_policy(
        name_pattern="NAME-?", region="us-ca-06", gpu="rtx", owner="Ann", project="llm", billing_mode="onDemand"
    )

    watch_for(time, 2, show(owner="ann", project="llm"))

    assert list_states() == {"a": "warned"}


# --- Changes of a policy


def test_changed_policy_begins_with_a_warning(account: Account, time: Time) -> None:
    policy = make_policy(mode="observe")
    watch_for(time, 40, show())
    assert list_states() == {"a": "due"}
    policy.mode = "stop"
    editing.save(policy, actor=ANN)

    watch_for(time, 30, show())

    assert list_stops(account) == []
    assert list_states() == {"a": "warned"}


@pytest.mark.parametrize("end", ["switched off", "deleted"])
def test_policy_that_is_gone_stops_nothing(end: str, account: Account, time: Time) -> None:
    policy = make_policy()
    watch_for(time, 30, show())
    if end == "deleted":
        editing.delete(policy, actor=ANN)
    else:
        policy.is_on = False
        editing.save(policy, actor=ANN)

    watch_for(time, 60, show())

    assert list_stops(account) == []
    assert list_states() == {"a": "cleared"}


# --- Guards


def test_service_that_has_just_started_stops_nothing(account: Account, time: Time) -> None:
    make_policy(warning_minutes=5)

    watch_for(time, 14, show(), uptime_seconds=None)

    assert list_stops(account) == []
    assert find().obstacle == "Not stopped yet: the service has just started."
    watch_for(time, 2, show(), uptime_seconds=None)
    assert list_stops(account) == ["a"]


def test_setting_switches_all_acting_off(account: Account, time: Time, settings: Settings) -> None:
    settings.POLICIES = False
    make_policy()

    watch_for(time, 60, show())

    assert list_stops(account) == []
    assert find().obstacle == "Not stopped: acting is switched off."


def test_what_was_due_while_acting_was_off_is_stopped_after_a_new_warning(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 30, show())
    editing.switch(is_off=True, actor=ANN)
    watch_for(time, 10, show())
    assert list_stops(account) == []

    editing.switch(is_off=False, actor=ANN)
    watch_for(time, 29, show())
    assert list_stops(account) == []
    assert find().state == "warned"

    watch_for(time, 2, show())
    assert list_stops(account) == ["a"]


def test_no_more_than_the_hourly_limit_is_stopped(account: Account, time: Time) -> None:
    make_policy(max_stops_per_hour=1)

    watch_for(time, 60, show(), show("b"))

    assert len(list_stops(account)) == 1
    (held,) = Finding.objects.filter(state="due")
    assert held.obstacle.startswith("Not stopped: this policy may stop 1 instances an hour.")


def test_limit_frees_after_an_hour(account: Account, time: Time) -> None:
    make_policy(max_stops_per_hour=1)
    watch_for(time, 32, show(), show("b"))

    watch_for(time, 60, show(), show("b"))

    assert sorted(set(list_stops(account))) == ["a", "b"]


def test_metrics_are_fresh_before_a_stop(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 24, show())
    old = make_reading(time.now, 0.0)
    for _ in range(12):
        time.pass_seconds(60)
        evaluate(time, show(), readings={"a": old})

    assert list_stops(account) == []
    assert find().obstacle == "Not stopped yet: its metrics are read once more."


# --- Clocks and workers


def test_clock_set_forward_shortens_no_grace_period(account: Account, time: Time) -> None:
    make_policy("lease", max_hours=1)
    watch_for(time, 5, show())

    time.jump(3600)
    watch_for(time, 5, show())

    assert list_stops(account) == []


def test_clock_set_back_delays_a_stop_by_one_evaluation_at_most(account: Account, time: Time) -> None:
    make_policy("lease", max_hours=1)
    watch_for(time, 5, show())

    time.jump(-3600)
    watch_for(time, 28, show())

    assert list_stops(account) == ["a"]


def test_time_without_a_worker_is_no_part_of_the_grace_period(account: Account, time: Time) -> None:
    make_policy("lease", max_hours=1)
    watch_for(time, 5, show())
    time.pass_seconds(8 * 3600)
    time.start_worker()

    watch_for(time, 10, show())

    assert list_stops(account) == []
    assert list_states() == {"a": "warned"}


def test_second_worker_does_not_evaluate_at_the_same_time(account: Account, time: Time) -> None:
    make_policy()
    first = time.watch
    with first.turn(time.now) as at:
        assert at is not None
        time.start_worker()
        assert not evaluate(time, show())


def test_worker_that_was_killed_holds_the_turn_for_two_minutes(account: Account, time: Time) -> None:
    make_policy()
    turn = time.watch.turn(time.now)
    turn.__enter__()
    time.start_worker()
    time.pass_seconds(119)
    assert not evaluate(time, show())

    time.pass_seconds(2)

    assert evaluate(time, show())


def test_stop_of_a_worker_that_was_killed_is_warned_of_again(account: Account, time: Time) -> None:
    # It has marked the finding, and died before the operation began.
    make_policy()
    watch_for(time, 20, show())
    Finding.objects.update(state="stopping", stopping_watch=0, operation_id="0" * 32)

    watch_for(time, 3, show())

    assert list_states() == {"a": "warned"}
    assert find().reason == "The stop failed: The stop did not begin: its worker ended."


def test_time_without_redis_is_no_part_of_the_grace_period(account: Account, time: Time) -> None:
    make_policy("lease", max_hours=1)
    watch_for(time, 5, show())
    for _ in range(60):
        time.pass_seconds(60)
        with pytest.raises(CacheUnavailable), time.watch.turn(time.now):
            raise CacheUnavailable

    watch_for(time, 23, show())
    assert list_stops(account) == []

    watch_for(time, 3, show())
    assert list_stops(account) == ["a"]


# --- Snoozes


def test_snoozed_instance_is_not_stopped(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 29, show())
    snoozing.snooze(find(), time.now + timedelta(hours=4), "training", actor=ANN)

    watch_for(time, 60, show())

    assert list_stops(account) == []
    assert list_states() == {"a": "snoozed"}


def test_snooze_that_has_ended_is_followed_by_a_warning(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 29, show())
    snoozing.snooze(find(), time.now + timedelta(hours=1), "", actor=ANN)

    watch_for(time, 85, show())

    assert list_stops(account) == []
    assert list_states() == {"a": "warned"}


def test_snooze_outlives_the_work_of_the_instance(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 5, show())
    snoozing.snooze(find(), time.now + timedelta(hours=9), "", actor=ANN)
    watch_for(time, 1, show(), load=90)

    watch_for(time, 60, show())

    assert list_states() == {"a": "snoozed"}


def test_requested_stop_can_not_be_snoozed(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 32, show())

    with pytest.raises(FindingEnded):
        snoozing.snooze(find(), time.now + timedelta(hours=1), "", actor=ANN)

    assert not Snooze.objects.exists()


@pytest.mark.parametrize("days", [-1, 367])
def test_snooze_ends_within_a_year(days: int, account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 1, show())

    with pytest.raises(InvalidRequest):
        snoozing.snooze(find(), time.now + timedelta(days=days), "", actor=ANN)


# --- Budgets


def test_budget_warns_of_the_account(account: Account, time: Time) -> None:
    make_policy("budget", mode="notify", max_usd_per_hour=10)

    watch_for(time, 2, show(costPerHour=12.0), budget=Budget(12.0, None))

    finding = find()
    assert finding.instance_id == ""
    assert finding.reason == "The burn rate is $12.00/h, above $10.00/h."


def test_budget_that_nobody_confirmed_stops_nothing(account: Account, time: Time) -> None:
    make_policy("budget", max_usd_per_hour=10)

    watch_for(time, 60, show(costPerHour=12.0), budget=Budget(12.0, None))

    assert list_stops(account) == []
    assert find().obstacle == "Not stopped: no admin has confirmed that this budget may stop instances."


def test_confirmed_budget_stops_the_most_expensive_until_it_is_kept(account: Account, time: Time) -> None:
    policy = make_policy("budget", max_usd_per_hour=10)
    editing.confirm_stop(policy, "budget machines", actor=ANN)

    watch_for(time, 33, show(costPerHour=9.0), show("b", costPerHour=3.0), budget=Budget(12.0, None))

    assert list_stops(account) == ["a"]


def test_budget_stops_no_instance_that_was_started_after_the_warning(account: Account, time: Time) -> None:
    policy = make_policy("budget", max_usd_per_hour=10)
    editing.confirm_stop(policy, "budget machines", actor=ANN)
    watch_for(time, 20, show(costPerHour=9.0), show("b", costPerHour=3.0), budget=Budget(12.0, None))
    newer = show(costPerHour=9.0, lastStartedAt=format_time(time.now))

    watch_for(time, 13, newer, show("b", costPerHour=3.0), budget=Budget(12.0, None))

    assert list_stops(account) == ["b"]


def test_budget_warns_again_when_all_that_costs_was_started_after_the_warning(account: Account, time: Time) -> None:
    policy = make_policy("budget", max_usd_per_hour=10)
    editing.confirm_stop(policy, "budget machines", actor=ANN)
    watch_for(time, 20, show(costPerHour=12.0), budget=Budget(12.0, None))
    newer = show(costPerHour=12.0, lastStartedAt=format_time(time.now))

    watch_for(time, 13, newer, budget=Budget(12.0, None))

    assert list_stops(account) == []
    assert find().state == "warned"


def test_budget_stops_nothing_whose_start_is_unknown(account: Account, time: Time) -> None:
    policy = make_policy("budget", max_usd_per_hour=10)
    editing.confirm_stop(policy, "budget machines", actor=ANN)

    watch_for(time, 33, show(costPerHour=12.0, lastStartedAt=None), budget=Budget(12.0, None))

    assert list_stops(account) == []


def test_budget_that_was_changed_meanwhile_is_not_confirmed(account: Account) -> None:
    seen = make_policy("budget", max_usd_per_hour=10)
    changed = Policy.objects.get()
    changed.max_usd_per_hour = 1
    editing.save(changed, actor=Actor("bob"))

    with pytest.raises(PolicyChanged):
        editing.confirm_stop(seen, "budget machines", actor=ANN)

    assert Policy.objects.get().max_usd_per_hour == 1
    assert Policy.objects.get().stop_confirmed_by == ""


@pytest.mark.parametrize("typed", ["", "budget", "Budget machines"])
def test_budget_is_confirmed_by_its_exact_name(typed: str, account: Account) -> None:
    policy = make_policy("budget", max_usd_per_hour=10)

    with pytest.raises(InvalidRequest):
        editing.confirm_stop(policy, typed, actor=ANN)

    policy.refresh_from_db()
    assert policy.stop_confirmed_by == ""


def test_changed_budget_must_be_confirmed_again(account: Account) -> None:
    policy = make_policy("budget", max_usd_per_hour=10)
    editing.confirm_stop(policy, "budget machines", actor=ANN)
    policy.max_usd_per_hour = 1

    assert editing.save(policy, actor=ANN).stop_confirmed_by == ""


def test_change_does_not_undo_a_change_that_was_made_meanwhile(account: Account) -> None:
    renamed = make_policy(mode="stop")
    calmed = Policy.objects.get()
    calmed.mode = "observe"
    editing.save(calmed, actor=ANN)
    renamed.name = "renamed"

    with pytest.raises(PolicyChanged):
        editing.save(renamed, actor=Actor("bob"))

    assert Policy.objects.get().mode == "observe"


def test_change_does_not_bring_back_a_deleted_policy(account: Account) -> None:
    policy = make_policy(mode="stop")
    editing.delete(Policy.objects.get(), actor=ANN)

    with pytest.raises(PolicyChanged):
        editing.save(policy, actor=Actor("bob"))

    assert not Policy.objects.exists()


# --- Validation


@pytest.mark.parametrize(
    ("rule", "fields", "wrong"),
    [
        *(("lease", {}, "max_hours"), ("lease", {"max_hours": 0}, "max_hours"), ("budget", {}, "max_usd_per_hour")),
        *(("schedule", {}, "hours"), ("schedule", {"hours": "Mon-Fri 08:00-20:00", "time_zone": "X"}, "time_zone")),
        *(("idle", {"threshold_percent": 101}, "threshold_percent"), ("idle", {"window_minutes": 5}, "window_minutes")),
        *(("idle", {"warning_minutes": 0}, "warning_minutes"), ("idle", {"name": " "}, "name")),
        *(
            ("idle", {"max_stops_per_hour": 0}, "max_stops_per_hour"),
            ("lease", {"max_hours": float("nan")}, "max_hours"),
        ),
    ],
)
def test_wrong_policy_is_refused_by_field(rule: str, fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        editing.save(Policy(**{"name": "p", "rule": rule, **fields}), actor=ANN)

    assert wrong in refused.value.fields
    assert not Policy.objects.exists()


def test_second_policy_of_a_name_is_refused() -> None:
    make_policy(name="p")

    with pytest.raises(NameTaken):
        editing.save(Policy(name="p", rule="idle"), actor=ANN)


def test_lease_counts_from_the_last_start(account: Account, time: Time) -> None:
    make_policy("lease", max_hours=1)

    watch_for(time, 50, show(lastStartedAt=format_time(time.now)))

    assert list_states() == {}


def test_instance_that_somebody_is_stopping_is_not_stopped_twice(client: Client, account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 30, show())
    order(client)

    watch_for(time, 2, show())

    assert sorted(list_stops(account)) == ["a", "b"]
    assert list_states() == {"a": "stopping"}


# --- One run of an instance


def restart_elsewhere(account: Account, id_: str = "a") -> str:
    """Stop and start an instance in Novita's console; return its new start, as the API shows it."""
    seconds = int(timezone.now().timestamp()) + 1
    account.change(id_, "running", lastStartedAt=str(seconds))
    return format_time(datetime.fromtimestamp(seconds, UTC))


def test_run_that_began_after_the_last_listing_is_not_stopped(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 30, show())
    restart_elsewhere(account)

    watch_for(time, 2, show())

    assert list_stops(account) == []
    assert list_states() == {"a": "cleared"}
    assert find().reason == "It was started again after the policy had judged it."


def test_run_that_began_while_the_stop_waits_is_not_stopped(account: Account, time: Time) -> None:
    make_policy()
    account.answers("stop a", 500)
    watch_for(time, 32, show())
    account.calls.clear()
    restart_elsewhere(account)

    move_on({"operationId": str(Operation.objects.get().pk)})

    assert list_stops(account) == []
    assert Operation.objects.get().targets.get().state == "skipped"


def test_run_that_began_after_an_accepted_stop_is_not_stopped_again(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 32, show())
    restart_elsewhere(account)

    move_on({"operationId": str(Operation.objects.get().pk)})
    watch_for(time, 1, show())

    assert list_stops(account) == ["a"]
    assert list_states() == {"a": "cleared"}


def test_instance_that_is_starting_is_not_stopped(account: Account, time: Time) -> None:
    make_policy()
    watch_for(time, 30, show())
    account.change("a", "toStart")

    watch_for(time, 2, show())

    assert list_stops(account) == []
    assert find().reason == "It is starting, and no longer running as the policy had judged it."


def test_newer_start_ends_a_warning(account: Account, time: Time) -> None:
    make_policy("lease", max_hours=0.1)
    watch_for(time, 29, show())
    started = restart_elsewhere(account)

    watch_for(time, 1, show(lastStartedAt=started))
    assert find().reason == "It was started again."

    watch_for(time, 30, show(lastStartedAt=started))
    assert list_stops(account) == []


def test_policy_stops_nothing_that_novita_does_not_show_now(account: Account, time: Time) -> None:
    make_policy()
    account.answers("read a", 500)

    watch_for(time, 32, show())

    assert list_stops(account) == []
    assert list_states() == {"a": "warned"}
    assert find().reason.startswith("The stop failed: ")


def test_stop_that_waits_is_not_sent_while_the_instance_can_not_be_read(account: Account, time: Time) -> None:
    make_policy()
    account.answers("stop a", 500)
    watch_for(time, 32, show())
    account.answers("read a", 500)
    account.calls.clear()

    move_on({"operationId": str(Operation.objects.get().pk)})

    assert list_stops(account) == []


def test_run_that_began_during_a_stop_of_everything_is_not_stopped_by_a_policy(
    client: Client, account: Account, time: Time
) -> None:
    make_policy()
    watch_for(time, 30, show())
    order(client)
    restart_elsewhere(account)

    watch_for(time, 2, show())

    assert list_stops(account).count("a") == 1


# --- Stops that are not requested yet


def test_switching_off_cancels_the_stops_that_are_not_requested_yet(account: Account, time: Time) -> None:
    make_policy()
    account.answers("stop a", (429, {"Retry-After": "3600"}, ""))
    watch_for(time, 32, show(), show("b"))
    assert list_stops(account).count("b") == 1
    account.answers("stop a", None)

    _, cancelled = editing.switch(is_off=True, actor=ANN)

    assert cancelled == 1
    account.calls.clear()
    verify(account)
    watch_for(time, 1, show())
    assert list_stops(account) == []
    assert Finding.objects.get(instance_id="b").state == "stopped"
    assert Finding.objects.filter(instance_id="a", state="stopping").count() == 0


def test_stop_that_began_as_policies_were_switched_off_requests_nothing(
    account: Account, time: Time, settings: Settings
) -> None:
    make_policy()
    account.answers("stop a", (429, {"Retry-After": "3600"}, ""))
    watch_for(time, 32, show())
    account.answers("stop a", None)
    account.calls.clear()
    settings.POLICIES = False

    move_on({"operationId": str(Operation.objects.get().pk)})

    assert list_stops(account) == []
    assert Operation.objects.get().targets.get().error == "Policies were switched off before a stop was requested."


@pytest.mark.parametrize("change", ["edit", "delete"])
def test_change_of_a_policy_cancels_its_stops_that_are_not_requested_yet(
    change: str, account: Account, time: Time
) -> None:
    policy = make_policy()
    account.answers("stop a", (429, {"Retry-After": "3600"}, ""))
    watch_for(time, 32, show())

    editing.delete(policy, actor=ANN) if change == "delete" else editing.save(policy, actor=ANN)

    assert Operation.objects.get().state == "cancelled"


@pytest.mark.parametrize("change", ["switch off", "edit", "delete"])
def test_change_of_a_policy_just_before_its_stop_begins_lets_it_request_nothing(
    change: str, account: Account, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy()

    def begin(wish: Wish, seconds: float) -> Any:
        if change == "switch off":
            policy.is_on = False
        editing.delete(policy, actor=ANN) if change == "delete" else editing.save(policy, actor=ANN)
        return run_and_answer(wish, seconds)

    run_and_answer = emergency.run_and_answer
    monkeypatch.setattr(emergency, "run_and_answer", begin)

    watch_for(time, 31, show())

    assert Operation.objects.exists()
    assert list_stops(account) == []


def test_policies_cancel_no_stop_of_a_person(client: Client, account: Account, time: Time) -> None:
    account.answers("stop a", (429, {"Retry-After": "3600"}, ""))
    order(client)

    editing.switch(is_off=True, actor=ANN)

    assert Operation.objects.get().state != "cancelled"


# --- Many instances


def test_evaluation_asks_the_database_and_redis_as_often_for_12_instances_as_for_2(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, sent = redis.Redis.execute_command, []

    def note(self: redis.Redis, *args: Any, **options: Any) -> Any:
        sent.append(args[0])
        return execute(self, *args, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", note)
    now = timezone.now()

    def count(number: int) -> list[int]:
        """Return the queries and commands of an evaluation that warns of all, and of the next one."""
        Finding.objects.all().delete()
        account.rows.clear()
        for one in range(number):
            account.change(f"{one}", "running")
            readings.write(f"{one}", make_reading(now, 0.0))
        sync(client, account)
        counts = []
        for watch in (0, 30):
            sent.clear()
            with CaptureQueriesContext(connection) as queries:
                evaluation.evaluate(evaluation.read_facts(Moment(now, watch)), uptime_seconds=3600)
            counts += [len(queries), len(sent)]
        assert Finding.objects.filter(state="warned").count() == 3 * number
        return counts

    today = f"{now:%Y-%m-%d}..{now + timedelta(days=1):%Y-%m-%d}"
    for rule in ("idle", "lease", "schedule"):
        make_policy(rule, mode="observe", excepted_days=today)

    # SQLite takes the 36 findings of 12 instances in one statement.
    assert count(12) == count(2)
