"""What Novita answers, in its own shape, for the tests that register it with `responses`."""

import json
from collections.abc import Callable
from typing import Any

import requests
import responses
from django.db import connections
from responses import matchers

API = "https://novita.test/gpu-instance/openapi/v1"


def make_row(id_: str = "a1b2c3d4e5f60718", **fields: Any) -> dict[str, Any]:
    """Return a row of Novita's listing, with the numbers in strings and the secrets that it has."""
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
    """Registers answers; each is given as often as it was registered, the last one again and again."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.mock = mock

    def lists(self, *rows: Any, page: int = 0, total: Any = None, **answer: Any) -> None:
        """Answer a page of the listing; with one page only, `total` is right by itself."""
        body = {"instances": list(rows), "total": len(rows) if total is None else total}
        query = matchers.query_param_matcher({"pageSize": 100, "pageNum": page})
        self.mock.get(f"{API}/gpu/instances", **{"json": body, **answer}, match=[query])

    def lists_during(self, act: Callable[[], object], *rows: Any) -> None:
        """Answer the listing, and let something happen before that answer goes out."""
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
        """Answer that there is no such instance."""
        self.shows({"id": id_}, status=400, json=make_refusal(400, "RESOURCE_NOT_FOUND", "instance not found"))

    def takes(self, action: str, id_: str, **answer: Any) -> None:
        """Answer an action."""
        body = {"instanceId": id_, "state": {"start": "toStart", "stop": "toStop", "restart": "toRestart"}[action]}
        match = matchers.json_params_matcher({"instanceId": id_})
        self.mock.post(f"{API}/gpu/instance/{action}", **{"json": body, **answer}, match=[match])


def make_refusal(status: int, reason: str, message: str) -> dict[str, Any]:
    return {"code": status, "reason": reason, "message": message, "metadata": {}}
