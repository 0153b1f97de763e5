"""The token of a script."""

from django.db import models
from knox.models import AbstractAuthToken

from instances.role import ROLES, Role


class Token(AbstractAuthToken):  # type: ignore[misc]  # knox has no types
    """A script's way in: hashed, with an end, and a role no higher than its owner's at each use."""

    name = models.CharField(max_length=100, help_text="What it is for.")
    role = models.CharField(max_length=10, choices=[(name, name) for name in ROLES], default=Role.VIEWER.label)
    last_used_at = models.DateTimeField(null=True, help_text="To the minute.")

    class Meta:
        ordering = ("-created",)

    def __str__(self) -> str:
        return self.name
