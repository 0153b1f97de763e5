"""Novita's price list, read by a worker at most every 10 minutes and shared through Redis."""

import logging
from typing import Final

from instances import redis_client
from instances.costs.prices import PriceList, decode, make_price_list
from instances.errors import NovitaError
from instances.novita.client import get_novita
from instances.outgoing.deadline import Budget
from instances.redis_client import get_redis, redis_errors

log = logging.getLogger(__name__)

READ_EVERY_SECONDS: Final = 600
RETRY_SECONDS: Final = 60
CALL_SECONDS: Final = 30


def read() -> PriceList | None:
    """Return the last price list that a worker read; None when there is none. Raises CacheUnavailable."""
    with redis_errors():
        text = get_redis().get(redis_client.PRODUCTS)
    return decode(text) if isinstance(text, bytes) else None


def refresh() -> PriceList | None:
    """Read the price list at Novita, unless a worker did so lately; return it when it was read.

    Raises CacheUnavailable. The last price list stays when Novita can't be read.
    """
    if not redis_client.take_turn(redis_client.PRODUCTS_TURN, READ_EVERY_SECONDS):
        return None
    try:
        found = make_price_list(get_novita().list_products(Budget(CALL_SECONDS)))
    except NovitaError as exc:
        log.info("price list not read: %s", exc.message)
        with redis_errors():
            get_redis().expire(redis_client.PRODUCTS_TURN, RETRY_SECONDS)
        return None
    with redis_errors():
        get_redis().set(redis_client.PRODUCTS, found.encode(), ex=redis_client.KEEP_SECONDS)
    return found
