"""Webhook deliveries as admin pages, with the button that sends one again."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.views.decorators.http import require_POST

from instances.access import audit
from instances.access.roles import find_role
from instances.admin.columns import LIST_LETTERS, MAX_SHOWN, count_rows, link_record, time_column
from instances.admin.records import RecordAdmin, check_press
from instances.errors import InvalidState
from instances.models import Action, WebhookAttempt, WebhookDelivery
from instances.notifications import webhooks
from novita_site.roles import Role


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(RecordAdmin):
    """Shows all fields except the encrypted URL."""

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

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.send_again))
        name = "instances_webhookdelivery_send_again"
        return [path("<int:pk>/send-again/", view, name=name), *super().get_urls()]

    def get_page_context(self, request: HttpRequest, record: Any) -> dict[str, Any]:
        return {
            "attempts": record.attempts.all()[:MAX_SHOWN],
            "more": max(0, record.attempt_count - MAX_SHOWN),
            "can_send_again": record.state == WebhookDelivery.State.DEAD and self._may_send(request),
        }

    def send_again(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        if not self._may_send(request):
            raise PermissionDenied
        check_press(request)
        delivery = get_object_or_404(WebhookDelivery, pk=pk)
        actor = audit.get_actor(request)
        names = {"target": str(delivery.message_id), "target_name": delivery.receiver}
        with audit.recorded(actor, Action.RESEND_WEBHOOK, **names) as entry:
            is_due = webhooks.send_again(delivery)
            if not is_due:
                entry.outcome, entry.error = InvalidState.code, "The delivery has not been given up."
        if is_due:
            messages.success(request, "The worker sends it again within seconds.")
        else:
            messages.error(request, "This delivery has not been given up, so it was not sent again.")
        return redirect("admin:instances_webhookdelivery_change", pk)

    def _may_send(self, request: HttpRequest) -> bool:
        """Return whether the user may send deliveries again. Viewers may only read them."""
        return find_role(request) >= Role.ADMIN

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
