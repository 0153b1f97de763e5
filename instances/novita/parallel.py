"""Several calls to Novita at once."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from instances.errors import NovitaError

T = TypeVar("T")
R = TypeVar("R")


def call_each(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[tuple[T, R | NovitaError]]:
    """Call a function for each item, several at once. Yield each item with its result or error, in order of completion.

    The threads are daemons: a process that ends doesn't wait for running calls, as it would for an executor's.
    """
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[tuple[T, R | BaseException]] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def work() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcomes.put((item, function(item)))
            except BaseException as exc:
                outcomes.put((item, exc))

    for _ in range(min(workers, len(items))):
        threading.Thread(target=work, name="novita", daemon=True).start()
    for _ in items:
        item, outcome = outcomes.get()
        if isinstance(outcome, BaseException) and not isinstance(outcome, NovitaError):
            raise outcome
        yield item, outcome
