"""Celery's app: `celery -A novita_site worker`. Each worker has the schedule inside, so that one command is enough.

With several workers a task is due several times; the tasks bear that.
"""

import os
from typing import Any

from celery import Celery, bootsteps
from celery.beat import EmbeddedService, Scheduler
from celery.signals import setup_logging, worker_shutting_down

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")

app = Celery("novita_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


class Schedule(bootsteps.StartStopStep):
    """Runs beat as a thread of the worker: what `-B` does in a process, and without its file."""

    def create(self, worker: Any) -> Any:
        return EmbeddedService(worker.app, thread=True, scheduler_cls=Scheduler)


app.steps["worker"].add(Schedule)


@setup_logging.connect
def keep_logging(**kwargs: Any) -> None:
    """Log as the web processes do; a receiver of this signal keeps Celery from its own set-up."""


@worker_shutting_down.connect
def end(**kwargs: Any) -> None:
    """End what waits for Novita, so that the worker is gone soon; another takes it up."""
    from instances.deadline import cancel_running

    cancel_running()
