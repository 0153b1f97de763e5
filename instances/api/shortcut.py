"""A shorter way for the reads that dashboards, scripts and monitors repeat, in front of Django.

Django's request, handler and middlewares, the URL and DRF take longer than a 304 itself. The shortcut answers only
plain reads, by a visitor who may see the answer: GET, no query, JSON. All else takes the long way through Django, which
words the refusals. `tests/test_shortcut.py` sends the same requests both ways and compares the answers.
"""

import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.middleware.gzip import GZipMiddleware

from instances.access import passes
from instances.access.passes import Visit
from instances.access.request_ids import read_ids
from instances.api import reads
from instances.api.probes import PROBES
from instances.api.reads import Answer
from instances.errors import InstanceNotFound, PanelError
from instances.monitoring import counters
from novita_site import log as logs
from novita_site.middleware import list_headers, reduce_encoding
from novita_site.roles import Role

log = logging.getLogger(__name__)

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


class _Read(NamedTuple):
    """An answer, made from the request and the visitor's role, the least role that gets it, and Django's route."""

    answer: Callable[[HttpRequest, Role], Answer]
    least_role: Role
    route: str


_READS: Final = {
    "/api/instances": _Read(lambda request, _: reads.answer_listing(request), Role.VIEWER, "instance-list"),
    "/api/overview": _Read(lambda request, _: reads.answer_overview(request), Role.VIEWER, "overview"),
    "/health": _Read(lambda _, role: reads.answer_health(role), Role.NONE, "health"),
}
_INSTANCE: Final = "/api/instances/"
# Addresses of actions, not of instances.
_NO_IDS: Final = frozenset({"sync", "stop-all"})
# Django accepts no shorter key of a session.
_KEY_LENGTH: Final = 8
# What clients that get JSON send in Accept. A missing header counts as the first one.
_ACCEPTS_JSON: Final = frozenset({"*/*", "application/json", "application/json, text/plain, */*"})
# Django compresses no shorter answer.
_GZIP_LENGTH: Final = 200


class _Request(WSGIRequest):
    """As much of Django's request as an answer needs.

    `META` is a copy, since Django may get the environ afterwards. Its REMOTE_ADDR may be a proxy's: with a header that
    names a client, nobody is the local owner, and nothing else here depends on the address.
    """

    def __init__(self, environ: Environ) -> None:
        self.environ = environ
        self.META = environ.copy()
        reduce_encoding(self.META)
        self.method = "GET"
        self.ids = read_ids(environ)
        self.request_id = self.ids.request_id


def shorten(application: Application) -> Application:
    """Answer a plain read at once, and let Django's application answer everything else."""

    def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        read = _find_read(path)
        if (read is None and path not in PROBES) or not _is_plain(environ):
            return application(environ, start_response)
        request = _Request(environ)
        with logs.bound(request.ids):
            try:
                found = _answer(request, read)
            except Exception:
                # A bug here must not take the answer away.
                log.exception("a read took the long way")
                found = None
        if found is None:
            return application(environ, start_response)
        counters.count_request(read.route if read else path[1:], found.status)
        start_response(f"{found.status.value} {found.status.phrase}", list(found.headers.items()))
        return [found.body]

    return answer


def _find_read(path: str) -> _Read | None:
    if not path.startswith(_INSTANCE):
        return _READS.get(path)
    id_ = path[len(_INSTANCE) :]
    if "/" in id_ or id_ in _NO_IDS or not id_.isascii():
        return None
    return _Read(lambda *_: reads.answer_instance(id_), Role.VIEWER, "instance-detail")


def _is_plain(environ: Environ) -> bool:
    return (
        environ["REQUEST_METHOD"] == "GET"
        and not environ.get("QUERY_STRING")
        and environ.get("HTTP_ACCEPT", "*/*") in _ACCEPTS_JSON
    )


def _answer(request: _Request, read: _Read | None) -> Answer | None:
    """Return the complete answer; None when only the long way can tell it."""
    if read is None:
        return _complete(request, PROBES[request.META["PATH_INFO"]]())
    # The session's middleware deletes the cookie of an impossible key.
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if key is not None and len(key) < _KEY_LENGTH:
        return None
    if not _is_our_host(request.META.get("HTTP_HOST", ""), tuple(settings.ALLOWED_HOSTS)):
        return None
    answer = _read(request, read)
    return answer and _complete(request, answer)


@lru_cache(maxsize=256)
def _is_our_host(host: str, allowed: tuple[str, ...]) -> bool:
    """Tell whether Django accepts a Host. `allowed` is the setting, which tests change."""
    request = HttpRequest()
    request.META = {"HTTP_HOST": host}
    try:
        request.get_host()
    except DisallowedHost:
        return False
    return True


def _read(request: _Request, read: _Read) -> Answer | None:
    # As Django does before and after each request.
    close_old_connections()
    try:
        visit = Visit(request)
        request.environ[passes.VISIT] = visit
        if visit.role is None or visit.role < read.least_role:
            return None
        answer = read.answer(request, visit.role)
    except InstanceNotFound:
        return None
    except PanelError as error:
        answer = reads.answer_error(request, error)
    finally:
        close_old_connections()
    # DRF and the session's middleware add these.
    answer.headers["Allow"] = "GET, HEAD, OPTIONS"
    vary = "Accept, Cookie" if visit.needs_cookies else "Accept"
    answer.headers["Vary"] = f"{answer.headers['Vary']}, {vary}" if "Vary" in answer.headers else vary
    return answer


def _complete(request: _Request, answer: Answer) -> Answer:
    """Add what Django's middlewares add."""
    headers = answer.headers
    headers["Content-Length"] = str(len(answer.body))
    if len(answer.body) >= _GZIP_LENGTH and "Content-Encoding" not in headers:
        if "gzip" in request.META.get("HTTP_ACCEPT_ENCODING", ""):
            answer = _compress(request, answer)
        elif "Accept-Encoding" not in headers["Vary"]:
            headers["Vary"] += ", Accept-Encoding"
    for name, value in list_headers(is_secure=request.is_secure()):
        answer.headers.setdefault(name, value)
    answer.headers.update(request.ids.get_headers())
    return answer


def _compress(request: _Request, answer: Answer) -> Answer:
    response = answer.to_response()
    _gzip.process_response(request, response)
    return Answer(answer.status, dict(response.headers), response.content)


_gzip: Final = GZipMiddleware(lambda request: HttpResponse())
