"""Reads that threads share: one call for all threads that ask while the call before it is under way.

Each of 8 threads that wait for Redis takes its turn at Python's lock several times. Together they wait once.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class _Group(Generic[Asked, Found]):
    """The threads that share a call."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.found: Sequence[Found] = ()
        self.error: Exception | None = None
        self.is_done = threading.Lock()
        self.is_done.acquire()


class Shared(Generic[Asked, Found]):
    """A read of what several threads ask for. `read` gets a list, and returns what it found for each item.

    The call begins after each of its threads asked. So no thread gets a state from before its question.
    """

    def __init__(self, read: Callable[[Sequence[Asked]], Sequence[Found]]) -> None:
        self._read = read
        self._gate = threading.Lock()
        self._turn = threading.Lock()
        self._open: _Group[Asked, Found] | None = None

    def __call__(self, asked: Asked) -> Found:
        """Return what was found. Raises what `read` raises."""
        with self._gate:
            group, is_first = self._open, self._open is None
            if group is None:
                group = self._open = _Group()
            place = len(group.asked)
            group.asked.append(asked)
        if is_first:
            self._call(group)
        else:
            with group.is_done:
                pass
        if group.error:
            raise group.error
        return group.found[place]

    def _call(self, group: _Group[Asked, Found]) -> None:
        with self._turn:
            with self._gate:
                self._open = None
            try:
                group.found = self._read(group.asked)
            except Exception as exc:
                group.error = exc
            finally:
                group.is_done.release()
