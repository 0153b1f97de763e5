"""Creates the tokens of scripts."""

from datetime import timedelta

from django.contrib.auth.models import User

from instances.access import audit
from instances.access.audit import Actor
from instances.models import Action, Token

DEFAULT_DAYS = 90
MAX_DAYS = 3650


def create_token(user: User, name: str, role: str, days: int, *, actor: Actor) -> tuple[Token, str]:
    """Create a token for a user. Returns the record and the token's text, which is stored nowhere."""
    with audit.recorded(
        actor, Action.CREATE_TOKEN, user.get_username(), target_name=name, after=f"{role}, {days} days"
    ):
        token, text = Token.objects.create(user=user, expiry=timedelta(days=days), name=name, role=role)
    return token, text
