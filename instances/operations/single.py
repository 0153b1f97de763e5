"""Starts, stops and restarts one instance, and protects it from stops and restarts.

Novita only accepts a request, so an action reports "initiated", and the inventory shows Novita's first status until a
fresh read shows the effect. A lost or contradictory answer is resolved by reading the instance.
"""

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import DatabaseError
from django.db.models import F
from django.utils import timezone

from instances.access import audit
from instances.access.audit import Actor
from instances.errors import (
    CacheUnavailable,
    InstanceNotFound,
    InvalidState,
    InvalidStateChange,
    NotFoundAtNovita,
    NovitaBadAnswer,
    NovitaError,
    NovitaTimeout,
    NovitaUnavailable,
    PanelError,
    Protected,
)
from instances.fallback import database, standby
from instances.instance import FIRST_STATUSES, ActionName, Instance, clean_text, from_json
from instances.inventory import store
from instances.models import Action, AuditEntry, Operation, Protection, Target
from instances.novita.client import Novita, get_novita
from instances.operations import freezing, protections, wording
from instances.outgoing.deadline import Budget
from novita_site.log import Fields

log = logging.getLogger(__name__)

ACTION_SECONDS: Final = 45
SECOND_LOOK_SECONDS: Final[float] = settings.OPERATION_PAUSE_SECONDS / 2
MAX_ID_LENGTH: Final = 128


@dataclass(frozen=True)
class ActionResult:
    """`is_initiated` is False when the instance had the wanted status already, and nothing was requested."""

    instance: Instance
    is_initiated: bool
    message: str


class Copy:
    """Writes new statuses to the inventory, until Redis fails once: a silent Redis must not delay the next stop."""

    def __init__(self) -> None:
        # The failure of Redis.
        self.error: CacheUnavailable | None = None

    def find(self, instance_id: str) -> Instance | None:
        """Return the cached instance; None when there is none, and when Redis can't be read."""
        try:
            _, shown = store.find_instance(instance_id)
        except CacheUnavailable as exc:
            self.error = exc
            log.debug("%s not read from the inventory: %s", instance_id, exc)
            return None
        return from_json(shown) if shown else None

    def begin_read(self) -> int | None:
        """Return the `read_began` of a read that begins now; None when Redis can't be read."""
        if self.error:
            return None
        try:
            return store.read_state().tick
        except CacheUnavailable as exc:
            self.error = exc
            log.debug("the order of a read is not known: %s", exc)
            return None

    def write(self, instance: Instance, read_began: int | None = None) -> None:
        """Write the first status after a request, or what a read has found: that never replaces a later write."""
        self._try(lambda: store.write_instance(instance, read_began=read_began), f"{instance.status} of {instance.id}")

    def remove(self, instance_id: str) -> None:
        self._try(lambda: store.remove_instance(instance_id), f"the removal of {instance_id}")

    def _try(self, write: Callable[[], bool], what: str) -> None:
        if self.error:
            return
        try:
            write()
        except CacheUnavailable as exc:
            # The request to Novita is valid all the same.
            self.error = exc
            log.warning("the inventory does not show %s yet: %s", what, exc)


def act(action: ActionName, instance_id: str, *, actor: Actor) -> ActionResult:
    """Request an action on an instance, and show its new status in the inventory at once.

    Raises InstanceNotFound, Protected, InvalidState when the status doesn't allow the action, and NovitaError when
    Novita did not accept the request, or the effect is not known. Without Redis the instance is read from Novita: a
    dead Redis must not prevent a stop.
    """
    with audit.recorded(actor, Action(f"instance.{action}"), instance_id) as entry:
        try:
            result = _act(action, instance_id, get_novita(), Budget(ACTION_SECONDS), Copy(), entry)
        except PanelError as exc:
            figures = Fields(id=instance_id[:64], by=actor.name, outcome=exc.code, error=exc.message)
            log.info("action %s%s", action, figures)
            raise
        entry.after = result.instance.status
    outcome = "initiated" if result.is_initiated else "already"
    status = result.instance.status
    log.info("action %s%s", action, Fields(id=instance_id, by=actor.name, outcome=outcome, status=status))
    return result


def _act(
    action: ActionName, instance_id: str, novita: Novita, budget: Budget, copy: Copy, entry: AuditEntry
) -> ActionResult:
    check_id(instance_id)
    freezing.check_start(action)
    if action == "stop":
        _withdraw_start(instance_id)
    before = copy.find(instance_id)
    if before is None or action not in before.actions:
        # The inventory may be old: the instance may have been started meanwhile, and must be stopped.
        before = _read(instance_id, novita, budget, copy)
    entry.target_name, entry.before = before.name, before.status
    if _is_so_already(action, before):
        return ActionResult(before, False, wording.say_already(_call(before), before.meaning))
    if action not in before.actions:
        raise InvalidState(wording.say_impossible(action, before.status, _call(before)), suggestion=_suggest(before))
    freezing.check_start(action)  # Again: reading Novita may have taken long.
    if action != "start":
        _refuse_protected(before)
    copy.error = None  # Redis may be back by the time Novita has answered.
    try:
        after = send(action, before, novita, budget, copy)
    except NotFoundAtNovita as exc:
        raise InstanceNotFound from exc
    return ActionResult(after, True, wording.say_initiated(action, _call(after), copy.error))


def _withdraw_start(instance_id: str) -> None:
    """Cancel the running starts of an instance before it is read for a stop, unless it is protected from stops.

    A start that is sent after the read would run, and the instance count as stopped.
    """
    has_database = not database.find_trouble(max_age_seconds=database.REMEMBERED_SECONDS)
    if has_database and not protections.find(instance_id):
        withdraw_starts([instance_id])


def withdraw_starts(ids: Collection[str] | None, *, before: datetime | None = None) -> None:
    """Cancel the running starts and restarts of these instances, or of all (None), since a stop was requested.

    They would repeat a failed start, and so undo a later stop.
    """
    opposed = Operation.objects.filter(kind__in=("start", "restart"), state__in=Operation.RUNNING)
    if before is not None:
        opposed = opposed.filter(created_at__lt=before)
    targets = Target.objects.filter(operation__in=opposed, state__in=Target.OPEN)
    if ids is not None:
        targets = targets.filter(instance_id__in=ids)
    try:
        with standby.atomic():
            # First their operations: no round may record an older read over this.
            opposed.update(rounds=F("rounds"))
            targets.update(state=Target.State.SKIPPED, error=wording.OPPOSED)
            _withdraw_unlisted(opposed.filter(listed_at=None), ids or ())
        if ids is None:
            opposed.update(state=Operation.State.CANCELLED, next_round_at=timezone.now())
    except DatabaseError as exc:
        # The stop is sent all the same.
        log.warning("running starts and restarts not cancelled: %s", exc)


def _withdraw_unlisted(reading: Iterable[Operation], ids: Collection[str]) -> None:
    """Store the targets of operations that are reading the account as cancelled, before they store their own."""
    ids = [clean_text(id_, 128) for id_ in ids]
    withdrawn = [
        Target(operation=operation, instance_id=id_, state=Target.State.SKIPPED, error=wording.OPPOSED)
        for operation in reading
        for id_ in ids
    ]
    Target.objects.bulk_create(withdrawn, batch_size=500, ignore_conflicts=True)


def check_id(instance_id: str) -> None:
    """Raise InstanceNotFound for a text that can't be an instance's id."""
    if not instance_id or len(instance_id) > MAX_ID_LENGTH or not instance_id.isprintable():
        raise InstanceNotFound


def send(action: ActionName, before: Instance, novita: Novita, budget: Budget, copy: Copy) -> Instance:
    """Send one request to Novita, and return the instance with its new status; an unclear answer is resolved by a read.

    Raises NotFoundAtNovita when the instance is gone, and NovitaError when a read shows no effect.
    """
    try:
        state = novita.request(action, before.id, budget)
    except NotFoundAtNovita:
        copy.remove(before.id)
        raise
    except (NovitaTimeout, NovitaUnavailable, NovitaBadAnswer, InvalidStateChange) as exc:
        return _find_effect(action, before, exc, novita, budget, copy)
    after = dataclasses.replace(before, status=state or FIRST_STATUSES[action])
    copy.write(after)
    return after


def _find_effect(
    action: ActionName, before: Instance, error: NovitaError, novita: Novita, budget: Budget, copy: Copy
) -> Instance:
    """Read the instance after an unclear answer; return it if it shows the effect, and raise the error otherwise."""
    try:
        after = _read(before.id, novita, budget, copy)
        if not _shows_effect(action, before, after):
            budget.pause(SECOND_LOOK_SECONDS)
            after = _read(before.id, novita, budget, copy)
    except NovitaError as unread:
        error.message = wording.say_effect_unknown(error)
        error.suggestion = "Check the instance in a minute, before you repeat the request."
        raise error from unread
    if _shows_effect(action, before, after):
        return after
    error.message = wording.say_no_effect(action, error, after)
    error.suggestion = _suggest(after)
    raise error


def _shows_effect(action: ActionName, before: Instance, after: Instance) -> bool:
    # A running instance may have restarted or not: only a later start time shows it.
    has_restarted = action in after.meaning.done and after.last_started_at != before.last_started_at
    return _is_so_already(action, after) or has_restarted


def _is_so_already(action: ActionName, instance: Instance) -> bool:
    is_done = action != "restart" and action in instance.meaning.done
    return is_done or action in instance.meaning.under_way


def _call(instance: Instance) -> str:
    return instance.name or instance.id


def _suggest(instance: Instance) -> str:
    if instance.actions:
        return f"Possible now: {', '.join(instance.actions)}."
    if instance.meaning.is_moving:
        return "Wait until the status changes; it is read again every few seconds."
    return "No action is possible in this status."


def _read(instance_id: str, novita: Novita, budget: Budget, copy: Copy) -> Instance:
    read_began = copy.begin_read()
    try:
        instance = novita.get_instance(instance_id, budget)
    except NotFoundAtNovita as exc:
        copy.remove(instance_id)
        raise InstanceNotFound from exc
    copy.write(instance, read_began)
    return instance


# --- Protection


def protect(instance_id: str, reason: str, *, actor: Actor) -> Protection:
    """Refuse stops and restarts of an instance from now on. Raises InstanceNotFound and NovitaError."""
    with audit.recorded(actor, Action.SET_PROTECTION, instance_id, reason=reason) as entry:
        check_id(instance_id)
        name = _find_name(instance_id)
        entry.target_name, entry.after = name, "protected"
        wanted = {
            "name": clean_text(name, 255),
            "reason": clean_text(reason),
            "protected_by": actor.name,
            "protected_at": timezone.now(),
        }
        protection, is_new = Protection.objects.update_or_create(instance_id=instance_id, defaults=wanted)
        entry.before = "" if is_new else "protected"
    protections.note_changed()
    log.info("protection set%s", Fields(id=instance_id, by=actor.name, reason=reason))
    return protection


def _find_name(instance_id: str) -> str:
    with suppress(CacheUnavailable):
        _, shown = store.find_instance(instance_id)
        if shown:
            return from_json(shown).name
    return _read(instance_id, get_novita(), Budget(ACTION_SECONDS), Copy()).name


def remove_protection(instance_id: str, *, actor: Actor) -> bool:
    """Allow stops and restarts of an instance again; False when it was not protected. Raises InstanceNotFound."""
    check_id(instance_id)
    protection = Protection.objects.filter(instance_id=instance_id).first()
    if protection is None:
        return False
    fields = {"target_name": protection.name, "reason": protection.reason, "before": "protected"}
    with audit.recorded(actor, Action.REMOVE_PROTECTION, instance_id, **fields):
        protection.delete()
    protections.note_changed()
    log.info("protection removed%s", Fields(id=instance_id, by=actor.name))
    return True


def _refuse_protected(instance: Instance) -> None:
    # When the protections are not known, the stop goes on: a person has named this one instance.
    if protection := protections.find(instance.id):
        raise Protected(f"{_call(instance)} is protected: {protection.reason}")
