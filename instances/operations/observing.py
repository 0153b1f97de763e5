"""Fresh reads of Novita for an operation, and the record of what a read shows of the operation's targets."""

import logging
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from django.utils import timezone

from instances.errors import CacheUnavailable, InstanceNotFound, NotFoundAtNovita, NovitaError, NovitaRejectedKey
from instances.instance import REMOVED_STATUS, Instance, clean_text, from_json, get_meaning
from instances.inventory import store
from instances.models import Target
from instances.novita.client import get_novita
from instances.novita.paging import say_missing_rows
from instances.novita.parallel import call_each
from instances.operations import wording
from instances.outgoing.deadline import Budget

log = logging.getLogger(__name__)

# A direct read costs a call, and so does a page of 100: few instances are read directly, many by a listing.
MAX_DIRECT_READS: Final = 10
MAX_UNLISTED_READS: Final = 200


@dataclass(frozen=True)
class Observation:
    """One fresh read of Novita; `error` is why a listing failed."""

    began_at: datetime
    instances: Mapping[str, Instance] = field(default_factory=dict)
    gone: AbstractSet[str] = frozenset()
    unread: Mapping[str, NovitaError] = field(default_factory=dict)
    error: NovitaError | None = None
    is_listing: bool = False
    missing_rows: int = 0

    def find_error(self, instance_id: str) -> NovitaError | None:
        """Return why an instance could not be read."""
        return self.unread.get(instance_id) or self.error

    def find_doubt(self) -> str:
        """Say why this read of the whole account can't show that nothing is running; "" when it can."""
        if self.error:
            return wording.say_doubt(self.error)
        if self.missing_rows:
            return f"{say_missing_rows(self.missing_rows)} Check Novita's console."
        return ""

    def updated(self, later: "Observation") -> "Observation":
        """Return this read with the instances of a later one."""
        return replace(self, instances={**self.instances, **later.instances})


def read_account(ids: Collection[str], budget: Budget, *, is_whole: bool) -> Observation:
    """Read these instances, or all: by a listing, and directly those that the listing lacks, since it is no snapshot.

    A failure is part of the observation.
    """
    novita, began_at = get_novita(), timezone.now()
    observed = Observation(began_at)
    if is_whole or len(ids) > MAX_DIRECT_READS:
        try:
            listing = novita.list_instances(budget)
        except NovitaRejectedKey as exc:
            # No direct read would succeed either.
            return Observation(began_at, error=exc)
        except NovitaError as exc:
            observed = Observation(began_at, error=exc)
        else:
            observed = Observation(began_at, listing.instances, is_listing=True, missing_rows=listing.missing_rows)
    wanted = [id_ for id_ in ids if id_ not in observed.instances][:MAX_UNLISTED_READS]
    read = dict(call_each(lambda id_: novita.get_instance(id_, budget), wanted, novita.concurrency))
    gone = {id_ for id_, outcome in read.items() if isinstance(outcome, NotFoundAtNovita)}
    return replace(
        observed,
        instances={
            **observed.instances,
            **{id_: outcome for id_, outcome in read.items() if isinstance(outcome, Instance)},
        },
        gone=gone,
        unread={id_: outcome for id_, outcome in read.items() if isinstance(outcome, NovitaError) and id_ not in gone},
    )


def read_copy(ids: Sequence[str] | None) -> dict[str, Instance] | None:
    """Return the cached instances, all or some; None when there is no inventory."""
    try:
        if ids is not None:
            return {id_: from_json(shown) for id_, shown in store.find_instances(ids).items()}
        listing = store.read_listing()
    except CacheUnavailable as exc:
        log.debug("operation: no inventory: %s", exc)
        return None
    return {one["id"]: from_json(one) for one in listing.instances} if listing.freshness.as_of else None


# --- The record of a read


def record_observed(kind: str, targets: Sequence[Target], observed: Observation) -> None:
    """Record what a read shows of these targets; a target that the read lacks stays as it is."""
    read, moved = [], []
    for target in targets:
        before = target.state, target.error_code
        if target.instance_id in observed.gone:
            _apply_removal(kind, target, observed.began_at)
        elif instance := observed.instances.get(target.instance_id):
            _apply_status(kind, target, instance, observed.began_at)
        else:
            continue
        read.append(target)
        if (target.state, target.error_code) != before:
            moved.append(target)
    Target.objects.bulk_update(read, ["status", "read_at", "started_before"], batch_size=200)
    # The state only where the read changed it: a process that has joined may have requested a pending target meanwhile.
    Target.objects.bulk_update(moved, ["state", "confirmed_at", "error_code", "error"], batch_size=200)


def _apply_removal(kind: str, target: Target, at: datetime) -> None:
    target.read_at, target.status = at, REMOVED_STATUS
    if kind == "stop":
        confirm(target, at)
    else:
        fail_as_missing(target)


def _apply_status(kind: str, target: Target, instance: Instance, at: datetime) -> None:
    is_reached = _is_reached(kind, target, instance)
    target.status, target.read_at = clean_text(instance.status, 64), at
    if kind == "restart" and not target.attempts:
        target.started_before = instance.last_started_at or ""
    if is_reached:
        confirm(target, at)
    elif kind in instance.meaning.under_way and (kind != "restart" or target.attempts):
        # Novita carries out this request after all, or somebody else's.
        target.state, target.error_code, target.error = Target.State.REQUESTED, "", ""


def _is_reached(kind: str, target: Target, instance: Instance) -> bool:
    if kind not in instance.meaning.done:
        return False
    if kind != "restart":
        return True
    # A running instance may not have restarted yet: only a later start time shows that, or a read on the way.
    has_new_start = bool(instance.last_started_at) and instance.last_started_at != target.started_before
    if not target.attempts:
        # A process that was killed before it could record its request may have sent it. The inventory's start is old.
        return has_new_start and bool(target.started_before) and target.read_at is not None
    # The stored status is from a read only when the read was later than the answer to the request.
    is_read = target.read_at and target.requested_at and target.read_at > target.requested_at
    was_under_way = bool(is_read) and kind in get_meaning(target.status).under_way
    return has_new_start or was_under_way


def confirm(target: Target, at: datetime) -> None:
    target.state, target.confirmed_at, target.error_code, target.error = Target.State.CONFIRMED, at, "", ""


def fail_as_missing(target: Target) -> None:
    target.state, target.error_code = Target.State.FAILED, InstanceNotFound.code
    target.error = wording.NO_LONGER_EXISTS
