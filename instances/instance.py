"""What an instance is: its fields, its stored form, and the one table of what each status means."""

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar, get_args

Group = Literal["running", "starting", "stopping", "stopped", "gone", "other"]
ActionName = Literal["stop", "start", "restart"]
ACTION_NAMES: Final[tuple[ActionName, ...]] = get_args(ActionName)
# What an instance is charged for in its status: its GPUs, its storage, or nothing yet. None: not known.
Charge = Literal["gpu", "storage", "nothing"]
PriceSource = Literal["instance", "product"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What the statuses of one group mean. The label is the word for people."""

    label: str
    # None: not known.
    is_billed: bool | None
    # It leaves this group without a request, so it is read again every few seconds.
    is_moving: bool = False
    # What these statuses show of an action. "Running" shows a restart done only together with a later start time.
    under_way: tuple[ActionName, ...] = ()
    done: tuple[ActionName, ...] = ()
    # What an operation may request: now, or as soon as Novita accepts it.
    requestable: tuple[ActionName, ...] = ()

    @property
    def needs_stop(self) -> bool:
        """Whether it is billed, and nothing stops it yet."""
        return self.is_billed is True and "stop" not in self.under_way


GROUPS: Final[dict[Group, Meaning]] = {
    "running": Meaning(label="Running", is_billed=True, done=("start", "restart"), requestable=("stop", "restart")),
    # The GPU is billed from "pulling" on; an instance in an earlier status can get there at any moment.
    "starting": Meaning(
        label="Starting", is_billed=True, is_moving=True, under_way=("start", "restart"), requestable=("stop",)
    ),
    # Billed until it is stopped, and it may fall back to running.
    "stopping": Meaning(label="Stopping", is_billed=True, is_moving=True, under_way=("stop",)),
    "stopped": Meaning(label="Stopped", is_billed=False, done=("stop",), requestable=("start",)),
    "gone": Meaning(label="Removed", is_billed=False, done=("stop",)),
    "other": Meaning(label="Other", is_billed=None, requestable=("stop",)),
}


@dataclass(frozen=True, slots=True)
class Status:
    """One status of Novita's: its group, the word for people, and the actions that Novita accepts in it."""

    group: Group
    label: str
    actions: tuple[ActionName, ...] = ()
    # The GPU is charged from "pulling" on.
    is_before_charge: bool = False


# Novita's documentation lists the statuses, all but "pending", which was seen.
STATUSES: Final[dict[str, Status]] = {
    "running": Status("running", "Running", ("stop", "restart")),
    "pending": Status("starting", "Pending", is_before_charge=True),
    "toCreate": Status("starting", "Creating", is_before_charge=True),
    "creating": Status("starting", "Creating", is_before_charge=True),
    "pulling": Status("starting", "Pulling image"),
    "toStart": Status("starting", "Starting"),
    "starting": Status("starting", "Starting"),
    "toRestart": Status("starting", "Restarting"),
    "restarting": Status("starting", "Restarting"),
    "toReset": Status("starting", "Resetting"),
    "resetting": Status("starting", "Resetting"),
    "toStop": Status("stopping", "Stopping"),
    "stopping": Status("stopping", "Stopping"),
    "toRemove": Status("stopping", "Removing"),
    "removing": Status("stopping", "Removing"),
    "freezing": Status("stopping", "Freezing"),
    "exited": Status("stopped", "Stopped", ("start",)),
    "removed": Status("gone", "Removed"),
    "migrating": Status("other", "Migrating"),
    "unknown": Status("other", "Unknown"),
}
# The status of an instance whose row has none, and of one that Novita no longer has.
UNKNOWN_STATUS: Final = "unknown"
REMOVED_STATUS: Final = "removed"
# The status that Novita gives an instance when it accepts the action.
FIRST_STATUSES: Final[dict[ActionName, str]] = {"start": "toStart", "stop": "toStop", "restart": "toRestart"}


_UNWRITABLE: Final = re.compile("[\x00\ud800-\udfff]")


class MalformedInstance(ValueError):
    """A row that is not an instance. The message gives the reason, without the row's contents."""


def get_status(name: str) -> Status:
    """Return the table's row for a status. A status that the table lacks keeps its name and allows no action."""
    return STATUSES.get(name) or Status("other", name)


def get_meaning(status: str) -> Meaning:
    return GROUPS[get_status(status).group]


def format_time(moment: dt.datetime) -> str:
    """Write a time as the API does: UTC, whole seconds, `2026-01-15T10:30:00Z`."""
    # isoformat() takes a fifth of the time of strftime(); an account of 10,000 has 40,000 times.
    return moment.astimezone(dt.UTC).isoformat()[:19] + "Z"


def parse_time(text: str) -> dt.datetime:
    """Read a time that `format_time` wrote."""
    return dt.datetime.fromisoformat(text)


def say_times(sentence: str) -> str:
    """Return a sentence for people: each time in it that `format_time` wrote is shown as "2026-01-15 10:30 UTC"."""
    return _TIME.sub(lambda found: f"{found[0][:10]} {found[0][11:16]} UTC", sentence)


def find_charge(status: str) -> Charge | None:
    """Return what an instance in a status is charged for."""
    known = get_status(status)
    is_billed = GROUPS[known.group].is_billed
    if is_billed is None:
        return None
    if is_billed:
        return "nothing" if known.is_before_charge else "gpu"
    return "storage" if known.group == "stopped" else "nothing"


# Prices of Novita are in units of 1e-5 USD. A price per GPU and hour above this limit is damage, and so are numbers of
# GPUs and gigabytes above theirs (Novita has at most 8 and 6144): a database can't hold what they would cost.
PRICE_UNITS_PER_USD: Final = 100_000
MAX_PRICE_UNITS: Final = 10_000 * PRICE_UNITS_PER_USD
MAX_GPUS: Final = 1000
MAX_STORAGE_GB: Final = 1_000_000
# Novita's prices for the container disk of a stopped instance (its documentation; a part is free).
FREE_STORAGE_GB: Final = 60
STORAGE_USD_PER_GB_DAY: Final = Decimal("0.005")
PREPAID_MODE: Final = "monthly"
FREE: Final = Decimal(0)


def find_hourly_price(units: int | None, gpu_num: int | None) -> Decimal | None:
    """Return the USD per hour of an instance with so many GPUs, from the units per GPU and hour."""
    if not units or not gpu_num or not 0 < gpu_num <= MAX_GPUS:
        return None
    return Decimal(units * gpu_num) / PRICE_UNITS_PER_USD


def to_usd(amount: Decimal | None) -> float | None:
    """Return an amount for JSON, rounded to five decimals."""
    return None if amount is None else float(round(amount, 5))


@dataclass(frozen=True, slots=True)
class PortMapping:
    port: int | None
    type: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One GPU instance as Novita last described it. Times are texts as in the API; None means never or unknown."""

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
    # USD per hour while the GPUs are charged.
    price_per_hour: Decimal | None = None
    price_source: PriceSource | None = None
    owner: str | None = None
    project: str | None = None

    @property
    def is_prepaid(self) -> bool:
        return self.billing_mode == PREPAID_MODE

    @property
    def charge(self) -> Charge | None:
        return find_charge(self.status)

    @property
    def storage_cost_per_hour(self) -> Decimal | None:
        """The USD per hour that the container disk costs while the instance is stopped."""
        if self.rootfs_size_gb is None or self.rootfs_size_gb > MAX_STORAGE_GB:
            return None
        return max(0, self.rootfs_size_gb - FREE_STORAGE_GB) * STORAGE_USD_PER_GB_DAY / 24

    @property
    def cost_per_hour(self) -> Decimal | None:
        """The USD per hour that the instance costs in its present status; None: not known."""
        if self.is_prepaid:
            return FREE
        match self.charge:
            case "gpu":
                return self.price_per_hour
            case "storage":
                return self.storage_cost_per_hour
            case "nothing":
                return FREE
        return None

    @property
    def group(self) -> Group:
        return get_status(self.status).group

    @property
    def meaning(self) -> Meaning:
        return GROUPS[self.group]

    @property
    def label(self) -> str:
        """The status in the word for people; `status` is Novita's own."""
        return get_status(self.status).label

    @property
    def actions(self) -> tuple[ActionName, ...]:
        return get_status(self.status).actions

    def to_json(self) -> dict[str, Any]:
        """Return the instance as the API shows it, without `changedAt`, which the inventory adds."""
        return {**self.facts_to_json(), **self.additions_to_json()}

    def facts_to_json(self) -> dict[str, Any]:
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

    def additions_to_json(self) -> dict[str, Any]:
        """Return the fields that Novita's rows may lack."""
        return {
            "pricePerHour": to_usd(self.price_per_hour),
            "costPerHour": to_usd(self.cost_per_hour),
            "priceSource": self.price_source,
            "prepaid": self.is_prepaid,
            "owner": self.owner,
            "project": self.project,
        }


def from_json(stored: object) -> Instance:
    """Read what `to_json` returned, in this or another version.

    A missing or null field gets its default. Raises MalformedInstance without an id or a status, and for a value of a
    wrong type.
    """
    if not isinstance(stored, dict):
        raise MalformedInstance(f"a stored instance is {name_type(stored)}, not an object")
    instance_id, status = _get_text(stored, "id"), _get_text(stored, "status")
    if not instance_id or not status:
        raise MalformedInstance("a stored instance has no id or no status")
    status_error = _get(stored, "statusError", dict)
    return Instance(
        id=instance_id,
        name=_get_text(stored, "name") or "",
        status=status,
        region=_get_text(stored, "region") or "",
        cluster_id=_get_text(stored, "clusterId") or "",
        product_id=_get_text(stored, "productId") or "",
        product_name=_get_text(stored, "productName") or "",
        gpu_num=_get(stored, "gpuNum", int),
        cpu_num=_get(stored, "cpuNum", int),
        memory_gb=_get(stored, "memoryGb", int),
        rootfs_size_gb=_get(stored, "rootfsSizeGb", int),
        image_url=_get_text(stored, "imageUrl") or "",
        billing_mode=_get_text(stored, "billingMode"),
        spot_status=_get_text(stored, "spotStatus"),
        created_at=_get_time(stored, "createdAt"),
        last_started_at=_get_time(stored, "lastStartedAt"),
        last_stopped_at=_get_time(stored, "lastStoppedAt"),
        end_time=_get_time(stored, "endTime"),
        status_error=None
        if status_error is None
        else {name: _get_text(status_error, name) or "" for name in ("state", "message")},
        port_mappings=tuple(_get_port_mapping(item) for item in _get(stored, "portMappings", list) or ()),
        price_per_hour=get_price(stored),
        price_source=get_price_source(stored),
        owner=_get_text(stored, "owner"),
        project=_get_text(stored, "project"),
    )


def get_price(stored: Mapping[str, Any]) -> Decimal | None:
    """Return the stored price per hour. Raises MalformedInstance."""
    price = stored.get("pricePerHour")
    if price is None:
        return None
    if isinstance(price, bool) or not isinstance(price, int | float) or not math.isfinite(price) or price < 0:
        raise MalformedInstance("the stored pricePerHour is not a price")
    return Decimal(str(price))


def get_price_source(stored: Mapping[str, Any]) -> PriceSource | None:
    source = _get_text(stored, "priceSource")
    return "instance" if source == "instance" else "product" if source == "product" else None


def check_time(text: object) -> str:
    """Return a time in the form of `format_time`. Raises MalformedInstance for anything else."""
    if isinstance(text, str) and _TIME.fullmatch(text):
        try:
            parse_time(text)
        except ValueError as exc:
            raise MalformedInstance("a stored time is malformed") from exc
        return text
    raise MalformedInstance("a stored time is malformed")


_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

_Kind = TypeVar("_Kind", str, int, list[Any], dict[str, Any])


def _get(stored: Mapping[str, Any], name: str, kind: type[_Kind]) -> _Kind | None:
    value = stored.get(name)
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise MalformedInstance(f"the stored {name} is {name_type(value)}")


def _get_text(stored: Mapping[str, Any], name: str) -> str | None:
    text = _get(stored, name, str)
    if text is not None:
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise MalformedInstance(f"the stored {name} is not valid text") from exc
    return text


def _get_time(stored: Mapping[str, Any], name: str) -> str | None:
    return None if stored.get(name) is None else check_time(stored[name])


def _get_port_mapping(item: object) -> PortMapping:
    if not isinstance(item, dict):
        raise MalformedInstance(f"a stored port mapping is {name_type(item)}")
    return PortMapping(
        port=_get(item, "port", int), type=_get_text(item, "type") or "", endpoint=_get_text(item, "endpoint") or ""
    )


def clean_text(text: str, length: int | None = None) -> str:
    """Return a text that a database and a terminal accept, cut to the length of its column.

    PostgreSQL refuses NUL. Half a surrogate pair, which a shell argument or JSON can contain, can't be encoded.
    """
    return _UNWRITABLE.sub("�", text)[:length]


def clean_texts(texts: list[str]) -> list[str]:
    return [clean_text(text) for text in texts]


def name_type(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
