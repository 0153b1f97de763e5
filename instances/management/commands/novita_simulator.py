"""`manage.py novita_simulator`: a stand-in for Novita's API, to try the service without a key and without a bill."""

import argparse
import math
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from instances import simulator


def count_up_to(maximum: int) -> Callable[[str], int]:
    """Return a parser of integers from 0 to maximum."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) > maximum:
            raise argparse.ArgumentTypeError(f"must be an integer from 0 to {maximum}, not {text!r}")
        return int(text)

    return parse


def number_between(least: float, most: float, noun: str = "number") -> Callable[[str], float]:
    """Return a parser of numbers."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a {noun} from {least} to {most}, not {text!r}")
        return number

    return parse


parse_seconds = number_between(0, 3600, "number of seconds")


class Command(BaseCommand):
    help = (
        "Serve a stand-in for Novita's GPU-instance API on 127.0.0.1 until Ctrl-C. It accepts any key. POST /__faults "
        "adds a fault, DELETE /__faults clears all; GET /__calls lists the calls; GET and POST /__instances read and "
        "change the account."
    )
    requires_system_checks = []  # It needs no key, no database and no Redis.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--port",
            type=count_up_to(65535),
            default=3900,
            help="port to listen on; 0 picks a free one (default: %(default)s)",
        )
        parser.add_argument(
            "--instances",
            type=count_up_to(1_000_000),
            default=25,
            help="number of instances in the account (default: %(default)s)",
        )
        parser.add_argument(
            "--latency",
            type=parse_seconds,
            default=0.0,
            metavar="SECONDS",
            help="delay before every answer of the API (default: %(default)s)",
        )
        parser.add_argument(
            "--page-base",
            type=int,
            choices=(0, 1),
            default=1,
            help="number of the first page; with 1, page 0 is answered as page 1 (default: %(default)s)",
        )
        parser.add_argument(
            "--seed",
            type=count_up_to(2**63),
            default=1,
            help="the same seed gives the same instances (default: %(default)s)",
        )
        parser.add_argument(
            "--step-seconds",
            type=parse_seconds,
            default=2.0,
            metavar="SECONDS",
            help="duration of each transitional status, such as toStop and stopping (default: %(default)s)",
        )

        parser.add_argument(
            "--time-factor",
            # A week in a second is enough for a test.
            type=number_between(1, 1_000_000),
            default=1.0,
            metavar="FACTOR",
            help="how many times faster the account's clock runs: its statuses, times, bills and balance "
            "(default: %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        account = simulator.Account(
            instances=options["instances"],
            seed=options["seed"],
            page_base=options["page_base"],
            step_seconds=options["step_seconds"],
            clock=simulator.make_clock(options["time_factor"]),
        )
        try:
            simulator.serve(account, options["port"], options["latency"], self._tell)
        except OSError as exc:
            raise CommandError(f"Cannot listen on 127.0.0.1:{options['port']}: {exc.strerror}") from exc

    def _tell(self, line: str) -> None:
        self.stdout.write(line, self.style.SUCCESS)
        self.stdout.flush()
