"""What the pages of all records share: read-only, each list as CSV too."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.http import require_safe

from instances.access.roles import find_role
from instances.admin.csv_files import CSV_ROWS_AT_ONCE, write_csv
from instances.admin.lists import ListAdmin
from instances.role import Role


def check_press(request: HttpRequest) -> None:
    """Raise unless the request is a press on a button: a wish that comes along would be ignored."""
    is_form = request.content_type in {"", "application/x-www-form-urlencoded", "multipart/form-data"}
    if not is_form or request.GET or request.POST.keys() - {"csrfmiddlewaretoken"} or request.FILES:
        raise BadRequest("This button takes no query and no fields.")


class RecordAdmin(ListAdmin):
    """What all records have in common: they are read, searched and downloaded, and nobody writes them here."""

    csv_fields: tuple[str, ...] = ()
    list_per_page = 50

    def has_module_permission(self, request: HttpRequest) -> bool:
        return find_role(request) >= Role.VIEWER

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return find_role(request) >= Role.VIEWER

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_safe(self.download_csv))
        return [path("csv/", view, name=f"instances_{self.opts.model_name}_csv"), *super().get_urls()]

    def download_csv(self, request: HttpRequest) -> HttpResponseBase:
        """Answer with the rows that the list's filters and search select, on all of its pages."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            records = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters as exc:
            # The list would leave the filter out and show everything; a file of everything would pass for a part.
            raise BadRequest("A filter makes no sense.") from exc
        rows = records.values_list(*self.csv_fields).iterator(CSV_ROWS_AT_ONCE)
        name = f"{slugify(str(self.opts.verbose_name_plural))}-{timezone.now():%Y-%m-%d}.csv"
        return StreamingHttpResponse(
            write_csv(self.csv_fields, rows),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
