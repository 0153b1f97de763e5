"""Columns that several lists of records share."""

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
    """Return the column, and the page's line, of a time, in UTC and without words."""

    @admin.display(description=f"{title} (UTC)", ordering=field)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        moment = getattr(record, field)
        if moment is None:
            return record_admin.get_empty_value_display()
        return format_html('<span class="when">{}</span>', f"{moment:%Y-%m-%d %H:%M:%S}")

    return column


def text_column(field: str, title: str) -> Callable[[Any, Any], str]:
    """Return the column of a text of any length; the record's own page shows all of it."""

    @admin.display(description=title, ordering=field)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        return Truncator(getattr(record, field)).chars(LIST_LETTERS)

    return column


def link_record(record: Model) -> SafeString:
    address = reverse(f"admin:instances_{record._meta.model_name}_change", args=[record.pk])
    return format_html('<a href="{}">{}</a>', address, record)


def show_instances(items: list[dict[str, Any]]) -> SafeString:
    """Render instances as a list by name and id, with what changed from → to."""
    context = {"items": items[:MAX_SHOWN], "more": max(0, len(items) - MAX_SHOWN)}
    return render_to_string("admin/instances/syncrun/instances.html", context)


def count_rows(rows: QuerySet[Any], by: str) -> Coalesce:
    """Count the rows that belong to the record, for the rows of a page only, which a join with GROUP BY would not."""
    counts = rows.filter(**{by: OuterRef("pk")}).order_by().values(by).annotate(n=Count("pk")).values("n")
    return Coalesce(Subquery(counts), 0)
