"""Protected instances, which the panel doesn't stop or restart."""

from django.db import models
from django.utils import timezone


class Protection(models.Model):
    """An instance that the panel doesn't stop or restart until the protection is removed."""

    instance_id = models.CharField(max_length=128, unique=True)
    name = models.CharField(max_length=255, blank=True)
    reason = models.TextField()
    protected_by = models.CharField("protected by", max_length=150, blank=True)
    protected_at = models.DateTimeField("since", default=timezone.now)

    class Meta:
        ordering = ("name", "instance_id")

    def __str__(self) -> str:
        return self.name or self.instance_id
