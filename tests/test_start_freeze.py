"""The start freeze: nothing is started or restarted while it is in force. Stops always pass."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from instances.api import overview
from instances.fallback import kept
from instances.instance import format_time
from instances.models import AuditEntry, StartFreeze
from instances.novita.client import get_novita
from instances.operations import freezing
from tests.conftest import ApiClient
from tests.inventories import fill_inventory
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import OPERATIONS, move_on, order, show_target, wait_for_no_round

pytestmark = pytest.mark.django_db(transaction=True)

FREEZE = "/api/start-freeze"
WISH = {"until": None, "reason": "the budget is spent"}


@pytest.fixture
def account(novita: NovitaAnswers) -> Account:
    """A stopped and a running instance, and their inventory."""
    account = novita.holds(make_row("a", name="train", status="exited"), make_row("b", name="serve"))
    fill_inventory()
    account.calls.clear()
    return account


def put(client: Client, body: Any) -> Any:
    return client.put(FREEZE, body, content_type="application/json")


def freeze(client: Client, **wish: Any) -> None:
    assert put(client, {**WISH, **wish}).status_code == 200


def in_hours(hours: float) -> str:
    return format_time(timezone.now() + timedelta(hours=hours))


def fail_for_freezes(execute: Any, sql: str, *rest: Any) -> Any:
    if "startfreeze" in sql:
        raise OperationalError("disk I/O error")
    return execute(sql, *rest)


ACTS = {
    "start": ("/api/instances/a/start", {}),
    "start of a running instance": ("/api/instances/b/start", {}),
    "restart": ("/api/instances/b/restart", {}),
    "restart of a stopped instance": ("/api/instances/a/restart", {}),
    "start of a selection": (OPERATIONS, {"kind": "start", "ids": ["a"]}),
    "restart of a selection": (OPERATIONS, {"kind": "restart", "ids": ["b"]}),
    "preview of a start": (OPERATIONS, {"kind": "start", "ids": ["a"], "dryRun": True}),
}


@pytest.mark.parametrize("act", ACTS)
def test_start_during_a_freeze_is_refused_with_its_reason(act: str, client: Client, account: Account) -> None:
    freeze(client)
    path, body = ACTS[act]

    answer = client.post(path, body)

    assert answer.status_code == 409
    assert answer.json()["code"] == "STARTS_FROZEN"
    assert "until somebody removes the freeze by local-owner: the budget is spent" in answer.json()["message"]
    assert not any(call.startswith(("start", "restart")) for call in account.calls)


def test_stop_during_a_freeze_passes(client: Client, account: Account) -> None:
    freeze(client)

    assert client.post("/api/instances/b/stop").status_code == 202


def test_stop_of_everything_during_a_freeze_passes(client: Client, account: Account) -> None:
    freeze(client)

    assert order(client)["success"] is True


def test_removed_freeze_allows_starts(client: Client, account: Account) -> None:
    freeze(client)

    assert client.delete(FREEZE).json()["frozen"] is False

    assert client.post("/api/instances/a/start").status_code == 202


def test_freeze_ends_at_its_time(client: Client, account: Account) -> None:
    freeze(client, until=in_hours(1))
    StartFreeze.objects.update(ends_at=timezone.now() - timedelta(seconds=1))

    assert client.get(FREEZE).json()["frozen"] is False
    assert client.post("/api/instances/a/start").status_code == 202


def test_freeze_is_shown_with_its_end_and_reason(client: Client, account: Account) -> None:
    until = in_hours(2)

    freeze(client, until=until)

    shown = client.get(FREEZE).json()
    assert shown.pop("frozenAt")[-1] == "Z"
    assert shown.pop("message") == (
        f"Starts are frozen until {until} by local-owner: the budget is spent. Stops always pass."
    )
    assert shown == {"frozen": True, "until": until, "reason": "the budget is spent", "frozenBy": "local-owner"}


def test_new_freeze_replaces_the_earlier_one(client: Client, account: Account) -> None:
    freeze(client, until=in_hours(5))

    freeze(client, reason="maintenance")

    assert client.get(FREEZE).json()["reason"] == "maintenance"
    assert StartFreeze.objects.filter(removed_at=None).count() == 1


def test_later_of_two_freezes_at_once_counts(client: Client, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_all = freezing._remove_all

    def remove_slowly(*args: Any, **conditions: Any) -> None:
        remove_all(*args, **conditions)
        # On PostgreSQL neither of two transactions sees the other's freeze.
        if not StartFreeze.objects.exists():
            StartFreeze.objects.create(reason="for long", frozen_by="bob")

    monkeypatch.setattr(freezing, "_remove_all", remove_slowly)

    freeze(client, until=in_hours(1))

    (left,) = StartFreeze.objects.filter(removed_at=None)
    assert left.reason == "for long"
    assert client.get(FREEZE).json()["reason"] == "for long"


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"reason": "x"}, {"until": None}, {**WISH, "reason": " "}, {**WISH, "reason": "x" * 501}),
        *({**WISH, "until": "2020-01-01T00:00:00Z"}, {**WISH, "until": "tomorrow"}, {**WISH, "for": 3}),
    ],
    ids=str,
)
def test_wrong_freeze_is_refused_and_changes_nothing(body: Any, client: Client, account: Account) -> None:
    answer = put(client, body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert not StartFreeze.objects.exists()


def test_freeze_that_is_not_in_force_can_not_be_removed(client: Client, account: Account) -> None:
    answer = client.delete(FREEZE)

    assert answer.status_code == 409
    assert answer.json()["message"] == "Starts are not frozen."


@pytest.mark.usefixtures("no_pauses")
def test_running_start_requests_nothing_more_after_a_freeze(client: Client, account: Account) -> None:
    account.answers("start a", 500)
    answer = order(client, OPERATIONS, kind="start", ids=["a"])
    freeze(client)
    account.calls.clear()

    move_on(answer, rounds=2)

    assert "start a" not in account.calls
    assert show_target(client, answer)["state"] == "skipped"
    assert "Starts are frozen" in show_target(client, answer)["message"]


def test_start_that_waits_for_its_turn_is_not_sent_after_a_freeze(
    monkeypatch: pytest.MonkeyPatch, client: Client, account: Account
) -> None:
    monkeypatch.setattr(get_novita(), "concurrency", 1)
    wait_for_no_round(monkeypatch)
    account.change("c", "exited", name="z")
    account.answers("start a", lambda: freeze(ApiClient()), None)

    answer = order(client, OPERATIONS, kind="start", ids=["a", "c"])
    move_on(answer)

    assert account.orders == ["start a"]
    assert show_target(client, answer, "c")["state"] == "skipped"
    assert "Starts are frozen" in show_target(client, answer, "c")["message"]


def test_start_that_waits_for_a_read_is_not_sent_after_a_freeze(client: Client, account: Account) -> None:
    account.change("b", "exited")
    account.answers("read b", lambda: freeze(ApiClient()), None)

    answer = client.post("/api/instances/b/start")

    assert answer.json()["code"] == "STARTS_FROZEN"
    assert not account.orders


def test_freeze_holds_while_the_database_can_not_be_read(client: Client, account: Account) -> None:
    freeze(client)

    with connection.execute_wrapper(fail_for_freezes):
        answer = client.post("/api/instances/a/start")

    assert answer.json()["code"] == "STARTS_FROZEN"


def test_unreadable_kept_freeze_freezes_nothing(client: Client, account: Account) -> None:
    kept.write("start-freeze", '{"frozen_at": 3}')

    with connection.execute_wrapper(fail_for_freezes):
        assert client.post("/api/instances/a/start").status_code == 202


def test_freezing_and_its_removal_are_recorded(client: Client, account: Account) -> None:
    freeze(client)
    client.delete(FREEZE)

    entries = AuditEntry.objects.filter(action__startswith="starts.").order_by("pk")
    assert [one.action for one in entries] == ["starts.freeze", "starts.unfreeze"]
    assert {one.reason for one in entries} == {"the budget is spent"}


def test_open_pages_learn_of_a_freeze(client: Client, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "SHARED_SECONDS", -1)
    etag = client.get("/api/overview")["ETag"]

    freeze(client)

    answer = client.get("/api/overview", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.json()["startFreeze"]["reason"] == "the budget is spent"


def test_page_says_that_starts_are_frozen(client: Client, account: Account) -> None:
    freeze(client)

    assert "Starts are frozen until somebody removes the freeze by local-owner" in client.get("/").content.decode()
