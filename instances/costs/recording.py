"""Records in the ledger what a synchronization observed. The ledger may fail: the inventory does not depend on it."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, TypeVar

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from instances.costs import ledger
from instances.costs.ledger import Facts, Span, State
from instances.instance import Instance, clean_text
from instances.models import HourSums, LedgerState, MeteredInstance, UsageInterval, old

log = logging.getLogger(__name__)

BATCH: Final = 500
# An observation this much older than the last one comes from a slow process or a clock that was corrected, and is
# ignored. An older one means that the clock was set back.
LATE_MS: Final = 600_000
NOT_READ: Final = Facts(State.GAP, None, None, 0, None, None, None)
Item = TypeVar("Item")
_DESCRIBED: Final = ("name", "product_id", "gpu", "region", "billing_mode")


def get_longest_pause_ms() -> int:
    """Return the longest pause between two observations that counts as continuous."""
    return round(1000 * max(settings.NOVITA_STALE_AFTER, 2 * settings.NOVITA_SYNC_INTERVAL))


@dataclass(frozen=True)
class Observation:
    """What one synchronization found.

    Equal observations have equal digests; `read` returns the instances, and is called only when something has changed.
    `unconfirmed` exist, but could not be read. `at` is when the synchronization began to read.
    """

    at: datetime
    digest: str
    read: Callable[[], Iterable[Instance]]
    unconfirmed: Collection[str] = ()


def try_to_observe(observation: Observation) -> None:
    """Record an observation. When that fails, the time until the next observation becomes a gap."""
    try:
        observe(observation)
    except DatabaseError as exc:
        log.warning("costs not recorded: %s", exc)
    except Exception:
        # A synchronization that has been published must not fail for the ledger.
        log.exception("costs not recorded")


def observe(observation: Observation) -> None:
    """Record an observation: one statement when nothing has changed. Raises DatabaseError."""
    now_ms, pause_ms = ledger.to_ms(observation.at), get_longest_pause_ms()
    is_continued = LedgerState.objects.filter(
        digest=observation.digest, observed_ms__gte=now_ms - pause_ms, observed_ms__lte=now_ms
    ).update(observed_ms=now_ms)
    if not is_continued:
        with transaction.atomic():
            _record(observation, now_ms, pause_ms)


def _describe(instance: Instance) -> dict[str, str]:
    """Return the columns of MeteredInstance."""
    return {
        "name": clean_text(instance.name, 255),
        "product_id": clean_text(instance.product_id, 128),
        "gpu": clean_text(instance.product_name or instance.product_id, 128),
        "region": clean_text(instance.region, 128),
        "billing_mode": clean_text(instance.billing_mode or "", 32),
    }


def _record(observation: Observation, now_ms: int, pause_ms: int) -> None:
    record = LedgerState.objects.select_for_update().order_by("pk").first()
    record = record or LedgerState(began_ms=now_ms, observed_ms=now_ms)
    last_ms = record.observed_ms
    if now_ms < last_ms:
        if last_ms - now_ms <= LATE_MS:
            return
        _forget_since(now_ms)
        last_ms = now_ms
        if record.summed_ms is not None:
            record.summed_ms = min(record.summed_ms, now_ms // ledger.HOUR_MS * ledger.HOUR_MS)
        if record.began_ms is not None:
            record.began_ms = min(now_ms, record.began_ms)
    facts: dict[str, Facts] = {}
    known: dict[str, int] = {}
    # In parts: all instances of a large account take more memory than the rest of a synchronization.
    for part in _in_parts(observation.read()):
        observed = {one.id: one for one in part}
        read = {id_: told for id_, one in observed.items() if (told := ledger.read_facts(one))}
        facts |= read
        known |= _save_instances(read, observed)
    unread = dict.fromkeys(observation.unconfirmed, NOT_READ)
    facts |= unread
    known |= _save_instances(unread, {})
    is_gap = now_ms - last_ms > pause_ms
    ids = {pk: id_ for id_, pk in known.items()}
    changed: list[UsageInterval] = []
    dropped: list[int] = []
    added: list[tuple[int, Span]] = []
    seen = set()
    columns = ("pk", "instance_id", "state", "began_ms", "price", "gpus", "is_inferred")
    for pk, instance_pk, state, began_ms, price, gpus, is_inferred in (
        UsageInterval.objects.filter(ended_ms=None).order_by().values_list(*columns).iterator(BATCH)
    ):
        id_ = ids.get(instance_pk, "")
        seen.add(id_)
        before = Span(State(state), began_ms, None, price, gpus, is_inferred)
        spans = ledger.advance(before, facts.get(id_), last_ms, now_ms, is_gap=is_gap)
        if spans == [before]:
            continue
        if spans and replace(spans[0], ended_ms=None) == before:
            ended = _make_row(instance_pk, spans.pop(0))
            ended.pk = pk
            changed.append(ended)
        else:
            dropped.append(pk)
        added += ((instance_pk, span) for span in spans)
    for id_ in facts.keys() - seen:
        spans = ledger.advance(None, facts[id_], last_ms, now_ms, is_gap=is_gap)
        added += ((known[id_], span) for span in spans)
    for start in range(0, len(dropped), BATCH):
        UsageInterval.objects.filter(pk__in=dropped[start : start + BATCH]).delete()
    # An upsert: bulk_update() makes a condition for each value, which takes ten times as long.
    UsageInterval.objects.bulk_create(
        changed, BATCH, update_conflicts=True, unique_fields=["pk"], update_fields=["ended_ms"]
    )
    for few in _in_parts(added):
        UsageInterval.objects.bulk_create(_make_row(instance_pk, span) for instance_pk, span in few)
    record.observed_ms, record.digest = now_ms, observation.digest
    record.save()


def _in_parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while part := list(islice(rest, BATCH)):
        yield part


def _make_row(instance_pk: int, span: Span) -> UsageInterval:
    return UsageInterval(
        instance_id=instance_pk,
        state=span.state,
        began_ms=span.began_ms,
        ended_ms=span.ended_ms,
        price=span.price,
        gpus=span.gpus,
        is_inferred=span.is_inferred,
    )


def _save_instances(facts: Mapping[str, Facts], observed: Mapping[str, Instance]) -> dict[str, int]:
    """Add new instances, and update the descriptions of known ones. Return the primary keys by instance."""
    wanted = {clean_text(id_, 128): id_ for id_ in facts}
    names, known = list(wanted), {}
    for start in range(0, len(names), BATCH):
        for row in MeteredInstance.objects.filter(instance_id__in=names[start : start + BATCH]).order_by():
            known[wanted[row.instance_id]] = row
    renamed = []
    for id_, row in known.items():
        described = _describe(observed[id_]) if id_ in observed else {}
        if any(getattr(row, name) != value for name, value in described.items()):
            renamed.append(MeteredInstance(instance_id=row.instance_id, **described))
    MeteredInstance.objects.bulk_create(
        renamed, BATCH, update_conflicts=True, unique_fields=["instance_id"], update_fields=_DESCRIBED
    )
    new = {
        id_: MeteredInstance(instance_id=name, **(_describe(observed[id_]) if id_ in observed else {}))
        for name, id_ in wanted.items()
        if id_ not in known
    }
    MeteredInstance.objects.bulk_create(new.values(), batch_size=BATCH)
    return {id_: row.pk for id_, row in {**known, **new}.items()}


def _forget_since(now_ms: int) -> None:
    """Make room for the time that repeats after the clock was set back: it counts once, as it is observed last."""
    log.warning("the clock was set back: the ledger of costs is recorded again from this time on")
    UsageInterval.objects.filter(began_ms__gte=now_ms).delete()
    UsageInterval.objects.filter(ended_ms__gt=now_ms).update(ended_ms=now_ms)
    HourSums.objects.filter(began_ms__gt=now_ms - ledger.HOUR_MS).delete()


def forget_old() -> None:
    """Delete what ended long ago and is summed. The ledger then begins later, and reports say so."""
    record = LedgerState.objects.order_by("pk").first()
    if record is None or record.summed_ms is None:
        return
    oldest = ledger.to_ms(timezone.now() - timedelta(days=settings.KEEP_COSTS_DAYS))
    oldest = min(oldest // ledger.HOUR_MS * ledger.HOUR_MS, record.summed_ms)
    # First, so that no report counts hours that are gone as free.
    LedgerState.objects.filter(pk=record.pk, began_ms__lt=oldest).update(began_ms=oldest)
    old.delete(UsageInterval.objects.filter(ended_ms__lte=oldest))
    old.delete(MeteredInstance.objects.filter(intervals=None))
    old.delete(HourSums.objects.filter(began_ms__lt=oldest))
