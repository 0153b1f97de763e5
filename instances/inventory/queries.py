"""Filters, searches, sorts and pages a listing. The page's script applies the same rules in the browser."""

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.utils import timezone

from instances.instance import GROUPS, parse_time
from instances.inventory import attention

DEFAULT_ORDERING: Final = "-createdAt"
# Errors, moving ones, running ones by their costs, the rest: the order of the page.
URGENCY: Final = "attention"
# A group that consists of others.
MOVING: Final = "moving"
DEFAULT_PAGE_SIZE: Final = 100
FILTERS: Final = frozenset({"status", "group", "region", "gpu", "owner", "project", "attention"})
# Of each revision: enough for the dashboards of a team, which differ in their filters.
KEPT_RESULTS: Final = 16

Shown = Mapping[str, Any]
NaturalKey = list[tuple[str, int, str]]

_NUMBERS = re.compile("([0-9]+)")


def fold(text: str) -> str:
    """Return a text for comparison, without differences of case and of Unicode encoding.

    Upper and then lower case instead of `casefold`, because the page's script (order.js) can do the same.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).upper().lower())


def get_natural_key(text: str) -> NaturalKey:
    """Return a key that sorts numbers in a text by value: worker-2 before worker-10."""
    words = _NUMBERS.split(fold(text))
    numbers = [number.lstrip("0") for number in words[1::2]]
    # The longer number is the larger. No number of a thousand digits has to be parsed.
    key = [(word, len(number), number) for word, number in zip(words[::2], numbers, strict=False)]
    return [*key, (words[-1], -1, "")]


class Rows(list[Shown]):
    """The instances of one revision, which must not change. Keeps what queries of it have in common."""

    def __init__(self, instances: Iterable[Shown] = ()) -> None:
        super().__init__(instances)
        self._texts: dict[str, str] = {}
        self._orders: dict[str, list[Shown]] = {}
        self._results: dict[Any, list[Shown]] = {}

    def find(self, query: Mapping[str, Any], idle: Collection[str] = ()) -> list[Shown]:
        """Return all matches of a query, in its order. Pages of the same result are cut from the same list."""
        if is_timed(query):
            return self._find(query, idle)
        key = tuple(sorted((name, value) for name, value in query.items() if name not in {"page", "pageSize"}))
        return _remember(self._results, key, lambda: self._find(query))

    def _find(self, query: Mapping[str, Any], idle: Collection[str] = ()) -> list[Shown]:
        ordering = str(query.get("ordering", DEFAULT_ORDERING))
        found = (
            self._order(ordering)
            if _get_field(ordering) in _TIMED_ORDERINGS
            else _remember(self._orders, ordering, lambda: self._order(ordering))
        )
        if "search" in query:
            part, texts = fold(query["search"]), self._read_texts()
            found = [instance for instance in found if part in texts[instance["id"]]]
        if "attention" in query:
            found = attention.select(found, query["attention"], idle)
        return [instance for instance in found if _matches(instance, query)] if query.keys() & FILTERS else found

    def _order(self, ordering: str) -> list[Shown]:
        name, now = _get_field(ordering), timezone.now()
        key = _KEYS.get(name) or (lambda instance, _now: _get_sort_key(instance, name))
        return sorted(self, key=lambda instance: key(instance, now), reverse=ordering.startswith("-"))

    def _read_texts(self) -> dict[str, str]:
        """Return what a search reads of each instance, by id."""
        if not self._texts:
            names = ("name", "id", "region", "clusterId", "productName", "productId", "owner", "project")
            # The API refuses the separator in a search.
            self._texts = {one["id"]: "\0".join(fold(one[name] or "") for name in names) for one in self}
        return self._texts


def _remember(kept: dict[Any, list[Shown]], key: Any, make: Callable[[], list[Shown]]) -> list[Shown]:
    found = kept.get(key)
    if found is None:
        found = make()
        if len(kept) >= KEPT_RESULTS:
            kept.clear()
        kept[key] = found
    return found


def select(instances: Sequence[Shown], query: Mapping[str, Any], idle: Collection[str] = ()) -> tuple[list[Shown], int]:
    """Return the instances of the requested page, and the number of matches on all pages.

    `query` has any of FILTERS, search, ordering, page and pageSize, checked by the API.
    Without `page` and `pageSize`, all matches are returned. `idle` has the ids that `attention=idle` selects.
    """
    rows = instances if isinstance(instances, Rows) else Rows(instances)
    found = rows.find(query, idle)
    if "page" not in query and "pageSize" not in query:
        return found, len(found)
    size = int(query.get("pageSize", DEFAULT_PAGE_SIZE))
    start = (int(query.get("page", 1)) - 1) * size
    return found[start : start + size], len(found)


def pick(instances: Sequence[Shown], names: Sequence[str]) -> Sequence[Shown]:
    """Return these fields of each instance; without names, all."""
    return [{name: one[name] for name in names} for one in instances] if names else instances


def _matches(instance: Shown, query: Mapping[str, Any]) -> bool:
    region = (instance["region"], instance["clusterId"])
    return (
        ("status" not in query or instance["status"] in query["status"].split(","))
        and ("group" not in query or is_in_group(instance, query["group"]))
        and ("region" not in query or fold(query["region"]) in map(fold, region))
        and ("gpu" not in query or _contains((instance["productName"], instance["productId"]), query["gpu"]))
        and ("owner" not in query or fold(query["owner"]) == fold(instance["owner"] or ""))
        and ("project" not in query or fold(query["project"]) == fold(instance["project"] or ""))
    )


def is_in_group(instance: Shown, group: str) -> bool:
    return is_moving(instance) if group == MOVING else bool(instance["group"] == group)


def is_moving(instance: Shown) -> bool:
    return GROUPS[instance["group"]].is_moving


def _contains(texts: Sequence[str], part: str) -> bool:
    folded = fold(part)
    return any(folded in fold(text) for text in texts)


def _get_sort_key(instance: Shown, name: str) -> tuple[bool, Any, str]:
    """Return a key that sorts unknown values first, and equal ones by id: pages must not overlap."""
    value = instance[name]
    is_text = isinstance(value, str) and not name.endswith("At")
    return (value is not None, get_natural_key(value) if is_text else value or 0, instance["id"])


def is_timed(query: Mapping[str, Any]) -> bool:
    """Tell whether time alone changes the result."""
    return "attention" in query or _get_field(str(query.get("ordering", ""))) in _TIMED_ORDERINGS


def _get_field(ordering: str) -> str:
    return ordering.removeprefix("-")


def find_start(instance: Shown) -> float | None:
    """Return since when an instance has been running, as Unix time; None when it isn't running, or not known."""
    started_at = instance["lastStartedAt"]
    return parse_time(started_at).timestamp() if started_at and instance["group"] == "running" else None


def find_spent(instance: Shown, now: datetime) -> float | None:
    """Return about how many USD a running instance has cost since its start; None when that isn't known."""
    start, price = find_start(instance), instance["pricePerHour"]
    return (
        None
        if start is None or price is None or instance["prepaid"]
        else max(0.0, now.timestamp() - start) / 3600 * price
    )


def _get_urgency_key(instance: Shown, now: datetime) -> tuple[int, float, NaturalKey, str]:
    """Return a key that sorts first what may need somebody. Among running instances an unknown price comes first."""
    group = "error" if attention.needs(instance, "error", now) else instance["group"]
    rank = _RANKS.get(group, _RANKS["other"])
    cost = instance["costPerHour"]
    by_cost = 0 if rank != _RANKS["running"] else -math.inf if cost is None else -cost
    return rank, by_cost, get_natural_key(instance["name"]), instance["id"]


def _get_start_key(instance: Shown, _now: datetime) -> tuple[bool, float, str]:
    """Return a key that sorts by the time since the start, the shortest first."""
    start = find_start(instance)
    return start is not None, -(start or 0), instance["id"]


def _get_spent_key(instance: Shown, now: datetime) -> tuple[bool, float, str]:
    spent = find_spent(instance, now)
    return spent is not None, spent or 0, instance["id"]


# Those of order.js.
_RANKS: Final = {"error": 0, "starting": 1, "stopping": 1, "other": 2, "running": 3, "stopped": 4, "gone": 5}
# Orderings that aren't the order of a field.
_KEYS: Final[dict[str, Callable[[Shown, datetime], tuple[Any, ...]]]] = {
    URGENCY: _get_urgency_key,
    "upFor": _get_start_key,
    "spent": _get_spent_key,
}
_TIMED_ORDERINGS: Final = frozenset({"spent"})
