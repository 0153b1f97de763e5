"""Deletes old records in small batches: nobody who writes, least of all a stop, waits for a long one."""

import time
from datetime import timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.utils import timezone

# A batch of 500 rows holds SQLite's write lock for some 10 ms.
BATCH_ROWS: Final = 500
# A worker runs six times an hour, so this is 60,000 rows an hour of each kind.
BATCHES: Final = 20
# Others get SQLite's lock in between.
PAUSE_SECONDS: Final = 0.05


def list_old(rows: "QuerySet[Any]", field: str, days: int) -> "QuerySet[Any]":
    """Return the rows whose time in a field is more than this number of days ago."""
    return rows.filter(**{f"{field}__lt": timezone.now() - timedelta(days=days)})


def delete(rows: "QuerySet[Any]", *, batch_rows: int = BATCH_ROWS, batches: int = BATCHES) -> int:
    """Delete rows with all that belongs to them, up to a limit. Return how many; the next run deletes further ones."""
    count = 0
    for number in range(batches):
        keys = list(rows.order_by().values_list("pk", flat=True)[:batch_rows])
        if not keys:
            break
        if number:
            time.sleep(PAUSE_SECONDS)
        # The condition once more: a row may have changed since it was read.
        rows.filter(pk__in=keys).delete()
        count += len(keys)
        if len(keys) < batch_rows:
            break
    return count
