"""Counts each answer to a client by its route. `instances.api.shortcut` and the server count those that Django never
sees.
"""

from typing import Final

from django.http import HttpRequest, HttpResponseBase

from instances.monitoring import counters
from novita_site.middleware import Handler

# Answered before Django looks for a route.
_EARLY: Final = frozenset({"livez", "readyz", "metrics"})
# Every address that no route fits.
NO_ROUTE: Final = "none"
# Refused by the server, before Django: malformed, too large, too slow.
REFUSED: Final = "refused"


def count(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        counters.count_request(_find_route(request), response.status_code)
        return response

    return middleware


def _find_route(request: HttpRequest) -> str:
    match = request.resolver_match
    if match is not None and match.url_name:
        return match.view_name
    name = request.path_info.strip("/")
    if name in _EARLY:
        return name
    return "static" if name.startswith("static/") else NO_ROUTE
