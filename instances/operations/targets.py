"""Which instances an operation includes: its targets, chosen from a fresh read of Novita, or from the inventory."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.utils import timezone

from instances.errors import InstanceNotFound, NovitaUnavailable
from instances.fallback import standby
from instances.instance import Instance, clean_text, clean_texts
from instances.models import Operation, Protection, Target
from instances.novita.paging import say_missing_rows
from instances.operations import protections, wording
from instances.operations.observing import Observation, read_account, read_copy
from instances.outgoing.deadline import Budget

log = logging.getLogger(__name__)

# A caller has an answer within 20 s; after this part of it the inventory replaces the fresh listing.
FIRST_LISTING_SECONDS: Final = 8


@dataclass(frozen=True)
class Choice:
    """The targets of an operation, not stored yet, and how they were found."""

    targets: list[Target]
    observed: Observation
    source: Operation.Source
    notes: list[str]


def choose_targets(
    kind: str,
    ids: Sequence[str] | None,
    *,
    also: Collection[str] = (),
    seconds: float = FIRST_LISTING_SECONDS,
    started: Mapping[str, str] | None = None,
) -> Choice:
    """Read the account, and make a target of each instance that is included.

    Without `ids`, every instance that may be billed is included; `also` is read directly where the listing lacks it.
    With `started` (of a policy's stop), only a fresh read counts, and each target keeps the start it was judged by.
    Raises NovitaError when there is neither a fresh read nor an inventory.
    """
    is_whole = ids is None
    observed = read_account(also if ids is None else ids, Budget(seconds), is_whole=is_whole)
    known: Mapping[str, Instance] = observed.instances
    source = Operation.Source.NOVITA
    notes: list[str] = []
    errors = [observed.error] if observed.error else list(observed.unread.values())
    if errors and not (is_whole and observed.is_listing):
        copied = read_copy(ids) if started is None else None
        if copied is None and (is_whole or not (known or observed.gone)):
            raise errors[0]
        if started is None:
            source = Operation.Source.CACHE
            notes.append(wording.say_from_copy(errors))
        known = {**(copied or {}), **known}
    if observed.missing_rows:
        notes.append(say_missing_rows(observed.missing_rows))
    if ids is None:
        chosen = {id_: one for id_, one in known.items() if one.meaning.is_billed}
        if statuses := [one.status for one in known.values() if one.meaning.is_billed is None]:
            notes.append(wording.say_other_statuses(statuses))
    else:
        chosen = {id_: known[id_] for id_ in ids if id_ in known}
    protected = protections.read()
    targets = [make_target(kind, one, observed, protected.get(id_)) for id_, one in chosen.items()]
    targets += [_make_unread_target(id_, observed) for id_ in dict.fromkeys(ids or ()) if id_ not in chosen]
    if started is not None:
        for target in targets:
            target.started_before = started[target.instance_id]
    log.debug("operation: %d chosen of %d", len(targets), len(known))
    return Choice(targets, observed, source, notes)


def write_targets(operation: Operation, choice: Choice) -> bool:
    """Store the chosen targets as those of a new operation; False when another process has taken it over meanwhile."""
    for target in choice.targets:
        target.operation = operation
    operation.listed_at = timezone.now()
    operation.source, operation.notes = choice.source, clean_texts(choice.notes)
    own = Operation.objects.filter(pk=operation.pk, claim=operation.claim, listed_at=None, finished_at=None)
    with standby.atomic():
        if not own.update(listed_at=operation.listed_at, source=operation.source, notes=operation.notes):
            return False
        # A stop that came during the read has left its instances here (`single.withdraw_starts`).
        if withdrawn := set(operation.targets.values_list("instance_id", flat=True)):
            operation.targets.all().delete()
            for target in choice.targets:
                if target.instance_id in withdrawn:
                    target.state, target.error = Target.State.SKIPPED, wording.OPPOSED
        Target.objects.bulk_create(choice.targets, batch_size=500)
    return True


def make_target(kind: str, instance: Instance, observed: Observation, protection: Protection | None) -> Target:
    target = Target(
        instance_id=clean_text(instance.id, 128),
        name=clean_text(instance.name, 255),
        first_status=clean_text(instance.status, 64),
        status=clean_text(instance.status, 64),
        started_before=(instance.last_started_at or "") if kind == "restart" else "",
    )
    is_fresh = instance.id in observed.instances
    if is_fresh:
        target.read_at = observed.began_at
    if protection and kind != "start":
        target.state, target.error = Target.State.SKIPPED, wording.say_protected(protection)
    elif not is_fresh:
        # The inventory may be old: an instance that is stopped there is requested too, and a fresh read decides.
        return target
    elif kind != "restart" and kind in instance.meaning.done:
        target.state, target.confirmed_at = Target.State.CONFIRMED, observed.began_at
    elif kind != "restart" and kind in instance.meaning.under_way:
        target.state = Target.State.REQUESTED
    elif kind not in instance.meaning.requestable:
        target.state, target.error = Target.State.SKIPPED, wording.say_impossible(kind, instance.status)
    return target


def _make_unread_target(instance_id: str, observed: Observation) -> Target:
    target = Target(instance_id=clean_text(instance_id, 128), state=Target.State.FAILED)
    if instance_id in observed.gone:
        target.error_code, target.error = InstanceNotFound.code, wording.NOT_AT_NOVITA
    else:
        error = observed.find_error(instance_id) or NovitaUnavailable()
        target.error_code, target.error = error.code, wording.say_unread(error)
    return target
