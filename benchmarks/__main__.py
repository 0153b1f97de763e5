"""Measure the service: `make bench`, or `make bench-quick` for a first impression.

Everything runs on loopback. Absolute figures are the machine's, so each is compared with one of the same run: the floor
(gunicorn and one GET from Redis), the peer (a comparable program, if its folder is given), or the least possible.
Prints the table of docs/scaling.md. Writes benchmarks/results.json and draws docs/scaling.svg, after each part: a part
that fails loses no other.
"""

import argparse
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from benchmarks import chart, dashboard, figures, peer, reads, syncing
from benchmarks.figures import Figure, Results

RESULTS = Path(__file__).with_name("results.json")
CHART = Path(__file__).resolve().parent.parent / "docs" / "scaling.svg"
LISTS = ("list, 304", "list, gzip", "list, plain")

Parts = Mapping[str, Callable[[], Iterable[Figure]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round, 1,000 instances, nothing is written")
    parser.add_argument("--only", default="", metavar="PART", help="parts that begin so; nothing is written")
    parser.add_argument("--peer", type=Path, help="the folder of a comparable program (npm installs its packages)")
    options = parser.parse_args()
    results = Results()
    parts = list_parts(results, is_quick=options.quick, peer_folder=options.peer)
    chosen = {name: measure for name, measure in parts.items() if name.startswith(options.only)}
    if not chosen:
        parser.error(f"no such part: choose from {', '.join(parts)}")
    run(chosen, results, is_kept=not options.quick and not options.only)


def run(parts: Parts, results: Results, *, is_kept: bool) -> None:
    """Measure each part. Raises SystemExit at the end when one has failed."""
    for name, measure in parts.items():
        print(f"measuring: {name}", flush=True)
        try:
            results.figures += measure()
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            results.failed[name] = str(error) or type(error).__name__
        if is_kept:
            RESULTS.write_text(results.to_text())
            if results.lines:
                CHART.write_text(chart.draw(results.lines))
    print(figures.format_table(results))
    if is_kept:
        print(f"\nWritten: {RESULTS.name}, {CHART.name}")
    if results.failed:
        raise SystemExit("\n".join(f"failed: {name}: {reason}" for name, reason in results.failed.items()))


def list_parts(results: Results, *, is_quick: bool, peer_folder: Path | None) -> Parts:
    """Return the parts by name. They draw their lines into `results`."""
    results.peer_trouble = "" if peer_folder else "not given"

    def measure_reads(instances: int) -> Iterable[Figure]:
        measure = partial(reads.measure_reads, instances, rounds=1 if is_quick else 3, seconds=0.5 if is_quick else 2.0)
        try:
            loads = measure(peer_folder=None if results.peer_trouble else peer_folder)
        except peer.NoPeer as exc:
            results.peer_trouble = str(exc)
            loads = measure()
        for name in LISTS:
            results.draw(name, instances, 1000 / loads[name].per_second)
        # The smallest account is for the chart alone.
        return figures.list_reads(instances, loads) if instances > 100 else ()

    def measure_costs(*sizes: int) -> Iterable[Figure]:
        costs = {count: syncing.measure_cost(count) for count in sizes}
        for count, cost in costs.items():
            results.draw("sync", count, cost["all_new_cpu_ms"] * count)
        return figures.list_costs(costs)

    syncs, readers, rounds = (1_000, 10_000, 1) if is_quick else (10_000, 100_000, 3)
    parts: dict[str, Callable[[], Iterable[Figure]]] = {
        f"reads of {size:,}": partial(measure_reads, size) for size in ([1_000] if is_quick else [100, 1_000, 10_000])
    }
    parts["sync, time"] = lambda: figures.list_syncs(syncs, syncing.measure_time(syncs, rounds=rounds))
    parts["sync, costs"] = partial(measure_costs, *([1_000] if is_quick else [1_000, 10_000, 100_000]))
    parts["sync, readers meanwhile"] = lambda: figures.list_readers(readers, syncing.measure_readers(readers))
    parts["boot"] = lambda: figures.list_boots(syncing.measure_boot(rounds=1 if is_quick else 5))
    if not is_quick:
        parts["dashboard, visits"] = lambda: figures.list_dashboard(dashboard.measure_visits())
        parts["dashboard, actions of others"] = lambda: figures.list_dashboard(dashboard.measure_actions())
    return parts


if __name__ == "__main__":
    main()
