"""The protected instances."""

from django.contrib import admin

from instances.admin.columns import text_column, time_column
from instances.admin.filters import NameFilter
from instances.admin.records import RecordAdmin
from instances.models import Protection


@admin.register(Protection)
class ProtectionAdmin(RecordAdmin):
    list_display = ("shown_name", "instance_id", "shown_reason", "protected_by", "shown_since")
    list_filter = (("protected_by", NameFilter), "protected_at")
    search_fields = ("instance_id", "name", "reason", "protected_by")
    fields = ("instance_id", "name", "reason", "protected_by", "shown_since")
    readonly_fields = ("shown_since",)
    csv_fields = ("instance_id", "name", "reason", "protected_by", "protected_at")

    shown_reason = text_column("reason", "reason")
    shown_since = time_column("protected_at", "since")

    @admin.display(description="name", ordering="name")
    def shown_name(self, protection: Protection) -> str:
        return protection.name or "(no name)"
