"""Columns shared by several lists of records."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.db.models import Count, Model, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

if TYPE_CHECKING:
    from instances.admin.records import RecordAdmin

MAX_SHOWN: Final = 500
LIST_LETTERS: Final = 120


def time_column(field: str, title: str) -> Callable[[Any, Any], str]:
    """Return a column with a time in UTC. Also works as a field of the record's page."""

    @admin.display(description=f"{title} (UTC)", ordering=field)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        moment = getattr(record, field)
        if moment is None:
            return record_admin.get_empty_value_display()
        return format_html('<span class="when">{}</span>', f"{moment:%Y-%m-%d %H:%M:%S}")

    return column


def flag_column(field: str, title: str) -> Callable[[Any, Any], str]:
    """Return a column with a word. Django's sign for "no" looks like that of an error."""

    @admin.display(description=title, ordering=field)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        return "yes" if getattr(record, field) else "no"

    return column


def text_column(field: str, title: str) -> Callable[[Any, Any], str]:
    """Return a column with a shortened text. The record's page shows the full text."""

    @admin.display(description=title, ordering=field)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        return Truncator(getattr(record, field)).chars(LIST_LETTERS)

    return column


def instances_column(field: str, title: str) -> Callable[[Any, Any], str]:
    """Return a field of the record's page with a list of instances."""

    @admin.display(description=title)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        return show_instances(getattr(record, field), getattr(record, f"{field}_count"))

    return column


@admin.display(description="name", ordering="name")
def name_column(record_admin: "RecordAdmin", record: Any) -> str:
    return record.name or "(no name)"


def say_more(count: int) -> str:
    """Return how many of `count` rows are not shown; "" for none."""
    return f"{count - MAX_SHOWN:,}" if count > MAX_SHOWN else ""


def number_column(field: str, title: str) -> Callable[[Any, Any], str]:
    """Return a column with a number that has separators."""

    @admin.display(description=title, ordering=field)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        number = getattr(record, field)
        return record_admin.get_empty_value_display() if number is None else f"{number:,}"

    return column


def link_record(record: Model) -> SafeString:
    address = reverse(f"admin:instances_{record._meta.model_name}_change", args=[record.pk])
    return format_html('<a href="{}">{}</a>', address, record)


def show_instances(items: list[dict[str, Any]], count: int) -> SafeString:
    """Render the first of `count` instances by name and id, each with its changes (from → to)."""
    context = {"items": items[:MAX_SHOWN], "more": say_more(count)}
    return render_to_string("admin/instances/syncrun/instances.html", context)


def count_rows(rows: QuerySet[Any], by: str) -> Coalesce:
    """Count a record's rows in a subquery, which runs for the shown page only. A join would group the whole table."""
    counts = rows.filter(**{by: OuterRef("pk")}).order_by().values(by).annotate(n=Count("pk")).values("n")
    return Coalesce(Subquery(counts), 0)
