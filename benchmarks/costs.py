"""How long the figures of costs take, and how fast the ledger grows: `python -m benchmarks.costs`.

Django's test client, a Redis in memory and an SQLite file. Times are CPU seconds of this process, since a busy machine
makes any other time meaningless.
"""

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SETTINGS = "tests.settings"
INSTANCES = 10_000
PRODUCTS = ["RTX 4090 24GB", "H100 SXM 80GB", "A100 SXM4 80GB", "L40S 48GB"]
HOUR_MS = 3_600_000
MAX_COSTS_MS, MAX_HISTORY_MS, MAX_GROWTH_MB = 50, 300, 5


def set_up(database: Path) -> None:
    """Use this SQLite file."""
    from django.core.management import call_command
    from django.db import connection

    connection.close()
    connection.settings_dict["NAME"] = str(database)
    call_command("migrate", verbosity=0)


def make_row(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:016x}",
        "name": f"train-{number}",
        "status": "running" if number % 5 in (0, 1, 3) else "exited",
        "productId": PRODUCTS[number % 4],
        "productName": PRODUCTS[number % 4],
        "clusterName": f"region-{number % 7}",
        "gpuNum": str(1 + number % 8),
        "rootfsSize": 100,
        "instancePrice": "35000",
        "createdAt": str(1_760_000_000 + number),
    }


def fill_inventory(count: int, make_row: Callable[[int], dict[str, Any]] = make_row) -> None:
    """Synchronize an account of so many instances."""
    import responses

    from instances.inventory.sync import synchronize

    def answer(request: Any) -> tuple[int, dict[str, str], str]:
        page = int(request.params["pageNum"])
        shown = [make_row(number) for number in range(max(0, page - 1) * 100, min(count, max(1, page) * 100))]
        return 200, {}, json.dumps({"instances": shown, "total": count})

    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_callback(responses.GET, "https://novita.test/gpu-instance/openapi/v1/gpu/instances", answer)
        synchronize("command")


def fill_ledger(count: int, days: int, changes_a_day: float) -> int:
    """Record intervals of so many instances until now. Return the number of intervals."""
    from instances.models import HourSums, LedgerState, MeteredInstance, UsageInterval

    rng = random.Random(1)
    now = round(datetime.now(UTC).timestamp() * 1000)
    MeteredInstance.objects.all().delete()
    MeteredInstance.objects.bulk_create(
        MeteredInstance(instance_id=f"{number:016x}", name=f"train-{number}", gpu=PRODUCTS[number % 4])
        for number in range(count)
    )
    rows = []
    for pk in MeteredInstance.objects.values_list("pk", flat=True):
        span = days * 24 * HOUR_MS
        times = sorted(rng.randrange(span) for _ in range(round(days * changes_a_day)))
        begins = [now - span, *(now - span + at for at in times)]
        for number, began in enumerate(begins):
            ended = begins[number + 1] if number + 1 < len(begins) else None
            rows.append(
                UsageInterval(
                    instance_id=pk, state=1 + number % 2, began_ms=began, ended_ms=ended, price=3_500_000_000, gpus=1
                )
            )
    UsageInterval.objects.bulk_create(rows, batch_size=2000)
    HourSums.objects.all().delete()
    LedgerState.objects.update_or_create(pk=1, defaults={"observed_ms": now, "summed_ms": None, "digest": "x"})
    return len(rows)


def measure_cpu_ms(work: Callable[[], object], rounds: int = 9) -> float:
    """Return the median CPU time of one call, in milliseconds."""
    work()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        spent.append(1000 * (time.process_time() - began))
    return statistics.median(spent)


def measure_reads(intervals_each: float) -> dict[str, float]:
    """Return CPU milliseconds of the reads, with 10,000 instances and a ledger of 30 days."""
    from django.test import Client

    from instances.costs import burn, hours

    client = Client(SERVER_NAME="localhost")
    count = fill_ledger(INSTANCES, 30, intervals_each / 30)
    since = (datetime.now(UTC) - timedelta(days=30)).strftime("%Y-%m-%d")

    def read(path: str) -> Callable[[], object]:
        def run() -> object:
            answer = client.get(path)
            assert answer.status_code == 200, answer.content
            return answer

        return run

    def compute_anew() -> object:
        burn._last = None
        return read("/api/costs")()

    found = {
        "intervals": count,
        "list of 100": measure_cpu_ms(read("/api/instances?pageSize=100")),
        "costs": measure_cpu_ms(read("/api/costs")),
        "costs of a new revision": measure_cpu_ms(compute_anew),
        "history of 30 days, without a worker": measure_cpu_ms(read(f"/api/costs/history?from={since}"), 3),
        "instances of 30 days": measure_cpu_ms(read(f"/api/costs/instances?from={since}"), 3),
    }
    hours.sum_up()
    found["history of 30 days"] = measure_cpu_ms(read(f"/api/costs/history?from={since}"))
    found["history of 30 days by hour"] = measure_cpu_ms(read(f"/api/costs/history?from={since}&step=hour"))
    found["page of 30 days"] = measure_cpu_ms(read("/costs/?range=30d"), 3)
    return found


def list_broken_promises(found: Mapping[str, float], growth: float) -> list[str]:
    """Return what takes longer than promised, or more space."""
    more = found["costs of a new revision"] - found["list of 100"]
    promises = {
        "GET /api/costs takes more than 50 ms longer than a page of the list": more < MAX_COSTS_MS,
        "a history of 30 days takes more than 300 ms": found["history of 30 days"] < MAX_HISTORY_MS,
        "a day of 10,000 changes takes more than 5 MB": growth < MAX_GROWTH_MB,
    }
    return [promise for promise, is_kept in promises.items() if not is_kept]


def measure_growth(instances: int = 1000, changes_a_day: int = 10) -> float:
    """Return the MB by which the database grows in a day."""
    fill_ledger(instances, 1, 0)
    before = _measure_bytes()
    fill_ledger(instances, 1, changes_a_day)
    return (_measure_bytes() - before) / 1e6


def _measure_bytes() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (page_count - freelist_count) * page_size "
            "FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"
        )
        return int(cursor.fetchone()[0])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "costs.sqlite3"
        set_up(database)
        fill_inventory(INSTANCES)
        broken = []
        growth = measure_growth()
        print(f"growth with 1,000 instances and 10 changes a day: {growth:.2f} MB a day")
        for intervals_each in (6, 30):
            found = measure_reads(intervals_each)
            for name, figure in found.items():
                print(f"{name:>36}: {figure:,.1f}{'' if name == 'intervals' else ' ms CPU'}")
            broken += list_broken_promises(found, growth)
        sys.exit("; ".join(broken) or None)


if __name__ == "__main__":
    if os.environ["DJANGO_SETTINGS_MODULE"] != SETTINGS:
        # The package has chosen the settings of a service.
        os.execve(  # noqa: S606 - this program again
            sys.executable,
            [sys.executable, "-m", "benchmarks.costs"],
            {**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS},
        )
    main()
