"""The common part of all record pages: read-only, with a CSV file of each list."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.http import require_safe

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

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_safe(self.download_csv))
        return [path("csv/", view, name=f"instances_{self.opts.model_name}_csv"), *super().get_urls()]

    def download_csv(self, request: HttpRequest) -> HttpResponseBase:
        """Return all rows that match the list's filters and search, from all pages."""
        if not self.has_view_permission(request):
            raise PermissionDenied
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
