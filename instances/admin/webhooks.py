"""Webhook deliveries as admin pages."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from instances.admin.columns import LIST_LETTERS, count_rows, link_record, time_column
from instances.admin.deliveries import DeliveryAdmin
from instances.models import WebhookAttempt, WebhookDelivery
from instances.notifications import webhooks


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(DeliveryAdmin):
    """Shows all fields except the encrypted URL."""

    purpose = "Results of operations, as sent to the webhook URL of the request."

    queue = webhooks.QUEUE

    list_display = (
        "shown_created",
        "receiver",
        "shown_operation",
        "state",
        "shown_attempts",
        "shown_last",
        "shown_next",
    )
    list_filter = ("state", "receiver", "created_at")
    list_select_related = ("operation",)
    search_fields = ("message_id", "receiver", "operation__id")
    date_hierarchy = "created_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "message_id",
                    "receiver",
                    "shown_operation",
                    "state",
                    "tries",
                    "shown_next",
                    "shown_created",
                    "shown_end",
                )
            },
        ),
        ("Event", {"fields": ("shown_payload",)}),
    )
    readonly_fields = ("shown_operation", "shown_next", "shown_created", "shown_end", "shown_payload")
    csv_fields = (
        "message_id",
        "operation_id",
        "receiver",
        "state",
        "attempt_count",
        "last_status",
        "last_error",
        "next_attempt_at",
        "created_at",
        "ended_at",
    )

    shown_created = time_column("created_at", "created")
    shown_next = time_column("next_attempt_at", "next attempt")
    shown_end = time_column("ended_at", "ended")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        deliveries: QuerySet[WebhookDelivery] = super().get_queryset(request)
        newest = WebhookAttempt.objects.filter(delivery=OuterRef("pk")).order_by("-attempted_at", "-pk")
        return deliveries.defer("sealed_url").annotate(
            attempt_count=count_rows(WebhookAttempt.objects.all(), "delivery"),
            last_status=Subquery(newest.values("status")[:1]),
            last_error=Subquery(newest.values("error")[:1]),
        )

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        # A filter in the address could reveal the encrypted URL letter by letter.
        return not lookup.startswith("sealed_url") and super().lookup_allowed(lookup, value, request)

    @admin.display(description="operation", ordering="operation__created_at")
    def shown_operation(self, delivery: WebhookDelivery) -> SafeString:
        return link_record(delivery.operation)

    @admin.display(description="attempts")
    def shown_attempts(self, delivery: Any) -> int:
        return int(delivery.attempt_count)

    @admin.display(description="last status")
    def shown_last(self, delivery: Any) -> str:
        if not delivery.attempt_count:
            return self.get_empty_value_display()
        return str(delivery.last_status or Truncator(delivery.last_error).chars(LIST_LETTERS) or "no answer")

    @admin.display(description="payload")
    def shown_payload(self, delivery: WebhookDelivery) -> SafeString:
        return format_html('<pre class="payload">{}</pre>', delivery.payload or "not written yet")
