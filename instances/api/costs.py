"""The API's views and JSON of costs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from instances.access.audit import get_actor
from instances.api import cost_fields
from instances.api.csv_files import answer_csv
from instances.api.views import ACT_ERRORS, ERRORS, NOT_FOUND, ApiView
from instances.costs import balance, bill, burn, period, reports
from instances.costs.burn import Burn, Sum
from instances.costs.period import Period
from instances.costs.reports import Sums
from instances.instance import FREE, format_time, to_usd
from instances.inventory import store
from instances.operations import annotations
from instances.operations.annotations import Annotated
from novita_site.roles import Role

STEPS: Final = {"hour": reports.HOUR_MS, "day": reports.DAY_MS}
# The list in each report's JSON, which is its CSV file.
_ROWS: Final = {"history": "points", "instances": "instances", "bill": "days"}


def show_costs() -> dict[str, Any]:
    """Return the answer of GET /api/costs."""
    listing = store.read_listing()
    as_of = listing.freshness.as_of
    found = burn.find(listing.revision, listing.instances)
    # Without an inventory nothing is known, and nothing is free.
    total = found.total if as_of else Sum(unknown_gpu=1, unknown_storage=1)
    per_hour = total.per_hour
    return {
        "asOf": format_time(as_of) if as_of else None,
        "stale": listing.freshness.is_stale,
        "perHour": to_usd(per_hour),
        "perDay": None if per_hour is None else to_usd(per_hour * 24),
        "gpuPerHour": to_usd(total.gpu_per_hour),
        "storagePerHour": to_usd(total.storage_per_hour),
        "unknownPrices": found.total.unknown,
        "prepaid": found.prepaid,
        **{f"by{name.capitalize()}": _show_shares(found, name) for name in burn.BREAKDOWNS},
        "balance": _show_balance(per_hour),
    }


def _show_shares(found: Burn, breakdown: str) -> list[dict[str, Any]]:
    def order(item: tuple[str | None, Sum]) -> tuple[Decimal, str]:
        return -(item[1].per_hour or FREE), item[0] or ""

    return [
        {"name": name, "perHour": to_usd(one.per_hour), "instances": one.instances, "gpus": one.gpus}
        for name, one in sorted(found.by[breakdown].items(), key=order)
    ]


def _show_balance(per_hour: Decimal | None) -> dict[str, Any]:
    reading = balance.read()
    return {
        "available": to_usd(reading.available),
        "creditLimit": to_usd(reading.credit_limit),
        "asOf": format_time(reading.read_at) if reading.read_at else None,
        "hoursLeft": to_usd(reading.find_hours_left(per_hour)),
        "error": reading.error or None,
    }


def show_history(asked: Period, step: str) -> dict[str, Any]:
    points = reports.read_history(asked.began_ms, asked.ended_ms, STEPS[step])
    return {
        "points": [
            {"at": _show_ms(one.at_ms), "cost": to_usd(one.sums.known_usd), "gpuHours": to_usd(one.sums.gpu_hours)}
            | _show_seconds(one.sums)
            for one in points
        ],
        **_show_since(),
    }


def show_instances(asked: Period, instance_id: str | None = None) -> dict[str, Any]:
    used = reports.read_instances(asked.began_ms, asked.ended_ms, instance_id)
    return {
        "instances": [
            {
                "id": one.instance.instance_id,
                "name": one.instance.name,
                "owner": one.labels.owner,
                "project": one.labels.project,
                "gpu": one.instance.gpu,
                "gpuHours": to_usd(one.sums.gpu_hours),
                "cost": to_usd(one.sums.known_usd),
                **_show_seconds(one.sums),
            }
            for one in used
        ],
        "total": to_usd(sum((one.sums.usd for one in used), FREE)),
        **_show_since(),
    }


def show_bill(asked: Period) -> dict[str, Any]:
    found = bill.compare(asked)
    return {
        "days": [
            {
                "date": one.date.isoformat(),
                "estimated": to_usd(one.estimated),
                "billed": to_usd(one.billed),
                "difference": to_usd(one.difference),
            }
            for one in found.days
        ],
        "error": found.error or None,
        **_show_since(),
    }


def _show_since() -> dict[str, str | None]:
    since_ms = reports.find_beginning()
    return {"since": None if since_ms is None else _show_ms(since_ms)}


def _show_seconds(sums: Sums) -> dict[str, float]:
    return {
        "inferredSeconds": sums.inferred / 1000,
        "gapSeconds": sums.gap / 1000,
        "unpricedSeconds": sums.unpriced / 1000,
    }


def _show_ms(milliseconds: int) -> str:
    return format_time(datetime.fromtimestamp(milliseconds / 1000, UTC))


class CostViewSet(ApiView, ViewSet):
    """What the instances cost: now, over time, by instance, and against Novita's bill. Amounts are in USD."""

    queries = MappingProxyType(
        {
            "list": cost_fields.NoParametersSerializer,
            "history": cost_fields.HistoryQuerySerializer,
            "instances": cost_fields.InstancesQuerySerializer,
            "bill": cost_fields.PeriodSerializer,
            "download": cost_fields.DownloadQuerySerializer,
        }
    )

    @extend_schema(summary="Show what all instances cost now", responses={200: cost_fields.CostsSerializer, **ERRORS})
    def list(self, request: Request) -> Response:
        return Response(show_costs())

    @extend_schema(
        summary="Show cost and GPU hours over time",
        description="By the ledger: what synchronizations observed. `gapSeconds` is the time that was not observed.",
        parameters=[cost_fields.HistoryQuerySerializer],
        responses={200: cost_fields.HistorySerializer, **ERRORS},
    )
    @action(detail=False, methods=["get"])
    def history(self, request: Request) -> Response:
        return Response(self._report("history"))

    @extend_schema(
        summary="Show GPU hours and cost of each instance",
        description="The most expensive first. Removed instances are included.",
        parameters=[cost_fields.InstancesQuerySerializer],
        responses={200: cost_fields.UsedListSerializer, **ERRORS},
    )
    @action(detail=False, methods=["get"])
    def instances(self, request: Request) -> Response:
        return Response(self._report("instances"))

    @extend_schema(
        summary="Compare the ledger with Novita's bill",
        description="Of each day (UTC), for at most 31 days. A day is billed some hours after its end.",
        parameters=[cost_fields.PeriodSerializer],
        responses={200: cost_fields.BillSerializer, **ERRORS},
    )
    @action(detail=False, methods=["get"])
    def bill(self, request: Request) -> Response:
        return Response(self._report("bill"))

    @extend_schema(exclude=True)
    def download(self, request: Request, report: str) -> StreamingHttpResponse:
        """Return a report as a CSV file."""
        valid = self.queries[report]().fields
        if unknown := [name for name in self.query if name not in valid]:
            raise cost_fields.make_unknown(unknown, valid)
        rows: Sequence[Mapping[str, Any]] = self._report(report)[_ROWS[report]]
        fields = list(rows[0]) if rows else []
        return answer_csv(f"costs-{report}", fields, (tuple(row.values()) for row in rows))

    def _report(self, name: str) -> dict[str, Any]:
        step = self.query.get("step", "day")
        days = bill.MAX_DAYS if name == "bill" else period.MAX_DAYS_BY_HOUR if step == "hour" else period.MAX_DAYS
        asked = period.read_period(
            self.query.get("from"), self.query.get("to"), max_days=days, are_whole_days=name == "bill"
        )
        if name == "history":
            return show_history(asked, step)
        return show_instances(asked, self.query.get("instance")) if name == "instances" else show_bill(asked)


class AnnotationViewSet(ApiView, ViewSet):
    """Owner, project and note of one instance; owner and project of several."""

    bodies = MappingProxyType({"set": cost_fields.AnnotationSerializer, "set_many": cost_fields.AnnotationsSerializer})
    first_bodies = MappingProxyType(
        {
            "set": {"owner": "", "project": "", "note": ""},
            "set_many": {"ids": ["id-of-an-instance"], "owner": "", "project": ""},
        }
    )
    roles = MappingProxyType(dict.fromkeys(["set", "set_many"], Role.OPERATOR))

    @extend_schema(
        summary="Show an instance's annotation",
        responses={200: cost_fields.AnnotatedSerializer, **ERRORS, **NOT_FOUND},
    )
    def show(self, request: Request, pk: str) -> Response:
        return Response(_show_annotated(annotations.find(pk), "The annotation of the instance"))

    @extend_schema(
        summary="Set an instance's owner, project and note",
        description="Owner and project of an annotation override all rules. When both are empty, the rules apply.",
        request=cost_fields.AnnotationSerializer,
        responses={200: cost_fields.AnnotatedSerializer, **ACT_ERRORS, **NOT_FOUND},
    )
    def set(self, request: Request, pk: str) -> Response:
        wish = {name: self.wish.get(name, "") for name in ("owner", "project", "note")}
        found = annotations.annotate(pk, **wish, actor=get_actor(request))
        return Response(_show_annotated(found, "The annotation is saved"))

    @extend_schema(
        summary="Set owner and project of several instances",
        description="Their notes stay.",
        request=cost_fields.AnnotationsSerializer,
        responses={200: cost_fields.AnnotatedManySerializer, **ACT_ERRORS},
    )
    def set_many(self, request: Request) -> Response:
        ids: list[str] = self.wish["ids"]
        missing = annotations.annotate_many(
            ids, owner=self.wish.get("owner", ""), project=self.wish.get("project", ""), actor=get_actor(request)
        )
        number = len(set(ids)) - len(missing)
        message = f"{number} instance{'' if number == 1 else 's'} annotated"
        timestamp = format_time(timezone.now())
        return Response({"success": not missing, "message": message, "missing": missing, "timestamp": timestamp})


def _show_annotated(found: Annotated, message: str) -> dict[str, Any]:
    annotation = found.annotation
    return {
        "success": True,
        "message": message,
        "instanceId": found.instance_id,
        "owner": found.labels.owner,
        "project": found.labels.project,
        "note": annotation.note if annotation else "",
        "byHand": bool(annotation and (annotation.owner or annotation.project)),
        "changedBy": annotation.changed_by if annotation else None,
        "changedAt": format_time(annotation.changed_at) if annotation else None,
        "timestamp": format_time(timezone.now()),
    }
