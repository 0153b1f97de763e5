"""The body of an acting request: read whole before anything happens, or refused.

For stop-all an empty body means everything. A body that is unreadable, truncated or without a length must therefore
never count as empty, on any route.
"""

import re
from io import BytesIO
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from gunicorn.http.errors import ParseException

from instances.access.origins import SAFE_METHODS
from instances.answers import to_response
from instances.errors import BodyEncoded, BodyTooLarge, InvalidRequest, LengthRequired, PanelError
from novita_site.middleware import Handler

PIECE_BYTES: Final = 64 * 1024
# Clients may send the head and the body separately. Without a length, a late body must still be detected.
LATE_BODY_SECONDS: Final = 0.1
# Each of these changes the meaning of a request or sets a condition. None is supported, so none may be ignored.
REFUSED_HEADERS: Final = (
    "Content-Range",
    "Range",
    "If-Match",
    "If-Unmodified-Since",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
)
_WHOLE_URL: Final = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)


def read_body(get_response: Handler) -> Handler:
    """Read the whole body of every request that may act into `request.body`."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.method not in SAFE_METHODS:
            try:
                _read(request)
            except PanelError as error:
                return to_response(error, request)
        return get_response(request)

    return middleware


def _read(request: HttpRequest) -> None:
    for name in REFUSED_HEADERS:
        if name in request.headers:
            raise InvalidRequest(f"The header {name} isn't supported, so nothing was done.")
    _check_target(request)
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise BodyEncoded
    stream = request.META["wsgi.input"]
    length = str(request.META.get("CONTENT_LENGTH") or "")
    if "Transfer-Encoding" in request.headers:
        body = _read_chunked(request, stream, length)
    elif length:
        body = _read_length(stream, length)
    else:
        # In HTTP/1.0 only a length tells where a body ends, or that there is none.
        if request.META.get("SERVER_PROTOCOL") == "HTTP/1.0" and request.method != "DELETE":
            raise LengthRequired
        body = b""
    # gunicorn would parse further bytes as the next request and run this one without them.
    wait_seconds = 0 if body or length else LATE_BODY_SECONDS
    if (find_rest := getattr(stream, "find_rest", None)) and find_rest(wait_seconds):
        if not (length or body):
            raise LengthRequired
        raise InvalidRequest("More bytes came than the request announces.")
    # Django reads Content-Length bytes.
    request.META["CONTENT_LENGTH"] = str(len(body)) if body else length
    request._stream = BytesIO(body)
    # Django caches it from here on.
    request.body  # noqa: B018 - reading it has an effect


def _check_target(request: HttpRequest) -> None:
    """Raise for a request line that names another host than the header Host: it may be meant for another service."""
    target = str(request.META.get("RAW_URI") or "/")
    url = _WHOLE_URL.match(target)
    if not target.startswith("/") and not (url and url[1].lower() == request.headers.get("Host", "").lower()):
        raise InvalidRequest("The request line names another host than the header Host, so nothing was done.")


def _read_chunked(request: HttpRequest, stream: Any, length: str) -> bytes:
    coding = request.headers["Transfer-Encoding"].strip().lower()
    # The server sets this when it decodes chunks and the stream ends with the body.
    if length or coding != "chunked" or not request.META.get("wsgi.input_terminated"):
        raise LengthRequired
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    body = _read_up_to(stream, limit + 1)
    if len(body) > limit:
        raise BodyTooLarge
    if not body:
        # A client that pipes a generated body failed before the first byte.
        raise InvalidRequest("A body was announced and is empty. Send {}, or Content-Length: 0.")
    return body


def _read_length(stream: Any, length: str) -> bytes:
    if not (length.isascii() and length.isdecimal()):
        raise InvalidRequest("Content-Length is not a number.")
    if len(length) > 15 or int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise BodyTooLarge
    body = _read_up_to(stream, int(length))
    if len(body) < int(length):
        raise InvalidRequest("The body ended before the length that Content-Length announces.")
    return body


def _read_up_to(stream: Any, size: int) -> bytes:
    body = b""
    try:
        while len(body) < size and (piece := stream.read(min(PIECE_BYTES, size - len(body)))):
            body += piece
    except (OSError, ParseException) as exc:
        raise InvalidRequest("The body did not arrive as a whole.") from exc
    return body
