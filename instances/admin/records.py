"""The common part of all record pages: read-only, with a search, and a CSV file of each list."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.text import slugify, smart_split, unescape_string_literal
from django.views.decorators.http import require_safe

from instances.admin import searching
from instances.admin.lists import ListAdmin
from instances.api.csv_files import CSV_ROWS_AT_ONCE, write_csv
from novita_site.roles import Role


def check_press(request: HttpRequest) -> None:
    """Raise BadRequest unless the request comes from a plain button. Extra fields would be ignored silently."""
    is_form = request.content_type in {"", "application/x-www-form-urlencoded", "multipart/form-data"}
    if not is_form or request.GET or request.POST.keys() - {"csrfmiddlewaretoken"} or request.FILES:
        raise BadRequest("This button accepts no query and no fields.")


class RecordAdmin(ListAdmin):
    """A record that can be read, searched and downloaded, but not changed."""

    role_to_view = Role.VIEWER
    csv_fields: tuple[str, ...] = ()
    list_per_page = 50
    # Counting all rows beside those of a search takes as long as the search.
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_page_context(self, request: HttpRequest, record: Any) -> dict[str, Any]:
        """Return the variables of the record's own template, for the part below its fields."""
        return {}

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        own = self.get_page_context(request, context["original"])
        return super().render_change_form(request, {**context, **own}, *args, **options)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        read = super().changelist_view
        return searching.answer(request, lambda: read(request, extra_context))

    def find_word(self, word: str) -> Q:
        """Return the condition for the records that contain a word."""
        conditions = [Q(**{f"{name}__icontains": word}) for name in self.search_fields]
        return Q(*conditions, _connector=Q.OR)

    def find_rows(self, queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
        """Return the records that contain each word of a text. Quotes hold words together."""
        for word in smart_split(text):
            is_quoted = word[0] in "\"'" and word[0] == word[-1]
            queryset = queryset.filter(self.find_word(unescape_string_literal(word) if is_quoted else word))
        return queryset

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search once, for the newest rows. The list's other queries then read only these.

        Django's own search runs anew for the number, the page and the dates.
        """
        self.check_search(search_term)
        found = self.find_rows(queryset, search_term)
        if not search_term.strip() or getattr(request, "wants_all", False):
            return found, False
        keys = list(found.values_list("pk", flat=True)[: searching.MAX_FOUND + 1])
        request.is_search_cut = len(keys) > searching.MAX_FOUND  # type: ignore[attr-defined]  # for the list
        return queryset.filter(pk__in=keys[: searching.MAX_FOUND]), False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_safe(self.download_csv))
        return [path("csv/", view, name=f"instances_{self.opts.model_name}_csv"), *super().get_urls()]

    def download_csv(self, request: HttpRequest) -> HttpResponseBase:
        """Return all rows that match the list's filters and search, from all pages."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        request.wants_all = True  # type: ignore[attr-defined]  # for the search
        try:
            records = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters as exc:
            # The list would ignore the filter. A file with all rows could be mistaken for a part.
            raise BadRequest("A filter is invalid.") from exc
        rows = records.values_list(*self.csv_fields).iterator(CSV_ROWS_AT_ONCE)
        name = f"{slugify(str(self.opts.verbose_name_plural))}-{timezone.now():%Y-%m-%d}.csv"
        return StreamingHttpResponse(
            write_csv(self.csv_fields, rows),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
