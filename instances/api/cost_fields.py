"""The fields of the requests and answers about costs. Amounts are in USD, rounded to five decimals."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from instances.api.serializers import MAX_IDS
from instances.api.strict import NoteField, StrictSerializer, TextField, show_name
from instances.errors import InvalidRequest
from instances.models.annotation import MAX_LABEL_LENGTH

MAX_NOTE_LENGTH: Final = 1000
SINCE: Final = "When the ledger began: nothing is known of the time before."
_PERIOD_HELP: Final = "A date or a time in UTC: 2026-01-31 or 2026-01-31T10:00:00Z."


class NoParametersSerializer(StrictSerializer):
    def check(self) -> dict[str, Any]:
        raise make_unknown(list(self.initial_data), {})


def make_unknown(names: Sequence[str], valid: Iterable[str]) -> InvalidRequest:
    """Return the refusal of unknown parameters."""
    listed = ", ".join(valid)
    reason = f"Unknown parameter. Valid are: {listed}." if listed else "Unknown parameter. There are none here."
    return InvalidRequest(fields={show_name(name): reason for name in names})


class PeriodSerializer(StrictSerializer):
    """The period of a report."""

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()
        # `from` can't be an attribute.
        fields["from"] = TextField(required=False, help_text=f"{_PERIOD_HELP} Default: 30 days before `to`.")
        fields["to"] = TextField(required=False, help_text=f"{_PERIOD_HELP} A date includes that day. Default: now.")
        return fields

    def check(self) -> dict[str, Any]:
        unknown = [name for name in self.initial_data if name not in self.fields]
        if unknown:
            raise make_unknown(unknown, self.fields)
        return super().check()


class HistoryQuerySerializer(PeriodSerializer):
    step = serializers.ChoiceField(
        choices=["hour", "day"],
        required=False,
        help_text="The time of each point, in UTC. Default: day.",
        error_messages={"invalid_choice": "Use hour or day."},
    )


class InstancesQuerySerializer(PeriodSerializer):
    instance = TextField(required=False, max_length=128, help_text="The id of one instance; default: all.")


class DownloadQuerySerializer(HistoryQuerySerializer, InstancesQuerySerializer):
    """The parameters of all reports; a download accepts those of its own report."""


class AnnotationSerializer(StrictSerializer):
    """The whole annotation: a field that is left out is emptied."""

    owner = TextField(required=False, allow_blank=True, max_length=MAX_LABEL_LENGTH)
    project = TextField(required=False, allow_blank=True, max_length=MAX_LABEL_LENGTH)
    note = NoteField(required=False, allow_blank=True, max_length=MAX_NOTE_LENGTH)


class AnnotationsSerializer(StrictSerializer):
    ids = serializers.ListField(
        child=TextField(min_length=1, max_length=128), allow_empty=False, min_length=1, max_length=MAX_IDS
    )
    owner = TextField(required=False, allow_blank=True, max_length=MAX_LABEL_LENGTH)
    project = TextField(required=False, allow_blank=True, max_length=MAX_LABEL_LENGTH)


class AnnotatedManySerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    message = serializers.CharField()
    missing = serializers.ListField(child=serializers.CharField(), help_text="The ids that don't exist.")
    timestamp = serializers.DateTimeField()


class AnnotatedSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    message = serializers.CharField()
    instanceId = serializers.CharField()
    owner = serializers.CharField(allow_null=True, help_text="As the instance shows it: of the annotation or a rule.")
    project = serializers.CharField(allow_null=True)
    note = serializers.CharField()
    byHand = serializers.BooleanField(help_text="Whether owner and project are those of the annotation.")
    changedBy = serializers.CharField(allow_null=True)
    changedAt = serializers.DateTimeField(allow_null=True)
    timestamp = serializers.DateTimeField()


class ShareSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(allow_null=True)
    perHour = serializers.FloatField(allow_null=True, help_text="null: no part of it is known.")
    instances = serializers.IntegerField(help_text="Those whose GPUs are charged or prepaid.")
    gpus = serializers.IntegerField(help_text="Their GPUs.")


class BalanceSerializer(serializers.Serializer[Any]):
    available = serializers.FloatField(allow_null=True)
    creditLimit = serializers.FloatField(allow_null=True)
    asOf = serializers.DateTimeField(allow_null=True, help_text="When it was last read.")
    hoursLeft = serializers.FloatField(allow_null=True, help_text="At the present burn rate; null if nothing costs.")
    error = serializers.CharField(allow_null=True, help_text="Why the balance is not known.")


# Without this the description shows the answer of a list route as an array.
@extend_schema_serializer(many=False)
class CostsSerializer(serializers.Serializer[Any]):
    asOf = serializers.DateTimeField(allow_null=True)
    stale = serializers.BooleanField()
    perHour = serializers.FloatField(allow_null=True, help_text="null: no part of it is known.")
    perDay = serializers.FloatField(allow_null=True)
    gpuPerHour = serializers.FloatField(allow_null=True)
    storagePerHour = serializers.FloatField(allow_null=True, help_text="The disks of stopped instances.")
    unknownPrices = serializers.IntegerField(help_text="Instances whose cost is not known; they add nothing.")
    prepaid = serializers.IntegerField(help_text="Instances that are paid by the month; they add nothing.")
    byGpu = ShareSerializer(many=True)
    byRegion = ShareSerializer(many=True)
    byOwner = ShareSerializer(many=True)
    byProject = ShareSerializer(many=True)
    balance = BalanceSerializer()


class PointSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    cost = serializers.FloatField(allow_null=True, help_text="null: no part of it is known.")
    gpuHours = serializers.FloatField()
    gapSeconds = serializers.FloatField(help_text="Not observed; the sum of all instances.")
    inferredSeconds = serializers.FloatField(help_text="Not observed, but known from Novita's times.")
    unpricedSeconds = serializers.FloatField(help_text="Charged at a price that is not known.")


@extend_schema_serializer(many=False)
class HistorySerializer(serializers.Serializer[Any]):
    points = PointSerializer(many=True)
    since = serializers.DateTimeField(allow_null=True, help_text=SINCE)


class UsedSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    owner = serializers.CharField(allow_null=True)
    project = serializers.CharField(allow_null=True)
    gpu = serializers.CharField()
    gpuHours = serializers.FloatField()
    cost = serializers.FloatField(allow_null=True, help_text="null: no part of it is known.")
    inferredSeconds = serializers.FloatField()
    gapSeconds = serializers.FloatField()
    unpricedSeconds = serializers.FloatField()


@extend_schema_serializer(many=False)
class UsedListSerializer(serializers.Serializer[Any]):
    instances = UsedSerializer(many=True)
    total = serializers.FloatField(help_text="The cost of all of them, in USD.")
    since = serializers.DateTimeField(allow_null=True, help_text=SINCE)


class BilledDaySerializer(serializers.Serializer[Any]):
    date = serializers.DateField()
    estimated = serializers.FloatField(help_text="By the ledger; 0 before it began.")
    billed = serializers.FloatField(allow_null=True, help_text="Before vouchers; null: not billed yet.")
    difference = serializers.FloatField(
        allow_null=True, help_text="billed - estimated; null: not billed yet, or the ledger began later."
    )


@extend_schema_serializer(many=False)
class BillSerializer(serializers.Serializer[Any]):
    days = BilledDaySerializer(many=True)
    error = serializers.CharField(allow_null=True, help_text="Why Novita's bill is not known.")
    since = serializers.DateTimeField(allow_null=True, help_text=SINCE)
