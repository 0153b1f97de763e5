"""Stands in for Novita's v1 GPU-instance API on 127.0.0.1, with an account that moves and faults on demand.

Knows nothing of the rest of the project: whoever talks to it goes over HTTP, as with the real one. `KINDS` is
the table of faults. What neither Novita's documentation nor the real API's answers tell is called invented.
"""

import contextlib
import functools
import itertools
import json
import math
import random
import re
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.client import responses as STATUS_PHRASES
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

BASE_PATH = "/gpu-instance/openapi/v1"
ROUTES = {
    f"{BASE_PATH}/gpu/instances": ("GET", "list"),
    f"{BASE_PATH}/gpu/instance": ("GET", "get"),
    f"{BASE_PATH}/gpu/instance/start": ("POST", "start"),
    f"{BASE_PATH}/gpu/instance/stop": ("POST", "stop"),
    f"{BASE_PATH}/gpu/instance/restart": ("POST", "restart"),
    f"{BASE_PATH}/gpu/instance/delete": ("POST", "delete"),
    f"{BASE_PATH}/products": ("GET", "products"),
    f"{BASE_PATH}/clusters": ("GET", "clusters"),
}
MOVES = {
    "start": ("toStart", "starting", "running"),
    "stop": ("toStop", "stopping", "exited"),
    "restart": ("toRestart", "restarting", "running"),
    "delete": ("toRemove", "removing", "removed"),
}
STARTING_POINT = {"start": "exited", "stop": "running", "restart": "running"}
ACTIONS = frozenset(MOVES)
CALLS = frozenset(kind for _, kind in ROUTES.values())

MAX_BODY_BYTES = 16 * 1024 * 1024
RECORDED_CALLS = 10_000
MEGABYTE = 1024 * 1024

Row = dict[str, Any]

# ---- Answers ----


@dataclass
class Answer:
    """One HTTP answer, whole; header names in title case."""

    status: int = HTTPStatus.OK
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class Refusal(Exception):
    """An error in Novita's shape: `code` equals the HTTP status."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def answer(self) -> Answer:
        shape = {"code": int(self.status), "reason": self.reason, "message": self.message, "metadata": {}}
        return json_answer(shape, self.status)


def json_answer(value: object, status: int = HTTPStatus.OK) -> Answer:
    return Answer(status, json.dumps(value).encode())


def html_answer(text: str, status: int) -> Answer:
    return Answer(status, text.encode("utf-8", "surrogatepass"), {"Content-Type": "text/html; charset=utf-8"})


def invalid(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", message)  # The reason is invented.


def invalid_state() -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "INVALID_STATE", "invalid state change")


def wrong_method(allowed: Iterable[str]) -> Refusal:
    message = "this path wants " + " or ".join(allowed)
    return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)


# ---- The account ----

CLUSTERS: list[Row] = [
    {
        "id": cluster_id,
        "name": name,
        "availableGpuType": ["RTX 4090 24GB", "H100 SXM 80GB"],
        "supportNetworkStorage": True,
        "supportInstanceNetwork": True,
    }
    for cluster_id, name in (
        ("us-ca-6", "US-CA-06 (California)"),
        ("as-sgp-2", "AS-SGP-02 (Singapore)"),
        ("eu-de-1", "EU-DE-01 (Frankfurt)"),
    )
]
# A price is a string or a number, in 1e-5 USD per GPU and hour; "0": not known (seen, not documented).
PRODUCTS: list[Row] = [
    {
        "id": product_id,
        "name": name,
        "cpuPerGpu": cpus,
        "memoryPerGpu": memory,
        "diskPerGpu": 6144,
        "availableDeploy": "spot" in methods,
        "minRootFS": 10,
        "maxRootFS": 2048,
        "minLocalStorage": 0,
        "maxLocalStorage": 1024,
        "regions": [cluster["name"] for cluster in CLUSTERS] if "spot" in methods else [],
        "price": price,
        "spotPrice": spot_price,
        "monthlyPrice": [{"price": "22000000", "month": 1}] if "monthly" in methods else [],
        "billingMethods": methods,
        "inventoryState": "normal" if "spot" in methods else "none",
        "canBuy": True,
    }
    for product_id, name, cpus, memory, price, spot_price, methods in (
        ("4090.16c62g", "RTX 4090 24GB", 16, 62, "35000", "17500", ["onDemand", "spot", "monthly"]),
        ("26", "RTX 3090 24GB", 16, 62, 21000, "0", ["onDemand"]),
        ("h100.24c240g", "H100 SXM 80GB", 24, 240, "189000", "94500", ["onDemand", "spot", "monthly"]),
        ("a100.16c120g", "A100 SXM4 80GB", 16, 120, "129000", 64500, ["onDemand", "spot", "monthly"]),
        ("l40s.12c64g", "L40S 48GB", 12, 64, "55000", "27500", ["onDemand", "spot", "monthly"]),
    )
]
PURPOSES = ("train-llama", "infer-sdxl", "finetune-qwen", "notebook", "batch-embed", "comfyui", "render")
BILLING_MODES = ["onDemand"] * 6 + ["spot"] * 2 + ["monthly", "onDemand"]
# Statuses of the n-th instance, each with the step at which it begins: for a minute and a half at the default
# step, whoever opens the page sees something move.
FIRST_MOVES = {
    5: ((0, "pulling"), (45, "running")),
    11: ((0, "toStop"), (20, "stopping"), (40, "exited")),
}
# Of every 25th; it takes a while, as a new instance does.
SLOW_CREATION = ((0, "creating"), (60, "pulling"), (75, "running"))


def build_row(number: int, status: str, created_at: int, rng: random.Random) -> Row:
    """Return the n-th instance as a listing shows it; every secret in it starts with FAKE-SECRET-."""
    product, cluster = PRODUCTS[number % len(PRODUCTS)], rng.choice(CLUSTERS)
    billing = BILLING_MODES[number % len(BILLING_MODES)]
    billing = billing if billing in product["billingMethods"] else "onDemand"
    gpus = rng.choice((1, 1, 1, 2, 2, 4, 8))
    instance_id = f"{rng.getrandbits(64):016x}"
    terminated = number % 25 == 17
    started = 0 if status in ("pulling", "creating") else created_at + rng.randrange(60, 240)
    stopped = started + rng.randrange(600, 40_000) if status in ("exited", "toStart") else 0
    volume_id = f"0f0e0d0c-1111-4222-8333-{number:012d}"
    volume = {"type": "network", "size": "100", "id": volume_id, "mountPath": "/network"}
    endpoint = f"https://{instance_id}-8188.{cluster['id']}.example.invalid"
    row = {
        "id": instance_id,
        "name": f"{PURPOSES[number % len(PURPOSES)]}-{number // len(PURPOSES) + 1:02d}",
        "clusterId": cluster["id"],
        "clusterName": cluster["name"],
        "status": status,
        "imageUrl": "docker.io/library/ubuntu:22.04",
        "imageAuthId": "",
        "command": f"FAKE-SECRET-command --token {number}",
        "entrypoint": "FAKE-SECRET-entrypoint" if number % 2 else "",
        "cpuNum": str(product["cpuPerGpu"] * gpus),
        "memory": str(product["memoryPerGpu"] * gpus),
        "gpuNum": str(gpus),
        "portMappings": [{"port": 8188, "endpoint": endpoint, "type": "http"}],
        "productId": product["id"],
        "productName": product["name"],
        "rootfsSize": rng.choice((60, 100, 200)),
        "volumeMounts": [volume] if number % 3 == 0 else [],
        "statusError": {"state": "", "message": ""},
        "envs": [{"key": "HF_TOKEN", "value": f"FAKE-SECRET-env-{number}"}],
        "kind": "gpu",
        "billingMode": billing,
        "endTime": str(created_at + 180 * 86_400) if billing == "monthly" else "-1",
        "spotStatus": ("terminated" if terminated else "running") if billing == "spot" else "",
        "spotReclaimTime": str(stopped - 60) if terminated else "0",
        "createdAt": str(created_at),
        "lastStartedAt": str(started),
        "lastStoppedAt": str(stopped),
        "sshPassword": f"FAKE-SECRET-ssh-{rng.getrandbits(32):08x}" if started else "",
    }
    if status == "creating":
        row["statusError"] = {"state": "ImagePullFailed", "message": "image pull failed"}
    if number % 6 != 2:  # Optional in a listing, and a string or a number.
        price = product["spotPrice"] if billing == "spot" else product["price"]
        row["instancePrice"] = int(price) if number % 4 == 3 else str(price)
    return row


def add_details(row: Row) -> Row:
    """Return the row with what only a direct read shows; the row's own fields win."""
    up = row["status"] == "running"
    price = next((product["price"] for product in PRODUCTS if product["id"] == row["productId"]), "0")
    return {
        "network": {"id": "", "ip": ""},
        "node": {"maxRootfsSize": 2048},
        "jobs": [],
        "connectComponentSSH": {
            "sshCommand": f"FAKE-SECRET-ssh root@{row['id']}",
            "password": row["sshPassword"],
            "isRunning": up,
        },
        "connectComponentWebTerminal": {
            "address": f"FAKE-SECRET-webterm-{row['id']}",
            "username": "FAKE-SECRET-root",
            "password": "FAKE-SECRET-web",
            "isRunning": False,
        },
        "connectComponentJupyter": {
            "port": 8888,
            "address": f"FAKE-SECRET-jupyter-{row['id']}",
            "isRunning": False,
        },
        "connectComponentLog": {
            "systemLogAddress": f"FAKE-SECRET-log-system-{row['id']}",
            "instanceLogAddress": f"FAKE-SECRET-log-instance-{row['id']}",
            "isRunning": up,
        },
        "freeStorageSize": 60,
        "keepDataDay": 7,
        "instancePrice": price,
        "exitedLocalStoragePrice": "500",
        "releaseDataAt": "0",
        **row,
    }


@dataclass(eq=False, slots=True)
class Instance:
    """A row, and the statuses to come, each with the monotonic time at which it begins."""

    row: Row
    plan: list[tuple[float, str]] = field(default_factory=list)
    rendered: bytes | None = None

    def render(self) -> bytes:
        if self.rendered is None:
            self.rendered = json.dumps(self.row).encode()
        return self.rendered

    def created_at(self) -> int:
        """Return Unix seconds, 0 for a value that is no number: whoever tests may set any."""
        try:
            return int(self.row["createdAt"])
        except (TypeError, ValueError, OverflowError):
            return 0


@dataclass
class PageQuery:
    """What a listing asks for; a filter that is empty lets everything through."""

    size: int
    number: int
    name: str = ""
    product_name: str = ""
    status: str = ""
    hidden: frozenset[str] = frozenset()

    def is_narrow(self) -> bool:
        """Tell whether anything can be left out; asking each of 10,000 instances takes 8 ms."""
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
    """One page of a listing, its rows rendered; `shown` is what this page and those before it list."""

    rows: list[bytes]
    total: int | None
    is_first: bool = True
    shown: list[Instance] = field(default_factory=list)

    def answer(self) -> Answer:
        total = b"" if self.total is None else b', "total": %d' % self.total
        return Answer(body=b'{"instances": [' + b", ".join(self.rows) + b"]" + total + b"}")


class Account:
    """All instances of one account, newest first; safe to use from many threads.

    The same seed gives the same instances; their times count back from now. Statuses are brought up to date
    when somebody reads. Counting pages from 1 answers page 0 as page 1, which fits every client seen.
    """

    def __init__(
        self,
        instances: int = 25,
        seed: int = 1,
        page_base: int = 1,
        step_seconds: float = 2.0,
    ) -> None:
        self.page_base, self.step_seconds = page_base, step_seconds
        self._lock = threading.RLock()
        self._rng = random.Random(seed)
        self._numbers = itertools.count(instances)
        self._instances: dict[str, Instance] = {}
        self._moving: dict[str, Instance] = {}
        self._next_move = 0.0
        now, begun = int(time.time()), time.monotonic()
        for number in range(instances):
            resting = ((0, "running" if number % 5 in (0, 1, 3) else "exited"),)
            plan = SLOW_CREATION if number % 25 == 13 else FIRST_MOVES.get(number, resting)
            status = plan[0][1]
            age = 300 if status == "pulling" else self._rng.randrange(86_400, 150 * 86_400)
            instance = Instance(build_row(number, status, now - age, self._rng))
            self._instances[instance.row["id"]] = instance
            self._schedule(instance, [(begun + step * step_seconds, later) for step, later in plan[1:]])
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
        """Begin the action and return the status it shows first; an ignored one falls back after one step."""
        with self._lock:
            instance = self._find(instance_id)
            status, first, later = instance.row["status"], MOVES[action][0], MOVES[action][1:]
            if action == "delete" and instance.row["billingMode"] == "monthly":
                raise invalid("a monthly instance can not be deleted")
            if status != STARTING_POINT.get(action, status) or status in MOVES["delete"]:
                raise invalid_state()
            due = time.monotonic() + self.step_seconds
            if ignored:  # What was on its way before goes on.
                plan = [(due, status), *((max(begins, due), planned) for begins, planned in instance.plan)]
            else:
                plan = [(due + step * self.step_seconds, planned) for step, planned in enumerate(later)]
            self._enter(instance, first, time.time())
            self._schedule(instance, plan)
            return first

    def build_fresh_row(self) -> Row:
        """Return a running instance that the account does not hold."""
        with self._lock:
            return build_row(next(self._numbers), "running", int(time.time()) - 600, self._rng)

    def change(self, wanted: object) -> int:
        """Change the account at once as `POST /__instances` asks, and return how many instances it has then.

        Raises Refusal, and changes nothing, for a request that can't be understood."""
        allowed = 'send any of {"add": [rows], "set": {id: {field: value}}, "remove": [ids], "running": true}'
        if not isinstance(wanted, dict) or not wanted.keys() <= {"add", "set", "remove", "running"}:
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
        ):
            raise invalid(allowed)
        with self._lock:
            self._settle()
            rows = {row["id"]: row for row in ({**self.build_fresh_row(), **row} for row in added)}
            if len(rows) < len(added) or rows.keys() & self._instances.keys():
                raise invalid("an id to add is there already")
            if unknown := {*changed, *removed} - self._instances.keys() - rows.keys():
                raise invalid(f"no such instance: {min(unknown)}")
            self._instances.update({instance_id: Instance(row) for instance_id, row in rows.items()})
            for instance_id, fields in changed.items():
                self._set(self._instances[instance_id], fields)
            for instance_id in removed:
                self._remove(instance_id)
            if "running" in wanted:
                for instance in self._instances.values():
                    self._set(instance, {"status": "running"})
            self._sort()
            return len(self._instances)

    def remove_any(self, instances: list[Instance]) -> None:
        """Remove one of these by chance, for good and at once."""
        with self._lock:
            if present := [instance for instance in instances if instance.row["id"] in self._instances]:
                self._remove(self._rng.choice(present).row["id"])

    def _find(self, instance_id: str) -> Instance:
        self._settle()
        if instance_id not in self._instances:
            raise Refusal(HTTPStatus.BAD_REQUEST, "RESOURCE_NOT_FOUND", "instance not found")
        return self._instances[instance_id]

    def _settle(self) -> None:
        now, wall = time.monotonic(), time.time()
        if now < self._next_move:
            return
        for instance in [moving for moving in self._moving.values() if moving.plan[0][0] <= now]:
            while instance.plan and instance.plan[0][0] <= now:
                begins, status = instance.plan.pop(0)
                self._enter(instance, status, wall - (now - begins))
            self._schedule(instance, instance.plan)
        self._next_move = min((instance.plan[0][0] for instance in self._moving.values()), default=math.inf)

    def _enter(self, instance: Instance, status: str, at: float) -> None:
        row, before = instance.row, instance.row["status"]
        row["status"], instance.rendered = status, None
        if status == "removed":
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
        if "status" in fields:
            self._schedule(instance, [])

    def _remove(self, instance_id: str) -> None:
        self._moving.pop(instance_id, None)
        self._instances.pop(instance_id, None)

    def _sort(self) -> None:
        newest_first = sorted(self._instances.values(), key=Instance.created_at, reverse=True)
        self._instances = {instance.row["id"]: instance for instance in newest_first}


# ---- Faults ----


class Field(NamedTuple):
    """A field of a fault: the words and the test for its values; with no default it must be sent."""

    allowed: str
    accepts: Callable[[Any], bool]
    default: Any = ...


OPTIONAL = object()


def integer(minimum: int, maximum: int, default: Any = ...) -> Field:
    return Field(
        f"an integer from {minimum} to {maximum}",
        lambda v: type(v) is int and minimum <= v <= maximum,
        default,
    )


def number(minimum: float, maximum: float, default: Any = ...) -> Field:
    return Field(
        f"a number from {minimum} to {maximum}",
        lambda v: type(v) in (int, float) and minimum <= v <= maximum,
        default,
    )


def one_of(*values: str, default: Any = ...) -> Field:
    return Field("one of " + ", ".join(values), lambda v: isinstance(v, str) and v in values, default)


def is_headers(value: object) -> bool:
    """Tell whether these can be sent as headers: a line break in one would forge the next."""
    return isinstance(value, dict) and all(
        re.fullmatch(r"[\w-]+", name, re.ASCII)
        and isinstance(text, str)
        and re.fullmatch(r"[\t\x20-\x7e\xa0-\xff]*", text)
        for name, text in value.items()
    )


def is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


REASONS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHORIZED",
    403: "INVALID_API_KEY",
    404: "RESOURCE_NOT_FOUND",
    429: "RATE_LIMIT_EXCEEDED",
}
COMMON_FIELDS = {
    "on": one_of("any", *sorted(CALLS), default="any"),
    "page": integer(0, 10**9, OPTIONAL),
    "instanceId": Field("a string", lambda v: isinstance(v, str), OPTIONAL),
    "times": integer(1, 10**9, OPTIONAL),
    "every": integer(1, 10**9, 1),
}


class Fault:
    """One fault as it was asked for, with how often it met a call and how often it fired."""

    def __init__(self, wanted: object) -> None:
        """Raise Refusal, saying what is allowed, unless this is a fault that can fire."""
        if not isinstance(wanted, dict):
            raise invalid('a fault is a JSON object such as {"on": "list", "kind": "status", "status": 429}')
        name = wanted.get("kind")
        if not isinstance(name, str) or name not in KINDS:
            raise invalid("kind must be one of " + ", ".join(KINDS))
        kind = KINDS[name]
        fields = {**COMMON_FIELDS, **kind.fields}
        if unknown := wanted.keys() - fields.keys() - {"kind"}:
            raise invalid(f"{name} has no field {min(unknown)}; allowed are " + ", ".join(fields))
        self.fields: dict[str, Any] = {"kind": name}
        for key, rule in fields.items():
            if key in wanted and not rule.accepts(wanted[key]):
                raise invalid(f"{key} of {name} must be {rule.allowed}")
            if key not in wanted and rule.default is ...:
                raise invalid(f"{name} needs {key}: {rule.allowed}")
            if key in wanted or rule.default is not OPTIONAL:
                self.fields[key] = wanted.get(key, rule.default)
        if name == "hide" and ("ids" in wanted) == ("fraction" in wanted):
            raise invalid("hide needs either ids or fraction")
        self.calls = kind.calls
        self.calls &= {self.fields["on"]} if self.fields["on"] != "any" else CALLS
        self.calls &= {"list"} if "page" in wanted else CALLS
        self.calls &= {"get", *ACTIONS} if "instanceId" in wanted else CALLS
        if not self.calls:
            raise invalid(f"can never fire: {name} is for {', '.join(sorted(kind.calls))}; page is for list")
        self.met = self.fired = 0
        self.lifted = threading.Event()

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def is_spent(self) -> bool:
        return "times" in self.fields and self.fired >= int(self["times"])

    def fires(self, call: "Call") -> bool:
        """Count the call if it is one of this fault's, and tell whether it gets the fault."""
        if (
            self.is_spent()
            or call.kind not in self.calls
            or self.fields.get("page", call.page_number) != call.page_number
            or self.fields.get("instanceId", call.instance_id) != call.instance_id
        ):
            return False
        self.met += 1
        fires = self.met % int(self["every"]) == 0
        self.fired += fires
        return fires


class Faults:
    """The faults that are on, in the order they came; the first that fires on a call has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, wanted: object) -> None:
        faults = [Fault(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
        with self._lock:
            self._faults += faults

    def lift(self) -> None:
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.lifted.set()

    def find(self, call: "Call") -> Fault | None:
        with self._lock:
            return next((fault for fault in self._faults if fault.fires(call)), None)

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        with self._lock:
            told: dict[str, list[dict[str, Any]]] = {"faults": [], "spent": []}
            for fault in self._faults:
                told["spent" if fault.is_spent() else "faults"].append({**fault.fields, "fired": fault.fired})
            return told


def answer_status(exchange: "Exchange", fault: Fault) -> Answer:
    status = fault["status"]
    if status in (204, 304):
        answer = Answer(status)  # These have no body, whatever was asked for.
    elif "body" in fault.fields:
        body = fault["body"]
        answer = html_answer(body, status) if isinstance(body, str) else json_answer(body, status)
    elif status < HTTPStatus.BAD_REQUEST:
        answer = Answer(status)
    elif status in (502, 503, 504):
        answer = html_answer(f"<html>{status}</html>", status)
    else:
        reason = REASONS.get(status, "UNKNOWN")
        answer = Refusal(status, reason, reason.replace("_", " ").lower()).answer()
    answer.headers |= {name.title(): text for name, text in fault["headers"].items()}
    return answer


def delay(exchange: "Exchange", fault: Fault) -> Answer:
    fault.lifted.wait(fault["seconds"])
    return exchange.answer_normally()


def hang(exchange: "Exchange", fault: Fault) -> None:
    while not fault.lifted.wait(0.05) and not exchange.is_client_gone():
        pass
    exchange.close_connection = True


def drip(exchange: "Exchange", fault: Fault) -> None:
    answer = exchange.answer_normally()
    head = exchange.build_head(answer)
    data, sent = head + answer.body, len(head) if fault["part"] == "body" else 0
    exchange.connection.sendall(data[:sent])
    while sent < len(data) and not fault.lifted.wait(fault["seconds"]):
        exchange.connection.sendall(data[sent : sent + 1])
        sent += 1
    exchange.connection.sendall(data[sent:])


def lose(exchange: "Exchange", fault: Fault) -> None:
    exchange.answer_normally()
    exchange.reset_connection()


def cut(exchange: "Exchange", fault: Fault) -> None:
    answer = exchange.answer_normally()
    answer.headers["Content-Length"] = str(max(len(answer.body), 2))  # An empty answer lacks something too.
    exchange.connection.sendall(exchange.build_head(answer) + answer.body[: len(answer.body) // 2])


def refuse_but_act(exchange: "Exchange", fault: Fault) -> Answer:
    exchange.answer_normally()
    return invalid_state().answer()


def answer_gzip_bomb(exchange: "Exchange", fault: Fault) -> Answer:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    return Answer(HTTPStatus.OK, build_gzip_bomb(fault["megabytes"]), headers)


@functools.lru_cache(maxsize=2)
def build_gzip_bomb(megabytes: int) -> bytes:
    packer, padding = zlib.compressobj(level=1, wbits=31), b"0" * MEGABYTE
    parts = [packer.compress(b'{"instances": [], "total": 0, "padding": "')]
    parts += [packer.compress(padding) for _ in range(megabytes)]
    return b"".join([*parts, packer.compress(b'"}'), packer.flush()])


def pad(exchange: "Exchange", fault: Fault) -> Answer:
    page = exchange.read_page()
    padding = b"x" * (fault["megabytes"] * MEGABYTE // max(len(page.rows), 1))
    return replace(page, rows=[b'%s, "padding": "%s"}' % (row[:-1], padding) for row in page.rows]).answer()


def list_endlessly(exchange: "Exchange", fault: Fault) -> Answer:
    # A client may ask for pages of any size; memory is not endless.
    size = min(exchange.read_query().size, 1000)
    fresh = [exchange.server.account.build_fresh_row() for _ in range(size)]
    return Page([json.dumps(row).encode() for row in fresh], None).answer()


def cap_page(exchange: "Exchange", fault: Fault) -> Answer:
    query = exchange.read_query()
    return exchange.server.account.list_page(replace(query, size=min(query.size, fault["size"]))).answer()


def hide(exchange: "Exchange", fault: Fault) -> Answer:
    query, account, hidden = exchange.read_query(), exchange.server.account, fault.fields.get("ids")
    if hidden is None:
        ids = [str(row["id"]) for row in account.list_rows()]
        ids.sort(key=lambda instance_id: zlib.crc32(instance_id.encode("utf-8", "surrogatepass")))
        hidden = ids[: round(len(ids) * fault["fraction"])]
    return account.list_page(replace(query, hidden=frozenset(hidden))).answer()


def slip(exchange: "Exchange", fault: Fault) -> Answer:
    page = exchange.read_page()
    exchange.server.account.remove_any(page.shown)
    return page.answer()


def append_rows(exchange: "Exchange", fault: Fault) -> Answer:
    page, rows = exchange.read_page(), fault["rows"]
    page.total = (page.total or 0) + sum(isinstance(row, dict) and "id" in row for row in rows)
    page.rows += [json.dumps(row).encode() for row in rows] if page.is_first else []
    return page.answer()


def repeat_row(exchange: "Exchange", fault: Fault) -> Answer:
    page = exchange.read_page()
    return replace(page, rows=page.rows[:1] + page.rows).answer()


class Kind(NamedTuple):
    """What a kind of fault does instead of answering normally, its own fields, and the calls it is for.

    The effect returns the answer to send, or None when nothing (more) is to be sent."""

    effect: Callable[["Exchange", Fault], Answer | None]
    fields: Mapping[str, Field] = MappingProxyType({})
    calls: frozenset[str] = CALLS


LISTING = frozenset({"list"})
KINDS: dict[str, Kind] = {
    "status": Kind(
        answer_status,
        {
            "status": integer(200, 599, 500),
            "body": Field("any JSON", lambda v: True, OPTIONAL),
            "headers": Field("an object of strings that fit into headers", is_headers, {}),
        },
    ),
    "delay": Kind(delay, {"seconds": number(0, 3600)}),
    "hang": Kind(hang),
    "drip": Kind(drip, {"seconds": number(0, 3600, 0.2), "part": one_of("body", "head", default="body")}),
    "reset": Kind(lambda exchange, fault: exchange.reset_connection()),
    "lost": Kind(lose),
    "cut": Kind(cut),
    "ignore": Kind(lambda exchange, fault: exchange.answer_action(ignored=True), calls=ACTIONS),
    "refuse_but_do": Kind(refuse_but_act, calls=ACTIONS),
    "gzip_bomb": Kind(answer_gzip_bomb, {"megabytes": integer(1, 2000, 100)}),
    "big": Kind(pad, {"megabytes": integer(1, 500, 10)}, LISTING),
    "endless": Kind(list_endlessly, calls=LISTING),
    "empty": Kind(lambda exchange, fault: Page([], 0).answer(), calls=LISTING),
    "null": Kind(lambda exchange, fault: json_answer({"instances": None}), calls=LISTING),
    "no_total": Kind(lambda exchange, _: replace(exchange.read_page(), total=None).answer(), calls=LISTING),
    "page_cap": Kind(cap_page, {"size": integer(1, 10**6)}, LISTING),
    "hide": Kind(
        hide,
        {"ids": Field("a list of ids", is_strings, OPTIONAL), "fraction": number(0, 1, OPTIONAL)},
        LISTING,
    ),
    "slip": Kind(slip, {"page": integer(0, 10**9)}, LISTING),
    "rows": Kind(append_rows, {"rows": Field("a list", lambda v: isinstance(v, list))}, LISTING),
    "duplicate": Kind(repeat_row, calls=LISTING),
}

# ---- Over HTTP ----


@dataclass
class Call:
    """A call as it came, before anything of it was checked; a number or an id that makes no sense is None."""

    kind: str
    query: dict[str, str]
    payload: Any

    @property
    def page_number(self) -> int | None:
        return parse_count(self.query.get("pageNum")) if self.kind == "list" else None

    @property
    def instance_id(self) -> str | None:
        source = self.payload if self.kind in ACTIONS else self.query
        value = source.get("instanceId") if isinstance(source, dict) else None
        return value if isinstance(value, str) else None


def parse_count(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else None


class CallLog:
    """Who called what: counts since the last `clear`, the most calls at once, and the last 10,000 calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self.clear()

    def clear(self) -> None:
        with self._lock:
            self._counts: Counter[str] = Counter()
            self._recent: deque[dict[str, Any]] = deque(maxlen=RECORDED_CALLS)
            self._max_concurrent = self._in_flight

    @contextlib.contextmanager
    def record(self, call: Call, user_agent: str) -> Iterator[None]:
        entry: dict[str, Any] = {"call": call.kind, "instanceId": (call.instance_id or "")[:100] or None}
        entry |= {"page": call.page_number, "at": time.time(), "userAgent": user_agent[:200]}
        with self._lock:
            self._counts[call.kind] += 1
            self._recent.append(entry)
            self._in_flight += 1
            self._max_concurrent = max(self._max_concurrent, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def describe(self) -> dict[str, Any]:
        with self._lock:
            counts = dict.fromkeys(sorted(CALLS), 0) | self._counts
            return {"counts": counts, "maxConcurrent": self._max_concurrent, "calls": list(self._recent)}


class Exchange(BaseHTTPRequestHandler):
    """One connection: reads a request, finds its fault or its answer, and sends that in a single write."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"
    call: Call

    def answer_request(self) -> None:
        try:
            answer = self.find_answer()
        except Refusal as refusal:
            answer = refusal.answer()
        if answer is not None:
            body = b"" if self.command == "HEAD" else answer.body
            self.connection.sendall(self.build_head(answer) + body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer_request

    def find_answer(self) -> Answer | None:
        path, _, query = self.path.partition("?")
        payload = self.read_payload()
        if path in CONTROLS:
            if self.command not in CONTROLS[path]:
                raise wrong_method(CONTROLS[path])
            return json_answer(CONTROLS[path][self.command](self.server, payload))
        method, kind = ROUTES.get(path, ("", "other"))
        self.call = Call(kind, dict(parse_qsl(query, keep_blank_values=True)), payload)
        user_agent = self.headers.get("User-Agent", "")
        with self.server.calls.record(self.call, user_agent):
            self.server.closing.wait(self.server.latency_seconds)
            if user_agent.startswith("Python-urllib"):
                # Novita's edge does this (seen, not documented).
                return html_answer("error code: 1010", HTTPStatus.FORBIDDEN)
            if not method:
                raise Refusal(HTTPStatus.NOT_FOUND, "NOT_FOUND", "no such path")
            if self.command != method:
                raise wrong_method([method])
            if not re.fullmatch(r"Bearer +\S+", self.headers.get("Authorization", "")):
                raise Refusal(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED", "unauthorized")
            fault = self.server.faults.find(self.call)
            return KINDS[fault["kind"]].effect(self, fault) if fault else self.answer_normally()

    def read_payload(self) -> Any:
        """Return the body as JSON, or None when there is none or it is malformed."""
        length = parse_count(self.headers.get("Content-Length", "0"))
        if length is None or length > MAX_BODY_BYTES or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            message = "the body must come with its length, of 16 MB at most"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "INVALID_ARGUMENT", message)
        try:
            return json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            return None

    def answer_normally(self) -> Answer:
        """Return what the call gets when nothing goes wrong on the way, be it an error."""
        try:
            match self.call.kind:
                case "list":
                    return self.read_page().answer()
                case "get":
                    return json_answer(self.server.account.get_row(self.read_instance_id()))
                case "products":
                    return json_answer({"data": PRODUCTS})
                case "clusters":
                    return json_answer({"data": CLUSTERS})
                case _:
                    return self.answer_action()
        except Refusal as refusal:
            return refusal.answer()

    def answer_action(self, ignored: bool = False) -> Answer:
        instance_id = self.read_instance_id()
        state = self.server.account.act(self.call.kind, instance_id, ignored)
        if self.call.kind == "delete":
            return Answer()  # Nothing at all (seen, not documented).
        return json_answer({"instanceId": instance_id, "state": state})

    def read_instance_id(self) -> str:
        if self.call.instance_id is None:
            raise invalid("instanceId must be sent, as a string; a POST sends a JSON object")
        return self.call.instance_id

    def read_query(self) -> PageQuery:
        query, page_number = self.call.query, self.call.page_number
        size = parse_count(query.get("pageSize"))
        if size is None or page_number is None:
            raise invalid("pageSize and pageNum must be sent, as integers of at least 0")
        name, product_name, status = (query.get(key, "") for key in ("name", "productName", "status"))
        return PageQuery(size, page_number, name, product_name, status)

    def read_page(self) -> Page:
        return self.server.account.list_page(self.read_query())

    def build_head(self, answer: Answer) -> bytes:
        """Return status line and headers; an answer with a Content-Length of its own ends the connection."""
        headers = {"Content-Length": str(len(answer.body))} | answer.headers
        self.close_connection |= "Content-Length" in answer.headers
        if self.close_connection:
            headers["Connection"] = "close"
        status_line = f"HTTP/1.1 {int(answer.status)} {STATUS_PHRASES.get(answer.status, 'Unknown')}"
        lines = [status_line, *(f"{name}: {text}" for name, text in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def is_client_gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False

    def reset_connection(self) -> None:
        """Send RST; an orderly close would look like an answer cut short before its first byte."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:
        pass


def add_faults(server: "Server", payload: object) -> object:
    server.faults.add(payload)
    return server.faults.describe()


def lift_faults(server: "Server", payload: object) -> object:
    server.faults.lift()
    return server.faults.describe()


def clear_calls(server: "Server", payload: object) -> object:
    server.calls.clear()
    return server.calls.describe()


CONTROLS: dict[str, dict[str, Callable[["Server", Any], object]]] = {
    "/__faults": {
        "GET": lambda server, _: server.faults.describe(),
        "POST": add_faults,
        "DELETE": lift_faults,
    },
    "/__calls": {"GET": lambda server, _: server.calls.describe(), "DELETE": clear_calls},
    "/__instances": {
        "GET": lambda server, _: {"instances": server.account.list_rows()},
        "POST": lambda server, payload: {"total": server.account.change(payload)},
    },
}


class Server(ThreadingHTTPServer):
    """Serves one account on 127.0.0.1 from when it is built until `close`; usable with `with`."""

    daemon_threads = True
    request_queue_size = 128
    account: Account
    faults: Faults
    calls: CallLog

    def __init__(self, account: Account, port: int, latency_seconds: float) -> None:
        """Raise OSError when the port can't be had."""
        self.account, self.latency_seconds = account, latency_seconds
        self.faults, self.calls = Faults(), CallLog()
        self.closing = threading.Event()
        self._connections: set[Any] = set()
        super().__init__(("127.0.0.1", port), Exchange)
        self.port: int = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end every connection; what hangs or sleeps is woken."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._connections):  # First, so that what is woken below answers nobody.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.closing.set()
        self.faults.lift()
        deadline = time.monotonic() + 2
        while self._connections and time.monotonic() < deadline:
            time.sleep(0.002)

    def __exit__(self, *args: object) -> None:
        self.close()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks a name server for the name of the host.

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet about a client that went away; anything else is a mistake in here and shows."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def start(account: Account, port: int = 0, latency_seconds: float = 0.0) -> Server:
    """Serve the account from a daemon thread; port 0 takes a free one. Raises OSError when there is none."""
    return Server(account, port, latency_seconds)
