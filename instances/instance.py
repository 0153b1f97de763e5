"""What an instance is: its fields, its status groups, which actions are possible.

Reads Novita's rows by the fields that are wanted, so that none of the secrets in them (`sshPassword`, `envs`,
`command`, `connectComponent…`) ever gets further than here.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Group = Literal["running", "starting", "stopping", "stopped", "gone", "other"]
ActionName = Literal["start", "stop", "restart"]

# Novita's documentation lists the statuses; "pending" is seen, not documented. An unknown one is kept as it is.
GROUPS: Final[dict[Group, tuple[str, ...]]] = {
    "running": ("running",),
    "starting": (
        "pending",
        "toCreate",
        "creating",
        "pulling",
        "toStart",
        "starting",
        "toRestart",
        "restarting",
        "toReset",
        "resetting",
    ),
    "stopping": ("toStop", "stopping", "toRemove", "removing", "freezing"),
    "stopped": ("exited",),
    "gone": ("removed",),
    "other": ("migrating",),
}
_GROUP_OF: Final = {status: group for group, statuses in GROUPS.items() for status in statuses}

# Novita takes a start from "exited" only, a stop and a restart from "running" only.
_ACTIONS: Final[dict[str, tuple[ActionName, ...]]] = {"running": ("stop", "restart"), "exited": ("start",)}


class MalformedInstance(ValueError):
    """A row of Novita's that is no instance; the message says why, without the row's contents."""


def get_group(status: str) -> Group:
    return _GROUP_OF.get(status, "other")


def get_actions(status: str) -> tuple[ActionName, ...]:
    return _ACTIONS.get(status, ())


def format_time(moment: dt.datetime) -> str:
    """Write a time as the API does: UTC, whole seconds, `2026-01-15T10:30:00Z`."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> dt.datetime:
    """Read back what `format_time` wrote."""
    return dt.datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class PortMapping:
    port: int | None
    type: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One GPU instance as Novita last described it. Times are as the API writes them; None: never, or not known."""

    id: str
    name: str
    status: str
    region: str
    cluster_id: str
    product_id: str
    product_name: str
    gpu_num: int | None
    cpu_num: int | None
    memory_gb: int | None
    rootfs_size_gb: int | None
    image_url: str
    billing_mode: str | None
    spot_status: str | None
    created_at: str | None
    last_started_at: str | None
    last_stopped_at: str | None
    end_time: str | None
    status_error: dict[str, str] | None
    port_mappings: tuple[PortMapping, ...]

    @property
    def group(self) -> Group:
        return get_group(self.status)

    @property
    def actions(self) -> tuple[ActionName, ...]:
        return get_actions(self.status)

    def to_json(self) -> dict[str, Any]:
        """Return the instance as the API shows it, but for `changedAt`, which only the copy knows."""
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "group": self.group,
            "actions": list(self.actions),
            "region": self.region,
            "clusterId": self.cluster_id,
            "productId": self.product_id,
            "productName": self.product_name,
            "gpuNum": self.gpu_num,
            "cpuNum": self.cpu_num,
            "memoryGb": self.memory_gb,
            "rootfsSizeGb": self.rootfs_size_gb,
            "imageUrl": self.image_url,
            "billingMode": self.billing_mode,
            "spotStatus": self.spot_status,
            "createdAt": self.created_at,
            "lastStartedAt": self.last_started_at,
            "lastStoppedAt": self.last_stopped_at,
            "endTime": self.end_time,
            "statusError": self.status_error,
            "portMappings": [
                {"port": mapping.port, "type": mapping.type, "endpoint": mapping.endpoint}
                for mapping in self.port_mappings
            ],
        }


def from_novita(row: object) -> Instance:
    """Read a row of Novita's listing, or its answer for one instance. Raises MalformedInstance without a usable id.

    Only `id` must be there. Novita sends 64-bit numbers as strings, leaves fields out, and sends null (seen, not
    documented); a field that can't be read is None or "", never a guess.
    """
    if not isinstance(row, dict):
        raise MalformedInstance(f"a row is {_name_type(row)} in place of an object")
    instance_id = _read_text(row.get("id"))
    if not instance_id:
        raise MalformedInstance("a row has no id")
    return Instance(
        id=instance_id,
        name=_read_text(row.get("name")),
        status=_read_text(row.get("status")) or "unknown",
        region=_read_text(row.get("clusterName")) or _read_text(row.get("clusterId")),
        cluster_id=_read_text(row.get("clusterId")),
        product_id=_read_text(row.get("productId")),
        product_name=_read_text(row.get("productName")),
        gpu_num=read_integer(row.get("gpuNum")),
        cpu_num=read_integer(row.get("cpuNum")),
        memory_gb=read_integer(row.get("memory")),
        rootfs_size_gb=read_integer(row.get("rootfsSize")),
        image_url=_read_text(row.get("imageUrl")),
        billing_mode=_read_text(row.get("billingMode")) or None,
        spot_status=_read_text(row.get("spotStatus")) or None,
        created_at=_read_time(row.get("createdAt")),
        last_started_at=_read_time(row.get("lastStartedAt")),
        last_stopped_at=_read_time(row.get("lastStoppedAt")),
        end_time=_read_time(row.get("endTime")),
        status_error=_read_status_error(row.get("statusError")),
        port_mappings=_read_port_mappings(row.get("portMappings")),
    )


def from_json(shown: Mapping[str, Any]) -> Instance:
    """Read back what `to_json` returned."""
    return Instance(
        id=shown["id"],
        name=shown["name"],
        status=shown["status"],
        region=shown["region"],
        cluster_id=shown["clusterId"],
        product_id=shown["productId"],
        product_name=shown["productName"],
        gpu_num=shown["gpuNum"],
        cpu_num=shown["cpuNum"],
        memory_gb=shown["memoryGb"],
        rootfs_size_gb=shown["rootfsSizeGb"],
        image_url=shown["imageUrl"],
        billing_mode=shown["billingMode"],
        spot_status=shown["spotStatus"],
        created_at=shown["createdAt"],
        last_started_at=shown["lastStartedAt"],
        last_stopped_at=shown["lastStoppedAt"],
        end_time=shown["endTime"],
        status_error=shown["statusError"],
        port_mappings=tuple(PortMapping(**mapping) for mapping in shown["portMappings"]),
    )


def clean_text(text: str, length: int | None = None) -> str:
    """Return a text as a database can hold it: without NUL, which PostgreSQL refuses, and cut to the column."""
    return text.replace("\x00", "�")[:length]


def clean_texts(texts: list[str]) -> list[str]:
    return [clean_text(text) for text in texts]


def read_integer(value: object) -> int | None:
    """Read a whole number that may come as a number or in a string; None when it is neither."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > 30:
        return None
    try:
        return int(value)
    except OverflowError:
        return None
    except ValueError:
        is_decimal = isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\.\d*\s*", value)
        return int(float(value)) if is_decimal else None


def _read_text(value: object) -> str:
    if isinstance(value, str):
        # JSON can carry half a character pair, which can't be written as UTF-8.
        return value.encode("utf-8", "replace").decode("utf-8")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _read_time(value: object) -> str | None:
    seconds = read_integer(value)
    # "0" stands for never; an `endTime` of "-1" for pay as you go.
    if seconds is None or seconds <= 0:
        return None
    try:
        return format_time(dt.datetime.fromtimestamp(seconds, dt.UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _read_status_error(value: object) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return None
    error = {"state": _read_text(value.get("state")), "message": _read_text(value.get("message"))}
    return error if any(error.values()) else None


def _read_port_mappings(value: object) -> tuple[PortMapping, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(
        PortMapping(
            port=read_integer(item.get("port")),
            type=_read_text(item.get("type")),
            endpoint=_read_text(item.get("endpoint")),
        )
        for item in value
        if isinstance(item, dict)
    )


def _name_type(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
