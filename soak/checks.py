"""What must hold. Each check returns the faults that it found, as sentences; none means that it held."""

import re
import statistics
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

# Threads of a process that ask at once share one read, so an answer may be this much older than the request.
SHARED_SECONDS: Final = 1.0
# A process that has warmed up may grow by this much: its heap is never quite flat. Until each of its 24 threads has
# done everything once, caches and the free memory between objects grow, so the second half of its life is judged.
MAX_GROWTH_MB_PER_MINUTE: Final = 1.0
WARM_UP_SHARE: Final = 0.5
MIN_JUDGED_SECONDS: Final = 120
# A request of a killed process may be recorded this much later.
CLOCK_SECONDS: Final = 1.0
STARTING: Final = frozenset({"toStart", "starting", "toRestart", "restarting", "pulling", "toCreate", "creating"})


@dataclass(frozen=True)
class StopCall:
    """A stop request that reached Novita: `run` counts the starts of the instance, `status` is the one it met."""

    at: float
    instance_id: str
    run: int
    status: str
    is_accepted: bool


@dataclass(frozen=True)
class Order:
    """A person's, an operation's or a policy's order to stop an instance: from when until when, in Unix time."""

    instance_id: str
    began: float
    ended: float

    def covers(self, at: float) -> bool:
        return self.began - CLOCK_SECONDS <= at <= self.ended + CLOCK_SECONDS


class Oracle:
    """Judges each listing against the names that the witnesses had. Thread-safe."""

    def __init__(self, witnesses: Collection[str]) -> None:
        self._witnesses = frozenset(witnesses)
        self._lock = threading.Lock()
        self._newest = 0
        # The highest epoch that an answer had, with the time at which it was complete.
        self._seen: list[tuple[float, int]] = [(0.0, 0)]
        self._bodies: dict[str, int] = {}
        self.judged = 0

    def begin_epoch(self, epoch: int) -> None:
        """Note a name before the account gets it."""
        with self._lock:
            self._newest = epoch

    def judge(
        self, rows: Sequence[Mapping[str, Any]], began: float, ended: float, *, is_whole: bool, etag: str = ""
    ) -> list[str]:
        """Judge the rows of one answer. `is_whole` means that all instances were requested."""
        names = {row["id"]: row["name"] for row in rows if row["id"] in self._witnesses}
        epochs = sorted({int(name.rpartition("-")[2]) for name in names.values()})
        faults = []
        with self._lock:
            self.judged += 1
            if is_whole and len(names) != len(self._witnesses):
                faults.append(f"A listing has {len(names)} of {len(self._witnesses)} witnesses.")
            if len(rows) != len({row["id"] for row in rows}):
                faults.append("A listing has an instance twice.")
            if len(epochs) > 1:
                faults.append(f"A listing mixes the states {epochs}.")
            if epochs and epochs[-1] > self._newest:
                faults.append(f"A listing has the state {epochs[-1]}, which never was.")
            if epochs and epochs[0] < (floor := self._find_floor(began)):
                faults.append(f"A listing has the state {epochs[0]} after a complete answer had {floor}.")
            if etag:
                digest = hash(repr(sorted((row["id"], repr(row)) for row in rows)))
                if self._bodies.setdefault(etag, digest) != digest:
                    faults.append(f"Two listings with the ETag {etag} differ.")
            if epochs and epochs[-1] > self._seen[-1][1]:
                self._seen.append((ended, epochs[-1]))
        return faults

    def _find_floor(self, began: float) -> int:
        return max(epoch for ended, epoch in self._seen if ended <= began - SHARED_SECONDS or epoch == 0)


def check_answer(status: int, body: Any) -> list[str]:
    """Check that an answer is a success, or a refusal that gives its reason."""
    if 200 <= status < 300 or status == 304:
        return []
    if isinstance(body, dict) and body.get("status") == "unhealthy" and body.get("warnings"):
        # `/health` says what is wrong in its warnings.
        return []
    if not isinstance(body, dict) or not all(isinstance(body.get(name), str) for name in ("code", "message")):
        return [f"HTTP {status} without a reason."]
    if status == 500:
        return [f"HTTP 500: {body['message']}"]
    return []


def check_stops(calls: Iterable[StopCall], orders: Iterable[Order]) -> list[str]:
    """Check Novita's own record: no run was stopped twice, and no request came that nobody had ordered.

    Each order may send one request for a run. Two orders at the same moment may send one each, since neither sees the
    other's yet: then Novita refuses the second. A request that met an instance on its way up stopped no run.
    """
    covering: defaultdict[str, list[Order]] = defaultdict(list)
    for order in sorted(orders, key=lambda order: order.ended):
        covering[order.instance_id].append(order)
    runs: defaultdict[tuple[str, int], list[StopCall]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.at):
        if call.status not in STARTING:
            runs[call.instance_id, call.run].append(call)
    faults = []
    for (id_, _), run in runs.items():
        if sum(call.is_accepted for call in run) > 1:
            faults.append(f"{id_} was stopped twice in one run.")
        free = list(covering[id_])
        for call in run:
            match = next((one for one in free if one.covers(call.at)), None)
            if match is None:
                later = f"{call.at - run[0].at:.2f} s after the first, it was {call.status}"
                faults.append(f"{id_} got a stop request that no order explains ({later}).")
            else:
                free.remove(match)
    return faults


def count_refused_seconds(calls: Iterable[StopCall]) -> int:
    """Count the stop requests that Novita refused since another order's had stopped the instance."""
    return sum(not call.is_accepted and call.status not in STARTING for call in calls)


def check_operations(accepted: Collection[str], recorded: Mapping[str, bool]) -> list[str]:
    """Check that each operation that was accepted is recorded, and that all have ended. `recorded`: id → ended."""
    lost = [f"The operation {id_} was accepted and is not recorded." for id_ in accepted if id_ not in recorded]
    return lost + [f"The operation {id_} has not ended." for id_, has_ended in recorded.items() if not has_ended]


def check_sent(what: str, expected: Mapping[str, str], received: Iterable[tuple[str, str]]) -> list[str]:
    """Check that each message arrived, and each subject under one id.

    `expected` has message id → subject (an operation, an event); `received` has pairs of message id and subject. The
    same id may arrive again, for example when a worker was killed before it noted the success: receivers drop it.
    """
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for message_id, subject in received:
        ids[subject].add(message_id)
    arrived = set().union(*ids.values())
    return [
        *(f"The {what} of {subject} never arrived." for id_, subject in expected.items() if id_ not in arrived),
        *(
            f"The {what} of {subject} arrived under {len(found)} ids."
            for subject, found in ids.items()
            if len(found) > 1
        ),
    ]


@dataclass(frozen=True)
class Growth:
    """How the memory of one process changed in the second half of its life."""

    name: str
    seconds: float
    mb: float
    mb_per_minute: float


def measure_growth(name: str, samples: Sequence[tuple[float, float]]) -> Growth | None:
    """Measure from samples (seconds, MB) of one process; None when it didn't live long enough."""
    if not samples:
        return None
    begins_at = samples[0][0] + WARM_UP_SHARE * (samples[-1][0] - samples[0][0])
    judged = [(at, mb) for at, mb in samples if at >= begins_at]
    if len(judged) < 10 or judged[-1][0] - judged[0][0] < MIN_JUDGED_SECONDS:
        return None
    slope = statistics.linear_regression(*zip(*judged, strict=True)).slope
    return Growth(name, judged[-1][0] - judged[0][0], judged[-1][1], slope * 60)


def check_growth(growths: Iterable[Growth]) -> list[str]:
    return [
        f"{growth.name} grows by {growth.mb_per_minute:.2f} MB a minute."
        for growth in growths
        if growth.mb_per_minute > MAX_GROWTH_MB_PER_MINUTE
    ]


def find_operation_id(text: str) -> str:
    """Return the operation that a text names, else the text."""
    match = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
    return match[0] if match else text
