"""Start freezes as admin pages."""

from django.contrib import admin

from instances.admin.columns import text_column, time_column
from instances.admin.filters import NameFilter
from instances.admin.records import RecordAdmin
from instances.models import StartFreeze


@admin.register(StartFreeze)
class StartFreezeAdmin(RecordAdmin):
    purpose = "Times in which the panel started nothing."
    list_display = ("shown_since", "shown_end", "shown_removed", "frozen_by", "removed_by", "shown_reason")
    list_filter = (("frozen_by", NameFilter), "frozen_at")
    search_fields = ("reason", "frozen_by", "removed_by")
    fields = ("shown_since", "frozen_by", "reason", "shown_end", "shown_removed", "removed_by")
    readonly_fields = ("shown_since", "shown_end", "shown_removed")
    csv_fields = ("frozen_at", "frozen_by", "reason", "ends_at", "removed_at", "removed_by")

    shown_since = time_column("frozen_at", "since")
    shown_end = time_column("ends_at", "ends")
    shown_removed = time_column("removed_at", "removed")
    shown_reason = text_column("reason", "reason")
