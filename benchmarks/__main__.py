"""Measure the service: `make bench`, or `make bench-quick` for a first impression.

Everything runs on loopback. Absolute figures are the machine's, so each is compared with one of the same run: the floor
(gunicorn and one GET from Redis), the peer (a comparable program, if its folder is given), or the least possible.
Prints one table, writes benchmarks/results.json, and draws docs/scaling.svg.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import chart, dashboard, figures, peer, reads, syncing
from benchmarks.load import Load

RESULTS = Path(__file__).with_name("results.json")
CHART = Path(__file__).resolve().parent.parent / "docs" / "scaling.svg"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round, 1,000 instances, nothing is written")
    parser.add_argument("--peer", type=Path, help="the folder of a comparable program (npm installs its packages)")
    options = parser.parse_args()
    machine = figures.describe_machine()
    found, lines, peer_trouble = measure(options.quick, options.peer)
    print(figures.format_table(found, peer_trouble))
    if options.quick:
        return
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    results = {"measuredAt": measured_at, "machine": machine, "figures": [one.to_json() for one in found]}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    CHART.write_text(chart.draw(lines))
    print(f"\nWritten: {RESULTS.name}, {CHART.name}")


def measure(is_quick: bool, peer_folder: Path | None) -> tuple[list[figures.Figure], dict[str, dict[int, float]], str]:
    """Return the figures, the lines of the chart, and why the peer wasn't measured."""
    found: list[figures.Figure] = []
    trouble = "" if peer_folder else "not given"
    lines: dict[str, dict[int, float]] = {name: {} for name in ("list, 304", "list, gzip", "list, plain", "sync")}
    for instances in [1_000] if is_quick else [100, 1_000, 10_000]:
        say(f"reads of {instances:,} instances")
        try:
            loads = measure_reads(instances, is_quick, None if trouble else peer_folder)
        except peer.NoPeer as exc:
            trouble = str(exc)
            loads = measure_reads(instances, is_quick, None)
        if instances > 100:
            found += figures.list_reads(instances, loads)
        for name in ("list, 304", "list, gzip", "list, plain"):
            lines[name][instances] = 1000 / loads[name].per_second
    say("synchronizations")
    size = 1_000 if is_quick else 10_000
    found += figures.list_syncs(size, syncing.measure_time(size, rounds=1 if is_quick else 3))
    costs = {count: syncing.measure_cost(count) for count in ([1_000] if is_quick else [1_000, 10_000, 100_000])}
    found += figures.list_costs(costs)
    lines["sync"] = {count: cost["all_new_cpu_ms"] * count for count, cost in costs.items()}
    say("readers during a synchronization")
    size = 10_000 if is_quick else 100_000
    found += figures.list_readers(size, syncing.measure_readers(size))
    say("boot")
    found += figures.list_boots(syncing.measure_boot(rounds=1 if is_quick else 5))
    if not is_quick:
        say("dashboard in Chromium")
        found += figures.list_dashboard(dashboard.measure_all())
    return found, lines, trouble


def measure_reads(instances: int, is_quick: bool, peer_folder: Path | None) -> dict[str, Load]:
    seconds = 0.5 if is_quick else 2.0
    return reads.measure_reads(instances, rounds=1 if is_quick else 3, seconds=seconds, peer_folder=peer_folder)


def say(what: str) -> None:
    print(f"measuring: {what}", flush=True)


if __name__ == "__main__":
    main()
