"""How an instance is stored in the inventory: as the API shows it, in JSON.

First the facts that every row of Novita's list has, then the additions that a row may lack (price, cost, owner,
project), at last `changedAt`. So a comparison of bytes tells what has changed, and additions can be kept.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from instances.instance import Instance, check_time, format_time, from_json

ADDITIONS: Final = ("pricePerHour", "costPerHour", "priceSource", "prepaid", "owner", "project")
# In JSON a comma and a plain quote can't follow each other within a text.
_ADDITIONS_BEGIN: Final = b',"pricePerHour":'
_CHANGED_AT: Final = b',"changedAt":'


def encode_facts(instance: Instance) -> bytes:
    """Return the first part of the stored form."""
    return _dump(instance.facts_to_json())[:-1]


def encode_additions(instance: Instance) -> bytes:
    """Return the second part of the stored form. Both parts are equal when the instance is unchanged."""
    return b"," + _dump(instance.additions_to_json())[1:-1]


def seal(encoded: bytes, changed_at: datetime) -> bytes:
    """Complete the encoded facts and additions with the time of the last change."""
    return encoded + end(changed_at)


def end(changed_at: datetime) -> bytes:
    return f',"changedAt":"{format_time(changed_at)}"}}'.encode()


def recode(old: bytes, instance: Instance) -> bytes:
    """Return the stored form of an instance with the `changedAt` of an old one."""
    return encode_facts(instance) + encode_additions(instance) + old[old.rindex(_CHANGED_AT) :]


def parse(stored: bytes) -> dict[str, Any] | None:
    """Read a stored instance, with defaults for missing fields; None when it can't be read."""
    try:
        document = json.loads(stored)
        instance = from_json(document)
        return {**instance.to_json(), "changedAt": check_time(document.get("changedAt"))}
    except (ValueError, RecursionError):
        return None


def find_additions(stored: bytes) -> Mapping[str, Any] | None:
    """Return the additions of a stored instance; None when it has none, as in an earlier version."""
    cut = stored.rfind(_ADDITIONS_BEGIN)
    if cut < 0:
        return None
    try:
        additions: Mapping[str, Any] = json.loads(b"{" + stored[cut + 1 :])
    except ValueError:
        return None
    return additions if all(name in additions for name in ADDITIONS) else None


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
