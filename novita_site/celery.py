"""Celery's app: `celery -A novita_site worker`. This command needs no beat and no broker.

Each worker polls the database for due work. No other process sends tasks, so the broker is a queue in the worker's own
memory, and no fault of Redis (down, full, read-only, foreign data) can hold up a stop. Several workers may run the same
task; the tasks allow for that.
"""

import logging
import os
import sys
import threading
from typing import Any, Final

from celery import Celery, bootsteps
from celery.apps import worker
from celery.signals import celeryd_init, setup_logging, worker_shutting_down
from django.core.exceptions import ImproperlyConfigured

from novita_site import memory, streams

memory.share_arenas()
streams.make_safe()
streams.write_json_if_wanted("stdout", "stderr")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
try:
    __import__(os.environ["DJANGO_SETTINGS_MODULE"])
except ImproperlyConfigured as exc:
    sys.exit(str(exc))

log = logging.getLogger(__name__)

app = Celery("novita_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# A worker that got a signal ends within this time in any case.
END_SECONDS: Final = 8.0


class Ticker(bootsteps.StartStopStep):
    """A thread that looks for work every few seconds. Celery's beat stops when the clock is set back."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        from instances import tasks
        from instances.backup import holding
        from instances.monitoring import counters

        counters.begin()
        holding.begin()
        threading.Thread(target=tasks.tick_until, args=(tasks.is_ending,), name="ticker", daemon=True).start()


app.steps["worker"].add(Ticker)


@setup_logging.connect
def keep_logging(**kwargs: Any) -> None:
    """Keep the log format of the web processes: a receiver of this signal disables Celery's own setup."""


@celeryd_init.connect
def write_no_banner(instance: Any = None, **kwargs: Any) -> None:
    """Leave out what Celery writes past the log and past sys.stdout: its banner, and a line at its end."""
    from django.conf import settings

    if settings.LOG_FORMAT == "json":
        instance.quiet = True
        worker.safe_say = lambda *args: None  # type: ignore[attr-defined]  # no stub
        log.info("worker starts")


@worker_shutting_down.connect
def end(**kwargs: Any) -> None:
    """Start no more work and cancel waiting calls, so that the worker ends soon. Each signal calls this."""
    from instances import tasks

    tasks.is_ending.set()
    threading.Thread(target=cancel_and_leave, name="end", daemon=True).start()


def cancel_and_leave() -> None:
    """Cancel calls until the process exits; exit at once when that takes too long.

    Unfinished work is due again when its claims expire.
    """
    from instances.outgoing.deadline import cancel_until_ended

    if not cancel_until_ended(threading.main_thread(), END_SECONDS):
        log.warning("worker: not all work ended within %g s; the next worker continues it", END_SECONDS)
        os._exit(0)
