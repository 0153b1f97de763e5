"""Attempts to deliver a webhook or a notification: with longer and longer pauses for a day, and each recorded.

A claim keeps other workers from a row while an attempt runs. A killed attempt is repeated after the claim, with the
same id, by which the receiver knows the event.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from instances import clock
from instances.errors import ShuttingDown
from instances.models import Message, WebhookDelivery

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 5.0
MAX_PAUSE_SECONDS: Final = 6 * 3600.0
GIVE_UP_SECONDS: Final = 24 * 3600.0

Row = TypeVar("Row", WebhookDelivery, Message)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `error` is a sentence, "" for a success; `is_final`: no further attempt can succeed."""

    status: int | None = None
    error: str = ""
    is_final: bool = False


@dataclass(frozen=True)
class Queue(Generic[Row]):
    """The rows of a model that are to be delivered."""

    model: type[Row]
    # For the log.
    name: str
    # The state of a row that has arrived.
    arrived: str
    # Longer than an attempt takes.
    claim: timedelta

    def find_due(self) -> "QuerySet[Row]":
        """Return the rows that are due, oldest first. A row is due after the clock was set back, too."""
        due: QuerySet[Row] = self._rows().filter(self._is_due(), state=self.model.State.DUE)
        return due.order_by("next_attempt_at", "pk")

    def attempt(self, pk: int, send: Callable[[Row], Outcome]) -> None:
        """Make one attempt if the row is due and unclaimed. Store the outcome and the time of the next attempt."""
        now = timezone.now()
        due = self._rows().filter(pk=pk, state=self.model.State.DUE)
        if not due.filter(self._is_due()).update(next_attempt_at=now + self.claim, tries=F("tries") + 1):
            return
        row = self._rows().get(pk=pk)
        began = time.monotonic()
        try:
            outcome = send(row)
        except ShuttingDown:
            # It may have arrived. Another worker sends it again at once.
            due.filter(tries=row.tries).update(next_attempt_at=now, tries=F("tries") - 1)
            return
        milliseconds = round(1000 * (time.monotonic() - began))
        answer = f"HTTP {outcome.status}" if outcome.status else "sent"
        log.info("%s %s to %s: %s", self.name, row.message_id, row.receiver, outcome.error or answer)
        with transaction.atomic():
            if not self._rows().select_for_update().filter(pk=pk).exists():
                # It was deleted meanwhile, with its channel.
                return
            row.attempts.create(
                attempted_at=now, status=outcome.status, milliseconds=milliseconds, error=outcome.error[:200]
            )
            if not outcome.error:
                due.update(state=self.arrived, next_attempt_at=None, ended_at=timezone.now())
                return
            # After a pause longer than its claim, this attempt must not overwrite a later one.
            self._plan(due.filter(tries=row.tries), _find_next_pause(outcome, row.tries))

    def send_again(self, row: Row) -> bool:
        """Make a row that was given up due again, with all attempts. Returns False in any other state."""
        dead = self._rows().filter(pk=row.pk, state=self.model.State.DEAD)
        return bool(dead.update(state=self.model.State.DUE, tries=0, next_attempt_at=timezone.now(), ended_at=None))

    def _rows(self) -> Any:
        return self.model.objects.all()

    def _is_due(self) -> Q:
        is_first_pause_over = Q(tries__lte=3) & clock.find_due("next_attempt_at", self.claim.total_seconds())
        return is_first_pause_over | clock.find_due("next_attempt_at", 1.1 * MAX_PAUSE_SECONDS)

    def _plan(self, own: Any, pause: float | None) -> None:
        if pause is None:
            own.update(state=self.model.State.DEAD, next_attempt_at=None, ended_at=timezone.now())
        else:
            own.update(next_attempt_at=timezone.now() + timedelta(seconds=pause * random.uniform(1.0, 1.1)))


def _find_next_pause(outcome: Outcome, tries: int) -> float | None:
    return None if outcome.is_final or outcome.status == HTTPStatus.GONE else find_pause(tries)


def find_pause(tries: int) -> float | None:
    """Return the seconds between failed attempt number `tries` and the next; None after 24 h in all."""
    pauses = [min(FIRST_PAUSE_SECONDS * 2.0**number, MAX_PAUSE_SECONDS) for number in range(min(tries, 100))]
    return pauses[-1] if sum(pauses[:-1]) <= GIVE_UP_SECONDS else None
