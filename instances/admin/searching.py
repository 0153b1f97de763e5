"""Keeps searches of records from using up the service: few at once, each for a few seconds, the newest rows only.

Forty searches of 100,000 records at once delayed a stop of everything by 38 s, since each of them held a thread and
a processor.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import SimpleTemplateResponse

from instances.errors import PanelError, SearchTooSlow, TooManySearches

# A search shows this many rows at most. Some databases allow 999 values in a query.
MAX_FOUND: Final = 500
# Of each process: how many pages of records are read at once, and how many more wait. Others are refused at once, so
# that threads remain for everything else.
MAX_RUNNING: Final = 2
MAX_WAITING: Final = 6
WAIT_SECONDS: Final = 3.0
# After this time a page of records is given up.
PAGE_SECONDS: Final = 3.0
# SQLite looks at the clock after so many steps of its own: every few milliseconds.
_STEPS: Final = 50_000

_admitted: Final = threading.BoundedSemaphore(MAX_RUNNING + MAX_WAITING)
_running: Final = threading.BoundedSemaphore(MAX_RUNNING)


def answer(request: HttpRequest, read: Callable[[], HttpResponse]) -> HttpResponse:
    """Return the page that `read` makes within the limits, or a page that says which limit it exceeded."""
    try:
        with turn(), deadline(PAGE_SECONDS):
            response = read()
            # Most of a list's queries run when its template is rendered.
            return response.render() if isinstance(response, SimpleTemplateResponse) else response
    except (SearchTooSlow, TooManySearches) as exc:
        return _refuse(request, exc)


def _refuse(request: HttpRequest, error: PanelError) -> HttpResponse:
    response = render(request, "503.html", {"error": error}, status=error.status)
    response["Retry-After"] = str(round(error.retry_after or 1))
    return response


@contextmanager
def turn() -> Iterator[None]:
    """Wait for a turn to read records. Raises TooManySearches."""
    if not _admitted.acquire(blocking=False):
        raise TooManySearches
    try:
        if not _running.acquire(timeout=WAIT_SECONDS):
            raise TooManySearches
        try:
            yield
        finally:
            _running.release()
    finally:
        _admitted.release()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Cancel a query that runs for too long. Raises SearchTooSlow.

    SQLite's limit is for the whole block, PostgreSQL's for each query.
    """
    try:
        with _limit_sqlite(seconds) if connection.vendor == "sqlite" else _limit_postgresql(seconds):
            yield
    except OperationalError as exc:
        if "interrupted" in str(exc) or getattr(exc.__cause__, "sqlstate", "") == "57014":
            raise SearchTooSlow from exc
        raise


@contextmanager
def _limit_sqlite(seconds: float) -> Iterator[None]:
    connection.ensure_connection()
    database: Any = connection.connection
    ends_at = time.monotonic() + seconds
    database.set_progress_handler(lambda: time.monotonic() > ends_at, _STEPS)
    try:
        yield
    finally:
        database.set_progress_handler(None, _STEPS)


@contextmanager
def _limit_postgresql(seconds: float) -> Iterator[None]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {round(1000 * seconds)}")
        yield
