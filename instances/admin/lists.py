"""What any query string of an admin list leads to: the list, or a refusal. Django lets some fail in the database."""

import re
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ORDER_VAR
from django.core.exceptions import BadRequest
from django.db.models import QuerySet
from django.http import HttpRequest

# Each word is looked for in each field, and a database takes a query only so deep.
MAX_WORDS: Final = 20
MAX_LETTERS: Final = 500
_ENDINGS: Final = re.compile(r"(__id)?(__(exact|isnull|in|gte|gt|lte|lt|year|month|day))?")


class ListAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django takes no argument at run time
    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow what the list's own filters and dates link to. Not every field has every lookup in every database."""
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
            # The list shows itself without what makes no sense; a file is refused.
            raise IncorrectLookupParameters
        return is_known and super().lookup_allowed(lookup, value, request)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        has_nul = any("\0" in value for _, values in request.GET.lists() for value in values)
        if has_nul or len(request.GET.get(ORDER_VAR, "")) > MAX_LETTERS:
            raise IncorrectLookupParameters
        try:
            return super().get_changelist_instance(request)
        except (ValueError, OverflowError) as exc:
            # A date that there is not, or a number that no database takes.
            raise IncorrectLookupParameters(exc) from exc

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if len(search_term) > MAX_LETTERS or len(search_term.split()) > MAX_WORDS:
            raise BadRequest(f"A search may have {MAX_WORDS} words and {MAX_LETTERS} letters.")
        return super().get_search_results(request, queryset, search_term)
