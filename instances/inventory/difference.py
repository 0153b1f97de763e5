"""What differs between the cached inventory and what Novita has: pure comparison, without a call."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypedDict

from instances.instance import Instance, get_meaning, parse_time
from instances.inventory import encoding
from instances.inventory.additions import Additions

# Fields that follow from others, or that the inventory adds.
_DERIVED: Final = {"group", "actions", "costPerHour", "prepaid", "changedAt"}


class Named(TypedDict):
    id: str
    name: str


class Changed(TypedDict):
    id: str
    name: str
    fields: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Difference:
    """What a synchronization found, and the rows that it publishes: id → stored form."""

    rows: dict[str, bytes] = field(default_factory=dict)
    # The instances that were found, with their prices.
    found: list[Instance] = field(default_factory=list)
    moving: list[str] = field(default_factory=list)
    added: list[Named] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)
    unchanged: int = 0
    removed: list[Named] = field(default_factory=list)
    unconfirmed: list[Named] = field(default_factory=list)

    def describe(self) -> str:
        """Return the counts that aren't zero: "1 new, 1 gone"."""
        return say_counts(len(self.added), len(self.changed), len(self.removed), len(self.unconfirmed))


def say_counts(added: int, changed: int, removed: int, unconfirmed: int) -> str:
    counts = {"new": added, "changed": changed, "gone": removed, "not confirmed as gone": unconfirmed}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def compare(
    stored: Mapping[str, bytes],
    found: Collection[Instance],
    unconfirmed: Collection[str],
    now: datetime,
    additions: Additions,
) -> Difference:
    """Compare the stored rows with the instances that Novita has.

    `unconfirmed` are the stored instances that were not found, and not confirmed as gone: they stay as they are. A
    stored instance in neither is removed.
    """
    rows = {id_: stored[id_] for id_ in unconfirmed}
    moving = [id_ for id_ in unconfirmed if _is_moving(stored[id_])]
    added, changed, unchanged = [], [], 0
    completed = []
    for instance in found:
        old = stored.get(instance.id)
        rows[instance.id], fields, with_price = _compare_one(old, instance, now, additions)
        completed.append(with_price)
        if instance.meaning.is_moving:
            moving.append(instance.id)
        if fields is None:
            added.append(Named(id=instance.id, name=instance.name))
        elif fields:
            changed.append(Changed(id=instance.id, name=instance.name, fields=fields))
        else:
            unchanged += 1
    return Difference(
        rows=rows,
        found=completed,
        moving=moving,
        added=added,
        changed=changed,
        unchanged=unchanged,
        removed=[_name(id_, value) for id_, value in stored.items() if id_ not in rows],
        unconfirmed=[_name(id_, stored[id_]) for id_ in unconfirmed],
    )


def _compare_one(
    old: bytes | None, instance: Instance, now: datetime, additions: Additions
) -> tuple[bytes, dict[str, tuple[Any, Any]] | None, Instance]:
    """Return an instance's new stored form, the fields that changed (None: it is new), and the instance with additions.

    Most instances are unchanged, and are compared without being parsed.
    """
    facts = encoding.encode_facts(instance)
    before = encoding.find_additions(old) if old is not None and old.startswith(facts) else None
    if old is not None and before is not None:
        completed = additions.complete(instance, before, has_same_facts=True)
        if old.startswith(encoding.encode_additions(completed), len(facts)):
            return old, {}, completed
    before = encoding.parse(old) if old is not None else None
    completed = additions.complete(instance, before, has_same_facts=False)
    encoded = facts + encoding.encode_additions(completed)
    if before is None:
        return encoding.seal(encoded, now), None, completed
    fields = compare_fields(before, completed.to_json())
    # Another version may have stored the same values in another form: rewritten, and not changed.
    return encoding.seal(encoded, now if fields else parse_time(before["changedAt"])), fields, completed


def compare_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, each with its old and its new value."""
    return {
        name: (before.get(name), value)
        for name, value in after.items()
        if name not in _DERIVED and before.get(name) != value
    }


def _is_moving(stored: bytes) -> bool:
    instance = encoding.parse(stored)
    return instance is not None and get_meaning(instance["status"]).is_moving


def _name(id_: str, stored: bytes) -> Named:
    return {"id": id_, "name": str((encoding.parse(stored) or {}).get("name", ""))}
