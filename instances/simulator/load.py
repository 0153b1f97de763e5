"""How busy an instance seems to be: its metrics by a script, in Novita's form.

Values are invented. Timestamps are seconds in strings, and an answer ends a minute before now, as Novita's do.
"""

import math
import random
import zlib
from collections.abc import Callable

from instances.simulator.answers import Row

LAG_SECONDS = 60
# GPU and sample → percent.
Script = Callable[[int, int], float]


def _wave(gpu: int, at: int) -> float:
    return 70 + 25 * math.sin(at / 600 + gpu)


# The scripts: the load of a GPU at a time.
SCRIPTS: dict[str, Script] = {
    "busy": _wave,
    "idle": lambda gpu, at: 0.4 + 0.3 * math.sin(at / 300 + gpu),
    # Four minutes of work in twenty.
    "spiky": lambda gpu, at: 85.0 if at // 60 % 20 < 4 else 0.5,
    "constant": lambda gpu, at: 42.0,
    "oneBusyGpu": lambda gpu, at: _wave(gpu, at) if gpu == 0 else 0.3,
    # Half of the samples are missing.
    "missing": lambda gpu, at: 0.3,
    "disordered": lambda gpu, at: 0.3,
    # Timestamps as numbers, in milliseconds.
    "numbers": lambda gpu, at: 0.3,
}


def choose(row: Row) -> str:
    """Return the script of an instance that nobody chose: notebooks are idle, and the rest works."""
    if str(row["name"]).startswith("notebook"):
        return "idle"
    return ("busy", "busy", "spiky", "busy")[zlib.crc32(str(row["id"]).encode()) % 4]


def describe(row: Row, script: str, begin: int, end: int, interval: int, now: int) -> Row:
    """Return the metrics of an instance between two times; of a stopped one there are none."""
    times = range(begin - begin % interval + interval, min(end, now - LAG_SECONDS) + 1, interval)
    if row["status"] != "running":
        times = range(0)
    load, gpus = SCRIPTS[script], _count_gpus(row)

    def make(value: Callable[[int], float]) -> list[Row]:
        items: list[Row] = [{"timestamp": str(at), "value": round(value(at), 2)} for at in times]
        if script == "missing":
            return items[::2]
        if script == "disordered":
            random.Random(begin).shuffle(items)
        if script == "numbers":
            return [{"timestamp": int(item["timestamp"]) * 1000, "value": str(item["value"])} for item in items]
        return items

    def average(at: int) -> float:
        return sum(load(gpu, at) for gpu in range(gpus)) / max(1, gpus)

    return {
        "cpuUtilization": make(lambda at: 5 + average(at) / 4),
        "memUtilization": make(lambda at: 31.0),
        "rootDiskUtilization": make(lambda at: 44.0),
        "gpuUtilization": {"avg": make(average), "gpuIds": _list_gpus(gpus, load, make)},
        "gpuMemUtilization": {
            "avg": make(lambda at: 60.0 if average(at) > 5 else 2.0),
            "gpuIds": _list_gpus(gpus, lambda gpu, at: 60.0 if load(gpu, at) > 5 else 2.0, make),
        },
    }


def _list_gpus(gpus: int, load: Script, make: Callable[[Callable[[int], float]], list[Row]]) -> list[Row]:
    return [{"gpuId": str(gpu), "items": make(_of(load, gpu))} for gpu in range(gpus)]


def _of(load: Script, gpu: int) -> Callable[[int], float]:
    return lambda at: load(gpu, at)


def _count_gpus(row: Row) -> int:
    try:
        return int(row["gpuNum"])
    except (TypeError, ValueError):
        return 0
