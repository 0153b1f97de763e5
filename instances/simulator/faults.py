"""The table of faults, KINDS, and the effect of each on a call."""

import functools
import json
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from instances.simulator.account import Page
from instances.simulator.answers import Answer, Refusal, html_answer, invalid, invalid_state, json_answer
from instances.simulator.routes import ACTIONS, CALLS

if TYPE_CHECKING:
    from instances.simulator.server import Call, Exchange

MEGABYTE = 1024 * 1024


class Field(NamedTuple):
    """A field of a fault: its allowed values in words, and their test. A field without a default is required."""

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
    """Tell whether these can be sent as headers. A line break would forge another header."""
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
    """One fault as requested, with the number of calls it matched and the number of times it fired."""

    def __init__(self, wanted: object) -> None:
        """Raise Refusal with the allowed values for anything but a fault that can fire."""
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
        self.is_cleared = threading.Event()

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def is_spent(self) -> bool:
        return "times" in self.fields and self.fired >= int(self["times"])

    def fires(self, call: "Call") -> bool:
        """Count a call that matches this fault, and tell whether the fault fires."""
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
    """The active faults in order of arrival. The first that fires decides the answer to a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, wanted: object) -> None:
        faults = [Fault(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
        with self._lock:
            self._faults += faults

    def clear(self) -> None:
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.is_cleared.set()

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
        answer = Answer(status)  # These statuses have no body, whatever was requested.
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
    fault.is_cleared.wait(fault["seconds"])
    return exchange.answer_normally()


def hang(exchange: "Exchange", fault: Fault) -> None:
    while not fault.is_cleared.wait(0.05) and not exchange.is_client_gone():
        pass
    exchange.close_connection = True


def drip(exchange: "Exchange", fault: Fault) -> None:
    answer = exchange.answer_normally()
    head = exchange.build_head(answer)
    data, sent = head + answer.body, len(head) if fault["part"] == "body" else 0
    exchange.connection.sendall(data[:sent])
    while sent < len(data) and not fault.is_cleared.wait(fault["seconds"]):
        exchange.connection.sendall(data[sent : sent + 1])
        sent += 1
    exchange.connection.sendall(data[sent:])


def lose(exchange: "Exchange", fault: Fault) -> None:
    exchange.answer_normally()
    exchange.reset_connection()


def cut(exchange: "Exchange", fault: Fault) -> None:
    answer = exchange.answer_normally()
    answer.headers["Content-Length"] = str(max(len(answer.body), 2))  # So an empty answer is cut, too.
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
    # A client may request pages of any size, and memory is limited.
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
    """What a kind of fault does instead of the normal answer, its own fields, and the calls it applies to.

    The effect returns the answer to send, or None when nothing more is to be sent.
    """

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
