"""Operations and their results as admin pages."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from instances.admin.columns import MAX_SHOWN, count_rows, link_record, name_column, say_more, text_column, time_column
from instances.admin.filters import OperationFilter
from instances.admin.records import RecordAdmin
from instances.models import Operation, Target, WebhookDelivery
from instances.operations import wording
from instances.operations.records import get_target_key


@admin.register(Operation)
class OperationAdmin(RecordAdmin):
    purpose = "Stops, starts and restarts of several instances, with their verified results."
    list_display = (
        "shown_created",
        "kind",
        "shown_scope",
        "state",
        "shown_result",
        "shown_confirmed",
        "requested_by",
        "shown_reason",
    )
    list_filter = ("kind", "state", "success", "is_whole_account", "source", "created_at")
    search_fields = (
        "id",
        "reason",
        "requested_by",
        "request_id",
        "result",
    )
    date_hierarchy = "created_at"
    fieldsets = (
        (None, {"fields": ("id", "kind", "shown_scope", "state", "success", "result", "shown_money", "shown_notes")}),
        ("Request", {"fields": ("requested_by", "reason", "request_id", "origin", "shown_audit")}),
        (
            "Progress",
            {
                "fields": (
                    "shown_created",
                    "source",
                    "shown_listed",
                    "shown_deadline",
                    "shown_finish",
                    "shown_dismissal",
                    "dismissed_by",
                    "rounds",
                    "shown_webhook",
                )
            },
        ),
    )
    readonly_fields = (
        "id",
        "shown_scope",
        "shown_money",
        "shown_notes",
        "shown_audit",
        "shown_created",
        "shown_listed",
        "shown_deadline",
        "shown_finish",
        "shown_dismissal",
        "shown_webhook",
    )
    csv_fields = (
        "id",
        "kind",
        "is_whole_account",
        "state",
        "success",
        "result",
        "target_count",
        "confirmed_count",
        "skipped_count",
        "usd_per_hour",
        "unknown_prices",
        "prepaid",
        "reason",
        "requested_by",
        "request_id",
        "source",
        "created_at",
        "deadline_at",
        "finished_at",
        "dismissed_at",
        "dismissed_by",
    )

    shown_created = time_column("created_at", "started")
    shown_listed = time_column("listed_at", "targets listed")
    shown_deadline = time_column("deadline_at", "result by")
    shown_finish = time_column("finished_at", "finished")
    shown_dismissal = time_column("dismissed_at", "dismissed")
    shown_reason = text_column("reason", "reason")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        operations: QuerySet[Operation] = super().get_queryset(request)
        targets = Target.objects.all()
        return operations.annotate(
            target_count=count_rows(targets, "operation"),
            confirmed_count=count_rows(targets.filter(state=Target.State.CONFIRMED), "operation"),
            skipped_count=count_rows(targets.filter(state=Target.State.SKIPPED), "operation"),
        )

    def find_word(self, word: str) -> Q:
        # As a subquery: a join would search the operation's own texts once for each target.
        targets = Target.objects.filter(Q(instance_id__icontains=word) | Q(name__icontains=word)).order_by()
        return super().find_word(word) | Q(pk__in=targets.values("operation"))

    def get_page_context(self, request: HttpRequest, record: Any) -> dict[str, Any]:
        # Failures come first, because only the first 500 rows are shown.
        worst_first: dict[str, int] = {
            Target.State.STILL_RUNNING: 0,
            Target.State.FAILED: 0,
            Target.State.UNKNOWN: 0,
            Target.State.PENDING: 1,
            Target.State.REQUESTED: 1,
            Target.State.CONFIRMED: 2,
        }

        def get_key(target: Target) -> tuple[int, Any]:
            return worst_first.get(target.state, 3), get_target_key(target)

        counts = dict(record.targets.order_by().values_list("state").annotate(Count("pk")))
        return {
            "targets": [
                {"target": target, "message": wording.say_target(record, target)}
                for target in sorted(record.targets.all(), key=get_key)[:MAX_SHOWN]
            ],
            "counts": [(label, f"{counts[state]:,}") for state, label in Target.State.choices if state in counts],
            "more": say_more(sum(counts.values())),
        }

    @admin.display(description="scope", ordering="is_whole_account")
    def shown_scope(self, operation: Operation) -> str:
        return operation.get_is_whole_account_display()

    @admin.display(description="cost")
    def shown_money(self, operation: Operation) -> str:
        if operation.kind == "restart" or operation.unknown_prices is None:
            return self.get_empty_value_display()
        verb = "Saves" if operation.kind == "stop" else "Costs"
        return wording.say_money(verb, operation.usd_per_hour, operation.unknown_prices, operation.prepaid or 0)

    @admin.display(description="result", ordering="success")
    def shown_result(self, operation: Operation) -> str:
        words = {True: "all confirmed", False: "not all confirmed", None: self.get_empty_value_display()}
        return operation.result or words[operation.success]

    @admin.display(description="confirmed")
    def shown_confirmed(self, operation: Any) -> str:
        return f"{operation.confirmed_count:,} of {operation.target_count - operation.skipped_count:,}"

    @admin.display(description="notes")
    def shown_notes(self, operation: Operation) -> str:
        return "\n".join(str(note) for note in operation.notes) or self.get_empty_value_display()

    @admin.display(description="activity")
    def shown_audit(self, operation: Operation) -> SafeString:
        address = reverse("admin:instances_auditentry_changelist")
        return format_html('<a href="{}?q={}">Activity of this operation</a>', address, operation.pk)

    @admin.display(description="webhook")
    def shown_webhook(self, operation: Operation) -> str:
        delivery = WebhookDelivery.objects.defer("sealed_url", "payload").filter(operation=operation).first()
        if delivery is None:
            return "none"
        return format_html("{}: {}", link_record(delivery), delivery.get_state_display())


@admin.register(Target)
class TargetAdmin(RecordAdmin):
    purpose = "What became of each instance of an operation."
    list_display = (
        "shown_name",
        "instance_id",
        "state",
        "status",
        "attempts",
        "shown_requested",
        "shown_confirmation",
        "shown_message",
        "shown_operation",
    )
    list_filter = (OperationFilter, "state", "operation__kind")
    list_select_related = ("operation",)
    search_fields = ("instance_id", "name")
    date_hierarchy = "operation__created_at"
    fieldsets = (
        (None, {"fields": ("shown_operation", "instance_id", "name", "state", "shown_message", "error_code")}),
        ("Status at Novita", {"fields": ("first_status", "status", "shown_read", "started_before")}),
        ("Requests", {"fields": ("attempts", "shown_requested", "shown_next", "shown_confirmation")}),
    )
    readonly_fields = (
        "shown_operation",
        "shown_message",
        "shown_read",
        "shown_requested",
        "shown_next",
        "shown_confirmation",
    )
    csv_fields = (
        "operation_id",
        "operation__kind",
        "instance_id",
        "name",
        "state",
        "first_status",
        "status",
        "read_at",
        "attempts",
        "requested_at",
        "confirmed_at",
        "error_code",
        "error",
    )

    shown_name = name_column

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        # The results of one operation don't name the operation in each row.
        is_of_one = OperationFilter.parameter_name in request.GET
        return self.list_display[:-1] if is_of_one else self.list_display

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        # Sorting the results of all operations by the operations' times would read them all.
        return ("name", "instance_id") if OperationFilter.parameter_name in request.GET else ("-pk",)

    shown_read = time_column("read_at", "read")
    shown_requested = time_column("requested_at", "requested")
    shown_next = time_column("next_request_at", "next request")
    shown_confirmation = time_column("confirmed_at", "confirmed")

    @admin.display(description="result", ordering="error")
    def shown_message(self, target: Target) -> str:
        return wording.say_target(target.operation, target)

    @admin.display(description="operation", ordering="operation__created_at")
    def shown_operation(self, target: Target) -> SafeString:
        return link_record(target.operation)
