"""`manage.py costs`."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from instances.api.csv_files import write_csv
from instances.costs import focus, reports
from instances.costs.period import Period, read_period
from instances.costs.reports import Sums
from instances.errors import InvalidRequest
from instances.instance import to_usd

NONE: Final = "(none)"


class Command(BaseCommand):
    help = "Print what the instances have cost, by the ledger: GPU hours, cost in USD, and the time not observed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="begin", metavar="DATE", help="first day or time, UTC (default: 30 days)")
        parser.add_argument("--to", dest="end", metavar="DATE", help="last day, or a time, UTC (default: now)")
        parser.add_argument("--by", choices=[*reports.GROUPS, "day"], default="instance", help="default: %(default)s")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_const", dest="format", const="json", help="same as --format json")
        form.add_argument("--csv", action="store_const", dest="format", const="csv", help="same as --format csv")
        form.add_argument(
            "--format",
            choices=["text", "json", "csv", "focus"],
            help="focus: a CSV file in the columns of FOCUS 1.0, by instance, day and price",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            period = read_period(options["begin"], options["end"])
        except InvalidRequest as exc:
            reasons = "; ".join(f"--{name}: {reason}" for name, reason in exc.fields.items())
            raise CommandError(reasons) from exc
        try:
            self._write(period, options)
        except DatabaseError as exc:
            raise CommandError(
                f"The database can't be used: {exc}. Run `manage.py migrate` if tables are missing."
            ) from exc

    def _write(self, period: Period, options: Mapping[str, Any]) -> None:
        if options["format"] == "focus":
            self._write_csv(focus.COLUMNS, list(focus.list_rows(period.began_ms, period.ended_ms)))
            return
        rows = [_show(name, sums, options["by"]) for name, sums in _read(period, options["by"])]
        match options["format"]:
            case "json":
                self.stdout.write(json.dumps({"rows": rows}, ensure_ascii=False))
            case "csv":
                self._write_csv(list(_show(("", ""), Sums(), options["by"])), rows)
            case _:
                self._print(rows, options["by"])

    def _write_csv(self, fields: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        # Without the byte-order mark of a download: a program reads this.
        for text in write_csv(fields, ([row[name] for name in fields] for row in rows), has_mark=False):
            self.stdout.write(text, ending="")

    def _print(self, rows: Sequence[Mapping[str, Any]], by: str) -> None:
        total = sum((Decimal(str(row["cost"] or 0)) for row in rows), Decimal(0))
        hours = sum((Decimal(str(row["gpuHours"])) for row in rows), Decimal(0))
        names = [_clean(row["name"]) for row in rows]
        width = max(map(len, [by, "Total", *names]))
        self.stdout.write(f"{by.capitalize():{width}}  {'GPU hours':>10}  {'USD':>12}  {'gap hours':>10}")
        for name, row in zip(names, rows, strict=True):
            cost = "not known" if row["cost"] is None else f"{row['cost']:,.2f}"
            gap = row["gapSeconds"] / 3600
            self.stdout.write(f"{name:{width}}  {row['gpuHours']:>10.2f}  {cost:>12}  {gap:>10.2f}")
        self.stdout.write(f"{'Total':{width}}  {hours:>10.2f}  {total:>12,.2f}")
        if unpriced := sum(row["unpricedSeconds"] for row in rows):
            self.stderr.write(f"{unpriced / 3600:.2f} hours at an unknown price are not included.")


def _read(period: Period, by: str) -> list[tuple[tuple[str, str], Sums]]:
    """Return the sums, each with an id and a name for people."""
    if by == "day":
        points = reports.read_history(period.began_ms, period.ended_ms, reports.DAY_MS)
        days = [datetime.fromtimestamp(point.at_ms / 1000, UTC).date().isoformat() for point in points]
        return [((day, day), point.sums) for day, point in zip(days, points, strict=True)]
    used = reports.read_instances(period.began_ms, period.ended_ms)
    if by == "instance":
        return [((one.instance.instance_id, str(one.instance)), one.sums) for one in used]
    return [((name, name or NONE), sums) for name, sums in reports.sum_by(used, by).items()]


def _show(key: tuple[str, str], sums: Sums, by: str) -> dict[str, Any]:
    return {
        **({"id": key[0]} if by == "instance" else {}),
        "name": key[1],
        "gpuHours": to_usd(sums.gpu_hours),
        "cost": to_usd(sums.known_usd),
        "inferredSeconds": sums.inferred / 1000,
        "gapSeconds": sums.gap / 1000,
        "unpricedSeconds": sums.unpriced / 1000,
    }


def _clean(name: str) -> str:
    # A name must not move a terminal's cursor.
    return "".join(char if char.isprintable() else "�" for char in name)
