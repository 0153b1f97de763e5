"""The record of logins, logouts and failed logins."""

import logging
from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest

from instances.access import audit, limits
from instances.access.audit import Actor
from instances.answers import find_request_id
from instances.errors import NotAuthenticated
from instances.models import Action

log = logging.getLogger(__name__)


def _make_visitor(request: HttpRequest | None, name: str) -> Actor:
    if request is None:
        return Actor(name)
    return Actor(name, request.META.get("REMOTE_ADDR", ""), find_request_id(request) or "")


@receiver(user_logged_in)
def record_login(request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    audit.save([audit.make_entry(_make_visitor(request, user.get_username()), Action.LOGIN)])


@receiver(user_logged_out)
def record_logout(request: HttpRequest | None, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        audit.save([audit.make_entry(_make_visitor(request, user.get_username()), Action.LOGOUT)])


@receiver(user_login_failed)
def record_failed_login(
    credentials: dict[str, Any],
    request: HttpRequest | None = None,
    code: str = NotAuthenticated.code,
    **kwargs: Any,
) -> None:
    """Write a failure down, one a minute of each client: what a stranger sends must not fill the database.

    `code` tells why it failed: for its password, or for the number of attempts before it.
    """
    visitor = _make_visitor(request, str(credentials.get("username", "")))
    log.warning("login from %s failed: %s", visitor.address, code, extra={"rejection": "login"})
    if count := limits.count_failed_login(visitor.address):
        entry = audit.make_entry(visitor, Action.LOGIN, error=f"Failed login {count} from this address within a day.")
        entry.outcome = code
        audit.save([entry])
