"""Protections as admin pages."""

from django.contrib import admin

from instances.admin.columns import name_column, text_column, time_column
from instances.admin.filters import NameFilter
from instances.admin.records import RecordAdmin
from instances.models import Protection


@admin.register(Protection)
class ProtectionAdmin(RecordAdmin):
    purpose = "Instances that Stop all and policies leave running. Protect an instance in its menu on the dashboard."
    list_display = ("shown_name", "instance_id", "shown_reason", "protected_by", "shown_since")
    list_filter = (("protected_by", NameFilter), "protected_at")
    search_fields = ("instance_id", "name", "reason", "protected_by")
    fields = ("instance_id", "name", "reason", "protected_by", "shown_since")
    readonly_fields = ("shown_since",)
    csv_fields = ("instance_id", "name", "reason", "protected_by", "protected_at")

    shown_name = name_column
    shown_reason = text_column("reason", "reason")
    shown_since = time_column("protected_at", "since")
