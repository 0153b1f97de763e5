"""One line of the activity, and its place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, get_args

from django.db.models import Model, Q

from instances.errors import InvalidRequest

Kind = Literal["action", "operation", "policy", "change", "sync", "login", "settings"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Outcome = Literal["done", "failed", "running"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR: Final = re.compile(r"([0-9]{1,17})-([0-9])-([0-9]{1,39})", re.ASCII)
# The largest key of a record.
_MAX_KEY: Final = 2**63 - 1


class Place(NamedTuple):
    """Where an event stands: the newest first; events of the same moment by their source, then by key."""

    at: datetime
    source: int
    key: int

    @property
    def order(self) -> tuple[int, int, int]:
        return (-_count_microseconds(self.at), self.source, -self.key)

    def encode(self) -> str:
        return f"{_count_microseconds(self.at)}-{self.source}-{self.key}"


def _count_microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def read_cursor(text: str) -> Place:
    """Read the place of the last event of a page. Raises InvalidRequest."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidRequest(fields={"before": "Not a place in the activity. Use `before` of the last answer."})
    microseconds, source, key = map(int, match.groups())
    return Place(_EPOCH + timedelta(microseconds=microseconds), source, key)


@dataclass(frozen=True)
class Event:
    """Who did what, with which result, in the server's words.

    `record` has the name of the model and the key of the record with the details.
    """

    place: Place
    kind: Kind
    what: str
    result: str
    record: tuple[str, str]
    outcome: Outcome = "done"
    actor: str = ""
    reason: str = ""
    # The instance that it is about, if it is about one.
    instance_id: str = ""
    instance_name: str = ""


@dataclass(frozen=True)
class Filter:
    """Which events are wanted. An actor's tokens count as the actor. `before` is the end of the page before."""

    kind: Kind | None = None
    actor: str = ""
    instance_id: str = ""
    before: Place | None = None

    def wants(self, *kinds: Kind) -> bool:
        return self.kind is None or self.kind in kinds

    def find_condition(self, source: int, at: str, key: Any = None) -> Q:
        """Return the condition for the records of a source whose events are beyond `before`."""
        place = self.before
        if place is None:
            return Q()
        if source != place.source:
            return Q(**{f"{at}__lt" if source < place.source else f"{at}__lte": place.at})
        same = Q(**{at: place.at, "pk__lt": min(place.key, _MAX_KEY) if key is None else key})
        return Q(**{f"{at}__lt": place.at}) | same

    def find_actor(self, model: type[Model], field: str) -> Q:
        """Return the condition for an actor's records.

        The names that occur are read from an index, and the actor's are picked here: a pattern in the condition would
        be tried on each record of all actors.
        """
        if not self.actor:
            return Q()
        occurring = model._default_manager.order_by().values_list(field, flat=True).distinct()
        own = [name for name in occurring if name == self.actor or name.startswith(f"{self.actor} (")]
        return Q(**{f"{field}__in": own})


def sort(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.place.order)
