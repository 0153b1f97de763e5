"""The API's JSON of operations: as one, in a list, and as the answer to a request."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from instances.instance import format_time, to_usd
from instances.models import Operation, Protection, StartFreeze, Target
from instances.operations import money, wording
from instances.operations.emergency import Page
from instances.operations.history import Event
from instances.operations.orders import Answer
from instances.operations.records import Snapshot, Summary


def show_operation(snapshot: Snapshot) -> dict[str, Any]:
    """Return the answer of GET /api/operations/<id>."""
    operation = snapshot.operation
    targets = [_show_target(operation, target) for target in snapshot.targets]
    return {**_show_head(operation, snapshot.counts), **_show_money(operation, snapshot.targets), "targets": targets}


def show_page(page: Page) -> dict[str, Any]:
    """Return the answer of GET /api/operations: operations without their targets."""
    return {"operations": show_summaries(page.operations), "total": page.total}


def show_summaries(summaries: Iterable[Summary]) -> list[dict[str, Any]]:
    return [_show_head(one.operation, one.counts) for one in summaries]


def show_protections(protections: Iterable[Protection]) -> list[dict[str, Any]]:
    return [
        {
            "instanceId": one.instance_id,
            "name": one.name,
            "reason": one.reason,
            "protectedBy": one.protected_by,
            "protectedAt": format_time(one.protected_at),
        }
        for one in protections
    ]


def show_history(instance_id: str, events: Iterable[Event]) -> dict[str, Any]:
    """Return the answer of GET /api/instances/<id>/history."""
    return {
        "instanceId": instance_id,
        "events": [
            {
                "at": format_time(event.at),
                "kind": event.kind,
                "message": event.message,
                "actor": event.actor,
                "reason": event.reason,
                "operationId": event.operation_id or None,
            }
            for event in events
        ],
    }


def _show_head(operation: Operation, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": str(operation.pk),
        "kind": operation.kind,
        "state": operation.state,
        "success": operation.success,
        "result": operation.result,
        "isWholeAccount": operation.is_whole_account,
        "reason": operation.reason,
        "requestedBy": operation.requested_by,
        "source": operation.source,
        "createdAt": format_time(operation.created_at),
        "deadlineAt": format_time(operation.deadline_at),
        "finishedAt": _show_time(operation.finished_at),
        "notes": operation.notes,
        "retryOf": str(operation.retry_of_id) if operation.retry_of_id else None,
        "supersededBy": str(operation.superseded_by_id) if operation.superseded_by_id else None,
        "dismissedAt": _show_time(operation.dismissed_at),
        "dismissedBy": operation.dismissed_by,
        "counts": counts,
    }


def _show_target(operation: Operation, target: Target) -> dict[str, Any]:
    return {
        "instanceId": target.instance_id,
        "name": target.name,
        "state": target.state,
        "status": target.status,
        "attempts": target.attempts,
        "requestedAt": _show_time(target.requested_at),
        "confirmedAt": _show_time(target.confirmed_at),
        "readAt": _show_time(target.read_at),
        "message": wording.say_target(operation, target),
        "error": target.error or None,
    }


def _show_time(moment: datetime | None) -> str | None:
    return format_time(moment) if moment else None


def _show_money(operation: Operation, targets: Sequence[Target]) -> dict[str, Any]:
    """Return what a stop saves or a start costs per hour, in USD."""
    found = money.find(operation, targets)
    return {
        "savesPerHour": to_usd(found.per_hour) if operation.kind == "stop" else None,
        "costsPerHour": to_usd(found.per_hour) if operation.kind == "start" else None,
        "unknownPrices": found.unknown_prices,
        "prepaid": found.prepaid,
    }


# --- The answer to a request


def show_answer(answer: Answer) -> dict[str, Any]:
    """Return the answer of POST /api/instances/stop-all: a result for each target. A dry run has the same shape."""
    operation = answer.operation
    is_stored = not answer.is_dry_run
    return {
        **_show_results(answer),
        **_show_money(operation, answer.targets),
        "timestamp": format_time(timezone.now()),
        "operationId": str(operation.pk) if is_stored else None,
        "operationUrl": f"{settings.PATH_PREFIX}/api/operations/{operation.pk}" if is_stored else None,
        "source": operation.source,
    }


def _show_results(answer: Answer) -> dict[str, Any]:
    operation, gap = answer.operation, answer.gap
    included = [target for target in answer.targets if target.state != Target.State.SKIPPED]
    skipped = [target for target in answer.targets if target.state == Target.State.SKIPPED]
    good = {Target.State.PENDING} if answer.is_dry_run else {Target.State.REQUESTED, Target.State.CONFIRMED}
    counted = [target for target in included if target.state in good]
    if not included:
        message = gap.removesuffix(".") or wording.say_nothing_to_do(operation, has_skipped=bool(skipped))
    elif answer.is_dry_run:
        message = wording.say_would_order(operation, counted)
    else:
        message = wording.say_ordered(operation, included, len(counted))
    # A dry run of all counts what would be requested; instances that are stopping already are only followed.
    counts_requests_only = answer.is_dry_run and operation.is_whole_account
    return {
        "success": not gap and not any(target.state in Target.UNCONFIRMED for target in included),
        "message": message,
        "count": len(counted),
        "total": len(counted) if counts_requests_only else len(included),
        "results": [_show_result(answer, target, is_good=target.state in good) for target in included],
        "skipped": [
            {"instanceId": target.instance_id, "name": target.name, "reason": target.error} for target in skipped
        ],
        "warnings": [*answer.warnings, gap] if gap and included else answer.warnings,
    }


def _show_result(answer: Answer, target: Target, *, is_good: bool) -> dict[str, Any]:
    say = wording.say_planned if answer.is_dry_run else wording.say_target
    return {
        "instanceId": target.instance_id,
        "name": target.name,
        "success": is_good and not answer.is_dry_run,
        "status": target.status,
        "state": target.state,
        "message": say(answer.operation, target),
        "error": target.error or None,
    }


def show_freeze(freeze: StartFreeze | None) -> dict[str, Any]:
    return {
        "frozen": freeze is not None,
        "message": f"{wording.say_frozen(freeze)}. Stops always pass." if freeze else None,
        "until": format_time(freeze.ends_at) if freeze and freeze.ends_at else None,
        "reason": freeze.reason if freeze else None,
        "frozenBy": freeze.frozen_by if freeze else None,
        "frozenAt": format_time(freeze.frozen_at) if freeze else None,
    }
