"""The access tokens of scripts."""

from django.db import models
from knox.models import AbstractAuthToken

from novita_site.roles import ROLES, Role


class Token(AbstractAuthToken):  # type: ignore[misc]  # knox has no types
    """An access token of a script. Only its hash is stored; its role never exceeds its owner's current role."""

    name = models.CharField(max_length=100, help_text="The purpose of the token.")
    role = models.CharField(max_length=10, choices=[(name, name) for name in ROLES], default=Role.VIEWER.label)
    last_used_at = models.DateTimeField(null=True, help_text="Accurate to the minute.")

    class Meta:
        ordering = ("-created",)

    def __str__(self) -> str:
        return self.name
