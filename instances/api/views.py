"""The API: each view reads the request, calls one function, and answers."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from django.http import HttpResponseBase, HttpResponseNotModified
from django.middleware.csrf import get_token
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from instances import health
from instances.access import audit, limits
from instances.access.audit import get_actor
from instances.access.roles import find_role, require
from instances.api import inventory, operations, overview, reads, serializers, strict
from instances.api.csv_files import answer_csv
from instances.errors import BodyNotJson, InstanceNotFound, InvalidRequest, LengthRequired, NotFound
from instances.instance import ActionName, format_time
from instances.inventory import queries, store
from instances.inventory.sync import synchronize
from instances.models import Action, Operation, Protection, SyncRun
from instances.operations import emergency, history, orders, single
from instances.policies import finding_list
from novita_site.roles import Role

HTML_PAGE_SIZE = 100
# Stops, and the cancelling of one: these actions have no rate limit.
STOPS = frozenset({"stop", "stop_all", "cancel"})

# Any address answers 400 to an unknown host.
ERRORS = dict.fromkeys([400, 401, 403, 406, 503], serializers.ErrorSerializer)
ACT_ERRORS = dict.fromkeys([400, 401, 403, 406, 409, 411, 413, 415, 429, 502, 503, 504], serializers.ErrorSerializer)
NOT_FOUND = {404: serializers.ErrorSerializer}
ACTED = {**dict.fromkeys([200, 202], serializers.ActionResultSerializer), **ACT_ERRORS, **NOT_FOUND}
ORDERED = {**dict.fromkeys([200, 202], serializers.OperationAnswerSerializer), **ACT_ERRORS}

# The media type of a body. A body in another charset would be read as UTF-8, with another meaning.
_JSON = re.compile(r'application/json\s*(;\s*charset\s*=\s*("utf-?8"|utf-?8)\s*)?', re.IGNORECASE | re.ASCII)


class ApiView(APIView):
    """Refuses every body and query whose fields the view doesn't name."""

    # Viewset's action → the fields of its body.
    bodies: Mapping[str, type[strict.StrictSerializer]] = {}
    # Viewset's action → the parameters of its query. None: any query is accepted and ignored.
    queries: Mapping[str, type[strict.StrictSerializer]] | None = {}
    # Viewset's action → the role it requires. Others require a viewer to read and an admin to act.
    roles: Mapping[str, Role] = {}
    # Viewset's action → the first content of the browser's form; a dry run for an action that stops many.
    first_bodies: Mapping[str, Mapping[str, Any]] = {}
    wish: dict[str, Any]
    query: dict[str, Any]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        name = getattr(self, "action", "") or ""
        if not hasattr(self, (request.method or "").lower()) or request.method == "OPTIONS":
            return
        if self.queries is not None:
            self.query = _check_query(request, self.queries.get(name, strict.NothingSerializer))
        if request.method not in {"GET", "HEAD"}:
            _check_media(request)
            self.wish = self.bodies.get(name, strict.NothingSerializer)(data=request.data).check()
            # A retry counts as a stop, since it may be one.
            is_stop = name in STOPS or (name == "create" and self.wish.get("kind", "stop") == "stop")
            limits.check_acting(request, is_stop=is_stop)


def _check_media(request: Request) -> None:
    """Raise for a body that isn't JSON.

    A form sent by a page of another site has its own media type even when it is empty, and is refused for that.
    """
    media_type, length = request.content_type or "", request.META.get("CONTENT_LENGTH")
    if not _JSON.fullmatch(media_type.strip()) and (media_type or int(length or 0)):
        raise BodyNotJson
    if media_type and not length and request.method != "DELETE":
        # The media type without a length: the client lost the body on the way.
        raise LengthRequired


def _check_query(request: Request, expected: type[strict.StrictSerializer]) -> dict[str, Any]:
    """Return the query's parameters. An empty one counts as absent; `format` belongs to the browsable API."""
    given = request.query_params
    if not given:
        return {}
    repeated = [name for name, values in given.lists() if len(values) > 1]
    if repeated:
        raise InvalidRequest(fields=dict.fromkeys(map(strict.show_name, repeated), serializers.REPEATED))
    known = expected().fields
    named = {name: value for name, value in given.items() if value or name not in known}
    named.pop("format", None)
    return expected(data=named).check() if named else {}


@extend_schema_view(
    list=extend_schema(
        summary="List the instances",
        description="Answered from the cached inventory; the headers Data-As-Of and Data-Stale tell its age.",
        parameters=[
            serializers.ListQuerySerializer,
            OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER),
        ],
        responses={200: serializers.ListingSerializer, 304: None, **ERRORS},
    ),
    retrieve=extend_schema(
        summary="Show one instance", responses={200: serializers.InstanceSerializer, **ERRORS, **NOT_FOUND}
    ),
)
class InstanceViewSet(ApiView, ViewSet):
    """The team's GPU instances, from the cached inventory, and actions on them."""

    lookup_value_regex = "[^/]+"
    bodies = MappingProxyType(
        {"stop_all": serializers.StopAllRequestSerializer, "protect": serializers.ProtectSerializer}
    )
    queries = MappingProxyType({"list": serializers.ListQuerySerializer, "download": serializers.FilterSerializer})
    first_bodies = MappingProxyType({"stop_all": {"dryRun": True}, "protect": {"reason": ""}})
    roles = MappingProxyType(dict.fromkeys(["sync", "start", "stop", "restart", "protect"], Role.OPERATOR))

    def list(self, request: Request) -> HttpResponseBase:
        query = dict(self.query)
        names = query.pop("fields", ())
        is_html = request.accepted_renderer.format == "api"
        if is_html and "page" not in query:
            # A browser shows one page; the JSON has all instances.
            query = {"page": 1, "pageSize": HTML_PAGE_SIZE, **query}
        if not query:
            return reads.answer_listing(request, names).to_response()
        # Time alone changes the answer of some queries.
        has_revision = not is_html and not queries.is_timed(query)
        known = reads.get_known_revision(request) if has_revision else None
        listing = store.read_listing()
        response: HttpResponseBase
        if known is not None and known == listing.revision:
            response = HttpResponseNotModified()
        else:
            instances, total = queries.select(listing.instances, query, finding_list.find_idle(query))
            response = Response({"instances": queries.pick(instances, names), "total": total})
        reads.add_age(response.headers, listing.freshness, listing.revision if has_revision else None)
        return response

    @extend_schema(exclude=True)
    def download(self, request: Request) -> HttpResponseBase:
        """Return all matches as a CSV file."""
        listing = store.read_listing()
        matches, _ = queries.select(listing.instances, self.query, finding_list.find_idle(self.query))
        response = answer_csv("instances", inventory.CSV_FIELDS, inventory.show_cells(matches))
        reads.add_age(response.headers, listing.freshness, None)
        return response

    def retrieve(self, request: Request, pk: str) -> HttpResponseBase:
        if request.accepted_renderer.format != "api":
            return reads.answer_instance(pk).to_response()
        freshness, instance = store.find_instance(pk)
        if instance is None:
            raise InstanceNotFound
        response = Response(instance)
        reads.add_age(response.headers, freshness, None)
        return response

    @extend_schema(
        summary="Show what happened to an instance",
        description="The newest 20: what people and scripts did, what operations did, and the changes that were "
        "observed. Removed instances keep their history.",
        responses={200: serializers.InstanceHistorySerializer, **ERRORS, **NOT_FOUND},
    )
    @action(detail=True, methods=["get"])
    def history(self, request: Request, pk: str) -> Response:
        return Response(operations.show_history(pk, history.read(pk)))

    @extend_schema(
        summary="Start an instance",
        request=strict.NothingSerializer,
        responses=ACTED,
    )
    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        """Starts this instance at once; it is billed from then on. A POST needs no body."""
        return _act(request, "start", pk)

    @extend_schema(
        summary="Stop an instance",
        request=strict.NothingSerializer,
        responses=ACTED,
    )
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        """Stops this instance at once, which ends all its jobs. A POST needs no body."""
        return _act(request, "stop", pk)

    @extend_schema(
        summary="Restart an instance",
        request=strict.NothingSerializer,
        responses=ACTED,
    )
    @action(detail=True, methods=["post"])
    def restart(self, request: Request, pk: str) -> Response:
        """Restarts this instance at once, which ends all its jobs. A POST needs no body."""
        return _act(request, "restart", pk)

    @extend_schema(
        summary="Synchronize with Novita",
        request=strict.NothingSerializer,
        responses={200: serializers.SyncResultSerializer, **ACT_ERRORS},
    )
    @action(detail=False, methods=["post"])
    def sync(self, request: Request) -> Response:
        """Reads the account again. It changes nothing at Novita. A POST needs no body."""
        actor = get_actor(request)
        with audit.recorded(actor, Action.SYNC):
            return Response(inventory.show_report(synchronize(SyncRun.Trigger.API, requested_by=actor.name)))

    @extend_schema(
        summary="Stop all, and verify it",
        description="Lists the account, and requests a stop of every instance that may be billed and is not protected. "
        "200: every stop is requested; 202: some are pending. The operation then shows which are verified as stopped.",
        request=serializers.StopAllRequestSerializer,
        responses=ORDERED,
    )
    @action(detail=False, methods=["post"], url_path="stop-all")
    def stop_all(self, request: Request) -> Response:
        """Stops all instances, or those in `ids`. With `dryRun` it only answers what it would stop."""
        return _order(request, "stop", self.wish)

    @extend_schema(
        summary="Protect an instance from being stopped or restarted",
        request=serializers.ProtectSerializer,
        responses={200: serializers.ProtectedSerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    @action(detail=True, methods=["post"])
    def protect(self, request: Request, pk: str) -> Response:
        protection = single.protect(pk, self.wish["reason"], actor=get_actor(request))
        body = {
            "success": True,
            "message": f"{protection} is protected",
            "instanceId": pk,
            "reason": protection.reason,
            "protectedBy": protection.protected_by,
            "timestamp": format_time(timezone.now()),
        }
        return Response(body)

    @extend_schema(
        summary="Remove an instance's protection",
        request=None,
        responses={200: serializers.ProtectedSerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    @protect.mapping.delete
    def remove_protection(self, request: Request, pk: str) -> Response:
        was_protected = single.remove_protection(pk, actor=get_actor(request))
        message = "Protection removed" if was_protected else "The instance was not protected"
        timestamp = format_time(timezone.now())
        return Response({"success": True, "message": message, "instanceId": pk, "timestamp": timestamp})


def _act(request: Request, name: ActionName, instance_id: str) -> Response:
    result = single.act(name, instance_id, actor=get_actor(request))
    body = {
        "success": True,
        "message": result.message,
        "instanceId": result.instance.id,
        "status": result.instance.status,
        "timestamp": format_time(timezone.now()),
    }
    return Response(body, status=HTTPStatus.ACCEPTED if result.is_initiated else HTTPStatus.OK)


def _order(
    request: Request, kind: ActionName, wanted: Mapping[str, Any], retry_of: Operation | None = None
) -> Response:
    if wanted.get("webhookUrl"):
        require(request, Role.ADMIN)
    wish = orders.Wish(
        kind=kind,
        ids=wanted.get("ids"),
        actor=get_actor(request),
        reason=wanted.get("reason", ""),
        webhook_url=wanted.get("webhookUrl", ""),
        origin=request.build_absolute_uri("/").rstrip("/"),
        retry_of=retry_of,
    )
    if wanted.get("dryRun"):
        return Response(operations.show_answer(emergency.preview(wish)))
    answer = emergency.order(wish)
    status = HTTPStatus.OK if answer.is_settled else HTTPStatus.ACCEPTED
    return Response(operations.show_answer(answer), status=status)


class OperationViewSet(ApiView, ViewSet):
    """Starts, stops and restarts of many instances, each followed until it is verified."""

    lookup_value_regex = "[^/]+"
    bodies = MappingProxyType({"create": serializers.OperationRequestSerializer})
    queries = MappingProxyType({"list": serializers.OperationQuerySerializer})
    first_bodies = MappingProxyType({"create": {"kind": "stop", "ids": ["id-of-an-instance"], "dryRun": True}})
    roles = MappingProxyType(dict.fromkeys(["create", "cancel", "dismiss"], Role.OPERATOR))

    @extend_schema(
        summary="List the operations, the newest first",
        parameters=[serializers.OperationQuerySerializer],
        responses={200: serializers.OperationListSerializer, **ERRORS},
    )
    def list(self, request: Request) -> Response:
        page, size = self.query.get("page", 1), self.query.get("pageSize", 20)
        return Response(operations.show_page(emergency.list_all(self.query.get("state"), page, size)))

    @extend_schema(
        summary="Start, stop or restart some instances",
        description="Works like stop-all, for the instances in `ids`, or for the unconfirmed targets of the operation "
        "`fromOperation`. With the kind `start` and `fromOperation`, it starts the instances that a stop has stopped "
        "and that still exist.",
        request=serializers.OperationRequestSerializer,
        responses={**ORDERED, **NOT_FOUND},
    )
    def create(self, request: Request) -> Response:
        wanted = self.wish
        if "fromOperation" not in wanted:
            return _order(request, wanted["kind"], wanted)
        if wanted.get("kind") == "start":
            return _order(request, "start", {**wanted, "ids": emergency.list_stopped(wanted["fromOperation"])})
        retried, ids = emergency.find_retried(wanted["fromOperation"])
        return _order(request, retried.kind, {"reason": retried.reason, **wanted, "ids": ids}, retried)

    @extend_schema(
        summary="Show an operation and its targets",
        responses={200: serializers.OperationSerializer, **ERRORS, **NOT_FOUND},
    )
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(operations.show_operation(emergency.get(pk)))

    @extend_schema(
        summary="Cancel the remaining requests of an operation",
        description="Requests already sent continue, and are verified.",
        request=strict.NothingSerializer,
        responses={200: serializers.OperationSerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Requests no further instances of this operation. Requests already sent continue, and are verified."""
        if emergency.get(pk).operation.is_whole_account:
            require(request, Role.ADMIN)
        return Response(operations.show_operation(emergency.cancel(pk, actor=get_actor(request))))

    @extend_schema(
        summary="Dismiss the result of an operation",
        request=strict.NothingSerializer,
        responses={200: serializers.OperationSerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    @action(detail=True, methods=["post"])
    def dismiss(self, request: Request, pk: str) -> Response:
        """Removes the result from every dashboard; it stays recorded. A second dismissal changes nothing."""
        return Response(operations.show_operation(emergency.dismiss(pk, actor=get_actor(request))))


class ProtectionViewSet(ApiView, ViewSet):
    """The instances that are protected from stops and restarts."""

    @extend_schema(
        summary="List the protected instances", responses={200: serializers.ProtectionListSerializer, **ERRORS}
    )
    def list(self, request: Request) -> Response:
        protections = operations.show_protections(Protection.objects.all())
        return Response({"protections": protections, "total": len(protections)})


class CacheViewSet(ApiView, ViewSet):
    """The cached inventory in Redis."""

    @extend_schema(
        summary="Clear the cache",
        description="The next synchronization fills it again.",
        request=strict.NothingSerializer,
        responses={200: serializers.ClearSerializer, **ACT_ERRORS},
    )
    @action(detail=False, methods=["post"])
    def clear(self, request: Request) -> Response:
        """Drops the cached listing; the next synchronization fills it again. It changes nothing at Novita."""
        with audit.recorded(get_actor(request), Action.CLEAR_CACHE) as entry:
            cleared = store.clear()  # Deletes its own keys; the clear() of Django's cache would be FLUSHDB
            entry.before = f"{cleared} instances"
        message = f"Cleared {cleared} instance{'' if cleared == 1 else 's'} from the cache"
        timestamp = format_time(timezone.now())
        return Response({"success": True, "message": message, "cleared": cleared, "timestamp": timestamp})

    @extend_schema(summary="Describe the cache", responses={200: serializers.StatsSerializer, **ERRORS})
    @action(detail=False, methods=["get"])
    def stats(self, request: Request) -> Response:
        return Response(inventory.show_stats(store.read_stats()))


class OverviewView(ApiView):
    """What a dashboard polls beside the list."""

    @extend_schema(
        summary="Show the overview: health, running and recent operations, protections, the start freeze, "
        "whether policies act, and the list's revision",
        description="Poll this with `If-None-Match`: the answer is 304 until anything of it changes. The counts of a "
        "running operation change without a new ETag; poll that operation itself. `revision` is the number in the ETag "
        "of the plain list. All but `revision` and `health` is null while the database can't be read.",
        parameters=[OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER)],
        responses={200: serializers.OverviewSerializer, 304: None, **ERRORS},
    )
    def get(self, request: Request) -> HttpResponseBase:
        if request.accepted_renderer.format != "api":
            return reads.answer_overview(request).to_response()
        return Response(overview.read(health.check()).body, headers={"Cache-Control": "private, no-cache"})


class ApiRootView(ApiView):
    """The addresses of the API. Open one in a browser to try it there."""

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        names = {
            "instances": "instance-list",
            "sync": "instance-sync",
            "stopAll": "instance-stop-all",
            "operations": "operation-list",
            "protections": "protection-list",
            "startFreeze": "start-freeze",
            "activity": "activity-list",
            "policies": "policy-list",
            "findings": "finding-list",
            "costs": "cost-list",
            "overview": "overview",
            "cacheStats": "cache-stats",
            "cacheClear": "cache-clear",
            "health": "health",
            "schema": "schema",
            "docs": "docs",
            "admin": "admin:index",
        }
        return Response({key: reverse(name, request=request) for key, name in names.items()})


class SessionView(ApiView):
    """The current login, for a page that was opened before a login in another tab."""

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        body = {
            "user": request.user.get_username(),
            "role": find_role(request).label,
            "csrfToken": get_token(request._request),
        }
        return Response(body)


class NoSuchApiView(ApiView):
    """Every unknown address under /api/."""

    queries = None

    @extend_schema(exclude=True)
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise NotFound


class HealthView(ApiView):
    """The health of the service; the details require a login."""

    permission_classes = (AllowAny,)
    # A monitor may add a number to avoid a proxy's cached answer.
    queries = None

    @extend_schema(
        summary="Show the health of the service",
        description="Without a login the answer has only the status.",
        responses={
            200: serializers.HealthSerializer,
            503: serializers.HealthSerializer,
            **dict.fromkeys([400, 401, 406], serializers.ErrorSerializer),
        },
    )
    def get(self, request: Request) -> Response:
        found = health.check()
        body = inventory.show_health(found, find_role(request))
        return Response(body, status=HTTPStatus.OK if found.state else HTTPStatus.SERVICE_UNAVAILABLE)
