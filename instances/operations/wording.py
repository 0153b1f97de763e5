"""Every sentence about an operation and its targets. The API, the commands, the records, the webhooks and the page all
show these sentences; only times and live counts are added elsewhere.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from instances.errors import CacheUnavailable, InstanceNotFound, InvalidStateChange, NovitaError
from instances.instance import (
    GROUPS,
    REMOVED_STATUS,
    STATUSES,
    ActionName,
    Instance,
    Meaning,
    format_time,
    get_meaning,
    get_status,
)
from instances.models import Operation, Protection, StartFreeze, Target

NOT_KNOWN: Final = "It is not known whether anything is running."
NOT_ALL_KNOWN: Final = (
    "Novita could not be listed completely: more instances may be running, and no stop is requested for them yet."
)
STILL_READING: Final = "The account is still being read."
CANCELLED_MEANWHILE: Final = "The operation was cancelled meanwhile."
NEVER_BEGAN: Final = "The process ended before anything was requested."
ABANDONED: Final = "Abandoned: no worker was running."
REPLACED: Final = "Replaced by a newer operation."
DATABASE_FAILED: Final = "The database failed while this operation ran."

DATA_MAY_BE_LOST: Final = "Data on local disks may be lost; Novita keeps it for up to 7 days."
MAY_NOT_START: Final = "A stopped instance may not start again: its GPU can be taken meanwhile."
RESTART_ENDS_JOBS: Final = "A restart ends all jobs on the instances."
NO_WORKER: Final = (
    "No worker is running: stops are requested, but not verified. Start one: celery -A novita_site worker"
)
NO_NEW_WEBHOOK: Final = "Your webhook is not called: an operation that is already running takes no new webhook."

PROTECTIONS_NOT_KNOWN: Final = (
    "Which instances are protected is not known: the database can't be read, and there is no copy of the protections. "
    "Protected instances are stopped, too."
)
NOT_KEPT: Final = (
    "The operation could not be kept in Redis or in FALLBACK_DIR either: its record is lost if this process ends "
    "before the database can be written."
)

OPPOSED: Final = "Cancelled by a later stop."
ANOTHER_RUN: Final = "It was started again after the policy had judged it."
POLICIES_OFF: Final = "Policies were switched off before a stop was requested."
POLICY_CHANGED: Final = "The policy was changed before a stop was requested."
NO_LONGER_EXISTS: Final = "No longer exists."
NOT_AT_NOVITA: Final = "Not found at Novita."

_DONE: Final = {"stop": "stopped", "start": "running", "restart": "restarted"}
_PAST: Final = {"stop": "stopped", "start": "started", "restart": "restarted"}
_ALL_DONE: Final = {
    "stop": ("The instance is stopped.", "All {} are stopped."),
    "start": ("The instance is running.", "All {} are running."),
    "restart": ("The instance has restarted.", "All {} have restarted."),
}
# Labels of statuses that read differently after "it is".
_PHRASES: Final = {
    "Pending": "being created",
    "Creating": "being created",
    "Pulling image": "pulling its image",
    "Resetting": "being reset",
    "Removing": "being removed",
    "Freezing": "being frozen",
    "Migrating": "being migrated",
    "Unknown": "in an unknown status",
}


def say_frozen(freeze: StartFreeze) -> str:
    """Return why nothing is started: "Starts are frozen until 2026-01-15T18:00:00Z by ann: budget spent"."""
    return f"Starts are frozen {say_until(freeze)} by {freeze.frozen_by or 'an admin'}: {freeze.reason}"


def say_until(freeze: StartFreeze) -> str:
    return f"until {format_time(freeze.ends_at)}" if freeze.ends_at else "until somebody removes the freeze"


def say_another_run(instance: Instance) -> str:
    """Return why a policy does not stop an instance that is no longer in the run that the policy has judged."""
    if instance.group == "running":
        return ANOTHER_RUN
    return f"It is {say_status(instance.status)}, and no longer running as the policy had judged it."


def say_status(status: str) -> str:
    """Return what a status means, to follow "it is": "being created"."""
    if status not in STATUSES:
        return f"in status {status}"
    label = STATUSES[status].label
    return _PHRASES.get(label, label.lower())


# --- A target


def say_target(operation: Operation, target: Target) -> str:
    """Return the one sentence on a target; never empty."""
    kind, is_running = operation.kind, operation.finished_at is None
    is_cancelled = operation.state == Operation.State.CANCELLED
    match target.state:
        case Target.State.FAILED if is_running and not is_cancelled and target.is_open and not target.is_exhausted:
            return f"{target.error} Retrying."
        case _ if target.error:
            return target.error
        case Target.State.PENDING:
            return "Queued." if is_running and not is_cancelled else "Not requested."
        case Target.State.REQUESTED if not target.attempts:
            # Unless it runs again: then the next round requests it.
            is_under_way = kind in get_meaning(target.status).under_way
            return f"Already {say_status(target.status)}." if is_under_way else "Queued."
        case Target.State.REQUESTED:
            return f"{kind.capitalize()} requested; not yet {_DONE[kind]}."
        case Target.State.CONFIRMED if target.status == REMOVED_STATUS:
            return "Removed (verified)."
        case Target.State.CONFIRMED if not target.attempts:
            return f"Already {_DONE[kind]}."
        case Target.State.CONFIRMED:
            return f"{_DONE[kind].capitalize()} (verified)."
    return f"{target.get_state_display().capitalize()}."


def say_planned(operation: Operation, target: Target) -> str:
    """Return the sentence on a target of a dry run."""
    if target.state == Target.State.PENDING:
        return f"Would be {_PAST[operation.kind]}."
    return say_target(operation, target)


def say_protected(protection: Protection) -> str:
    return f"Protected: {protection.reason}"


def say_impossible(kind: str, status: str, subject: str = "") -> str:
    """Say that an action is not possible: "Can't be stopped while it is being created."."""
    start = f"{subject} can't" if subject else "Can't"
    return f"{start} be {_PAST[kind]} while it is {say_status(status)}."


def say_cancelled(kind: str) -> str:
    return f"Cancelled before a {kind} was requested."


def say_unread(error: NovitaError) -> str:
    return f"Could not be read: {error.message}"


def say_unverified(error: NovitaError | None) -> str:
    return f"Not verified: {error.message}" if error else "Not verified: not read before the operation ended."


def say_undone(kind: str, target: Target) -> str:
    """Say how a target that was read at the deadline, and isn't confirmed, is: the status and the attempts."""
    if target.attempts:
        attempts = f"{target.attempts} attempt{'' if target.attempts == 1 else 's'}"
    else:
        attempts = f"no {kind} requested"
    if kind == "stop":
        return f"Still {say_status(target.status)} at the deadline ({attempts})."
    return f"Not {_DONE[kind]} at the deadline: it is {say_status(target.status)} ({attempts})."


# --- The result


def say_result(operation: Operation, targets: Sequence[Target], reason: str, *, has_skipped: bool) -> str:
    """Say the result of an operation whose targets, without the skipped ones, are these: "All 40 are stopped."."""
    words = [_say_outcome(operation, targets, reason, has_skipped=has_skipped), reason]
    if operation.state == Operation.State.CANCELLED:
        words.insert(0, "Cancelled.")
    return " ".join(filter(None, words))


def _say_outcome(operation: Operation, targets: Sequence[Target], reason: str, *, has_skipped: bool) -> str:
    if operation.listed_at is None:
        return "Nothing was done."
    if not targets and reason and operation.is_whole_account:
        return NOT_KNOWN
    if not targets:
        return "Nothing was running." if operation.kind == "stop" and not has_skipped else "There was nothing to do."
    if all(target.state == Target.State.CONFIRMED for target in targets):
        one, many = _ALL_DONE[operation.kind]
        return one if len(targets) == 1 else many.format(f"{len(targets):,}")
    return _count_unconfirmed(operation.kind, targets)


def _count_unconfirmed(kind: str, targets: Sequence[Target]) -> str:
    """Say "2 of 40 are still running, 1 could not be verified."."""
    rest = [target for target in targets if target.state != Target.State.CONFIRMED]
    missing = [target for target in rest if target.error_code == InstanceNotFound.code]
    seen = [one for one in rest if one.read_at and one.state != Target.State.UNKNOWN and one not in missing]
    groups = [get_status(one.status).group for one in seen]
    starting, stopping = (groups.count(group) if kind == "stop" else 0 for group in ("starting", "stopping"))
    undone = {
        "stop": ("is still running", "are still running"),
        "start": ("did not start", "did not start"),
        "restart": ("did not restart", "did not restart"),
    }[kind]
    counts = [
        (len(seen) - starting - stopping, undone),
        (starting, ("is still starting", "are still starting")),
        (stopping, ("is still stopping", "are still stopping")),
        (len(rest) - len(seen) - len(missing), ("could not be verified", "could not be verified")),
        (len(missing), ("was not found at Novita", "were not found at Novita")),
    ]
    (first, words), *others = [(number, one if number == 1 else many) for number, (one, many) in counts if number]
    parts = [f"{first:,} of {len(targets):,} {words}", *(f"{number:,} {words}" for number, words in others)]
    return f"{', '.join(parts)}."


# --- Notes and warnings


def say_from_copy(errors: Sequence[NovitaError]) -> str:
    causes = " ".join(dict.fromkeys(error.message for error in errors))
    return f"The list of instances is from the cached inventory, because Novita could not be read: {causes}"


def say_other_statuses(statuses: Sequence[str]) -> str:
    """Say that some instances, one for each of these statuses, are neither running nor stopped."""
    named, count = ", ".join(sorted(set(statuses)))[:80], len(statuses)
    if count == 1:
        return f"1 instance is in another status ({named}) and is not included; check it again."
    return f"{count:,} instances are in another status ({named}) and are not included; check them again."


def say_started_meanwhile(count: int) -> str:
    if count == 1:
        return "1 instance was started meanwhile; its stop is requested, too."
    return f"{count:,} instances were started meanwhile; their stops are requested, too."


def say_doubt(error: NovitaError) -> str:
    return f"The final listing failed, so other instances may be running: {error.message}"


def say_not_read_again(error: NovitaError, listed_at: datetime | None) -> str:
    since = "" if listed_at is None else f" since {listed_at:%H:%M:%S} UTC"
    return (
        f"Novita could not be read again: {error.message} Instances that were started{since} are requested as soon as "
        "Novita can be read."
    )


def say_added(kind: str, more: int, again: int) -> str:
    """Say what joining adds: "1 more to stop; 5 requested again"; "" for nothing."""
    return "; ".join(
        filter(None, [f"{more:,} more to {kind}" if more else "", f"{again:,} requested again" if again else ""])
    )


def say_still_running(count: int) -> str:
    """Say that a stop had no effect, of instances whose stop was accepted earlier."""
    if count == 1:
        return "1 instance is still running after an accepted stop; the stop will be requested again soon."
    return f"{count:,} instances are still running after an accepted stop; the stops will be requested again soon."


def say_joined(operation: Operation) -> str:
    by = f" by {operation.requested_by}" if operation.requested_by else ""
    return f"Joined the operation that was started{by} at {operation.created_at:%H:%M:%S} UTC."


def say_prepaid(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
    return f"Prepaid by the month: stopping saves nothing for {shown}."


def say_no_worker(error: CacheUnavailable) -> str:
    return f"{error.message} Without Redis no worker verifies the stops; manage.py stop_all does."


def say_unrecorded(trouble: str) -> str:
    return f"The database can't be written ({trouble}). The operation runs without it and is recorded later."


def say_protections_as_of(at: datetime, count: int) -> str:
    return f"The protections can't be read. Those of {at:%Y-%m-%d %H:%M:%S} UTC are used: {count}."


def say_cut(length: int, limit: int) -> str:
    return f"The reason has {length} characters; the first {limit} are recorded."


# --- The answer to a single action


def say_initiated(action: ActionName, name: str, error: CacheUnavailable | None) -> str:
    """Say that Novita accepted an action; `error` is why the inventory doesn't show it yet."""
    message = f"{action.capitalize()} initiated for {name}"
    return f"{message}. The dashboard shows it later: {error.message}" if error else message


def say_already(name: str, meaning: Meaning) -> str:
    return f"{name} is already {meaning.label.lower()}"


def say_effect_unknown(error: NovitaError) -> str:
    return f"{error.message} Whether the request took effect is not known: the instance can't be read either."


def say_no_effect(action: ActionName, error: NovitaError, after: Instance) -> str:
    """Say that a fresh read shows no effect of a request that failed."""
    if isinstance(error, InvalidStateChange) and action not in after.actions:
        return say_impossible(action, after.status)
    return f"{error.message} The instance is {say_status(after.status)}."


# --- The answer to an order


def say_ordered(operation: Operation, targets: Sequence[Target], count: int) -> str:
    """Say for how many targets, without the skipped ones, a request was sent."""
    what = _name_targets(targets, is_whole_account=operation.is_whole_account)
    return f"{operation.kind.capitalize()} initiated for {count:,} of {len(targets):,} {what}"


def say_would_order(operation: Operation, pending: Sequence[Target]) -> str:
    """Say how many targets a request would be sent for."""
    what = _name_targets(pending, is_whole_account=operation.is_whole_account)
    return f"Would {operation.kind} {len(pending):,} {what}"


def say_money(verb: str, usd_per_hour: float | Decimal | None, unknown_prices: int, prepaid: int) -> str:
    """Say what an operation saves or costs: "Saves $12.34 per hour, without 2 unknown prices."."""
    amount = "an unknown amount" if usd_per_hour is None else f"${usd_per_hour:,.2f}"
    counts = (unknown_prices, "unknown price"), (prepaid, "prepaid instance")
    left = " and ".join(f"{count:,} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count)
    return f"{verb} {amount} per hour{f', without {left}' if left else ''}."


def say_nothing_to_do(operation: Operation, *, has_skipped: bool) -> str:
    return "Nothing is running" if operation.is_whole_account and not has_skipped else f"Nothing to {operation.kind}"


def _name_targets(targets: Sequence[Target], *, is_whole_account: bool) -> str:
    """Say what they are, as the dashboard counts them: "running instances", "instances (12 running, 2 starting)"."""
    noun = f"instance{'' if len(targets) == 1 else 's'}"
    groups = [get_status(target.first_status).group for target in targets]
    others: dict[str, int] = {
        group: groups.count(group) for group, meaning in GROUPS.items() if meaning.is_moving and group in groups
    }
    if is_whole_account and others:
        counts = {"running": len(targets) - sum(others.values()), **others}
        return f"{noun} ({', '.join(f'{number:,} {group}' for group, number in counts.items() if number)})"
    return f"running {noun}" if is_whole_account else noun
