"""The API: each view reads the request, calls one function, and answers."""

import gzip
import re
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified, JsonResponse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.http import parse_etags
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from instances import actions, cache, health, queries
from instances.api import serializers
from instances.errors import BodyNotJson, BodyTooLarge, InstanceNotFound, InvalidRequest, NotFound
from instances.instance import ActionName, format_time
from instances.sync import synchronize

MAX_DRAINED_BYTES = 64 * 1024 * 1024
HTML_PAGE_SIZE = 100

_ERRORS = {
    401: serializers.ErrorSerializer,
    403: serializers.ErrorSerializer,
    503: serializers.ErrorSerializer,
}
_READ_ERRORS = {400: serializers.ErrorSerializer, **_ERRORS}
_ACT_ERRORS = {status: serializers.ErrorSerializer for status in (400, 401, 403, 409, 413, 415, 502, 503, 504)}
_NOT_FOUND = {404: serializers.ErrorSerializer}


class ApiView(APIView):
    """Takes no body but an empty JSON object; all acting routes are of that kind."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in {"GET", "HEAD", "OPTIONS"}:
            _refuse_body(request)


def _refuse_body(request: Request) -> None:
    """Raise for a body that is too large, isn't JSON, or holds a field.

    A form that another site's page sends says what it is even when it is empty, and is refused for that.
    """
    length = str(request.META.get("CONTENT_LENGTH") or "0")
    if not length.isdecimal():
        raise InvalidRequest("Content-Length is not a number.")
    if int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        _drain(request._request)
        raise BodyTooLarge(f"The body may have {settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024} kB.")
    media_type = request.content_type.split(";")[0].strip().lower() if request.content_type else ""
    if media_type != "application/json" and (media_type or int(length)):
        raise BodyNotJson
    serializers.NothingSerializer(data=request.data).check()


def _drain(request: HttpRequest) -> None:
    """Read a body and forget it: closing the connection before would reset it, and our answer would not be seen."""
    drained = 0
    while drained < MAX_DRAINED_BYTES and (piece := request.read(64 * 1024)):
        drained += len(piece)


def _name_user(request: Request) -> str:
    return request.user.get_username()


@extend_schema_view(
    list=extend_schema(
        summary="List the instances",
        description="Served from the copy; the headers Data-As-Of and Data-Stale tell how old it is.",
        parameters=[
            serializers.ListQuerySerializer,
            OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER),
        ],
        responses={200: serializers.ListingSerializer, 304: None, **_READ_ERRORS},
    ),
    retrieve=extend_schema(
        summary="Show one instance", responses={200: serializers.InstanceSerializer, **_ERRORS, **_NOT_FOUND}
    ),
)
class InstanceViewSet(ApiView, ViewSet):
    """The team's GPU instances: the copy of them, and actions on them."""

    lookup_value_regex = "[^/]+"

    def list(self, request: Request) -> HttpResponseBase:
        query = _check_query(request)
        is_html = request.accepted_renderer.format == "api"
        if is_html and "page" not in query:
            # A page that a browser can show; the JSON is whole.
            query = {"page": 1, "pageSize": HTML_PAGE_SIZE, **query}
        known = None if is_html else _get_known_revision(request)
        if not query:
            return _answer_body(request, cache.read_body(known))
        listing = cache.read_listing()
        response: HttpResponseBase
        if known is not None and known == listing.revision:
            response = HttpResponseNotModified()
        else:
            instances, total = queries.select(listing.instances, query)
            response = Response({"instances": instances, "total": total})
        return _add_headers(response, listing.freshness, None if is_html else listing.revision)

    def retrieve(self, request: Request, pk: str) -> HttpResponseBase:
        freshness, instance = cache.find_instance(pk)
        if instance is None:
            raise InstanceNotFound
        return _add_headers(Response(instance), freshness, None)

    @extend_schema(
        summary="Start an instance",
        request=serializers.NothingSerializer,
        responses={200: serializers.ActionSerializer, 202: serializers.ActionSerializer, **_ACT_ERRORS, **_NOT_FOUND},
    )
    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        return _act(request, "start", pk)

    @extend_schema(
        summary="Stop an instance",
        request=serializers.NothingSerializer,
        responses={200: serializers.ActionSerializer, 202: serializers.ActionSerializer, **_ACT_ERRORS, **_NOT_FOUND},
    )
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        return _act(request, "stop", pk)

    @extend_schema(
        summary="Restart an instance",
        request=serializers.NothingSerializer,
        responses={200: serializers.ActionSerializer, 202: serializers.ActionSerializer, **_ACT_ERRORS, **_NOT_FOUND},
    )
    @action(detail=True, methods=["post"])
    def restart(self, request: Request, pk: str) -> Response:
        return _act(request, "restart", pk)

    @extend_schema(
        summary="Synchronize with Novita",
        request=serializers.NothingSerializer,
        responses={200: serializers.SyncSerializer, **_ACT_ERRORS},
    )
    @action(detail=False, methods=["post"])
    def sync(self, request: Request) -> Response:
        return Response(synchronize("api", requested_by=_name_user(request)).to_json())


def _act(request: Request, name: ActionName, instance_id: str) -> Response:
    result = actions.act(name, instance_id, requested_by=_name_user(request))
    body = {
        "success": True,
        "message": result.message,
        "instanceId": result.instance.id,
        "status": result.instance.status,
        "timestamp": format_time(timezone.now()),
    }
    return Response(body, status=HTTPStatus.ACCEPTED if result.is_initiated else HTTPStatus.OK)


class CacheViewSet(ApiView, ViewSet):
    """The copy in Redis."""

    @extend_schema(
        summary="Clear the copy",
        description="The next synchronization fills it again.",
        request=serializers.NothingSerializer,
        responses={200: serializers.ClearSerializer, **_ACT_ERRORS},
    )
    @action(detail=False, methods=["post"])
    def clear(self, request: Request) -> Response:
        # Our own `instances.cache`, which deletes by name; Django's cache.clear() would empty all of Redis.
        cleared = cache.clear()
        message = f"Cleared {cleared} instance{'' if cleared == 1 else 's'} from the cache"
        timestamp = format_time(timezone.now())
        return Response({"success": True, "message": message, "cleared": cleared, "timestamp": timestamp})

    @extend_schema(summary="Describe the copy", responses={200: serializers.StatsSerializer, **_ERRORS})
    @action(detail=False, methods=["get"])
    def stats(self, request: Request) -> Response:
        return Response(cache.describe())


class ApiRootView(ApiView):
    """What there is. Open an address in a browser to try it there."""

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        names = {
            "instances": "instance-list",
            "sync": "instance-sync",
            "cacheStats": "cache-stats",
            "cacheClear": "cache-clear",
            "health": "health",
            "schema": "schema",
            "docs": "docs",
            "admin": "admin:index",
        }
        return Response({key: reverse(name, request=request) for key, name in names.items()})


class NoSuchApiView(ApiView):
    """Every address under /api/ that is none."""

    @extend_schema(exclude=True)
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise NotFound


class HealthView(ApiView):
    """Is the service healthy, and what is wrong if it isn't."""

    @extend_schema(
        summary="Tell how the service is",
        responses={
            200: serializers.HealthSerializer,
            503: serializers.HealthSerializer,
            401: serializers.ErrorSerializer,
        },
    )
    def get(self, request: Request) -> Response:
        state = health.check()
        return Response(state.body, status=HTTPStatus.OK if state.is_serving else HTTPStatus.SERVICE_UNAVAILABLE)


def _check_query(request: Request) -> dict[str, Any]:
    """Return the query's parameters; an empty one counts as absent, and `format` is the browsable API's own."""
    given = {name: value for name, value in request.query_params.dict().items() if value and name != "format"}
    return serializers.ListQuerySerializer(data=given).check() if given else {}


def _get_known_revision(request: Request) -> int | None:
    """Return the newest revision that the client says it has."""
    tags = parse_etags(request.headers.get("If-None-Match", ""))
    revisions = [int(match[1]) for tag in tags if (match := re.fullmatch(r'(?:W/)?"([0-9]{1,18})"', tag))]
    return max(revisions, default=None)


def _answer_body(request: Request, body: cache.Body) -> HttpResponseBase:
    """Send the rendered listing as it is stored."""
    response: HttpResponse
    if body.gzipped is None:
        response = HttpResponseNotModified()
    elif "gzip" in request.headers.get("Accept-Encoding", ""):
        response = HttpResponse(body.gzipped, content_type="application/json")
        response["Content-Encoding"] = "gzip"
    else:
        response = HttpResponse(gzip.decompress(body.gzipped), content_type="application/json")
    patch_vary_headers(response, ["Accept-Encoding"])
    return _add_headers(response, body.freshness, body.revision)


def _add_headers(response: HttpResponseBase, freshness: cache.Freshness, revision: int | None) -> HttpResponseBase:
    """Say how old the data is; on a 304 too, since that moves while the body stays."""
    if freshness.as_of:
        response["Data-As-Of"] = format_time(freshness.as_of)
    response["Data-Stale"] = "true" if freshness.is_stale else "false"
    response["Cache-Control"] = "private, no-cache"
    if revision is not None:
        # Weak: the same listing goes out gzipped and not.
        response["ETag"] = f'W/"{revision}"'
    return response


@login_not_required
def livez(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "alive"})


@login_not_required
def readyz(request: HttpRequest) -> JsonResponse:
    if health.is_ready():
        return JsonResponse({"status": "ready"})
    return JsonResponse({"status": "not ready"}, status=HTTPStatus.SERVICE_UNAVAILABLE)
