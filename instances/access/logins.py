"""The record of logins, logouts and failed logins."""

import logging
from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest

from instances.access import audit, limits
from instances.errors import NotAuthenticated
from instances.models import Action

log = logging.getLogger(__name__)


@receiver(user_logged_in)
def record_login(request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    audit.save([audit.make_entry(audit.get_visitor(request, user.get_username()), Action.LOGIN)])


@receiver(user_logged_out)
def record_logout(request: HttpRequest | None, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        audit.save([audit.make_entry(audit.get_visitor(request, user.get_username()), Action.LOGOUT)])


@receiver(user_login_failed)
def record_failed_login(
    credentials: dict[str, Any],
    request: HttpRequest | None = None,
    code: str = NotAuthenticated.code,
    **kwargs: Any,
) -> None:
    """Record a failure, at most one per minute and client: strangers must not be able to fill the database.

    `code` is the reason: a wrong password, or too many attempts.
    """
    visitor = audit.get_visitor(request, str(credentials.get("username", "")))
    log.warning("login from %s failed: %s", visitor.address, code, extra={"rejection": "login"})
    if count := limits.count_failed_login(visitor.address):
        entry = audit.make_entry(visitor, Action.LOGIN, error=f"Failed login {count} from this address within a day.")
        entry.outcome = code
        audit.save([entry])
