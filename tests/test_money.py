"""Stops and starts speak of money: what they save or cost per hour; and a restore starts what a stop has stopped."""

import io
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from fakeredis import FakeServer

from instances.models import Target
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import move_on, order, pass_deadline, show

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

Json = dict[str, Any]


@pytest.fixture
def account(novita: NovitaAnswers) -> Any:
    """Two running instances for 2.35 dollars, one stopped, one prepaid, and one with an unknown price."""
    account = novita.holds(
        make_row("a", instancePrice="35000"),
        make_row("b", instancePrice="100000", gpuNum="2"),
        make_row("c", instancePrice="100000", status="exited"),
        make_row("d", instancePrice="100000", billingMode="monthly"),
        make_row("e"),
    )
    fill_inventory()
    return account


def get_money(body: Json) -> list[Any]:
    return [body[name] for name in ("savesPerHour", "costsPerHour", "unknownPrices", "prepaid")]


@pytest.mark.usefixtures("account")
def test_dry_run_of_stop_all_says_what_it_saves(client: Client) -> None:
    assert get_money(order(client, dryRun=True)) == [2.35, None, 1, 1]


def test_instance_that_is_stopping_already_adds_nothing_to_what_a_stop_saves(client: Client, account: Any) -> None:
    account.change("b", "stopping", instancePrice="100000", gpuNum="2")
    fill_inventory()

    assert get_money(order(client, dryRun=True)) == [0.35, None, 1, 1]


@pytest.mark.usefixtures("account")
def test_answer_of_stop_all_says_what_it_saves(client: Client) -> None:
    assert get_money(order(client)) == [2.35, None, 1, 1]


def test_result_of_stop_all_says_what_it_saves(client: Client, account: Any) -> None:
    body = order(client)
    account.settle()
    move_on(body, 2)

    assert get_money(show(client, body)) == [2.35, None, 1, 1]


def test_record_of_a_stop_does_not_follow_later_prices(client: Client, account: Any) -> None:
    body = order(client)
    account.settle()
    move_on(body, 2)
    account.change("a", "exited", instancePrice="99000")
    account.change("b", "exited", instancePrice="99000")
    account.change("e", "exited", instancePrice="99000")
    fill_inventory()

    assert get_money(show(client, body)) == [2.35, None, 1, 1]


def test_record_of_a_start_does_not_follow_later_prices(client: Client, account: Any) -> None:
    body = client.post("/api/operations", {"kind": "start", "ids": ["c"]}).json()
    account.settle()
    move_on(body, 2)
    account.change("c", "running", instancePrice="99000")
    fill_inventory()

    assert get_money(show(client, body)) == [None, 1.0, 0, 0]


def test_record_leaves_out_instances_that_did_not_stop(client: Client, account: Any) -> None:
    body = order(client, ids=["a", "b"])
    account.settle()
    account.change("b", "running", instancePrice="100000", gpuNum="2")
    move_on(body, 1)
    pass_deadline(body)

    move_on(body, 1)

    assert show(client, body)["counts"]["stillRunning"] == 1
    assert show(client, body)["savesPerHour"] == 0.35


@pytest.mark.parametrize("kind", ["stop", "start"])
def test_amount_is_unknown_when_no_price_is_known(client: Client, account: Any, kind: str) -> None:
    account.change("e", "running" if kind == "stop" else "exited")
    fill_inventory()

    answer = client.post("/api/operations", {"kind": kind, "ids": ["e"], "dryRun": True}).json()

    assert get_money(answer) == [None, None, 1, 0]


@pytest.mark.usefixtures("account")
def test_prepaid_instances_save_nothing(client: Client) -> None:
    assert get_money(order(client, ids=["d"], dryRun=True)) == [0.0, None, 0, 1]


def test_record_in_admin_says_what_the_stop_saved(client: Client, account: Any) -> None:
    body = order(client)
    account.settle()
    move_on(body, 2)

    page = client.get(f"/admin/instances/operation/{body['operationId']}/change/").content.decode()

    assert "Saves $2.35 per hour, without 1 unknown price and 1 prepaid instance." in page


@pytest.mark.usefixtures("account")
def test_stop_of_a_selection_says_what_it_saves(client: Client) -> None:
    assert get_money(order(client, ids=["a", "c"], dryRun=True)) == [0.35, None, 0, 0]


@pytest.mark.usefixtures("account")
def test_protected_instance_saves_nothing(client: Client) -> None:
    client.post("/api/instances/b/protect", {"reason": "training"})

    assert order(client, dryRun=True)["savesPerHour"] == 0.35


@pytest.mark.usefixtures("account")
def test_start_says_what_it_costs(client: Client) -> None:
    body = {"kind": "start", "ids": ["c", "a"], "dryRun": True}

    assert get_money(client.post("/api/operations", body).json()) == [None, 1.0, 0, 0]


@pytest.mark.usefixtures("account")
def test_restart_changes_no_cost(client: Client) -> None:
    body = {"kind": "restart", "ids": ["a"], "dryRun": True}

    assert get_money(client.post("/api/operations", body).json()) == [None, None, 0, 0]


@pytest.mark.usefixtures("account")
def test_prices_are_unknown_without_redis_and_the_stop_is_sent(client: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False

    body = order(client)

    assert body["count"] == 4
    assert get_money(body) == [None, None, 4, 0]


@pytest.mark.usefixtures("account")
def test_command_says_what_a_stop_saves() -> None:
    out = io.StringIO()

    call_command("stop_all", "--dry-run", stdout=out)

    assert "Saves $2.35 per hour, without 1 unknown price and 1 prepaid instance." in out.getvalue()


def test_command_says_that_no_price_is_known(account: Any) -> None:
    for id_ in ("a", "b", "d"):
        account.change(id_, "exited")
    fill_inventory()
    out = io.StringIO()

    call_command("stop_all", "--dry-run", stdout=out)

    assert "Saves an unknown amount per hour, without 1 unknown price." in out.getvalue()


# --- Restore


def restore(client: Client, body: Json, status: int = 202, **more: Any) -> Json:
    wish = {"kind": "start", "fromOperation": body["operationId"], **more}
    answer = client.post("/api/operations", wish)
    assert answer.status_code == status, answer.content
    found: Json = answer.json()
    return found


def test_restore_starts_what_a_stop_has_stopped_and_still_exists(client: Client, account: Any) -> None:
    body = order(client)
    account.settle()
    move_on(body, 2)
    del account.rows["e"]
    account.change("d", "running")

    answer = restore(client, body, 200)

    assert sorted(one["instanceId"] for one in answer["results"]) == ["a", "b", "d"]
    assert [call for call in account.orders if call.startswith("start")] == ["start a", "start b"]
    assert get_money(answer) == [None, 2.35, 0, 0]


def test_dry_run_of_a_restore_says_what_it_costs(client: Client, account: Any) -> None:
    body = order(client, ids=["a"])
    account.settle()
    move_on(body, 2)
    fill_inventory()

    answer = restore(client, body, 200, dryRun=True)

    assert answer["costsPerHour"] == 0.35
    assert "start a" not in account.calls


def test_restore_leaves_out_what_was_stopped_already(client: Client, account: Any) -> None:
    body = order(client, ids=["c"])
    move_on(body, 2)

    assert "stopped no instance" in restore(client, body, 409)["message"]


def test_restore_of_a_start_is_refused(client: Client, account: Any) -> None:
    body = client.post("/api/operations", {"kind": "start", "ids": ["c"]}).json()
    account.settle()
    move_on(body, 2)

    assert "stopped no instance" in restore(client, body, 409)["message"]


def test_restore_of_instances_that_are_all_removed_is_refused(client: Client, account: Any) -> None:
    body = order(client, ids=["a"])
    account.settle()
    move_on(body, 2)
    del account.rows["a"]

    assert "stopped no instance" in restore(client, body, 409)["message"]


def test_restore_of_a_running_stop_waits_for_its_result(client: Client, account: Any) -> None:
    body = order(client, ids=["a"])

    assert "still running" in restore(client, body, 409)["message"]


@pytest.mark.usefixtures("account")
def test_restore_of_an_unknown_operation_is_refused(client: Client) -> None:
    restore(client, {"operationId": "no-such"}, 404)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("more", [{"kind": "stop"}, {"kind": "restart"}, {"ids": ["a"]}])
def test_restore_with_more_fields_is_refused(client: Client, more: Json) -> None:
    body = order(client, ids=["a"])

    assert restore(client, body, 400, **more)["fields"]
    assert Target.objects.count() == 1
