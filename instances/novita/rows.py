"""Reads instances in Novita's answers, and the numbers in all of them.

Only the needed fields are read. The secrets in the rows (`sshPassword`, `envs`, `command`, `connectComponent…`) never
get further than this module.
"""

import datetime as dt
import re

from instances.instance import (
    MAX_PRICE_UNITS,
    UNKNOWN_STATUS,
    Instance,
    MalformedInstance,
    PortMapping,
    find_hourly_price,
    name_type,
)


def from_novita(row: object) -> Instance:
    """Read a row of Novita's list, or its answer for one instance. Raises MalformedInstance without a usable id.

    Only `id` is required. Novita sends 64-bit numbers as strings, leaves fields out, and sends null (seen, not
    documented). An unreadable field becomes None or "", never a guess.
    """
    if not isinstance(row, dict):
        raise MalformedInstance(f"a row is {name_type(row)}, not an object")
    instance_id = _read_text(row.get("id"))
    if not instance_id:
        raise MalformedInstance("a row has no id")
    gpu_num = read_integer(row.get("gpuNum"))
    price = find_hourly_price(read_price_units(row.get("instancePrice")), gpu_num)
    return Instance(
        id=instance_id,
        name=_read_text(row.get("name")),
        status=_read_text(row.get("status")) or UNKNOWN_STATUS,
        region=_read_text(row.get("clusterName")) or _read_text(row.get("clusterId")),
        cluster_id=_read_text(row.get("clusterId")),
        product_id=_read_text(row.get("productId")),
        product_name=_read_text(row.get("productName")),
        gpu_num=gpu_num,
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
        price_per_hour=price,
        price_source=None if price is None else "instance",
    )


def read_price_units(value: object) -> int | None:
    """Return a price of Novita's in 1e-5 USD. 0, null and everything that is no price mean unknown, never free."""
    units = read_integer(value)
    return units if units is not None and 0 < units <= MAX_PRICE_UNITS else None


def read_integer(value: object) -> int | None:
    """Read an integer from a number or a string; None for anything else."""
    if isinstance(value, str) and len(value) <= 30 and value.isascii() and value.isdigit():
        return int(value)
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
        # JSON can contain half a surrogate pair, which can't be encoded as UTF-8.
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _read_time(value: object) -> str | None:
    seconds = read_integer(value)
    # "0" means never, and an `endTime` of "-1" pay as you go.
    if seconds is None or seconds <= 0:
        return None
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()[:19] + "Z"
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
