"""The activity: every change and attempt leaves an entry, and a failed record changes nothing else."""

import logging
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from instances.access import audit
from instances.models import AuditEntry, Operation
from instances.operations.rounds import advance
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import STOP_ALL, missing_audit_table, order
from tests.system.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def account(client: Client, novita: NovitaAnswers) -> Account:
    account = novita.holds(make_row("a", name="train"))
    assert client.post("/api/instances/sync").status_code == 200
    AuditEntry.objects.all().delete()
    return account


def test_stop_is_recorded(client: Client, account: Account) -> None:
    answer = client.post("/api/instances/a/stop", REMOTE_ADDR="127.0.0.9")

    (entry,) = AuditEntry.objects.all()
    assert answer.status_code == 202
    assert entry.actor == "local-owner"
    assert entry.address == "127.0.0.9"
    assert entry.action == "instance.stop"
    assert entry.target == "a"
    assert entry.target_name == "train"
    assert entry.before == "running"
    assert entry.after == "toStop"
    assert entry.outcome == "done"
    assert entry.error == ""
    assert entry.request_id and abs(timezone.now() - entry.at) < timedelta(seconds=60)


def test_failed_attempt_is_recorded_with_its_code(client: Client, account: Account) -> None:
    account.answers("stop a", 401)

    answer = client.post("/api/instances/a/stop")

    (entry,) = AuditEntry.objects.all()
    assert entry.outcome == "NOVITA_REJECTED_KEY"
    assert entry.error == answer.json()["message"]
    assert entry.before == "running"
    assert entry.after == ""
    assert entry.request_id == answer.json()["requestId"]


def test_overlong_id_is_recorded_shortened(client: Client, account: Account) -> None:
    client.post(f"/api/instances/{'x' * 5000}/stop")
    client.post("/api/instances/a%00b/stop")

    entries = AuditEntry.objects.order_by("pk")
    assert [one.target for one in entries] == ["x" * 128, "a�b"]
    assert {one.outcome for one in entries} == {"INSTANCE_NOT_FOUND"}


def test_logged_in_user_is_named(client: Client, account: Account, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    client.force_login(User.objects.create_user("ada", is_staff=True))

    client.post("/api/instances/a/stop")

    assert AuditEntry.objects.get().actor == "ada"


def test_operations_are_recorded_from_request_to_cancellation(client: Client, account: Account) -> None:
    body = order(client, reason="weekend")
    client.post(f"{body['operationUrl']}/cancel")

    entries = AuditEntry.objects.order_by("pk")
    assert [(one.action, one.target, one.before, one.after, one.outcome, one.reason) for one in entries] == [
        ("operation.stop", body["operationId"], "", "1 targets", "done", "weekend"),
        ("operation.cancel", body["operationId"], "verifying", "cancelled", "done", ""),
    ]


def test_each_instance_of_an_operation_is_recorded_with_address_and_request_id(
    client: Client, account: Account
) -> None:
    body = client.post(STOP_ALL, {}, REMOTE_ADDR="127.0.0.9").json()
    account.change("a", "exited")
    Operation.objects.update(next_round_at=timezone.now())
    advance(uuid.UUID(body["operationId"]))

    ordered, stopped = AuditEntry.objects.order_by("pk")
    assert ordered.action == "operation.stop"
    assert stopped.action == "instance.stop"
    assert stopped.target == "a"
    assert stopped.actor == "local-owner"
    assert stopped.address == "127.0.0.9"
    assert stopped.request_id == ordered.request_id != ""


def test_syncs_and_cache_clearing_are_recorded(client: Client, account: Account) -> None:
    client.post("/api/instances/sync")
    client.post("/api/cache/clear")
    account.answers("list", 401)
    client.post("/api/instances/sync")

    entries = AuditEntry.objects.order_by("pk")
    assert [(one.action, one.outcome, one.before) for one in entries] == [
        ("sync", "done", ""),
        ("cache.clear", "done", "1 instances"),
        ("sync", "NOVITA_REJECTED_KEY", ""),
    ]


def test_reading_leaves_no_entry(client: Client, account: Account) -> None:
    for path in (
        "/api/instances",
        "/api/instances/a",
        "/api/operations",
        "/api/protections",
        "/api/overview",
        "/health",
    ):
        client.get(path)
    client.post(STOP_ALL, {"dryRun": True})

    assert not AuditEntry.objects.exists()


def test_no_secret_is_recorded(client: Client, account: Account) -> None:
    order(client)
    client.post("/api/instances/a/protect", {"reason": "x"})

    assert "FAKE-SECRET" not in str(list(AuditEntry.objects.values()))


def test_overlong_name_is_recorded_shortened(client: Client, account: Account) -> None:
    account.change("a", "running", name="tr\x00ain" + "n" * 1000)
    client.post("/api/instances/sync")

    assert client.post("/api/instances/a/stop").status_code == 202
    assert AuditEntry.objects.latest("pk").target_name == ("tr�ain" + "n" * 1000)[:255]


def test_action_that_can_not_be_recorded_is_done_and_logged(
    client: Client, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/health")
    with missing_audit_table():
        answer = client.post("/api/instances/a/stop")

    assert answer.status_code == 202
    assert account.orders == ["stop a"]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("audit entry not recorded: instance.stop a: ")


def test_entries_stored_without_the_database_are_limited(
    client: Client, account: Account, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get("/health")
    monkeypatch.setattr("instances.fallback.journal.MAX_ENTRIES", 1)
    monkeypatch.setattr("instances.fallback.journal.TICK_SECONDS", 0.05)
    monkeypatch.setattr("instances.fallback.journal.RECORD_EVERY_SECONDS", 0)
    with missing_audit_table():
        for _ in range(3):
            client.post("/api/instances/sync")

    assert "1 audit entries dropped" in caplog.text
    wait_until(lambda: AuditEntry.objects.filter(action="sync").count() == 1, "the first one is recorded afterwards")


def test_unexpected_exception_is_recorded_as_internal_error() -> None:
    with pytest.raises(ZeroDivisionError), audit.recorded(audit.WORKER, "sync"):
        raise ZeroDivisionError

    assert [(one.actor, one.outcome) for one in AuditEntry.objects.all()] == [("worker", "INTERNAL_ERROR")]


def test_shell_user_is_named() -> None:
    assert audit.get_shell_actor().name.endswith(" (shell)")


@pytest.mark.parametrize("error", [OSError, KeyError])
def test_user_id_without_name_is_named_by_number(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise error("no such user")

    monkeypatch.setattr("getpass.getuser", fail)
    monkeypatch.setattr("os.getuid", lambda: 12345)

    assert audit.get_shell_actor().name == "uid 12345 (shell)"
