"""The API's views and JSON of the start freeze."""

from types import MappingProxyType

from drf_spectacular.utils import extend_schema
from rest_framework import serializers as fields
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from instances.access.audit import get_actor
from instances.api.operations import show_freeze
from instances.api.serializers import StartFreezeSerializer
from instances.api.strict import StrictSerializer, TextField
from instances.api.views import ACT_ERRORS, ERRORS, ApiView
from instances.operations import freezing


class FreezeSerializer(StrictSerializer):
    """The body that freezes starts."""

    until = fields.DateTimeField(
        allow_null=True, help_text="When the freeze ends, with a time zone; null: when somebody removes it."
    )
    reason = TextField(
        min_length=1, max_length=500, help_text="Why nothing may be started; shown when somebody tries to."
    )


class StartFreezeViewSet(ApiView, ViewSet):
    """The freeze of starts: while it is in force, start and restart answer 409 STARTS_FROZEN."""

    bodies = MappingProxyType({"freeze": FreezeSerializer})
    first_bodies = MappingProxyType({"freeze": {"until": None, "reason": ""}})

    @extend_schema(summary="Show the start freeze", responses={200: StartFreezeSerializer, **ERRORS})
    def show(self, request: Request) -> Response:
        return Response(show_freeze(freezing.find()))

    @extend_schema(
        summary="Freeze starts",
        description="From now on nothing is started or restarted, until the time `until` or until an admin removes "
        "the freeze. Stops are never frozen. Replaces an earlier freeze.",
        request=FreezeSerializer,
        responses={200: StartFreezeSerializer, **ACT_ERRORS},
    )
    def freeze(self, request: Request) -> Response:
        frozen = freezing.freeze(self.wish["until"], self.wish["reason"], actor=get_actor(request))
        return Response(show_freeze(frozen))

    @extend_schema(
        summary="Remove the start freeze", request=None, responses={200: StartFreezeSerializer, **ACT_ERRORS}
    )
    def unfreeze(self, request: Request) -> Response:
        freezing.unfreeze(actor=get_actor(request))
        return Response(show_freeze(None))
