"""Policies, their findings and snoozes as admin pages, with the button that switches all acting off."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from instances.access.audit import get_actor
from instances.access.roles import find_role
from instances.admin.accounts import AccountAdmin
from instances.admin.columns import flag_column, name_column, text_column, time_column
from instances.admin.filters import NameFilter
from instances.admin.records import RecordAdmin, check_press
from instances.errors import PolicyChanged
from instances.instance import say_times
from instances.models import Finding, Policy, Snooze
from instances.policies import editing, finding_list, watch
from novita_site.roles import Role

MAX_STEPS = 100


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]  # Django takes no argument at run time
    # That of the policy on the page.
    version = forms.IntegerField(required=False, widget=forms.HiddenInput)
    confirmed_name = forms.CharField(
        label="Budget: confirm by the name",
        required=False,
        max_length=100,
        help_text="Type the policy's name, so that a budget policy in the mode stop may stop instances.",
    )

    class Meta:
        model = Policy
        fields = editing.FIELDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.initial["version"] = self.instance.version

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        policy = Policy(**{name: cleaned.get(name) for name in editing.FIELDS if cleaned.get(name) is not None})
        for name, problem in editing.find_problems(policy).items():
            if name not in self.errors:
                self.add_error(name, problem)
        if self.instance.pk and cleaned.get("version") != self.instance.version:
            self.add_error(None, f"{PolicyChanged.message} Open the page again.")
        typed = cleaned.get("confirmed_name")
        if typed and (cleaned.get("rule") != Policy.Rule.BUDGET or typed != cleaned.get("name")):
            self.add_error("confirmed_name", "This is not the name of a budget policy.")
        return cleaned


@admin.register(Policy)
class PolicyAdmin(AccountAdmin):
    """The policies. Each change is recorded, and lets the policy's findings begin again with a warning."""

    role_to_view = Role.VIEWER
    purpose = "Rules that find instances which cost money for nothing, and record them, warn, or stop them."
    deletion = "The policy judges nothing any more. To keep it, clear Switched on instead."
    form = PolicyForm
    change_list_template = "admin/instances/policy/change_list.html"
    list_display = (
        "name",
        "shown_rule",
        "shown_mode",
        "shown_on",
        "shown_scope",
        "shown_found",
        "shown_change",
    )
    list_filter = ("rule", "mode", "is_on")
    search_fields = ("name", "name_pattern", "owner", "project")
    fieldsets = (
        (None, {"fields": ("version", "name", "mode", "is_on", "rule")}),
        (
            "Applies to",
            {
                "fields": ("name_pattern", "region", "gpu", "owner", "project", "billing_mode"),
                "description": "An empty field applies to all. Protected instances are never included.",
            },
        ),
        ("Idle", {"classes": ("rule-idle",), "fields": ("threshold_percent", "window_minutes", "start_grace_minutes")}),
        ("Lease", {"classes": ("rule-lease",), "fields": ("max_hours",)}),
        (
            "Schedule",
            {"classes": ("rule-schedule",), "fields": ("hours", "time_zone", "excepted_days", "hand_start_hours")},
        ),
        (
            "Budget",
            {
                "classes": ("rule-budget",),
                "fields": ("max_usd_per_hour", "min_runway_hours", "confirmed_name", "stop_confirmed_by"),
            },
        ),
        ("Guards", {"fields": ("warning_minutes", "max_stops_per_hour")}),
    )
    readonly_fields = ("stop_confirmed_by",)

    shown_on = flag_column("is_on", "switched on")
    shown_change = time_column("changed_at", "changed")

    @admin.display(description="rule", ordering="rule")
    def shown_rule(self, policy: Policy) -> str:
        return policy.rule

    @admin.display(description="mode", ordering="mode")
    def shown_mode(self, policy: Policy) -> str:
        return policy.mode

    @admin.display(description="found")
    def shown_found(self, policy: Policy) -> str:
        """Say what it has found, with a link to the findings."""
        address = f"{reverse('admin:instances_finding_changelist')}?{urlencode({'policy_name': policy.name})}"
        words = finding_list.say_found(policy, getattr(policy, "found", finding_list.Found()))
        return format_html('<a href="{}">{}</a>', address, words)

    @admin.display(description="applies to")
    def shown_scope(self, policy: Policy) -> str:
        parts = (policy.name_pattern, policy.gpu, policy.region, policy.owner, policy.project, policy.billing_mode)
        return ", ".join(filter(None, parts)) or "all instances"

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if self.has_change_permission(request, obj):
            return self.fieldsets
        # A reader saves nothing.
        own = {"version", "confirmed_name"}
        return [
            (title, {**options, "fields": tuple(name for name in options["fields"] if name not in own)})
            for title, options in self.fieldsets
        ]

    def save_model(self, request: HttpRequest, obj: Policy, form: Any, change: bool) -> None:
        editing.save(obj, actor=get_actor(request))
        messages.info(request, _say_next(obj))
        if typed := form.cleaned_data.get("confirmed_name"):
            editing.confirm_stop(obj, typed, actor=get_actor(request))

    def delete_model(self, request: HttpRequest, obj: Policy) -> None:
        editing.delete(obj, actor=get_actor(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Policy]) -> None:
        for policy in queryset:
            self.delete_model(request, policy)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        found = finding_list.sum_up()
        for policy in changelist.result_list:
            policy.found = found.get(policy.pk, finding_list.Found())
        return changelist

    def get_urls(self) -> list[URLPattern]:
        switch = self.admin_site.admin_view(require_POST(self.switch))
        # An address for each: two people who press the same button at the same time want the same.
        own = [
            path(f"switch-{word}/", switch, {"is_off": word == "off"}, f"instances_policy_switch_{word}")
            for word in ("off", "on")
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        state = watch.read_state()
        own = {
            "may_switch": find_role(request) >= Role.ADMIN and settings.POLICIES,
            "is_off": state.is_switched_off or not settings.POLICIES,
            "switched_by": state.switched_by if settings.POLICIES else "POLICIES=off",
        }
        return super().changelist_view(request, {**(extra_context or {}), **own})

    def switch(self, request: HttpRequest, is_off: bool) -> HttpResponseBase:
        if find_role(request) < Role.ADMIN:
            raise PermissionDenied
        check_press(request)
        state, cancelled = editing.switch(is_off=is_off, actor=get_actor(request))
        off = f"No policy stops anything now{editing.say_cancelled(cancelled)}."
        words = off if state.is_switched_off else "Policies in the mode stop act again."
        messages.success(request, words)
        return redirect("admin:instances_policy_changelist")


def _say_next(policy: Policy) -> str:
    """Say what a saved policy does from now on."""
    if not policy.is_on:
        return "The policy is switched off, so it judges nothing."
    return {
        Policy.Mode.OBSERVE: "The policy stops nothing and tells nobody. What it would stop and save is under Found.",
        Policy.Mode.NOTIFY: "The policy stops nothing. It warns people by the notification channels.",
        Policy.Mode.STOP: (
            f"The policy stops instances, each {policy.warning_minutes} minutes after a warning at the earliest."
        ),
    }[Policy.Mode(policy.mode)]


@admin.register(Finding)
class FindingAdmin(RecordAdmin):
    purpose = "What policies found: why they warned of an instance, and how the warning ended."
    list_display = ("shown_name", "policy_name", "shown_mode", "state", "shown_message", "shown_begin", "shown_end")
    list_filter = ("state", "mode", ("policy_name", NameFilter), "began_at")
    search_fields = ("instance_id", "name", "policy_name", "reason")
    fields = (
        *(
            "policy_name",
            "policy_version",
            "mode",
            "name",
            "instance_id",
            "state",
            "shown_reason",
            "obstacle",
            "usd_per_hour",
        ),
        *("shown_since", "shown_begin", "shown_warning", "shown_plan", "shown_due", "shown_stop", "shown_end"),
        "operation_id",
    )
    readonly_fields = (
        "shown_reason",
        *("shown_since", "shown_begin", "shown_warning", "shown_plan", "shown_due", "shown_stop", "shown_end"),
    )
    csv_fields = (
        *("policy_name", "mode", "instance_id", "name", "state", "reason", "since", "usd_per_hour", "began_at"),
        *("warned_at", "due_at", "stopping_at", "ended_at", "operation_id"),
    )

    shown_name = name_column
    shown_since = time_column("since", "since")
    shown_begin = time_column("began_at", "began")
    shown_warning = time_column("warned_at", "warned")
    shown_plan = time_column("stops_at", "stops")
    shown_due = time_column("due_at", "due")
    shown_stop = time_column("stopping_at", "stop requested")
    shown_end = time_column("ended_at", "ended")

    @admin.display(description="mode", ordering="mode")
    def shown_mode(self, finding: Finding) -> str:
        return finding.mode

    @admin.display(description="result")
    def shown_message(self, finding: Finding) -> str:
        return say_times(finding_list.say(finding))

    @admin.display(description="reason")
    def shown_reason(self, finding: Finding) -> str:
        return say_times(finding.reason)

    def get_page_context(self, request: HttpRequest, record: Any) -> dict[str, Any]:
        steps = record.steps.all()[:MAX_STEPS]
        return {"steps": [(step, say_times(step.reason)) for step in steps]}


@admin.register(Snooze)
class SnoozeAdmin(RecordAdmin):
    purpose = (
        "Times in which a policy leaves an instance alone. Snooze an instance in its details on the dashboard, "
        "or by the link in a warning."
    )
    list_display = ("shown_name", "policy", "shown_end", "by", "shown_reason", "shown_time", "shown_removed")
    list_filter = (("by", NameFilter), "at")
    list_select_related = ("policy",)
    search_fields = ("instance_id", "name", "by", "reason")
    fields = ("name", "instance_id", "policy", "shown_end", "by", "reason", "shown_time", "shown_removed", "removed_by")
    readonly_fields = ("shown_end", "shown_time", "shown_removed")
    csv_fields = ("instance_id", "name", "policy__name", "until", "by", "reason", "at", "removed_at", "removed_by")

    shown_name = name_column
    shown_reason = text_column("reason", "reason")
    shown_end = time_column("until", "until")
    shown_time = time_column("at", "when")
    shown_removed = time_column("removed_at", "removed")
