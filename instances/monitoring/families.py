"""What `/metrics` tells, read from Redis and the database at the scrape: each process gives the same answer.

Without Redis or the database the rest is still told. An unknown amount has no sample, and is never 0.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Count, Min, Q
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from instances import outages
from instances.costs import balance, burn
from instances.errors import CacheUnavailable
from instances.fallback import database
from instances.instance import ACTION_NAMES, GROUPS, clean_text
from instances.inventory import heartbeat, store
from instances.models import (
    EvaluationState,
    Finding,
    FindingState,
    Message,
    Operation,
    Policy,
    SyncRun,
    Target,
    WebhookDelivery,
)
from instances.monitoring import counters
from novita_site import __version__

log = logging.getLogger(__name__)

PREFIX: Final = "novita_panel"
# Names that Novita chooses are labels: more than these have the name "other".
MAX_GPUS: Final = 30
MAX_REGIONS: Final = 20
OTHER: Final = "other"
# A database that hangs must not use up the time of a scrape.
WAIT_SECONDS: Final = 2.0
LAST_DAY: Final = timedelta(days=1)
_LATE: Final = f"Up to {counters.FLUSH_SECONDS:g} s late; starts again at 0 when Redis loses its data."
_ENDS: Final = [
    (Operation.State.REQUESTING, "none"),
    (Operation.State.VERIFYING, "none"),
    (Operation.State.FINISHED, "succeeded"),
    (Operation.State.FINISHED, "failed"),
    (Operation.State.CANCELLED, "failed"),
]

Part = Callable[[], Iterator[Metric]]


def collect() -> list[Metric]:
    """Return all families, as far as Redis and the database can be read."""
    info = _make("info", "The version of the panel.", ["version"])
    info.add_metric([__version__], 1)
    found: list[Metric] = [info]
    has_redis = _read(_REDIS_PARTS, found)
    trouble, _ = database.find_state(WAIT_SECONDS)
    has_database = not trouble and _read(_DATABASE_PARTS, found)
    for name, is_up in (("redis", has_redis), ("database", has_database)):
        found.append(_gauge(f"{name}_up", f"Whether the {name} can be used; otherwise its values are missing.", is_up))
    return found


def _read(parts: Sequence[Part], found: list[Metric]) -> bool:
    """Add the families of these parts. Return False when one can't be read; the parts after it are left out."""
    try:
        for part in parts:
            found += part()
    except CacheUnavailable as exc:
        outages.note_redis_error(exc)
        return False
    except DatabaseError as exc:
        outages.note_database_error(exc)
        return False
    return True


def _make(name: str, words: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", words, labels=labels)


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", words, value=float(value))


def _time(name: str, words: str, moment: datetime | None) -> Iterator[Metric]:
    if moment is not None:
        yield _gauge(f"{name}_timestamp_seconds", words, moment.timestamp())


# --- From Redis


def _read_counters() -> Iterator[Metric]:
    counts = counters.read()
    http = CounterMetricFamily(f"{PREFIX}_http_requests", f"Answers to clients. {_LATE}", labels=["route", "status"])
    calls = CounterMetricFamily(
        f"{PREFIX}_novita_requests",
        f"Requests to Novita; the code is the HTTP status, or the error where no answer came. {_LATE}",
        labels=["call", "code"],
    )
    for key, value in sorted(counts.items()):
        match key:
            case ("http", route, status):
                http.add_metric([route, status], value)
            case ("call", call, code):
                calls.add_metric([call, code], value)
    yield from (http, calls)
    seconds = HistogramMetricFamily(
        f"{PREFIX}_novita_request_duration_seconds", f"How long requests to Novita take. {_LATE}", labels=["call"]
    )
    for call in sorted({key[1] for key in counts if key[0] == "call_ms"}):
        _add_histogram(seconds, counts, "call", (call,), counters.CALL_BUCKETS)
    yield seconds
    syncs = CounterMetricFamily(f"{PREFIX}_syncs", f"Synchronizations by outcome. {_LATE}", labels=["outcome"])
    for outcome in SyncRun.Outcome.values:
        syncs.add_metric([outcome], counts["sync", outcome])
    yield syncs
    lasted = HistogramMetricFamily(
        f"{PREFIX}_sync_duration_seconds", f"How long synchronizations take. {_LATE}", labels=[]
    )
    _add_histogram(lasted, counts, "sync", (), counters.SYNC_BUCKETS)
    yield lasted


def _add_histogram(
    family: HistogramMetricFamily,
    counts: Counter[counters.Key],
    name: str,
    labels: counters.Key,
    limits: Sequence[float],
) -> None:
    numbers = [counts[(f"{name}_bucket", *labels, str(number))] for number in range(len(limits) + 1)]
    names = map(floatToGoString, [*limits, float("inf")])
    buckets = list(zip(names, map(float, accumulate(numbers)), strict=True))
    family.add_metric(labels, buckets, counts[(f"{name}_ms", *labels)] / 1000)


def _read_state() -> Iterator[Metric]:
    state = store.read_state()
    as_of = state.freshness.as_of
    if as_of is not None:
        age = max(0.0, (state.now - as_of).total_seconds())
        yield _gauge("inventory_age_seconds", "Time since the inventory was read at Novita.", age)
    yield _gauge(
        "inventory_stale",
        "Whether the inventory is older than NOVITA_STALE_AFTER, or missing.",
        state.freshness.is_stale,
    )
    yield _gauge(
        "sync_failures", "Synchronizations that have failed since the last one that succeeded.", state.failures
    )
    yield _gauge("worker_up", "Whether a worker ran within the last seconds.", state.has_worker)
    yield from _time("worker_last_seen", "When a worker gave its last sign of life.", heartbeat.read_last_sign())


def _read_inventory() -> Iterator[Metric]:
    listing = store.read_listing()
    if listing.freshness.as_of is None:
        return
    names = [
        (row["group"], clean_text(row["productName"] or "unknown", 100), clean_text(row["region"] or "unknown", 100))
        for row in listing.instances
    ]
    gpus = _choose([gpu for _, gpu, _ in names], MAX_GPUS)
    regions = _choose([region for _, _, region in names], MAX_REGIONS)
    family = _make(
        "instances",
        f"Instances. Beyond {MAX_GPUS} GPUs and {MAX_REGIONS} regions, the rarer ones are together as other.",
        ["group", "gpu", "region"],
    )
    shown = Counter(
        (group, gpu if gpu in gpus else OTHER, region if region in regions else OTHER) for group, gpu, region in names
    )
    for labels, number in sorted(shown.items()):
        family.add_metric(labels, number)
    yield family
    groups = _make("group_instances", "Instances by group alone; a group without instances has 0.", ["group"])
    numbers = Counter(group for group, _, _ in names)
    for group in GROUPS:
        groups.add_metric([group], numbers[group])
    yield groups

    total = burn.find(listing.revision, listing.instances).total
    if total.per_hour is not None:
        yield _gauge(
            "burn_rate_usd_per_hour", "What all instances cost now, without unknown prices.", float(total.per_hour)
        )
    yield _gauge("unknown_prices", "Instances whose cost is not known.", total.unknown)
    reading = balance.read()
    if reading.available is not None:
        yield _gauge("balance_usd", "The account's balance.", float(reading.available))
    if (hours := reading.find_hours_left(total.per_hour)) is not None:
        yield _gauge("balance_hours", "How long the balance lasts at the present burn rate.", float(hours))
    yield from _time("balance_read", "When the balance was last read.", reading.read_at)


def _choose(names: Sequence[str], number: int) -> set[str]:
    """Return the most frequent names."""
    counted = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    return {name for name, _ in counted[:number]}


_REDIS_PARTS: Final[Sequence[Part]] = (_read_state, _read_counters, _read_inventory)


# --- From the database


def _read_operations() -> Iterator[Metric]:
    family = _make(
        "operations",
        "Operations that run, and those that began within the last 24 hours.",
        ["kind", "state", "result"],
    )
    found = Operation.objects.filter(Q(created_at__gte=timezone.now() - LAST_DAY) | Q(finished_at=None))
    numbers = {
        (kind, state, "none" if success is None else "succeeded" if success else "failed"): number
        for kind, state, success, number in found.values_list("kind", "state", "success")
        .annotate(Count("pk"))
        .order_by()
    }
    for labels in sorted({*numbers, *((kind, *end) for kind in ACTION_NAMES for end in _ENDS)}):
        family.add_metric(labels, numbers.get(labels, 0))
    yield family
    waiting = Target.objects.filter(state__in=Target.OPEN, operation__finished_at=None)
    yield _gauge("targets_open", "Targets of running operations that are not verified yet.", waiting.count())
    failures = Operation.objects.filter(success=False, superseded_by=None, dismissed_at=None)
    running = Target.objects.filter(state=Target.State.STILL_RUNNING, operation__in=failures)
    words = "Targets that still ran when their stop ended, until somebody dismisses the result or tries again."
    yield _gauge("targets_still_running", words, running.count())


def _read_backlogs() -> Iterator[Metric]:
    now = timezone.now()
    webhooks = WebhookDelivery.objects.filter(state=WebhookDelivery.State.DUE, next_attempt_at__isnull=False)
    yield from _read_backlog("webhook", webhooks.aggregate(n=Count("pk"), at=Min("operation__finished_at")), now)
    dead = WebhookDelivery.objects.filter(state=WebhookDelivery.State.DEAD, created_at__gte=now - 2 * LAST_DAY)
    yield _gauge(
        "webhooks_given_up",
        "Webhooks that were given up in the last day.",
        dead.filter(ended_at__gte=now - LAST_DAY).count(),
    )
    messages = Message.objects.filter(state=Message.State.DUE, next_attempt_at__isnull=False)
    yield from _read_backlog("notification", messages.aggregate(n=Count("pk"), at=Min("event__created_at")), now)
    given_up = Message.objects.filter(state=Message.State.DEAD, event__created_at__gte=now - 2 * LAST_DAY)
    yield _gauge(
        "notifications_given_up",
        "Notifications that were given up in the last day.",
        given_up.filter(ended_at__gte=now - LAST_DAY).count(),
    )


def _read_backlog(name: str, found: Mapping[str, Any], now: datetime) -> Iterator[Metric]:
    yield _gauge(f"{name}_backlog", f"Each {name} that is not delivered yet.", found["n"])
    age = max(0.0, (now - found["at"]).total_seconds()) if found["at"] else 0.0
    yield _gauge(f"{name}_backlog_seconds", f"How long the oldest {name} in the backlog has waited.", age)


def _read_policies() -> Iterator[Metric]:
    family = _make("policies", "Policies by what they do.", ["state"])
    numbers = Counter(mode if is_on else "off" for mode, is_on in Policy.objects.values_list("mode", "is_on"))
    for state in (*Policy.Mode.values, "off"):
        family.add_metric([state], numbers[state])
    yield family
    findings = _make("findings", "What policies have found and is not over, by state.", ["state"])
    counted = dict(Finding.objects.filter(ended_at=None).values_list("state").annotate(Count("pk")).order_by())
    for state in FindingState.values:
        findings.add_metric([state], counted.get(state, 0))
    yield findings
    is_acting = settings.POLICIES and not EvaluationState.is_off()
    yield _gauge("policies_acting", "Whether policies may stop instances: the switch and POLICIES.", is_acting)
    evaluated = EvaluationState.objects.values_list("evaluated_at", flat=True).first()
    yield from _time("policies_evaluated", "When a worker last evaluated the policies.", evaluated)


_DATABASE_PARTS: Final[Sequence[Part]] = (_read_operations, _read_backlogs, _read_policies)
