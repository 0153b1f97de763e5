"""What differs between the cached inventory and what Novita has: pure comparison, without a call."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypedDict, TypeVar

from instances.instance import format_time
from instances.inventory import encoding, rows
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


# Encoding 100,000 changes for the record blocks all other threads for half a second.
MAX_LISTED: Final = 5000

Item = TypeVar("Item", Named, Changed)


@dataclass
class Listed(Generic[Item]):
    """The instances of one kind: the first ones by name, and the number of all."""

    count: int = 0
    first: list[Item] = field(default_factory=list)

    def add(self, item: Item) -> None:
        self.count += 1
        if self.count <= MAX_LISTED:
            self.first.append(item)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Item]:
        return iter(self.first)


@dataclass(frozen=True)
class Difference:
    """What a synchronization found."""

    added: Listed[Named] = field(default_factory=Listed)
    changed: Listed[Changed] = field(default_factory=Listed)
    unchanged: int = 0
    removed: Listed[Named] = field(default_factory=Listed)
    unconfirmed: Listed[Named] = field(default_factory=Listed)

    def describe(self) -> str:
        """Return the counts that aren't zero: "1 new, 1 gone"."""
        return say_counts(len(self.added), len(self.changed), len(self.removed), len(self.unconfirmed))


def say_counts(added: int, changed: int, removed: int, unconfirmed: int) -> str:
    counts = {"new": added, "changed": changed, "gone": removed, "not confirmed as gone": unconfirmed}
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)


def compare(
    stored: Mapping[str, bytes],
    found: dict[str, bytes],
    unconfirmed: Set[str],
    now: datetime,
    additions: Additions,
) -> Difference:
    """Compare the stored rows with the encoded instances that Novita has, and complete these to the new rows.

    `found` is changed in place: a second dictionary of 100,000 rows takes 70 MB. `unconfirmed` are the stored instances
    that were not found, and not confirmed as gone: they stay as they are. A stored instance in neither is removed.
    """
    added, removed, changed, unchanged = Listed[Named](), Listed[Named](), Listed[Changed](), 0
    changed_at = format_time(now)
    for id_, encoded in found.items():
        found[id_], fields = _compare_one(id_, stored.get(id_), encoded, changed_at, additions)
        if fields is None:
            added.add(_name(id_, encoded))
        elif fields:
            changed.add(Changed(id=id_, name=rows.read_name(encoded), fields=fields))
        else:
            unchanged += 1
    found.update((id_, stored[id_]) for id_ in unconfirmed)
    kept = Listed[Named]()
    for id_, row in stored.items():
        if id_ not in found:
            removed.add(_name(id_, row))
        elif id_ in unconfirmed:
            kept.add(_name(id_, row))
    return Difference(added, changed, unchanged, removed, kept)


def _compare_one(
    id_: str, old: bytes | None, encoded: bytes, changed_at: str, additions: Additions
) -> tuple[bytes, dict[str, tuple[Any, Any]] | None]:
    """Return an instance's new row, and the fields that changed; None for a new instance.

    Most instances are unchanged, and are compared without being read.
    """
    if old is not None and rows.is_unchanged(old, encoded, has_price_list=additions.has_prices):
        return old, {}
    before = rows.parse(id_.encode(), old) if old is not None else None
    if before is None:
        labels = additions.find_labels(id_, rows.read_name(encoded))
        return encoding.seal(encoded + encoding.encode_labels(*labels), changed_at), None
    instance = additions.complete(encoding.decode(encoded), before)
    fields = compare_fields(before, instance.to_json())
    # Another version may have stored the same values in another form: rewritten, and not changed.
    whole = encoding.encode_facts(instance) + encoding.encode_additions(instance)
    return encoding.seal(whole, changed_at if fields else before["changedAt"]), fields


def _name(id_: str, encoded: bytes) -> Named:
    return {"id": id_, "name": rows.read_name(encoded)}


def compare_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, each with its old and its new value."""
    return {
        name: (before.get(name), value)
        for name, value in after.items()
        if name not in _DERIVED and before.get(name) != value
    }
