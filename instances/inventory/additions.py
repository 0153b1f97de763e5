"""Completes instances with what Novita's rows may lack: the price, and the panel's own owner and project.

A fact that only some rows have must not change the listing at each synchronization. So the last known price stays, and
owner and project are looked up for new names only; `refresh` brings all instances up to date.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Final

from django.db import DatabaseError

from instances.costs import labels, products
from instances.costs.labels import LabelBook, Labels
from instances.costs.prices import PriceList
from instances.errors import CacheUnavailable
from instances.instance import Instance, from_json, get_price, get_price_source
from instances.inventory import encoding, exchanges, store

log = logging.getLogger(__name__)

# An instance that is written between a read and its exchange is read again.
MAX_ATTEMPTS: Final = 3
# A change of one of these makes another price.
_PRICED_BY: Final = ("gpuNum", "productId", "billingMode")


class Additions:
    """The price list and the labels at the time of one synchronization."""

    def __init__(self, prices: PriceList | None, book: LabelBook | None = None) -> None:
        self._prices = prices
        self._book = book

    @property
    def has_prices(self) -> bool:
        return self._prices is not None

    def encode(self, instance: Instance) -> bytes:
        """Return an instance that Novita listed in its stored form, with a price from the list where it has none."""
        price = self._prices.find(instance) if self._prices is not None and instance.price_per_hour is None else None
        if price is not None:
            instance = dataclasses.replace(instance, price_per_hour=price, price_source="product")
        return encoding.encode(instance)

    def complete(self, instance: Instance, before: Mapping[str, Any] | None) -> Instance:
        """Return the instance with its price and labels. `before` is the stored instance."""
        shown = instance.to_json() if before else {}
        price, source = instance.price_per_hour, instance.price_source
        if source != "instance" and before and _is_equal(before, shown, _PRICED_BY):
            price, source = get_price(before), get_price_source(before)
        if self._prices is not None and source != "instance":
            price = self._prices.find(instance)
            source = None if price is None else "product"
        found = (
            Labels(before["owner"], before["project"])
            if before and before["name"] == instance.name
            else self.find_labels(instance.id, instance.name)
        )
        return dataclasses.replace(
            instance, price_per_hour=price, price_source=source, owner=found.owner, project=found.project
        )

    def find_labels(self, instance_id: str, name: str) -> Labels:
        """Return owner and project of a new instance, or of one with a new name."""
        if self._book is None:
            try:
                self._book = labels.read_book()
            except DatabaseError as exc:
                # The next refresh adds them.
                log.warning("owners and projects can't be read: %s", exc)
                self._book = LabelBook({}, [])
        return self._book.find(instance_id, name)


def _is_equal(before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(before[name] == after[name] for name in names)


def read_additions() -> Additions:
    """Return the additions for a synchronization. Without a price list, earlier prices stay."""
    try:
        return Additions(products.read())
    except CacheUnavailable as exc:
        log.debug("price list not read: %s", exc)
        return Additions(None)


def refresh() -> int:
    """Give all cached instances their present price, owner and project. Return how many have changed.

    Raises CacheUnavailable and DatabaseError.
    """
    exchanged = 0
    for _ in range(MAX_ATTEMPTS):
        changes = []
        rows = store.read_stored().rows
        # After the rows: an annotation that comes between the two changes its row, which is then read again.
        additions = Additions(products.read(), labels.read_book())
        for id_, old in rows.items():
            before = encoding.parse(old)
            if before is not None:
                new = encoding.recode(old, additions.complete(from_json(before), None))
                if new != old:
                    changes.append((id_, old, new))
        done = exchanges.exchange(changes)
        exchanged += done
        if done == len(changes):
            break
    return exchanged


def label(instance_id: str, found: Labels) -> None:
    """Give one cached instance its owner and project. Raises CacheUnavailable."""
    for _ in range(MAX_ATTEMPTS):
        old = exchanges.find_stored(instance_id)
        before = encoding.parse(old) if old is not None else None
        if old is None or before is None:
            return
        instance = dataclasses.replace(from_json(before), owner=found.owner, project=found.project)
        new = encoding.recode(old, instance)
        if new == old or exchanges.exchange([(instance_id, old, new)]):
            return


def price_first(rows: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Give a new inventory its prices when the price list came while it was read; return its rows as they are then."""
    try:
        if products.read() is None or not refresh():
            return rows
        return store.read_stored().rows
    except (CacheUnavailable, DatabaseError) as exc:
        log.debug("the inventory shows its prices later: %s", exc)
        return rows
