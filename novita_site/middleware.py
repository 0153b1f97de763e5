"""What holds for every request: an id on each line of its log, and no unsafe request from another site."""

import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

from instances.errors import CrossSite, to_response
from novita_site import log

Handler = Callable[[HttpRequest], HttpResponseBase]

SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}


def request_id(get_response: Handler) -> Handler:
    """Give each request an id: on its log lines, in its errors, and in the header X-Request-Id."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        name = uuid.uuid4().hex[:16]
        request.request_id = name  # type: ignore[attr-defined]  # read by instances.errors
        token = log.request_id.set(name)
        try:
            response = get_response(request)
            response["X-Request-Id"] = name
            return response
        finally:
            log.request_id.reset(token)

    return middleware


def refuse_cross_site(get_response: Handler) -> Handler:
    """Refuse what another site's page makes a browser send, be the visitor logged in or the local owner.

    Browsers say where a request comes from in Sec-Fetch-Site, older ones in Origin. A script sends neither and passes:
    nobody can make it act by showing it a page.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.method not in SAFE_METHODS and _is_cross_site(request):
            return to_response(CrossSite(), request)
        return get_response(request)

    return middleware


def _is_cross_site(request: HttpRequest) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        # "same-site" is another port of this machine too: another program's page.
        return site not in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2].lower() != request.get_host().lower()
