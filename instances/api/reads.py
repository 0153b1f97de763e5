"""The answers to GET that views and the shortcut share."""

import re
import time
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

from django.http import HttpRequest, HttpResponse
from django.http.response import ResponseHeaders
from django.utils.http import parse_etags

from instances import answers, health, refresher
from instances.api import inventory, overview
from instances.api.renderers import JSONRenderer
from instances.errors import InstanceNotFound, PanelError
from instances.instance import format_time
from instances.inventory import store
from instances.inventory.freshness import Freshness
from instances.inventory.sharing import Shared
from novita_site.roles import Role

# Monitors that ask within this time get the same answer.
HEALTH_SECONDS: Final = 0.01

_REVISION: Final = re.compile(r'(?:W/)?"([0-9]{1,18})"')
_JSON: Final = "application/json"


class Answer(NamedTuple):
    """An answer without the headers that every answer has."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes = b""

    def to_response(self) -> HttpResponse:
        response = HttpResponse(self.body, status=self.status, headers=self.headers)
        if self.status == HTTPStatus.NOT_MODIFIED:
            del response["Content-Type"]
        return response


def get_known_revision(request: HttpRequest) -> int | None:
    """Return the newest revision in If-None-Match."""
    header = request.META.get("HTTP_IF_NONE_MATCH")
    return _read_revision(header) if header else None


# A dashboard sends the same header until the listing changes.
@lru_cache(maxsize=256)
def _read_revision(header: str) -> int | None:
    revisions = [int(match[1]) for tag in parse_etags(header) if (match := _REVISION.fullmatch(tag))]
    return max(revisions, default=None)


def answer_overview(request: HttpRequest) -> Answer:
    """Send the overview, or a 304 to a reader who sends its mark."""
    refresher.note_watcher()
    tags = parse_etags(request.META.get("HTTP_IF_NONE_MATCH", ""))
    found = overview.read(health.check(), [tag.removeprefix("W/").strip('"') for tag in tags])
    answer = Answer(HTTPStatus.NOT_MODIFIED, {}) if found.body is None else _render(found.body)
    answer.headers["Cache-Control"] = "private, no-cache"
    answer.headers["ETag"] = found.etag
    return answer


def answer_listing(request: HttpRequest, names: tuple[str, ...] = ()) -> Answer:
    """Send the rendered listing, or these fields of it, or a 304. Raises CacheUnavailable."""
    known = get_known_revision(request)
    body = store.read_body(known, names)
    if body.rendered is None:
        answer = Answer(HTTPStatus.NOT_MODIFIED, {})
    elif "gzip" in request.META.get("HTTP_ACCEPT_ENCODING", ""):
        headers = {"Content-Type": _JSON, "Content-Encoding": "gzip"}
        answer = Answer(HTTPStatus.OK, headers, body.rendered.gzipped)
    else:
        answer = Answer(HTTPStatus.OK, {"Content-Type": _JSON}, body.rendered.get_plain())
    answer.headers["Vary"] = "Accept-Encoding"
    add_age(answer.headers, body.freshness, body.revision)
    return answer


def add_age(headers: dict[str, str] | ResponseHeaders, freshness: Freshness, revision: int | None) -> None:
    """Add the age of the data; on a 304, too, since the age changes while the body stays the same."""
    if freshness.as_of:
        headers["Data-As-Of"] = format_time(freshness.as_of)
    headers["Data-Stale"] = "true" if freshness.is_stale else "false"
    headers["Cache-Control"] = "private, no-cache"
    if revision is not None:
        # Weak, since the same listing is sent with and without gzip.
        headers["ETag"] = f'W/"{revision}"'


def answer_instance(instance_id: str) -> Answer:
    """Send one instance. Raises InstanceNotFound and CacheUnavailable."""
    freshness, row = store.find_row(instance_id)
    if row is None:
        raise InstanceNotFound
    answer = Answer(HTTPStatus.OK, {"Content-Type": _JSON}, row)
    add_age(answer.headers, freshness, None)
    return answer


# Role → when the check of the last answer began, and the answer.
_known_health: Final[dict[Role, tuple[float, HTTPStatus, bytes]]] = {}


def answer_health(role: Role) -> Answer:
    found = _known_health.get(role)
    if found is None or time.monotonic() - found[0] > HEALTH_SECONDS:
        found = _known_health[role] = _share_health(role)
    _, status, body = found
    return Answer(status, {"Content-Type": _JSON}, body)


def _read_health(roles: Sequence[Role]) -> list[tuple[float, HTTPStatus, bytes]]:
    began_at = time.monotonic()
    found = health.check()
    status = HTTPStatus.OK if found.state else HTTPStatus.SERVICE_UNAVAILABLE
    rendered = {role: JSONRenderer().render(inventory.show_health(found, role)) for role in set(roles)}
    return [(began_at, status, rendered[role]) for role in roles]


_share_health: Final = Shared(_read_health)


def answer_error(request: HttpRequest, error: PanelError) -> Answer:
    return _render(answers.describe(error, answers.find_request_id(request)), error.status)


def _render(body: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, {"Content-Type": _JSON}, JSONRenderer().render(body))
