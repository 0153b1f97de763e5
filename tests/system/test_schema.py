"""The OpenAPI description matches the service: requests that it allows, and others, get the described answers."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Service

# `positive_data_acceptance` is left out: no schema tells which URLs get webhooks or which instances may be stopped.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
]
# A list that is too long makes the body too large.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 429]

# Django REST framework refuses TRACE and QUERY where it refuses PATCH. It answers OPTIONS by itself.
[phases.coverage]
unexpected-methods = ["get", "post", "put", "patch", "delete", "options"]

# The body of this request is that of POST /api/policies. It is tried by the examples.
[[operations]]
include-name = "PUT /api/policies/{id}"
phases.coverage.enabled = false
"""
# Of each operation, beside every value and every kind of defect that its description has.
EXAMPLES = 8
# An exploration takes some 20 s of processor time. A busy machine needs several times that.
EXPLORATION_SECONDS = 300
QUICK = {"WEB_WORKERS": "1", "API_RATE_LIMIT": "0", "NOVITA_STOP_DEADLINE": "2"}

pytestmark = pytest.mark.timeout(EXPLORATION_SECONDS + 60)

Explore = Callable[..., str]


@pytest.fixture
def explore(tmp_path: Path) -> Explore:
    """Send requests that a description allows, and others; return the defects, or ""."""

    def explore(service: Service, description: dict[str, Any], *options: str) -> str:
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        (tmp_path / "openapi.json").write_text(json.dumps(description))
        command = ["schemathesis.cli", "--config-file", "schemathesis.toml", "run", "openapi.json", *options]
        command += ["--url", service.url, "--checks", ",".join(CHECKS)]
        command += ["--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES)]
        command += ["--continue-on-failure", "--no-shrink", "--no-color"]
        command += ["--generation-database", "none"]
        process = python.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "*"},
            capture_output=True,
            text=True,
            timeout=EXPLORATION_SECONDS,
        )
        said = process.stdout + process.stderr
        # Pytest shows the seed when the test fails; with the seed the run can be repeated.
        sys.stdout.write("".join(re.findall(r"Seed: \d+\n", said)))
        total = sum(len(methods) for methods in description["paths"].values())
        assert re.search(rf"[1-9]\d* selected / {total} total", said), said
        return "" if process.returncode == 0 else said[said.find("= FAILURES =") :][:20_000]

    return explore


def read_description(service: Service) -> dict[str, Any]:
    description: dict[str, Any] = service.get("/api/schema?format=json").json()
    return description


def order_operation(service: Service) -> None:
    """Create records to read, cancel and find."""
    ids = sorted(service.list_ids())[:2]
    assert service.post("/api/operations", json={"kind": "stop", "ids": ids}).status_code in {200, 202}


def make_admins_token(environment: dict[str, str]) -> str:
    password = {"DJANGO_SUPERUSER_PASSWORD": "FAKE-SECRET-password", "DJANGO_SUPERUSER_EMAIL": "ann@example.com"}
    for command in (
        ["createsuperuser", "--noinput", "--username", "ann"],
        ["create_token", "ann", "--name", "explorer", "--role", "admin"],
    ):
        output = python.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env={**environment, **password},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
    return output.strip()


def test_each_answer_is_as_described(start_service: Start, environment: dict[str, str], explore: Explore) -> None:
    """Behind a login, with a token, since `ignored_auth` sends each request without it, too."""
    service = start_service(**QUICK, REQUIRE_LOGIN="1").wait_until_ready()
    header = f"Bearer {make_admins_token(environment)}"
    service.session.headers["Authorization"] = header
    order_operation(service)

    assert explore(service, read_description(service), "--header", f"Authorization: {header}") == ""


def test_exploration_detects_an_answer_that_is_not_as_described(start_service: Start, explore: Explore) -> None:
    service = start_service(**QUICK).wait_until_ready()
    description = read_description(service)
    description["components"]["schemas"]["ProtectionList"]["properties"]["total"] = {"type": "string"}
    del description["paths"]["/api/cache/stats"]["get"]["responses"]["200"]

    found = explore(service, description, "--include-path-regex", "^/api/(protections|cache/stats)$")

    assert "GET /api/protections" in found and "is not of type" in found
    assert "GET /api/cache/stats" in found and "ndocumented" in found
