"""The API's views and JSON of the activity."""

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any, Final

from django.http import StreamingHttpResponse
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers as fields
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from instances.activity import timeline
from instances.activity.events import KINDS, Event, Filter, read_cursor
from instances.api.csv_files import answer_csv
from instances.api.strict import StrictSerializer, TextField
from instances.api.views import ERRORS, ApiView
from instances.instance import format_time

COLUMNS: Final = ("at", "kind", "actor", "what", "result", "outcome", "reason", "instance_id", "name")
# A file holds so many events at most; filters narrow it.
MAX_CSV_PAGES: Final = 200


class ActivityFilterSerializer(StrictSerializer):
    kind = fields.ChoiceField(choices=KINDS, required=False)
    actor = TextField(required=False, max_length=150, help_text="A person's name; the person's tokens count, too.")
    instance = TextField(required=False, max_length=128, help_text="The full id of an instance.")


class ActivityQuerySerializer(ActivityFilterSerializer):
    before = TextField(required=False, max_length=80, help_text="`before` of the previous answer: the next page.")
    pageSize = fields.IntegerField(min_value=1, max_value=100, required=False, help_text="Default: 50.")


class ActivityEventSerializer(fields.Serializer[Any]):
    at = fields.DateTimeField()
    kind = fields.ChoiceField(choices=KINDS)
    actor = fields.CharField(help_text="Empty: the panel itself.")
    what = fields.CharField()
    result = fields.CharField()
    outcome = fields.ChoiceField(choices=["done", "failed", "running"])
    reason = fields.CharField()
    instanceId = fields.CharField(allow_null=True)
    name = fields.CharField(allow_null=True)


@extend_schema_serializer(many=False)
class ActivitySerializer(fields.Serializer[Any]):
    events = ActivityEventSerializer(many=True)
    before = fields.CharField(allow_null=True, help_text="The place of the next page; null: this is the last one.")


class ActivityViewSet(ApiView, ViewSet):
    """Who did what, the newest first: actions, operations, policies, changes elsewhere, failures and logins."""

    queries = MappingProxyType({"list": ActivityQuerySerializer, "download": ActivityFilterSerializer})

    @extend_schema(
        summary="List the activity, the newest first",
        parameters=[ActivityQuerySerializer],
        responses={200: ActivitySerializer, **ERRORS},
    )
    def list(self, request: Request) -> Response:
        before = self.query.get("before")
        page = timeline.read(self._read_filter(before), self.query.get("pageSize", timeline.PAGE_SIZE))
        following = page.next.encode() if page.next else None
        return Response({"events": [show_event(one) for one in page.events], "before": following})

    @extend_schema(exclude=True)
    def download(self, request: Request) -> StreamingHttpResponse:
        """Return the activity as a CSV file."""
        return answer_csv("activity", COLUMNS, self._list_rows())

    def _list_rows(self) -> Iterator[Sequence[Any]]:
        before: str | None = None
        for _ in range(MAX_CSV_PAGES):
            page = timeline.read(self._read_filter(before), 100)
            yield from (tuple(show_event(one).values()) for one in page.events)
            if page.next is None:
                return
            before = page.next.encode()

    def _read_filter(self, before: str | None) -> Filter:
        query = self.query
        place = read_cursor(before) if before else None
        return Filter(query.get("kind"), query.get("actor", ""), query.get("instance", ""), place)


def show_event(event: Event) -> dict[str, Any]:
    return {
        "at": format_time(event.place.at),
        "kind": event.kind,
        "actor": event.actor,
        "what": event.what,
        "result": event.result,
        "outcome": event.outcome,
        "reason": event.reason,
        "instanceId": event.instance_id or None,
        "name": event.instance_name or None,
    }
