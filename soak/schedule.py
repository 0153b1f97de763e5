"""What is killed when: the same seed gives the same schedule."""

import random
from dataclasses import dataclass
from typing import Final

# The last processes of one web server and one worker live this long, so that their memory can be judged.
CALM_SHARE: Final = 0.65
TARGETS: Final = {
    "web child": 5,
    "web server": 2,
    "worker": 4,
    "redis": 1,
}


@dataclass(frozen=True)
class Blow:
    """A kill -9: seconds after the start, of what, and of which of the two."""

    at: float
    target: str
    number: int


def plan(seed: int, seconds: float) -> list[Blow]:
    """Return the kills, 4 to 16 s apart, with pauses in which everything runs. Number 1 is spared after a while."""
    rng = random.Random(seed)
    blows: list[Blow] = []
    at = 8.0
    while at < seconds - 10:
        target = rng.choices(list(TARGETS), list(TARGETS.values()))[0]
        is_shared = at < seconds * (1 - CALM_SHARE)
        blows.append(Blow(round(at, 1), target, rng.choice((0, 1)) if is_shared else 0))
        at += rng.uniform(4, 16)
    return blows
