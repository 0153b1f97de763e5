"""Sums the hours that are over, for reports over a long time. A worker does it; without one, reports read intervals."""

from typing import Final

from django.db import transaction

from instances.costs import reports
from instances.costs.reports import DAY_MS, HOUR_MS
from instances.models import HourSums, LedgerState, UsageInterval

# A ledger of many months is summed in parts.
PART_MS: Final = 31 * DAY_MS


def sum_up() -> int:
    """Sum the hours that are not summed yet, and return their number. Raises DatabaseError.

    What was observed does not change later, but for a clock that was set back: `recording` then deletes the sums since.
    """
    state = LedgerState.objects.order_by("pk").first()
    if state is None:
        return 0
    begin, end, count = state.summed_ms or _find_first_hour(state), state.observed_ms // HOUR_MS * HOUR_MS, 0
    while begin < end:
        part = min(begin + PART_MS, end)
        hours = [
            HourSums(began_ms=point.at_ms, sums=list(point.sums.get_rates()))
            for point in reports.sum_by_time(reports.read_pieces(begin, part), begin, part, HOUR_MS)
            if any(point.sums.get_rates())
        ]
        with transaction.atomic():
            # First a write: it keeps out the synchronization. The clock may have been set back since the read.
            same = LedgerState.objects.filter(pk=state.pk, observed_ms__gte=part, summed_ms=state.summed_ms)
            if not same.update(summed_ms=part):
                return count
            HourSums.objects.bulk_create(
                hours, 500, update_conflicts=True, unique_fields=["began_ms"], update_fields=["sums"]
            )
        state.summed_ms, begin = part, part
        count += len(hours)
    return count


def _find_first_hour(state: LedgerState) -> int:
    first = UsageInterval.objects.order_by("began_ms").values_list("began_ms", flat=True).first()
    return (state.observed_ms if first is None else first) // HOUR_MS * HOUR_MS
