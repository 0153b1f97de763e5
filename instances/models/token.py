"""The token of a script."""

from django.db import models
from knox.models import AbstractAuthToken


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
