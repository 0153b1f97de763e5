"""The freeze of starts: while it is in force, the panel starts and restarts nothing. Stops are never frozen.

Operations that are running skip the targets they have not requested yet.

The last known freeze is kept in Redis and in a file, for the time when the database can't be read.
"""

import json
import logging
from datetime import datetime
from typing import Final

from django.db import DatabaseError, transaction
from django.utils import timezone

from instances.access import audit
from instances.access.audit import Actor
from instances.errors import InvalidRequest, NotFrozen, StartsFrozen
from instances.fallback import kept
from instances.instance import clean_text
from instances.models import Action, StartFreeze
from instances.operations import wording
from novita_site.log import Fields

log = logging.getLogger(__name__)

_NAME: Final = "start-freeze"


def find() -> StartFreeze | None:
    """Return the freeze in force, or the last known one when the database can't be read."""
    try:
        return StartFreeze.list_in_force().first()
    except DatabaseError as exc:
        log.warning("the freeze of starts can't be looked up: %s", exc)
    known = [freeze for text in kept.read(_NAME) if (freeze := _parse(text))]
    last = max(known, key=lambda one: one.frozen_at, default=None)
    if last is None or last.removed_at or (last.ends_at and last.ends_at <= timezone.now()):
        return None
    return last


def check_start(kind: str) -> None:
    """Raise StartsFrozen for a start or restart during a freeze."""
    if kind != "stop" and (freeze := find()):
        raise StartsFrozen(wording.say_frozen(freeze))


def freeze(ends_at: datetime | None, reason: str, *, actor: Actor) -> StartFreeze:
    """Freeze starts from now on, in place of an earlier freeze. Raises InvalidRequest for an end that has passed."""
    now = timezone.now()
    if ends_at is not None and ends_at <= now:
        raise InvalidRequest(fields={"until": "This time has passed. Name a later one, or null for no end."})
    with audit.recorded(actor, Action.FREEZE_STARTS, reason=reason) as entry:
        frozen = StartFreeze(frozen_at=now, frozen_by=actor.name[:150], reason=clean_text(reason, 500), ends_at=ends_at)
        with transaction.atomic():
            _remove_all(now, actor)
            frozen.save()
        # Two freezes at once don't see each other before they are stored.
        latest = StartFreeze.objects.filter(removed_at=None).first() or frozen
        _remove_all(now, actor, frozen_at__lt=latest.frozen_at)
        entry.after = wording.say_until(frozen)
        _keep(latest)
    log.warning("starts frozen%s", Fields(by=actor.name, until=frozen.ends_at, reason=reason))
    return frozen


def unfreeze(*, actor: Actor) -> StartFreeze:
    """Remove the freeze in force. Raises NotFrozen."""
    with audit.recorded(actor, Action.UNFREEZE_STARTS) as entry, transaction.atomic():
        frozen = StartFreeze.list_in_force().first()
        if frozen is None:
            raise NotFrozen
        entry.reason, entry.before = frozen.reason, wording.say_until(frozen)
        _remove_all(timezone.now(), actor)
        frozen.refresh_from_db()
    _keep(frozen)
    log.warning("freeze of starts removed%s", Fields(by=actor.name))
    return frozen


def _remove_all(now: datetime, actor: Actor, **conditions: datetime) -> None:
    found = StartFreeze.objects.filter(removed_at=None, **conditions)
    found.update(removed_at=now, removed_by=actor.name[:150])


def _keep(frozen: StartFreeze) -> None:
    times = {name: getattr(frozen, name) for name in ("frozen_at", "ends_at", "removed_at")}
    shown = {name: time.isoformat() if time else None for name, time in times.items()}
    kept.write(_NAME, json.dumps({**shown, "frozen_by": frozen.frozen_by, "reason": frozen.reason}))


def _parse(text: str) -> StartFreeze | None:
    try:
        document = json.loads(text)
        times = {
            name: datetime.fromisoformat(document[name]) if document[name] else None
            for name in ("frozen_at", "ends_at", "removed_at")
        }
        return StartFreeze(**times, frozen_by=str(document["frozen_by"]), reason=str(document["reason"]))
    except (ValueError, KeyError, TypeError) as exc:
        log.warning("the kept freeze of starts can't be read: %s", type(exc).__name__)
        return None
