"""What holds for every request: an id on each line of its log, and headers in its answer."""

import uuid
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from novita_site import log

Handler = Callable[[HttpRequest], HttpResponseBase]

HEADERS = {
    # Nothing of it is used here; copying to the clipboard is.
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Django's own middleware adds it too, and not to static files nor to what is refused before it.
    "X-Frame-Options": settings.X_FRAME_OPTIONS,
}


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


def add_headers(get_response: Handler) -> Handler:
    """Add what Django has no setting for; and mark each cookie Secure when the request came over TLS."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.is_secure():
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response

    return middleware
