"""The ledger of costs, annotations, and the rules for owners and projects as admin pages."""

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest

from instances.admin.accounts import AccountAdmin, SeenForm
from instances.admin.columns import flag_column, name_column, text_column, time_column
from instances.admin.filters import NameFilter
from instances.admin.records import RecordAdmin
from instances.errors import CacheUnavailable
from instances.inventory import additions
from instances.models import Action, Annotation, LabelRule, MeteredInstance, UsageInterval
from instances.models.usage import PRICE_UNITS_PER_USD

log = logging.getLogger(__name__)


@admin.register(UsageInterval)
class UsageIntervalAdmin(RecordAdmin):
    purpose = "The ledger: when each instance ran, and at which price. The Costs page adds it up."
    list_display = ("shown_begin", "shown_end", "instance", "state", "shown_price", "gpus", "shown_inferred")
    list_filter = ("state", "is_inferred")
    search_fields = ("instance__instance_id", "instance__name", "instance__gpu", "instance__region")
    list_select_related = ("instance",)
    fields = ("instance", "state", "shown_begin", "shown_end", "shown_price", "gpus", "shown_inferred")
    readonly_fields = ("shown_begin", "shown_end", "shown_price", "shown_inferred")
    csv_fields = (
        "instance__instance_id",
        "instance__name",
        "instance__gpu",
        "instance__region",
        "state",
        "began_ms",
        "ended_ms",
        "price",
        "gpus",
        "is_inferred",
    )

    shown_inferred = flag_column("is_inferred", "inferred")

    def find_word(self, word: str) -> Q:
        # The instances are few, and the intervals of an instance have an index.
        texts = ("instance_id", "name", "gpu", "region")
        condition = Q(*(Q(**{f"{text}__icontains": word}) for text in texts), _connector=Q.OR)
        return Q(instance__in=MeteredInstance.objects.filter(condition).order_by().values("pk"))

    @admin.display(description="began (UTC)", ordering="began_ms")
    def shown_begin(self, interval: UsageInterval) -> str:
        return _show_time(interval.began_at)

    @admin.display(description="ended (UTC)", ordering="ended_ms")
    def shown_end(self, interval: UsageInterval) -> str:
        return _show_time(interval.ended_at) if interval.ended_at else self.get_empty_value_display()

    @admin.display(description="USD per hour", ordering="price")
    def shown_price(self, interval: UsageInterval) -> str:
        if interval.state not in {UsageInterval.State.GPU, UsageInterval.State.STORAGE}:
            return self.get_empty_value_display()
        if interval.price is None:
            return "not known"
        return f"{Decimal(interval.price) / PRICE_UNITS_PER_USD:.5f}"


def _show_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


@admin.register(Annotation)
class AnnotationAdmin(RecordAdmin):
    purpose = "Owners, projects and notes of instances. People enter them in an instance's details on the dashboard."
    list_display = ("shown_name", "instance_id", "owner", "project", "shown_note", "changed_by", "shown_change")
    list_filter = ("owner", "project", ("changed_by", NameFilter))
    search_fields = ("instance_id", "name", "owner", "project", "note")
    fields = ("instance_id", "name", "owner", "project", "note", "changed_by", "shown_change")
    readonly_fields = ("shown_change",)
    csv_fields = ("instance_id", "name", "owner", "project", "note", "changed_by", "changed_at")

    shown_name = name_column
    shown_note = text_column("note", "note")
    shown_change = time_column("changed_at", "changed")


class LabelRuleForm(SeenForm):
    compared = ("pattern", "owner", "project", "position")


@admin.register(LabelRule)
class LabelRuleAdmin(AccountAdmin):
    """The rules. A change is recorded, and shown by the inventory at once."""

    purpose = "Which owner and project an instance gets by its name, unless somebody annotated the instance."
    deletion = "Instances lose the owner and the project that they have by this rule."
    change_list_template = "admin/change_list.html"  # without the download of the records
    list_display = ("pattern", "owner", "project", "position")
    form = LabelRuleForm
    fields = ("seen", "pattern", "owner", "project", "position")
    search_fields = ("pattern", "owner", "project")

    def save_model(self, request: HttpRequest, obj: LabelRule, form: Any, change: bool) -> None:
        before = _say(LabelRule.objects.get(pk=obj.pk)) if change else ""
        super().save_model(request, obj, form, change)
        self._record(request, Action.CHANGE_RULES, obj.pattern[:128], before=before, after=_say(obj))
        _refresh()

    def delete_model(self, request: HttpRequest, obj: LabelRule) -> None:
        before = _say(obj)
        super().delete_model(request, obj)
        self._record(request, Action.CHANGE_RULES, obj.pattern[:128], before=before)
        _refresh()

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for rule in queryset:
            self.delete_model(request, rule)


def _say(rule: LabelRule) -> str:
    return f"{rule.position}: {rule.pattern} → owner {rule.owner or '–'}, project {rule.project or '–'}"


def _refresh() -> None:
    try:
        additions.refresh()
    except CacheUnavailable as exc:
        # The worker's next refresh does it.
        log.warning("the inventory shows the changed rules later: %s", exc)
