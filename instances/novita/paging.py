"""Reads all pages of Novita's list of instances, however Novita counts them.

Pages are no snapshot (seen, not documented): an instance that exists can be missing from all of them.
"""

import math
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from instances.errors import NovitaBadAnswer, NovitaError
from instances.instance import Instance, MalformedInstance
from instances.novita.parallel import call_each
from instances.novita.rows import from_novita, read_integer

# Ten times the largest account that was tested. A listing without an end has to stop somewhere.
MAX_PAGES: Final = 2000

# Called after each page with the number of instances so far, and the total if Novita says it.
OnPage = Callable[[int, int | None], None]

# What the caller keeps of an instance: a synchronization keeps its stored form, which takes a third of the memory.
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Page(Generic[Kept]):
    """One page as Novita sent it. `instances` is None when the answer has no list."""

    number: int
    instances: list[tuple[str, Kept]] | None
    total: int | None


@dataclass(frozen=True)
class Listing(Generic[Kept]):
    """All instances that Novita listed, by id. `missing_rows` is the difference to Novita's own `total`."""

    instances: dict[str, Kept]
    pages: int
    missing_rows: int = 0


# Returns the JSON of a page. Raises NovitaError.
Fetch = Callable[[int], Any]


def say_missing_rows(count: int) -> str:
    return f"Novita counts {count} more instance{'' if count == 1 else 's'} than it lists."


def parse_page(number: int, body: Any, keep: Callable[[Instance], Kept]) -> Page[Kept]:
    """Read one page of the list. Raises NovitaBadAnswer when it is no page, or one of its rows is no instance."""
    if not isinstance(body, dict):
        raise NovitaBadAnswer(f"Page {number} of Novita's list is not an object.")
    rows = body.get("instances")
    if not isinstance(rows, list | None):
        raise _has_no_list(number)
    try:
        instances = [_read_row(row, keep) for row in rows] if rows is not None else None
    except MalformedInstance as exc:
        raise NovitaBadAnswer(f"Page {number} of Novita's list can't be used: {exc}.") from exc
    return Page(number, instances, read_integer(body.get("total")))


def _read_row(row: object, keep: Callable[[Instance], Kept]) -> tuple[str, Kept]:
    instance = from_novita(row)
    return instance.id, keep(instance)


def list_all(fetch: Fetch, keep: Callable[[Instance], Kept], concurrency: int, on_page: OnPage | None) -> Listing[Kept]:
    """Read all pages, several at once. Raises NovitaError when any page fails: a part never passes for the whole."""
    first = _read_pages(fetch, keep, concurrency, on_page)
    if not first.missing_rows:
        return Listing(first.rows, first.read)
    # Novita counts more instances than it listed. A second pass finds those that moved to another page meanwhile.
    second = _read_pages(fetch, keep, concurrency, on_page)
    return Listing({**first.rows, **second.rows}, first.read + second.read, second.missing_rows)


@dataclass
class _Pages(Generic[Kept]):
    """The pages of one listing, merged in their order."""

    rows: dict[str, Kept] = field(default_factory=dict)
    first_ids: list[str] = field(default_factory=list)
    read: int = 0
    listed_rows: int = 0
    total: int | None = None

    def add(self, page: Page[Kept]) -> bool:
        """Merge a page. Return True for the last one."""
        instances = self._get_instances(page)
        ids = [id_ for id_, _ in instances]
        has_new = any(id_ not in self.rows for id_ in ids)
        self.rows.update(instances)
        self.read += 1
        self.total = page.total if page.total is not None else self.total
        if page.number == 0:
            self.first_ids = ids
            # Page 0 can be empty although the account is not, where pages count from 1.
            return self._is_complete()
        if not (page.number == 1 and ids == self.first_ids):
            self.listed_rows += len(ids)
        return not ids or self._is_complete() or (page.number >= 2 and not has_new)

    def _get_instances(self, page: Page[Kept]) -> Sequence[tuple[str, Kept]]:
        """Return a page's instances. A missing list counts as empty only where nothing can be left to list."""
        if page.instances is not None:
            return page.instances
        expected = page.total if page.total is not None else self.total
        if len(self.rows) < expected if expected is not None else page.number == 0:
            raise _has_no_list(page.number)
        return ()

    def _is_complete(self) -> bool:
        # With more rows than the total, an instance was removed meanwhile, or the total is wrong: read on to the end.
        return len(self.rows) == self.total

    @property
    def missing_rows(self) -> int:
        return max(0, (self.total or 0) - self.listed_rows - len(self.first_ids))

    def get_expected_last(self) -> int | None:
        """Return the number of the last page if pages count from 1; None when Novita sends no total."""
        if self.total is None or not self.first_ids:
            return None
        return math.ceil(self.total / len(self.first_ids))


def _read_pages(
    fetch: Fetch, keep: Callable[[Instance], Kept], concurrency: int, on_page: OnPage | None
) -> _Pages[Kept]:
    """Read page 0, 1, 2, … until one of them ends the listing.

    Sources disagree on whether pages count from 0 or from 1, with 0 answered as 1. So a page 1 that repeats page 0 is
    not the end. A short page is not the end either: Novita may limit the size of a page.
    """
    pages = _Pages[Kept]()
    wave = range(1)
    while wave.start < MAX_PAGES:
        with closing(_read_in_order(fetch, wave, keep, concurrency)) as answers:
            for answer in answers:
                if isinstance(answer, NovitaError):
                    raise answer
                is_last = pages.add(answer)
                if on_page:
                    on_page(len(pages.rows), pages.total)
                if is_last:
                    return pages
        width = min(concurrency, 2 * len(wave))
        expected = pages.get_expected_last()
        if expected is not None:
            # All at once: after a wave of a few pages, each wave would wait for its slowest page.
            width = max(1, min(expected, MAX_PAGES) + 1 - wave.stop)
        wave = range(wave.stop, wave.stop + width)
    raise NovitaBadAnswer(f"Novita's list did not end within {MAX_PAGES} pages.")


def _read_in_order(
    fetch: Fetch, numbers: Sequence[int], keep: Callable[[Instance], Kept], concurrency: int
) -> Generator[Page[Kept] | NovitaError, None, None]:
    """Read pages, several at once. Yield them in the order of their numbers, each as soon as possible.

    The calling thread reads the rows, while other threads fetch further pages: eight that read rows would take the
    processor from the requests of this process in turn. When the caller stops early, no further call begins.
    """
    is_over = threading.Event()
    # Answers take memory until their rows are read.
    slots = threading.Semaphore(2 * concurrency)

    def fetch_one(number: int) -> Any:
        slots.acquire()
        return None if is_over.is_set() else fetch(number)

    answers = call_each(fetch_one, numbers, concurrency)
    early: dict[int, Page[Kept] | NovitaError] = {}
    try:
        for number in numbers:
            while number not in early:
                arrived, answer = next(answers)
                early[arrived] = _try_to_parse(arrived, answer, keep)
                slots.release()
            yield early.pop(number)
    finally:
        is_over.set()
        slots.release(len(numbers))
        # Wait for the running calls.
        for _ in answers:
            pass


def _try_to_parse(number: int, answer: Any, keep: Callable[[Instance], Kept]) -> Page[Kept] | NovitaError:
    if isinstance(answer, NovitaError):
        return answer
    try:
        return parse_page(number, answer, keep)
    except NovitaBadAnswer as exc:
        return exc


def _has_no_list(number: int) -> NovitaBadAnswer:
    return NovitaBadAnswer(f"Page {number} of Novita's list has no instances in it.")
