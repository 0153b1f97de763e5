"""The simulator over HTTP: the API, and the controls under /__."""

import contextlib
import json
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.client import responses as STATUS_PHRASES
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl

from instances.simulator.account import Account, Page, PageQuery
from instances.simulator.answers import Answer, Refusal, html_answer, invalid, json_answer, wrong_method
from instances.simulator.faults import KINDS, Faults
from instances.simulator.routes import ACTIONS, CALLS, ROUTES
from instances.simulator.rows import CLUSTERS, PRODUCTS

MAX_BODY_BYTES = 16 * 1024 * 1024
RECORDED_CALLS = 10_000


@dataclass
class Call:
    """A call as it arrived, before any check. An invalid number or id is None."""

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
    """The recorded calls: counts since the last `clear`, the maximum in parallel, and the last 10,000 calls."""

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
    """One connection: reads a request, finds its fault or its answer, and sends it in a single write."""

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
        """Return the JSON body, or None when it is absent or malformed."""
        length = parse_count(self.headers.get("Content-Length", "0"))
        if length is None or length > MAX_BODY_BYTES or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            message = "the body must have a Content-Length of at most 16 MB"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "INVALID_ARGUMENT", message)
        try:
            return json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            return None

    def answer_normally(self) -> Answer:
        """Return the answer without a fault, which may be an error."""
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
                case "balance":
                    return json_answer(self.server.account.read_balance())
                case "bills":
                    return json_answer(self.server.account.list_bills(self.call.query))
                case "metrics":
                    return json_answer(self.server.account.read_metrics(self.read_instance_id(), self.call.query))
                case _:
                    return self.answer_action()
        except Refusal as refusal:
            return refusal.answer()

    def answer_action(self, ignored: bool = False) -> Answer:
        instance_id = self.read_instance_id()
        state = self.server.account.act(self.call.kind, instance_id, ignored)
        if self.call.kind == "delete":
            return Answer()  # An empty body (seen, not documented).
        return json_answer({"instanceId": instance_id, "state": state})

    def read_instance_id(self) -> str:
        if self.call.instance_id is None:
            raise invalid("instanceId is required, as a string; a POST needs a JSON object")
        return self.call.instance_id

    def read_query(self) -> PageQuery:
        query, page_number = self.call.query, self.call.page_number
        size = parse_count(query.get("pageSize"))
        if size is None or page_number is None:
            raise invalid("pageSize and pageNum are required, as integers from 0")
        name, product_name, status = (query.get(key, "") for key in ("name", "productName", "status"))
        return PageQuery(size, page_number, name, product_name, status)

    def read_page(self) -> Page:
        return self.server.account.list_page(self.read_query())

    def build_head(self, answer: Answer) -> bytes:
        """Return status line and headers. An answer with its own Content-Length ends the connection."""
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
        """Send RST. An orderly close would look like an answer that was cut before its first byte."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:
        pass


def add_faults(server: "Server", payload: object) -> object:
    server.faults.add(payload)
    return server.faults.describe()


def remove_faults(server: "Server", payload: object) -> object:
    server.faults.clear()
    return server.faults.describe()


def clear_calls(server: "Server", payload: object) -> object:
    server.calls.clear()
    return server.calls.describe()


CONTROLS: dict[str, dict[str, Callable[["Server", Any], object]]] = {
    "/__faults": {
        "GET": lambda server, _: server.faults.describe(),
        "POST": add_faults,
        "DELETE": remove_faults,
    },
    "/__calls": {"GET": lambda server, _: server.calls.describe(), "DELETE": clear_calls},
    "/__instances": {
        "GET": lambda server, _: {"instances": server.account.list_rows()},
        "POST": lambda server, payload: {"total": server.account.change(payload)},
    },
}


class Server(ThreadingHTTPServer):
    """Serves one account on 127.0.0.1, from its construction until `close`. A context manager."""

    daemon_threads = True
    request_queue_size = 128
    account: Account
    faults: Faults
    calls: CallLog

    def __init__(self, account: Account, port: int, latency_seconds: float) -> None:
        """Raise OSError when the port is not available."""
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
        """Stop listening, and end every connection and every hanging or sleeping answer."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._connections):  # First: the answers that end below must reach no client.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.closing.set()
        self.faults.clear()
        deadline = time.monotonic() + 2
        while self._connections and time.monotonic() < deadline:
            time.sleep(0.002)

    def __exit__(self, *args: object) -> None:
        self.close()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own looks up the name of the host.

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnected. Any other error is a bug of the simulator, and printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def start(account: Account, port: int = 0, latency_seconds: float = 0.0) -> Server:
    """Serve the account in a daemon thread. Port 0 takes a free one. Raises OSError when the port is not available."""
    return Server(account, port, latency_seconds)


def serve(account: Account, port: int, latency_seconds: float, tell: Callable[[str], object]) -> None:
    """Serve the account until Ctrl-C or SIGTERM; `tell` gets the line that says where.

    Raises OSError when the port is not available.
    """
    # A shell's background job starts with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), start(account, port, latency_seconds) as server:
        fault = '{"on": "list", "kind": "status", "status": 429}'
        tell(f"NOVITA_BASE_URL={server.url}  (add a fault: curl -d '{fault}' {server.url}/__faults)")
        threading.Event().wait()
