"""The OpenAPI description: how a script authenticates, and what generated clients need.

`polish` is a hook of drf-spectacular: it names operations and tags, describes headers and the codes of errors, and adds
the examples.
"""

import re
from http import HTTPStatus
from typing import Any, Final

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

from instances import errors
from instances.api import examples

# Method and path → the name of the function in a generated client.
OPERATION_IDS: Final = {
    "GET /api/instances": "listInstances",
    "GET /api/instances/{id}": "getInstance",
    "GET /api/instances/{id}/history": "getInstanceHistory",
    "GET /api/instances/{id}/utilization": "getInstanceUtilization",
    "GET /api/instances/{id}/annotation": "getAnnotation",
    "PUT /api/instances/{id}/annotation": "setAnnotation",
    "PUT /api/annotations": "setAnnotations",
    "POST /api/instances/{id}/start": "startInstance",
    "POST /api/instances/{id}/stop": "stopInstance",
    "POST /api/instances/{id}/restart": "restartInstance",
    "POST /api/instances/{id}/protect": "protectInstance",
    "DELETE /api/instances/{id}/protect": "removeProtection",
    "POST /api/instances/stop-all": "stopAll",
    "POST /api/instances/sync": "syncInstances",
    "GET /api/operations": "listOperations",
    "POST /api/operations": "createOperation",
    "GET /api/operations/{id}": "getOperation",
    "POST /api/operations/{id}/cancel": "cancelOperation",
    "POST /api/operations/{id}/dismiss": "dismissOperation",
    "GET /api/protections": "listProtections",
    "GET /api/start-freeze": "getStartFreeze",
    "PUT /api/start-freeze": "freezeStarts",
    "DELETE /api/start-freeze": "unfreezeStarts",
    "GET /api/costs": "getCosts",
    "GET /api/costs/history": "getCostHistory",
    "GET /api/costs/instances": "listInstanceCosts",
    "GET /api/costs/bill": "getBill",
    "GET /api/policies": "listPolicies",
    "POST /api/policies": "createPolicy",
    "GET /api/policies/{id}": "getPolicy",
    "PUT /api/policies/{id}": "updatePolicy",
    "DELETE /api/policies/{id}": "deletePolicy",
    "POST /api/policies/{id}/confirm-stop": "confirmPolicyStop",
    "PUT /api/policies/switch": "switchPolicies",
    "GET /api/policies/findings": "listFindings",
    "GET /api/policies/findings/{id}": "getFinding",
    "POST /api/policies/findings/{id}/snooze": "snoozeFinding",
    "DELETE /api/policies/findings/{id}/snooze": "removeSnooze",
    "GET /api/activity": "listActivity",
    "GET /api/overview": "getOverview",
    "GET /api/cache/stats": "getCacheStats",
    "POST /api/cache/clear": "clearCache",
    "GET /health": "getHealth",
}
# The noun of a path, the longest first → its tag. `TAGS` has them in the order of the page.
_NOUNS: Final = {
    "/api/policies/findings": "findings",
    "/api/policies": "policies",
    "/api/instances/{id}/annotation": "annotations",
    "/api/annotations": "annotations",
    "/api/instances/{id}/protect": "protections",
    "/api/protections": "protections",
    "/api/start-freeze": "start freeze",
    "/api/instances": "instances",
    "/api/operations": "operations",
    "/api/costs": "costs",
    "/api/activity": "activity",
    "/api/overview": "health",
    "/api/cache": "cache",
    "/health": "health",
}
TAGS: Final = {
    "instances": "The team's GPU instances, from the cached inventory, and actions on them.",
    "operations": "Starts, stops and restarts of many instances, and their verified results.",
    "protections": "Instances that no action on many instances stops.",
    "start freeze": "A time in which nothing is started.",
    "annotations": "Owner, project and note of an instance.",
    "costs": "What instances cost now, and what they have cost.",
    "policies": "Rules that warn of instances, or stop them.",
    "findings": "What policies have found, and its snoozes.",
    "activity": "Who did what, and what changed.",
    "health": "Whether the service works, and what the dashboard shows.",
    "cache": "The copy of the inventory in Redis.",
}

_TIME: Final = {"type": "string", "format": "date-time"}
HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-Id": {"description": "The id of this request on the lines of the log.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which the request may be sent again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "ETag": {
        "description": "The revision. In If-None-Match it gets a 304 until something changes.",
        "schema": {"type": "string"},
    },
    "Data-As-Of": {"description": "When Novita's listing was read; absent before the first time.", "schema": _TIME},
    "Data-Stale": {
        "description": "Whether the inventory is older than NOVITA_STALE_AFTER.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
}
_AGE: Final = ["Data-As-Of", "Data-Stale"]
# Those of good answers, beside X-Request-Id.
_OWN_HEADERS: Final = {
    "listInstances": ["ETag", *_AGE],
    "getInstance": _AGE,
    "getOverview": ["ETag"],
}
# Some errors with these name a time.
_WAITS: Final = {409, 429, 502, 503}


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself, untyped
    """A script's token."""

    target_class = "instances.access.visitors.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


def polish(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    components = result["components"]
    components["headers"] = HEADERS
    components["schemas"]["ErrorCode"] = {
        "type": "string",
        "enum": list_error_codes(),
        "description": "What went wrong, for programs. Later versions may add codes.",
    }
    components["schemas"]["Error"]["properties"]["code"] = {"$ref": "#/components/schemas/ErrorCode"}
    components["responses"] = {}
    for path, methods in result["paths"].items():
        for method, operation in methods.items():
            operation["operationId"] = OPERATION_IDS.get(f"{method.upper()} {path}", operation["operationId"])
            operation["tags"] = [next((tag for noun, tag in _NOUNS.items() if path.startswith(noun)), path)]
            for parameter in operation.get("parameters", []):
                # An empty query parameter counts as absent.
                if parameter["in"] == "query":
                    parameter["allowEmptyValue"] = True
            _describe_answers(operation, components["responses"])
            _add_examples(operation)
    result["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    return result


def list_error_codes() -> list[str]:
    """Return the codes of all errors, sorted."""
    return sorted({error.code for error in _list_errors()})


def _list_errors() -> list[type[errors.PanelError]]:
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    return [one for one in classes if issubclass(one, errors.PanelError)]


def _describe_answers(operation: dict[str, Any], shared: dict[str, Any]) -> None:
    """Add headers. All operations share an error's description; /health describes its 503 itself."""
    for number, answer in operation["responses"].items():
        status = HTTPStatus(int(number))
        answer["description"] = answer.get("description") or f"{status.phrase}."
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        is_error = schema == {"$ref": "#/components/schemas/Error"}
        names = [] if is_error else _OWN_HEADERS.get(operation["operationId"], [])
        names = ["X-Request-Id", *(["Retry-After"] if is_error and status in _WAITS else []), *names]
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        if is_error:
            name = re.sub(r"\W", "", status.phrase)
            answer["content"]["application/json"]["example"] = _make_example(status)
            shared[name] = answer
            operation["responses"][number] = {"$ref": f"#/components/responses/{name}"}


def _make_example(status: HTTPStatus) -> dict[str, Any]:
    error = next(one for one in _list_errors() if one.status == status)
    return {
        "success": False,
        "code": error.code,
        "message": error.message,
        "suggestion": error.suggestion,
        "requestId": "5f0c6e6d2f1a9b37",
        "timestamp": "2026-01-15T10:30:00Z",
    }


def _add_examples(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    if name in examples.REQUESTS:
        operation["requestBody"]["content"]["application/json"]["examples"] = {
            key: {"summary": summary, "value": value} for key, (summary, value) in examples.REQUESTS[name].items()
        }
    if name in examples.ANSWERS:
        operation["responses"]["200"]["content"]["application/json"]["example"] = examples.ANSWERS[name]
