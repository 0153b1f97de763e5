"""A retry, and which operations a later one supersedes."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client

from instances.models import Operation, Target
from instances.operations.orders import note_recorded
from tests.conftest import ApiClient
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import OPERATIONS, STOP_ALL, Json, move_on, order, pass_deadline, show, show_states

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


@pytest.fixture
def account(novita: NovitaAnswers) -> Account:
    """Holds "a" and "b", whose stops are accepted and not carried out, and "c", which stops."""
    account = novita.holds(make_row("a"), make_row("b"), make_row("c"))
    for id_ in "ab":
        account.answers(f"stop {id_}", (200, {}, "{}"))
    return account


def fail(client: Client, account: Account, **wish: Any) -> Json:
    """Let a stop end with "a" and "b" still running."""
    body = order(client, **wish)
    account.settle()
    pass_deadline(body)
    move_on(body)
    shown = show(client, body)
    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert shown["supersededBy"] is None
    account.calls.clear()
    return body


def retry(client: Client, first: Json, **fields: Any) -> Any:
    return client.post(OPERATIONS, {"fromOperation": first["operationId"], **fields})


def find_successor(client: Client, body: Json) -> str | None:
    successor: str | None = show(client, body)["supersededBy"]
    return successor


# --- A retry


def test_retry_requests_unconfirmed_targets(client: Client, account: Account) -> None:
    first = fail(client, account, reason="weekend")

    answer = retry(client, first)

    body = answer.json()
    assert answer.status_code == 200
    assert body["count"] == 2
    assert body["total"] == 2
    assert account.orders == ["stop a", "stop b"]
    shown = show(client, body)
    assert shown["retryOf"] == first["operationId"]
    assert shown["kind"] == "stop"
    assert shown["reason"] == "weekend"
    assert shown["isWholeAccount"] is False
    assert shown["supersededBy"] is None
    assert find_successor(client, first) == body["operationId"]
    listed = {one["id"]: one["supersededBy"] for one in client.get(OPERATIONS).json()["operations"]}
    assert listed == {first["operationId"]: body["operationId"], body["operationId"]: None}


def test_retry_requests_the_same_action(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="exited"))
    account.answers("start a", 500)
    body = order(client, OPERATIONS, kind="start", ids=["a"])
    pass_deadline(body)
    move_on(body)
    account.answers("start a", None)

    answer = retry(client, body)

    assert answer.json()["message"] == "Start initiated for 1 of 1 instance"
    assert account.orders == ["start a", "start a"]


def test_dry_run_of_a_retry_changes_nothing(client: Client, account: Account) -> None:
    first = fail(client, account)

    body = retry(client, first, dryRun=True).json()

    assert body["message"] == "Would stop 2 instances"
    assert body["total"] == 2
    assert account.orders == []
    assert find_successor(client, first) is None


def test_second_retry_joins_the_first(client: Client, account: Account) -> None:
    first = fail(client, account)
    body = retry(client, first).json()

    assert retry(client, first).json()["operationId"] == body["operationId"]
    assert account.orders == ["stop a", "stop b"]


def test_retry_with_kind_or_ids_is_refused(client: Client, account: Account) -> None:
    first = fail(client, account)["operationId"]
    wrong: list[Json] = [
        {"fromOperation": first, "ids": ["a"]},
        {"fromOperation": first, "kind": "stop"},
        {"fromOperation": first, "kind": "stop", "ids": ["a"]},
        *({"fromOperation": one} for one in ("", None, 5, ["x"])),
        {},
        {"reason": "x"},
    ]
    for fields in wrong:
        answer = client.post(OPERATIONS, fields)

        assert answer.status_code == 400, fields
        assert answer.json()["code"] == "INVALID_REQUEST", fields
        assert answer.json()["fields"], fields
        assert account.calls == [], fields


def test_stop_all_refuses_from_operation(client: Client, account: Account) -> None:
    first = fail(client, account)

    answer = client.post(STOP_ALL, {"fromOperation": first["operationId"]})

    assert answer.status_code == 400
    assert account.calls == []


@pytest.mark.parametrize("id_", ["36c4b369-fd14-4ede-bdc5-787cd692088a", "nonsense", "../x"])
def test_retry_of_an_unknown_operation_is_not_found(id_: str, client: Client, account: Account) -> None:
    answer = client.post(OPERATIONS, {"fromOperation": id_})

    assert answer.status_code == 404
    assert answer.json()["code"] == "OPERATION_NOT_FOUND"
    assert account.calls == []


def test_running_operation_is_not_retried(client: Client, account: Account) -> None:
    first = order(client)
    account.calls.clear()

    answer = retry(client, first)

    assert answer.status_code == 409
    assert answer.json()["code"] == "INVALID_STATE"
    assert account.calls == []
    assert "still running" in answer.json()["message"]


def test_success_has_nothing_to_retry(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)
    account.settle()
    move_on(first)
    account.calls.clear()

    answer = retry(client, first)

    assert answer.status_code == 409
    assert account.calls == []
    assert "nothing to retry" in answer.json()["message"]


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 200)])
def test_operator_may_retry_a_stop_of_all(
    role: str, status: int, client: Client, account: Account, settings: Any
) -> None:
    first = fail(client, account)
    settings.REQUIRE_LOGIN = True
    user = User.objects.create_user("ann")
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    ann = ApiClient()
    ann.force_login(user)

    assert retry(ann, first).status_code == status


# --- What supersedes


def test_stop_of_all_supersedes_every_failed_stop(client: Client, account: Account) -> None:
    whole, some = fail(client, account), fail(client, account, ids=["a"])
    Operation.objects.update(superseded_by=None)

    later = order(client)

    assert find_successor(client, whole) == find_successor(client, some) == later["operationId"]


def test_stop_of_all_supersedes_a_failed_stop_of_an_instance_that_ended_by_itself(
    client: Client, account: Account
) -> None:
    first = fail(client, account, ids=["a"])
    account.change("a", "exited")

    later = order(client)

    assert "a" not in show_states(client, later)
    assert find_successor(client, first) == later["operationId"]


def test_superseded_operation_keeps_its_first_successor(client: Client, account: Account) -> None:
    first = fail(client, account, ids=["a"])
    second = fail(client, account, ids=["a"])

    third = order(client, ids=["a"])

    assert find_successor(client, second) == third["operationId"]
    assert find_successor(client, first) == second["operationId"]


def test_operation_recorded_later_supersedes_only_those_that_ended_before_it(client: Client, account: Account) -> None:
    before, between, after = (fail(client, account, ids=[id_]) for id_ in ("a", "b", "a"))
    recorded = Operation.objects.get(pk=between["operationId"])
    Operation.objects.update(superseded_by=None)
    recorded.is_whole_account = True

    note_recorded(recorded)

    assert find_successor(client, before) == between["operationId"]
    assert find_successor(client, between) is None
    assert find_successor(client, after) is None


def test_same_selection_supersedes(client: Client, account: Account) -> None:
    first = fail(client, account, ids=["a", "b"])

    later = order(client, ids=["b", "a"])

    assert find_successor(client, first) == later["operationId"]


def test_selection_with_every_unconfirmed_target_supersedes(client: Client, account: Account) -> None:
    first = fail(client, account)

    later = order(client, ids=["a", "b", "c"])

    assert find_successor(client, first) == later["operationId"]


def test_selection_without_an_unconfirmed_target_does_not_supersede(client: Client, account: Account) -> None:
    first = fail(client, account)

    order(client, ids=["a", "c"])

    assert find_successor(client, first) is None


def test_protected_instance_is_not_covered(client: Client, account: Account) -> None:
    first = fail(client, account)
    assert client.post("/api/instances/a/protect", {"reason": "demo"}).status_code == 200

    order(client, ids=["a", "b", "c"])

    assert find_successor(client, first) is None


# How a database refuses links to a later operation, and how it allows them again.
REFUSALS = {
    "sqlite": (
        "CREATE TRIGGER refusal BEFORE UPDATE OF superseded_by_id ON instances_operation "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END",
        "DROP TRIGGER refusal",
    ),
    "postgresql": (
        "ALTER TABLE instances_operation ADD CONSTRAINT refused CHECK (superseded_by_id IS NULL)",
        "ALTER TABLE instances_operation DROP CONSTRAINT refused",
    ),
}


def test_stop_goes_on_when_links_to_earlier_operations_can_not_be_stored(
    client: Client, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    first = fail(client, account)
    refuse, allow = REFUSALS[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(refuse)

    try:
        later = order(client)
    finally:
        with connection.cursor() as cursor:
            cursor.execute(allow)

    assert later["count"] == 2
    assert account.orders == ["stop a", "stop b"]
    assert find_successor(client, first) is None
    assert f"operation {later['operationId']}: links to superseded operations not stored: " in caplog.text
    assert "refused" in caplog.text


def test_another_kind_does_not_supersede(client: Client, account: Account) -> None:
    first = fail(client, account)

    order(client, OPERATIONS, kind="restart", ids=["a", "b"])

    assert find_successor(client, first) is None


def test_success_is_not_superseded(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    first = order(client)
    account.settle()
    move_on(first)

    order(client)

    assert find_successor(client, first) is None


def test_operation_that_could_not_begin_supersedes_nothing(client: Client, account: Account) -> None:
    first = fail(client, account)
    account.answers("list", 500)

    assert client.post(STOP_ALL).status_code == 502

    assert find_successor(client, first) is None


def test_joined_operation_supersedes_those_that_ended_since_it_began(client: Client, account: Account) -> None:
    whole = order(client)
    account.change("d", "running")
    account.answers("stop d", (200, {}, "{}"))
    failed = fail(client, account, ids=["d"])

    assert order(client)["operationId"] == whole["operationId"]

    assert find_successor(client, failed) == whole["operationId"]


def test_replaced_operation_is_superseded_by_its_successor(client: Client, account: Account) -> None:
    first = order(client)
    pass_deadline(first)

    second = order(client)

    assert find_successor(client, first) == second["operationId"]


def test_many_failed_operations_cost_no_more_queries(
    client: Client, account: Account, django_assert_max_num_queries: Any
) -> None:
    ended = [
        Operation(
            kind="stop",
            is_whole_account=False,
            selection=f"stop:{number}",
            state="finished",
            success=False,
            deadline_at="2026-01-01T00:00:00Z",
            finished_at="2026-01-01T00:00:00Z",
        )
        for number in range(60)
    ]
    Operation.objects.bulk_create(ended)
    Target.objects.bulk_create(Target(operation=one, instance_id="a", state="stillRunning") for one in ended)

    with django_assert_max_num_queries(60):
        later = order(client, ids=["a"])

    assert Operation.objects.filter(superseded_by=later["operationId"]).count() == 60
