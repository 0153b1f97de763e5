"""`manage.py stop_all`: for the night on which nothing else runs."""

import functools
import io
import json
import signal
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from fakeredis import FakeServer

from instances.models import AuditEntry, Operation
from tests import commands
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import order

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short pauses; and SIGTERM, which the command takes for itself, is given back."""
    monkeypatch.setattr("instances.operations.rounds.FIRST_ROUND_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("instances.operations.rounds.MAX_ROUND_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("instances.management.commands.stop_all.POLL_SECONDS", 0.05)
    monkeypatch.setattr("instances.operations.orders.WAIT_SECONDS", 0.05)
    usual = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, usual)


Ran = functools.partial(commands.Ran, "stop_all")


def carry_out(account: Account, *ids: str) -> None:
    """Let these stop as soon as a stop is requested."""

    def stop(id_: str) -> tuple[int, dict[str, str], str]:
        account.change(id_, "exited")
        return 200, {}, "{}"

    for id_ in ids:
        account.answers(f"stop {id_}", lambda id_=id_: stop(id_))


def test_command_stops_all_and_waits_until_each_is_verified(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"), make_row("c", status="exited"))
    carry_out(account, "a", "b")

    ran = Ran("--yes", "--reason", "the bill")

    assert ran.status == 0
    assert ran.out == "All 2 are stopped.\n"
    assert ran.err == ""
    (shown,) = client.get("/api/operations").json()["operations"]
    assert shown["success"] is True
    assert shown["reason"] == "the bill"
    assert shown["isWholeAccount"] is True
    assert shown["requestedBy"].endswith(" (shell)")
    assert AuditEntry.objects.filter(action="operation.stop", actor=shown["requestedBy"]).count() == 1


def test_result_says_what_the_stop_saves(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", instancePrice="35000"), make_row("b", billingMode="monthly"))
    client.post("/api/instances/sync")
    carry_out(account, "a", "b")

    ran = Ran("--yes")

    assert ran.out.splitlines() == ["All 2 are stopped.", "Saves $0.35 per hour, without 1 prepaid instance."]


def test_command_says_when_nothing_is_running(novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="exited"))

    ran = Ran("--yes")

    assert ran.status == 0
    assert ran.out == "Nothing was running.\n"


def pass_deadline() -> None:
    """Let the deadline pass now; as an answer of Novita, in between."""
    Operation.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))


def test_still_running_instance_is_named_with_exit_status_1(novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="train"), make_row("b"))
    carry_out(account, "b")
    account.answers("stop a", pass_deadline)

    ran = Ran("--yes")

    assert ran.status == 1
    assert account.orders == ["stop a", "stop b"]
    assert ran.out.splitlines() == [
        "train (a): Still stopping at the deadline (1 attempt).",
        "1 of 2 is still stopping.",
    ]


def test_unreadable_instance_is_not_reported_as_stopped(novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("read a", 500)
    account.answers("list", None, 500)
    account.answers("stop a", pass_deadline)

    ran = Ran("--yes")

    assert ran.status == 1
    assert ran.out.startswith("name-a (a): Not verified: Novita returned an error (HTTP 500).\n")


def test_protected_instances_are_named(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="demo"), make_row("b"))
    client.post("/api/instances/a/protect", {"reason": "the demo"})
    carry_out(account, "b")

    ran = Ran("--yes")

    assert ran.status == 0
    assert ran.out == "skipped: demo: Protected: the demo\nThe instance is stopped.\n"


def test_json_output_equals_the_api(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    carry_out(account, "a")

    ran = Ran("--yes", "--json", stderr=commands.Terminal())

    printed = json.loads(ran.out)
    assert ran.status == 0
    assert ran.err == ""
    assert printed == client.get(f"/api/operations/{printed['id']}").json()


def test_dry_run_reports_and_changes_nothing(novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name="train"), make_row("b", name="", billingMode="monthly"))

    ran = Ran("--dry-run")

    assert ran.status == 0
    assert account.calls == ["list"]
    assert Operation.objects.count() == 0
    assert ran.out.splitlines() == [
        "Would stop 2 running instances.",
        "  (no name) (b) running",
        "  train (a) running",
        "Data on local disks may be lost; Novita keeps it for up to 7 days.",
        "A stopped instance may not start again: its GPU can be taken meanwhile.",
        "Prepaid by the month: stopping saves nothing for b.",
    ]


def test_dry_run_prints_json(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"))

    printed = json.loads(Ran("--dry-run", "--json").out)

    answered = order(client, dryRun=True)
    assert printed.pop("timestamp") and answered.pop("timestamp")
    assert printed == answered


# --- The question


def test_command_without_a_terminal_requires_yes(novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n"))
    account = novita.holds(make_row("a"))

    ran = Ran()

    assert ran.status == 2
    assert ran.out == ""
    assert account.calls == []
    assert "Add --yes" in ran.err


@pytest.mark.parametrize("typed", ["y\n", "2\n", "\n", ""])
def test_any_other_answer_stops_nothing(typed: str, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", commands.Terminal(typed))
    account = novita.holds(make_row("a"))

    ran = Ran()

    assert ran.status == 1
    assert ran.err == "Nothing was stopped.\n"
    assert account.orders == []
    assert not Operation.objects.exists()


def test_typed_number_confirms_the_stop(novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", commands.Terminal("1\n"))
    account = novita.holds(make_row("a"))
    carry_out(account, "a")

    ran = Ran()

    assert ran.status == 0
    assert account.orders == ["stop a"]
    assert ran.out.startswith("Would stop 1 running instance.\n  name-a (a) running\n")
    assert ran.out.endswith("The instance is stopped.\n")


def test_reason_that_is_too_long_is_cut_and_the_stop_is_sent(novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    carry_out(account, "a")

    ran = Ran("--yes", "--reason", "x" * 501)

    assert ran.status == 0
    assert ran.out == "The instance is stopped.\n"
    assert account.orders == ["stop a"]
    assert "The reason has 501 characters; the first 500 are recorded." in ran.err
    assert Operation.objects.get().reason == "x" * 500


# --- When other things are broken


def test_command_needs_no_redis(novita: NovitaAnswers, redis_server: FakeServer) -> None:
    account = novita.holds(make_row("a"))
    carry_out(account, "a")
    redis_server.connected = False

    ran = Ran("--yes")

    assert ran.status == 0
    assert ran.out == "The instance is stopped.\n"


def test_command_says_why_without_listing_and_inventory(novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("list", 401)

    ran, in_json = Ran("--yes"), Ran("--yes", "--json")

    assert ran.status == 1
    assert in_json.status == 1
    assert account.orders == []
    assert ran.err.startswith("Novita's edge refuses us (HTTP 401).") and "NOVITA_API_KEY" in ran.err
    assert json.loads(in_json.out)["code"] == "NOVITA_REJECTED_KEY"


def test_stop_goes_on_without_tables_and_names_the_cure(novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    carry_out(account, "a")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE instances_operation RENAME TO elsewhere")
    try:
        ran = Ran("--yes")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO instances_operation")
    assert ran.status == 0
    assert ran.out.strip() == "The instance is stopped."
    assert account.orders == ["stop a"]
    assert "manage.py migrate" in ran.err


def test_command_follows_a_running_operation(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    body = order(client)
    account.settle()

    ran = Ran("--yes")

    assert ran.status == 0
    assert account.orders == ["stop a"]
    assert Operation.objects.count() == 1
    assert ran.err.startswith("Joined the operation that was started")
    assert client.get(body["operationUrl"]).json()["success"] is True


# --- The terminal

HOSTILE = "\x1b[2J\x1b]0;pwned\x07\r\nDone\u202e\u2066"


@pytest.mark.parametrize("argument", ["--dry-run", "--yes"])
def test_instance_name_cannot_move_the_cursor(argument: str, client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(
        make_row("a", name=HOSTILE),
        make_row("b", name=HOSTILE),
        make_row("c", status=HOSTILE),
        make_row("d", name=HOSTILE, billingMode="monthly"),
    )
    client.post("/api/instances/b/protect", {"reason": HOSTILE})
    refusal = {"code": 400, "reason": "X", "message": HOSTILE}
    account.answers("stop a", lambda: pass_deadline() or (400, {}, json.dumps(refusal)))
    account.answers("list", None, (400, {}, json.dumps(refusal)))

    out = Ran(argument).out

    assert "�[2J" in out
    assert all(char.isprintable() or char == "\n" for char in out)
    assert "\nDone" not in out


def test_terminal_shows_the_progress(novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a", name=HOSTILE))
    account.answers("read a", None, account.settle)

    ran = Ran("--yes", stderr=commands.Terminal())

    assert "verifying: 1 requested, " in ran.err
    assert "pwned" not in ran.err
