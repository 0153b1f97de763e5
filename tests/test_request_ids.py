"""The id of a request: a trusted proxy may choose it, and the position in a trace; nobody else."""

import io
from ipaddress import ip_network

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client
from pytest_django import Settings

from instances.api.shortcut import shorten
from instances.models import AuditEntry
from tests.raw_requests import Server, write

pytestmark = pytest.mark.django_db

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UUID = "7f5c6f9e-3d0d-4a5e-9b6f-1d8d0d0f1f2a"
PROXY = "10.0.0.1"


@pytest.fixture(autouse=True)
def proxy(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = [ip_network(PROXY)]


@pytest.mark.parametrize("path", ["/livez", "/api/nope", "/nope", "/health", "/metrics"])
def test_id_and_trace_of_a_trusted_proxy_are_in_the_answer(client: Client, path: str) -> None:
    answer = client.get(path, headers={"X-Request-Id": UUID, "traceparent": TRACE}, REMOTE_ADDR=PROXY)

    assert answer["X-Request-Id"] == UUID
    assert answer["traceparent"] == TRACE
    if path == "/api/nope":
        assert answer.json()["requestId"] == UUID


def test_id_of_a_trusted_proxy_is_in_an_answer_without_django() -> None:
    headers = [("X-Request-Id", UUID), ("traceparent", TRACE)]

    answer = Server(shorten(WSGIHandler())).send(write("/livez", headers), PROXY)

    assert answer["X-Request-Id"] == UUID
    assert answer["traceparent"] == TRACE


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.7", "", "10.0.0.2"])
def test_nobody_else_chooses_the_id(client: Client, address: str) -> None:
    answer = client.get("/livez", headers={"X-Request-Id": UUID, "traceparent": TRACE}, REMOTE_ADDR=address)

    assert answer["X-Request-Id"] != UUID
    assert "traceparent" not in answer


def test_client_of_a_trusted_proxy_is_not_the_proxy(client: Client) -> None:
    headers = {"X-Request-Id": UUID, "X-Forwarded-For": PROXY}

    answer = client.get("/livez", headers=headers, REMOTE_ADDR="192.0.2.7")

    assert answer["X-Request-Id"] != UUID


@pytest.mark.parametrize("id_", ["", "a b", "a" * 65, "ä", "a\x00", 'a"', "<a>", "a\tb", "a,b"])
def test_id_with_other_characters_or_too_long_is_replaced(client: Client, id_: str) -> None:
    answer = client.get("/livez", headers={"X-Request-Id": id_}, REMOTE_ADDR=PROXY)

    assert len(answer["X-Request-Id"]) == 16


NO_ID = "00-" + "0" * 32 + TRACE[35:]


@pytest.mark.parametrize("trace", ["", TRACE.upper(), TRACE + "-x", "01" + TRACE[2:], TRACE[:-1], NO_ID])
def test_malformed_trace_is_dropped(client: Client, trace: str) -> None:
    answer = client.get("/livez", headers={"traceparent": trace}, REMOTE_ADDR=PROXY)

    assert "traceparent" not in answer


def test_longest_id_is_logged_and_recorded_whole(client: Client, settings: Settings, log_stream: io.StringIO) -> None:
    id_ = "a" * 64
    settings.TRUSTED_PROXIES = [ip_network("127.0.0.1")]

    client.post("/api/instances/a%00b/stop", headers={"X-Request-Id": id_})

    assert f"[{id_}]" in log_stream.getvalue()
    assert set(AuditEntry.objects.values_list("request_id", flat=True)) == {id_}
