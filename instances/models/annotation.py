"""Who an instance belongs to: set by hand for one instance, or by rules for names."""

from django.db import models
from django.utils import timezone

MAX_LABEL_LENGTH = 100


class Annotation(models.Model):
    """Owner, project and note of one instance, set by hand. Owner and project replace those of the rules."""

    instance_id = models.CharField(max_length=128, unique=True)
    name = models.CharField(max_length=255, blank=True, help_text="The instance's name when it was annotated.")
    owner = models.CharField(max_length=MAX_LABEL_LENGTH, blank=True)
    project = models.CharField(max_length=MAX_LABEL_LENGTH, blank=True)
    note = models.TextField(blank=True, max_length=1000)
    changed_by = models.CharField("changed by", max_length=150, blank=True)
    changed_at = models.DateTimeField("changed", default=timezone.now)

    class Meta:
        ordering = ("name", "instance_id")

    def __str__(self) -> str:
        return self.name or self.instance_id


class LabelRule(models.Model):
    """Owner and project of all instances whose names match. The first rule that matches counts."""

    position = models.PositiveIntegerField(default=10, help_text="Rules are tried in this order, the lowest first.")
    pattern = models.CharField(
        max_length=255,
        help_text="The whole name; * stands for any characters, ? for one, and case is ignored: train-*",
    )
    owner = models.CharField(max_length=MAX_LABEL_LENGTH, blank=True)
    project = models.CharField(max_length=MAX_LABEL_LENGTH, blank=True)

    class Meta:
        ordering = ("position", "pk")
        verbose_name = "owner rule"

    def __str__(self) -> str:
        return self.pattern
