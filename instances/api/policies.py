"""The API's views and JSON of policies, their findings, and snoozes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers as fields
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from instances.access.audit import get_actor
from instances.api.findings import ActingSerializer, FindingSerializer, show_acting, show_finding
from instances.api.strict import FlagField, NoteField, StrictSerializer, TextField
from instances.api.views import ACT_ERRORS, ERRORS, NOT_FOUND, ApiView
from instances.errors import InvalidRequest
from instances.instance import format_time
from instances.models import FindingState, Policy
from instances.policies import editing, finding_list, snoozing, watch
from novita_site.roles import Role

# The API's name of each field of a policy.
_NAMES: Final[Mapping[str, str]] = {
    "name": "name",
    "mode": "mode",
    "on": "is_on",
    "namePattern": "name_pattern",
    "region": "region",
    "gpu": "gpu",
    "owner": "owner",
    "project": "project",
    "billingMode": "billing_mode",
    "rule": "rule",
    "thresholdPercent": "threshold_percent",
    "windowMinutes": "window_minutes",
    "startGraceMinutes": "start_grace_minutes",
    "maxHours": "max_hours",
    "hours": "hours",
    "timeZone": "time_zone",
    "exceptedDays": "excepted_days",
    "handStartHours": "hand_start_hours",
    "maxUsdPerHour": "max_usd_per_hour",
    "minRunwayHours": "min_runway_hours",
    "warningMinutes": "warning_minutes",
    "maxStopsPerHour": "max_stops_per_hour",
}
_API_NAMES: Final = {attribute: name for name, attribute in _NAMES.items()}


def _text(length: int, help_text: str = "") -> TextField:
    return TextField(required=False, allow_blank=True, max_length=length, help_text=help_text)


class NumberField(fields.FloatField):
    """Accepts a number, and no text or boolean in its place: true would be an hour."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return float(super().to_internal_value(data))


class WholeNumberField(fields.IntegerField):
    """Accepts a whole number, and no text in its place."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return int(super().to_internal_value(data))


class PolicyFieldsSerializer(StrictSerializer):
    """The fields of a policy that a person sets. What is left out keeps its value, or its default."""

    name = TextField(required=False, max_length=100, help_text="Required for a new policy.")
    rule = fields.ChoiceField(choices=Policy.Rule.values, required=False, help_text="Required for a new policy.")
    mode = fields.ChoiceField(choices=Policy.Mode.values, required=False, help_text="Default: observe.")
    on = FlagField(required=False, help_text="Default: true.")
    namePattern = _text(255, "The whole name; * stands for any characters, ? for one.")
    region = _text(128)
    gpu = _text(128, "Part of the product's name.")
    owner = _text(100)
    project = _text(100)
    billingMode = fields.ChoiceField(choices=["", "onDemand", "spot", "monthly"], required=False)
    thresholdPercent = NumberField(required=False, help_text="idle: default 5.")
    windowMinutes = WholeNumberField(required=False, min_value=0, max_value=10**6, help_text="idle: default 60.")
    startGraceMinutes = WholeNumberField(required=False, min_value=0, max_value=10**6, help_text="idle: default 30.")
    maxHours = NumberField(required=False, allow_null=True, help_text="lease: hours since the last start.")
    hours = _text(500, "schedule: Mon-Fri 08:00-20:00, Sat 10:00-14:00")
    timeZone = _text(64, "Europe/Berlin; of the schedule, and of the mornings until which people snooze.")
    exceptedDays = _text(500, "schedule: 2026-12-24, 2026-12-31..2027-01-01")
    handStartHours = NumberField(required=False, help_text="schedule: default 2.")
    maxUsdPerHour = NumberField(required=False, allow_null=True, help_text="budget: the highest burn rate.")
    minRunwayHours = NumberField(required=False, allow_null=True, help_text="budget: hours the balance must last.")
    warningMinutes = WholeNumberField(required=False, min_value=0, max_value=10**6, help_text="Default: 30.")
    maxStopsPerHour = WholeNumberField(required=False, min_value=0, max_value=10**6, help_text="Default: 10.")


class FoundSerializer(fields.Serializer[Any]):
    """What a policy has found. Instances without a known cost add no money."""

    open = fields.IntegerField(help_text="Findings that have not ended.")
    savesPerHour = fields.FloatField(help_text="What stopping the open ones would save an hour, in USD.")
    stopped = fields.IntegerField(help_text="Instances that it has stopped within 30 days.")
    wouldHaveSaved = fields.FloatField(
        help_text="USD spent within 30 days on instances after they were due; what the mode stop would have saved."
    )


class PolicySerializer(PolicyFieldsSerializer):
    """A policy."""

    id = fields.IntegerField()
    found = FoundSerializer()
    stopConfirmedBy = fields.CharField(allow_null=True, help_text="budget: the admin who allowed it to stop.")
    version = fields.IntegerField(help_text="Counts up with each change.")
    changedBy = fields.CharField()
    changedAt = fields.DateTimeField()


@extend_schema_serializer(many=False)
class PolicyListSerializer(fields.Serializer[Any]):
    policies = PolicySerializer(many=True)
    total = fields.IntegerField()
    acting = ActingSerializer()


class SwitchedSerializer(ActingSerializer):
    cancelledStops = fields.IntegerField(help_text="Stops of policies that were cancelled before they were requested.")


class SwitchSerializer(StrictSerializer):
    on = FlagField(help_text="false: no policy stops anything from now on.")


class ConfirmSerializer(StrictSerializer):
    name = TextField(max_length=100, help_text="The policy's name, to confirm that it may stop instances.")


class SnoozeSerializer(StrictSerializer):
    """How long to snooze: `for` or `until`."""

    until = fields.DateTimeField(required=False, help_text="With a time zone, within a year.")
    reason = NoteField(required=False, allow_blank=True, max_length=500)

    def get_fields(self) -> dict[str, Any]:
        # `for` is a word of Python's.
        choices = [*snoozing.PRESETS, snoozing.TOMORROW]
        preset = fields.ChoiceField(choices=choices, required=False, help_text="tomorrow: until 09:00.")
        return {"for": preset, **super().get_fields()}


class FindingQuerySerializer(StrictSerializer):
    state = fields.ChoiceField(choices=["open", *FindingState.values], required=False)
    policy = fields.IntegerField(min_value=1, max_value=2**63 - 1, required=False, help_text="The id of a policy.")
    instance = TextField(required=False, max_length=128, help_text="The full id of an instance.")
    page = fields.IntegerField(min_value=1, max_value=10**6, required=False, help_text="The first page is 1.")
    pageSize = fields.IntegerField(min_value=1, max_value=100, required=False, help_text="Default: 50.")


@extend_schema_serializer(many=False)
class FindingListSerializer(fields.Serializer[Any]):
    findings = FindingSerializer(many=True)
    total = fields.IntegerField()


class PolicyViewSet(ApiView, ViewSet):
    """The policies: rules that warn of instances, and stop them when that is switched on."""

    lookup_value_regex = "[^/]+"
    bodies = MappingProxyType(
        {
            "create": PolicyFieldsSerializer,
            "update": PolicyFieldsSerializer,
            "confirm_stop": ConfirmSerializer,
            "switch": SwitchSerializer,
        }
    )
    first_bodies = MappingProxyType(
        {"create": {"name": "Idle machines", "rule": "idle", "mode": "observe"}, "switch": {"on": True}}
    )

    @extend_schema(summary="List the policies", responses={200: PolicyListSerializer, **ERRORS})
    def list(self, request: Request) -> Response:
        found = finding_list.sum_up()
        policies = [show_policy(one, found) for one in Policy.objects.all()]
        return Response({"policies": policies, "total": len(policies), "acting": show_acting(watch.read_state())})

    @extend_schema(
        summary="Add a policy",
        description="It begins in the mode `observe`, which stops nothing, unless `mode` says otherwise.",
        request=PolicyFieldsSerializer,
        responses={201: PolicySerializer, **ACT_ERRORS},
    )
    def create(self, request: Request) -> Response:
        missing = {name: "Required." for name in ("name", "rule") if name not in self.wish}
        if missing:
            raise InvalidRequest(fields=missing)
        return Response(show_policy(_save(Policy(), self.wish, request)), status=201)

    @extend_schema(summary="Show a policy", responses={200: PolicySerializer, **ERRORS, **NOT_FOUND})
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(show_policy(editing.get(pk)))

    @extend_schema(
        summary="Change a policy",
        description="Its findings begin again with a warning.",
        request=PolicyFieldsSerializer,
        responses={200: PolicySerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    def update(self, request: Request, pk: str) -> Response:
        return Response(show_policy(_save(editing.get(pk), self.wish, request)))

    @extend_schema(
        summary="Delete a policy", request=None, responses={200: PolicySerializer, **ACT_ERRORS, **NOT_FOUND}
    )
    def destroy(self, request: Request, pk: str) -> Response:
        policy = editing.get(pk)
        shown = show_policy(policy)
        editing.delete(policy, actor=get_actor(request))
        return Response(shown)

    @extend_schema(
        summary="Allow a budget policy to stop instances",
        request=ConfirmSerializer,
        responses={200: PolicySerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    @action(detail=True, methods=["post"], url_path="confirm-stop")
    def confirm_stop(self, request: Request, pk: str) -> Response:
        """Type the policy's name to allow it."""
        return Response(show_policy(editing.confirm_stop(editing.get(pk), self.wish["name"], actor=get_actor(request))))

    @extend_schema(
        summary="Switch all acting of policies off or on",
        request=SwitchSerializer,
        responses={200: SwitchedSerializer, **ACT_ERRORS},
    )
    @action(detail=False, methods=["put"])
    def switch(self, request: Request) -> Response:
        """Off: no policy stops anything, and stops that are not requested yet are cancelled. Findings are recorded all
        the same.
        """
        state, cancelled = editing.switch(is_off=not self.wish["on"], actor=get_actor(request))
        return Response({**show_acting(state), "cancelledStops": cancelled})


class FindingViewSet(ApiView, ViewSet):
    """What the policies found."""

    lookup_value_regex = "[^/]+"
    bodies = MappingProxyType({"snooze": SnoozeSerializer})
    queries = MappingProxyType({"list": FindingQuerySerializer})
    first_bodies = MappingProxyType({"snooze": {"for": "1h", "reason": ""}})
    roles = MappingProxyType(dict.fromkeys(["snooze", "unsnooze"], Role.OPERATOR))

    @extend_schema(
        summary="List the findings, the newest first",
        parameters=[FindingQuerySerializer],
        responses={200: FindingListSerializer, **ERRORS},
    )
    def list(self, request: Request) -> Response:
        page, size = self.query.pop("page", 1), self.query.pop("pageSize", 50)
        found = finding_list.read(**self.query, page=page, size=size)
        return Response({"findings": [show_finding(one) for one in found.findings], "total": found.total})

    @extend_schema(summary="Show a finding", responses={200: FindingSerializer, **ERRORS, **NOT_FOUND})
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(show_finding(finding_list.describe(snoozing.get(pk))))

    @extend_schema(
        summary="Snooze a finding",
        description="Keeps the instance from this policy for a while.",
        request=SnoozeSerializer,
        responses={200: FindingSerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    @action(detail=True, methods=["post"])
    def snooze(self, request: Request, pk: str) -> Response:
        finding = snoozing.get(pk)
        if ("for" in self.wish) == ("until" in self.wish):
            raise InvalidRequest(fields={"for": "Send either for or until."})
        zone = finding.policy.time_zone if finding.policy else ""
        until = self.wish.get("until") or snoozing.find_end(self.wish["for"], zone)
        snoozing.snooze(finding, until, self.wish.get("reason", ""), actor=get_actor(request))
        return Response(show_finding(finding_list.describe(snoozing.get(pk))))

    @extend_schema(
        summary="End a snooze",
        description="The warning begins again with the next evaluation.",
        request=None,
        responses={200: FindingSerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    @snooze.mapping.delete
    def unsnooze(self, request: Request, pk: str) -> Response:
        snoozing.unsnooze(snoozing.get(pk), actor=get_actor(request))
        return Response(show_finding(finding_list.describe(snoozing.get(pk))))


def _save(policy: Policy, wish: Mapping[str, Any], request: Request) -> Policy:
    for name, value in wish.items():
        setattr(policy, _NAMES[name], value)
    try:
        return editing.save(policy, actor=get_actor(request))
    except InvalidRequest as exc:
        exc.fields = {_API_NAMES.get(name, name): words for name, words in exc.fields.items()}
        raise


def show_policy(policy: Policy, found_by_id: Mapping[int, finding_list.Found] | None = None) -> dict[str, Any]:
    found = (finding_list.sum_up() if found_by_id is None else found_by_id).get(policy.pk, finding_list.Found())
    return {
        "id": policy.pk,
        **{name: getattr(policy, attribute) for name, attribute in _NAMES.items()},
        "found": {
            "open": found.open,
            "savesPerHour": float(found.usd_per_hour),
            "stopped": found.stopped,
            "wouldHaveSaved": round(float(found.missed_usd), 2),
        },
        "stopConfirmedBy": policy.stop_confirmed_by or None,
        "version": policy.version,
        "changedBy": policy.changed_by,
        "changedAt": format_time(policy.changed_at),
    }
