"""Readers in processes of their own: how long they wait, and whether the listings that they get are whole."""

import http.client
import multiprocessing
import random
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

PAUSE_SECONDS = 0.02
LISTING_PAUSE_SECONDS = 0.1

# A process of its own from the first instruction on: none of this module needs Django.
SPAWN = multiprocessing.get_context("spawn")


def get_id(number: int) -> str:
    return f"{number:016x}"


def start(stack: ExitStack, function: Callable[..., None], *args: Any) -> Connection:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=function, args=(theirs, *args), daemon=True)
    process.start()
    stack.callback(process.join, 10)
    stack.callback(process.terminate)
    return ours


def collect(pipe: Connection) -> Any:
    """Return what a reader measured since the last time."""
    pipe.send("collect")
    return pipe.recv()


class Reader:
    """A client with one connection, which the server may close when it was idle for 2 s."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def get(self, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        for _ in range(2):
            try:
                self._connection.request("GET", path, headers=headers)
                answer = self._connection.getresponse()
                return answer, answer.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self._connection.close()
        raise SystemExit(f"{path} is not answered")


def read_one(pipe: Connection, port: int, instances: int) -> None:
    reader, waits = Reader(port), list[float]()
    while True:
        time.sleep(PAUSE_SECONDS)
        began = time.monotonic()
        answer, _ = reader.get(f"/api/instances/{get_id(random.randrange(instances))}")
        # A refused read counts as one that took a minute.
        waits.append((time.monotonic() - began) * 1000 if answer.status == 200 else 60_000.0)
        if pipe.poll():
            pipe.recv()
            pipe.send(waits)
            waits = []


def read_listings(pipe: Connection, port: int) -> None:
    """Read the whole listing again and again; one that has not changed is judged as before."""
    reader, kinds, last, kind = Reader(port), list[str](), b"", ""
    while True:
        answer, body = reader.get("/api/instances", **{"Accept-Encoding": "gzip"})
        if answer.status != 200:
            kind = f"refused with {answer.status}"
        elif body != last:
            last, kind = body, _judge(zlib.decompress(body, wbits=31))
        kinds.append(kind)
        if pipe.poll():
            pipe.recv()
            pipe.send(kinds)
            kinds = []
        time.sleep(LISTING_PAUSE_SECONDS)


def _judge(listing: bytes) -> str:
    """Tell which version of the instances a listing has: "old", "new", or "mixed"."""
    old, new = listing.count(b'"imageUrl":"v1"'), listing.count(b'"imageUrl":"v2"')
    total = int(listing.rpartition(b'"total":')[2].strip(b"}"))
    return "mixed" if old + new != total or (old and new) else "new" if new else "old"
