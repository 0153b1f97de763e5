"""Filter, search, sort and page a listing."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

DEFAULT_ORDERING: Final = "-createdAt"
DEFAULT_PAGE_SIZE: Final = 100

Shown = Mapping[str, Any]


def select(instances: Sequence[Shown], query: Mapping[str, Any]) -> tuple[list[Shown], int]:
    """Return the instances of the asked page, and how many match on all pages.

    `query` has any of status, group, region, gpu, search, ordering, page, pageSize, as the API checks them; without
    `page` and `pageSize` all that match come back.
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
        and ("region" not in query or query["region"].casefold() in (text.casefold() for text in region))
        and ("gpu" not in query or _contains(gpu, query["gpu"]))
        and ("search" not in query or _contains((instance["name"], instance["id"], *region, *gpu), query["search"]))
    )


def _contains(texts: Sequence[str], part: str) -> bool:
    return any(part.casefold() in text.casefold() for text in texts)


def _get_sort_key(instance: Shown, name: str) -> tuple[bool, Any, str]:
    """Sort what is not known before what is; of equals the id decides, so that pages don't overlap."""
    value = instance[name]
    return (value is not None, value.casefold() if isinstance(value, str) else value or 0, instance["id"])
