"""Examples in the OpenAPI description, by the name of the operation; `tests/test_description.py` checks them."""

from typing import Any, Final

_ID: Final = "c381e88f38c0c8fd"
_OPERATION: Final = "5ff3780d-1b06-4e60-a07e-54ad8e8f5c1b"
_TIME: Final = "2026-01-15T10:30:00Z"

# Operation → name → what it shows, and the body.
REQUESTS: Final[dict[str, dict[str, tuple[str, dict[str, Any]]]]] = {
    "stopAll": {
        "dryRun": ("Answer what would be stopped, and stop nothing.", {"dryRun": True}),
        "everything": ("Stop everything that may be billed.", {"reason": "weekend"}),
        "some": ("Stop only these instances.", {"ids": [_ID], "reason": "the experiment has ended"}),
    },
    "createOperation": {
        "dryRun": (
            "Answer what would be done, and do nothing.",
            {"kind": "restart", "ids": [_ID], "dryRun": True},
        ),
        "stop": ("Stop these instances.", {"kind": "stop", "ids": [_ID]}),
        "retry": ("Repeat an operation for its unconfirmed targets.", {"fromOperation": _OPERATION}),
    },
    "protectInstance": {"protect": ("Protect an instance.", {"reason": "The training ends on Friday."})},
    "setAnnotation": {"annotate": ("Set all three.", {"owner": "ann", "project": "vision", "note": "A/B test"})},
    "setAnnotations": {"annotate": ("Give instances to a project.", {"ids": [_ID], "project": "vision"})},
    "freezeStarts": {"freeze": ("Freeze starts until somebody ends it.", {"until": None, "reason": "month's end"})},
    "createPolicy": {"idle": ("Observe idle instances.", {"name": "Idle machines", "rule": "idle"})},
    "updatePolicy": {"off": ("Switch one policy off.", {"on": False})},
    "confirmPolicyStop": {"confirm": ("Let a policy stop instances.", {"name": "Idle machines"})},
    "switchPolicies": {"off": ("No policy stops anything from now on.", {"on": False})},
    "snoozeFinding": {"hour": ("Snooze for an hour.", {"for": "1h", "reason": "still needed"})},
}

_INSTANCE: Final = {
    "id": _ID,
    "name": "comfyui-01",
    "status": "running",
    "group": "running",
    "actions": ["stop", "restart"],
    "region": "US-CA-06 (California)",
    "clusterId": "24",
    "productId": "4090.18c.60g",
    "productName": "RTX 4090 24GB",
    "gpuNum": 1,
    "cpuNum": 18,
    "memoryGb": 60,
    "rootfsSizeGb": 60,
    "imageUrl": "docker.io/library/comfyui:latest",
    "billingMode": "onDemand",
    "spotStatus": None,
    "createdAt": "2026-01-12T08:00:00Z",
    "lastStartedAt": "2026-01-15T08:00:00Z",
    "lastStoppedAt": None,
    "endTime": None,
    "statusError": None,
    "portMappings": [{"port": 8188, "endpoint": "https://c381e88f38c0c8fd-8188.example.com", "type": "http"}],
    "pricePerHour": 0.69,
    "costPerHour": 0.69,
    "priceSource": "instance",
    "prepaid": False,
    "owner": "ann",
    "project": "vision",
    "changedAt": "2026-01-15T08:00:12Z",
}
ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "listInstances": {"instances": [_INSTANCE], "total": 1},
    "getInstance": _INSTANCE,
    "syncInstances": {
        "success": True,
        "message": "5 instances: 1 new, 1 gone, 3 unchanged",
        "novitaInstances": 5,
        "redisInstances": 5,
        "synchronized": 5,
        "deleted": 1,
        "errors": [],
        "timestamp": _TIME,
        "duration": 412,
        "added": 1,
        "changed": 0,
        "unconfirmed": 0,
    },
    "stopInstance": {
        "success": True,
        "message": "Stop initiated for comfyui-01",
        "instanceId": _ID,
        "status": "toStop",
        "timestamp": _TIME,
    },
    "stopAll": {
        "success": True,
        "message": "Stop initiated for 1 of 1 running instances",
        "count": 1,
        "total": 1,
        "results": [
            {
                "instanceId": _ID,
                "name": "comfyui-01",
                "success": True,
                "status": "toStop",
                "state": "requested",
                "message": "Stop requested; not yet stopped.",
                "error": None,
            }
        ],
        "skipped": [],
        "warnings": [],
        "savesPerHour": 0.69,
        "costsPerHour": None,
        "unknownPrices": 0,
        "prepaid": 0,
        "timestamp": _TIME,
        "operationId": _OPERATION,
        "operationUrl": f"/api/operations/{_OPERATION}",
        "source": "novita",
    },
}
