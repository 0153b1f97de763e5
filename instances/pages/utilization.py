"""How busy an instance was in the last hour, as lines: a part of its drawer, drawn by the server."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from instances.inventory import store
from instances.pages import charts
from instances.pages.charts import Point
from instances.pages.frame import viewers_only
from instances.utilization import readings, sampling
from instances.utilization.reading import Reading, Sample

SHOWN = timedelta(hours=1)


@viewers_only
def utilization(request: HttpRequest, instance_id: str) -> HttpResponse:
    """Return the lines, and let the worker read the metrics again soon."""
    _, shown = store.find_instance(instance_id)
    reading = None
    if shown is not None and shown["group"] == "running":
        sampling.watch(instance_id)
        reading = readings.read_many([instance_id]).get(instance_id)
    context = {
        "is_running": shown is not None and shown["group"] == "running",
        "error": reading.error if reading else "",
        "read_at": reading.read_at if reading else None,
        "lines": _draw_all(reading) if reading and not reading.error else [],
    }
    return render(request, "pages/utilization.html", context)


def _draw_all(reading: Reading) -> list[dict[str, object]]:
    began = max(reading.began_at, reading.ended_at - SHOWN)
    gpu = reading.gpu_average or _average(reading.gpus)
    series = {"GPU": gpu, "GPU memory": reading.gpu_memory, "CPU": reading.cpu, "Memory": reading.memory}
    return [_draw(name, samples, began, reading.ended_at) for name, samples in series.items() if samples]


def _draw(name: str, samples: Sequence[Sample], began: datetime, ended: datetime) -> dict[str, object]:
    shown = [(at, value) for at, value in samples if began <= at <= ended and 0 <= value <= 100]
    last = f"{shown[-1][1]:.0f} %" if shown else "no samples"
    highest = max((value for _, value in shown), default=0.0)
    points = [Point(_to_ms(at), value) for at, value in shown]
    sentence = f"{name} in the last hour: {last} now, at most {highest:.0f} %."
    return {
        "name": name,
        "last": last,
        "highest": f"{highest:.0f} %",
        "chart": charts.draw_spark(points, _to_ms(began), _to_ms(ended), sentence, top=100.0),
    }


def _average(gpus: Sequence[Sequence[Sample]]) -> list[Sample]:
    """Return the average of the GPUs, at the times that all of them have."""
    by_time: dict[datetime, list[float]] = {}
    for series in gpus:
        for at, value in series:
            by_time.setdefault(at, []).append(value)
    return [Sample(at, sum(values) / len(values)) for at, values in sorted(by_time.items()) if len(values) == len(gpus)]


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
