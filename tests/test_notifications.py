"""Notifications: what is told to which channel, once, with retries, and without a secret."""

import io
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Barrier, Thread
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from instances import alarms, tasks
from instances.access.audit import Actor
from instances.instance import format_time
from instances.inventory import store
from instances.models import Channel, Event, EventKind, Message, MessageAttempt, Operation, Snooze
from instances.notifications import events, sending, services
from instances.policies import editing, summary
from novita_site import env
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import OPERATIONS, move_on, order, pass_deadline, sync
from tests.policy_steps import STARTED, Time, make_finding, make_policy, show, watch_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


class Inbox(BaseHTTPRequestHandler):
    """A service on this machine that receives what Apprise sends as JSON."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))  # type: ignore[attr-defined]  # set by the fixture
        self.send_response(self.server.status)  # type: ignore[attr-defined]  # likewise
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def inbox(settings: Settings) -> Iterator[Any]:
    """The service of NOTIFY_URLS; its address has a secret."""
    server: Any = HTTPServer(("127.0.0.1", 0), Inbox)
    server.received, server.status = [], 200
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    settings.NOTIFY_URLS = [(f"json://127.0.0.1:{server.server_port}/FAKE-SECRET-path", frozenset())]
    services._read.cache_clear()
    yield server
    server.shutdown()
    server.server_close()
    services._read.cache_clear()


def send_all() -> None:
    """Send what is due, as the worker does, at any time."""
    Message.objects.filter(state="due").update(next_attempt_at=timezone.now() - timedelta(seconds=1))
    for pk in Message.objects.filter(state="due").values_list("pk", flat=True):
        sending.send(pk)


def tell(
    key: str = "k", kind: EventKind = EventKind.BALANCE_LOW, lines: tuple[str, ...] = ("one", "two")
) -> Event | None:
    return events.tell(kind, key, "The balance is low", lines, "/costs/")


# --- Telling


def test_event_reaches_a_service(inbox: Any) -> None:
    tell()

    send_all()

    (received,) = inbox.received
    assert received["title"] == "The balance is low"
    assert received["message"] == "one\ntwo"


def test_same_event_is_told_once_an_hour(inbox: Any) -> None:
    tell()

    tell()

    assert Event.objects.count() == 1


def test_event_is_told_again_after_an_hour(inbox: Any) -> None:
    tell()
    Event.objects.update(created_at=timezone.now() - timedelta(minutes=61))

    tell()

    assert Event.objects.count() == 2


def test_clock_set_back_silences_nothing(inbox: Any) -> None:
    tell()
    Event.objects.update(created_at=timezone.now() + timedelta(days=1))

    tell()

    assert Event.objects.count() == 2


def test_nothing_is_recorded_without_a_channel() -> None:
    assert tell() is None
    assert not Event.objects.exists()


def test_service_receives_only_the_events_that_it_names(inbox: Any, settings: Settings) -> None:
    settings.NOTIFY_URLS = [(settings.NOTIFY_URLS[0][0], frozenset({"policy.warning"}))]
    services._read.cache_clear()

    assert tell() is None
    assert tell(kind=EventKind.POLICY_WARNING) is not None


def test_many_lines_are_cut_with_their_number(inbox: Any) -> None:
    tell(lines=tuple(f"line {number}" for number in range(1000)))

    event = Event.objects.get()
    assert len(event.lines) == 51
    assert event.lines[-1] == "… and 950 more."


def test_message_has_a_link_to_the_panel(inbox: Any, settings: Settings) -> None:
    settings.PUBLIC_URL = "https://panel.example.com"
    tell()

    send_all()

    assert inbox.received[0]["message"].endswith("\nhttps://panel.example.com/costs/")


# --- Retries


def test_failed_message_is_sent_again_under_the_same_id(inbox: Any) -> None:
    inbox.status = 500
    tell()
    send_all()
    message = Message.objects.get()
    assert message.state == "due"
    assert message.next_attempt_at
    assert message.next_attempt_at > timezone.now()

    inbox.status = 200
    send_all()

    again = Message.objects.get()
    assert again.state == "sent"
    assert again.message_id == message.message_id
    assert MessageAttempt.objects.count() == 2


def test_dead_channel_delays_no_other(inbox: Any, settings: Settings) -> None:
    settings.NOTIFY_URLS = [("json://127.0.0.1:9/dead", frozenset()), *settings.NOTIFY_URLS]
    services._read.cache_clear()
    for number in range(3):
        tell(str(number))
        for pk in sending.list_due():
            sending.send(pk)

    sent = Message.objects.filter(state="sent")
    assert {one.service for one in sent} == {services.list_services()[1].name}


def test_message_is_given_up_after_a_day(inbox: Any) -> None:
    inbox.status = 500
    tell()
    Message.objects.update(tries=20)

    send_all()

    assert Message.objects.get().state == "dead"


def test_message_for_a_service_that_is_gone_is_given_up(inbox: Any, settings: Settings) -> None:
    tell()
    settings.NOTIFY_URLS = []

    send_all()

    assert Message.objects.get().state == "dead"
    assert MessageAttempt.objects.get().error == "NOTIFY_URLS no longer has this service."


def test_message_that_is_claimed_is_not_sent_twice(inbox: Any) -> None:
    tell()
    pk = Message.objects.get().pk

    sending.send(pk)
    sending.send(pk)

    assert len(inbox.received) == 1


def test_no_secret_is_logged_or_stored(inbox: Any, log_stream: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    inbox.status = 500
    tell()
    send_all()

    stored = [*Message.objects.values(), *MessageAttempt.objects.values(), *Event.objects.values()]
    assert "FAKE-SECRET" not in log_stream.getvalue()
    assert "FAKE-SECRET" not in caplog.text
    assert "FAKE-SECRET" not in repr(stored)


def test_telling_people_is_never_in_the_way(inbox: Any) -> None:
    with connection.execute_wrapper(Mock(side_effect=OperationalError("disk full"))):
        assert tell() is None


# --- What is told


@pytest.fixture
def account(client: Client, novita: NovitaAnswers) -> Account:
    account = novita.holds(make_row("a", name="train"), make_row("b", name="serve", status="exited"))
    sync(client, account)
    return account


def list_told() -> list[tuple[str, str]]:
    return [(one.kind, one.title) for one in Event.objects.order_by("pk")]


def test_operation_that_succeeds_is_told(client: Client, account: Account, inbox: Any) -> None:
    answer = order(client, OPERATIONS, kind="stop", ids=["a"])
    account.settle()
    move_on(answer)

    assert list_told() == [("operation.finished", "The instance is stopped.")]


def test_operation_that_fails_is_told(client: Client, account: Account, inbox: Any) -> None:
    account.answers("stop a", 500)
    answer = order(client, OPERATIONS, kind="stop", ids=["a"])
    pass_deadline(answer)
    move_on(answer)

    assert [kind for kind, _ in list_told()] == ["operation.failed"]


def test_change_elsewhere_is_told(client: Client, account: Account, inbox: Any) -> None:
    account.change("b", "running")

    sync(client, account)

    assert list_told() == [("outside.change", "1 instance changed outside the panel")]
    assert Event.objects.get().lines == ["serve: started"]


def test_start_elsewhere_during_a_freeze_is_told_as_one(client: Client, account: Account, inbox: Any) -> None:
    client.put("/api/start-freeze", {"until": None, "reason": "no budget"}, content_type="application/json")
    account.change("b", "running")

    sync(client, account)

    assert Event.objects.get().lines[0] == "Starts are frozen here (no budget), and something was started elsewhere."


def test_warning_is_told_once_for_all_instances_with_links_that_snooze(inbox: Any, settings: Settings) -> None:
    settings.PUBLIC_URL = "https://panel.example.com"
    make_policy(mode="notify")

    watch_for(Time(), 1, show("a"), show("b"))

    event = Event.objects.get()
    assert event.title == "Policy idle machines warns of 2 instances"
    links = [line for line in event.lines if line.startswith("Snooze: https://panel.example.com/snooze/")]
    assert len(links) == 2
    path = links[0].removeprefix("Snooze: https://panel.example.com")
    assert Client().post(path, {"for": "1h"}).status_code == 200
    assert Snooze.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        "a shorter grace period",
        "a new start",
        "acting was off",
    ],
)
def test_warning_of_another_stop_is_told_within_the_hour(change: str, account: Account, inbox: Any) -> None:
    policy, time, shown = make_policy(warning_minutes=8), Time(), show()
    watch_for(time, 5, shown)
    match change:
        case "a shorter grace period":
            policy.warning_minutes = 2
            editing.save(policy, actor=Actor("ann"))
        case "a new start":
            shown = show(lastStartedAt=format_time(STARTED + timedelta(hours=1)))
        case "acting was off":
            editing.switch(is_off=True, actor=Actor("ann"))
            watch_for(time, 5, shown)
            editing.switch(is_off=False, actor=Actor("ann"))

    watch_for(time, 2, shown)

    assert [kind for kind, _ in list_told()].count("policy.warning") == 2


def test_warning_that_comes_and_goes_is_told_once_an_hour(account: Account, inbox: Any) -> None:
    make_policy()
    time = Time()

    for load in (0.0, 90.0, 0.0, 90.0, 0.0):
        watch_for(time, 2, show(), load=load)

    assert [kind for kind, _ in list_told()].count("policy.warning") == 1


def test_policy_that_observes_tells_nobody(inbox: Any) -> None:
    make_policy(mode="observe")

    watch_for(Time(), 40, show())

    assert list_told() == []


def test_stop_that_a_limit_holds_back_asks_people(account: Account, inbox: Any) -> None:
    make_policy(max_stops_per_hour=1)

    watch_for(Time(), 33, show("a"), show("b"))

    titles = [title for _, title in list_told()]
    assert "Policy idle machines did not stop name-b" in titles or "Policy idle machines did not stop name-a" in titles


def test_failing_synchronizations_are_told_after_ten_minutes_and_their_end(
    client: Client, account: Account, inbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.answers("list", 500)
    client.post("/api/instances/sync")
    alarms.watch()
    assert list_told() == []
    monkeypatch.setattr(alarms, "FAILING_AFTER", timedelta(seconds=-1))

    alarms.watch()
    account.answers("list", None)
    client.post("/api/instances/sync")
    alarms.watch()
    alarms.watch()

    assert [kind for kind, _ in list_told()] == ["sync.failing", "sync.recovered"]


def test_spot_instance_that_is_taken_back_is_told(client: Client, account: Account, inbox: Any) -> None:
    account.change("a", "running", billingMode="spot", spotStatus="reclaiming", spotReclaimTime="1760000000")
    sync(client, account)
    Event.objects.all().delete()

    alarms.watch()

    assert list_told() == [("spot.reclaim", "Novita takes back the spot instance train")]


def test_summary_of_a_day_is_told(account: Account, inbox: Any) -> None:
    summary.tell(datetime(2026, 1, 15, tzinfo=UTC).date())

    (event,) = Event.objects.all()
    assert event.title == "Summary of 2026-01-15"
    assert event.lines[0].startswith("Spent: $0.00")
    assert event.lines[3].endswith("days: train")


def test_summary_comes_at_its_hour_once(account: Account, inbox: Any, settings: Settings) -> None:
    settings.NOTIFY_SUMMARY_HOUR = timezone.now().hour

    tasks.watch_alarms()
    tasks.watch_alarms()

    assert [kind for kind, _ in list_told()].count("daily.summary") == 1


def test_summary_counts_each_stopped_run_once(account: Account, inbox: Any) -> None:
    at = datetime(2026, 1, 15, 12, tzinfo=UTC)
    operation = Operation.objects.create(kind="stop", is_whole_account=False, usd_per_hour="0.25", deadline_at=at)
    for id_ in ("c", "d"):
        operation.targets.create(instance_id=id_, state="confirmed")
    for rule, id_ in (("idle", "a"), ("lease", "a"), ("schedule", "b"), ("budget", "")):
        make_finding(
            policy=make_policy(rule, max_usd_per_hour=1),
            instance_id=id_,
            state="stopped",
            stopping_at=at,
            usd_per_hour="0.5" if id_ else None,
            operation_id=operation.pk,
        )

    summary.tell(at.date())

    assert Event.objects.get().lines[2] == "Stopped by policies: 4 instances, which saves $1.25/h."


SUMMARY_DAY = datetime(2026, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "days"),
    [
        ([6.9], []),
        ([7, 7.5, 8, 23.9], ["2026-01-14"]),
        # No worker ran at the hour of the second day.
        ([7, 24 + 6.9, 24 + 9, 24 + 9.5, 48 + 7], ["2026-01-14", "2026-01-15", "2026-01-16"]),
        # No worker ran for a week.
        ([7, 7 * 24 + 12, 7 * 24 + 13], ["2026-01-14", "2026-01-21"]),
        # The panel was set up in the afternoon: the first summary comes at its hour.
        ([15, 24 + 7], ["2026-01-15"]),
    ],
)
def test_summary_is_told_once_a_day_also_after_a_downtime(
    hours: list[float], days: list[str], account: Account, inbox: Any
) -> None:
    for hour in hours:
        now = SUMMARY_DAY + timedelta(hours=hour)
        summary.tell_when_due(now)
        Event.objects.filter(created_at__gt=now).update(created_at=now)

    assert sorted(Event.objects.values_list("key", flat=True)) == days


def test_summary_that_nobody_hears_is_not_made(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
        summary.tell_when_due(SUMMARY_DAY + timedelta(hours=7))


def test_event_that_two_processes_tell_at_the_same_moment_is_told_once(inbox: Any) -> None:
    barrier = Barrier(4)

    def tell_with_others(_: int) -> None:
        barrier.wait(10)
        tell()
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tell_with_others, range(4)))

    assert Event.objects.count() == 1


def test_alarms_without_an_inventory_say_nothing(inbox: Any) -> None:
    assert store.read_state().freshness.as_of is None

    alarms.watch()

    assert list_told() == []


# --- The command, the setting and the pages


def test_command_says_which_channel_took_the_test(inbox: Any) -> None:
    out = io.StringIO()

    call_command("notify", "--test", stdout=out)

    assert out.getvalue().startswith("json ")
    assert out.getvalue().endswith(": sent\n")
    assert inbox.received[0]["message"] == "This channel works."


def test_command_fails_when_a_channel_does_not_take_the_test(inbox: Any) -> None:
    inbox.status = 403
    out = io.StringIO()

    with pytest.raises(CommandError, match="1 of 1 channels"):
        call_command("notify", "--test", stdout=out)

    assert "did not accept" in out.getvalue()


@pytest.mark.parametrize(
    ("broken", "reason"), [("SELECT", "The database can't be used: disk full"), ("INSERT", "Nothing was sent")]
)
def test_command_does_not_call_a_broken_database_a_missing_channel(broken: str, reason: str, inbox: Any) -> None:
    def fail(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith(broken):
            raise OperationalError("disk full")
        return execute(sql, *args)

    with connection.execute_wrapper(fail), pytest.raises(CommandError, match=reason):
        call_command("notify", "--test")


def test_command_without_a_channel_says_how_to_add_one() -> None:
    with pytest.raises(CommandError, match="NOTIFY_URLS"):
        call_command("notify", "--test")


def test_events_of_the_setting_are_those_of_the_program() -> None:
    assert set(EventKind.values) - {EventKind.TEST} == env.EVENT_KINDS


@pytest.mark.parametrize(
    ("text", "part"),
    [
        *(("nonsense", "entry 1 is not the URL"), ("json://ok 'nope://FAKE-SECRET'", "entry 2 is not the URL")),
        ("balance.high|json://ok", "entry 1 names an unknown event"),
    ],
)
def test_wrong_service_is_refused_without_its_secret(text: str, part: str) -> None:
    reader = env.Env({"NOTIFY_URLS": text})
    reader.services("NOTIFY_URLS")

    with pytest.raises(env.InvalidSettings) as refused:
        reader.check()

    assert part in str(refused.value)
    assert "FAKE-SECRET" not in str(refused.value)


def test_services_and_their_events_are_read() -> None:
    read = env.Env({"NOTIFY_URLS": "balance.low,sync.failing|json://a  json://b"}).services("NOTIFY_URLS")

    assert read == [("json://a", frozenset({"balance.low", "sync.failing"})), ("json://b", frozenset())]


@pytest.mark.parametrize("url", ["panel.example.com", "https://", "https://a b", "ftp://x", "https://u:p@x"])
def test_wrong_public_address_is_refused(url: str) -> None:
    reader = env.Env({"PUBLIC_URL": url})
    reader.public_url("PUBLIC_URL")

    with pytest.raises(env.InvalidSettings):
        reader.check()


ADD = "/admin/instances/channel/add/"


@pytest.fixture
def signing(settings: Settings) -> None:
    settings.WEBHOOK_SECRET = ["whsec_" + "A" * 32]
    settings.WEBHOOK_ALLOWED_HOSTS = ["hooks.example.com"]


@pytest.mark.usefixtures("signing")
def test_channel_is_added_and_its_url_is_not_shown(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instances.notifications.receivers.check_addresses", lambda receiver: None)
    form = {"name": "ops", "url": "https://hooks.example.com/FAKE-SECRET", "kinds": ["balance.low"], "is_on": "on"}

    assert Client.post(client, ADD, form).status_code == 302

    channel = Channel.objects.get()
    assert channel.kinds == ["balance.low"]
    assert "FAKE-SECRET" not in channel.sealed_url
    page = client.get(f"/admin/instances/channel/{channel.pk}/change/").content.decode()
    assert "FAKE-SECRET" not in page
    assert "https://hooks.example.com" in page


@pytest.mark.usefixtures("signing")
@pytest.mark.parametrize("url", ["", "http://hooks.example.com/", "https://127.0.0.1/", "nonsense"])
def test_wrong_channel_is_refused(url: str, client: Client) -> None:
    page = Client.post(client, ADD, {"name": "ops", "url": url, "is_on": "on"}).content.decode()

    assert "errorlist" in page
    assert not Channel.objects.exists()
