"""Orders that meet half-way: a person's stop while everything is stopped, two at once, a start against a stop."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import requests

if TYPE_CHECKING:
    from soak.load import Load

# The later orders come at any moment of the first order's first round.
MAX_LAG_SECONDS: Final = 1.5
STOP_ALL: Final = "/api/instances/stop-all"
OPERATIONS: Final = "/api/operations"

Ids = tuple[str, ...]
# Returns the instances that must be stopped at the end, or None where a start or a cancellation leaves that open.
Order = Callable[[], Ids | None]


def give(load: "Load", rng: random.Random, ids: Ids) -> tuple[str, Ids]:
    """Let all instances run, and give orders that meet. Return what they are, and what must be stopped at the end."""
    load.account.run(ids)
    one, some = rng.choice(ids), tuple(rng.sample(ids, 5))

    def stop_all() -> Ids:
        return ids if read_id(load.order(rng, STOP_ALL, {})) else ()

    def stop_some(chosen: Ids) -> Order:
        return lambda: chosen if read_id(load.order(rng, STOP_ALL, {"ids": chosen})) else ()

    def stop(id_: str) -> Order:
        return lambda: (id_,) if is_accepted(load.stop_one(rng, id_)) else ()

    def start(*started: str) -> Order:
        def give_start() -> None:
            load.order(rng, OPERATIONS, {"kind": "start", "ids": started})

        return give_start

    def cancel_and_retry() -> None:
        """Another order may have ended the operation already."""
        id_ = read_id(load.order(rng, STOP_ALL, {}))
        if id_ and load.call(rng, "POST", f"{OPERATIONS}/{id_}/cancel"):
            load.order(rng, OPERATIONS, {"fromOperation": id_})

    meetings: dict[str, list[Order]] = {
        "stops of single instances, and of everything": [stop_all, *map(stop, some)],
        "three stops of everything": [stop_all, stop_all, stop_all],
        "stops of a selection, and of everything": [stop_some(some), stop_some(some), stop_all],
        "stops of a selection, of a part of it, and of one": [stop_some(some), stop_some(some[:3]), stop(some[0])],
        "two stops of one instance": [stop(one), stop(one)],
        "a stop and a start of one instance": [stop(one), start(one), stop(one)],
        "a start while everything is stopped": [stop_all, start(*some)],
        "a stop of everything that is cancelled and retried": [cancel_and_retry],
    }
    name = rng.choice(sorted(meetings))
    lags = sorted(rng.choice((0, rng.uniform(0, MAX_LAG_SECONDS))) for _ in meetings[name])
    with ThreadPoolExecutor(len(lags)) as people:
        stopped = list(people.map(_wait_and_give, lags, meetings[name]))
    return name, () if None in stopped else tuple({id_ for ids in stopped for id_ in ids or ()})


def _wait_and_give(lag: float, order: Order) -> Ids | None:
    time.sleep(lag)
    return order()


def is_accepted(answer: requests.Response | None) -> bool:
    return answer is not None and answer.ok


def read_id(answer: requests.Response | None) -> str | None:
    """Return the id of the operation that an answer names."""
    if answer is None or not answer.ok:
        return None
    body: dict[str, Any] = answer.json()
    return body.get("operationId") or body.get("id") or None
