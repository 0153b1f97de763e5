"""Celery's app: `celery -A novita_site worker`. Each worker finds its own work, so that this one command is enough.

What is due stands in the database, and each worker looks there. Nobody else sends a task, so the broker is a queue in
the worker's own memory: nothing that happens to Redis (away, full, read-only, foreign bytes in it) can keep a stop from
being moved on. With several workers a task is due several times; the tasks bear that.
"""

import logging
import os
import sys
import threading
from typing import Any, Final

from celery import Celery, bootsteps
from celery.signals import setup_logging, worker_shutting_down
from django.core.exceptions import ImproperlyConfigured

from novita_site import streams

streams.make_safe()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
try:
    __import__(os.environ["DJANGO_SETTINGS_MODULE"])
except ImproperlyConfigured as exc:
    sys.exit(str(exc))

log = logging.getLogger(__name__)

app = Celery("novita_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# A worker that was told to end is gone by then, whatever it is in the middle of.
END_SECONDS: Final = 8.0


class Ticker(bootsteps.StartStopStep):
    """Looks for work every few seconds, in a thread. Not Celery's beat: that one stops when the clock is set back."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        from instances import tasks

        threading.Thread(target=tasks.tick_until, args=(tasks.is_ending,), name="ticker", daemon=True).start()


app.steps["worker"].add(Ticker)


@setup_logging.connect
def keep_logging(**kwargs: Any) -> None:
    """Log as the web processes do; a receiver of this signal keeps Celery from its own set-up."""


@worker_shutting_down.connect
def end(**kwargs: Any) -> None:
    """Begin nothing more, and end what waits for others, so that the worker is gone soon. Each signal calls this."""
    from instances import tasks

    tasks.is_ending.set()
    threading.Thread(target=cancel_and_leave, name="end", daemon=True).start()


def cancel_and_leave() -> None:
    """Cancel calls until the process exits; exit at once when that takes too long.

    Unfinished work is due again when its claims expire.
    """
    from instances.outgoing.deadline import cancel_until_ended

    if not cancel_until_ended(threading.main_thread(), END_SECONDS):
        log.warning("worker: not everything ended within %g s; the rest is left to the next worker", END_SECONDS)
        os._exit(0)
