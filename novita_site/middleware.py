"""For every request: headers in its answer."""

import random
import re
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

Handler = Callable[[HttpRequest], HttpResponseBase]

# Everything that a page loads comes from this service. Nothing is inline, and no page may be framed.
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
# The same for every answer. Built once, in place of three middleware classes that build them for each answer.
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(f"{name} {source}" for name, source in _POLICY.items()),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The pages use none of these. They do use the clipboard.
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def make_request_id() -> str:
    # Without a system call, during which another thread could run.
    return f"{random.getrandbits(64):016x}"


def drop_body(get_response: Handler) -> Handler:
    """Send the headers of GET without its body for HEAD. The server would drop the body with a warning."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if request.method == "HEAD" or response.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            if isinstance(response, StreamingHttpResponse):
                response.streaming_content = []
            elif isinstance(response, HttpResponse):
                response.content = b""
        return response

    return middleware


def choose_encoding(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        reduce_encoding(request.META)
        return get_response(request)

    return middleware


def reduce_encoding(meta: dict[str, Any]) -> None:
    """Reduce Accept-Encoding to gzip or nothing. Django's middleware only searches for the word, and finds it in
    `gzip;q=0`.
    """
    if (header := meta.get("HTTP_ACCEPT_ENCODING")) is not None:
        meta["HTTP_ACCEPT_ENCODING"] = "gzip" if accepts_gzip(header) else ""


@lru_cache(maxsize=256)
def accepts_gzip(header: str) -> bool:
    weights: dict[str, bool] = {}
    for part in header.lower().split(","):
        name, _, weight = (piece.strip() for piece in part.partition(";"))
        # An invalid weight counts as 0: the body is not compressed.
        weights[name] = not weight or bool(re.fullmatch(r"q\s*=\s*(1(\.0{0,3})?|0\.(?!0+$)\d{1,3})", weight, re.ASCII))
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def add_headers(get_response: Handler) -> Handler:
    """Add the headers of browser security, and mark cookies Secure when the request came over TLS."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        is_secure = request.is_secure()
        for name, value in list_headers(is_secure=is_secure):
            response.headers.setdefault(name, value)
        if is_secure:
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response

    return middleware


def list_headers(*, is_secure: bool) -> list[tuple[str, str]]:
    """Return the headers that each answer gets unless it has a value of its own.

    Static files and the listing, which has an ETag, have their own Cache-Control.
    """
    headers = [*HEADERS.items(), ("Cache-Control", "private, no-store")]
    if is_secure and settings.SECURE_HSTS_SECONDS:
        # For this host only, not for its neighbours.
        headers.append(("Strict-Transport-Security", f"max-age={settings.SECURE_HSTS_SECONDS}"))
    return headers
