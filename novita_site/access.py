"""Who the visitor is: on loopback the local owner, who needs no login; elsewhere whoever logged in."""

import logging
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import SimpleLazyObject
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from novita_site.env import is_loopback
from novita_site.middleware import Handler

log = logging.getLogger(__name__)

LOCAL_OWNER = "local-owner"
OWNER_SECONDS = 60
# A proxy in front makes everybody's requests come from this machine.
FORWARDING_HEADERS = (
    "Forwarded",
    "Via",
    "X-Real-IP",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Server",
)


_owner: tuple[float, User | None] = (0.0, None)


def is_local_owner(request: HttpRequest) -> bool:
    """Tell whether the request needs no login: open mode, from this machine, through no proxy."""
    return (
        not settings.REQUIRE_LOGIN
        and is_loopback(request.META.get("REMOTE_ADDR", ""))
        and not any(header in request.headers for header in FORWARDING_HEADERS)
    )


def get_local_owner() -> User:
    """Return the local owner's account, as it was a minute ago at most: it is wanted at every request."""
    global _owner
    read_at, owner = _owner
    if owner is None or time.monotonic() - read_at > OWNER_SECONDS:
        owner = _read_local_owner()
        _owner = (time.monotonic(), owner)
    return owner


def _read_local_owner() -> User:
    """Read the account, made at its first need: a superuser whom nobody can log in as.

    While the database can't be asked it is an account that isn't stored, so that the copy stays readable.
    """
    try:
        owner, is_new = User.objects.get_or_create(
            username=LOCAL_OWNER,
            # The mark of an unusable password; nobody can log in by it, here or after a move to a network.
            defaults={"is_staff": True, "is_superuser": True, "password": "!"},
        )
    except DatabaseError as exc:
        log.warning("local owner not read from the database: %s", exc)
        return User(username=LOCAL_OWNER, is_staff=True, is_superuser=True)
    if is_new:
        log.info("local owner made: on loopback nobody logs in")
    return owner


def admit_local_owner(get_response: Handler) -> Handler:
    """Make the visitor the local owner where nobody logs in. Comes after Django's own authentication."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if is_local_owner(request):
            request.user = SimpleLazyObject(get_local_owner)  # type: ignore[assignment]  # as Django itself sets it
        return get_response(request)

    return middleware


class RequireLogin(LoginRequiredMiddleware):
    """Leaves alone what wants no login: Django's own asks who the visitor is all the same, and a probe must not need a
    database. The API's views are such too: they ask themselves, and answer in their own form.
    """

    def process_view(
        self, request: HttpRequest, view_func: Callable[..., Any], view_args: Any, view_kwargs: Any
    ) -> HttpResponseBase | None:
        if not getattr(view_func, "login_required", True):
            return None
        return super().process_view(request, view_func, view_args, view_kwargs)


class LocalOwnerAuthentication(BaseAuthentication):
    """The API's view of the local owner: no CSRF token wanted, since no cookie says who it is."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        return (request._request.user, None) if is_local_owner(request._request) else None  # type: ignore[return-value]  # a lazy User
