"""Turns errors into answers of one shape; Django and DRF call these functions."""

import logging
import math
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import BadRequest, DisallowedHost, PermissionDenied, RequestDataTooBig
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import defaults
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from instances.errors import (
    BodyNotJson,
    BodyTooLarge,
    CrossSite,
    CsrfFailed,
    DatabaseUnavailable,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotAcceptable,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    PanelError,
)
from instances.instance import clean_text, format_time

log = logging.getLogger(__name__)

# The start of the message of Django's CSRF check for a wrong origin.
BAD_ORIGIN = "Origin checking failed"
# The start of DRF's message for every failure of that check.
CSRF_FAILED = "CSRF Failed"


def to_response(error: PanelError, request: HttpRequest) -> JsonResponse:
    """Return the answer for an error, in the one shape that all errors have."""
    return JsonResponse(describe(error, find_request_id(request)), status=error.status, headers=_get_headers(error))


def find_request_id(request: HttpRequest) -> str | None:
    return getattr(request, "request_id", None)


def describe(error: PanelError, request_id: str | None = None) -> dict[str, object]:
    """Return an error in the shape that the API and `--json` share."""
    body: dict[str, object] = {
        "success": False,
        "code": error.code,
        "message": error.message,
        "suggestion": error.suggestion,
        "requestId": request_id,
        "timestamp": format_time(timezone.now()),
    }
    if isinstance(error, InvalidRequest):
        body["fields"] = error.fields
    return body


def find_own_origin(request: HttpRequest) -> str:
    """Return the address that a request was sent to, as far as the request tells it."""
    return f"{request.scheme}://{request.get_host()}"


def refuse_origin(request: HttpRequest) -> CrossSite:
    """Return the refusal of a request for its origin, with both addresses: a proxy may have changed the header Host."""
    sender = request.META.get("HTTP_ORIGIN")
    log.warning("refused a request of another site: %s", clean_text(sender or "", 100), extra={"rejection": "site"})
    if sender is None:
        return CrossSite()
    return CrossSite(
        f"A page of {clean_text(sender, 200)} sent this request to {find_own_origin(request)}. These are two sites, so "
        "nothing was done.",
        suggestion=(
            "If both are this service, its proxy changes the Host header. Let the proxy pass it on with the port; in "
            "nginx: `proxy_set_header Host $http_host;`. Otherwise use this service's own pages, or a script."
        ),
    )


def _get_headers(error: PanelError) -> dict[str, str]:
    return {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}


def answer(exc: Exception, context: dict[str, Any]) -> HttpResponseBase | None:
    """Answer an exception of an API view (DRF's EXCEPTION_HANDLER). None for a bug, which Django logs and answers."""
    request: Request = context["request"]
    error = _translate(exc, context)
    if error is None:
        return None
    form = getattr(getattr(request, "accepted_renderer", None), "format", "")
    if isinstance(error, NotAuthenticated) and request.method == "GET" and form in {"api", "html"}:
        return redirect_to_login(request.get_full_path())
    if form not in {"api", "json"}:
        # The renderers of the description and its page can't render errors.
        return to_response(error, request._request)
    return Response(
        describe(error, find_request_id(request._request)), status=error.status, headers=_get_headers(error)
    )


def _translate(exc: Exception, context: dict[str, Any]) -> PanelError | None:
    """Return our error for an exception of Django or DRF. It quotes nothing of the request, which may hold anything."""
    match exc:
        case PanelError():
            return exc
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return NotAuthenticated()
        case exceptions.PermissionDenied() if BAD_ORIGIN in str(exc):
            return refuse_origin(context["request"])
        case exceptions.PermissionDenied() if str(exc).startswith(CSRF_FAILED):
            return CsrfFailed()
        case exceptions.PermissionDenied() | PermissionDenied():
            return NotAllowed(str(exc) or None)
        case exceptions.ParseError() | RecursionError():
            return InvalidRequest("The request body is not valid JSON, so nothing was done.")
        case exceptions.UnsupportedMediaType():
            return BodyNotJson()
        case exceptions.MethodNotAllowed():
            return MethodNotAllowed(suggestion=f"Use {', '.join(context['view'].allowed_methods)}.")
        case exceptions.NotAcceptable():
            return NotAcceptable()
        case exceptions.NotFound() | Http404():
            return NotFound()
        case RequestDataTooBig():
            return BodyTooLarge()
        case DatabaseError():
            log.error("database", exc_info=exc)
            return DatabaseUnavailable()
    return None


def _is_for_a_script(request: HttpRequest) -> bool:
    return request.path_info.startswith(("/api/", "/health")) or request.path_info == "/api"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a request that Django itself refuses: an unknown host, a malformed request."""
    if isinstance(exception, DisallowedHost):
        error = InvalidRequest("The host name of the address is not in ALLOWED_HOSTS.")
    else:
        error = InvalidRequest(str(exception) if isinstance(exception, BadRequest) else None)
    if _is_for_a_script(request) or "text/html" not in request.headers.get("Accept", ""):
        return to_response(error, request)
    return render(request, "400.html", {"error": error}, status=HTTPStatus.BAD_REQUEST)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_for_a_script(request):
        return to_response(NotFound(), request)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    if _is_for_a_script(request):
        return to_response(InternalError(), request)
    return defaults.server_error(request)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_for_a_script(request):
        return to_response(NotAllowed(str(exception) or None), request)
    return render(request, "403.html", {"reason": str(exception)}, status=HTTPStatus.FORBIDDEN)


def lock_out(request: HttpRequest, wait_seconds: int) -> HttpResponse:
    """Answer a login after too many wrong passwords."""
    context = {"is_long": wait_seconds > 60}
    answer = render(request, "registration/locked_out.html", context, status=HTTPStatus.TOO_MANY_REQUESTS)
    answer["Retry-After"] = str(wait_seconds)
    return answer


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    """Answer a form that Django's CSRF check refused. The API's views have DRF's check, which `answer` translates."""
    error = refuse_origin(request) if BAD_ORIGIN in reason else None
    context = {"error": error, "back": _find_own_referrer(request)}
    return render(request, "403_csrf.html", context, status=HTTPStatus.FORBIDDEN)


def _find_own_referrer(request: HttpRequest) -> str:
    """Return the address of the page that sent the request; "" for a page of another site."""
    referrer = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(referrer, {request.get_host()}):
        return ""
    parts = urlsplit(referrer)
    return urlunsplit(("", "", f"/{parts.path.lstrip('/')}", parts.query, ""))
