"""Novita's account: the simulator's, which also records each action with the state that it met."""

import time
from dataclasses import dataclass
from typing import Any, Final

from instances.simulator import Account
from instances.simulator.answers import Refusal
from soak.checks import StopCall

WITNESS: Final = "witness"
WORKING: Final = ("single", "selected", "leased")


@dataclass(frozen=True)
class Group:
    """The ids of the instances that one kind of user acts on."""

    name: str
    ids: tuple[str, ...]


class CountingAccount(Account):
    """Half of the instances are witnesses: stopped, acted on by nobody, and renamed all at once.

    So all witnesses of a listing have one name, unless the listing is a mixture.
    """

    def __init__(self, instances: int) -> None:
        super().__init__(instances=0, step_seconds=0.5)
        self.stop_calls: list[StopCall] = []
        self._runs: dict[str, int] = {}
        rows = [{"name": f"{WITNESS}-0", "status": "exited"} for _ in range(instances // 2)]
        rows += [
            {"name": f"{WORKING[number % len(WORKING)]}-{number}", "status": "running", "billingMode": "onDemand"}
            for number in range(instances - len(rows))
        ]
        self.change({"add": rows})

    def list_group(self, name: str) -> tuple[str, ...]:
        return tuple(row["id"] for row in self.list_rows() if row["name"].startswith(name))

    def rename_witnesses(self, ids: tuple[str, ...], epoch: int) -> None:
        self.change({"set": {id_: {"name": f"{WITNESS}-{epoch}"} for id_ in ids}})

    def run(self, ids: tuple[str, ...], **fields: Any) -> None:
        """Let stopped instances run at once, as a start outside the panel."""
        with self._lock:
            now = int(time.time())
            stopped = [id_ for id_ in ids if self._find(id_).row["status"] == "exited"]
            for id_ in stopped:
                self._runs[id_] = self._runs.get(id_, 0) + 1
            self.change({"set": {id_: {"status": "running", "lastStartedAt": str(now), **fields} for id_ in stopped}})

    def list_statuses(self, ids: tuple[str, ...]) -> set[str]:
        with self._lock:
            return {self._find(id_).row["status"] for id_ in ids}

    def act(self, action: str, instance_id: str, ignored: bool = False) -> str:
        with self._lock:
            found = self._instances.get(instance_id)
            status = found.row["status"] if found else "unknown"
            try:
                state = super().act(action, instance_id, ignored)
            except Refusal:
                self._note(action, instance_id, status, is_accepted=False)
                raise
            self._note(action, instance_id, status, is_accepted=True)
            return state

    def _note(self, action: str, instance_id: str, status: str, *, is_accepted: bool) -> None:
        if action == "stop":
            run = self._runs.get(instance_id, 0)
            self.stop_calls.append(StopCall(time.time(), instance_id, run, status, is_accepted))
        elif is_accepted:
            # A start or a restart begins another run.
            self._runs[instance_id] = self._runs.get(instance_id, 0) + 1
