"""Filters for the lists of records."""

from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from instances.models import Operation, SyncRun, Target


class ChangeFilter(admin.SimpleListFilter):
    """Finds the syncs with changes. Most syncs have none."""

    title = "changes"
    parameter_name = "found"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("changes", "any change"),
            ("removals", "removals"),
            ("outside", "changes outside the panel"),
            ("nothing", "no changes"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[SyncRun]) -> QuerySet[SyncRun]:
        changes = Q(added_count__gt=0) | Q(changed_count__gt=0) | Q(removed_count__gt=0)
        match self.value():
            case "changes":
                return queryset.filter(changes)
            case "removals":
                return queryset.filter(removed_count__gt=0)
            case "outside":
                return queryset.filter(outside_count__gt=0)
            case "nothing":
                return queryset.exclude(changes)
        return queryset


class OperationFilter(admin.SimpleListFilter):
    """The results of one operation. The operation's page links to this filter; otherwise it offers no choices."""

    title = "operation"
    parameter_name = "operation"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        if (id_ := self._read_id()) is None:
            return []
        operation = Operation.objects.filter(pk=id_).first()
        return [(str(id_), str(operation or "a deleted operation"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Target]) -> QuerySet[Target]:
        id_ = self._read_id()
        return queryset if id_ is None else queryset.filter(operation=id_)

    def _read_id(self) -> UUID | None:
        """Return the operation's id from the address. Raises Django's own exception for an invalid filter."""
        try:
            return UUID(value) if (value := self.value()) else None
        except ValueError as exc:
            raise IncorrectLookupParameters(exc) from exc


class NameFilter(admin.AllValuesFieldListFilter):
    """Every name in the column. The empty name is shown as "(nobody)", because a link needs a text."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.title = "policy" if self.field_path == "policy_name" else "who"

    def choices(self, changelist: Any) -> Iterator[Any]:
        for choice in super().choices(changelist):
            yield {**choice, "display": choice["display"] or "(nobody)"}


# The absence of a role, in a form, a filter and a list.
NO_ROLE: Final = "No access"


class RoleFilter(admin.RelatedFieldListFilter):
    """The groups of users, which have the roles' names."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.title = "role"
        self.empty_value_display = format_html("{}", NO_ROLE)
