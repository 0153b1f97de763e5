"""A load generator: one thread, some connections that stay open, each with one request at a time."""

import selectors
import socket
import statistics
import time
from dataclasses import dataclass

RECEIVE_BYTES = 1 << 20
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """What a server did under load. Latencies are in milliseconds."""

    per_second: float
    p50: float
    p99: float
    statuses: frozenset[int]


class _Connection:
    def __init__(self, port: int, request: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.sent_at = 0.0
        self.head = b""
        self.missing = -1
        self.status = 0

    def send(self) -> None:
        self.head, self.missing = b"", -1
        self.sent_at = time.perf_counter()
        self.sock.sendall(self.request)

    def receive(self) -> bool:
        """Read what has arrived. Returns True when the answer is complete."""
        piece = self.sock.recv(RECEIVE_BYTES)
        if not piece:
            raise ConnectionError("the server closed a connection under load")
        if self.missing < 0:
            self.head += piece
            end = self.head.find(HEAD_END)
            if end < 0:
                return False
            self.status = int(self.head[9:12])
            self.missing = end + 4 + _read_length(self.head[:end]) - len(self.head)
        else:
            self.missing -= len(piece)
        return self.missing == 0


def _read_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def measure(port: int, path: str, headers: str = "", *, seconds: float = 2.0, connections: int = 16) -> Load:
    """Send a request again and again on each connection. Raises ConnectionError."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n{headers}\r\n".encode()
    latencies: list[float] = []
    statuses: set[int] = set()
    with selectors.DefaultSelector() as selector:
        opened = [_Connection(port, request) for _ in range(connections)]
        try:
            for one in opened:
                selector.register(one.sock, selectors.EVENT_READ, one)
            began = time.perf_counter()
            for one in opened:
                one.send()
            while (now := time.perf_counter()) < began + seconds:
                for key, _ in selector.select(1):
                    one = key.data
                    if one.receive():
                        latencies.append(time.perf_counter() - one.sent_at)
                        statuses.add(one.status)
                        one.send()
        finally:
            for one in opened:
                one.sock.close()
    latencies.sort()
    if not latencies:
        return Load(0.0, float("inf"), float("inf"), frozenset())
    p99 = latencies[int(len(latencies) * 0.99)]
    return Load(len(latencies) / (now - began), statistics.median(latencies) * 1000, p99 * 1000, frozenset(statuses))


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(port: int, path: str) -> None:
    """Send a POST without a body, and wait for its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=600) as sock:
        sock.sendall(f"POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        answer = b""
        while piece := sock.recv(RECEIVE_BYTES):
            answer += piece
    if not answer[9:12].startswith(b"2"):
        raise SystemExit(f"{path} answered {answer[:200]!r}")
