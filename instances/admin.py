"""The records as admin pages, read-only; and the button that starts a sync."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from instances.models import SyncRun
from instances.sync import say_counts, try_to_synchronize

MAX_SHOWN = 500

admin.site.site_header = admin.site.site_title = "Novita panel"
admin.site.index_title = "Records"


class ChangeFilter(admin.SimpleListFilter):
    """Most syncs find nothing changed; the others are what people look for."""

    title = "what it found"
    parameter_name = "found"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("changes", "changes"), ("removals", "removals"), ("nothing", "nothing new")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[SyncRun]) -> QuerySet[SyncRun]:
        changes = Q(added_count__gt=0) | Q(changed_count__gt=0) | Q(removed_count__gt=0)
        match self.value():
            case "changes":
                return queryset.filter(changes)
            case "removals":
                return queryset.filter(removed_count__gt=0)
            case "nothing":
                return queryset.exclude(changes)
        return queryset


@admin.register(SyncRun)
class SyncRunAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django takes no argument at run time
    list_display = (
        "shown_start",
        "trigger",
        "requested_by",
        "outcome",
        "novita_instances",
        "shown_counts",
        "shown_duration",
    )
    list_filter = (ChangeFilter, "outcome", "trigger", "started_at")
    search_fields = ("requested_by", "error", "error_code", "added", "changed", "removed")
    date_hierarchy = "started_at"
    list_per_page = 50
    fieldsets = (
        (None, {"fields": ("shown_start", "trigger", "requested_by", "outcome", "error_code", "error")}),
        ("What changed", {"fields": ("shown_added", "shown_changed", "shown_removed", "shown_unconfirmed")}),
        (
            "Figures",
            {
                "fields": (
                    ("novita_instances", "redis_instances"),
                    ("pages", "calls", "retries"),
                    ("fetch_ms", "confirm_ms", "publish_ms", "duration_ms"),
                )
            },
        ),
    )
    readonly_fields = ("shown_start", "shown_added", "shown_changed", "shown_removed", "shown_unconfirmed")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: SyncRun | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SyncRun | None = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        sync = path("sync/", self.admin_site.admin_view(require_POST(self.sync)), name="instances_syncrun_sync")
        return [sync, *super().get_urls()]

    def sync(self, request: HttpRequest) -> HttpResponseBase:
        is_done, words = try_to_synchronize("admin", requested_by=request.user.get_username())
        messages.add_message(request, messages.SUCCESS if is_done else messages.ERROR, words)
        return redirect("admin:instances_syncrun_changelist")

    @admin.display(description="started (UTC)", ordering="started_at")
    def shown_start(self, run: SyncRun) -> str:
        return f"{run.started_at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="found")
    def shown_counts(self, run: SyncRun) -> str:
        return run.error or say_counts(run.added_count, run.changed_count, run.removed_count, run.unconfirmed_count)

    @admin.display(description="took", ordering="duration_ms")
    def shown_duration(self, run: SyncRun) -> str:
        return f"{run.duration_ms / 1000:.1f} s"

    @admin.display(description="added")
    def shown_added(self, run: SyncRun) -> SafeString:
        return _show(run.added)

    @admin.display(description="changed")
    def shown_changed(self, run: SyncRun) -> SafeString:
        return _show(run.changed)

    @admin.display(description="removed")
    def shown_removed(self, run: SyncRun) -> SafeString:
        return _show(run.removed)

    @admin.display(description="kept, not confirmed as gone")
    def shown_unconfirmed(self, run: SyncRun) -> SafeString:
        return _show(run.unconfirmed)


def _show(items: list[dict[str, Any]]) -> SafeString:
    """Render instances as a list by name and id, with what changed from → to."""
    context = {"items": items[:MAX_SHOWN], "more": max(0, len(items) - MAX_SHOWN)}
    return render_to_string("admin/instances/syncrun/instances.html", context)
