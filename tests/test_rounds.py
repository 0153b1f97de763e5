"""The rounds of an operation, run as a worker does: confirmations, repeated requests, the result."""

import json
import math
import threading
import time
from typing import Any

import pytest
import requests
from django.db import connections
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instances.models import AuditEntry, Operation, Target
from tests.conftest import ApiClient
from tests.novita_answers import INVALID_STATE_CHANGE, Account, NovitaAnswers, make_refusal, make_row
from tests.operation_steps import Json, move_on, move_on_at_once, order, pass_deadline, show, show_states, show_target

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


def find_pause(id_: str = "a") -> int:
    """Return the seconds until an instance may be requested again."""
    due_at = Target.objects.get(instance_id=id_).next_request_at
    return math.ceil((due_at - timezone.now()).total_seconds()) if due_at else 0


# --- Confirmed


def test_stopped_means_verified_by_a_read(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)

    for status in ("toStop", "stopping", "brand-new-status", "running"):
        account.change("a", status)
        move_on_at_once(body)
        target = show_target(client, body)
        assert target["state"] == "requested"
        assert target["status"] == status
        assert target["confirmedAt"] is None
    account.change("a", "exited")
    move_on(body)

    target = show_target(client, body)
    assert target["state"] == "confirmed"
    assert target["status"] == "exited"
    assert target["confirmedAt"] >= target["requestedAt"]
    shown = show(client, body)
    assert shown["state"] == "finished"
    assert shown["success"] is True
    assert shown["result"] == "The instance is stopped."
    assert account.orders == ["stop a"]


def test_result_counts_every_target(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(*(make_row(f"i{number}") for number in range(15)))
    body = order(client)
    account.settle()

    move_on(body)

    assert show(client, body)["result"] == "All 15 are stopped."
    assert account.calls.count("list") == 2


def test_instance_missing_at_novita_counts_as_stopped(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    del account.rows["a"]

    move_on(body)

    assert show_states(client, body) == {"a": "confirmed"}
    assert show(client, body)["success"] is True
    assert show_target(client, body)["status"] == "removed"


def test_instance_removed_before_the_request_counts_as_stopped(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    def delete() -> None:
        del account.rows["a"]

    account.answers("stop a", delete)

    assert show_states(client, order(client)) == {"a": "confirmed"}


def test_gateway_404_confirms_nothing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.answers("read a", (404, {}, "<html>not found</html>"))

    move_on(body)

    assert show_states(client, body) == {"a": "requested"}


def test_unreadable_instance_is_not_confirmed(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.answers("read a", 500)

    move_on(body)

    assert show_states(client, body) == {"a": "requested"}
    assert show(client, body)["success"] is None


@pytest.mark.parametrize(("status", "state"), [("exited", "confirmed"), ("running", "requested"), (None, "confirmed")])
def test_direct_read_decides_when_a_page_misses_an_instance(
    status: str | None, state: str, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"), *(make_row(f"i{number}") for number in range(11)))
    body = order(client)
    account.settle()
    account.unlisted = {"a"}
    if status is None:
        del account.rows["a"]
    else:
        account.change("a", status)

    move_on_at_once(body)

    assert show_states(client, body)["a"] == state
    assert "read a" in account.calls


def test_stop_by_somebody_else_counts(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", 500)
    body = order(client)
    account.change("a", "stopping")

    move_on(body)
    assert show_states(client, body) == {"a": "requested"}
    assert show_target(client, body)["error"] is None
    account.change("a", "exited")
    move_on(body)

    assert show(client, body)["success"] is True
    assert account.orders == ["stop a"]


# --- Requested again


def test_running_instance_is_requested_again_after_a_pause(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.change("a", "running")
    patience = [find_pause()]

    for _ in range(5):
        move_on_at_once(body)
        move_on(body)
        account.change("a", "running")
        patience.append(find_pause())

    assert account.orders == ["stop a"] * 6
    assert patience == [15, 30, 45, 60, 60, 60]
    assert show_target(client, body)["attempts"] == 6


def test_instance_that_falls_back_to_running_is_requested_again(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.change("a", "stopping")
    move_on(body)
    account.change("a", "running")

    move_on(body)

    assert account.orders == ["stop a", "stop a"]


def test_requests_end_after_the_maximum_of_attempts(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", (200, {}, "{}"))
    body = order(client)

    move_on(body, 14)

    assert account.orders == ["stop a"] * 12
    pass_deadline(body)
    move_on(body)
    assert show_target(client, body)["error"] == "Still running at the deadline (12 attempts)."


def test_failed_request_is_repeated_after_growing_pauses(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", *[500] * 7, None)
    body = order(client)
    pauses = [find_pause()]

    for _ in range(6):
        move_on_at_once(body)
        move_on(body)
        pauses.append(find_pause())
    assert account.orders == ["stop a"] * 7
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert show_states(client, body) == {"a": "failed"}
    move_on(body)

    target = show_target(client, body)
    assert target["state"] == "requested"
    assert target["attempts"] == 8
    assert target["error"] is None


def test_starting_instance_is_requested_again_once_it_is_running(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", status="pulling"))
    body = order(client)
    assert show_states(client, body) == {"a": "failed"}
    assert account.orders == ["stop a"]

    move_on(body, 2)
    assert account.orders == ["stop a"]
    account.change("a", "running")
    move_on(body)

    assert show_states(client, body) == {"a": "requested"}
    assert account.orders == ["stop a", "stop a"]


def test_instance_protected_meanwhile_is_skipped(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="train"))
    account.answers("stop a", 500)
    body = order(client)
    assert client.post("/api/instances/a/protect", {"reason": "a long run"}).status_code == 200

    move_on(body)

    assert account.orders == ["stop a"]
    assert show_target(client, body)["state"] == "skipped"
    assert show_target(client, body)["error"] == "Protected: a long run"
    move_on(body)
    assert show(client, body)["success"] is True


# --- The final listing


def test_instance_started_meanwhile_is_stopped_too(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.change("new", "running")

    move_on(body)

    shown = show(client, body)
    assert account.orders == ["stop a", "stop new"]
    assert shown["success"] is None
    assert show_states(client, body) == {"a": "confirmed", "new": "requested"}
    assert shown["notes"] == ["1 instance was started meanwhile; its stop is requested, too."]
    account.settle()
    move_on(body)
    assert show(client, body)["result"] == "All 2 are stopped."


def test_protected_instance_started_meanwhile_is_skipped(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b", status="exited"))
    client.post("/api/instances/b/protect", {"reason": "the demo"})
    body = order(client)
    account.settle()
    account.change("b", "running")

    move_on(body)

    assert account.orders == ["stop a"]
    assert show_states(client, body) == {"a": "confirmed", "b": "skipped"}
    assert show(client, body)["success"] is True


def test_stopped_instance_that_is_running_again_is_requested_again(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.answers("list", lambda: account.change("a", "running"), None)

    move_on(body)

    assert account.orders == ["stop a", "stop a"]
    assert show_states(client, body) == {"a": "requested"}
    assert show_target(client, body)["confirmedAt"] is None
    account.settle()
    move_on(body)
    assert show(client, body)["success"] is True


@pytest.mark.parametrize("others", ["", "c"], ids=["alone", "with a new one"])
def test_what_somebody_joining_requests_during_the_last_read_is_not_requested_again(
    others: str, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()

    def run() -> None:
        for id_ in ["a", *others]:
            account.change(id_, "running")

    def join() -> tuple[int, dict[str, str], str]:
        row = json.dumps(account.rows["a"])
        order(ApiClient())
        return 200, {}, row

    account.answers("list", run, None)
    # The first read confirms that it has stopped; the second one is of what the list shows running.
    account.answers("read a", None, join, None)

    move_on(body)

    assert account.orders == ["stop a", "stop a", *(f"stop {id_}" for id_ in others)]
    assert set(show_states(client, body).values()) == {"requested"}
    account.settle()
    move_on(body)
    assert show(client, body)["success"] is True


def make_page(*rows: Json) -> tuple[int, dict[str, str], str]:
    return 200, {}, json.dumps({"instances": rows, "total": len(rows)})


def test_old_page_causes_no_second_request(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.answers("list", make_page(make_row("a")))

    move_on(body)

    assert account.orders == ["stop a"]
    assert show(client, body)["success"] is True


def test_instance_that_only_the_listing_shows_running_is_not_confirmed(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.answers("list", make_page(make_row("a")))
    account.answers("read a", None, 500)
    pass_deadline(body)

    move_on(body)

    assert show_states(client, body) == {"a": "stillRunning"}
    assert show(client, body)["success"] is False


def test_no_success_without_the_final_listing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    account.answers("list", 500)

    move_on(body, 2)
    assert show(client, body)["state"] == "verifying"
    assert show(client, body)["success"] is None
    pass_deadline(body)
    move_on(body)

    shown = show(client, body)
    assert shown["state"] == "finished"
    assert shown["success"] is False
    assert shown["counts"]["confirmed"] == 1
    note = "The final listing failed, so other instances may be running: "
    assert shown["notes"] == [f"{note}Novita returned an error (HTTP 500)."]
    assert shown["result"].startswith(f"The instance is stopped. {note}")


def test_selection_needs_no_final_listing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    body = order(client, ids=["a"])
    account.settle()

    move_on(body)

    assert show(client, body)["success"] is True
    assert account.calls.count("list") == 0


# --- The result


def test_each_target_ends_with_the_state_of_the_last_read(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(*(make_row(id_) for id_ in "abcde"))
    account.answers("stop b", 500)
    body = order(client)
    account.rows["a"]["status"] = "exited"
    account.rows["c"]["status"] = "running"
    account.rows["d"]["status"] = "stopping"
    account.answers("read e", 500)
    account.answers("list", 500)
    pass_deadline(body)

    move_on(body)

    shown = show(client, body)
    targets = {one["instanceId"]: (one["state"], one["error"]) for one in shown["targets"]}
    assert targets == {
        "a": ("confirmed", None),
        "b": ("failed", "Novita returned an error (HTTP 500). The instance is running."),
        "c": ("stillRunning", "Still running at the deadline (1 attempt)."),
        "d": ("stillRunning", "Still stopping at the deadline (1 attempt)."),
        "e": ("unknown", "Not verified: Novita returned an error (HTTP 500)."),
    }
    assert shown["state"] == "finished"
    assert shown["success"] is False
    words = "2 of 5 are still running, 1 is still stopping, 1 could not be verified. The final listing failed"
    assert shown["result"].startswith(words)
    assert shown["counts"]["unknown"] == 1


def test_result_tells_running_starting_and_stopping_instances_apart(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(*(make_row(id_) for id_ in "abcd"))
    body = order(client)
    for id_, status in {"a": "running", "b": "pulling", "c": "creating", "d": "stopping"}.items():
        account.rows[id_]["status"] = status
    pass_deadline(body)

    move_on(body)

    result = show(client, body)["result"]
    assert result == "1 of 4 is still running, 2 are still starting, 1 is still stopping."


def test_deadline_alone_confirms_nothing(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.answers("read a", requests.ConnectionError("reset"))
    account.answers("list", requests.ConnectionError("reset"))
    pass_deadline(body)

    move_on(body)

    assert show_states(client, body) == {"a": "unknown"}
    assert show(client, body)["success"] is False
    assert show_target(client, body)["confirmedAt"] is None


def test_last_read_after_the_deadline_decides(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    pass_deadline(body, 3000)
    account.settle()

    move_on(body)

    assert show(client, body)["success"] is True
    assert show(client, body)["result"] == "The instance is stopped."


def test_no_request_is_sent_after_the_deadline(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.change("a", "running")
    account.change("new", "running")
    pass_deadline(body)

    move_on(body)

    assert account.orders == ["stop a"]
    assert show(client, body)["result"] == "2 of 2 are still running."
    assert show_target(client, body, "new")["error"] == "Still running at the deadline (no stop requested)."


def test_result_never_changes(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    move_on(body)
    shown = show(client, body)
    account.change("a", "running")
    account.calls.clear()

    move_on(body)

    assert show(client, body) == shown
    assert account.calls == []


def test_audit_names_requester_and_outcome_of_each_target(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="train"), make_row("b"), make_row("c", status="exited"))
    body = order(client, ids=["a", "b", "c"], reason="weekend")
    account.settle()
    account.change("b", "running")
    pass_deadline(body)

    move_on(body)

    entries = AuditEntry.objects.filter(action="instance.stop").order_by("target")
    assert [(entry.target, entry.before, entry.after, entry.outcome) for entry in entries] == [
        ("a", "running", "exited", "done"),
        ("b", "running", "running", "stillRunning"),
    ]
    assert {(entry.actor, entry.reason) for entry in entries} == {("local-owner", "weekend")}
    assert entries[0].target_name == "train" and entries[0].request_id


# --- Any sequence

REFUSED = (400, {}, json.dumps(INVALID_STATE_CHANGE))
GONE = (400, {}, json.dumps(make_refusal(400, "RESOURCE_NOT_FOUND", "gone")))
ASKING = st.sampled_from([None, None, 500, 401, REFUSED, GONE, (200, {}, "{}"), (429, {"Retry-After": "3600"}, "")])
READING = st.sampled_from([None, None, None, 500, GONE, (404, {}, "<html>")])
STATUS = st.sampled_from(["running", "exited", "exited", "stopping", "pulling", "removed", "odd", "unchanged"])
ROUND = st.tuples(STATUS, ASKING, READING, st.sampled_from([None, None, 500]))


def shows_stopped(call: str, answer: Any) -> bool:
    """Tell whether Novita's answer to this call shows the instance "a" stopped, or says that there is none."""
    _, _, text = answer
    if call == "stop a" or not text.startswith("{"):
        return bool(answer == GONE)
    told = json.loads(text)
    rows = told["instances"] if call == "list" else [told]
    return answer == GONE or any(row["id"] == "a" and row["status"] in {"exited", "removed"} for row in rows)


@pytest.mark.thorough
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(ROUND, min_size=1, max_size=6), is_late=st.booleans())
def test_confirmed_means_shown_by_a_read_after_the_last_request(
    steps: list[tuple[str, Any, Any, Any]], is_late: bool, novita: NovitaAnswers
) -> None:
    client = ApiClient()
    Operation.objects.all().delete()
    novita.mock.reset()
    account = novita.holds(make_row("a"))
    body = order(client)
    for status, request, reading, listing in steps:
        if status != "unchanged":
            account.change("a", status)
        account.answers("stop a", request)
        account.answers("read a", reading)
        account.answers("list", listing)
        move_on(body)
        check_confirmed(client, body, account)
    if is_late:
        pass_deadline(body)
        move_on(body)
        check_confirmed(client, body, account)
        assert show(client, body)["success"] is not None


def check_confirmed(client: Client, body: Json, account: Account) -> None:
    shown = show(client, body)
    if show_states(client, body)["a"] != "confirmed":
        assert not shown["success"]
        return
    last_order = max(index for index, (call, _) in enumerate(account.told) if call == "stop a")
    assert any(shows_stopped(call, answer) for call, answer in account.told[last_order:])


def test_no_thread_outlives_a_round(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()
    move_on(body)
    connections.close_all()

    ends_at = time.monotonic() + 5
    while {"operation", "claim", "novita"} & {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < ends_at
        time.sleep(0.05)
