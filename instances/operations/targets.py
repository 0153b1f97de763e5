"""Which instances an operation means, and what one fresh read of Novita shows of them."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.utils import timezone

from instances.errors import (
    CacheUnavailable,
    InstanceNotFound,
    NotFoundAtNovita,
    NovitaError,
    NovitaRejectedKey,
    NovitaUnavailable,
)
from instances.fallback import standby
from instances.instance import Instance, clean_text, clean_texts, from_json
from instances.inventory import store
from instances.models import Operation, Protection, Target
from instances.novita.client import get_novita
from instances.novita.paging import say_missing_rows
from instances.novita.parallel import call_each
from instances.operations import protections, wording
from instances.outgoing.deadline import Budget

log = logging.getLogger(__name__)

# A caller has an answer within 20 s; of that the fresh listing may take so much before the copy serves in its place.
FIRST_LISTING_SECONDS: Final = 8
# A direct read costs a call, and so does a page of 100: few are read, many are listed.
MAX_DIRECT_READS: Final = 10
MAX_UNLISTED_READS: Final = 200


@dataclass
class Look:
    """What one fresh read of Novita showed; `error` is why a listing could not be read."""

    began_at: datetime
    instances: dict[str, Instance] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    unread: dict[str, NovitaError] = field(default_factory=dict)
    error: NovitaError | None = None
    is_listing: bool = False
    missing_rows: int = 0


def read_account(ids: Collection[str], budget: Budget, *, is_whole: bool) -> Look:
    """Read these instances from Novita, or all: by the listing, and directly what it lacks, since it is no snapshot."""
    novita = get_novita()
    look = Look(timezone.now())
    if is_whole or len(ids) > MAX_DIRECT_READS:
        try:
            listing = novita.list_instances(budget)
        except NovitaError as exc:
            look.error = exc
        else:
            look.instances, look.missing_rows, look.is_listing = listing.instances, listing.missing_rows, True
    wanted = [id_ for id_ in ids if id_ not in look.instances][:MAX_UNLISTED_READS]
    if isinstance(look.error, NovitaRejectedKey):
        return look
    for id_, outcome in call_each(lambda id_: novita.get_instance(id_, budget), wanted, novita.concurrency):
        if isinstance(outcome, Instance):
            look.instances[id_] = outcome
        elif isinstance(outcome, NotFoundAtNovita):
            look.gone.add(id_)
        else:
            look.unread[id_] = outcome
    return look


def write_targets(
    operation: Operation,
    ids: Sequence[str] | None,
    *,
    also: Collection[str] = (),
    seconds: float = FIRST_LISTING_SECONDS,
) -> Look:
    """Choose the targets of a new operation and store them; the arguments are those of `choose_targets`."""
    targets, look = choose_targets(operation, ids, also=also, seconds=seconds)
    for target in targets:
        target.operation = operation
    with standby.atomic():
        Target.objects.bulk_create(targets, batch_size=500)
        operation.listed_at = timezone.now()
        operation.notes = clean_texts(operation.notes)
        operation.save(update_fields=["listed_at", "source", "notes"])
    return look


def choose_targets(
    operation: Operation,
    ids: Sequence[str] | None,
    *,
    also: Collection[str] = (),
    seconds: float = FIRST_LISTING_SECONDS,
) -> tuple[list[Target], Look]:
    """Read the account, and make a target of each instance that is meant; sets the operation's source and notes.

    Without `ids`, all that may be billed is meant; `also` is read directly where the listing lacks it. Raises
    NovitaError when there is neither a fresh read nor a copy.
    """
    novita = get_novita()
    look = read_account(also if ids is None else ids, Budget(seconds), is_whole=ids is None)
    known = look.instances
    errors = [look.error] if look.error else list(look.unread.values())
    if errors and not (ids is None and look.is_listing):
        copied = read_copy(None if ids is None else ids)
        if copied is None and (ids is None or not (known or look.gone)):
            raise errors[0]
        operation.source = Operation.Source.CACHE
        operation.notes.append(wording.say_from_copy(errors))
        known = {**(copied or {}), **known}
    if look.missing_rows:
        operation.notes.append(say_missing_rows(look.missing_rows))
    if ids is None:
        chosen = {id_: one for id_, one in known.items() if one.meaning.is_billed}
        if statuses := [one.status for one in known.values() if one.meaning.is_billed is None]:
            operation.notes.append(wording.say_other_statuses(statuses))
    else:
        chosen = {id_: known[id_] for id_ in ids if id_ in known}
    protected = protections.read()
    targets = [make_target(operation.kind, one, look, protected.get(id_)) for id_, one in chosen.items()]
    for id_ in dict.fromkeys(ids or ()):
        if id_ not in chosen:
            targets.append(_make_unseen_target(id_, look))
    log.debug("operation: %d chosen of %d, %d calls at once", len(targets), len(known), novita.concurrency)
    return targets, look


def make_target(kind: str, instance: Instance, look: Look, protection: Protection | None) -> Target:
    target = Target(
        instance_id=clean_text(instance.id, 128),
        name=clean_text(instance.name, 255),
        first_status=clean_text(instance.status, 64),
        status=clean_text(instance.status, 64),
        started_before=(instance.last_started_at or "") if kind == "restart" else "",
    )
    is_fresh = instance.id in look.instances
    if is_fresh:
        target.read_at = look.began_at
    if protection and kind != "start":
        target.state, target.error = Target.State.SKIPPED, wording.say_protected(protection)
    elif not is_fresh:
        # The copy may be old: what it calls stopped is requested all the same, and a fresh read decides.
        return target
    elif kind != "restart" and kind in instance.meaning.done:
        target.state, target.confirmed_at = Target.State.CONFIRMED, look.began_at
    elif kind != "restart" and kind in instance.meaning.under_way:
        target.state = Target.State.REQUESTED
    elif kind not in instance.meaning.requestable:
        target.state, target.error = Target.State.SKIPPED, wording.say_impossible(kind, instance.status)
    return target


def _make_unseen_target(instance_id: str, look: Look) -> Target:
    target = Target(instance_id=clean_text(instance_id, 128), state=Target.State.FAILED)
    if instance_id in look.gone:
        target.error_code, target.error = InstanceNotFound.code, wording.NOT_AT_NOVITA
    else:
        error = look.unread.get(instance_id) or look.error or NovitaUnavailable()
        target.error_code, target.error = error.code, wording.say_unread(error)
    return target


def read_copy(ids: Sequence[str] | None) -> dict[str, Instance] | None:
    """Return what the copy holds, of the whole account or of some; None when there is no copy."""
    try:
        if ids is not None:
            return {id_: from_json(shown) for id_, shown in store.find_instances(ids).items()}
        listing = store.read_listing()
    except CacheUnavailable as exc:
        log.debug("operation: no copy: %s", exc)
        return None
    return {one["id"]: from_json(one) for one in listing.instances} if listing.freshness.as_of else None
