"""The API as its readers meet it: what it answers, what it takes, and how it describes itself."""

import json
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.test import Client
from rest_framework.serializers import Serializer

from instances.api import serializers
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
HTML = {"accept": "text/html"}


@pytest.fixture
def synchronize(client: Client, novita: NovitaAnswers) -> Callable[..., Any]:
    """Fill the inventory with these rows, and return the answer of the sync."""

    def synchronize(*rows: dict[str, Any]) -> Any:
        novita.lists(*rows)
        return client.post("/api/instances/sync").json()

    return synchronize


# --- What it gives


def test_instance_is_shown_with_the_documented_fields(client: Client, synchronize: Callable[..., Any]) -> None:
    synchronize(make_row("a1b2c3d4e5f60718", name="train-a"))

    shown = client.get("/api/instances/a1b2c3d4e5f60718").json()

    assert UTC_TIME.fullmatch(shown.pop("changedAt"))
    assert shown == {
        "id": "a1b2c3d4e5f60718",
        "name": "train-a",
        "status": "running",
        "group": "running",
        "actions": ["stop", "restart"],
        "region": "US-CA-06 (California)",
        "clusterId": "us-ca-6",
        "productId": "4090.16c62g",
        "productName": "RTX 4090 24GB",
        "gpuNum": 1,
        "cpuNum": 16,
        "memoryGb": 62,
        "rootfsSizeGb": 60,
        "imageUrl": "docker.io/library/ubuntu:22.04",
        "billingMode": "onDemand",
        "spotStatus": None,
        "createdAt": "2025-10-09T08:53:20Z",
        "lastStartedAt": "2025-10-09T08:55:20Z",
        "lastStoppedAt": None,
        "endTime": None,
        "statusError": None,
        "portMappings": [{"port": 8188, "type": "http", "endpoint": "https://a1-8188.test"}],
        "pricePerHour": None,
        "costPerHour": None,
        "priceSource": None,
        "prepaid": False,
        "owner": None,
        "project": None,
    }


def test_listing_and_single_instance_show_the_same_fields(client: Client, synchronize: Callable[..., Any]) -> None:
    synchronize(make_row("a"), make_row("b", createdAt="1770000000"))

    listing = client.get("/api/instances").json()

    assert listing == {
        "instances": [client.get("/api/instances/b").json(), client.get("/api/instances/a").json()],
        "total": 2,
    }


def test_listing_without_an_inventory_is_empty_and_stale(client: Client) -> None:
    answer = client.get("/api/instances")

    assert answer.json() == {"instances": [], "total": 0}
    assert answer["Data-Stale"] == "true"
    assert "Data-As-Of" not in answer


@pytest.mark.parametrize("path", ["/api/instances", "/api/instances?search=a", "/api/instances/a"])
def test_each_read_tells_its_age(client: Client, synchronize: Callable[..., Any], path: str) -> None:
    synchronize(make_row("a"))

    answer = client.get(path)

    assert UTC_TIME.fullmatch(answer["Data-As-Of"])
    assert answer["Data-Stale"] == "false"
    assert answer["Cache-Control"] == "private, no-cache"


def test_root_lists_existing_addresses(client: Client, synchronize: Callable[..., Any]) -> None:
    synchronize(make_row("a"))

    addresses = client.get("/api/").json()

    pages = {
        "health",
        "schema",
        "docs",
        "admin",
        "cacheStats",
        "operations",
        "protections",
        "startFreeze",
        "policies",
        "activity",
        "findings",
        "instances",
        "overview",
        "costs",
    }
    posts = {"sync", "stopAll", "cacheClear"}
    assert pages | posts == addresses.keys()
    assert {name: client.get(url).status_code for name, url in addresses.items()} == {
        name: 405 if name in posts else 200 for name in addresses
    }


@pytest.mark.parametrize("path", ["/api", "/api/instances", "/api/instances/a"])
def test_trailing_slash_makes_no_difference(client: Client, synchronize: Callable[..., Any], path: str) -> None:
    synchronize(make_row("a"))

    assert client.get(f"{path}/").json() == client.get(path).json()


@pytest.mark.parametrize("path", ["/health/", "/livez/", "/readyz/", "/api/cache/stats/", "/api/docs/", "/api/schema/"])
def test_other_addresses_accept_a_trailing_slash(client: Client, synchronize: Callable[..., Any], path: str) -> None:
    synchronize(make_row("a"))

    assert client.get(path).status_code == 200


def test_actions_accept_a_trailing_slash(
    client: Client, novita: NovitaAnswers, synchronize: Callable[..., Any]
) -> None:
    synchronize(make_row("a"))
    novita.takes("stop", "a")

    paths = ["/api/instances/a/stop/", "/api/instances/sync/", "/api/cache/clear/"]
    assert [client.post(path).status_code for path in paths] == [202, 200, 200]


@pytest.mark.parametrize("path", ["/api", "/api/instances", "/api/instances/a", "/health"])
def test_head_answers_like_get_without_the_body(client: Client, synchronize: Callable[..., Any], path: str) -> None:
    synchronize(make_row("a"))

    answer = client.head(path)

    assert answer.status_code == 200
    assert answer.content == b""
    assert answer["Content-Length"] == client.get(path)["Content-Length"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/instances", "GET, HEAD, OPTIONS"),
        ("/api/instances/a", "GET, HEAD, OPTIONS"),
        ("/api/instances/a/stop", "POST, OPTIONS"),
        ("/api/cache/clear", "POST, OPTIONS"),
    ],
)
def test_options_lists_the_methods(client: Client, path: str, methods: str) -> None:
    answer = client.options(path)

    assert answer.status_code == 200
    assert answer["Allow"] == methods


def test_listing_needs_no_database_query(
    client: Client, synchronize: Callable[..., Any], django_assert_max_num_queries: Callable[..., Any]
) -> None:
    synchronize(*(make_row(f"i{number}") for number in range(50)))

    with django_assert_max_num_queries(0):
        assert client.get("/api/instances").json()["total"] == 50


def test_cache_stats_follow_the_inventory(
    client: Client, synchronize: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # fakeredis lacks this command.
    monkeypatch.setattr(redis.Redis, "memory_usage", lambda self, key, samples: 1234)
    empty = client.get("/api/cache/stats").json()
    synchronize(make_row("a"), make_row("b"))
    tag = client.get("/api/instances")["ETag"]
    client.get("/api/instances", headers={"if-none-match": tag})

    filled = client.get("/api/cache/stats").json()

    assert empty["size"] == 0
    assert empty["generation"] is None
    assert empty["ageSeconds"] is None
    assert filled["size"] == 2
    assert filled["bytes"] == 1234
    assert filled["notModified"] == 1
    assert filled["lease"] is None
    assert filled["ageSeconds"] < 60
    assert str(filled["revision"]) in tag


def test_cache_stats_work_without_memory_usage(client: Client, synchronize: Callable[..., Any]) -> None:
    synchronize(make_row("a"))

    figures = client.get("/api/cache/stats").json()

    assert figures["size"] == 1
    assert figures["bytes"] is None


def test_cleared_inventory_is_empty_until_the_next_sync(client: Client, synchronize: Callable[..., Any]) -> None:
    synchronize(make_row("a"), make_row("b"))

    answer = client.post("/api/cache/clear").json()

    assert UTC_TIME.fullmatch(answer.pop("timestamp"))
    assert answer == {"success": True, "message": "Cleared 2 instances from the cache", "cleared": 2}
    assert client.get("/api/instances").json()["total"] == 0
    synchronize(make_row("a"))
    assert client.get("/api/instances").json()["total"] == 1


# --- What it takes


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stauts=running", "stauts"),
        ("Status=running", "Status"),
        ("group=asleep", "group"),
        ("ordering=imageUrl", "ordering"),
        ("ordering=--name", "ordering"),
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=two", "page"),
        ("page=1.5", "page"),
        ("page=99999999999999999999", "page"),
        ("pageSize=0", "pageSize"),
        ("pageSize=1001", "pageSize"),
        ("pageSize=Infinity", "pageSize"),
        ("search=%00", "search"),
        ("fields=id,nope", "fields"),
        ("fields=id,", "fields"),
        ("fields=id&fields=name", "fields"),
    ],
)
def test_invalid_query_names_the_parameter(client: Client, query: str, field: str) -> None:
    answer = client.get(f"/api/instances?{query}")

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert list(answer.json()["fields"]) == [field]
    assert answer.json()["fields"][field]


def test_empty_field_name_in_a_query_is_shown_in_quotes(client: Client) -> None:
    answer = client.get("/api/instances?fields=nope,id,")

    assert answer.json()["fields"]["fields"].startswith('Unknown: "", "nope". Valid are: id, name, ')


def test_every_invalid_parameter_is_named_at_once(client: Client) -> None:
    answer = client.get("/api/instances?page=0&group=x&typo=1&status=running")

    assert answer.json()["fields"].keys() == {"page", "group", "typo"}


@pytest.mark.parametrize("query", ["", "status=", "page=&pageSize=", "format=json", "page=1&pageSize=1000"])
def test_query_for_everything_returns_everything(client: Client, synchronize: Callable[..., Any], query: str) -> None:
    synchronize(make_row("a"), make_row("b"))

    assert client.get(f"/api/instances?{query}").json() == client.get("/api/instances").json()


@pytest.mark.parametrize("body", [b"", b"{}", b" { } "])
def test_post_without_a_body_is_accepted(client: Client, body: bytes) -> None:
    assert client.generic("POST", "/api/cache/clear", body, "application/json").status_code == 200


@pytest.mark.thorough
@pytest.mark.parametrize("path", ["/api/cache/clear", "/api/instances/sync", "/api/instances/a/stop"])
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"stop"',
        b'{"x": NaN}',
        b'{"id": "a"}',
        b"\xff\xfe{}",
        b"[" * 60_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_post_with_another_body_is_refused_and_does_nothing(
    client: Client, synchronize: Callable[..., Any], novita: NovitaAnswers, path: str, body: bytes
) -> None:
    synchronize(make_row("a"))

    answer = client.generic("POST", path, body, "application/json")

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert len(novita.mock.calls) == 1, "Novita got a request"
    assert client.get("/api/instances").json()["total"] == 1


def test_unknown_field_is_named(client: Client) -> None:
    answer = client.post("/api/cache/clear", {"force": True})

    assert answer.json()["fields"] == {"force": "Unknown field."}


def test_body_over_64_kb_is_refused(client: Client) -> None:
    largest, larger = b"{}".ljust(64 * 1024), b"{}".ljust(64 * 1024 + 1)

    assert client.generic("POST", "/api/cache/clear", largest, "application/json").status_code == 200
    assert client.generic("POST", "/api/cache/clear", larger, "application/json").status_code == 413


@pytest.mark.parametrize("body", [b"", b"{}"])
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "json"],
)
def test_body_of_another_media_type_is_refused_even_when_empty(
    client: Client, synchronize: Callable[..., Any], content_type: str, body: bytes
) -> None:
    synchronize(make_row("a"))

    # Django's client sends no Content-Type with an empty body unless it is told so, as browsers do.
    answer = client.generic("POST", "/api/cache/clear", body, content_type, CONTENT_TYPE=content_type)

    assert answer.status_code == 415
    assert answer.json()["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert client.get("/api/instances").json()["total"] == 1


# --- In a browser


def test_browser_gets_one_page_and_a_script_the_whole_listing(client: Client, synchronize: Callable[..., Any]) -> None:
    synchronize(*(make_row(f"id-{number:03}") for number in range(150)))

    page = client.get("/api/instances", headers=HTML).content.decode()
    rest = client.get("/api/instances?page=2", headers=HTML).content.decode()

    ids = re.compile(r"id&quot;: &quot;(id-\d{3})")
    assert len(set(ids.findall(page))) == 100
    assert len(set(ids.findall(rest))) == 50
    assert len(client.get("/api/instances").json()["instances"]) == 150


def test_hostile_name_is_shown_as_text(client: Client, synchronize: Callable[..., Any]) -> None:
    synchronize(make_row("a", name="<script>alert(1)</script>\"'>"))

    page = client.get("/api/instances", headers=HTML).content.decode()

    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


# --- How it describes itself

ACTS = {"200", "400", "401", "403", "409", "413", "415", "502", "503", "504"}
ROUTES = {
    ("get", "/api/instances"): {"200", "304", "400", "401", "503"},
    ("get", "/api/instances/{id}"): {"200", "401", "404", "503"},
    ("post", "/api/instances/{id}/start"): {*ACTS, "202", "404"},
    ("post", "/api/instances/{id}/stop"): {*ACTS, "202", "404"},
    ("post", "/api/instances/{id}/restart"): {*ACTS, "202", "404"},
    ("post", "/api/instances/sync"): ACTS,
    ("post", "/api/cache/clear"): {"200", "400", "401", "403", "413", "415", "503"},
    ("post", "/api/instances/stop-all"): {*ACTS, "202"},
    ("post", "/api/instances/{id}/protect"): {*ACTS, "404"},
    ("delete", "/api/instances/{id}/protect"): {*ACTS, "404"},
    ("get", "/api/operations"): {"200", "400", "401", "503"},
    ("post", "/api/operations"): {*ACTS, "202"},
    ("get", "/api/operations/{id}"): {"200", "401", "404", "503"},
    ("post", "/api/operations/{id}/cancel"): {*ACTS, "404"},
    ("post", "/api/operations/{id}/dismiss"): {*ACTS, "404"},
    ("get", "/api/instances/{id}/annotation"): {"200", "401", "404", "503"},
    ("get", "/api/instances/{id}/utilization"): {"200", "401", "404", "503"},
    ("get", "/api/instances/{id}/history"): {"200", "401", "404", "503"},
    ("put", "/api/instances/{id}/annotation"): {*ACTS, "404"},
    ("put", "/api/annotations"): ACTS,
    ("get", "/api/protections"): {"200", "401", "503"},
    ("get", "/api/start-freeze"): {"200", "401", "503"},
    ("put", "/api/start-freeze"): ACTS,
    ("delete", "/api/start-freeze"): ACTS,
    ("get", "/api/activity"): {"200", "400", "401", "503"},
    ("get", "/api/policies"): {"200", "401", "503"},
    ("post", "/api/policies"): (ACTS | {"201"}) - {"200"},
    ("get", "/api/policies/{id}"): {"200", "401", "404", "503"},
    ("put", "/api/policies/{id}"): {*ACTS, "404"},
    ("delete", "/api/policies/{id}"): {*ACTS, "404"},
    ("post", "/api/policies/{id}/confirm-stop"): {*ACTS, "404"},
    ("put", "/api/policies/switch"): ACTS,
    ("get", "/api/policies/findings"): {"200", "400", "401", "503"},
    ("get", "/api/policies/findings/{id}"): {"200", "401", "404", "503"},
    ("post", "/api/policies/findings/{id}/snooze"): {*ACTS, "404"},
    ("delete", "/api/policies/findings/{id}/snooze"): {*ACTS, "404"},
    ("get", "/api/costs"): {"200", "401", "503"},
    ("get", "/api/costs/history"): {"200", "400", "401", "503"},
    ("get", "/api/costs/instances"): {"200", "400", "401", "503"},
    ("get", "/api/costs/bill"): {"200", "400", "401", "503"},
    ("get", "/api/overview"): {"200", "304", "401", "503"},
    ("get", "/api/cache/stats"): {"200", "401", "503"},
    ("get", "/health"): {"200", "401", "503"},
}


# Made once for all tests of this file, in 0.2 s.
_described: dict[str, Any] = {}


@pytest.fixture
def schema(client: Client) -> dict[str, Any]:
    if not _described:
        _described.update(client.get("/api/schema?format=json").json())
    return _described


@pytest.mark.thorough
def test_description_is_made_without_a_warning() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


@pytest.mark.parametrize(("route", "statuses"), ROUTES.items())
def test_each_route_is_described_with_its_answers(schema: Any, route: tuple[str, str], statuses: set[str]) -> None:
    method, path = route

    assert statuses <= schema["paths"][path][method]["responses"].keys()


def test_description_has_no_undocumented_route(schema: Any) -> None:
    described = {(method, path) for path, methods in schema["paths"].items() for method in methods}

    assert described == ROUTES.keys()


def test_query_is_described(schema: Any) -> None:
    parameters = schema["paths"]["/api/instances"]["get"]["parameters"]

    names = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
    assert names == {
        *(
            "status",
            "group",
            "region",
            "gpu",
            "owner",
            "project",
            "search",
            "attention",
            "ordering",
            "page",
            "pageSize",
            "fields",
        ),
    }


def test_answers_match_the_description(client: Client, synchronize: Callable[..., Any], novita: NovitaAnswers) -> None:
    row = make_row("a", statusError={"state": "failed", "message": "no disk"}, spotStatus="x", endTime="1790000000")
    synced = synchronize(row, make_row("b", portMappings=None, memory=None, billingMode=""))
    novita.takes("stop", "a")

    _assert_described(synced, serializers.SyncResultSerializer)
    _assert_described(client.get("/api/instances").json(), serializers.ListingSerializer)
    _assert_described(client.get("/api/instances/a").json(), serializers.InstanceSerializer)
    _assert_described(client.post("/api/instances/a/stop").json(), serializers.ActionResultSerializer)
    _assert_described(client.get("/api/cache/stats").json(), serializers.StatsSerializer)
    _assert_described(client.get("/health").json(), serializers.HealthSerializer)
    _assert_described(client.get("/api/instances?page=0").json(), serializers.ErrorSerializer)
    protected = client.post("/api/instances/a/protect", {"reason": "training"}).json()
    _assert_described(protected, serializers.ProtectedSerializer)
    _assert_described(client.get("/api/protections").json(), serializers.ProtectionListSerializer)
    _assert_described(client.get("/api/overview").json(), serializers.OverviewSerializer)
    _assert_described(client.delete("/api/instances/a/protect").json(), serializers.ProtectedSerializer)
    _assert_described(client.post("/api/cache/clear").json(), serializers.ClearSerializer)


def _assert_described(answer: Any, serializer_class: type[Serializer[Any]]) -> None:
    serializer = serializer_class(data=answer)
    assert serializer.is_valid(), json.dumps(serializer.errors)
    assert _get_names(serializer.validated_data) == _get_names(answer)


def _get_names(value: Any) -> Any:
    """Return the names in a document, without its values."""
    match value:
        case dict():
            return {name: _get_names(item) for name, item in value.items()}
        case list():
            return [_get_names(item) for item in value]
    return None


def test_description_page_loads(client: Client) -> None:
    page = client.get("/api/docs").content.decode()
    (script,) = re.findall(r'<script src="(/api/docs[^"]*)"', page)

    assert "/api/schema" in client.get(script).content.decode()
