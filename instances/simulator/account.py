"""The account: instances whose statuses move."""

import itertools
import json
import math
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from instances.simulator import load
from instances.simulator.answers import Answer, Refusal, Row, invalid, invalid_state
from instances.simulator.meter import STEPS, Meter
from instances.simulator.routes import MOVES, STARTING_POINT
from instances.simulator.rows import FIRST_MOVES, SLOW_CREATION, add_details, build_row

# The fields of a request that changes the account.
CHANGES = frozenset({"add", "set", "remove", "running"})
MAX_METRICS_SECONDS = 86_400


@dataclass(eq=False, slots=True)
class Instance:
    """A row, and the statuses to come, each with the time at which it begins."""

    row: Row
    plan: list[tuple[float, str]] = field(default_factory=list)
    rendered: bytes | None = None

    def render(self) -> bytes:
        if self.rendered is None:
            self.rendered = json.dumps(self.row).encode()
        return self.rendered

    def created_at(self) -> int:
        """Return Unix seconds; 0 for a value that is not a number, since a test may set any value."""
        try:
            return int(self.row["createdAt"])
        except (TypeError, ValueError, OverflowError):
            return 0


@dataclass
class PageQuery:
    """The query of a list request. An empty filter matches everything."""

    size: int
    number: int
    name: str = ""
    product_name: str = ""
    status: str = ""
    hidden: frozenset[str] = frozenset()

    def is_narrow(self) -> bool:
        """Tell whether the query filters at all: testing 10,000 instances takes 8 ms."""
        return self != PageQuery(self.size, self.number)

    def matches(self, row: Row) -> bool:
        return (
            row["id"] not in self.hidden
            and self.name in str(row["name"])
            and self.product_name in str(row["productName"])
            and self.status in ("", row["status"])
        )


@dataclass
class Page:
    """One page of the list, with rendered rows. `shown` has the instances of this page and of all pages before it."""

    rows: list[bytes]
    total: int | None
    is_first: bool = True
    shown: list[Instance] = field(default_factory=list)

    def answer(self) -> Answer:
        total = b"" if self.total is None else b', "total": %d' % self.total
        return Answer(body=b'{"instances": [' + b", ".join(self.rows) + b"]" + total + b"}")


def make_clock(time_factor: float) -> Callable[[], float]:
    """Return a clock in Unix seconds that nobody sets, and that runs so many times faster."""
    began_at, began = time.time(), time.monotonic()
    return lambda: began_at + (time.monotonic() - began) * time_factor


class Account:
    """All instances of one account, newest first. Thread-safe.

    The same seed gives the same instances, with times relative to now. Statuses are updated at each read. When pages
    count from 1, page 0 is answered as page 1, which suits every known client. `clock` returns Unix seconds.
    """

    def __init__(
        self,
        instances: int = 25,
        seed: int = 1,
        page_base: int = 1,
        step_seconds: float = 2.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.page_base, self.step_seconds = page_base, step_seconds
        self._clock = clock or make_clock(1)
        self.meter = Meter()
        # Instance → its chosen script of load.
        self._loads: dict[str, str] = {}
        self._lock = threading.RLock()
        self._rng = random.Random(seed)
        self._numbers = itertools.count(instances)
        self._instances: dict[str, Instance] = {}
        self._moving: dict[str, Instance] = {}
        self._next_move = 0.0
        begun = self._clock()
        now = int(begun)
        for number in range(instances):
            resting = ((0, "running" if number % 5 in (0, 1, 3) else "exited"),)
            plan = SLOW_CREATION if number % 25 == 13 else FIRST_MOVES.get(number, resting)
            status = plan[0][1]
            age = 300 if status == "pulling" else self._rng.randrange(86_400, 150 * 86_400)
            instance = Instance(build_row(number, status, now - age, self._rng))
            self._instances[instance.row["id"]] = instance
            self.meter.note(instance.row, begun)
            self._schedule(instance, [(begun + step * step_seconds, later) for step, later in plan[1:]])
        self.meter.pay_in()
        self._sort()

    def list_page(self, query: PageQuery) -> Page:
        with self._lock:
            self._settle()
            found = list(self._instances.values())
            if query.is_narrow():
                found = [instance for instance in found if query.matches(instance.row)]
            start = max(query.number - self.page_base, 0) * query.size
            shown = found[: start + query.size]
            return Page([instance.render() for instance in shown[start:]], len(found), start == 0, shown)

    def get_row(self, instance_id: str) -> Row:
        with self._lock:
            return add_details(self._find(instance_id).row)

    def list_rows(self) -> list[Row]:
        with self._lock:
            self._settle()
            return [add_details(instance.row) for instance in self._instances.values()]

    def act(self, action: str, instance_id: str, ignored: bool = False) -> str:
        """Start an action and return its first status. An ignored action falls back after one step."""
        with self._lock:
            instance = self._find(instance_id)
            status, first, later = instance.row["status"], MOVES[action][0], MOVES[action][1:]
            if action == "delete" and instance.row["billingMode"] == "monthly":
                raise invalid("a monthly instance can not be deleted")
            if status != STARTING_POINT.get(action, status) or status in MOVES["delete"]:
                raise invalid_state()
            now = self._clock()
            due = now + self.step_seconds
            if ignored:  # An earlier action continues.
                plan = [(due, status), *((max(begins, due), planned) for begins, planned in instance.plan)]
            else:
                plan = [(due + step * self.step_seconds, planned) for step, planned in enumerate(later)]
            self._enter(instance, first, now)
            self._schedule(instance, plan)
            return first

    def build_fresh_row(self) -> Row:
        """Return a running instance that is not in the account."""
        with self._lock:
            return build_row(next(self._numbers), "running", int(self._clock()) - 600, self._rng)

    def change(self, wanted: object) -> int:
        """Change the account at once, as `POST /__instances` requests. Return the number of its instances.

        Raises Refusal for an invalid request, and then changes nothing.
        """
        allowed = (
            'send any of {"add": [rows], "set": {id: {field: value}}, "remove": [ids], "running": true, '
            f'"load": {{id: one of {", ".join(load.SCRIPTS)}}}, "reclaim": [ids]}}'
        )
        if not isinstance(wanted, dict) or not wanted.keys() <= {*CHANGES, "load", "reclaim"}:
            raise invalid(allowed)
        loads, reclaimed = wanted.get("load", {}), wanted.get("reclaim", [])
        if not isinstance(loads, dict) or not all(one in load.SCRIPTS for one in map(str, loads.values())):
            raise invalid(allowed)
        added, changed, removed = wanted.get("add", []), wanted.get("set", {}), wanted.get("remove", [])
        if not (
            isinstance(added, list)
            and all(isinstance(row, dict) and isinstance(row.get("id", ""), str) for row in added)
            and isinstance(changed, dict)
            and all(isinstance(fields, dict) and "id" not in fields for fields in changed.values())
            and isinstance(removed, list)
            and all(isinstance(instance_id, str) for instance_id in removed)
            and wanted.get("running", True) is True
            and isinstance(reclaimed, list)
            and all(isinstance(instance_id, str) for instance_id in reclaimed)
        ):
            raise invalid(allowed)
        with self._lock:
            self._settle()
            rows = {row["id"]: row for row in ({**self.build_fresh_row(), **row} for row in added)}
            if len(rows) < len(added) or rows.keys() & self._instances.keys():
                raise invalid("an added id already exists")
            if unknown := {*changed, *removed, *loads, *reclaimed} - self._instances.keys() - rows.keys():
                raise invalid(f"no such instance: {min(unknown)}")
            self._instances.update({instance_id: Instance(row) for instance_id, row in rows.items()})
            for row in rows.values():
                self.meter.note(row, self._clock())
            for instance_id, fields in changed.items():
                self._set(self._instances[instance_id], fields)
            self._loads.update(loads)
            for instance_id in reclaimed:
                self._reclaim(self._instances[instance_id])
            for instance_id in removed:
                self._remove(instance_id)
            if "running" in wanted:
                for instance in self._instances.values():
                    self._set(instance, {"status": "running"})
            self._sort()
            return len(self._instances)

    def read_balance(self) -> Row:
        with self._lock:
            self._settle()
            return self.meter.describe_balance(self._clock())

    def list_bills(self, query: dict[str, str]) -> Row:
        """Return the bills as Novita does. Raises Refusal for an invalid query."""
        given = [query.get(name, "") for name in ("startTime", "endTime")]
        begin, end = (int(text) if re.fullmatch("[0-9]{1,12}", text) else None for text in given)
        cycle = query.get("cycleType", "")
        days = 7 if cycle == "Hour" else 31
        if begin is None or end is None or cycle not in STEPS or not begin <= end <= begin + days * 86_400:
            raise invalid(f"cycleType, startTime and endTime are required, and at most {days} days")
        with self._lock:
            self._settle()
            bills = self.meter.list_bills(cycle, query.get("productCategory", ""), begin, end, self._clock())
            owner = query.get("ownerId", "")
            return {"bills": [bill for bill in bills if owner in ("", bill["ownerID"])]}

    def read_metrics(self, instance_id: str, query: dict[str, str]) -> Row:
        """Return an instance's metrics. A bad parameter is answered by the last 60 seconds, as Novita does."""
        given = [query.get(name, "") for name in ("startTime", "endTime", "interval")]
        begin, end, interval = (int(text) if re.fullmatch("[0-9]{1,12}", text) else 0 for text in given)
        with self._lock:
            row, now = self._find(instance_id).row, int(self._clock())
            if interval <= 15 or not 0 < begin <= end - 60 or end - begin > MAX_METRICS_SECONDS:
                begin, end, interval = now - load.LAG_SECONDS - 60, now, 30
            script = self._loads.get(instance_id) or load.choose(row)
            return load.describe(row, script, begin, end, interval, now)

    def _reclaim(self, instance: Instance) -> None:
        """Announce that a spot instance is taken back, and take it back two steps later."""
        now = self._clock()
        due = now + 2 * self.step_seconds
        self._set(instance, {"spotStatus": "reclaiming", "spotReclaimTime": str(int(due))})
        self._schedule(instance, [(due, "exited")])

    def remove_any(self, instances: list[Instance]) -> None:
        """Remove a random one of these instances at once."""
        with self._lock:
            if present := [instance for instance in instances if instance.row["id"] in self._instances]:
                self._remove(self._rng.choice(present).row["id"])

    def _find(self, instance_id: str) -> Instance:
        self._settle()
        if instance_id not in self._instances:
            raise Refusal(HTTPStatus.BAD_REQUEST, "RESOURCE_NOT_FOUND", "instance not found")
        return self._instances[instance_id]

    def _settle(self) -> None:
        now = self._clock()
        if now < self._next_move:
            return
        for instance in [moving for moving in self._moving.values() if moving.plan[0][0] <= now]:
            while instance.plan and instance.plan[0][0] <= now:
                begins, status = instance.plan.pop(0)
                self._enter(instance, status, begins)
            self._schedule(instance, instance.plan)
        self._next_move = min((instance.plan[0][0] for instance in self._moving.values()), default=math.inf)

    def _enter(self, instance: Instance, status: str, at: float) -> None:
        row, before = instance.row, instance.row["status"]
        row["status"], instance.rendered = status, None
        self.meter.note(row, at)
        if status == "removed":
            self.meter.end(row["id"], at)
            del self._instances[row["id"]]
        elif str(before).startswith("to"):
            pass  # An ignored action falls back: nothing was started or stopped.
        elif status == "running":
            # The SSH password changes with every start (Novita's documentation).
            row["sshPassword"] = f"FAKE-SECRET-ssh-{self._rng.getrandbits(32):08x}"
            row["lastStartedAt"] = str(int(at))
            if row["billingMode"] == "spot":
                row |= {"spotStatus": "running", "spotReclaimTime": "0"}
        elif status == "exited":
            row["lastStoppedAt"] = str(int(at))
            if row["spotStatus"] == "reclaiming":
                row["spotStatus"] = "terminated"

    def _schedule(self, instance: Instance, plan: list[tuple[float, str]]) -> None:
        instance.plan = plan
        if plan:
            self._moving[instance.row["id"]] = instance
            self._next_move = min(self._next_move, plan[0][0])
        else:
            self._moving.pop(instance.row["id"], None)

    def _set(self, instance: Instance, fields: Row) -> None:
        instance.row |= fields
        instance.rendered = None
        self.meter.note(instance.row, self._clock())
        if "status" in fields:
            self._schedule(instance, [])

    def _remove(self, instance_id: str) -> None:
        self._moving.pop(instance_id, None)
        self._instances.pop(instance_id, None)
        self.meter.end(instance_id, self._clock())

    def _sort(self) -> None:
        newest_first = sorted(self._instances.values(), key=Instance.created_at, reverse=True)
        self._instances = {instance.row["id"]: instance for instance in newest_first}
