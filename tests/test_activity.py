"""The activity: one timeline from the records of actions, operations and synchronizations."""

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from instances.activity import actions, timeline
from instances.activity.events import Event, Filter, read_cursor
from instances.models import Action, AuditEntry, Finding, FindingStep, Operation, Policy, SyncRun, Target
from tests.policy_steps import make_finding, make_policy

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


def ago(minutes: float) -> datetime:
    return NOON - timedelta(minutes=minutes)


def act(action: str, minutes: float = 0, **fields: Any) -> AuditEntry:
    fields = {"actor": "ann", "outcome": "done", "request_id": f"r{minutes}", **fields}
    return AuditEntry.objects.create(at=ago(minutes), action=action, **fields)


def operate(minutes: float = 0, names: tuple[str, ...] = (), **fields: Any) -> Operation:
    at = ago(minutes)
    fields = {"requested_by": "ann", "state": "finished", "finished_at": at, "success": True, **fields}
    fields = {"selection": str(minutes), "created_at": at, "deadline_at": at, **fields}
    operation = Operation.objects.create(kind="stop", is_whole_account=True, **fields)
    for name in names:
        Target.objects.create(operation=operation, instance_id=name, name=name, state=Target.State.CONFIRMED)
    return operation


def sync(minutes: float, *, failed: bool = False, **fields: Any) -> SyncRun:
    outcome = SyncRun.Outcome.FAILED if failed else SyncRun.Outcome.SUCCEEDED
    error = "Novita returned an error (HTTP 503)." if failed else ""
    return SyncRun.objects.create(started_at=ago(minutes), trigger="interval", outcome=outcome, error=error, **fields)


def read(client: Client, query: str = "", status: int = 200) -> list[list[str]]:
    """Return the texts of each line of the page: kind, who, what, result."""
    answer = client.get(f"/activity/?{query}")
    assert answer.status_code == status
    lines = re.findall(r"<li>(.*?)</li>", answer.content.decode(), re.DOTALL)
    part = re.compile(r'<span class="(?:kind|who|what|result)[^>]*>(.*?)</span>\n', re.DOTALL)
    parts = [part.findall(line) for line in lines]
    return [[html.unescape(re.sub("<.*?>", "", part)) for part in line] for line in parts]


def test_each_record_is_a_line_with_who_what_and_result(client: Client) -> None:
    act("login", 9)
    act("login", 8, actor="eve", outcome="NOT_AUTHENTICATED", error="Wrong username or password.")
    act("instance.stop", 7, target="a", target_name="alpha", before="running", after="toStop")
    act("instance.start", 6, target="b", target_name="beta", outcome="INSUFFICIENT", error="No free GPU.")
    act("protection.set", 5, target="a", target_name="alpha", reason="the demo")
    act("user.add", 4, target="carol")
    act("command.migrate_all", 3, actor="root (shell)", target="--now")
    operate(2, ("a", "b"), reason="weekend", result="All 2 are stopped.")
    sync(
        1, added_count=1, added=[{"id": "c", "name": "gamma"}], outside_count=1, outside=[{"id": "c", "name": "gamma"}]
    )

    assert read(client) == [
        ["Changes", "automatic", "Instances: 1 new", "gamma; 1 outside this panel"],
        ["Operations", "ann", "Stop of all: 2 instances “weekend”", "All 2 are stopped."],
        ["Settings", "root (shell)", "Command migrate_all --now", "Done."],
        ["Settings", "ann", "Add the user carol", "Done."],
        ["Actions", "ann", "Protect alpha “the demo”", "Protected."],
        ["Actions", "ann", "Start beta", "No free GPU."],
        ["Actions", "ann", "Stop alpha", "Stop requested."],
        ["Logins", "eve", "Log in", "Wrong username or password."],
        ["Logins", "ann", "Log in", "Done."],
    ]


def test_every_action_has_words(client: Client) -> None:
    known = sorted(set(Action) - set(actions._LEFT_OUT))
    for number, action in enumerate(known):
        act(action, number, target="a", target_name="alpha")

    lines = read(client)

    assert len(lines) == len(known)
    assert [action for action, line in zip(known, lines, strict=True) if action in line[2]] == []


def test_action_of_a_later_version_keeps_its_name(client: Client) -> None:
    act("future.action")

    assert read(client)[0][2] == "future.action"


def test_lines_link_to_their_records_and_instances(client: Client) -> None:
    entry = act("instance.stop", target="a&b", target_name="alpha")

    page = client.get("/activity/").content.decode()

    assert f'href="/admin/instances/auditentry/{entry.pk}/change/"' in page
    assert 'href="/?instance=a%26b"' in page
    assert client.get(f"/admin/instances/auditentry/{entry.pk}/change/").status_code == 200


@pytest.mark.parametrize("request_id", ["r1", ""], ids=["by a request", "by a shell"])
def test_operation_is_one_line_and_not_one_for_each_target(client: Client, request_id: str) -> None:
    operate(5, ("a",), request_id=request_id, result="The instance is stopped.")
    act("operation.stop", 5, request_id=request_id)
    act("instance.stop", 4, target="a", request_id=request_id)
    act("instance.stop", 3, target="b", target_name="beta", request_id="another")

    assert [line[2] for line in read(client)] == ["Stop beta", "Stop of all: 1 instance"]


def test_running_operation_has_no_result_yet(client: Client) -> None:
    operate(state="verifying", finished_at=None, success=None)

    assert read(client) == [["Operations", "ann", "Stop of all: 0 instances", "Running."]]


def test_series_of_failures_is_one_failure_and_one_recovery(client: Client) -> None:
    sync(60)
    for minutes in (50, 49, 48):
        sync(minutes, failed=True)
    sync(20)
    sync(19)
    sync(10, failed=True)

    assert read(client) == [
        ["Synchronization", "automatic", "Synchronization began to fail", "Novita returned an error (HTTP 503)."],
        ["Synchronization", "automatic", "Synchronization works again", "After 30 min."],
        ["Synchronization", "automatic", "Synchronization began to fail", "Novita returned an error (HTTP 503)."],
    ]


def test_first_synchronization_of_all_may_fail(client: Client) -> None:
    sync(5, failed=True)

    assert [line[2] for line in read(client)] == ["Synchronization began to fail"]


@pytest.fixture
def busy() -> None:
    act("login", 6)
    act("instance.stop", 5, target="a", target_name="alpha", actor="ann (token nightly)")
    act("instance.stop", 4, target="b", target_name="beta", actor="annika")
    operate(3, ("a", "c"), requested_by="ben")
    sync(2, changed_count=1, changed=[{"id": "a", "name": "alpha", "fields": {}}])
    sync(1, failed=True)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("kind=action", ["Stop beta", "Stop alpha"]),
        ("kind=operation", ["Stop of all: 2 instances"]),
        ("kind=change", ["Instances: 1 changed"]),
        ("kind=sync", ["Synchronization began to fail"]),
        ("kind=login", ["Log in"]),
        ("kind=settings", []),
        ("actor=ann", ["Stop alpha", "Log in"]),
        ("actor=ben", ["Stop of all: 2 instances"]),
        ("actor=nobody", []),
        ("instance=a", ["Instances: 1 changed", "Stop of all: 2 instances", "Stop alpha"]),
        ("instance=a&kind=action", ["Stop alpha"]),
    ],
)
def test_activity_is_filtered_by_kind_person_and_instance(client: Client, query: str, found: list[str]) -> None:
    assert [line[2] for line in read(client, query)] == found


@pytest.mark.usefixtures("busy")
def test_unknown_kind_counts_as_absent(client: Client) -> None:
    assert len(read(client, "kind=nope")) == 6


def read_pages(size: int) -> list[list[Event]]:
    pages, before = [], None
    for _ in range(100):
        page = timeline.read(Filter(before=before), size)
        pages.append(list(page.events))
        if page.next is None:
            return pages
        before = read_cursor(page.next.encode())
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_together_have_every_event_once_also_those_of_the_same_moment(size: int) -> None:
    for minutes in (0, 0, 0, 1, 2, 2):
        act("login", minutes)
    for number, minutes in enumerate((0, 0, 2, 3)):
        operate(minutes, selection=f"s{number}")
    for minutes in (0, 2):
        sync(minutes, added_count=1)
    sync(2, failed=True)
    sync(0)

    pages = read_pages(size)

    events = [event for page in pages for event in page]
    places = [event.place for event in events]
    assert len(set(places)) == len(places) == 6 + 4 + 2 + 2
    assert [place.order for place in places] == sorted(place.order for place in places)
    assert all(len(page) <= size for page in pages)


def test_older_events_are_a_link_away(client: Client) -> None:
    for minutes in range(60):
        act("login", minutes, actor=f"user-{minutes}")
    page = client.get("/activity/?kind=login").content.decode()

    older = html.unescape(re.findall(r'rel="next" href="\?(.*?)"', page)[0])

    assert [line[1] for line in read(client, older)] == [f"user-{minutes}" for minutes in range(50, 60)]


@pytest.mark.parametrize("cursor", ["x", "1-2", "9" * 17 + "-0-1", "1-1-" + "9" * 39, "1-0-" + "9" * 39, "-1-0-0"])
def test_any_cursor_is_answered(client: Client, cursor: str) -> None:
    act("login")

    assert client.get(f"/activity/?before={cursor}").status_code in {200, 400}


def test_bad_cursor_is_explained_and_the_newest_events_are_shown(client: Client) -> None:
    act("login")

    answer = client.get("/activity/?before=nope")

    assert answer.status_code == 400
    assert "The address names no place in the activity." in answer.content.decode()
    assert "Log in" in answer.content.decode()


@pytest.mark.parametrize(
    ("query", "words"),
    [("", "No activity yet."), ("kind=login", "No activity matches."), ("actor=x", "No activity matches.")],
)
def test_empty_activity_says_why(client: Client, query: str, words: str) -> None:
    AuditEntry.objects.all().delete()

    assert words in client.get(f"/activity/?{query}").content.decode()


def test_hostile_texts_are_text(client: Client) -> None:
    act("instance.stop", target='"><script>', target_name="<img src=x>", reason="<b>", outcome="X", error="<i>")

    page = client.get("/activity/").content.decode()

    assert not re.search("<(img|b|i)>|<img|<script>", page.partition('class="card timeline"')[2])


def test_page_needs_a_bounded_number_of_queries(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client.get("/activity/")
    for minutes in range(60):
        act("login", minutes)
        sync(minutes, added_count=1)
        operate(minutes)

    with django_assert_max_num_queries(8):
        client.get("/activity/")


def explain(wanted: Filter) -> dict[str, list[str]]:
    """Return the queries that read a page, each with SQLite's plan."""
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL plans by what the tables hold")
    with CaptureQueriesContext(connection) as queries:
        timeline.read(wanted)
    plans = {}
    with connection.cursor() as cursor:
        for query in queries.captured_queries:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            plans[query["sql"]] = [row[3] for row in cursor.fetchall()]
    return plans


def test_records_of_a_person_are_found_by_an_index(client: Client) -> None:
    """Of 100,000 records, a pattern was tried on each: 45 ms, and 15 ms by the names that occur."""
    act("login", actor="ann (token ci)")
    operate()
    sync(1, failed=True, requested_by="ann")

    plans = explain(Filter(actor="ann"))

    walked = [step for plan in plans.values() for step in plan if step.startswith("SCAN instances_")]
    assert [step for step in walked if "COVERING INDEX" not in step] == []


def test_no_kind_of_record_is_sorted_as_a_whole(client: Client) -> None:
    """Each is read by an index, the newest first: a table of 100,000 rows took 150 ms to sort."""
    plans = explain(Filter())

    assert len(plans) == 5
    assert [sql for sql, plan in plans.items() if "USE TEMP B-TREE FOR ORDER BY" in plan] == []


def test_activity_requires_a_login_where_others_can_reach_the_panel(client: Client, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True

    assert client.get("/activity/").status_code == 302


# --- The API


def list_events(client: Client, query: str = "") -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = client.get(f"/api/activity?{query}").json()["events"]
    return events


def find_step(minutes: float, state: str = "warned", **fields: Any) -> FindingStep:
    policy, _ = Policy.objects.get_or_create(name="Idle", defaults={"rule": "idle"})
    finding = Finding.objects.create(
        policy=policy,
        policy_name="Idle",
        policy_version=1,
        mode="stop",
        instance_id="a",
        name="alpha",
        state="cleared",
        ended_at=ago(minutes),
    )
    return FindingStep.objects.create(finding=finding, at=ago(minutes), state=state, reason="No work.", **fields)


def test_api_lists_each_event_with_its_parts(client: Client) -> None:
    act("instance.stop", 7, target="a", target_name="alpha", before="running", after="toStop")

    (event,) = list_events(client)

    assert event["at"] == "2026-01-15T11:53:00Z"
    assert event["kind"] == "action"
    assert event["actor"] == "ann"
    assert event["instanceId"] == "a"
    assert event["outcome"] == "done"


def test_steps_of_policies_are_events_and_a_snooze_is_one_event(client: Client) -> None:
    finding = make_finding()
    FindingStep.objects.create(finding=finding, state="warned", at=timezone.now() - timedelta(minutes=5))
    client.post(f"/api/policies/findings/{finding.pk}/snooze", {"for": "1h"})

    events = list_events(client, "kind=policy")

    assert [one["what"] for one in events] == ["Snooze", "Policy idle machines: warned"]
    assert [one["actor"] for one in events] == ["local-owner", "policy:idle machines"]
    assert [one["instanceId"] for one in list_events(client, "instance=a")] == ["a", "a"]


def test_page_writes_the_times_in_a_result_for_people(client: Client) -> None:
    FindingStep.objects.create(finding=make_finding(), state="warned", reason="No work since 2026-01-15T17:00:00Z.")

    assert "No work since 2026-01-15 17:00 UTC." in client.get("/activity/").content.decode()


def test_filter_by_a_policy_finds_its_steps(client: Client) -> None:
    FindingStep.objects.create(finding=make_finding(), state="warned")
    FindingStep.objects.create(finding=make_finding(policy=make_policy("lease")), state="warned")

    events = list_events(client, "actor=policy:lease machines")

    assert [one["what"] for one in events] == ["Policy lease machines: warned"]


def test_api_is_read_page_by_page_without_a_gap_or_a_repetition(client: Client) -> None:
    for minutes in range(30):
        act("login", minutes // 3)
        find_step(minutes // 3)

    seen, query = [], "pageSize=7"
    while query:
        body = client.get(f"/api/activity?{query}").json()
        seen += [(one["at"], one["kind"]) for one in body["events"]]
        query = f"pageSize=7&before={body['before']}" if body["before"] else ""

    assert len(seen) == 60
    assert [at for at, _ in seen] == sorted((at for at, _ in seen), reverse=True)


@pytest.mark.parametrize("query", ["kind=x", "before=x", "pageSize=0", "pageSize=101", "since=1", "actor=a&actor=b"])
def test_wrong_query_of_the_api_is_refused(query: str, client: Client) -> None:
    assert client.get(f"/api/activity?{query}").status_code == 400


def test_activity_is_a_csv_file(client: Client) -> None:
    act("login", 2, actor="=cmd")
    act("login", 1)

    answer = client.get("/api/activity.csv?kind=login")

    lines = b"".join(answer.streaming_content).decode("utf-8-sig").splitlines()  # type: ignore[attr-defined]  # streamed
    assert lines[0] == "at,kind,actor,what,result,outcome,reason,instanceId,name"
    assert len(lines) == 3
    assert lines[2].split(",")[2] == "'=cmd"
