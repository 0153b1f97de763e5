"""Answers of Novita in its own format, which tests register with `responses`."""

import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
import responses
from django.db import connections
from responses import matchers

API = "https://novita.test/gpu-instance/openapi/v1"


def make_row(id_: str = "a1b2c3d4e5f60718", **fields: Any) -> dict[str, Any]:
    """Return a row of Novita's list, with numbers as strings, and with secrets."""
    return {
        "id": id_,
        "name": f"name-{id_}",
        "clusterId": "us-ca-6",
        "clusterName": "US-CA-06 (California)",
        "status": "running",
        "imageUrl": "docker.io/library/ubuntu:22.04",
        "command": "FAKE-SECRET-command",
        "entrypoint": "",
        "cpuNum": "16",
        "memory": "62",
        "gpuNum": "1",
        "portMappings": [{"port": 8188, "endpoint": "https://a1-8188.test", "type": "http"}],
        "productId": "4090.16c62g",
        "productName": "RTX 4090 24GB",
        "rootfsSize": 60,
        "statusError": {"state": "", "message": ""},
        "envs": [{"key": "HF_TOKEN", "value": "FAKE-SECRET-env"}],
        "billingMode": "onDemand",
        "endTime": "-1",
        "spotStatus": "",
        "createdAt": "1760000000",
        "lastStartedAt": "1760000120",
        "lastStoppedAt": "0",
        "sshPassword": "FAKE-SECRET-ssh",
        **fields,
    }


class NovitaAnswers:
    """Registers answers. Each is sent as often as it was registered, and the last one repeatedly."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.mock = mock

    def lists(self, *rows: Any, page: int = 0, total: Any = None, **answer: Any) -> None:
        """Answer a page of the list. For a single page, `total` is set to match."""
        body = {"instances": list(rows), "total": len(rows) if total is None else total}
        query = matchers.query_param_matcher({"pageSize": 100, "pageNum": page})
        self.mock.get(f"{API}/gpu/instances", **{"json": body, **answer}, match=[query])

    def lists_during(self, act: Callable[[], object], *rows: Any) -> None:
        """Answer the list, after something else has happened."""
        shared = connections["default"]
        shared.inc_thread_sharing()

        def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
            connections["default"] = shared  # The database is in memory, and seen by this connection only.
            act()
            return 200, {}, json.dumps({"instances": rows, "total": len(rows)})

        self.mock.add_callback(responses.GET, f"{API}/gpu/instances", answer)

    def shows(self, row: dict[str, Any], **answer: Any) -> None:
        """Answer a read of one instance."""
        query = matchers.query_param_matcher({"instanceId": row["id"]})
        self.mock.get(f"{API}/gpu/instance", **{"json": row, **answer}, match=[query])

    def lacks(self, id_: str) -> None:
        """Answer that the instance does not exist."""
        self.shows({"id": id_}, status=400, json=make_refusal(400, "RESOURCE_NOT_FOUND", "instance not found"))

    def takes(self, action: str, id_: str, **answer: Any) -> None:
        """Answer an action."""
        body = {"instanceId": id_, "state": {"start": "toStart", "stop": "toStop", "restart": "toRestart"}[action]}
        match = matchers.json_params_matcher({"instanceId": id_})
        self.mock.post(f"{API}/gpu/instance/{action}", **{"json": body, **answer}, match=[match])

    def holds(self, *rows: dict[str, Any]) -> "Account":
        """Answer like an account with these instances, which changes on request."""
        return Account(self.mock, *rows)


def make_refusal(status: int, reason: str, message: str) -> dict[str, Any]:
    return {"code": status, "reason": reason, "message": message, "metadata": {}}


INVALID_STATE_CHANGE = make_refusal(400, "BAD_REQUEST", "invalid state change")


class Account:
    """An account at Novita that changes on request, for tests that don't fix the order of calls.

    `calls` has the name of each call: "list", "read a", "stop a". `answers` sets the answers for such a name. An action
    moves the status, for example to "toStop", and `settle` completes it.
    """

    def __init__(self, mock: responses.RequestsMock, *rows: dict[str, Any]) -> None:
        self.rows = {row["id"]: dict(row) for row in rows}
        # Instances that exist and that the list lacks, since its pages are no snapshot.
        self.unlisted: set[str] = set()
        self.calls: list[str] = []
        # The answer to each call, in order.
        self.told: list[tuple[str, Any]] = []
        self._answers: dict[str, list[Any]] = {}
        self._lock = threading.Lock()
        mock.assert_all_requests_are_fired = False
        mock.add_callback(responses.GET, f"{API}/gpu/instances", lambda request: self._answer("list"))
        mock.add_callback(responses.GET, f"{API}/gpu/instance", self._answer_read)
        for action in ("start", "stop", "restart"):
            mock.add_callback(responses.POST, f"{API}/gpu/instance/{action}", self._answer_action)

    def answers(self, call: str, *answers: Any) -> None:
        """Answer a call with these in turn, and with the last one repeatedly.

        None: as usual; a number: that HTTP status; an exception; status, headers and body; or a function that acts and
        returns one of these.
        """
        self._answers[call] = list(answers)

    def change(self, id_: str, status: str, **fields: Any) -> None:
        self.rows[id_] = {**self.rows.get(id_, make_row(id_)), "status": status, **fields}

    def settle(self) -> None:
        """Carry out the accepted action."""
        for row in self.rows.values():
            if row["status"] == "toRestart":
                row["lastStartedAt"] = str(int(row["lastStartedAt"]) + 60)
            row["status"] = {"toStop": "exited", "toStart": "running", "toRestart": "running"}.get(
                row["status"], row["status"]
            )

    @property
    def orders(self) -> list[str]:
        """The requested actions."""
        return sorted(call for call in self.calls if call.partition(" ")[0] not in {"list", "read"})

    def _answer_read(self, request: requests.PreparedRequest) -> Any:
        return self._answer(f"read {parse_qs(urlsplit(str(request.url)).query)['instanceId'][0]}")

    def _answer_action(self, request: requests.PreparedRequest) -> Any:
        action = str(request.url).rpartition("/")[2]
        return self._answer(f"{action} {json.loads(request.body or b'')['instanceId']}")

    def _answer(self, call: str) -> Any:
        with self._lock:
            self.calls.append(call)
            queued = self._answers.get(call, [None])
            answer = queued.pop(0) if len(queued) > 1 else queued[0]
        if callable(answer):
            answer = answer()
            connections.close_all()
        if isinstance(answer, int):
            answer = (answer, {}, "")
        with self._lock:
            answer = self._answer_as_usual(call) if answer is None else answer
            self.told.append((call, answer))
        return answer

    def _answer_as_usual(self, call: str) -> tuple[int, dict[str, str], str]:
        verb, _, id_ = call.partition(" ")
        row = self.rows.get(id_)
        if verb == "list":
            rows = [row for id_, row in self.rows.items() if id_ not in self.unlisted]
            return 200, {}, json.dumps({"instances": rows, "total": len(rows)})
        if row is None:
            return 400, {}, json.dumps(make_refusal(400, "RESOURCE_NOT_FOUND", "instance not found"))
        if verb == "read":
            return 200, {}, json.dumps(row)
        if row["status"] != {"start": "exited", "stop": "running", "restart": "running"}[verb]:
            return 400, {}, json.dumps(INVALID_STATE_CHANGE)
        row["status"] = {"start": "toStart", "stop": "toStop", "restart": "toRestart"}[verb]
        return 200, {}, json.dumps({"instanceId": id_, "state": row["status"]})
