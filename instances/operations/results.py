"""The end of an operation: what became of each target, and the result."""

import logging
from collections.abc import Sequence

from django.utils import timezone

from instances.access import audit
from instances.access.audit import Actor
from instances.fallback import standby
from instances.instance import clean_text
from instances.models import Action, AuditEntry, EventKind, Operation, Target
from instances.notifications import events, webhooks
from instances.operations import money, wording
from instances.operations.observing import Observation
from instances.operations.records import add_notes
from novita_site.log import Fields

log = logging.getLogger(__name__)


def conclude(
    operation: Operation, observed: Observation | None, *, is_complete: bool | None = None, reason: str = ""
) -> None:
    """Finish an operation: settle its open targets by the last read, record the result, release the webhook.

    `reason` says why the read doesn't settle it, or why it ends now; unless `is_complete`, that is no success. Nothing
    happens when the claim is lost, or somebody has joined since the operation was read: then there is more to do.
    """
    is_complete = not reason if is_complete is None else is_complete
    targets = list(operation.targets.all())
    open_ = [target for target in targets if target.state in Target.OPEN]
    for target in open_:
        _settle(operation, target, observed)
    included = [target for target in targets if target.state != Target.State.SKIPPED]
    are_confirmed = all(target.state == Target.State.CONFIRMED for target in included)
    money.note(operation, included)
    with standby.atomic():
        held = Operation.objects.filter(
            pk=operation.pk, claim=operation.claim, listed_at=operation.listed_at, finished_at=None
        )
        held.exclude(state=Operation.State.CANCELLED).update(state=Operation.State.FINISHED)
        operation.state = held.values_list("state", flat=True).first() or operation.state
        is_cancelled = operation.state == Operation.State.CANCELLED
        operation.success = are_confirmed and is_complete and not is_cancelled
        operation.result = wording.say_result(
            operation, included, "" if operation.success else reason, has_skipped=len(included) < len(targets)
        )
        operation.finished_at = timezone.now()
        add_notes(held, [reason] if reason else [])
        is_ours = held.update(
            success=operation.success,
            result=clean_text(operation.result),
            finished_at=operation.finished_at,
            claim="",
            claimed_until=None,
            usd_per_hour=operation.usd_per_hour,
            unknown_prices=operation.unknown_prices,
            prepaid=operation.prepaid,
        )
        if not is_ours:
            return
        Target.objects.bulk_update(open_, ["state", "error"], batch_size=200)
        webhooks.release(operation)
    audit.save(_make_entries(operation, included))
    _tell(operation)
    level = logging.INFO if operation.success else logging.WARNING
    log.log(level, "operation ended%s", Fields(id=operation.pk, kind=operation.kind, result=operation.result))


def _tell(operation: Operation) -> None:
    kind = EventKind.OPERATION_FINISHED if operation.success else EventKind.OPERATION_FAILED
    lines = [f"Requested by {operation.requested_by}.", *([operation.reason] if operation.reason else [])]
    path = f"/admin/instances/operation/{operation.pk}/change/"
    events.tell(kind, str(operation.pk), operation.result, lines, path)


def _settle(operation: Operation, target: Target, observed: Observation | None) -> None:
    """Give an open target its last state by the last read; a failed one keeps its error."""
    if target.state == Target.State.FAILED:
        return
    if observed is None or target.instance_id not in observed.instances:
        error = observed.find_error(target.instance_id) if observed else None
        target.state, target.error = Target.State.UNKNOWN, wording.say_unverified(error)
    else:
        is_stop = operation.kind == "stop"
        target.state = Target.State.STILL_RUNNING if is_stop else Target.State.FAILED
        target.error = wording.say_undone(operation.kind, target)


def _make_entries(operation: Operation, targets: Sequence[Target]) -> list[AuditEntry]:
    """Return an audit entry for each target that was requested."""
    actor = Actor(operation.requested_by, operation.address, operation.request_id)
    return [
        audit.make_entry(
            actor,
            Action(f"instance.{operation.kind}"),
            target.instance_id,
            target_name=target.name,
            reason=operation.reason,
            before=target.first_status,
            after=target.status,
            outcome=audit.DONE if target.state == Target.State.CONFIRMED else target.state,
            error=target.error,
        )
        for target in targets
        if target.attempts
    ]
