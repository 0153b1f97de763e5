"""What is measured, against what, and the goal: one line of the table each."""

import json
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.load import Load
from tests.system.processes import find_redis_server


@dataclass(frozen=True)
class Figure:
    """A measured value beside the one it is compared with. `ratio` and `goal` are None where there is none.

    `is_least` tells whether the goal is the least ratio that counts as met, or the greatest.
    """

    name: str
    at: str
    value: float
    unit: str
    beside: str = ""
    other: float | None = None
    goal: float | None = None
    is_least: bool = True

    @property
    def ratio(self) -> float | None:
        if not self.beside:
            return self.value
        return self.value / self.other if self.other else None

    @property
    def is_met(self) -> bool | None:
        if self.goal is None or self.ratio is None:
            return None
        return self.ratio >= self.goal if self.is_least else self.ratio <= self.goal

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "at": self.at,
            "value": self.value,
            "unit": self.unit,
            "beside": self.beside or None,
            "other": self.other,
            "ratio": self.ratio if self.beside else None,
            "goal": f"{'>=' if self.is_least else '<='} {self.goal}" if self.goal is not None else None,
            "isMet": self.is_met,
        }


def list_reads(instances: int, loads: Mapping[str, Load]) -> Iterator[Figure]:
    """Compare the reads with the peer and the floor. Without a peer its ratios are missing."""
    is_large = instances >= 10_000
    peers = [loads[name].per_second if name in loads else None for name in ("peer: list", "peer: /health")]
    floor = loads["floor"].per_second

    def compare(name: str, beside: str, other: float | None, goal: float) -> Figure:
        return Figure(name, f"{instances:,}", loads[name].per_second, "/s", beside, other, goal)

    for name, small, large in (("list, plain", 5, 10), ("list, gzip", 10, 50), ("list, 304", 12, 120)):
        yield compare(name, "peer", peers[0], large if is_large else small)
    open_rate = loads["list, 304"].per_second
    yield compare("list, 304", "floor", floor, 0.6)
    yield compare("list, 304, with a session", "without a login", open_rate, 0.7)
    yield compare("list, 304, with a token", "without a login", open_rate, 0.7)
    yield compare("/health", "peer", peers[1], 0.6)
    yield compare("/livez", "floor", floor, 0.8)
    yield compare("one instance", "floor", floor, 0.5)
    name = "a page of 100, searched and sorted"
    yield Figure(name, f"{instances:,}", loads[name].p99, "ms p99", goal=100, is_least=False)


def list_syncs(instances: int, times: Mapping[str, float]) -> Iterator[Figure]:
    for key, name in (("all_new_ms", "sync, all new"), ("unchanged_ms", "sync, nothing changed")):
        yield Figure(
            name, f"{instances:,}", times[key], "ms", "the least possible", times["least_ms"], 2, is_least=False
        )


def list_costs(costs: Mapping[int, Mapping[str, float]]) -> Iterator[Figure]:
    """Compare the CPU per instance with that of the smallest account."""
    smallest = costs[min(costs)]
    for instances, cost in costs.items():
        name = "sync, CPU per instance"
        other = smallest["all_new_cpu_ms"]
        yield Figure(name, f"{instances:,}", cost["all_new_cpu_ms"], "ms", f"{min(costs):,}", other, 1, is_least=False)
        peak = max(value for key, value in cost.items() if key.endswith("_peak_mb"))
        yield Figure("sync, peak memory", f"{instances:,}", peak, "MB", goal=400, is_least=False)


def list_readers(instances: int, found: Mapping[str, float]) -> Iterator[Figure]:
    at = f"{instances:,}"
    yield Figure("one instance, during a sync", at, found["p99_ms"], "ms p99", goal=100, is_least=False)
    yield Figure(
        "mixed listings, during a sync", at, found["mixed"], f"of {found['listings']:.0f}", goal=0, is_least=False
    )
    yield Figure("web process that synchronizes and sends lists, peak memory", at, found["web_peak_mb"], "MB")
    yield Figure("web process that also searches, peak memory", at, found["web_peak_with_search_mb"], "MB")


def list_boots(times: Mapping[str, float]) -> Iterator[Figure]:
    for key, name in (("novita_silent_ms", "Novita silent"), ("redis_refused_ms", "Redis refused")):
        yield Figure(
            "boot to the first /livez", name, times[key], "ms", "all well", times["well_ms"], 1.15, is_least=False
        )


# A figure of `benchmarks.dashboard` → its unit and its goal.
DASHBOARD: Final[Mapping[str, tuple[str, float | None]]] = {
    "first visit, 1,000 instances": ("bytes", 90_000),
    "repeated visit, 1,000 instances": ("bytes", 5_000),
    "refresh of 1,000 rows, 10 changed": ("ms", 30),
    "another user's action is shown after, median": ("s", None),
    "another user's action is shown after, at most": ("s", 3),
}


def list_dashboard(found: Mapping[str, float]) -> Iterator[Figure]:
    for name, value in found.items():
        unit, goal = DASHBOARD[name]
        yield Figure(f"dashboard, {name}", "Chromium", value, unit, goal=goal, is_least=False)


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "processors": len(cpu),
        "loadBefore": round(float(Path("/proc/loadavg").read_text().split()[0]), 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "redis": _read_version([find_redis_server(), "--version"]),
        "node": _read_version(["node", "--version"]),
    }


def _read_version(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()[:60]


@dataclass
class Results:
    """What a run has measured so far. `lines` are those of the chart; `failed` says why a part has no figures."""

    figures: list[Figure] = field(default_factory=list)
    lines: dict[str, dict[int, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    peer_trouble: str = ""
    machine: dict[str, Any] = field(default_factory=describe_machine)

    def draw(self, line: str, instances: int, milliseconds: float) -> None:
        self.lines.setdefault(line, {})[instances] = milliseconds

    def to_text(self) -> str:
        document = {
            "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": self.machine,
            "failed": self.failed,
            "figures": [one.to_json() for one in self.figures],
        }
        return json.dumps(document, indent=2) + "\n"


def format_table(results: Results) -> str:
    """Return the table of docs/scaling.md."""
    lines = ["| measured | instances | here | beside | ratio | goal | |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for figure in results.figures:
        beside = f"{figure.beside}: {_format(figure.other)}" if figure.other else ""
        if figure.beside == "peer" and not figure.other:
            beside = f"peer: {results.peer_trouble}"
        ratio = f"{figure.ratio:,.2f}" if figure.beside and figure.ratio is not None else ""
        goal = f"{'≥' if figure.is_least else '≤'} {figure.goal:,g}" if figure.goal is not None else ""
        met = {True: "met", False: "**missed**", None: ""}[figure.is_met]
        cells = (figure.name, figure.at, f"{_format(figure.value)} {figure.unit}", beside, ratio, goal, met)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _format(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 2}f}"
