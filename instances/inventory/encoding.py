"""How an instance is stored in the inventory: as the API shows it, in JSON.

First the facts that every row of Novita's list has, then the price and the cost, which a row may lack, then owner and
project, which are the panel's own, at last `changedAt`. So a comparison of bytes tells what has changed, and a part can
be kept. An *encoded* instance has facts and price, and no end yet.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from instances.instance import GROUPS, Instance, check_time, format_time, from_json

# In JSON a comma and a plain quote can't follow each other within a text.
PRICE_BEGINS: Final = b',"pricePerHour":'
LABELS: Final = ("owner", "project")
_CHANGED_AT: Final = b',"changedAt":'
_MOVING_MARKS: Final = [f',"group":"{name}",'.encode() for name, meaning in GROUPS.items() if meaning.is_moving]

_dump_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def dump(document: Mapping[str, Any]) -> bytes:
    return _dump_text(document).encode()


def encode(instance: Instance) -> bytes:
    """Return the facts and the price of an instance."""
    document = instance.to_json()
    for name in LABELS:
        del document[name]
    return dump(document)[:-1]


def encode_facts(instance: Instance) -> bytes:
    return dump(instance.facts_to_json())[:-1]


def encode_additions(instance: Instance) -> bytes:
    """Return price, cost, owner and project, which follow the facts."""
    return b"," + dump(instance.additions_to_json())[1:-1]


def encode_labels(owner: str | None, project: str | None) -> bytes:
    """Return what follows an encoded instance."""
    return b"," + dump({"owner": owner, "project": project})[1:-1]


def seal(encoded: bytes, changed_at: str) -> bytes:
    """Complete facts and additions with the time of the last change."""
    return b'%b,"changedAt":"%b"}' % (encoded, changed_at.encode())


def end(changed_at: datetime) -> bytes:
    """Return what `seal` appends."""
    return seal(b"", format_time(changed_at))


def recode(old: bytes, instance: Instance) -> bytes:
    """Return the stored form of an instance with the `changedAt` of an old one."""
    return encode_facts(instance) + encode_additions(instance) + old[old.rindex(_CHANGED_AT) :]


def without_time(stored: bytes) -> bytes:
    """Return a stored instance without `changedAt`."""
    return stored[: stored.rindex(_CHANGED_AT)]


def read_row(stored: bytes) -> Instance:
    """Return an instance from a row of this version. Raises MalformedInstance for others."""
    return from_json(json.loads(stored))


def decode(encoded: bytes) -> Instance:
    """Return the instance that was encoded."""
    return from_json(json.loads(encoded + b"}"))


def parse(stored: bytes) -> dict[str, Any] | None:
    """Read a stored instance, with defaults for missing fields; None when it can't be read."""
    try:
        document = json.loads(stored)
        instance = from_json(document)
        return {**instance.to_json(), "changedAt": check_time(document.get("changedAt"))}
    except (ValueError, RecursionError):
        return None


def is_moving(encoded: bytes) -> bool:
    """Tell whether an encoded or stored instance is starting or stopping."""
    return any(mark in encoded for mark in _MOVING_MARKS)
