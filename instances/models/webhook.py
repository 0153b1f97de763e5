"""The webhook of an operation, and each attempt to deliver it."""

from django.db import models
from django.utils import timezone

from instances.models.operation import Operation


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
