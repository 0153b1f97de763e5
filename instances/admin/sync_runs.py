"""The sync history as admin pages, with the button that starts a sync."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST

from instances.access import audit
from instances.access.roles import find_role
from instances.admin.columns import instances_column, number_column, time_column
from instances.admin.filters import ChangeFilter
from instances.admin.records import RecordAdmin, check_press
from instances.inventory.difference import say_counts
from instances.inventory.sync import try_to_synchronize
from instances.models import Action, SyncRun
from novita_site.roles import Role


@admin.register(SyncRun)
class SyncRunAdmin(RecordAdmin):
    purpose = "Synchronizations with Novita.ai, and what each of them changed in the inventory."
    list_display = (
        "shown_start",
        "trigger",
        "requested_by",
        "outcome",
        "shown_listed",
        "shown_counts",
        "shown_duration",
    )
    list_filter = (ChangeFilter, "outcome", "trigger", "started_at")
    search_fields = ("requested_by", "error", "error_code", "words")
    date_hierarchy = "started_at"
    fieldsets = (
        (None, {"fields": ("shown_start", "trigger", "requested_by", "outcome", "error_code", "error")}),
        (
            "Changes",
            {"fields": ("shown_added", "shown_changed", "shown_removed", "shown_unconfirmed", "shown_outside")},
        ),
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
    readonly_fields = (
        "shown_start",
        "shown_added",
        "shown_changed",
        "shown_removed",
        "shown_unconfirmed",
        "shown_outside",
    )
    csv_fields = (
        "started_at",
        "trigger",
        "requested_by",
        "outcome",
        "error_code",
        "error",
        "novita_instances",
        "redis_instances",
        "added_count",
        "changed_count",
        "removed_count",
        "unconfirmed_count",
        "outside_count",
        "pages",
        "calls",
        "retries",
        "fetch_ms",
        "confirm_ms",
        "publish_ms",
        "duration_ms",
    )

    shown_start = time_column("started_at", "started")
    shown_listed = number_column("novita_instances", "listed")
    shown_added = instances_column("added", "added")
    shown_changed = instances_column("changed", "changed")
    shown_removed = instances_column("removed", "removed")
    shown_unconfirmed = instances_column("unconfirmed", "kept, removal not confirmed")
    shown_outside = instances_column("outside", "changed outside the panel")

    def get_urls(self) -> list[URLPattern]:
        sync = path("sync/", self.admin_site.admin_view(require_POST(self.sync)), name="instances_syncrun_sync")
        return [sync, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        may_sync = find_role(request) >= Role.OPERATOR
        return super().changelist_view(request, {**(extra_context or {}), "may_sync": may_sync})

    def sync(self, request: HttpRequest) -> HttpResponseBase:
        if find_role(request) < Role.OPERATOR:
            raise PermissionDenied
        check_press(request)
        actor = audit.get_actor(request)
        with audit.recorded(actor, Action.SYNC) as entry:
            is_done, words = try_to_synchronize(SyncRun.Trigger.ADMIN, requested_by=actor.name)
            if not is_done:
                entry.outcome, entry.error = SyncRun.Outcome.FAILED, words
        messages.add_message(request, messages.SUCCESS if is_done else messages.ERROR, words)
        return redirect("admin:instances_syncrun_changelist")

    @admin.display(description="result")
    def shown_counts(self, run: SyncRun) -> str:
        return run.error or say_counts(run.added_count, run.changed_count, run.removed_count, run.unconfirmed_count)

    @admin.display(description="duration", ordering="duration_ms")
    def shown_duration(self, run: SyncRun) -> str:
        return f"{run.duration_ms / 1000:.1f} s"
