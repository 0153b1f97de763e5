"""`manage.py check_worker`."""

import socket
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from instances.errors import CacheUnavailable
from instances.fallback import database
from instances.inventory import heartbeat, store
from instances.redis_client import WORKER_SECONDS


class Command(BaseCommand):
    help = (
        "Check that a worker runs on this machine or in this container. A worker gives a sign of life in Redis every 2 "
        f"seconds, which counts for {WORKER_SECONDS} seconds. It must use the same database. Exit status: 0 a worker "
        "runs; 1 none does, or the database or Redis can't be used. The answer comes within 5 seconds. For the "
        "HEALTHCHECK of a container and for monitoring."
    )
    # A check every few seconds reports a worker, not the settings.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--any", action="store_true", help="accept a worker of any machine or container")

    def handle(self, *args: Any, **options: Any) -> None:
        host = socket.gethostname()
        if trouble := database.find_trouble():
            raise CommandError(f"The database can't be used, so no worker can work: {trouble}.")
        try:
            is_running = store.read_state().has_worker if options["any"] else heartbeat.has_worker_on(host)
        except CacheUnavailable as exc:
            raise CommandError(f"{exc.message} Without Redis a worker can't be checked.") from exc
        place = "any machine" if options["any"] else host
        if not is_running:
            raise CommandError(
                f"No worker on {place} has given a sign of life within {WORKER_SECONDS} s. "
                "Start one: celery -A novita_site worker"
            )
        self.stdout.write("A worker runs." if options["any"] else f"A worker runs on {host}.")
