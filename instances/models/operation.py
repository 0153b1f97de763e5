"""A stop, start or restart of many instances, and its targets."""

import uuid

from django.db import models
from django.utils import timezone

from instances.errors import InstanceNotFound, NovitaRejectedKey
from instances.instance import ACTION_NAMES, ActionName
from instances.models.fields import ReadableEncoder


class OperationState(models.TextChoices):
    REQUESTING = "requesting", "requesting"
    VERIFYING = "verifying", "verifying"
    FINISHED = "finished", "finished"
    CANCELLED = "cancelled", "cancelled"


RUNNING = (OperationState.REQUESTING, OperationState.VERIFYING)


class Operation(models.Model):
    """A start, stop or restart of many instances, followed until each is verified."""

    State = OperationState

    class Source(models.TextChoices):
        NOVITA = "novita", "Novita"
        CACHE = "cache", "the inventory"

    RUNNING = RUNNING
    # The selection of a policy's stop begins so.
    POLICY_SELECTION = "policy:"
    # That of an operation which another one has replaced begins so.
    REPLACED_SELECTION = "replaced:"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind: "models.CharField[ActionName, ActionName]" = models.CharField(
        max_length=10, choices=[(name, name) for name in ACTION_NAMES]
    )
    is_whole_account = models.BooleanField(
        "scope",
        choices=[(True, "whole account"), (False, "selection")],
        help_text="Whole account: every instance that may be billed.",
    )
    selection = models.CharField(max_length=64, help_text="Identifies the targets. Equal requests have equal values.")
    state = models.CharField(max_length=10, choices=State, default=State.REQUESTING)
    source = models.CharField(
        "targets from", max_length=10, choices=Source, default=Source.NOVITA, help_text="Where the targets were read."
    )
    reason = models.TextField(blank=True)
    requested_by = models.CharField("requested by", max_length=150, blank=True)
    address = models.CharField(max_length=45, blank=True, help_text="The client's address.")
    request_id = models.CharField(max_length=64, blank=True)
    origin = models.CharField(
        max_length=300,
        blank=True,
        help_text="The address of the panel that the webhook links to, for example https://panel.example.com",
    )
    created_at = models.DateTimeField("started", default=timezone.now, db_index=True)
    listed_at = models.DateTimeField(null=True, help_text="When the targets were stored.")
    deadline_at = models.DateTimeField(help_text="When the result is final at the latest.")
    finished_at = models.DateTimeField(null=True, db_index=True)
    success = models.BooleanField(null=True, help_text="Whether all targets are confirmed, except for skipped ones.")
    result = models.TextField(blank=True)
    notes = models.JSONField(encoder=ReadableEncoder, default=list, help_text="Sentences about missing information.")
    # Of a finished operation, at the prices when it ended.
    usd_per_hour = models.DecimalField(
        "USD per hour",
        max_digits=20,
        decimal_places=5,
        null=True,
        help_text="What a stop saves or a start costs, without unknown prices; empty: not known.",
    )
    unknown_prices = models.PositiveIntegerField("unknown prices", null=True)
    prepaid = models.PositiveIntegerField(null=True, help_text="Targets that are paid by the month.")
    retry_of = models.ForeignKey(
        "self",
        models.SET_NULL,
        null=True,
        related_name="retries",
        help_text="The operation whose unconfirmed targets this one retries.",
    )
    superseded_by = models.ForeignKey(
        "self",
        models.SET_NULL,
        null=True,
        related_name="superseded",
        help_text="A later operation that includes all unconfirmed targets of this one.",
    )
    dismissed_at = models.DateTimeField(
        "dismissed", null=True, help_text="Since when no dashboard shows the result any more."
    )
    dismissed_by = models.CharField("dismissed by", max_length=150, blank=True)

    # The process that advances the operation. The claim of a dead process expires.
    claim = models.CharField(max_length=36, blank=True)
    claimed_until = models.DateTimeField(null=True)
    next_round_at = models.DateTimeField(default=timezone.now)
    rounds = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("-created_at", "-pk")
        constraints = [
            # Two equal requests at the same moment share one operation.
            models.UniqueConstraint(
                fields=["selection"],
                condition=models.Q(state__in=RUNNING),
                name="one_running_operation",
            )
        ]
        # Dashboards poll the failures that nobody has dismissed.
        indexes = [
            models.Index(fields=["requested_by", "-created_at"], name="operations_of_an_actor"),
            models.Index(
                fields=["-created_at"],
                condition=models.Q(success=False, superseded_by=None, dismissed_at=None),
                name="failures_to_show",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.created_at:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def is_by_policy(self) -> bool:
        return self.selection.startswith(self.POLICY_SELECTION)


class Target(models.Model):
    """One instance of an operation, and its progress."""

    class State(models.TextChoices):
        PENDING = "pending", "pending"
        REQUESTED = "requested", "requested"
        CONFIRMED = "confirmed", "confirmed"
        STILL_RUNNING = "stillRunning", "still running"
        FAILED = "failed", "failed"
        SKIPPED = "skipped", "skipped"
        UNKNOWN = "unknown", "unknown"

    OPEN = (State.PENDING, State.REQUESTED, State.FAILED)
    # For an operation that has ended.
    UNCONFIRMED = (State.STILL_RUNNING, State.FAILED, State.UNKNOWN)
    MAX_ATTEMPTS = 12
    # No retry cures these errors.
    FINAL_ERRORS = (NovitaRejectedKey.code, InstanceNotFound.code)

    operation = models.ForeignKey(Operation, models.CASCADE, related_name="targets")
    instance_id = models.CharField(max_length=128, db_index=True)
    name = models.CharField(max_length=255, blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.PENDING)
    first_status = models.CharField(
        max_length=64, blank=True, help_text="Novita's status when the instance became a target."
    )
    status = models.CharField(max_length=64, blank=True, help_text="Novita's status at the last read.")
    read_at = models.DateTimeField(null=True, help_text="When the last read started.")
    attempts = models.PositiveIntegerField(default=0, help_text="How many times the request was sent.")
    requested_at = models.DateTimeField(null=True, help_text="When Novita last accepted the request.")
    next_request_at = models.DateTimeField(null=True)
    started_before = models.CharField(
        max_length=20, blank=True, help_text="The last start before a restart or a policy's stop."
    )
    confirmed_at = models.DateTimeField(null=True, help_text="When the read that confirmed it started.")
    error_code = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True, help_text="Why the target failed or was skipped.")

    class Meta:
        ordering = ("operation", "name", "instance_id")
        verbose_name = "operation result"
        constraints = [models.UniqueConstraint(fields=["operation", "instance_id"], name="one_target_an_instance")]

    def __str__(self) -> str:
        return self.name or self.instance_id

    @property
    def is_open(self) -> bool:
        """Whether its state can still change while the operation runs."""
        return self.state in self.OPEN and not (
            self.state == self.State.FAILED and self.error_code in self.FINAL_ERRORS
        )

    @property
    def is_exhausted(self) -> bool:
        """Whether no round requests it again. It stays open, since it may still stop."""
        return self.attempts >= self.MAX_ATTEMPTS
