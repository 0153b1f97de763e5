"""Single sign-on by OpenID Connect, on allauth: who somebody is and which role he has, the provider says at each login.

An account belongs to the provider's `sub` and to nothing else: a name or an e-mail address that looks like somebody's
proves nothing. Only the two views here are reachable, none of allauth's own. Imported only when it is on.
"""

import logging
import re
import secrets
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import jwt
import requests
from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter, get_adapter
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialLogin, SocialToken
from allauth.socialaccount.providers.base import AuthError, AuthProcess, ProviderException
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.apps import apps
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
from django.urls import reverse
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from instances.access import audit
from instances.access.audit import RESERVED_NAMES, Actor
from instances.access.limits import begin_single_sign_on, count_failed_login
from instances.access.roles import ROLES, Role
from instances.answers import find_request_id, lock_out
from instances.errors import NotAllowed, NotAuthenticated
from instances.outgoing import egress
from instances.outgoing.deadline import Budget
from novita_site.env import is_loopback

log = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 5
# For one call to the provider in all, which may drip.
DEADLINE_SECONDS: Final = 10
CLOCK_SKEW_SECONDS: Final = 30
STATE_SECONDS: Final = 600
# Signatures by the provider's own key; with HS256 everybody who knows the client's secret could make an ID token.
ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")

# allauth's own admin pages would show tokens and secrets, and bind an account to somebody else's `sub`.
for _label in ("account", "socialaccount"):
    for _model in apps.get_app_config(_label).get_models():
        if admin.site.is_registered(_model):
            admin.site.unregister(_model)


# --- The two views


@login_not_required
@require_GET
@never_cache
def begin(request: HttpRequest) -> HttpResponse:
    """Lead the visitor to the provider. A link and no form: the policy's form-action would stop a form's redirect."""
    if wait_seconds := begin_single_sign_on(request.META.get("REMOTE_ADDR", "")):
        return lock_out(request, wait_seconds)
    if request.user.is_authenticated:
        return redirect(settings.LOGIN_REDIRECT_URL)
    # Whoever never comes back leaves a session for ten minutes, not for a day.
    request.session.set_expiry(STATE_SECONDS)
    state = secrets.token_urlsafe(32)
    answer: HttpResponse = (
        get_adapter()
        .get_provider(request, settings.OIDC_ISSUER)
        .redirect(
            request,
            AuthProcess.LOGIN,
            next_url=_find_next(request),
            state_id=state,
            auth_params={"nonce": _make_nonce(state)},
        )
    )
    return answer


@login_not_required
@require_GET
@never_cache
def finish(request: HttpRequest) -> HttpResponse:
    """Take what the provider sent the visitor back with."""
    if wait_seconds := begin_single_sign_on(request.META.get("REMOTE_ADDR", "")):
        return lock_out(request, wait_seconds)
    answer: HttpResponse = OAuth2CallbackView.adapter_view(Endpoint(request, settings.OIDC_ISSUER))(request)
    return answer


def _find_next(request: HttpRequest) -> str | None:
    """Return the page to go to after the login; None when the one asked for is not ours."""
    url = request.GET.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())
    return url if is_ours else None


def _make_nonce(state: str) -> str:
    """Return the nonce of a login: it hangs on the state, which the session keeps and which counts once."""
    return salted_hmac("instances.access.sso.nonce", state, algorithm="sha256").hexdigest()


# --- What the provider says


class Endpoint(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]  # allauth has no types
    """The provider over HTTP. An ID token is believed if its signature, issuer, audience, time and login are right."""

    @property
    def openid_config(self) -> dict[str, Any]:
        """The provider's description of itself. Asked for outside of allauth's own catching of errors."""
        if not hasattr(self, "_openid_config"):
            try:
                self._openid_config = _read_description()
            except (requests.RequestException, ProviderException) as exc:
                _fail(self.request, exc)
        return self._openid_config

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        return request.build_absolute_uri(reverse("sso_callback"))

    def get_access_token_data(self, *args: Any, **options: Any) -> dict[str, Any]:
        try:
            answer = super().get_access_token_data(*args, **options)
        except OAuth2Error as exc:
            # Its text is the provider's whole answer.
            code = re.search(r'"error": ?"([a-z_]{1,40})"', str(exc))
            raise ProviderException(f"the code was not taken: {code[1] if code else 'no reason given'}") from None
        if not isinstance(answer, dict) or not all(
            isinstance(answer.get(k), str) for k in ("access_token", "id_token")
        ):
            raise ProviderException("its answer to the code holds no ID token")
        # The rest, like a refresh token, has no use here.
        return {name: answer[name] for name in ("access_token", "id_token")}

    def complete_login(self, request: HttpRequest, app: SocialApp, token: SocialToken, **options: Any) -> SocialLogin:
        claims = self._read_id_token(options["response"]["id_token"], _make_nonce(request.GET["state"]))
        if url := self.openid_config.get("userinfo_endpoint"):
            info = _ask(_check_url("userinfo_endpoint", url), headers={"Authorization": f"Bearer {token.token}"})
            if info.get("sub") != claims["sub"]:
                raise ProviderException("its user information is about somebody else")
            claims = {**info, **claims}
        return self.get_provider().sociallogin_from_response(request, claims)

    def _read_id_token(self, text: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token that was made by this provider, for this client, for this login, and now."""
        try:
            claims = jwt.decode(
                text,
                _find_key(_ask(self.openid_config["jwks_uri"]), jwt.get_unverified_header(text)),
                algorithms=ALGORITHMS,
                audience=settings.OIDC_CLIENT_ID,
                issuer=self.openid_config["issuer"],
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as exc:
            raise ProviderException(f"its ID token is not good: {type(exc).__name__}") from exc
        if claims.get("azp", settings.OIDC_CLIENT_ID) != settings.OIDC_CLIENT_ID:
            raise ProviderException("its ID token was made for another client")
        if not constant_time_compare(str(claims.get("nonce")), nonce):
            raise ProviderException("its ID token was made for another login")
        if not re.fullmatch(r"[!-~]{1,191}", str(claims["sub"])):
            raise ProviderException("its `sub` can't be kept")
        return claims


def _read_description() -> dict[str, Any]:
    config = _ask(f"{settings.OIDC_ISSUER}/.well-known/openid-configuration")
    if str(config.get("issuer")).rstrip("/") != settings.OIDC_ISSUER:
        raise ProviderException("it calls itself by another name than OIDC_ISSUER")
    for name in ENDPOINTS:
        _check_url(name, config.get(name))
    # What holds, by the specification, where nothing is said.
    return {"token_endpoint_auth_methods_supported": ["client_secret_basic"], **config}


def _check_url(name: str, url: object) -> str:
    """Return an address that a secret may go to: over TLS, or on this machine."""
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if not (parts.scheme == "https" and parts.hostname) and not (
        parts.scheme == "http" and is_loopback(parts.hostname or "")
    ):
        raise ProviderException(f"its {name} is no https address")
    return str(url)


def _ask(url: str, **options: Any) -> dict[str, Any]:
    with get_adapter().get_requests_session() as session:
        answer = session.get(url, **options)
        answer.raise_for_status()
        body = answer.json()
    if not isinstance(body, dict):
        raise ProviderException("its answer is no object")
    return body


def _find_key(keys: dict[str, Any], header: dict[str, Any]) -> jwt.PyJWK:
    """Return the key that an ID token names; one that names none was signed by the only key."""
    known = jwt.PyJWKSet.from_dict(keys).keys
    found = [key for key in known if key.key_id == header.get("kid")] if "kid" in header else known
    if len(found) != 1:
        raise ProviderException("its ID token is signed by an unknown key")
    return found[0]


def _choose_role(claims: dict[str, Any]) -> Role:
    """Return the highest role that OIDC_ROLES gives to the claim, a name or a list of names."""
    value = claims.get(settings.OIDC_ROLE_CLAIM)
    names = value if isinstance(value, list) else [value]
    labels = [settings.OIDC_ROLES.get(name, "") for name in names if isinstance(name, str)]
    return max((ROLES.get(label, Role.NONE) for label in labels), default=Role.NONE)


# --- Whose account it is


class Provider(OpenIDConnectProvider):  # type: ignore[misc]  # likewise
    oauth2_adapter_class = Endpoint
    pkce_enabled_default = True

    def sociallogin_from_response(self, request: HttpRequest, response: dict[str, Any]) -> SocialLogin:
        """Keep of the claims what an account needs; of the rest, which is personal, nothing."""
        user = User(username=str(response.get("preferred_username") or ""), email=_read_email(response))
        account = SocialAccount(
            provider=self.sub_id, uid=response["sub"], extra_data={"role": _choose_role(response).label}
        )
        return SocialLogin(user=user, account=account, provider=self)


def _read_email(claims: dict[str, Any]) -> str:
    email = str(claims.get("email") or "")
    try:
        validate_email(email)
    except ValidationError:
        return ""
    return email if len(email) <= 254 else ""


class SocialAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # likewise
    """The one provider that the settings name, and what becomes of its answer."""

    def list_apps(self, request: HttpRequest, provider: Any = None, client_id: Any = None) -> list[SocialApp]:
        # The issuer is half of an account's name: another provider's `sub` is another person.
        return [
            SocialApp(
                provider=Provider.id,
                provider_id=settings.OIDC_ISSUER,
                name=settings.OIDC_ISSUER,
                client_id=settings.OIDC_CLIENT_ID,
                secret=settings.OIDC_CLIENT_SECRET,
                settings={"server_url": settings.OIDC_ISSUER},
            )
        ]

    def get_provider(self, request: HttpRequest, provider: Any, client_id: Any = None) -> Provider:
        return Provider(request, app=self.list_apps(request)[0])

    def get_requests_session(self) -> requests.Session:
        session = _Session()
        egress.prepare(session)
        return session

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        user, role = sociallogin.user, ROLES.get(sociallogin.account.extra_data["role"], Role.NONE)
        if sociallogin.is_existing:
            _set_role(request, user, role)
        if not role:
            reason = f"The claim {settings.OIDC_ROLE_CLAIM} fits none of OIDC_ROLES."
            # A stranger's name is what he calls himself, and may be somebody else's here.
            name = user.get_username() if sociallogin.is_existing else f"sub {sociallogin.account.uid}"
            _refuse(request, name, NotAllowed.code, reason, "Your account there gives you no role here.")
        if not user.is_active:
            reason = "The account is not active."
            _refuse(request, user.get_username(), NotAuthenticated.code, reason, "Your account here is not active.")
        if not sociallogin.is_existing:
            user.username = _find_free_name(user.username or user.email.partition("@")[0])

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> User:
        user: User = sociallogin.user
        user.set_unusable_password()
        try:
            with transaction.atomic():
                user.save()
                sociallogin.account.user = user
                sociallogin.account.save()
        except IntegrityError as exc:
            raise ProviderException("two first logins at once; this one came second") from exc
        _set_role(request, user, ROLES[sociallogin.account.extra_data["role"]], action="user.add")
        return user

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Exception | None = None,
        extra_context: dict[str, Any] | None = None,
    ) -> None:
        if not (extra_context or {}).get("state"):
            log.warning("single sign-on refused: the state is not this session's", extra={"rejection": "sso-state"})
            message = "This login was not begun in this browser, or ten minutes ago. Begin it again."
            raise ImmediateHttpResponse(_answer(request, HTTPStatus.BAD_REQUEST, message))
        if exception is not None:
            _fail(request, exception)
        if error == AuthError.CANCELLED:
            _refuse(request, "", NotAuthenticated.code, "Ended at the provider.", "You were not let in there.")
        code = request.GET.get("error", "")
        _fail(request, ProviderException(f"it said {code if re.fullmatch('[a-z_]{1,40}', code) else 'nothing useful'}"))


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # likewise
    def login(self, request: HttpRequest, user: User) -> None:
        request.session.set_expiry(None)
        login(request, user)

    def add_message(self, *args: Any, **options: Any) -> None:
        """Say nothing: the page itself shows who is logged in."""

    def clean_username(self, username: str, shallow: bool = False) -> str:
        return username


class _Session(requests.Session):
    def request(self, *args: Any, **options: Any) -> requests.Response:
        with Budget(DEADLINE_SECONDS).attempt(DEADLINE_SECONDS) as attempt:
            answer = super().request(*args, **{"timeout": TIMEOUT_SECONDS, **options})
        if attempt.is_cut:
            # What was cut in the middle can look like a whole answer.
            raise requests.Timeout
        return answer

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that nothing redirects: the secret goes to the addresses that were checked."""


def _find_free_name(wanted: str) -> str:
    """Return a name that nobody has: the wanted one, or that with a number."""
    wanted = re.sub(r"[^A-Za-z0-9_.@+-]", "", wanted)[:140] or "user"
    name, number = wanted, 1
    while name.lower() in RESERVED_NAMES or User.objects.filter(username__iexact=name).exists():
        number += 1
        name = f"{wanted}-{number}"
    return name


def _set_role(request: HttpRequest, user: User, role: Role, action: str = "user.change") -> None:
    """Give a user this role and no other; other groups, and who is a superuser, are none of the provider's business."""
    before = sorted(user.groups.filter(name__in=ROLES).values_list("name", flat=True))
    after = [role.label] if role else []
    if before == after:
        return
    user.groups.remove(*Group.objects.filter(name__in=ROLES))
    if role:
        user.groups.add(Group.objects.get_or_create(name=role.label)[0])
    entry = audit.make_entry(_make_actor(request, user.get_username()), action, user.get_username())
    entry.before, entry.after, entry.reason = ", ".join(before), ", ".join(after), "single sign-on"
    audit.save([entry])


# --- Who doesn't get in


def _make_actor(request: HttpRequest, name: str) -> Actor:
    return Actor(name, request.META.get("REMOTE_ADDR", ""), find_request_id(request) or "")


def _refuse(request: HttpRequest, name: str, code: str, reason: str, message: str) -> NoReturn:
    """Refuse a person; `reason` is for the audit, `message` for the person."""
    _record(request, name, code, reason)
    raise ImmediateHttpResponse(_answer(request, HTTPStatus.FORBIDDEN, message))


def _fail(request: HttpRequest, exc: Exception) -> NoReturn:
    """Refuse because the provider is away or not to be believed. Of an error only our own words are repeated."""
    reason = str(exc) if isinstance(exc, ProviderException) else type(exc).__name__
    if isinstance(exc, requests.RequestException):
        url = (exc.request.url if exc.request else "") or settings.OIDC_ISSUER
        reason = " ".join(egress.explain(exc, url) or (f"{reason}{egress.name_way(url)}",))
    log.warning("single sign-on failed: %s: %s", settings.OIDC_ISSUER, reason, extra={"rejection": "sso"})
    if count_failed_login(request.META.get("REMOTE_ADDR", "")):
        _record(request, "", "SSO_FAILED", f"{settings.OIDC_ISSUER}: {reason}")
    message = "The login service can't be reached, or gave an answer that can't be trusted. Try again in a minute."
    raise ImmediateHttpResponse(_answer(request, HTTPStatus.BAD_GATEWAY, message)) from exc


def _record(request: HttpRequest, name: str, code: str, reason: str) -> None:
    entry = audit.make_entry(_make_actor(request, name), "login", error=reason, reason="single sign-on")
    entry.outcome = code
    audit.save([entry])


def _answer(request: HttpRequest, status: HTTPStatus, message: str) -> HttpResponse:
    context = {"message": message, "site_header": admin.site.site_header}
    return render(request, "registration/sso_refused.html", context, status=status)
