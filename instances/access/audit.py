"""The record of each change and each attempt. A change that can't be recorded is logged."""

import getpass
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Q
from django.http import HttpRequest

from instances.answers import find_request_id
from instances.errors import PanelError
from instances.fallback import journal, standby
from instances.instance import clean_text
from instances.models import Action, AuditEntry, old

log = logging.getLogger(__name__)

DONE: Final = "done"


@dataclass(frozen=True)
class Actor:
    """A user's name, "worker", or a shell's user; with the address and the id of the request, if there is a request."""

    name: str = ""
    address: str = ""
    request_id: str = ""

    def __post_init__(self) -> None:
        # The environment names a shell's user, so the name can be any text.
        object.__setattr__(self, "name", clean_text(self.name))


WORKER: Final = Actor("worker")
# The account of the person at the machine, on loopback without a login.
LOCAL_OWNER: Final = "local-owner"
# No user may have one of these names, in upper or lower case.
RESERVED_NAMES: Final = {LOCAL_OWNER, WORKER.name}


def get_actor(request: HttpRequest) -> Actor:
    """Return the sender of a request. A token is named together with its owner."""
    token = getattr(request, "auth", None)
    return Actor(
        name=f"{request.user.get_username()}{f' (token {token.name})' if token else ''}",
        address=request.META.get("REMOTE_ADDR", ""),
        request_id=find_request_id(request) or "",
    )


def get_visitor(request: HttpRequest | None, name: str) -> Actor:
    """Return the sender of a request who isn't logged in, or not yet, by the name that they gave."""
    if request is None:
        return Actor(name)
    return Actor(name, request.META.get("REMOTE_ADDR", ""), find_request_id(request) or "")


def get_shell_actor() -> Actor:
    """Return the machine's user who runs the command."""
    try:
        return Actor(f"{getpass.getuser()} (shell)")
    except (OSError, KeyError):  # A user id without a name, as containers have.
        return Actor(f"uid {os.getuid()} (shell)")


def make_entry(actor: Actor, action: str, target: str = "", **fields: str) -> AuditEntry:
    """Return an unsaved entry. Texts are cut to the length of their columns."""
    entry = AuditEntry(
        actor=actor.name[:150],
        address=actor.address[:45],
        request_id=actor.request_id[:64],
        action=action,
        target=clean_text(target, 128),
        outcome=DONE,
    )
    for name, value in fields.items():
        setattr(entry, name, value)
    return entry


@contextmanager
def recorded(actor: Actor, action: str, target: str = "", **fields: str) -> Iterator[AuditEntry]:
    """Record the outcome of the block: done, or the PanelError that it raised. The block may fill in the entry."""
    entry = make_entry(actor, action, target, **fields)
    try:
        yield entry
    except PanelError as exc:
        entry.outcome, entry.error = exc.code, exc.message
        raise
    except Exception:
        entry.outcome = PanelError.code
        raise
    finally:
        save([entry])


def save(entries: Sequence[AuditEntry]) -> None:
    for entry in entries:
        entry.target_name = clean_text(entry.target_name, 255)
        entry.before, entry.after = clean_text(entry.before, 255), clean_text(entry.after, 255)
        entry.reason, entry.error = clean_text(entry.reason), clean_text(entry.error)
    try:
        AuditEntry.objects.bulk_create(entries, batch_size=500)
    except DatabaseError as exc:
        log.warning("audit entry not recorded: %s %s: %s", entries[0].action, entries[0].target, exc)
        if not standby.is_used():
            journal.keep_entries(entries)


def forget_old() -> None:
    """Delete old entries. Those of logins have a time of their own: they have people's addresses."""
    of_logins = Q(action__in=(Action.LOGIN, Action.LOGOUT))
    old.delete(old.list_old(AuditEntry.objects.filter(of_logins), "at", settings.KEEP_LOGINS_DAYS))
    old.delete(old.list_old(AuditEntry.objects.exclude(of_logins), "at", settings.KEEP_ACTIVITY_DAYS))
