"""The records as admin pages, read-only, each list as CSV too; and the buttons that sync and send a webhook again."""

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import Case, Count, Model, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator, slugify
from django.views.decorators.http import require_POST, require_safe

from instances import accounts, audit, webhooks  # noqa: F401 - the accounts have pages, too
from instances.admin_lists import ListAdmin
from instances.errors import InvalidState
from instances.instance import format_time
from instances.models import AuditEntry, Operation, Protection, SyncRun, Target, WebhookAttempt, WebhookDelivery
from instances.roles import Role, find_role
from instances.sync import say_counts, try_to_synchronize

MAX_SHOWN: Final = 500
LIST_LETTERS: Final = 120
CSV_ROWS_AT_ONCE: Final = 500
# What begins with more that can't be seen is no name.
MAX_BLANKS: Final = 200
# A spreadsheet takes a text that begins so for a formula; some drop what can't be seen before it.
FORMULA_SIGNS: Final = "=+-@\N{MINUS SIGN}"
BYTE_ORDER_MARK: Final = "\ufeff"


# --- Columns


def _time_column(field: str, title: str) -> Callable[[Any, Any], str]:
    """Return the column, and the page's line, of a time, in UTC and without words."""

    @admin.display(description=f"{title} (UTC)", ordering=field)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        moment = getattr(record, field)
        if moment is None:
            return record_admin.get_empty_value_display()
        return format_html('<span class="when">{}</span>', f"{moment:%Y-%m-%d %H:%M:%S}")

    return column


def _text_column(field: str, title: str) -> Callable[[Any, Any], str]:
    """Return the column of a text of any length; the record's own page shows all of it."""

    @admin.display(description=title, ordering=field)
    def column(record_admin: "RecordAdmin", record: Model) -> str:
        return Truncator(getattr(record, field)).chars(LIST_LETTERS)

    return column


def _link(record: Model) -> SafeString:
    address = reverse(f"admin:instances_{record._meta.model_name}_change", args=[record.pk])
    return format_html('<a href="{}">{}</a>', address, record)


def _show(items: list[dict[str, Any]]) -> SafeString:
    """Render instances as a list by name and id, with what changed from → to."""
    context = {"items": items[:MAX_SHOWN], "more": max(0, len(items) - MAX_SHOWN)}
    return render_to_string("admin/instances/syncrun/instances.html", context)


def _count(rows: QuerySet[Any], by: str) -> Coalesce:
    """Count the rows that belong to the record, for the rows of a page only, which a join with GROUP BY would not."""
    counts = rows.filter(**{by: OuterRef("pk")}).order_by().values(by).annotate(n=Count("pk")).values("n")
    return Coalesce(Subquery(counts), 0)


def _check_press(request: HttpRequest) -> None:
    """Raise unless the request is a press on a button: a wish that comes along would be ignored."""
    is_form = request.content_type in {"", "application/x-www-form-urlencoded", "multipart/form-data"}
    if not is_form or request.GET or request.POST.keys() - {"csrfmiddlewaretoken"} or request.FILES:
        raise BadRequest("This button takes no query and no fields.")


# --- CSV


def _name_column(field: str) -> str:
    """Name a column as the API would: `operation__kind` is `operationKind`."""
    first, *others = field.replace("__", "_").split("_")
    return first + "".join(word.capitalize() for word in others)


def _write_cell(value: Any) -> Any:
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return format_time(value)
        case str() if _may_be_formula(value):
            return f"'{value}"
    return value


def _may_be_formula(text: str) -> bool:
    if text.startswith(("\t", "\r", "\n")):
        return True
    for char in text[:MAX_BLANKS]:
        # Full-width and small signs count as the plain ones; spaces and what can't be seen count as nothing.
        for plain in unicodedata.normalize("NFKC", char):
            if unicodedata.category(plain)[0] not in "CMZ":
                return plain in FORMULA_SIGNS
    return len(text) > MAX_BLANKS


def _write_csv(fields: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    buffer = io.StringIO()
    # Without it Excel reads the file in the machine's old code page.
    buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerow(_name_column(field) for field in fields)
    for number, row in enumerate(rows, 1):
        writer.writerow(_write_cell(value) for value in row)
        if number % CSV_ROWS_AT_ONCE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


# --- Filters


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


class OperationFilter(admin.SimpleListFilter):
    """The targets of one operation, whose page links to them; without that link there is nothing to choose."""

    title = "operation"
    parameter_name = "operation"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        if (id_ := self._read_id()) is None:
            return []
        operation = Operation.objects.filter(pk=id_).first()
        return [(str(id_), str(operation or "a forgotten one"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Target]) -> QuerySet[Target]:
        id_ = self._read_id()
        return queryset if id_ is None else queryset.filter(operation=id_)

    def _read_id(self) -> UUID | None:
        """Return the operation's id from the address. Raises what Django's list takes for a wrong filter."""
        try:
            return UUID(value) if (value := self.value()) else None
        except ValueError as exc:
            raise IncorrectLookupParameters(exc) from exc


class NameFilter(admin.AllValuesFieldListFilter):
    """Every name that occurs; that nobody is named must be a link with words, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.title = "who"

    def choices(self, changelist: Any) -> Iterator[Any]:
        for choice in super().choices(changelist):
            yield {**choice, "display": choice["display"] or "(nobody)"}


# --- The records


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
            _write_csv(self.csv_fields, rows),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


@admin.register(SyncRun)
class SyncRunAdmin(RecordAdmin):
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
        "pages",
        "calls",
        "retries",
        "fetch_ms",
        "confirm_ms",
        "publish_ms",
        "duration_ms",
    )

    shown_start = _time_column("started_at", "started")

    def get_urls(self) -> list[URLPattern]:
        sync = path("sync/", self.admin_site.admin_view(require_POST(self.sync)), name="instances_syncrun_sync")
        return [sync, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        may_sync = find_role(request) >= Role.OPERATOR
        return super().changelist_view(request, {**(extra_context or {}), "may_sync": may_sync})

    def sync(self, request: HttpRequest) -> HttpResponseBase:
        if find_role(request) < Role.OPERATOR:
            raise PermissionDenied
        _check_press(request)
        actor = audit.get_actor(request)
        with audit.recorded(actor, "sync") as entry:
            is_done, words = try_to_synchronize("admin", requested_by=actor.name)
            if not is_done:
                entry.outcome, entry.error = "failed", words
        messages.add_message(request, messages.SUCCESS if is_done else messages.ERROR, words)
        return redirect("admin:instances_syncrun_changelist")

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


@admin.register(Operation)
class OperationAdmin(RecordAdmin):
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
        "verdict",
        "targets__instance_id",
        "targets__name",
    )
    date_hierarchy = "created_at"
    fieldsets = (
        (None, {"fields": ("id", "kind", "shown_scope", "state", "success", "verdict", "shown_notes")}),
        ("Who wanted it", {"fields": ("requested_by", "reason", "request_id", "origin", "shown_audit")}),
        (
            "How it went",
            {
                "fields": (
                    "shown_created",
                    "source",
                    "shown_listed",
                    "shown_deadline",
                    "shown_finish",
                    "rounds",
                    "shown_webhook",
                )
            },
        ),
    )
    readonly_fields = (
        "id",
        "shown_scope",
        "shown_notes",
        "shown_audit",
        "shown_created",
        "shown_listed",
        "shown_deadline",
        "shown_finish",
        "shown_webhook",
    )
    csv_fields = (
        "id",
        "kind",
        "is_whole_account",
        "state",
        "success",
        "verdict",
        "target_count",
        "confirmed_count",
        "skipped_count",
        "reason",
        "requested_by",
        "request_id",
        "source",
        "created_at",
        "deadline_at",
        "finished_at",
    )

    shown_created = _time_column("created_at", "created")
    shown_listed = _time_column("listed_at", "targets listed")
    shown_deadline = _time_column("deadline_at", "verdict due")
    shown_finish = _time_column("finished_at", "finished")
    shown_reason = _text_column("reason", "reason")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        operations: QuerySet[Operation] = super().get_queryset(request)
        targets = Target.objects.all()
        return operations.annotate(
            target_count=_count(targets, "operation"),
            confirmed_count=_count(targets.filter(state=Target.State.CONFIRMED), "operation"),
            skipped_count=_count(targets.filter(state=Target.State.SKIPPED), "operation"),
        )

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        # The first 500 must not hide what went wrong behind what went well.
        worst_first = Case(
            When(state__in=(Target.State.STILL_RUNNING, Target.State.FAILED, Target.State.UNKNOWN), then=Value(0)),
            When(state__in=(Target.State.PENDING, Target.State.ASKED), then=Value(1)),
            When(state=Target.State.CONFIRMED, then=Value(2)),
            default=Value(3),
        )
        counts = dict(obj.targets.order_by().values_list("state").annotate(Count("pk")))
        context["targets"] = obj.targets.order_by(worst_first, "name", "instance_id")[:MAX_SHOWN]
        context["counts"] = [(label, counts[state]) for state, label in Target.State.choices if state in counts]
        context["more"] = max(0, sum(counts.values()) - MAX_SHOWN)
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description="of", ordering="is_whole_account")
    def shown_scope(self, operation: Operation) -> str:
        return "the whole account" if operation.is_whole_account else "a selection"

    @admin.display(description="result", ordering="success")
    def shown_result(self, operation: Operation) -> str:
        words = {True: "all confirmed", False: "not all confirmed", None: self.get_empty_value_display()}
        return operation.verdict or words[operation.success]

    @admin.display(description="confirmed")
    def shown_confirmed(self, operation: Any) -> str:
        return f"{operation.confirmed_count} of {operation.target_count - operation.skipped_count}"

    @admin.display(description="notes")
    def shown_notes(self, operation: Operation) -> str:
        return "\n".join(str(note) for note in operation.notes) or self.get_empty_value_display()

    @admin.display(description="audit")
    def shown_audit(self, operation: Operation) -> SafeString:
        address = reverse("admin:instances_auditentry_changelist")
        return format_html('<a href="{}?q={}">Audit entries of this operation</a>', address, operation.pk)

    @admin.display(description="webhook")
    def shown_webhook(self, operation: Operation) -> str:
        delivery = WebhookDelivery.objects.defer("sealed_url", "payload").filter(operation=operation).first()
        if delivery is None:
            return "none"
        return format_html("{}: {}", _link(delivery), delivery.get_state_display())


@admin.register(Target)
class TargetAdmin(RecordAdmin):
    list_display = (
        "shown_name",
        "instance_id",
        "state",
        "status",
        "attempts",
        "shown_asked",
        "shown_confirmation",
        "shown_error",
        "shown_operation",
    )
    list_filter = (OperationFilter, "state", "operation__kind")
    list_select_related = ("operation",)
    search_fields = ("instance_id", "name")
    date_hierarchy = "operation__created_at"
    fieldsets = (
        (None, {"fields": ("shown_operation", "instance_id", "name", "state", "error_code", "error")}),
        ("Its status at Novita", {"fields": ("first_status", "status", "shown_seen", "started_before")}),
        ("What was asked", {"fields": ("attempts", "shown_asked", "shown_next", "shown_confirmation")}),
    )
    readonly_fields = ("shown_operation", "shown_seen", "shown_asked", "shown_next", "shown_confirmation")
    csv_fields = (
        "operation_id",
        "operation__kind",
        "instance_id",
        "name",
        "state",
        "first_status",
        "status",
        "seen_at",
        "attempts",
        "asked_at",
        "confirmed_at",
        "error_code",
        "error",
    )

    shown_seen = _time_column("seen_at", "seen")
    shown_asked = _time_column("asked_at", "asked")
    shown_next = _time_column("next_ask_at", "to be asked next")
    shown_confirmation = _time_column("confirmed_at", "confirmed")
    shown_error = _text_column("error", "error")

    @admin.display(description="name", ordering="name")
    def shown_name(self, target: Target) -> str:
        return target.name or "(no name)"

    @admin.display(description="operation", ordering="operation__created_at")
    def shown_operation(self, target: Target) -> SafeString:
        return _link(target.operation)


@admin.register(Protection)
class ProtectionAdmin(RecordAdmin):
    list_display = ("shown_name", "instance_id", "shown_reason", "protected_by", "shown_since")
    list_filter = (("protected_by", NameFilter), "protected_at")
    search_fields = ("instance_id", "name", "reason", "protected_by")
    fields = ("instance_id", "name", "reason", "protected_by", "shown_since")
    readonly_fields = ("shown_since",)
    csv_fields = ("instance_id", "name", "reason", "protected_by", "protected_at")

    shown_reason = _text_column("reason", "reason")
    shown_since = _time_column("protected_at", "since")

    @admin.display(description="name", ordering="name")
    def shown_name(self, protection: Protection) -> str:
        return protection.name or "(no name)"


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(RecordAdmin):
    """Shows everything but the sealed URL."""

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
        ("What is sent", {"fields": ("shown_payload",)}),
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

    shown_created = _time_column("created_at", "created")
    shown_next = _time_column("next_attempt_at", "next attempt")
    shown_end = _time_column("ended_at", "ended")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        deliveries: QuerySet[WebhookDelivery] = super().get_queryset(request)
        newest = WebhookAttempt.objects.filter(delivery=OuterRef("pk")).order_by("-attempted_at", "-pk")
        return deliveries.defer("sealed_url").annotate(
            attempt_count=_count(WebhookAttempt.objects.all(), "delivery"),
            last_status=Subquery(newest.values("status")[:1]),
            last_error=Subquery(newest.values("error")[:1]),
        )

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        # Filters in the address would find the sealed URL out letter by letter.
        return not lookup.startswith("sealed_url") and super().lookup_allowed(lookup, value, request)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.send_again))
        name = "instances_webhookdelivery_send_again"
        return [path("<int:pk>/send-again/", view, name=name), *super().get_urls()]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        context["attempts"] = obj.attempts.all()[:MAX_SHOWN]
        context["more"] = max(0, obj.attempt_count - MAX_SHOWN)
        context["can_send_again"] = obj.state == WebhookDelivery.State.DEAD and self._may_send(request)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def send_again(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        if not self._may_send(request):
            raise PermissionDenied
        _check_press(request)
        delivery = get_object_or_404(WebhookDelivery, pk=pk)
        actor = audit.get_actor(request)
        names = {"target": str(delivery.message_id), "target_name": delivery.receiver}
        with audit.recorded(actor, "webhook.resend", **names) as entry:
            is_due = webhooks.send_again(delivery)
            if not is_due:
                entry.outcome, entry.error = InvalidState.code, "The delivery isn't dead."
        if is_due:
            messages.success(request, "It is sent again as soon as the worker comes to it.")
        else:
            messages.error(request, "This delivery isn't dead: there is nothing to send again.")
        return redirect("admin:instances_webhookdelivery_change", pk)

    def _may_send(self, request: HttpRequest) -> bool:
        """Tell whether the user's rights are to change deliveries, which to see them are not."""
        return find_role(request) >= Role.ADMIN

    @admin.display(description="operation", ordering="operation__created_at")
    def shown_operation(self, delivery: WebhookDelivery) -> SafeString:
        return _link(delivery.operation)

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
        return format_html('<pre class="payload">{}</pre>', delivery.payload or "nothing yet")


@admin.register(AuditEntry)
class AuditEntryAdmin(RecordAdmin):
    list_display = ("shown_time", "actor", "action", "shown_target", "outcome", "shown_reason")
    list_filter = ("action", "outcome", ("actor", NameFilter), "at")
    search_fields = ("target", "target_name", "reason", "actor", "request_id")
    date_hierarchy = "at"
    fieldsets = (
        (None, {"fields": ("shown_time", "action", "target", "target_name", "reason")}),
        ("Who", {"fields": ("actor", "address", "request_id")}),
        ("What became of it", {"fields": ("before", "after", "outcome", "error")}),
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

    shown_time = _time_column("at", "when")
    shown_reason = _text_column("reason", "reason")

    @admin.display(description="target", ordering="target_name")
    def shown_target(self, entry: AuditEntry) -> str:
        return entry.target_name or entry.target or self.get_empty_value_display()
