"""What must outlive Redis: operations and their targets, protections, webhooks to deliver, and who did what."""

import json
import uuid
from typing import Any

from django.db import models
from django.utils import timezone
from knox.models import AbstractAuthToken


class ReadableEncoder(json.JSONEncoder):
    """Writes names as they are and not as \\u escapes, so that a search in the records finds them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "ensure_ascii": False})


class SyncRun(models.Model):
    """One synchronization, as it ended. Made once and never changed."""

    class Trigger(models.TextChoices):
        STARTUP = "startup", "startup"
        INTERVAL = "interval", "interval"
        API = "api", "API"
        COMMAND = "command", "command"
        ADMIN = "admin", "admin"

    class Outcome(models.TextChoices):
        SUCCEEDED = "succeeded", "succeeded"
        FAILED = "failed", "failed"

    started_at = models.DateTimeField(db_index=True)
    trigger = models.CharField(max_length=20, choices=Trigger)
    requested_by = models.CharField("by", max_length=150, blank=True, help_text="The user; empty when nobody asked.")
    outcome = models.CharField(max_length=20, choices=Outcome)
    error_code = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True)

    novita_instances = models.PositiveIntegerField("listed", null=True, help_text="Instances that Novita listed.")
    redis_instances = models.PositiveIntegerField("held before", null=True, help_text="Instances in the copy before.")
    added = models.JSONField(encoder=ReadableEncoder, default=list, help_text='[{"id", "name"}]')
    changed = models.JSONField(
        encoder=ReadableEncoder, default=list, help_text='[{"id", "name", "fields": {"status": [from, to]}}]'
    )
    removed = models.JSONField(encoder=ReadableEncoder, default=list, help_text='[{"id", "name"}]')
    unconfirmed = models.JSONField(
        encoder=ReadableEncoder,
        default=list,
        help_text='[{"id", "name"}]: kept, since Novita did not confirm that they are gone.',
    )
    added_count = models.PositiveIntegerField(default=0)
    changed_count = models.PositiveIntegerField(default=0)
    removed_count = models.PositiveIntegerField(default=0)
    unconfirmed_count = models.PositiveIntegerField(default=0)

    pages = models.PositiveIntegerField(default=0)
    calls = models.PositiveIntegerField(default=0)
    retries = models.PositiveIntegerField(default=0)
    fetch_ms = models.PositiveIntegerField(default=0)
    confirm_ms = models.PositiveIntegerField(default=0)
    publish_ms = models.PositiveIntegerField(default=0)
    duration_ms = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("-started_at", "-pk")

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M:%S} UTC"


class Operation(models.Model):
    """A start, stop or restart of many instances, followed until each is seen to be so."""

    class Kind(models.TextChoices):
        STOP = "stop", "stop"
        START = "start", "start"
        RESTART = "restart", "restart"

    class State(models.TextChoices):
        ASKING = "asking", "asking"
        VERIFYING = "verifying", "verifying"
        FINISHED = "finished", "finished"
        CANCELLED = "cancelled", "cancelled"

    class Source(models.TextChoices):
        NOVITA = "novita", "Novita"
        CACHE = "cache", "the copy"

    RUNNING = (State.ASKING, State.VERIFYING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=10, choices=Kind)
    is_whole_account = models.BooleanField("whole account", help_text="All that may be billed; otherwise a selection.")
    selection = models.CharField(max_length=64, help_text="The same for two calls that want the same.")
    state = models.CharField(max_length=10, choices=State, default=State.ASKING)
    source = models.CharField(
        "targets from", max_length=10, choices=Source, default=Source.NOVITA, help_text="Where the targets were read."
    )
    reason = models.TextField(blank=True)
    requested_by = models.CharField("by", max_length=150, blank=True)
    address = models.CharField(max_length=45, blank=True, help_text="Where the order came from.")
    request_id = models.CharField(max_length=32, blank=True)
    origin = models.CharField(max_length=300, blank=True, help_text="Where links lead: https://panel.example.com")
    created_at = models.DateTimeField("began", default=timezone.now, db_index=True)
    listed_at = models.DateTimeField(null=True, help_text="When the targets were written down.")
    deadline_at = models.DateTimeField(help_text="When the verdict is due.")
    finished_at = models.DateTimeField(null=True, db_index=True)
    success = models.BooleanField(null=True, help_text="Whether every target that was not skipped is confirmed.")
    verdict = models.TextField(blank=True)
    notes = models.JSONField(encoder=ReadableEncoder, default=list, help_text="Sentences on what is not known.")
    retry_of = models.ForeignKey(
        "self", models.SET_NULL, null=True, related_name="retries", help_text="Whose unconfirmed targets it retries."
    )
    superseded_by = models.ForeignKey(
        "self",
        models.SET_NULL,
        null=True,
        related_name="superseded",
        help_text="A later one that covers everything this one left unconfirmed.",
    )

    # Which process moves it on; one that dies lets go by itself.
    claim = models.CharField(max_length=36, blank=True)
    claimed_until = models.DateTimeField(null=True)
    next_round_at = models.DateTimeField(default=timezone.now)
    rounds = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("-created_at", "-pk")
        constraints = [
            # Two people who press at the same moment get one operation.
            models.UniqueConstraint(
                fields=["selection"],
                condition=models.Q(state__in=("asking", "verifying")),
                name="one_running_operation",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.created_at:%Y-%m-%d %H:%M:%S} UTC"


class Target(models.Model):
    """One instance of an operation, and how far it is."""

    class State(models.TextChoices):
        PENDING = "pending", "to be asked"
        ASKED = "asked", "asked"
        CONFIRMED = "confirmed", "confirmed"
        STILL_RUNNING = "stillRunning", "still running"
        FAILED = "failed", "failed"
        SKIPPED = "skipped", "skipped"
        UNKNOWN = "unknown", "unknown"

    OPEN = (State.PENDING, State.ASKED, State.FAILED)
    # Of an operation that has ended.
    UNCONFIRMED = (State.STILL_RUNNING, State.FAILED, State.UNKNOWN)

    operation = models.ForeignKey(Operation, models.CASCADE, related_name="targets")
    instance_id = models.CharField(max_length=128, db_index=True)
    name = models.CharField(max_length=255, blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.PENDING)
    first_status = models.CharField(max_length=64, blank=True, help_text="Novita's status when it became a target.")
    status = models.CharField(max_length=64, blank=True, help_text="Novita's status as last read.")
    seen_at = models.DateTimeField(null=True, help_text="When that read began.")
    attempts = models.PositiveIntegerField(default=0, help_text="How often Novita was asked.")
    asked_at = models.DateTimeField(null=True, help_text="When Novita last took the order.")
    next_ask_at = models.DateTimeField(null=True)
    started_before = models.CharField(max_length=20, blank=True, help_text="Its last start before a restart.")
    confirmed_at = models.DateTimeField(null=True, help_text="When the read began that showed it.")
    error_code = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True, help_text="Why it failed, or was skipped.")

    class Meta:
        ordering = ("operation", "name", "instance_id")
        constraints = [models.UniqueConstraint(fields=["operation", "instance_id"], name="one_target_an_instance")]

    def __str__(self) -> str:
        return self.name or self.instance_id


class Protection(models.Model):
    """An instance that nothing here stops or restarts, until somebody lifts it."""

    instance_id = models.CharField(max_length=128, unique=True)
    name = models.CharField(max_length=255, blank=True)
    reason = models.TextField()
    protected_by = models.CharField("by", max_length=150, blank=True)
    protected_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("name", "instance_id")

    def __str__(self) -> str:
        return self.name or self.instance_id


class WebhookDelivery(models.Model):
    """The one event that an operation's webhook gets, and whether it arrived."""

    class State(models.TextChoices):
        WAITING = "waiting", "waiting for the operation"
        DUE = "due", "to be sent"
        DELIVERED = "delivered", "delivered"
        DEAD = "dead", "given up"

    operation = models.OneToOneField(Operation, models.CASCADE, related_name="webhook")
    message_id = models.CharField(max_length=40, unique=True, help_text="The header webhook-id, the same each time.")
    receiver = models.CharField(max_length=300, help_text="The URL without its path and query, which may be secret.")
    sealed_url = models.TextField(help_text="The URL, encrypted.")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    payload = models.TextField(blank=True, help_text="The body, as it is signed and sent.")
    tries = models.PositiveIntegerField(default=0, help_text="Attempts since it became due, or was sent again by hand.")
    next_attempt_at = models.DateTimeField(null=True, db_index=True)
    created_at = models.DateTimeField("created", default=timezone.now)
    ended_at = models.DateTimeField(null=True, help_text="When it was delivered or given up.")

    class Meta:
        ordering = ("-created_at", "-pk")
        verbose_name_plural = "webhook deliveries"

    def __str__(self) -> str:
        return f"{self.message_id} to {self.receiver}"


class WebhookAttempt(models.Model):
    """One attempt to deliver: what the receiver answered, or why nothing came."""

    delivery = models.ForeignKey(WebhookDelivery, models.CASCADE, related_name="attempts")
    attempted_at = models.DateTimeField(default=timezone.now)
    status = models.PositiveIntegerField("HTTP status", null=True)
    milliseconds = models.PositiveIntegerField()
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("-attempted_at", "-pk")

    def __str__(self) -> str:
        return f"{self.attempted_at:%Y-%m-%d %H:%M:%S} UTC"


class AuditEntry(models.Model):
    """Who or what changed something, or tried to. Made once and never changed."""

    at = models.DateTimeField("when", default=timezone.now, db_index=True)
    actor = models.CharField("who", max_length=150, help_text="A user, a shell's user, or the worker.")
    address = models.CharField(max_length=45, blank=True)
    request_id = models.CharField(max_length=32, blank=True)
    action = models.CharField(max_length=40, db_index=True, help_text="instance.stop, protection.set, cache.clear, …")
    target = models.CharField(max_length=128, blank=True, db_index=True, help_text="An instance's or operation's id.")
    target_name = models.CharField(max_length=255, blank=True)
    reason = models.TextField(blank=True)
    before = models.CharField(max_length=255, blank=True)
    after = models.CharField(max_length=255, blank=True)
    outcome = models.CharField(max_length=40, help_text="done, or the code of the error.")
    error = models.TextField(blank=True)

    class Meta:
        ordering = ("-at", "-pk")
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} UTC {self.action}"


class Token(AbstractAuthToken):  # type: ignore[misc]  # knox has no types
    """A script's way in: hashed, with an end, and a role no higher than its owner's at each use."""

    class Role(models.TextChoices):
        VIEWER = "viewer", "viewer"
        OPERATOR = "operator", "operator"
        ADMIN = "admin", "admin"

    name = models.CharField(max_length=100, help_text="What it is for.")
    role = models.CharField(max_length=10, choices=Role, default=Role.VIEWER)
    last_used_at = models.DateTimeField(null=True, help_text="To the minute.")

    class Meta:
        ordering = ("-created",)

    def __str__(self) -> str:
        return self.name
