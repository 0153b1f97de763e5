"""Which instances need attention, and why: the filter of the list, by the API and on the page."""

import time
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from instances.inventory import attention
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_row
from tests.policy_steps import make_finding, make_policy

pytestmark = pytest.mark.django_db

DAY = 86_400
FAILED = {"state": "ImagePullFailed", "message": "image pull failed"}


def started(days_ago: float) -> str:
    return str(int(time.time() - DAY * days_ago))


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.lists(
        make_row("calm", lastStartedAt=started(6.9)),
        make_row("old", lastStartedAt=started(7.1)),
        make_row("prepaid", lastStartedAt=started(90), billingMode="monthly"),
        make_row("stopped", lastStartedAt=started(90), status="exited"),
        make_row("unknown", lastStartedAt="0"),
        make_row("failed", status="creating", statusError=FAILED, lastStartedAt="0"),
        make_row("spot", billingMode="spot", spotStatus="running", lastStartedAt=started(1)),
        make_row("reclaimed", billingMode="spot", spotStatus="terminated", status="exited", lastStartedAt=started(1)),
        make_row("reclaiming", billingMode="spot", spotStatus="reclaiming", lastStartedAt=started(7.5)),
        make_row("gone", status="removed", statusError=FAILED),
    )
    fill_inventory()
    policy = make_policy()
    for id_, state in (("calm", "warned"), ("old", "due"), ("spot", "snoozed"), ("prepaid", "unknown")):
        make_finding(policy=policy, instance_id=id_, state=state)
    make_finding(policy=make_policy("lease", name="leases"), instance_id="reclaiming")
    make_finding(policy=policy, instance_id="failed", state="cleared", ended_at=timezone.now())


def list_ids(client: Client, **query: Any) -> set[str]:
    return {one["id"] for one in client.get("/api/instances", query).json()["instances"]}


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("error", {"failed"}),
        ("longRunning", {"old", "reclaiming"}),
        ("spotReclaim", {"reclaimed", "reclaiming"}),
        ("idle", {"calm", "old"}),
    ],
)
def test_list_is_filtered_by_the_reason_for_attention(client: Client, reason: str, found: set[str]) -> None:
    assert list_ids(client, attention=reason) == found
    assert {one["id"] for one in client.get(f"/?attention={reason}").context["rows"]} == found


def test_unknown_reason_is_refused_and_the_valid_ones_are_named(client: Client) -> None:
    answer = client.get("/api/instances?attention=nothing")

    assert answer.status_code == 400
    assert answer.json()["fields"] == {"attention": "Not a reason. Valid are: error, idle, longRunning, spotReclaim."}


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(("days", "found"), [(8, set()), (6, {"calm", "old", "reclaiming"}), (0, set())])
def test_number_of_days_is_a_setting_and_zero_means_none(
    client: Client, settings: Settings, days: int, found: set[str]
) -> None:
    settings.LONG_RUNNING_DAYS = days

    assert list_ids(client, attention="longRunning") == found


@pytest.mark.usefixtures("account")
def test_time_alone_makes_an_instance_long_running(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who sends back the listing's revision gets the new answer, too."""
    etag = client.get("/api/instances?group=running")["ETag"]
    address = "/api/instances?attention=longRunning"
    before = client.get(address, headers={"If-None-Match": etag})
    assert "ETag" not in before
    now = attention.timezone.now() + timedelta(days=1)
    monkeypatch.setattr(attention.timezone, "now", lambda: now)

    after = client.get(address, headers={"If-None-Match": etag})

    assert {one["id"] for one in before.json()["instances"]} == {"old", "reclaiming"}
    assert {one["id"] for one in after.json()["instances"]} == {"calm", "old", "reclaiming"}


@pytest.mark.usefixtures("account")
def test_instance_with_several_reasons_counts_once(client: Client) -> None:
    instances = client.get("/api/instances").json()["instances"]

    number, by_reason = attention.count(instances, {"old", "spot"})

    assert number == 5
    assert by_reason == {"error": 1, "longRunning": 2, "spotReclaim": 2, "idle": 2}
