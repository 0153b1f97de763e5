"""Whose turn it is to evaluate, and the watch: the seconds in which workers watched.

Each worker counts by its steady clock, and the sum is stored. A wall clock that jumps moves neither a grace period nor
an hourly limit; while no worker runs, both stand still.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from instances import clock
from instances.models import EvaluationState
from instances.policies.lifecycle import Moment

# Longer than an evaluation takes. Another worker takes over from a killed one after this time.
CLAIM_SECONDS: Final = 120.0
_ROW: Final = 1


class Watch:
    """One worker's part in the watch."""

    def __init__(self, steady: Callable[[], float] = clock.steady) -> None:
        self._steady = steady
        self._token = uuid.uuid4().hex
        self._began = steady()
        self._last: float | None = None

    @property
    def uptime_seconds(self) -> float:
        return self._steady() - self._began

    @contextmanager
    def turn(self, now: datetime | None = None) -> Iterator[Moment | None]:
        """Hold the turn of an evaluation; None when another worker holds it or has just evaluated.

        An evaluation that raises, for example without Redis, has watched nothing, and its time doesn't count.
        """
        now = now or timezone.now()
        if not self._claim(now):
            yield None
            return
        own = EvaluationState.objects.filter(pk=_ROW, claim=self._token)
        try:
            at = self._read(now)
            yield at
            own.update(watch_seconds=at.watch)
        finally:
            own.update(claim="", claimed_until=None)

    def _claim(self, now: datetime) -> bool:
        EvaluationState.objects.get_or_create(pk=_ROW)
        is_free = Q(claimed_until=None) | Q(claimed_until__lte=now)
        is_free |= Q(claimed_until__gt=now + timedelta(seconds=CLAIM_SECONDS + clock.SKEW_SECONDS))
        is_time = Q(evaluated_at=None) | Q(evaluated_at__gt=now)
        is_time |= Q(evaluated_at__lte=now - timedelta(seconds=0.8 * settings.POLICIES_EVALUATE_SECONDS))
        state = EvaluationState.objects.filter(is_free, is_time, pk=_ROW)
        return bool(state.update(claim=self._token, claimed_until=now + timedelta(seconds=CLAIM_SECONDS)))

    def _read(self, now: datetime) -> Moment:
        """Return the watch, with the time since the last evaluation of any worker, as far as this one has watched."""
        steady = self._steady()
        state = EvaluationState.objects.get(pk=_ROW)
        own = 0.0 if self._last is None else steady - self._last
        shared = own if state.evaluated_at is None else (now - state.evaluated_at).total_seconds()
        elapsed = max(0.0, min(own, shared, 2 * settings.POLICIES_EVALUATE_SECONDS))
        self._last = steady
        EvaluationState.objects.filter(pk=_ROW).update(evaluated_at=now)
        return Moment(now, state.watch_seconds + elapsed)


def read_state() -> EvaluationState:
    """Return the state of the evaluation. Raises DatabaseError."""
    return EvaluationState.objects.filter(pk=_ROW).first() or EvaluationState(pk=_ROW)


def write_switch(*, is_off: bool, by: str) -> EvaluationState:
    """Switch all acting of policies off or on."""
    EvaluationState.objects.update_or_create(
        pk=_ROW, defaults={"is_switched_off": is_off, "switched_by": by[:150], "switched_at": timezone.now()}
    )
    return read_state()
