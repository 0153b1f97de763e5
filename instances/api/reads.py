"""The answers to GET that views and the shortcut share."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.utils.cache import patch_vary_headers
from django.utils.http import parse_etags

from instances import answers, health
from instances.api import inventory, overview
from instances.api.renderers import JSONRenderer
from instances.errors import InstanceNotFound, PanelError
from instances.instance import format_time
from instances.inventory import store
from instances.inventory.freshness import Freshness
from instances.inventory.sharing import Shared
from novita_site.roles import Role

_REVISION: Final = re.compile(r'(?:W/)?"([0-9]{1,18})"')


def get_known_revision(request: HttpRequest) -> int | None:
    """Return the newest revision in If-None-Match."""
    header = request.META.get("HTTP_IF_NONE_MATCH")
    if not header:
        return None
    revisions = [int(match[1]) for tag in parse_etags(header) if (match := _REVISION.fullmatch(tag))]
    return max(revisions, default=None)


def answer_overview(request: HttpRequest) -> HttpResponse:
    """Send the overview, or a 304 to a reader who sends its mark."""
    tags = parse_etags(request.META.get("HTTP_IF_NONE_MATCH", ""))
    found = overview.read(health.check(), [tag.removeprefix("W/").strip('"') for tag in tags])
    response = HttpResponseNotModified() if found.body is None else _render(found.body)
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["ETag"] = found.etag
    return response


def answer_listing(request: HttpRequest) -> HttpResponse:
    """Send the rendered listing as it is stored, or a 304. Raises CacheUnavailable."""
    body = store.read_body(get_known_revision(request))
    response: HttpResponse
    if body.rendered is None:
        response = HttpResponseNotModified()
    elif "gzip" in request.META.get("HTTP_ACCEPT_ENCODING", ""):
        response = HttpResponse(body.rendered.gzipped, content_type="application/json")
        response.headers["Content-Encoding"] = "gzip"
    else:
        response = HttpResponse(body.rendered.get_plain(), content_type="application/json")
    patch_vary_headers(response, ["Accept-Encoding"])
    add_age(response, body.freshness, body.revision)
    return response


def add_age(response: HttpResponseBase, freshness: Freshness, revision: int | None) -> None:
    """Add the age of the data; on a 304, too, since the age changes while the body stays the same."""
    headers = response.headers
    if freshness.as_of:
        headers["Data-As-Of"] = format_time(freshness.as_of)
    headers["Data-Stale"] = "true" if freshness.is_stale else "false"
    headers["Cache-Control"] = "private, no-cache"
    if revision is not None:
        # Weak, since the same listing is sent with and without gzip.
        headers["ETag"] = f'W/"{revision}"'


def answer_instance(instance_id: str) -> HttpResponse:
    """Send one instance. Raises InstanceNotFound and CacheUnavailable."""
    freshness, row = store.find_row(instance_id)
    if row is None:
        raise InstanceNotFound
    response = HttpResponse(row, content_type="application/json")
    add_age(response, freshness, None)
    return response


def answer_health(role: Role) -> HttpResponse:
    status, body = _share_health(role)
    return HttpResponse(body, content_type="application/json", status=status)


def _read_health(roles: Sequence[Role]) -> list[tuple[HTTPStatus, bytes]]:
    found = health.check()
    status = HTTPStatus.OK if found.state else HTTPStatus.SERVICE_UNAVAILABLE
    rendered = {role: JSONRenderer().render(inventory.show_health(found, role)) for role in set(roles)}
    return [(status, rendered[role]) for role in roles]


_share_health: Final = Shared(_read_health)


def answer_error(request: HttpRequest, error: PanelError) -> HttpResponse:
    return _render(answers.describe(error, answers.find_request_id(request)), error.status)


def answer_livez() -> HttpResponse:
    return HttpResponse(b'{"status": "alive"}', content_type="application/json")


def _render(body: object, status: HTTPStatus = HTTPStatus.OK) -> HttpResponse:
    return HttpResponse(JSONRenderer().render(body), content_type="application/json", status=status)
