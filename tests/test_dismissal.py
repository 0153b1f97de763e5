"""A result that nobody has dismissed is shown to everybody; a dismissal is for everybody, and recorded."""

from datetime import timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from instances.api import overview
from instances.fallback import standby
from instances.models import AuditEntry, Operation, Target
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import OPERATIONS, cancel, order, show

OVERVIEW = "/api/overview"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each request read the database anew."""
    monkeypatch.setattr(overview, "SHARED_SECONDS", -1)


def end(*, success: bool = False, days_ago: float = 3, **fields: object) -> Operation:
    """Record an operation that ended long ago, with one instance that is still running unless it is a success."""
    at = timezone.now() - timedelta(days=days_ago)
    fields = {
        "kind": "stop",
        "is_whole_account": True,
        "state": "finished",
        "result": "1 of 1 is still running.",
    } | fields
    operation = Operation.objects.create(success=success, created_at=at, finished_at=at, deadline_at=at, **fields)
    state = Target.State.CONFIRMED if success else Target.State.STILL_RUNNING
    Target.objects.create(operation=operation, instance_id="a", state=state)
    return operation


def list_shown(client: Client) -> list[str]:
    return [one["id"] for one in client.get(OVERVIEW).json()["operations"]]


def dismiss(client: Client, operation: Operation) -> int:
    return client.post(f"{OPERATIONS}/{operation.pk}/dismiss").status_code


def test_failure_is_shown_until_it_is_dismissed(client: Client) -> None:
    failed = end()
    for _ in range(25):
        end(success=True)
    etag = client.get(OVERVIEW)["ETag"]
    assert list_shown(client) == [str(failed.pk)]

    answer = client.post(f"{OPERATIONS}/{failed.pk}/dismiss")

    assert answer.status_code == 200
    assert answer.json()["dismissedBy"] == "local-owner"
    assert answer.json()["dismissedAt"]
    assert client.get(OVERVIEW, headers={"If-None-Match": etag}).status_code == 200
    assert list_shown(client) == []
    assert show(client, {"operationUrl": f"{OPERATIONS}/{failed.pk}"})["result"] == "1 of 1 is still running."


def test_failure_that_a_retry_supersedes_is_not_shown(client: Client) -> None:
    retry = end(success=True)
    end(superseded_by=retry)

    assert list_shown(client) == []


def test_upgrade_dismisses_failures_older_than_dismissals_but_none_of_the_day_before(client: Client) -> None:
    end()
    recent = end(days_ago=0.5)

    with connection.schema_editor() as editor:
        import_module("instances.migrations.0025_old_failures").dismiss_old_failures(apps, editor)

    assert list_shown(client) == [str(recent.pk)]


def test_cancelled_operation_is_shown_only_with_an_unverified_request(client: Client) -> None:
    unverified, clean = end(state="cancelled"), end(state="cancelled")
    clean.targets.update(state=Target.State.CONFIRMED)

    assert list_shown(client) == [str(unverified.pk)]


def test_first_dismissal_counts_and_is_recorded_once(client: Client) -> None:
    failed = end()
    dismiss(client, failed)
    first = Operation.objects.get().dismissed_at

    assert dismiss(client, failed) == 200

    assert Operation.objects.get().dismissed_at == first
    entry = AuditEntry.objects.get()
    assert entry.action == "operation.dismiss"
    assert entry.target == str(failed.pk)
    assert entry.actor == "local-owner"
    assert entry.before == "1 of 1 is still running."
    assert entry.outcome == "done"


def test_running_operation_can_not_be_dismissed(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"))
    begun = order(client)

    answer = client.post(f"{begun['operationUrl']}/dismiss")

    assert answer.status_code == 409
    assert answer.json()["code"] == "OPERATION_RUNNING"
    assert AuditEntry.objects.get(action="operation.dismiss").outcome == "OPERATION_RUNNING"
    cancel(client, begun)


def test_unknown_operation_can_not_be_dismissed(client: Client) -> None:
    for id_ in ("x", "11111111-1111-1111-1111-111111111111"):
        assert client.post(f"{OPERATIONS}/{id_}/dismiss").json()["code"] == "OPERATION_NOT_FOUND"


def test_operation_that_is_not_recorded_yet_can_not_be_dismissed(client: Client) -> None:
    with standby.used():
        operation = end()

    answer = client.post(f"{OPERATIONS}/{operation.pk}/dismiss")

    assert answer.status_code == 503
    assert answer.json()["message"] == "The operation is not recorded yet, because the database could not be written."


def test_dismissal_without_a_database_says_so(client: Client) -> None:
    failed = end()

    def refuse(execute: object, sql: str, *args: object) -> object:
        if sql.startswith("UPDATE"):
            raise OperationalError("disk full")
        return execute(sql, *args)  # type: ignore[operator]  # Django's wrappers get a function

    with connection.execute_wrapper(refuse):
        answer = client.post(f"{OPERATIONS}/{failed.pk}/dismiss")

    assert answer.status_code == 503
    assert answer.json()["code"] == "DATABASE_UNAVAILABLE"
    assert Operation.objects.get().dismissed_at is None
