"""A shorter way for the reads that dashboards, scripts and monitors repeat.

The sessions, CSRF, URL and DRF parts of a request take longer than a 304 itself: skipping them triples its rate. The
shortcut takes only plain reads, by a visitor who may see the answer: GET, no query, JSON. All else takes the long way,
which words the refusals. `tests/test_shortcut.py` sends the same requests both ways and compares the answers.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_vary_headers

from instances.access.passes import Visit
from instances.api import reads
from instances.errors import InstanceNotFound, PanelError
from novita_site.middleware import Handler
from novita_site.roles import Role


class _Read(NamedTuple):
    """An answer, made from the request and the visitor's role, and the least role that gets it."""

    answer: Callable[[HttpRequest, Role], HttpResponse]
    least_role: Role


_READS: Final = {
    "/api/instances": _Read(lambda request, _: reads.answer_listing(request), Role.VIEWER),
    "/api/overview": _Read(lambda request, _: reads.answer_overview(request), Role.VIEWER),
    "/health": _Read(lambda _, role: reads.answer_health(role), Role.NONE),
}
_INSTANCE: Final = "/api/instances/"
# Addresses of actions, not of instances.
_NO_IDS: Final = frozenset({"sync", "stop-all"})
# Django accepts no shorter key of a session.
_KEY_LENGTH: Final = 8
# What clients that get JSON send in Accept. A missing header counts as the first one.
_ACCEPTS_JSON: Final = frozenset({"*/*", "application/json", "application/json, text/plain, */*"})


def shorten(get_response: Handler) -> Handler:
    """Answer a plain read at once. Runs inside the middleware that treats every answer alike."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path_info == "/livez" and _is_plain(request):
            return _measure(reads.answer_livez())
        read = _find_read(request.path_info)
        if read is None or not _is_plain(request):
            return get_response(request)
        visit = Visit(request)
        if visit.role is not None and visit.role >= read.least_role:
            response = _answer(request, read, visit)
            if response is not None:
                return _measure(response)
        full = get_response(request)
        visit.learn(request, is_admitted=full.status_code in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED})
        return full

    return middleware


def _is_plain(request: HttpRequest) -> bool:
    meta = request.META
    if request.method != "GET" or meta.get("QUERY_STRING") or meta.get("HTTP_ACCEPT", "*/*") not in _ACCEPTS_JSON:
        return False
    # The session's middleware deletes the cookie of an impossible key.
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if key is not None and len(key) < _KEY_LENGTH:
        return False
    try:
        request.get_host()
    except DisallowedHost:
        return False
    return True


def _find_read(path: str) -> _Read | None:
    if not path.startswith(_INSTANCE):
        return _READS.get(path)
    id_ = path[len(_INSTANCE) :]
    if "/" in id_ or id_ in _NO_IDS:
        return None
    return _Read(lambda *_: reads.answer_instance(id_), Role.VIEWER)


def _answer(request: HttpRequest, read: _Read, visit: Visit) -> HttpResponse | None:
    try:
        response = read.answer(request, visit.role or Role.NONE)
    except InstanceNotFound:
        return None
    except PanelError as error:
        response = reads.answer_error(request, error)
    # DRF and the session's middleware add these.
    response.headers["Allow"] = "GET, HEAD, OPTIONS"
    patch_vary_headers(response, ["Accept", "Cookie"] if visit.needs_cookies else ["Accept"])
    return response


def _measure(response: HttpResponse) -> HttpResponse:
    response.headers["Content-Length"] = str(len(response.content))
    return response
