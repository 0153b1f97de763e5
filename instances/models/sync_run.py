"""The changes of a synchronization, or the reason for its failure."""

from django.db import models

from instances.models.fields import ReadableEncoder, WordsField


class OutsideChange(models.TextChoices):
    """A change that nobody requested here."""

    CREATED = "created", "created"
    STARTED = "started", "started"
    STOPPED = "stopped", "stopped"
    RESTARTED = "restarted", "restarted"
    DELETED = "deleted", "deleted"


class SyncRun(models.Model):
    """One finished synchronization. Created once and never changed."""

    class Trigger(models.TextChoices):
        STARTUP = "startup", "startup"
        INTERVAL = "interval", "interval"
        API = "api", "API"
        COMMAND = "command", "command"
        ADMIN = "admin", "admin"

    class Outcome(models.TextChoices):
        SUCCEEDED = "succeeded", "succeeded"
        FAILED = "failed", "failed"

    started_at = models.DateTimeField("started", db_index=True)
    trigger = models.CharField(max_length=20, choices=Trigger)
    requested_by = models.CharField(
        "requested by", max_length=150, blank=True, help_text="Empty for automatic synchronizations."
    )
    outcome = models.CharField(max_length=20, choices=Outcome)
    error_code = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True)

    novita_instances = models.PositiveIntegerField("listed", null=True, help_text="Instances that Novita listed.")
    redis_instances = models.PositiveIntegerField(
        "listed before", null=True, help_text="Instances in the inventory before."
    )
    added = models.JSONField(encoder=ReadableEncoder, default=list, help_text='[{"id", "name"}]')
    changed = models.JSONField(
        encoder=ReadableEncoder, default=list, help_text='[{"id", "name", "fields": {"status": [from, to]}}]'
    )
    removed = models.JSONField(encoder=ReadableEncoder, default=list, help_text='[{"id", "name"}]')
    unconfirmed = models.JSONField(
        encoder=ReadableEncoder,
        default=list,
        help_text='[{"id", "name"}]: kept, because Novita did not confirm their removal.',
    )
    outside = models.JSONField(
        encoder=ReadableEncoder,
        default=list,
        help_text='[{"id", "name", "change"}]: made outside this panel; nobody requested it here.',
    )
    words = WordsField(of=("added", "changed", "removed"))
    added_count = models.PositiveIntegerField(default=0)
    changed_count = models.PositiveIntegerField(default=0)
    removed_count = models.PositiveIntegerField(default=0)
    unconfirmed_count = models.PositiveIntegerField(default=0)
    outside_count = models.PositiveIntegerField("changed outside the panel", default=0)

    pages = models.PositiveIntegerField(default=0)
    calls = models.PositiveIntegerField(default=0)
    retries = models.PositiveIntegerField(default=0)
    fetch_ms = models.PositiveIntegerField(default=0)
    confirm_ms = models.PositiveIntegerField(default=0)
    publish_ms = models.PositiveIntegerField(default=0)
    duration_ms = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ("-started_at", "-pk")
        indexes = [
            models.Index(fields=["started_at"], condition=models.Q(outside_count__gt=0), name="outside_runs"),
            models.Index(fields=["requested_by", "-started_at"], name="runs_of_an_actor"),
        ]
        verbose_name = "synchronization"
        verbose_name_plural = "sync history"

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M:%S} UTC"
