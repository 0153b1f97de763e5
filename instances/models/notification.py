"""What a team is told: events, the channels that people subscribed, and each message with its attempts."""

from django.db import models
from django.utils import timezone

from instances.models.fields import ReadableEncoder


class EventKind(models.TextChoices):
    OPERATION_FINISHED = "operation.finished", "an operation succeeded"
    OPERATION_FAILED = "operation.failed", "an operation failed"
    SYNC_FAILING = "sync.failing", "synchronizations fail for 10 minutes"
    SYNC_RECOVERED = "sync.recovered", "synchronizations work again"
    DATA_STALE = "data.stale", "the inventory is stale"
    BALANCE_LOW = "balance.low", "the balance is low"
    POLICY_WARNING = "policy.warning", "a policy warns"
    POLICY_STOP = "policy.stop", "a policy has stopped instances, or could not"
    OUTSIDE_CHANGE = "outside.change", "a change outside the panel"
    SPOT_RECLAIM = "spot.reclaim", "Novita takes a spot instance back"
    DAILY_SUMMARY = "daily.summary", "the summary of a day"
    TEST = "test", "a test"


class Event(models.Model):
    """Something that happened, told once: the same key is told at most once an hour."""

    kind = models.CharField(max_length=30, choices=EventKind)
    key = models.CharField(max_length=200, db_index=True, help_text="Equal for events that say the same.")
    title = models.CharField(max_length=200)
    lines = models.JSONField(encoder=ReadableEncoder, default=list, help_text="The sentences below the title.")
    path = models.CharField(max_length=200, blank=True, help_text="The page that shows it.")
    created_at = models.DateTimeField("when", default=timezone.now, db_index=True)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return self.title


class Channel(models.Model):
    """A webhook that receives events, signed as the webhook of an operation is."""

    name = models.CharField(max_length=100, unique=True)
    receiver = models.CharField(max_length=300, help_text="The URL without path and query, which may be secret.")
    sealed_url = models.TextField(help_text="The URL, encrypted.")
    kinds = models.JSONField(default=list, blank=True, help_text="The events it receives; empty: all.")
    is_on = models.BooleanField("switched on", default=True)
    changed_by = models.CharField("changed by", max_length=150, blank=True)
    changed_at = models.DateTimeField("changed", default=timezone.now)

    class Meta:
        ordering = ("name",)
        verbose_name = "notification channel"

    def __str__(self) -> str:
        return self.name


class Message(models.Model):
    """One event for one channel, and whether it arrived."""

    class State(models.TextChoices):
        DUE = "due", "due"
        SENT = "sent", "sent"
        DEAD = "dead", "given up"

    event = models.ForeignKey(Event, models.CASCADE, related_name="messages")
    channel = models.ForeignKey(Channel, models.CASCADE, null=True, related_name="messages")
    # Without a channel: a service of NOTIFY_URLS, by a name that tells nothing secret.
    service = models.CharField(max_length=60, blank=True)
    message_id = models.CharField(max_length=40, unique=True, help_text="It stays the same in each attempt.")
    state = models.CharField(max_length=10, choices=State, default=State.DUE)
    tries = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, default=timezone.now, db_index=True)
    ended_at = models.DateTimeField(null=True, help_text="When it was sent or given up.")

    class Meta:
        ordering = ("-pk",)
        verbose_name = "notification"

    def __str__(self) -> str:
        return f"{self.event} to {self.receiver}"

    @property
    def receiver(self) -> str:
        """The channel or the service, for people."""
        return str(self.channel or self.service)


class MessageAttempt(models.Model):
    """One attempt to send a message."""

    message = models.ForeignKey(Message, models.CASCADE, related_name="attempts")
    attempted_at = models.DateTimeField(default=timezone.now)
    status = models.PositiveIntegerField("HTTP status", null=True)
    milliseconds = models.PositiveIntegerField()
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("-attempted_at", "-pk")

    def __str__(self) -> str:
        return f"{self.attempted_at:%Y-%m-%d %H:%M:%S} UTC"
