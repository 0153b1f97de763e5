"""Checks the query string of an admin list. Django itself lets some invalid values fail in the database."""

import re
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ORDER_VAR
from django.core.exceptions import BadRequest
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.text import capfirst

from instances.access.roles import find_role
from instances.admin.record_lists import RecordList
from novita_site.roles import Role

# Each word is searched in each field, and databases limit the depth of a query.
MAX_WORDS: Final = 20
MAX_LETTERS: Final = 500
_ENDINGS: Final = re.compile(r"(__id)?(__(exact|isnull|in|gte|gt|lte|lt|year|month|day))?")


class ListAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django takes no argument at run time
    role_to_view = Role.ADMIN
    # What these records are for, below the title of their list.
    purpose = ""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return find_role(request) >= self.role_to_view

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return find_role(request) >= self.role_to_view

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Set the title. Django's own is "Select … to view"."""
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[RecordList]:
        return RecordList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow only the lookups of the list's own filters and dates. Databases differ in the lookups of a field."""
        names: list[Any] = [self.date_hierarchy]
        for one in self.get_list_filter(request):
            if isinstance(one, type) and issubclass(one, SimpleListFilter):
                names.append(one.parameter_name)
            else:
                names.append(one[0] if isinstance(one, tuple | list) else one)
        is_known = any(
            name and lookup.startswith(name) and _ENDINGS.fullmatch(lookup.removeprefix(name)) for name in names
        )
        if not is_known and lookup.partition("__")[0] not in {field.name for field in self.opts.get_fields()}:
            # The page then shows the list without the invalid filter; the CSV file is refused.
            raise IncorrectLookupParameters
        return is_known and super().lookup_allowed(lookup, value, request)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        has_nul = any("\0" in value for _, values in request.GET.lists() for value in values)
        if has_nul or len(request.GET.get(ORDER_VAR, "")) > MAX_LETTERS:
            raise IncorrectLookupParameters
        try:
            return super().get_changelist_instance(request)
        except (ValueError, OverflowError) as exc:
            # A date that doesn't exist, or a number outside the database's range.
            raise IncorrectLookupParameters(exc) from exc

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        self.check_search(search_term)
        return super().get_search_results(request, queryset, search_term)

    def check_search(self, text: str) -> None:
        if len(text) > MAX_LETTERS or len(text.split()) > MAX_WORDS:
            raise BadRequest(f"A search can have up to {MAX_WORDS} words and {MAX_LETTERS} characters.")
