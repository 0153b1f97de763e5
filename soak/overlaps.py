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

Order = Callable[[], requests.Response | None]


def give(load: "Load", rng: random.Random, ids: tuple[str, ...]) -> str:
    """Let all instances run, give orders that meet, and return what they are."""
    load.account.run(ids)
    one, some = rng.choice(ids), tuple(rng.sample(ids, 5))

    def stop_all() -> requests.Response | None:
        return load.order(rng, STOP_ALL, {})

    def stop(id_: str) -> Order:
        return lambda: load.stop_one(rng, id_)

    def stop_some(ids: tuple[str, ...]) -> Order:
        return lambda: load.order(rng, STOP_ALL, {"ids": ids})

    def start(*started: str) -> Order:
        return lambda: load.order(rng, OPERATIONS, {"kind": "start", "ids": started})

    meetings: dict[str, list[Order]] = {
        "stops of single instances, and of everything": [stop_all, *map(stop, some)],
        "three stops of everything": [stop_all, stop_all, stop_all],
        "stops of a selection, and of everything": [stop_some(some), stop_some(some), stop_all],
        "stops of a selection, of a part of it, and of one": [stop_some(some), stop_some(some[:3]), stop(some[0])],
        "two stops of one instance": [stop(one), stop(one)],
        "a stop and a start of one instance": [stop(one), start(one), stop(one)],
        "a start while everything is stopped": [stop_all, start(*some)],
        "a stop of everything that is cancelled and retried": [lambda: cancel(load, rng, stop_all())],
    }
    name = rng.choice(sorted(meetings))
    lags = sorted(rng.choice((0, rng.uniform(0, MAX_LAG_SECONDS))) for _ in meetings[name])
    with ThreadPoolExecutor(len(lags)) as people:
        list(people.map(_wait_and_give, lags, meetings[name]))
    return name


def _wait_and_give(lag: float, order: Order) -> None:
    time.sleep(lag)
    order()


def cancel(load: "Load", rng: random.Random, stopped: requests.Response | None) -> requests.Response | None:
    """Cancel an operation, and request what it has not stopped again. Another order may have ended it already."""
    id_ = read_id(stopped)
    if id_ is None or load.call(rng, "POST", f"{OPERATIONS}/{id_}/cancel") is None:
        return None
    return load.order(rng, OPERATIONS, {"fromOperation": id_})


def read_id(answer: requests.Response | None) -> str | None:
    """Return the id of the operation that an answer names."""
    if answer is None or not answer.ok:
        return None
    body: dict[str, Any] = answer.json()
    return body.get("operationId") or body.get("id") or None
