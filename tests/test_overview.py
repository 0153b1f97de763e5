"""The overview: unchanged until something changes that a dashboard shows, and cheap while it is unchanged."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from fakeredis import FakeServer
from pytest_django import Settings

from instances import health, redis_client
from instances.api import overview
from instances.fallback import standby
from instances.inventory import heartbeat
from instances.models import Operation
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import cancel, move_on, order, protect, sync
from tests.policy_steps import make_finding, make_policy

pytestmark = pytest.mark.django_db(transaction=True)

OVERVIEW = "/api/overview"


@pytest.fixture
def account(client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch) -> Account:
    """An account with two running instances and its inventory. Each request reads the database anew."""
    monkeypatch.setattr(overview, "SHARED_SECONDS", -1)
    account = novita.holds(make_row("a", name="train"), make_row("b", name="serve"))
    sync(client, account)
    return account


def read_again(client: Client, etag: str) -> int:
    """Return the status for a reader who knows this ETag."""
    return client.get(OVERVIEW, headers={"If-None-Match": etag}).status_code


def stop_one(client: Client, _account: Account) -> None:
    assert client.post("/api/instances/a/stop").status_code == 202


def change_at_novita(client: Client, account: Account) -> None:
    account.change("a", "exited")
    sync(client, account)


def begin_operation(client: Client, _account: Account) -> None:
    order(client)


def protect_one(client: Client, _account: Account) -> None:
    protect(client, "a")


def clear(client: Client, _account: Account) -> None:
    assert client.post("/api/cache/clear").status_code == 200


@pytest.mark.parametrize("change", [stop_one, change_at_novita, begin_operation, protect_one, clear])
def test_etag_changes_with_everything_that_a_dashboard_shows(
    change: Callable[[Client, Account], None], client: Client, account: Account
) -> None:
    etag = client.get(OVERVIEW)["ETag"]
    assert read_again(client, etag) == 304

    change(client, account)

    assert read_again(client, etag) == 200


def test_etag_changes_when_a_protection_is_replaced_or_removed(client: Client, account: Account) -> None:
    protect(client, "a")
    first = client.get(OVERVIEW)["ETag"]

    protect(client, "a", "another reason")

    second = client.get(OVERVIEW)
    assert second["ETag"] != first
    assert [one["reason"] for one in second.json()["protections"]] == ["another reason"]
    client.delete("/api/instances/a/protect")
    assert read_again(client, second["ETag"]) == 200


def test_etag_changes_when_an_operation_is_cancelled_and_when_it_ends(client: Client, account: Account) -> None:
    begun = order(client)
    first = client.get(OVERVIEW)["ETag"]

    cancel(client, begun)

    second = client.get(OVERVIEW)
    assert second["ETag"] != first
    assert second.json()["operations"][0]["state"] == "cancelled"
    account.change("a", "exited")
    account.change("b", "exited")
    move_on(begun)
    assert client.get(OVERVIEW).json()["operations"][0]["finishedAt"]
    assert read_again(client, second["ETag"]) == 200


def test_revision_is_that_of_the_list(client: Client, account: Account) -> None:
    etag = client.get("/api/instances")["ETag"]

    assert f'W/"{client.get(OVERVIEW).json()["revision"]}"' == etag


def test_unchanged_overview_costs_one_script_and_no_query(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "SHARED_SECONDS", 60)
    # What is remembered for five seconds stays so, however slow the machine is.
    for name, function in (
        ("_find_policy", redis_client.find_eviction_policy),
        ("_find_low_balance", health._say_low_balance),
    ):
        monkeypatch.setattr(health, name, health._remember(3600, function))
    heartbeat.note_worker()
    etag = client.get(OVERVIEW)["ETag"]
    execute, sent = redis.Redis.execute_command, []

    def count(self: redis.Redis, *args: Any, **options: Any) -> Any:
        sent.append(args[0])
        return execute(self, *args, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", count)

    with CaptureQueriesContext(connection) as queries:
        assert read_again(client, etag) == 304

    assert sent == ["EVALSHA"]
    assert queries.captured_queries == []


def test_etag_changes_as_policies_are_switched_off(client: Client, account: Account) -> None:
    make_finding()
    etag = client.get(OVERVIEW)["ETag"]

    client.put("/api/policies/switch", {"on": False}, content_type="application/json")

    assert read_again(client, etag) == 200
    policies = client.get(OVERVIEW).json()["policies"]
    assert policies["message"] == "Policies stop nothing: local-owner has switched them off."
    assert policies["message"] in client.get("/?script=off").content.decode()


@pytest.mark.parametrize("mode", ["stop", "observe"])
def test_setting_that_keeps_policies_off_is_told_where_one_would_stop(
    mode: str, client: Client, account: Account, settings: Settings
) -> None:
    settings.POLICIES = False
    make_policy(mode=mode)

    policies = client.get(OVERVIEW).json()["policies"]

    assert bool(policies["message"]) is (mode == "stop")
    assert policies["allowed"] is False


def test_findings_that_stop_soonest_are_listed_and_all_are_counted(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "SHOWN_FINDINGS", 2)
    stops, observes = make_policy(), make_policy(name="observing", mode="observe")
    now = timezone.now()
    for id_, policy, stops_at in (
        ("observed", observes, now),
        ("snoozed", stops, None),
        ("later", stops, now + timedelta(hours=1)),
        ("soon", stops, now + timedelta(minutes=1)),
    ):
        make_finding(policy=policy, instance_id=id_, stops_at=stops_at)

    found = client.get(OVERVIEW).json()

    assert [one["instanceId"] for one in found["findings"]] == ["soon", "later"]
    assert found["openFindings"] == 4
    assert "Policies have 4 open findings. This page shows 2 of them." in client.get("/?script=off").content.decode()


def test_idle_instances_beyond_the_listed_findings_are_named(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "SHOWN_FINDINGS", 1)
    since = datetime(2026, 1, 15, 17, tzinfo=UTC)
    policy, observes = make_policy(), make_policy(name="observing", mode="observe")
    make_finding(policy=policy, instance_id="listed")
    make_finding(policy=observes, instance_id="listed")
    make_finding(policy=observes, instance_id="a", since=since)
    make_finding(policy=observes, instance_id="unknown", state="unknown")
    make_finding(policy=make_policy("lease", mode="observe"), instance_id="leased")

    found = client.get(OVERVIEW).json()

    assert found["moreIdle"] == {"a": "2026-01-15T17:00:00Z"}
    page = client.get("/?attention=idle&script=off").content.decode()
    assert ">train<" in page
    assert ">serve<" not in page


def test_mark_changes_with_the_idle_instances_beyond_the_listed_findings(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "SHOWN_FINDINGS", 1)
    policy = make_policy()
    make_finding(policy=policy, instance_id="listed")
    hidden = make_finding(policy=policy, instance_id="a", stops_at=timezone.now() + timedelta(days=1))
    known = client.get(OVERVIEW).headers["ETag"]

    hidden.state = "unknown"
    hidden.save()

    assert read_again(client, known) == 200


@pytest.mark.parametrize(("mode", "is_told"), [("notify", True), ("observe", False)])
def test_page_warns_of_the_account_s_spending(mode: str, is_told: bool, client: Client, account: Account) -> None:
    make_finding(
        policy=make_policy("budget", mode=mode, max_usd_per_hour=1), instance_id="", state="due", reason="Too much."
    )

    page = client.get("/?script=off").content.decode()

    assert ("Policy budget machines: Due: Too much." in page) is is_told


def test_overview_without_redis_says_so(client: Client, account: Account, redis_server: FakeServer) -> None:
    redis_server.connected = False

    answer = client.get(OVERVIEW)

    assert answer.status_code == 200
    assert answer.json()["revision"] is None
    assert answer.json()["health"]["services"]["redis"] == "down"
    assert read_again(client, answer["ETag"]) == 304


def refuse(execute: Callable[..., object], *args: object) -> None:
    raise OperationalError("connection refused")


def test_overview_without_a_database_leaves_out_its_records(client: Client, account: Account) -> None:
    protect(client, "a")

    with connection.execute_wrapper(refuse):
        answer = client.get(OVERVIEW)

    assert answer.status_code == 200
    assert answer.json()["operations"] is None
    assert answer.json()["protections"] is None


def test_unrecorded_operation_is_shown_without_a_database(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health.database, "find_state", lambda _: ("its disk is full", []))
    etag = client.get(OVERVIEW)["ETag"]
    with standby.used():
        Operation.objects.create(kind="stop", is_whole_account=True, deadline_at=timezone.now())

    assert read_again(client, etag) == 200
    assert [one["kind"] for one in client.get(OVERVIEW).json()["operations"]] == ["stop"]


def test_browser_page_of_the_overview_is_never_answered_by_304(client: Client, account: Account) -> None:
    etag = client.get(OVERVIEW)["ETag"]

    answer = client.get(OVERVIEW, headers={"If-None-Match": etag, "Accept": "text/html"})

    assert answer.status_code == 200
    assert "ETag" not in answer
