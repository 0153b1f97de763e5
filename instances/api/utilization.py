"""The API's view and JSON of an instance's utilization."""

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers as fields
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from instances.api.views import ERRORS, NOT_FOUND, ApiView
from instances.errors import InstanceNotFound
from instances.instance import format_time
from instances.inventory import store
from instances.utilization import readings, sampling
from instances.utilization.reading import Reading, Sample


class SampleSerializer(fields.Serializer[Any]):
    at = fields.DateTimeField()
    value = fields.FloatField(help_text="In percent.")


class UtilizationSerializer(fields.Serializer[Any]):
    """The last reading of Novita's metrics; all but `instanceId` is null or empty until there is one."""

    instanceId = fields.CharField()
    readAt = fields.DateTimeField(allow_null=True)
    begin = fields.DateTimeField(allow_null=True)
    end = fields.DateTimeField(allow_null=True)
    error = fields.CharField(allow_null=True, help_text="Why the last reading failed.")
    gpu = SampleSerializer(many=True, help_text="The average of the GPUs.")
    gpuMemory = SampleSerializer(many=True)
    cpu = SampleSerializer(many=True)
    memory = SampleSerializer(many=True)
    gpus = fields.ListField(child=SampleSerializer(many=True), help_text="One series per GPU.")


class UtilizationViewSet(ApiView, ViewSet):
    """How busy an instance is."""

    @extend_schema(
        summary="Show an instance's utilization",
        description="The last reading of Novita's metrics, about a minute late. A request lets the worker read them "
        "again soon, and keep reading for two minutes.",
        responses={200: UtilizationSerializer, **ERRORS, **NOT_FOUND},
    )
    def show(self, request: Request, pk: str) -> Response:
        _, shown = store.find_instance(pk)
        if shown is None:
            raise InstanceNotFound
        sampling.watch(pk)
        return Response(show_reading(pk, readings.read_many([pk]).get(pk)))


def show_reading(instance_id: str, reading: Reading | None) -> dict[str, Any]:
    return {
        "instanceId": instance_id,
        "readAt": format_time(reading.read_at) if reading else None,
        "begin": format_time(reading.began_at) if reading else None,
        "end": format_time(reading.ended_at) if reading else None,
        "error": (reading.error or None) if reading else None,
        "gpu": _show_series(reading.gpu_average if reading else ()),
        "gpuMemory": _show_series(reading.gpu_memory if reading else ()),
        "cpu": _show_series(reading.cpu if reading else ()),
        "memory": _show_series(reading.memory if reading else ()),
        "gpus": [_show_series(series) for series in (reading.gpus if reading else ())],
    }


def _show_series(series: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return the samples that can be shown; a value that is no percentage is left out."""
    return [{"at": format_time(at), "value": round(value, 2)} for at, value in series if 0 <= value <= 100]
