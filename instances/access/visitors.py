"""Authentication: the local owner on loopback, who needs no login; elsewhere a login or a script's token."""

import logging
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import AnonymousUser, User
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import resolve_url
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from knox.auth import TokenAuthentication
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from instances.access.audit import LOCAL_OWNER
from instances.access.limits import BadTokens
from instances.access.proxies import is_local_owner
from instances.fallback import database
from instances.models import Token
from novita_site.middleware import Handler

log = logging.getLogger(__name__)

OWNER_SECONDS = 60
TOKEN_FORM = re.compile(rb"[\w-]{16,128}", re.ASCII)
LAST_USE = timedelta(minutes=1)
_owner: tuple[float, User | None] = (0.0, None)


def get_local_owner() -> User:
    """Return the local owner's account, at most a minute old, because every request needs it."""
    global _owner
    owner = find_known_owner()
    if owner is None:
        owner = _read_local_owner()
        _owner = (time.monotonic(), owner)
    return owner


def find_known_owner() -> User | None:
    """Return the local owner's account if this process read it within the last minute."""
    read_at, owner = _owner
    return owner if time.monotonic() - read_at <= OWNER_SECONDS else None


def _read_local_owner() -> User:
    """Read the account, or create it: a superuser that nobody can log in as.

    The person at the machine is the owner, even if the account was deactivated or demoted. Its row stays as it is, so
    its revoked tokens stay revoked. Without a database this is an unsaved account, and the inventory stays readable.
    """
    try:
        owner, is_new = User.objects.get_or_create(
            username=LOCAL_OWNER,
            # An unusable password: nobody can log in with this account, here or after a move to a network.
            defaults={"is_staff": True, "is_superuser": True, "password": "!"},
        )
    except DatabaseError as exc:
        log.warning("local owner not read from the database", exc_info=exc)
        return User(username=LOCAL_OWNER, is_staff=True, is_superuser=True)
    if is_new:
        log.info("local owner created: no login is needed on loopback")
    owner.is_active = owner.is_staff = owner.is_superuser = True
    return owner


def admit_local_owner(get_response: Handler) -> Handler:
    """Make the visitor the local owner where no login is needed. Runs after Django's own authentication."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if is_local_owner(request):
            request.user = SimpleLazyObject(get_local_owner)  # type: ignore[assignment]  # as Django itself sets it
        return get_response(request)

    return middleware


class PasswordBackend(ModelBackend):
    """Refuses every login as the local owner, even if the account has been given a password."""

    def user_can_authenticate(self, user: User | AnonymousUser | None) -> bool:
        is_owner = user is not None and user.get_username() == LOCAL_OWNER
        return not is_owner and super().user_can_authenticate(user)


class RequireLogin(LoginRequiredMiddleware):
    """Skips views that need no login. Django's own middleware reads the user even there, and a probe must work without
    a database. The API's views authenticate themselves, and answer in their own format.
    """

    def process_view(
        self, request: HttpRequest, view_func: Callable[..., Any], view_args: Any, view_kwargs: Any
    ) -> HttpResponseBase | None:
        if not getattr(view_func, "login_required", True):
            return None
        return super().process_view(request, view_func, view_args, view_kwargs)

    def get_login_url(self, view_func: Callable[..., Any]) -> str:
        """Return the panel's login page. The admin pages would use their own, which has no single sign-on."""
        return resolve_url(settings.LOGIN_URL)


class BearerAuthentication(TokenAuthentication):  # type: ignore[misc]  # knox has no types
    """A script's token. An invalid token is refused, on loopback too."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        self.address = request.META.get("REMOTE_ADDR", "")
        found: tuple[User, Token] | None = super().authenticate(request)
        header = request.META.get("HTTP_AUTHORIZATION", "").strip()
        # Browsers send Basic credentials for a proxy in front here too. Any other header was meant for this panel, and
        # its sender must not become the local owner.
        if found is None and header and not header.lower().startswith("basic "):
            raise AuthenticationFailed
        return found

    def authenticate_credentials(self, token: bytes) -> tuple[User, Token]:
        if not TOKEN_FORM.fullmatch(token):
            # Not looked up: PostgreSQL raises an error for a NUL.
            raise AuthenticationFailed
        bad_tokens = BadTokens(self.address, token)
        bad_tokens.begin()
        user, known = super().authenticate_credentials(token)
        bad_tokens.succeed()
        now = timezone.now()
        is_due = known.last_used_at is None or now - known.last_used_at > LAST_USE
        # A locked database must not delay each request.
        if is_due and not database.find_trouble(max_age_seconds=database.REMEMBERED_SECONDS):
            # Once a minute, so a script that polls doesn't write with each request.
            bad_tokens.remember()
            try:
                Token.objects.filter(pk=known.pk).update(last_used_at=now)
            except DatabaseError as exc:
                log.warning("token %s: last use not recorded", known.name, exc_info=exc)
        return user, known

    def _cleanup_token(self, token: Token) -> bool:
        """Return whether a token has expired. knox also deletes it, which a read-only database would refuse."""
        return token.expiry is not None and token.expiry < timezone.now()


class LocalOwnerAuthentication(BaseAuthentication):
    """The local owner in the API. No CSRF token is needed, since no cookie identifies the owner.

    An old browser may send a session cookie without Origin and Sec-Fetch-Site. `refuse_cross_site` can't judge that
    request, so it needs the CSRF token.
    """

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        if not is_local_owner(request._request):
            return None
        tells_origin = request.headers.keys() & {"Sec-Fetch-Site", "Origin"}
        if settings.SESSION_COOKIE_NAME in request.COOKIES and not tells_origin:
            SessionAuthentication().enforce_csrf(request)
        return request._request.user, None  # type: ignore[return-value]  # a lazy User
