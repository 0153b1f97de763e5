"""What an evaluation of 1,000 running instances under three policies takes: `python -m benchmarks.policies`.

Each instance has eight GPUs with a sample a minute, and breaks all three rules. Django's test client, a Redis in memory
and an SQLite file. Times are CPU seconds of this process, since a busy machine makes any other time meaningless.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.costs import SETTINGS, fill_inventory, make_row, set_up

INSTANCES = 1000
MAX_SECONDS, MAX_MB = 2.0, 200
GPUS, WINDOW_MINUTES = 8, 60


def make_running(number: int) -> dict[str, Any]:
    return {**make_row(number), "status": "running", "gpuNum": str(GPUS), "lastStartedAt": "1760000000"}


def add_policies() -> None:
    from instances.models import Policy

    common = {"mode": Policy.Mode.NOTIFY, "warning_minutes": 10}
    Policy.objects.create(name="idle", rule="idle", window_minutes=WINDOW_MINUTES, **common)
    Policy.objects.create(name="lease", rule="lease", max_hours=1, **common)
    Policy.objects.create(name="nights", rule="schedule", hours="Sun 00:00-00:01", time_zone="Europe/Berlin", **common)


def fill_metrics(ids: list[str], now: Any) -> None:
    from instances.utilization import readings
    from instances.utilization.reading import Reading, Sample

    began = now - timedelta(minutes=WINDOW_MINUTES)
    series = tuple(Sample(began + timedelta(minutes=number), 0.5) for number in range(1, WINDOW_MINUTES + 1))
    reading = Reading(
        read_at=now, began_at=began, ended_at=now, interval_seconds=60, gpus=(series,) * GPUS, gpu_average=series
    )
    for id_ in ids:
        readings.write(id_, reading)


def measure() -> dict[str, tuple[float, float]]:
    """Return the CPU seconds and the MB of each evaluation, by what it finds."""
    from django.utils import timezone

    from instances.inventory import store
    from instances.models import Finding
    from instances.policies import evaluation
    from instances.policies.lifecycle import Moment

    now = timezone.now()
    add_policies()
    fill_metrics([one["id"] for one in store.read_listing().instances if one["group"] == "running"], now)

    def evaluate(watch: float) -> None:
        evaluation.evaluate(evaluation.read_facts(Moment(now, watch)), uptime_seconds=3600)

    found = {}
    for name, watch, state in (("all warned", 0, "warned"), ("nothing new", 30, "warned"), ("all due", 700, "due")):
        found[name] = measure_one(lambda watch=watch: evaluate(watch))
        count = Finding.objects.filter(state=state).count()
        assert count == 3 * INSTANCES, count
    return found


def measure_one(run: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU seconds, and the peak of the process's memory in MB."""
    began = time.process_time()
    run()
    return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        set_up(Path(folder) / "policies.sqlite3")
        fill_inventory(INSTANCES, make_running)
        found = measure()
        for name, (seconds, megabytes) in found.items():
            print(f"{name:>12}: {seconds:.2f} s CPU, at most {megabytes:.0f} MB so far")
        if any(seconds > MAX_SECONDS or megabytes > MAX_MB for seconds, megabytes in found.values()):
            sys.exit(f"an evaluation takes more than {MAX_SECONDS:g} s or {MAX_MB} MB")


if __name__ == "__main__":
    if os.environ["DJANGO_SETTINGS_MODULE"] != SETTINGS:
        # The package has chosen the settings of a service.
        os.execve(  # noqa: S606 - this program again
            sys.executable,
            [sys.executable, "-m", "benchmarks.policies"],
            {**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS},
        )
    main()
