"""The OpenAPI description, as far as generated clients depend on it."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from django.test import Client
from openapi_spec_validator import validate

from instances.api.description import HEADERS, OPERATION_IDS, TAGS
from instances.api.examples import ANSWERS, REQUESTS
from instances.inventory.sync import synchronize
from novita_site import __version__
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

Described = dict[str, Any]
# Made once for all tests of this file.
_described: Described = {}


@pytest.fixture
def description(client: Client) -> Described:
    if not _described:
        _described.update(client.get("/api/schema?format=json").json())
    return _described


def list_operations(description: Described) -> Iterator[tuple[str, Described]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def get_operation(description: Described, name: str) -> Described:
    return next(one for _, one in list_operations(description) if one["operationId"] == name)


def find(description: Described, reference: str) -> Any:
    """Return what a `$ref` leads to."""
    found: Any = description
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def check(description: Described, schema: Described, value: Any) -> None:
    """Raise when a value is not as a schema describes it."""
    whole = {**schema, "components": description["components"]}
    jsonschema.validate(value, whole, jsonschema.Draft202012Validator)


@pytest.mark.thorough
def test_description_obeys_the_specification(description: Described) -> None:
    validate(description)


def test_each_operation_has_a_short_name(description: Described) -> None:
    names = {route: operation["operationId"] for route, operation in list_operations(description)}

    assert names == OPERATION_IDS
    assert [name for name in names.values() if not re.fullmatch(r"[a-z]+([A-Z][a-z]+){1,3}|stopAll", name)] == []


def test_each_operation_has_the_tag_of_a_noun_that_is_explained(description: Described) -> None:
    tags = [tag for _, operation in list_operations(description) for tag in operation["tags"]]

    assert {*tags} == TAGS.keys() == {tag["name"] for tag in description["tags"]}


def test_each_operation_has_a_summary(description: Described) -> None:
    assert [route for route, operation in list_operations(description) if not operation.get("summary")] == []


def test_each_body_has_examples(description: Described) -> None:
    with_body = {
        operation["operationId"] for _, operation in list_operations(description) if "requestBody" in operation
    }

    assert with_body == REQUESTS.keys()


@pytest.mark.parametrize(("name", "example"), [(name, one) for name, given in REQUESTS.items() for one in given])
def test_example_of_a_body_is_as_described(description: Described, name: str, example: str) -> None:
    media = get_operation(description, name)["requestBody"]["content"]["application/json"]

    check(description, media["schema"], media["examples"][example]["value"])


@pytest.mark.parametrize("name", ANSWERS)
def test_example_of_an_answer_is_as_described(description: Described, name: str) -> None:
    media = get_operation(description, name)["responses"]["200"]["content"]["application/json"]

    check(description, media["schema"], media["example"])


def test_errors_are_described_once_with_an_example(description: Described) -> None:
    for answer in description["components"]["responses"].values():
        media = answer["content"]["application/json"]
        check(description, media["schema"], media["example"])


def test_code_of_an_error_is_one_of_a_list(description: Described) -> None:
    codes = find(description, description["components"]["schemas"]["Error"]["properties"]["code"]["$ref"])["enum"]

    assert {"INVALID_REQUEST", "NOVITA_TIMEOUT", "PROTECTED", "TOO_MANY_REQUESTS"} <= {*codes}


def test_too_many_requests_tells_when_to_try_again(description: Described) -> None:
    answer = find(description, get_operation(description, "syncInstances")["responses"]["429"]["$ref"])

    assert find(description, answer["headers"]["Retry-After"]["$ref"])["schema"]["type"] == "integer"


@pytest.mark.parametrize("route", ["GET /api/instances", "GET /api/overview"])
def test_headers_of_a_cached_answer_are_described(
    description: Described, client: Client, novita: NovitaAnswers, route: str
) -> None:
    novita.lists(make_row())
    synchronize("api")
    described = get_operation(description, OPERATION_IDS[route])["responses"]["200"]["headers"]

    answer = client.get(route.split()[1])

    assert described.keys() == HEADERS.keys() & answer.headers.keys()


def test_null_is_a_type_of_its_own(description: Described) -> None:
    schemas = description["components"]["schemas"]

    assert schemas["Instance"]["properties"]["billingMode"]["type"] == ["string", "null"]
    assert schemas["Instance"]["properties"]["statusError"]["oneOf"][1] == {"type": "null"}


def test_version_is_that_of_the_panel(description: Described) -> None:
    assert description["info"]["version"] == __version__


def test_server_is_the_root_of_the_host(description: Described) -> None:
    assert description["servers"] == [{"url": "/"}]
