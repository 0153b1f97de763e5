"""Single sign-on by OpenID Connect, on mozilla-django-oidc. The provider decides identity and role at each login.

An account belongs to the provider's `sub` and to nothing else: equal names or e-mail addresses prove nothing.
"""

import logging
import re
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import requests
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from mozilla_django_oidc.auth import OIDCAuthenticationBackend
from mozilla_django_oidc.views import OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView
from requests.auth import HTTPBasicAuth

from instances.access import audit
from instances.access.audit import RESERVED_NAMES
from instances.access.limits import begin_single_sign_on, count_failed_login
from instances.answers import lock_out
from instances.errors import NotAllowed, NotAuthenticated
from instances.models import Action, Identity
from instances.outgoing import egress
from instances.outgoing.deadline import Budget
from novita_site.env import is_loopback
from novita_site.roles import ROLES, Role

log = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 5
# For one whole call: a provider may send its answer byte by byte.
DEADLINE_SECONDS: Final = 10
CLOCK_SKEW_SECONDS: Final = 30
STATE_SECONDS: Final = 600
# How many names a first login tries, when others take them at the same moment.
MAX_FIRST_LOGINS: Final = 5
# Signatures with the provider's private key only. HS256 signs with the client's secret, which this panel has too.
ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}", re.ASCII)


class InvalidProvider(Exception):
    """The provider's answer can't be trusted. The text says why, for the log and the audit."""


class RefusedPerson(Exception):
    """The provider's answer is valid, and the person still may not log in."""

    def __init__(self, message: str, *, code: str, reason: str, name: str = "") -> None:
        self.message, self.code, self.reason, self.name = message, code, reason, name


# --- The two views


def _make_view(get_answer: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Make a view of one half of the login: limit its calls, and answer its failures with a page."""

    @login_not_required
    @require_GET
    @never_cache
    @wraps(get_answer)
    def view(request: HttpRequest) -> HttpResponse:
        if wait_seconds := begin_single_sign_on(request.META.get("REMOTE_ADDR", "")):
            return lock_out(request, wait_seconds)
        try:
            return get_answer(request)
        except RefusedPerson as exc:
            _record(request, exc.name, exc.code, exc.reason)
            return _answer(request, HTTPStatus.FORBIDDEN, exc.message)
        except (requests.RequestException, InvalidProvider) as exc:
            return _answer_failure(request, exc)

    return view


@_make_view
def begin(request: HttpRequest) -> HttpResponse:
    """Redirect the visitor to the provider. The login page has a link for it, since form-action stops a form there."""
    if request.user.is_authenticated:
        return redirect(settings.LOGIN_REDIRECT_URL)
    # An abandoned login leaves a session for ten minutes, not for a day.
    request.session.set_expiry(STATE_SECONDS)
    answer: HttpResponse = _BeginView.as_view()(request)
    return answer


@_make_view
def finish(request: HttpRequest) -> HttpResponse:
    """Log in the visitor whom the provider has sent back."""
    states, state = request.session.get("oidc_states", {}), request.GET.get("state")
    if state not in states:
        log.warning("single sign-on refused: the state is not this session's", extra={"rejection": "sso-state"})
        message = "This login was not started in this browser, or more than ten minutes ago. Start again."
        return _answer(request, HTTPStatus.BAD_REQUEST, message)
    if request.GET.get("code") and not request.GET.get("error"):
        answer: HttpResponse = _FinishView.as_view()(request)
        return answer
    # The library would log the visitor out, and any page can link here.
    del states[state]
    request.session.modified = True
    error = request.GET.get("error", "")
    if error == "access_denied":
        message = "The login service refused this login, or you cancelled it there."
        raise RefusedPerson(message, code=NotAuthenticated.code, reason="Refused or cancelled at the provider.")
    raise InvalidProvider(f"it returned the error {error}" if ERROR_CODE.fullmatch(error) else "it returned no code")


class _BeginView(OIDCAuthenticationRequestView):  # type: ignore[misc]  # mozilla-django-oidc has no types
    def __init__(self, **options: Any) -> None:
        """Read the endpoint from the provider's description. The library has no discovery."""
        self.OIDC_OP_AUTH_ENDPOINT = _read_description()["authorization_endpoint"]
        self.OIDC_RP_CLIENT_ID = settings.OIDC_CLIENT_ID


class _FinishView(OIDCAuthenticationCallbackView):  # type: ignore[misc]  # likewise
    def login_success(self) -> HttpResponse:
        """Log in with the backend that closes the sessions of inactive users. The library's backend doesn't."""
        self.request.session.set_expiry(None)
        login(self.request, self.user, backend=settings.AUTHENTICATION_BACKENDS[0])
        return redirect(self.success_url)


# --- What the provider says


class Backend(OIDCAuthenticationBackend):  # type: ignore[misc]  # likewise
    """Reads the provider's answer. The library checks neither issuer nor audience nor expiry; `verify_token` does."""

    def __init__(self) -> None:
        """Read no settings: password logins construct this backend too, and must not call the provider."""

    def authenticate(self, request: HttpRequest, nonce: str = "", code_verifier: str = "", **other: Any) -> User | None:
        # Without a nonce this is a password login. The library would accept a code in its URL, with no state checked.
        if not nonce:
            return None
        self.description = _read_description()
        self.OIDC_RP_CLIENT_ID, self.OIDC_RP_CLIENT_SECRET = settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET
        user: User | None = super().authenticate(request, nonce=nonce, code_verifier=code_verifier)
        return user

    def get_token(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Exchange the code for an ID token and an access token."""
        auth = None
        # The default of the specification for a description without this field.
        if "client_secret_basic" in self.description.get(
            "token_endpoint_auth_methods_supported", ["client_secret_basic"]
        ):
            auth = HTTPBasicAuth(payload.pop("client_id"), payload.pop("client_secret"))
        answer = _call("POST", self.description["token_endpoint"], data=payload, auth=auth)
        body = _read_object(answer)
        if not answer.ok:
            error = str(body.get("error"))
            raise InvalidProvider(
                f"the code was not taken: {error if ERROR_CODE.fullmatch(error) else 'no reason given'}"
            )
        if not all(isinstance(body.get(name), str) for name in ("access_token", "id_token")):
            raise InvalidProvider("its answer to the code holds no ID token")
        return body

    def verify_token(self, token: str, nonce: str = "", **options: Any) -> dict[str, Any]:
        """Return the claims of an ID token that was made by this provider, for this client, for this login, and now."""
        try:
            claims = jwt.decode(
                token,
                _find_key(_ask(self.description["jwks_uri"]), jwt.get_unverified_header(token)),
                algorithms=ALGORITHMS,
                audience=settings.OIDC_CLIENT_ID,
                issuer=self.description["issuer"],
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as exc:
            raise InvalidProvider(f"its ID token is invalid: {type(exc).__name__}") from exc
        if claims.get("azp", settings.OIDC_CLIENT_ID) != settings.OIDC_CLIENT_ID:
            raise InvalidProvider("its ID token was made for another client")
        if not constant_time_compare(str(claims.get("nonce")), nonce):
            raise InvalidProvider("its ID token was made for another login")
        if not re.fullmatch(r"[!-~]{1,191}", str(claims["sub"])):
            raise InvalidProvider("its `sub` has an invalid form")
        return claims

    def get_or_create_user(self, access_token: str, id_token: str, payload: dict[str, Any]) -> User:
        claims = self._add_user_information(payload, access_token)
        role = _choose_role(claims)
        known = Identity.objects.filter(issuer=settings.OIDC_ISSUER, sub=claims["sub"]).select_related("user").first()
        if known:
            _set_role(self.request, known.user, role)
        if not role:
            # The name that a stranger gives may belong to another user here.
            name = known.user.get_username() if known else f"sub {claims['sub']}"
            reason = f"The claim {settings.OIDC_ROLE_CLAIM} matches none of OIDC_ROLES."
            message = "Your account at the login service gives you no role here. Ask an admin for one."
            raise RefusedPerson(message, code=NotAllowed.code, reason=reason, name=name)
        if not known:
            return self._create_user(claims, role)
        if not known.user.is_active:
            message, reason = "Your account here is not active. Ask an admin.", "The account is not active."
            raise RefusedPerson(message, code=NotAuthenticated.code, reason=reason, name=known.user.get_username())
        return known.user

    def _add_user_information(self, claims: dict[str, Any], access_token: str) -> dict[str, Any]:
        url = self.description.get("userinfo_endpoint")
        if not url:
            return claims
        url = _check_url("userinfo_endpoint", url)
        information = _ask(url, headers={"Authorization": f"Bearer {access_token}"})
        if information.get("sub") != claims["sub"]:
            raise InvalidProvider("its user information is about another person")
        return {**information, **claims}

    def _create_user(self, claims: dict[str, Any], role: Role) -> User:
        """Store what an account needs. The other claims are personal, and are dropped."""
        email = _read_email(claims)
        wanted = str(claims.get("preferred_username") or "") or email.partition("@")[0]
        for _ in range(MAX_FIRST_LOGINS):
            user = User(username=_find_free_name(wanted), email=email)
            user.set_unusable_password()
            try:
                with transaction.atomic():
                    user.save()
                    Identity.objects.create(issuer=settings.OIDC_ISSUER, sub=claims["sub"], user=user)
            except IntegrityError:
                # Another first login came in between: of this person in another tab, or of one with the same name.
                if same := Identity.objects.filter(issuer=settings.OIDC_ISSUER, sub=claims["sub"]).first():
                    _set_role(self.request, same.user, role)
                    return same.user
                continue
            _set_role(self.request, user, role, Action.ADD_USER)
            return user
        raise InvalidProvider("too many first logins at the same time")


def _read_description() -> dict[str, Any]:
    config = _ask(f"{settings.OIDC_ISSUER}/.well-known/openid-configuration")
    if str(config.get("issuer")).rstrip("/") != settings.OIDC_ISSUER:
        raise InvalidProvider("its description names another issuer than OIDC_ISSUER")
    for name in ENDPOINTS:
        _check_url(name, config.get(name))
    return config


def _check_url(name: str, url: object) -> str:
    """Return a URL that may receive a secret: https, or on this machine. Raises InvalidProvider for others."""
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if not (parts.scheme == "https" and parts.hostname) and not (
        parts.scheme == "http" and is_loopback(parts.hostname or "")
    ):
        raise InvalidProvider(f"its {name} is not an https address")
    return str(url)


def _ask(url: str, **options: Any) -> dict[str, Any]:
    answer = _call("GET", url, **options)
    answer.raise_for_status()
    return _read_object(answer)


def _call(method: str, url: str, **options: Any) -> requests.Response:
    with requests.Session() as session, Budget(DEADLINE_SECONDS).attempt(DEADLINE_SECONDS) as attempt:
        egress.prepare(session)
        # No redirects: the secret goes only to the addresses that were checked.
        answer = session.request(method, url, timeout=TIMEOUT_SECONDS, allow_redirects=False, **options)
    if attempt.is_cut:
        # A response that was cut in the middle can look complete.
        raise requests.Timeout
    return answer


def _read_object(answer: requests.Response) -> dict[str, Any]:
    body = answer.json()
    if not isinstance(body, dict):
        raise InvalidProvider("its answer is not a JSON object")
    return body


def _find_key(keys: dict[str, Any], header: dict[str, Any]) -> jwt.PyJWK:
    """Return the key that the ID token names. A token without a key id is signed by the provider's only key."""
    known = jwt.PyJWKSet.from_dict(keys).keys
    found = [key for key in known if key.key_id == header.get("kid")] if "kid" in header else known
    if len(found) != 1:
        raise InvalidProvider("its ID token is signed by an unknown key")
    return found[0]


def _choose_role(claims: dict[str, Any]) -> Role:
    """Return the highest role that OIDC_ROLES gives to the claim, which is a name or a list of names."""
    value = claims.get(settings.OIDC_ROLE_CLAIM)
    names = value if isinstance(value, list) else [value]
    labels = [settings.OIDC_ROLES.get(name, "") for name in names if isinstance(name, str)]
    return max((ROLES.get(label, Role.NONE) for label in labels), default=Role.NONE)


def _read_email(claims: dict[str, Any]) -> str:
    email = str(claims.get("email") or "")
    try:
        validate_email(email)
    except ValidationError:
        return ""
    return email if len(email) <= 254 else ""


def _find_free_name(wanted: str) -> str:
    """Return the wanted name, with a number when another user has it."""
    wanted = re.sub(r"[^A-Za-z0-9_.@+-]", "", wanted)[:140] or "user"
    name, number = wanted, 1
    while name.lower() in RESERVED_NAMES or User.objects.filter(username__iexact=name).exists():
        number += 1
        name = f"{wanted}-{number}"
    return name


def _set_role(request: HttpRequest, user: User, role: Role, action: Action = Action.CHANGE_USER) -> None:
    """Give a user this role and no other. Groups that are no roles, and the superuser flag, stay as they are."""
    before = sorted(user.groups.filter(name__in=ROLES).values_list("name", flat=True))
    after = [role.label] if role else []
    if before == after:
        return
    with transaction.atomic():  # No request in between finds the user without a role.
        user.groups.remove(*Group.objects.filter(name__in=ROLES))
        if role:
            user.groups.add(Group.objects.get_or_create(name=role.label)[0])
    entry = audit.make_entry(audit.get_visitor(request, user.get_username()), action, user.get_username())
    entry.before, entry.after, entry.reason = ", ".join(before), ", ".join(after), "single sign-on"
    audit.save([entry])


# --- Refusals


def _answer_failure(request: HttpRequest, exc: Exception) -> HttpResponse:
    """Answer a login that the provider made impossible. No text of the provider reaches the log or the page."""
    reason = str(exc) if isinstance(exc, InvalidProvider) else type(exc).__name__
    if isinstance(exc, requests.RequestException):
        url = (exc.request.url if exc.request else "") or settings.OIDC_ISSUER
        reason = " ".join(egress.explain(exc, url) or (f"{reason}{egress.name_way(url)}",))
    log.warning("single sign-on failed: %s: %s", settings.OIDC_ISSUER, reason, extra={"rejection": "sso"})
    if count_failed_login(request.META.get("REMOTE_ADDR", "")):
        _record(request, "", "SSO_FAILED", f"{settings.OIDC_ISSUER}: {reason}")
    message = "The login service can't be reached, or its answer can't be trusted. Try again in a minute."
    return _answer(request, HTTPStatus.BAD_GATEWAY, message)


def _record(request: HttpRequest, name: str, code: str, reason: str) -> None:
    entry = audit.make_entry(audit.get_visitor(request, name), Action.LOGIN, error=reason, reason="single sign-on")
    entry.outcome = code
    audit.save([entry])


def _answer(request: HttpRequest, status: HTTPStatus, message: str) -> HttpResponse:
    context = {"message": message, "site_header": admin.site.site_header}
    return render(request, "registration/sso_refused.html", context, status=status)
