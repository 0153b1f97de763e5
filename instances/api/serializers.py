"""The fields of the API's requests and answers: they validate requests, and describe both for OpenAPI.

The listing itself is rendered by `inventory.store`, once for all its readers; a test compares it with these fields.
"""

from typing import Any, Final

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from instances.api.findings import ActingSerializer, FindingSerializer
from instances.api.strict import FlagField, NoteField, StrictSerializer, TextField, show_name
from instances.errors import InvalidRequest
from instances.instance import ACTION_NAMES, GROUPS
from instances.inventory import attention, queries, rows
from instances.models import Operation, Target

ORDERINGS = (
    *("name", "id", "status", "group", "region", "productName", "gpuNum", "createdAt", "lastStartedAt", "changedAt"),
    *("costPerHour", "owner", "project", "billingMode", queries.URGENCY, "upFor", "spent"),
)
MAX_PAGE_SIZE = 1000
# The largest accepted body has room for as many ids.
MAX_IDS = 2000
REPEATED: Final = "Given more than once. Give each name once."
SAVES: Final = "What a stop saves, in USD per hour, at the present prices; null for other kinds."
COSTS: Final = "What a start costs, in USD per hour, at the present prices; null for other kinds."
UNKNOWN_PRICES: Final = "Targets with a price that is not known; they are not included."
PREPAID: Final = "Targets that are paid by the month; they change nothing."


class StopAllRequestSerializer(StrictSerializer):
    """The body of stop-all."""

    reason = NoteField(
        required=False, allow_blank=True, help_text="Recorded with the operation; the first 500 characters."
    )
    webhookUrl = TextField(
        required=False,
        min_length=1,
        max_length=2000,
        help_text="An https URL that receives one signed POST with the result.",
    )
    dryRun = FlagField(required=False, help_text="true: answer what would be done, and do nothing.")
    ids = serializers.ListField(
        child=TextField(min_length=1, max_length=128),
        required=False,
        allow_empty=False,
        min_length=1,
        max_length=MAX_IDS,
        help_text="Only these instances.",
    )


class OperationRequestSerializer(StopAllRequestSerializer):
    """The body of an operation on some instances: `kind` and `ids`, or `fromOperation`, alone or to start again."""

    kind = serializers.ChoiceField(choices=ACTION_NAMES, required=False, help_text="Required without fromOperation.")
    ids = serializers.ListField(
        child=TextField(min_length=1, max_length=128),
        required=False,
        allow_empty=False,
        min_length=1,
        max_length=MAX_IDS,
        help_text="The instances. Required without fromOperation.",
    )
    fromOperation = TextField(
        required=False,
        min_length=1,
        max_length=64,
        help_text="A finished operation, to repeat for its unconfirmed targets; with the kind start, a finished stop, "
        "to start what it stopped.",
    )

    def check(self) -> dict[str, Any]:
        wanted = super().check()
        if "fromOperation" in wanted:
            extra = {"ids"} if wanted.get("kind") == "start" else {"kind", "ids"}
            wrong = dict.fromkeys(extra & wanted.keys(), "Not allowed together with fromOperation, which includes it.")
        else:
            wrong = dict.fromkeys({"kind", "ids"} - wanted.keys(), "This field is required.")
        if wrong:
            raise InvalidRequest(fields=wrong)
        return wanted


class ProtectSerializer(StrictSerializer):
    reason = TextField(
        min_length=1, max_length=500, help_text="Why the instance must not be stopped; shown when somebody tries to."
    )


class OperationQuerySerializer(StrictSerializer):
    state = serializers.ChoiceField(choices=Operation.State.choices, required=False)
    page = serializers.IntegerField(min_value=1, max_value=10**6, required=False, help_text="The first page is 1.")
    pageSize = serializers.IntegerField(min_value=1, max_value=100, required=False, help_text="Default: 20.")


class FilterSerializer(StrictSerializer):
    status = serializers.CharField(required=False, help_text="One status, or several, separated by commas.")
    group = serializers.ChoiceField(
        choices=[*GROUPS, queries.MOVING], required=False, help_text="`moving` means starting or stopping."
    )
    region = serializers.CharField(required=False, help_text="The full name of a region, or the full id of a cluster.")
    gpu = serializers.CharField(required=False, help_text="Part of the product's name, or its full id.")
    owner = serializers.CharField(required=False, help_text="The full name of an owner.")
    project = serializers.CharField(required=False, help_text="The full name of a project.")
    attention = serializers.ChoiceField(
        choices=attention.REASONS,
        required=False,
        error_messages={"invalid_choice": f"Not a reason. Valid are: {', '.join(attention.REASONS)}."},
        help_text="Why it needs attention: an error of Novita's, running for more than LONG_RUNNING_DAYS, a spot "
        "instance that is being reclaimed or has been, or idle by the judgement of a policy.",
    )
    search = serializers.CharField(required=False, help_text="Part of the name, id, region, GPU, owner or project.")
    ordering = serializers.ChoiceField(
        choices=[sign + name for name in ORDERINGS for sign in ("", "-")],
        required=False,
        help_text="The field to sort by; a leading - reverses the order. Default: -createdAt. `attention`: errors, "
        "then moving, running (the most expensive first), and stopped instances. `upFor` and `spent`: the time and "
        "about the cost since the start of a running instance.",
    )


class ListQuerySerializer(FilterSerializer):
    page = serializers.IntegerField(min_value=1, max_value=10**9, required=False, help_text="The first page is 1.")
    pageSize = serializers.IntegerField(
        min_value=1, max_value=MAX_PAGE_SIZE, required=False, help_text="Default with `page`: 100."
    )
    fields = serializers.CharField(  # type: ignore[assignment]  # DRF keeps declared fields apart from its own `fields`
        required=False, help_text="Only these fields of each instance, separated by commas: `id,name,status`."
    )

    def validate_fields(self, text: str) -> tuple[str, ...]:
        """Return the names, each once."""
        names = dict.fromkeys(text.split(","))
        if unknown := names.keys() - rows.SHAPES.keys():
            shown, valid = ", ".join(sorted(f'"{show_name(name)}"' for name in unknown)), ", ".join(rows.SHAPES)
            raise serializers.ValidationError(f"Unknown: {shown}. Valid are: {valid}.")
        return tuple(names)


class StatusErrorSerializer(serializers.Serializer[Any]):
    state = serializers.CharField()
    message = serializers.CharField()


class PortMappingSerializer(serializers.Serializer[Any]):
    port = serializers.IntegerField(allow_null=True)
    type = serializers.CharField()
    endpoint = serializers.CharField()


class InstanceSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    status = serializers.CharField(help_text="Novita's own status, also one that the panel does not know.")
    group = serializers.ChoiceField(choices=list(GROUPS))
    actions = serializers.ListField(child=serializers.ChoiceField(choices=ACTION_NAMES))
    region = serializers.CharField()
    clusterId = serializers.CharField()
    productId = serializers.CharField()
    productName = serializers.CharField()
    gpuNum = serializers.IntegerField(allow_null=True)
    cpuNum = serializers.IntegerField(allow_null=True)
    memoryGb = serializers.IntegerField(allow_null=True)
    rootfsSizeGb = serializers.IntegerField(allow_null=True)
    imageUrl = serializers.CharField()
    billingMode = serializers.CharField(allow_null=True)
    spotStatus = serializers.CharField(allow_null=True)
    createdAt = serializers.DateTimeField(allow_null=True)
    lastStartedAt = serializers.DateTimeField(allow_null=True)
    lastStoppedAt = serializers.DateTimeField(allow_null=True)
    endTime = serializers.DateTimeField(allow_null=True)
    statusError = StatusErrorSerializer(allow_null=True)
    portMappings = PortMappingSerializer(many=True)
    pricePerHour = serializers.FloatField(allow_null=True, help_text="USD per hour while its GPUs are charged.")
    costPerHour = serializers.FloatField(
        allow_null=True, help_text="USD per hour in its present status: GPUs, storage while stopped, 0 when prepaid."
    )
    priceSource = serializers.ChoiceField(
        choices=["instance", "product"], allow_null=True, help_text="The instance's own price, or its product's."
    )
    prepaid = serializers.BooleanField(help_text="Whether it is paid by the month.")
    owner = serializers.CharField(allow_null=True)
    project = serializers.CharField(allow_null=True)
    changedAt = serializers.DateTimeField(help_text="When a synchronization or an action last changed it.")


# Without this the description shows the answer itself as an array.
@extend_schema_serializer(many=False)
class ListingSerializer(serializers.Serializer[Any]):
    instances = InstanceSerializer(many=True)
    total = serializers.IntegerField(help_text="The number of matching instances on all pages.")


class ActionResultSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    message = serializers.CharField()
    instanceId = serializers.CharField()
    status = serializers.CharField()
    timestamp = serializers.DateTimeField()


class ResultSerializer(serializers.Serializer[Any]):
    instanceId = serializers.CharField()
    name = serializers.CharField()
    success = serializers.BooleanField(help_text="Whether Novita accepted the request.")
    status = serializers.CharField(help_text="Novita's status as last read.")
    state = serializers.ChoiceField(choices=Target.State.choices)
    message = serializers.CharField(help_text="The state in one sentence.")
    error = serializers.CharField(allow_null=True)


class SkippedSerializer(serializers.Serializer[Any]):
    instanceId = serializers.CharField()
    name = serializers.CharField()
    reason = serializers.CharField()


class OperationAnswerSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    message = serializers.CharField()
    count = serializers.IntegerField(help_text="The number of instances that are requested.")
    total = serializers.IntegerField(help_text="The number of instances without the skipped ones.")
    results = ResultSerializer(many=True)
    skipped = SkippedSerializer(many=True)
    warnings = serializers.ListField(child=serializers.CharField())
    savesPerHour = serializers.FloatField(allow_null=True, help_text=SAVES)
    costsPerHour = serializers.FloatField(allow_null=True, help_text=COSTS)
    unknownPrices = serializers.IntegerField(help_text=UNKNOWN_PRICES)
    prepaid = serializers.IntegerField(help_text=PREPAID)
    timestamp = serializers.DateTimeField()
    operationId = serializers.UUIDField(allow_null=True)
    operationUrl = serializers.CharField(allow_null=True)
    source = serializers.ChoiceField(choices=Operation.Source.choices)  # type: ignore[assignment]  # shadows a property that is not used


class CountsSerializer(serializers.Serializer[Any]):
    pending = serializers.IntegerField()
    requested = serializers.IntegerField()
    confirmed = serializers.IntegerField()
    stillRunning = serializers.IntegerField()
    failed = serializers.IntegerField()
    skipped = serializers.IntegerField()
    unknown = serializers.IntegerField()


class TargetSerializer(serializers.Serializer[Any]):
    instanceId = serializers.CharField()
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=Target.State.choices)
    status = serializers.CharField(help_text="Novita's status as last read.")
    attempts = serializers.IntegerField(help_text="The number of requests sent.")
    requestedAt = serializers.DateTimeField(allow_null=True)
    confirmedAt = serializers.DateTimeField(allow_null=True, help_text="When the read that verified it began.")
    readAt = serializers.DateTimeField(allow_null=True, help_text="When the last read began.")
    message = serializers.CharField(help_text="The state in one sentence.")
    error = serializers.CharField(allow_null=True)


class OperationHeadSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=ACTION_NAMES)
    state = serializers.ChoiceField(choices=Operation.State.choices)
    success = serializers.BooleanField(
        allow_null=True, help_text="true only when every target that was not skipped is confirmed."
    )
    result = serializers.CharField()
    isWholeAccount = serializers.BooleanField()
    reason = serializers.CharField()
    requestedBy = serializers.CharField()
    source = serializers.ChoiceField(
        choices=Operation.Source.choices,
        help_text="Where the targets were read: at Novita, or in the cached inventory.",
    )  # type: ignore[assignment]  # shadows a property that is not used
    createdAt = serializers.DateTimeField()
    deadlineAt = serializers.DateTimeField()
    finishedAt = serializers.DateTimeField(allow_null=True)
    notes = serializers.ListField(child=serializers.CharField())
    retryOf = serializers.UUIDField(
        allow_null=True, help_text="The operation whose unconfirmed targets this one repeats."
    )
    supersededBy = serializers.UUIDField(
        allow_null=True, help_text="A later operation that covers all unconfirmed targets of this one."
    )
    dismissedAt = serializers.DateTimeField(allow_null=True, help_text="Since when no dashboard shows it any more.")
    dismissedBy = serializers.CharField()
    counts = CountsSerializer()


class OperationSerializer(OperationHeadSerializer):
    savesPerHour = serializers.FloatField(allow_null=True, help_text=SAVES)
    costsPerHour = serializers.FloatField(allow_null=True, help_text=COSTS)
    unknownPrices = serializers.IntegerField(help_text=UNKNOWN_PRICES)
    prepaid = serializers.IntegerField(help_text=PREPAID)
    targets = TargetSerializer(many=True)


@extend_schema_serializer(many=False)
class OperationListSerializer(serializers.Serializer[Any]):
    operations = OperationHeadSerializer(many=True)
    total = serializers.IntegerField()


class ProtectionSerializer(serializers.Serializer[Any]):
    instanceId = serializers.CharField()
    name = serializers.CharField()
    reason = serializers.CharField()
    protectedBy = serializers.CharField()
    protectedAt = serializers.DateTimeField()


@extend_schema_serializer(many=False)
class ProtectionListSerializer(serializers.Serializer[Any]):
    protections = ProtectionSerializer(many=True)
    total = serializers.IntegerField()


class EventSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    kind = serializers.ChoiceField(
        choices=["action", "operation", "change"],
        help_text="action: a person or a script; operation: a stop, start or restart of many; change: observed.",
    )
    message = serializers.CharField()
    actor = serializers.CharField(help_text="Empty for a change.")
    reason = serializers.CharField()
    operationId = serializers.CharField(allow_null=True)


class InstanceHistorySerializer(serializers.Serializer[Any]):
    instanceId = serializers.CharField()
    events = EventSerializer(many=True, help_text="At most 20, the newest first.")


class ProtectedSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    message = serializers.CharField()
    instanceId = serializers.CharField()
    reason = serializers.CharField(required=False)
    protectedBy = serializers.CharField(required=False)
    timestamp = serializers.DateTimeField()


class SyncResultSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    message = serializers.CharField()
    novitaInstances = serializers.IntegerField(help_text="The number that Novita listed.")
    redisInstances = serializers.IntegerField(help_text="The number in the inventory before.")
    synchronized = serializers.IntegerField()
    deleted = serializers.IntegerField()
    errors = serializers.ListField(child=serializers.CharField())  # type: ignore[assignment]  # DRF keeps fields apart
    timestamp = serializers.DateTimeField()
    duration = serializers.IntegerField(help_text="Milliseconds.")
    added = serializers.IntegerField()
    changed = serializers.IntegerField()
    unconfirmed = serializers.IntegerField(help_text="Missing from the listing, but kept: not confirmed as removed.")


class ClearSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    message = serializers.CharField()
    cleared = serializers.IntegerField()
    timestamp = serializers.DateTimeField()


class LeaseSerializer(serializers.Serializer[Any]):
    host = serializers.CharField(required=False)
    pid = serializers.IntegerField(required=False)
    trigger = serializers.CharField(required=False)
    since = serializers.DateTimeField(required=False)
    endsInSeconds = serializers.FloatField()


class StatsSerializer(serializers.Serializer[Any]):
    size = serializers.IntegerField(help_text="The number of cached instances.")
    bytes = serializers.IntegerField(allow_null=True)
    generation = serializers.IntegerField(allow_null=True)
    revision = serializers.IntegerField(allow_null=True)
    ageSeconds = serializers.FloatField(allow_null=True)
    notModified = serializers.IntegerField(help_text="The number of 304 answers since the cache was last cleared.")
    lease = LeaseSerializer(allow_null=True)


class ServicesSerializer(serializers.Serializer[Any]):
    redis = serializers.ChoiceField(choices=["up", "down"])
    novita = serializers.ChoiceField(choices=["up", "down", "unknown"])
    database = serializers.ChoiceField(choices=["up", "down"], help_text="Whether it can be written.")
    worker = serializers.ChoiceField(choices=["up", "down", "unknown"])


class SyncStateSerializer(serializers.Serializer[Any]):
    available = serializers.BooleanField(help_text="Whether there is a cached inventory.")
    lastSync = serializers.DateTimeField(
        allow_null=True, help_text="When the last complete synchronization began; kept when the cache is cleared."
    )
    clearedAt = serializers.DateTimeField(
        allow_null=True, help_text="When the cache was cleared; null once a synchronization has filled it."
    )
    isLocked = serializers.BooleanField()
    cacheSize = serializers.IntegerField()
    ageSeconds = serializers.IntegerField(
        allow_null=True, help_text="Age of the cached inventory, by the clock of Redis."
    )
    isStale = serializers.BooleanField(help_text="Whether the cached inventory is older than `NOVITA_STALE_AFTER`.")
    lastError = serializers.CharField(allow_null=True)
    lastErrorCode = serializers.CharField(allow_null=True, help_text="The code of that error, as in other answers.")


class HealthSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=["healthy", "degraded", "unhealthy"])
    version = serializers.CharField(required=False)
    timestamp = serializers.DateTimeField()
    services = ServicesSerializer(required=False)
    sync = SyncStateSerializer(required=False)
    warnings = serializers.ListField(child=serializers.CharField(), required=False)
    unappliedMigrations = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="What `manage.py migrate` would apply."
    )


class StartFreezeSerializer(serializers.Serializer[Any]):
    """The start freeze; all but `frozen` is null while starts are allowed."""

    frozen = serializers.BooleanField()
    message = serializers.CharField(allow_null=True, help_text="For people: until when, by whom and why.")
    until = serializers.DateTimeField(allow_null=True, help_text="null: until somebody removes the freeze.")
    reason = serializers.CharField(allow_null=True)
    frozenBy = serializers.CharField(allow_null=True)
    frozenAt = serializers.DateTimeField(allow_null=True)


class OverviewSerializer(serializers.Serializer[Any]):
    revision = serializers.IntegerField(allow_null=True)
    health = HealthSerializer()
    operations = OperationHeadSerializer(many=True, allow_null=True)
    protections = ProtectionSerializer(many=True, allow_null=True)
    findings = FindingSerializer(
        many=True,
        allow_null=True,
        help_text="The open findings of policies, at most 200: first those that stop soonest.",
    )
    openFindings = serializers.IntegerField(allow_null=True, help_text="How many findings are open.")
    moreIdle = serializers.DictField(
        child=serializers.DateTimeField(allow_null=True),
        allow_null=True,
        help_text="The idle instances that `findings` lacks: the id of each, and since when.",
    )
    policies = ActingSerializer(allow_null=True)
    startFreeze = StartFreezeSerializer(allow_null=True)


class ErrorSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField(default=False)
    code = serializers.CharField()
    message = serializers.CharField()
    suggestion = serializers.CharField(allow_null=True)
    requestId = serializers.CharField()
    timestamp = serializers.DateTimeField()
    fields = serializers.DictField(child=serializers.CharField(), required=False)  # type: ignore[assignment]  # likewise
