"""Who may advance an operation at this moment: one process holds its claim, and others may hold shares of its targets.

A claim stands in the database and lasts 15 s unless it is renewed, so that another process takes over from a dead or
suspended one.
"""

import logging
import threading
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connections
from django.db.models import Q, QuerySet
from django.utils import timezone

from instances import clock
from instances.fallback import standby
from instances.models import Operation, Protection, Target

log = logging.getLogger(__name__)

CLAIM_SECONDS: Final[float] = settings.OPERATION_CLAIM_SECONDS
HEARTBEAT_SECONDS: Final = 1


class Claim:
    """The right to advance an operation, renewed from `with` until the block ends or its process dies or hangs."""

    def __init__(self, operation_id: uuid.UUID, token: str) -> None:
        self._operation_id = operation_id
        self.token = token
        # The database's last error in this round; None once a write succeeds.
        self.error: DatabaseError | None = None
        self._ended = threading.Event()
        self._is_cancelled = False
        # As the last heartbeat has read them: this costs a stop no query, which might hang.
        self.protected: frozenset[str] = frozenset()
        self._renewed_at = clock.steady()
        self._keeper = threading.Thread(target=standby.carry(self._keep), name="claim", daemon=True)

    def __enter__(self) -> "Claim":
        # The work before the first round may have taken longer than a claim lasts.
        self._renew()
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._get_own().update(claim="", claimed_until=None)

    def _end(self) -> None:
        self._ended.set()
        # A database that hangs holds the thread, and must not hold this one.
        self._keeper.join(HEARTBEAT_SECONDS)

    def is_held(self) -> bool:
        # A process that was suspended finds its claim expired before the database tells that another has taken it.
        return clock.steady() - self._renewed_at < CLAIM_SECONDS and not self._ended.is_set()

    def may_request(self) -> bool:
        """Tell whether the claim is still held, and the operation is not cancelled."""
        return self.is_held() and not self._is_cancelled

    def _keep(self) -> None:
        try:
            while not self._ended.wait(HEARTBEAT_SECONDS):
                self._renew()
        finally:
            connections.close_all()

    def _renew(self) -> None:
        began = clock.steady()
        try:
            is_ours = self._get_own().update(claimed_until=find_claim_end())
            self._read_changes()
        except DatabaseError as exc:
            log.warning("operation %s: claim not renewed", self._operation_id, exc_info=exc)
            self.error = exc
            return
        self.error = None
        if is_ours:
            self._renewed_at = began
        else:
            self._ended.set()

    def _read_changes(self) -> None:
        cancelled = Operation.objects.filter(pk=self._operation_id, state=Operation.State.CANCELLED)
        self._is_cancelled = cancelled.exists()
        self.protected = frozenset(Protection.objects.values_list("instance_id", flat=True))

    def _get_own(self) -> QuerySet[Operation]:
        return Operation.objects.filter(pk=self._operation_id, claim=self.token)


class Share(Claim):
    """The right to request some pending targets of an operation, whichever process holds its claim.

    `next_request_at` reserves them in the database. A share that isn't renewed in time ends for good. The next round
    requests the rest of its targets.
    """

    def __init__(self, operation_id: uuid.UUID, targets: Sequence[Target]) -> None:
        super().__init__(operation_id, "")
        self.targets = targets

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_held = self.is_held()
        self._end()
        if is_held:
            self._reserve(until=None)

    def _renew(self) -> None:
        if not self.is_held():
            self._ended.set()
            return
        began = clock.steady()
        try:
            self._reserve(until=find_claim_end())
            self._read_changes()
        except DatabaseError as exc:
            log.warning("operation %s: share not renewed: %s", self._operation_id, exc)
            self.error = exc
            return
        self.error = None
        self._renewed_at = began

    def _reserve(self, *, until: datetime | None) -> None:
        # Those that this process has requested may have been reserved since, by another one that has joined.
        own = [target.pk for target in self.targets if target.state == Target.State.PENDING]
        Target.objects.filter(pk__in=own, state=Target.State.PENDING).update(next_request_at=until)


def take_claim(operation: Operation) -> Claim | None:
    """Take the claim unless another process has it, or the operation has finished."""
    token = uuid.uuid4().hex
    free = Operation.objects.filter(find_free(), pk=operation.pk, finished_at=None)
    if not free.update(claim=token, claimed_until=find_claim_end()):
        return None
    return Claim(operation.pk, token)


def find_free() -> Q:
    """Return the condition that no process holds an operation's claim."""
    return Q(claimed_until=None) | clock.find_due("claimed_until", CLAIM_SECONDS)


def find_unreserved() -> Q:
    """Return the condition that no share is requesting a pending target."""
    return Q(next_request_at=None) | clock.find_due("next_request_at", CLAIM_SECONDS)


def find_claim_end() -> datetime:
    """Return when a claim or a share that is taken now ends, unless it is renewed."""
    return timezone.now() + timedelta(seconds=CLAIM_SECONDS)
