"""Filters, searches, sorts and pages a listing. The page's script applies the same rules in the browser."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

DEFAULT_ORDERING: Final = "-createdAt"
DEFAULT_PAGE_SIZE: Final = 100

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


def select(instances: Sequence[Shown], query: Mapping[str, Any]) -> tuple[list[Shown], int]:
    """Return the instances of the requested page, and the number of matches on all pages.

    `query` has any of status, group, region, gpu, search, ordering, page, pageSize, checked by the API. Without `page`
    and `pageSize`, all matches are returned.
    """
    found = [instance for instance in instances if _matches(instance, query)]
    ordering = str(query.get("ordering", DEFAULT_ORDERING))
    found.sort(key=lambda instance: _get_sort_key(instance, ordering.lstrip("-")), reverse=ordering.startswith("-"))
    if "page" not in query and "pageSize" not in query:
        return found, len(found)
    size = int(query.get("pageSize", DEFAULT_PAGE_SIZE))
    start = (int(query.get("page", 1)) - 1) * size
    return found[start : start + size], len(found)


def _matches(instance: Shown, query: Mapping[str, Any]) -> bool:
    gpu = (instance["productName"], instance["productId"])
    region = (instance["region"], instance["clusterId"])
    return (
        ("status" not in query or instance["status"] in query["status"].split(","))
        and ("group" not in query or instance["group"] == query["group"])
        and ("region" not in query or fold(query["region"]) in map(fold, region))
        and ("gpu" not in query or _contains(gpu, query["gpu"]))
        and ("search" not in query or _contains((instance["name"], instance["id"], *region, *gpu), query["search"]))
    )


def _contains(texts: Sequence[str], part: str) -> bool:
    folded = fold(part)
    return any(folded in fold(text) for text in texts)


def _get_sort_key(instance: Shown, name: str) -> tuple[bool, Any, str]:
    """Return a key that sorts unknown values first, and equal ones by id: pages must not overlap."""
    value = instance[name]
    is_text = isinstance(value, str) and not name.endswith("At")
    return (value is not None, get_natural_key(value) if is_text else value or 0, instance["id"])
