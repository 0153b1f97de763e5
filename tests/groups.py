"""Groups of cases that share a scene, which takes as long as some of them."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def group(cases: Iterable[T], size: int = 8) -> list[list[T]]:
    listed = list(cases)
    return [listed[begin : begin + size] for begin in range(0, len(listed), size)]
