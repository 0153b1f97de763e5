"""Times in which nothing is started."""

from django.db import models
from django.utils import timezone


class StartFreeze(models.Model):
    """From `frozen_at` on, the panel starts and restarts nothing, until `ends_at` or until somebody removes the freeze.

    A new freeze removes an earlier one. Freezes that have ended stay as records.
    """

    frozen_at = models.DateTimeField("since", default=timezone.now)
    frozen_by = models.CharField("frozen by", max_length=150, blank=True)
    reason = models.TextField()
    ends_at = models.DateTimeField("ends", null=True, help_text="Empty: until somebody removes the freeze.")
    removed_at = models.DateTimeField("removed", null=True, help_text="Also set when a new freeze replaces this one.")
    removed_by = models.CharField("removed by", max_length=150, blank=True)

    class Meta:
        ordering = ("-frozen_at", "-pk")
        verbose_name = "start freeze"

    def __str__(self) -> str:
        return f"freeze of {self.frozen_at:%Y-%m-%d %H:%M:%S} UTC"

    @classmethod
    def list_in_force(cls) -> "models.QuerySet[StartFreeze]":
        has_not_ended = models.Q(ends_at=None) | models.Q(ends_at__gt=timezone.now())
        return cls.objects.filter(has_not_ended, removed_at=None)
