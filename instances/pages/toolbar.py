"""The dashboard's search, filters and status tabs, and how they are read from its address."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from django.http import QueryDict

from instances.instance import GROUPS
from instances.inventory import attention, queries
from instances.pages.table import COLUMNS, ORDERINGS

# Parameter → the field whose values it offers.
CHOICES: Final = {"gpu": "productName", "region": "region", "owner": "owner", "project": "project"}
_TITLES: Final = {"gpu": "GPU", "region": "Region", "owner": "Owner", "project": "Project"}
MAX_LENGTH: Final = 200

# Parameter, value, word. The first five always stand there, two more when they have instances, all when chosen.
_TABS: Final = (
    ("", "", "All"),
    ("group", "running", GROUPS["running"].label),
    ("group", queries.MOVING, "Moving"),
    ("group", "stopped", GROUPS["stopped"].label),
    ("attention", "error", "Errors"),
    ("group", "other", GROUPS["other"].label),
    ("group", "gone", GROUPS["gone"].label),
    ("group", "starting", GROUPS["starting"].label),
    ("group", "stopping", GROUPS["stopping"].label),
    ("attention", "longRunning", "Long-running"),
    ("attention", "spotReclaim", "Spot reclaims"),
    ("attention", "idle", "Idle"),
)
_ALWAYS: Final = 5
_WITH_INSTANCES: Final = 7
_GROUPS: Final = frozenset(value for name, value, _ in _TABS if name == "group")


def read_query(query_dict: QueryDict) -> dict[str, Any]:
    """Read the page's query; an invalid value counts as absent."""
    # The first of several values counts, as in the page's script.
    given = {name: values[0] for name, values in query_dict.lists() if values}
    query: dict[str, Any] = {name: given[name][:MAX_LENGTH] for name in ("search", *CHOICES) if given.get(name)}
    if given.get("group") in _GROUPS:
        query["group"] = given["group"]
    if given.get("attention") in attention.REASONS:
        query["attention"] = given["attention"]
    if given.get("ordering", "").removeprefix("-") in ORDERINGS:
        query["ordering"] = given["ordering"]
    if columns := [name for name in given.get("columns", "").split(",") if name in COLUMNS]:
        query["columns"] = ",".join(columns)
    page = given.get("page", "")
    query["page"] = int(page) if page.isascii() and page.isdecimal() and 0 < len(page) < 7 and int(page) else 1
    return query


def describe_tabs(
    instances: Sequence[Mapping[str, Any]] | None, query: Mapping[str, Any], idle: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Describe the tabs. Each counts the instances that match the other filters, too. None: nothing can be counted."""
    others = {name: value for name, value in query.items() if name not in {"group", "attention", "page", "columns"}}
    counts = None if instances is None else _count(queries.select(instances, others)[0], idle)
    link = {name: value for name, value in query.items() if name not in {"group", "attention", "page"}}
    tabs = []
    for number, (name, value, label) in enumerate(_TABS):
        is_current = query.keys() & {"group", "attention"} == ({name} - {""}) and query.get(name, "") == value
        count = counts[name, value] if counts else 0
        tabs.append(
            {
                "name": name or "all",
                "value": value,
                "label": label,
                "count": f"{count:,}" if counts else "",
                "is_current": is_current,
                "is_hidden": number >= (_WITH_INSTANCES if count else _ALWAYS) and not is_current,
                "link": urlencode({**link, **({name: value} if name else {})}),
            }
        )
    return tabs


def _count(instances: Sequence[Mapping[str, Any]], idle: Collection[str]) -> Counter[tuple[str, str]]:
    groups = Counter(one["group"] for one in instances)
    counts = Counter({("", ""): len(instances), **{("group", group): number for group, number in groups.items()}})
    counts["group", queries.MOVING] = sum(groups[group] for group, meaning in GROUPS.items() if meaning.is_moving)
    counts.update({("attention", reason): number for reason, number in attention.count(instances, idle)[1].items()})
    return counts


def describe_filters(
    instances: Sequence[Mapping[str, Any]], query: Mapping[str, Any]
) -> list[tuple[str, str, list[tuple[str, str]], str]]:
    """Return each filter's parameter, title, options with their words, and the chosen one; no options: it is hidden.

    The order is one of them: on a phone the table has no headings to press.
    """
    filters = [("ordering", "Order", _list_orders(query), query.get("ordering", ""))]
    for name, field in CHOICES.items():
        values = _sort({one[field] or "" for one in instances} | {query.get(name, "")})
        options = [("", "All"), *((value, value) for value in values)]
        is_hidden = not values and name in {"owner", "project"}
        filters.append((name, _TITLES[name], [] if is_hidden else options, query.get(name, "")))
    return filters


def _list_orders(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the first order of each column, and the chosen one."""
    firsts = {f"{'-' if one.is_descending_first else ''}{one.ordering}": one.title for one in COLUMNS.values()}
    chosen = query.get("ordering", "")
    return [("", "Attention first"), *firsts.items(), *([] if chosen in {"", *firsts} else [(chosen, chosen)])]


def _sort(values: set[str]) -> list[str]:
    return sorted(values - {""}, key=lambda value: (queries.get_natural_key(value), value))


def make_csv_link(query: Mapping[str, Any]) -> str:
    """Return the query of the file with all matches, in the order of the page."""
    return urlencode(
        {
            "ordering": queries.URGENCY,
            **{name: value for name, value in query.items() if name not in {"page", "columns"}},
        }
    )
