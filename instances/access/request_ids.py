"""The id of each request: of our own, or the one that a trusted proxy gave it, with its position in a trace."""

import re
from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from instances.access import proxies
from novita_site import log
from novita_site.middleware import Handler, make_request_id

# What proxies make: numbers and letters, a UUID, base64. It also fits the records.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:+/=-]{1,64}")
# W3C Trace Context, version 00.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def bind(get_response: Handler) -> Handler:
    """Give each request an id: on its log lines, in its errors, and in the header X-Request-Id."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        ids = read_ids(request.META)
        request.request_id = ids.request_id  # type: ignore[attr-defined]  # read by instances.answers
        with log.bound(ids):
            response = get_response(request)
            for name, value in ids.get_headers().items():
                response[name] = value
            return response

    return middleware


def read_ids(meta: Mapping[str, Any]) -> log.Ids:
    """Return the ids that a trusted proxy gave a request, or an id of our own.

    `meta` must still have the address of the connection, before `find_client_address`. A proxy has to set the headers
    itself: with those of its clients, two requests could have one id.
    """
    if not settings.TRUSTED_PROXIES or not proxies.is_trusted(meta.get("REMOTE_ADDR", "")):
        return log.Ids(make_request_id())
    given, trace = meta.get("HTTP_X_REQUEST_ID", ""), meta.get("HTTP_TRACEPARENT", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else make_request_id()
    return log.Ids(request_id, trace if _TRACEPARENT.fullmatch(trace) else "")
