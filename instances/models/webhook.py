"""An operation's webhook, and each attempt to deliver it."""

from django.db import models
from django.utils import timezone

from instances.models.operation import Operation


class WebhookDelivery(models.Model):
    """The one event of an operation's webhook, and whether it arrived."""

    class State(models.TextChoices):
        WAITING = "waiting", "waiting for the result"
        DUE = "due", "due"
        DELIVERED = "delivered", "delivered"
        DEAD = "dead", "given up"

    operation = models.OneToOneField(Operation, models.CASCADE, related_name="webhook")
    message_id = models.CharField(
        max_length=40, unique=True, help_text="The header webhook-id. It stays the same in each attempt."
    )
    receiver = models.CharField(max_length=300, help_text="The URL without path and query, which may be secret.")
    sealed_url = models.TextField(help_text="The URL, encrypted.")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    payload = models.TextField(blank=True, help_text="The body that is signed and sent.")
    tries = models.PositiveIntegerField(
        default=0, help_text="Attempts since the delivery became due or was sent again."
    )
    next_attempt_at = models.DateTimeField(null=True, db_index=True)
    created_at = models.DateTimeField("created", default=timezone.now, db_index=True)
    ended_at = models.DateTimeField(null=True, help_text="When the event was delivered or given up.")

    class Meta:
        ordering = ("-created_at", "-pk")
        verbose_name_plural = "webhook deliveries"

    def __str__(self) -> str:
        return f"{self.message_id} to {self.receiver}"


class WebhookAttempt(models.Model):
    """One attempt to deliver: the receiver's answer, or the reason why none came."""

    delivery = models.ForeignKey(WebhookDelivery, models.CASCADE, related_name="attempts")
    attempted_at = models.DateTimeField(default=timezone.now)
    status = models.PositiveIntegerField("HTTP status", null=True)
    milliseconds = models.PositiveIntegerField()
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("-attempted_at", "-pk")

    def __str__(self) -> str:
        return f"{self.attempted_at:%Y-%m-%d %H:%M:%S} UTC"
