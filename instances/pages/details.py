"""What the page without a script shows of one instance; the script's drawer has the same words (facts.js)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from instances.instance import get_status

_BILLING: Final = {"onDemand": "On-demand", "spot": "Spot", "monthly": "Monthly"}
_SOURCES: Final = {"instance": ", from this instance at Novita", "product": ", from Novita's price list"}
GONE: Final = "No instance has this ID. It was removed, or the address is wrong."


class Section(NamedTuple):
    title: str
    facts: Sequence[tuple[str, str]]


def describe(instance_id: str, instances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the title and the sections of the instance with this id, or a notice that there is none."""
    one = next((one for one in instances if one["id"] == instance_id), None)
    if one is None:
        return {"title": instance_id, "notice": GONE, "sections": []}
    sections = [
        Section("Overview", [*_describe_overview(one)]),
        Section("Connect", [*_describe_ports(one["portMappings"])]),
        Section("Cost", [("Price", _say_price(one)), ("Cost now", _say_cost(one))]),
        Section("Owner and project", [("Owner", one["owner"] or ""), ("Project", one["project"] or "")]),
    ]
    return {"title": one["name"] or one["id"], "notice": "", "sections": sections}


def _describe_overview(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if error := one["statusError"]:
        yield "Novita's error", ": ".join(filter(None, [error["state"], error["message"]]))
    yield "ID", one["id"]
    yield "Status", say_status(one["status"])
    yield "GPU", f"{one['gpuNum']} × {one['productName']}" if one["gpuNum"] else one["productName"]
    yield "CPU, memory", f"{_or_unknown(one['cpuNum'])} CPUs, {_or_unknown(one['memoryGb'])} GB"
    yield "Disk", "" if one["rootfsSizeGb"] is None else f"{one['rootfsSizeGb']} GB"
    yield "Image", one["imageUrl"]
    yield "Region", one["region"]
    yield "Cluster ID", one["clusterId"]
    yield "Product ID", one["productId"]
    yield "Billing", _BILLING.get(one["billingMode"], one["billingMode"] or "")
    if one["spotStatus"]:
        yield "Spot state", one["spotStatus"]
    times = {"Created": "createdAt", "Last started": "lastStartedAt", "Last stopped": "lastStoppedAt"}
    for title, name in {**times, "Ends": "endTime", "Last changed": "changedAt"}.items():
        yield title, one[name] or "never"


def say_status(status: str) -> str:
    """Return the word for people, and Novita's own where that differs."""
    label = get_status(status).label
    return label if label.lower() == status.lower() else f"{label} ({status})"


def _or_unknown(value: int | None) -> str:
    return "?" if value is None else str(value)


def _describe_ports(mappings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for mapping in mappings:
        kind = f" ({mapping['type']})" if mapping["type"] else ""
        yield f"Port {_or_unknown(mapping['port'])}{kind}", mapping["endpoint"]
    if not mappings:
        yield "Ports", "none"


def _say_cost(one: Mapping[str, Any]) -> str:
    if one["prepaid"]:
        return "prepaid"
    return "not known" if one["costPerHour"] is None else f"${one['costPerHour']:,.2f}/h"


def _say_price(one: Mapping[str, Any]) -> str:
    if one["pricePerHour"] is None:
        return "not known"
    return f"${one['pricePerHour']:,.2f}/h{_SOURCES.get(one['priceSource'], '')}"
