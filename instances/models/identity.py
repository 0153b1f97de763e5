"""Which user an account at the identity provider logs in as."""

from django.conf import settings
from django.db import models


class Identity(models.Model):
    """One account at the identity provider. `sub` is unique per issuer only, so the issuer is half of the name."""

    issuer = models.CharField(max_length=500)
    sub = models.CharField(max_length=255)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)

    class Meta:
        verbose_name_plural = "identities"
        constraints = [models.UniqueConstraint(fields=("issuer", "sub"), name="one_user_per_identity")]

    def __str__(self) -> str:
        return f"{self.sub} at {self.issuer}"
