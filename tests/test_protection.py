"""Protection: the panel neither stops nor restarts a protected instance."""

import json
from typing import Any

import pytest
from django.test import Client
from fakeredis import FakeServer

from instances.fallback import kept
from instances.models import AuditEntry, Protection
from instances.operations import protections
from tests.inventories import fill_inventory
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import Json, order, show_states

pytestmark = pytest.mark.django_db(transaction=True)

PROTECT = "/api/instances/a/protect"
REASON = {"reason": "the demo runs on it"}


@pytest.fixture
def account(novita: NovitaAnswers) -> Account:
    """An account with one running instance, and its inventory."""
    account = novita.holds(make_row("a", name="train"))
    fill_inventory()
    account.calls.clear()
    return account


def list_protections(client: Client) -> list[Json]:
    body = client.get("/api/protections").json()
    assert body["total"] == len(body["protections"])
    return list(body["protections"])


def test_protection_is_returned_and_listed(client: Client, account: Account) -> None:
    answer = client.post(PROTECT, REASON)

    body = answer.json()
    assert answer.status_code == 200
    assert body.pop("timestamp")[-1] == "Z"
    assert body == {
        "success": True,
        "message": "train is protected",
        "instanceId": "a",
        "reason": "the demo runs on it",
        "protectedBy": "local-owner",
    }
    (listed,) = list_protections(client)
    assert listed.pop("protectedAt")[-1] == "Z"
    assert listed == {
        "instanceId": "a",
        "name": "train",
        "reason": "the demo runs on it",
        "protectedBy": "local-owner",
    }
    assert not account.calls


@pytest.mark.parametrize("action", ["stop", "restart"])
def test_protected_instance_is_neither_stopped_nor_restarted(action: str, client: Client, account: Account) -> None:
    client.post(PROTECT, REASON)

    answer = client.post(f"/api/instances/a/{action}")

    assert answer.status_code == 409
    assert answer.json()["code"] == "PROTECTED"
    assert account.calls == []
    assert answer.json()["message"] == "train is protected: the demo runs on it"
    assert answer.json()["suggestion"].startswith("Remove the protection first")
    assert client.get("/api/instances/a").json()["status"] == "running"


def test_protected_instance_can_be_started(client: Client, account: Account) -> None:
    client.post(PROTECT, REASON)
    account.change("a", "exited")
    client.post("/api/instances/sync")

    assert client.post("/api/instances/a/start").status_code == 202
    account.change("a", "exited")
    order(client, "/api/operations", kind="start", ids=["a"])

    assert account.orders == ["start a", "start a"]


@pytest.mark.parametrize("kind", ["stop", "restart"])
def test_operation_skips_a_protected_instance_even_if_named(kind: str, client: Client, account: Account) -> None:
    client.post(PROTECT, REASON)

    plan = order(client, "/api/operations", kind=kind, ids=["a"], dryRun=True)
    body = order(client, "/api/operations", kind=kind, ids=["a"])

    assert show_states(client, body) == {"a": "skipped"}
    assert account.orders == []
    assert body["skipped"][0]["reason"] == "Protected: the demo runs on it"
    assert plan["skipped"] == body["skipped"]


def test_instance_can_be_stopped_after_protection_is_removed(client: Client, account: Account) -> None:
    client.post(PROTECT, REASON)

    first, second = client.delete(PROTECT), client.delete(PROTECT)

    assert first.status_code == 200
    assert first.json()["message"] == "Protection removed"
    assert second.status_code == 200
    assert second.json()["message"] == "The instance was not protected"
    assert first.json().keys() == {"success", "message", "instanceId", "timestamp"}
    assert list_protections(client) == []
    assert client.post("/api/instances/a/stop").status_code == 202


def test_second_protection_replaces_the_reason(client: Client, account: Account) -> None:
    client.post(PROTECT, REASON)

    client.post(PROTECT, {"reason": "it is the customer's"})

    assert [one["reason"] for one in list_protections(client)] == ["it is the customer's"]


@pytest.mark.parametrize(
    "body", ["", {}, {"reason": ""}, {"reason": " "}, {"reason": None}, {"reason": "x" * 501}, {"reason": "a\x00"}, []]
)
def test_protection_needs_a_reason(body: Any, client: Client, account: Account) -> None:
    answer = client.post(PROTECT, body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert not Protection.objects.exists()


def test_unknown_instance_can_not_be_protected(client: Client, account: Account) -> None:
    answer = client.post("/api/instances/b/protect", REASON)

    assert answer.status_code == 404
    assert answer.json()["code"] == "INSTANCE_NOT_FOUND"
    assert account.calls == ["read b"]
    assert not Protection.objects.exists()


def test_instance_missing_in_the_inventory_is_read_from_novita(client: Client, account: Account) -> None:
    account.change("new", "running", name="fresh")

    client.post("/api/instances/new/protect", REASON)

    assert [one["name"] for one in list_protections(client)] == ["fresh"]


@pytest.mark.parametrize("id_", ["x" * 129, "%00", "a%0d%0ab", "%E2%80%AE"], ids=lambda id_: id_[:10])
def test_invalid_id_is_neither_protected_nor_unprotected(id_: str, client: Client, account: Account) -> None:
    for answer in (
        client.post(f"/api/instances/{id_}/protect", REASON),
        client.delete(f"/api/instances/{id_}/protect"),
    ):
        assert answer.status_code == 404
        assert answer.json()["code"] == "INSTANCE_NOT_FOUND"
    assert not account.calls


def test_protection_outlives_the_inventory(client: Client, account: Account) -> None:
    client.post(PROTECT, REASON)

    client.post("/api/cache/clear")

    assert client.post("/api/instances/a/stop").json()["code"] == "PROTECTED"
    assert order(client)["skipped"][0]["instanceId"] == "a"


def test_protections_work_without_redis(client: Client, account: Account, redis_server: FakeServer) -> None:
    client.post(PROTECT, REASON)
    redis_server.connected = False

    assert order(client)["skipped"][0]["instanceId"] == "a"
    assert len(list_protections(client)) == 1
    assert client.delete(PROTECT).status_code == 200


def test_setting_and_removing_protection_are_recorded(client: Client, account: Account) -> None:
    client.post(PROTECT, REASON)
    client.post("/api/instances/a/stop")
    client.delete(PROTECT)
    client.delete(PROTECT)

    entries = AuditEntry.objects.exclude(action="sync").order_by("pk")
    assert [(one.action, one.target, one.target_name, one.outcome) for one in entries] == [
        ("protection.set", "a", "train", "done"),
        ("instance.stop", "a", "train", "PROTECTED"),
        ("protection.remove", "a", "train", "done"),
    ]
    assert [one.reason for one in entries] == ["the demo runs on it", "", "the demo runs on it"]


def test_protection_set_during_a_read_of_all_is_known_in_an_outage(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember, waiting = protections._remember, [PROTECT]

    def remember_slowly(*args: Any) -> None:
        if waiting:
            client.post(waiting.pop(), REASON)
        remember(*args)

    monkeypatch.setattr(protections, "_remember", remember_slowly)

    protections.read()

    known = protections.find_known()
    assert known
    assert list(known.found) == ["a"]
    assert [json.loads(text)["protections"][0]["instanceId"] for text in kept.read("protections")] == ["a", "a"]
