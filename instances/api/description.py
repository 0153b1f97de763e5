"""Additions to the OpenAPI description: how a script authenticates, and which values may be empty."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself, untyped
    """A script's token."""

    target_class = "instances.access.visitors.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


def allow_empty_values(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Describe that an empty query parameter counts as absent (a hook of drf-spectacular)."""
    for operations in result["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query":
                    parameter["allowEmptyValue"] = True
    return result
