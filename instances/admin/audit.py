"""The activity as admin pages."""

from django.contrib import admin

from instances.admin.columns import text_column, time_column
from instances.admin.filters import NameFilter
from instances.admin.records import RecordAdmin
from instances.models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(RecordAdmin):
    purpose = "Who did what, and with which outcome: actions, logins, and changes of settings."
    list_display = ("shown_time", "actor", "action", "shown_target", "outcome", "shown_reason")
    list_filter = ("action", "outcome", ("actor", NameFilter), "at")
    search_fields = ("target", "target_name", "reason", "actor", "request_id")
    date_hierarchy = "at"
    fieldsets = (
        (None, {"fields": ("shown_time", "action", "target", "target_name", "reason")}),
        ("By", {"fields": ("actor", "address", "request_id")}),
        ("Outcome", {"fields": ("before", "after", "outcome", "error")}),
    )
    readonly_fields = ("shown_time",)
    csv_fields = (
        "at",
        "actor",
        "address",
        "request_id",
        "action",
        "target",
        "target_name",
        "reason",
        "before",
        "after",
        "outcome",
        "error",
    )

    shown_time = time_column("at", "when")
    shown_reason = text_column("reason", "reason")

    @admin.display(description="target", ordering="target_name")
    def shown_target(self, entry: AuditEntry) -> str:
        return entry.target_name or entry.target or self.get_empty_value_display()
