"""The thread of each web process that synchronizes the inventory at startup and keeps it fresh.

The lease and the inventory's age, both in Redis, make it one synchronization for all processes: every other process
finds the lease taken or the inventory fresh.
"""

import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import close_old_connections

from instances import outages
from instances.errors import (
    CacheUnavailable,
    NotFoundAtNovita,
    NovitaRateLimited,
    NovitaTimeout,
    NovitaUnavailable,
    PanelError,
    SyncInProgress,
)
from instances.fallback import journal
from instances.instance import Instance, parse_time
from instances.inventory import lease, store, sync
from instances.models import SyncRun
from instances.novita.client import get_novita
from instances.novita.parallel import call_each
from instances.operations import emergency
from instances.outgoing.deadline import Budget, cancel_running, cancel_until_ended, cancellable
from instances.redis_client import NOVITA_TURN, end_turn, take_turn, takes_writes

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 1.0
END_SECONDS: Final = 5
MIN_PAUSE: Final = timedelta(seconds=4)
FIRST_RETRY_SECONDS: Final = 5
MAX_RETRY_SECONDS: Final = 60
MOVING_PAUSE_SECONDS: Final = 3
MOVING_TROUBLE_PAUSE_SECONDS: Final = 20
MOVING_ROUND_SECONDS: Final = 20
# More moving instances than this are left to synchronizations: a page of the list costs one call, like one instance.
MAX_MOVING_READS: Final = 40
# These come as often as direct reads would, unless the list has many pages.
LARGE_INVENTORY: Final = 1000
LARGE_MOVING_PAUSE_SECONDS: Final = 10
# While a dashboard is open and Novita fails, one call at most in this time looks whether it answers again.
PROBE_SECONDS: Final = 1
# How long Novita has to answer that call.
PROBE_BUDGET_SECONDS: Final = 2
# A dashboard looks every three seconds, at one process or another.
WATCHED_SECONDS: Final = 15
_OUTAGES: Final = (NovitaUnavailable.code, NovitaTimeout.code)
# An instance that moves for longer is stuck, and left to the synchronizations.
STUCK_AFTER: Final = timedelta(minutes=10)

_stop = threading.Event()
_thread: threading.Thread | None = None
_watched_at = float("-inf")


def note_watcher() -> None:
    """Note that a dashboard is open, whose reader waits for Novita to recover."""
    global _watched_at
    _watched_at = time.monotonic()


def begin() -> None:
    """Start the thread if this process serves the web. Called when Django is ready."""
    if not (settings.NOVITA_SYNC_ON_STARTUP or settings.NOVITA_SYNC_INTERVAL) or not is_web_process(sys.argv):
        return
    # A thread doesn't survive a fork: under gunicorn's --preload this process only forks the workers.
    os.register_at_fork(after_in_child=_start_thread)
    if not is_gunicorn_master():
        _start_thread()


def is_web_process(argv: list[str]) -> bool:
    """Tell whether this process serves the web: servers import `wsgi`, and runserver serves in its child process."""
    if argv[1:2] == ["runserver"]:
        return os.environ.get("RUN_MAIN") == "true" or "--noreload" in argv
    return "novita_site.wsgi" in sys.modules


def is_gunicorn_master() -> bool:
    """Tell whether this is gunicorn's master, before it forks: a worker would have set its signal handlers by now."""
    if "gunicorn.arbiter" not in sys.modules:
        return False
    from gunicorn.workers.base import Worker

    return not isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), Worker)


def _start_thread() -> None:
    global _thread
    _thread = threading.Thread(target=_keep_fresh, name="refresher", daemon=True)
    _thread.start()


def end() -> None:
    """Cancel this process's synchronization, which frees the lease at once."""
    _stop.set()
    cancel_running()


def wait() -> None:
    """Wait until the thread has released its lease."""
    end()
    if _thread:
        cancel_until_ended(_thread, END_SECONDS)
    journal.end()


def _keep_fresh() -> None:
    refresher = Refresher()
    # Spread the first calls of processes that start together.
    pause = random.uniform(0, 0.2)
    while not _stop.wait(pause):
        try:
            refresher.tick()
            emergency.tick()
        except outages.DATABASE_ERRORS as exc:
            outages.note_database_error(exc)
        except Exception:
            log.exception("refresher: a round failed")
        finally:
            close_old_connections()
        pause = TICK_SECONDS * random.uniform(0.8, 1.2)


class Refresher:
    """One process's share in keeping the inventory fresh. `tick` is called about once a second."""

    def __init__(self) -> None:
        self._is_started = not settings.NOVITA_SYNC_ON_STARTUP
        self._refusals = 0
        self._paused_until = 0.0
        self._takes_writes = True
        self._has_read = False
        self._spent_failures = 0

    def tick(self) -> None:
        """Synchronize when it is time, otherwise read the moving instances."""
        try:
            state = store.read_state()
            outages.redis.note_success()
            if not self._has_read and state.freshness.as_of:
                # An inventory of another version is discovered now, and not by the first reader.
                self._has_read = True
                store.check_rows()
                state = store.read_state()
            trigger = self._find_due(state)
            if trigger and self._can_publish():
                self._synchronize(trigger, state)
            elif self._can_publish() and self._answers_again(state):
                # Once for each failed synchronization: Novita may answer this call and no other.
                self._spent_failures = state.failures + 1
                self._synchronize(SyncRun.Trigger.INTERVAL, state)
            elif 0 < len(state.moving) <= MAX_MOVING_READS:
                _follow_moving(state)
        except CacheUnavailable as exc:
            outages.note_redis_error(exc)

    def _find_due(self, state: store.State) -> SyncRun.Trigger | None:
        """Return the trigger of a synchronization that is due now, or None."""
        interval = settings.NOVITA_SYNC_INTERVAL
        as_of = state.freshness.as_of
        if not self._is_started:
            # Another process, or the previous one, may just have synchronized.
            fresh = timedelta(seconds=interval or settings.NOVITA_STALE_AFTER)
            self._is_started = as_of is not None and _is_within(fresh, as_of, state.now)
        if state.lease is not None or not _is_retry_due(state):
            return None
        if not self._is_started:
            return SyncRun.Trigger.STARTUP
        if as_of is None and not state.cleared_at:
            # A lost or damaged inventory is restored whatever the interval.
            return None if _has_just_synced(state) else SyncRun.Trigger.INTERVAL
        if not interval:
            return None
        wanted_age = interval
        if len(state.moving) > MAX_MOVING_READS:
            is_large = state.size > LARGE_INVENTORY
            wanted_age = min(interval, LARGE_MOVING_PAUSE_SECONDS if is_large else MOVING_PAUSE_SECONDS)
        is_young = as_of is not None and _is_within(timedelta(seconds=wanted_age), as_of, state.now)
        return None if is_young else SyncRun.Trigger.INTERVAL

    def _answers_again(self, state: store.State) -> bool:
        """Tell whether Novita, whose failure somebody watches, answers before the next attempt is due.

        A limit of the rate, or a Retry-After, is respected.
        """
        is_failing = state.code in _OUTAGES and state.lease is None and state.failures != self._spent_failures
        is_watched = settings.NOVITA_SYNC_INTERVAL and time.monotonic() - _watched_at < WATCHED_SECONDS
        if not (is_failing and is_watched and take_turn(NOVITA_TURN, MAX_RETRY_SECONDS)):
            return False
        pause: float = PROBE_SECONDS
        budget = Budget(PROBE_BUDGET_SECONDS)
        try:
            with cancellable(budget):
                get_novita().probe(budget)
        except PanelError as exc:
            least = MAX_RETRY_SECONDS if isinstance(exc, NovitaRateLimited) else PROBE_SECONDS
            pause = min(max(least, exc.retry_after or 0), MAX_RETRY_SECONDS)
            log.debug("refresher: Novita still fails: %s", exc)
            return False
        finally:
            end_turn(NOVITA_TURN, pause)
        return True

    def _can_publish(self) -> bool:
        """Tell whether Redis would accept a synchronization's result, after it refused one."""
        if not self._takes_writes and takes_writes():
            # Redis was full or a replica, and no longer is.
            self._takes_writes, self._paused_until = True, 0.0
        return self._takes_writes and time.monotonic() >= self._paused_until

    def _synchronize(self, trigger: SyncRun.Trigger, state: store.State) -> None:
        try:
            sync.synchronize(trigger, is_due=lambda now: now.attempt_at == state.attempt_at)
            self._is_started = True
            self._refusals = 0
        except CacheUnavailable as exc:
            # Such a Redis can't count these failures, as it counts those of Novita.
            self._refusals += 1
            self._paused_until = time.monotonic() + _get_retry_pause(self._refusals)
            self._takes_writes = takes_writes()
            log.debug("refresher: %s", exc)
        except SyncInProgress:
            log.debug("refresher: another process synchronizes")
        except PanelError as exc:
            log.debug("refresher: %s", exc)


def _is_retry_due(state: store.State) -> bool:
    """Tell whether a failed synchronization may be repeated: after 5 s, 10 s, … up to a minute."""
    pause = timedelta(seconds=_get_retry_pause(state.failures))
    return not state.failures or state.attempt_at is None or not _is_within(pause, state.attempt_at, state.now)


def _has_just_synced(state: store.State) -> bool:
    """Tell whether a synchronization ended seconds ago: two versions with different formats would never stop."""
    return state.completed_at is not None and _is_within(MIN_PAUSE, state.completed_at, state.now)


def _is_within(pause: timedelta, since: datetime, now: datetime) -> bool:
    """Tell whether a pause is not over. A pause that began in the future is over: a clock was set back."""
    return timedelta(0) <= now - since < pause


def _get_retry_pause(failures: int) -> float:
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10), MAX_RETRY_SECONDS)


def _follow_moving(state: store.State) -> None:
    """Read the moving instances every few seconds, in one process at a time."""
    if not lease.take_turn():
        return
    pause = MOVING_PAUSE_SECONDS
    try:
        novita, budget = get_novita(), Budget(MOVING_ROUND_SECONDS)
        shown = store.find_instances(sorted(state.moving))
        wanted = [id_ for id_, instance in shown.items() if not _is_stuck(instance, state)]
        with cancellable(budget):
            for id_, outcome in call_each(lambda id_: novita.get_instance(id_, budget), wanted, novita.concurrency):
                if isinstance(outcome, Instance):
                    store.write_instance(outcome, read_began=state.tick)
                elif isinstance(outcome, NotFoundAtNovita):
                    store.remove_instance(id_, read_began=state.tick)
                else:
                    # Spare a provider in trouble.
                    pause = MOVING_TROUBLE_PAUSE_SECONDS
                    log.debug("refresher: %s not read: %s", id_, outcome)
    finally:
        lease.end_turn(pause)


def _is_stuck(shown: Mapping[str, Any], state: store.State) -> bool:
    return state.now - parse_time(shown["changedAt"]) > STUCK_AFTER
