"""Policies, findings and snoozes through the API, the admin pages, and the link in a message."""

import re
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from instances.instance import format_time
from instances.models import AuditEntry, Policy, Snooze
from instances.policies import snoozing
from tests.policy_steps import make_finding, make_policy

pytestmark = pytest.mark.django_db(transaction=True)

POLICIES = "/api/policies"
FINDINGS = "/api/policies/findings"
JSON = "application/json"


# --- Policies


def test_new_policy_observes_by_default(client: Client) -> None:
    answer = client.post(POLICIES, {"name": "Idle machines", "rule": "idle"})

    assert answer.status_code == 201
    shown = answer.json()
    assert shown["mode"] == "observe"
    assert shown["windowMinutes"] == 60
    assert shown["thresholdPercent"] == 5
    assert shown["warningMinutes"] == 30
    assert shown["maxStopsPerHour"] == 10


def test_policy_is_listed_and_shown(client: Client) -> None:
    added = client.post(
        POLICIES, {"name": "Nights", "rule": "schedule", "hours": "Mon-Fri 8:00-20:00", "timeZone": "UTC"}
    ).json()

    listed = client.get(POLICIES).json()
    assert listed["policies"] == [added]
    assert listed["acting"]["on"] is True
    assert client.get(f"{POLICIES}/{added['id']}").json() == added


def test_changed_policy_keeps_what_is_not_named(client: Client) -> None:
    policy = make_policy(owner="ann")

    answer = client.put(f"{POLICIES}/{policy.pk}", {"mode": "notify"}, content_type=JSON)

    assert answer.json()["mode"] == "notify"
    assert answer.json()["owner"] == "ann"
    assert answer.json()["version"] == 2


def test_deleted_policy_keeps_its_findings_as_records(client: Client) -> None:
    finding = make_finding()

    assert client.delete(f"{POLICIES}/{finding.policy_id}").status_code == 200

    assert not Policy.objects.exists()
    assert client.get(f"{FINDINGS}/{finding.pk}").json()["policy"] == "idle machines"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *(({}, "name"), ({"name": "p"}, "rule"), ({"name": "p", "rule": "x"}, "rule")),
        *(({"name": "p", "rule": "lease"}, "maxHours"), ({"name": "p", "rule": "idle", "mode": "kill"}, "mode")),
        *(
            ({"name": "p", "rule": "idle", "windowMinutes": 1}, "windowMinutes"),
            ({"name": "p", "rule": "idle", "x": 1}, "x"),
        ),
        ({"name": "p", "rule": "schedule", "hours": "Mon", "timeZone": "UTC"}, "hours"),
        ({"name": "p", "rule": "idle", "on": "yes"}, "on"),
        ({"name": "p", "rule": "idle", "thresholdPercent": 1000}, "thresholdPercent"),
        ({"name": "p", "rule": "lease", "maxHours": True}, "maxHours"),
        ({"name": "p", "rule": "lease", "maxHours": "8"}, "maxHours"),
        ({"name": "p", "rule": "idle", "windowMinutes": "60"}, "windowMinutes"),
    ],
    ids=str,
)
def test_wrong_policy_is_refused_by_the_names_of_the_api(body: Any, field: str, client: Client) -> None:
    answer = client.post(POLICIES, body)

    assert answer.status_code == 400
    assert field in answer.json()["fields"]
    assert not Policy.objects.exists()


def test_large_limit_is_written_in_full(client: Client) -> None:
    answer = client.post(POLICIES, {"name": "p", "rule": "budget", "maxUsdPerHour": 1e9})

    assert answer.json()["fields"]["maxUsdPerHour"] == "Name a number from 0 to 1,000,000."


@pytest.mark.parametrize("id_", ["999", "x", "9" * 30, "²"])
def test_unknown_policy_is_not_found(id_: str, client: Client) -> None:
    answer = client.get(f"{POLICIES}/{id_}")

    assert answer.status_code == 404
    assert answer.json()["code"] == "POLICY_NOT_FOUND"


def test_acting_is_switched_off_and_on(client: Client) -> None:
    off = client.put(f"{POLICIES}/switch", {"on": False}, content_type=JSON).json()
    assert off["on"] is False
    assert off["switchedBy"] == "local-owner"

    assert client.put(f"{POLICIES}/switch", {"on": True}, content_type=JSON).json()["on"] is True


def test_setting_wins_over_the_button(client: Client, settings: Settings) -> None:
    settings.POLICIES = False

    assert client.put(f"{POLICIES}/switch", {"on": True}, content_type=JSON).json()["on"] is False


def test_budget_is_confirmed_by_its_name(client: Client) -> None:
    policy = make_policy("budget", max_usd_per_hour=10)
    path = f"{POLICIES}/{policy.pk}/confirm-stop"
    assert client.post(path, {"name": "something else"}).status_code == 400

    answer = client.post(path, {"name": policy.name})

    assert answer.json()["stopConfirmedBy"] == "local-owner"


def test_changes_of_policies_are_recorded(client: Client) -> None:
    added = client.post(POLICIES, {"name": "p", "rule": "idle"}).json()
    client.put(f"{POLICIES}/{added['id']}", {"mode": "stop"}, content_type=JSON)
    client.delete(f"{POLICIES}/{added['id']}")

    entries = AuditEntry.objects.filter(action__startswith="policy.").order_by("pk")
    assert [one.action for one in entries] == ["policy.add", "policy.change", "policy.delete"]
    assert entries[1].before == "idle, observe"
    assert entries[1].after == "idle, stop"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("observe", "1 open, $0.50/h; would have saved $3.00 in 30 days"),
        ("stop", "1 open, $0.50/h; stopped 1 in 30 days"),
    ],
)
def test_policy_says_what_it_has_found_and_would_have_saved(mode: str, words: str, client: Client) -> None:
    policy, now = make_policy(mode=mode), timezone.now()
    hours = {number: now - timedelta(hours=number) for number in (1, 4, 24 * 40)}
    make_finding(policy=policy, state="due", due_at=hours[4])
    make_finding(policy=policy, state="cleared", due_at=hours[4], ended_at=hours[4] + timedelta(hours=2))
    make_finding(policy=policy, state="cleared", ended_at=hours[1])
    make_finding(policy=policy, state="cleared", due_at=hours[960], ended_at=hours[960])
    make_finding(policy=policy, state="stopped", ended_at=hours[1])

    found = client.get(POLICIES).json()["policies"][0]["found"]

    assert found == {"open": 1, "savesPerHour": 0.5, "stopped": 1, "wouldHaveSaved": 3.0}
    assert words in client.get("/admin/instances/policy/").content.decode()


# --- Findings


def test_finding_says_when_it_stops_and_why(client: Client) -> None:
    finding = make_finding()

    shown = client.get(FINDINGS).json()["findings"][0]

    assert finding.stops_at
    assert shown["message"] == f"Stops at {format_time(finding.stops_at)}: No work above 5 % since 17:00."
    assert shown["savesPerHour"] == 0.5
    assert shown["instanceId"] == "a"


def test_open_findings_are_filtered(client: Client) -> None:
    policy = make_policy()
    make_finding(policy=policy)
    make_finding(policy=policy, instance_id="b", state="stopped", ended_at=timezone.now())

    open_ones = client.get(f"{FINDINGS}?state=open").json()
    of_one = client.get(f"{FINDINGS}?instance=b").json()

    assert [one["instanceId"] for one in open_ones["findings"]] == ["a"]
    assert [one["state"] for one in of_one["findings"]] == ["stopped"]


@pytest.mark.parametrize("wish", [{"for": "1h"}, {"for": "4h", "reason": "training"}, {"for": "tomorrow"}])
def test_finding_is_snoozed_by_one_press(wish: dict[str, str], client: Client) -> None:
    finding = make_finding()

    answer = client.post(f"{FINDINGS}/{finding.pk}/snooze", wish)

    assert answer.status_code == 200
    shown = answer.json()
    assert shown["state"] == "snoozed"
    assert shown["snoozedBy"] == "local-owner"
    assert shown["message"].startswith("Snoozed until ")
    assert Snooze.objects.get().reason == wish.get("reason", "")


def test_finding_is_snoozed_until_a_date(client: Client) -> None:
    finding = make_finding()
    until = format_time(timezone.now() + timedelta(days=3))

    shown = client.post(f"{FINDINGS}/{finding.pk}/snooze", {"until": until}).json()

    assert shown["snoozedUntil"] == until


@pytest.mark.parametrize(
    "wish",
    [{}, {"for": "2h"}, {"for": "1h", "until": "2099-01-01T00:00:00Z"}, {"until": "2020-01-01T00:00:00Z"}],
    ids=str,
)
def test_wrong_snooze_is_refused(wish: dict[str, str], client: Client) -> None:
    finding = make_finding()

    assert client.post(f"{FINDINGS}/{finding.pk}/snooze", wish).status_code == 400

    finding.refresh_from_db()
    assert finding.state == "warned"


@pytest.mark.parametrize("state", ["stopping", "stopped", "cleared"])
def test_finding_whose_stop_is_requested_can_not_be_snoozed(state: str, client: Client) -> None:
    finding = make_finding(state=state, ended_at=None if state == "stopping" else timezone.now())

    answer = client.post(f"{FINDINGS}/{finding.pk}/snooze", {"for": "1h"})

    assert answer.status_code == 409
    assert not Snooze.objects.exists()


def test_snooze_is_ended(client: Client) -> None:
    finding = make_finding()
    client.post(f"{FINDINGS}/{finding.pk}/snooze", {"for": "1h"})

    client.delete(f"{FINDINGS}/{finding.pk}/snooze")

    snooze = Snooze.objects.get()
    assert snooze.removed_by == "local-owner"


def test_second_snooze_replaces_the_first(client: Client) -> None:
    finding = make_finding()
    client.post(f"{FINDINGS}/{finding.pk}/snooze", {"for": "4h"})

    client.post(f"{FINDINGS}/{finding.pk}/snooze", {"for": "1h"})

    assert Snooze.objects.filter(removed_at=None).count() == 1


# --- The link in a message


@pytest.fixture
def stranger(settings: Settings) -> Client:
    """A browser without a login, at a panel that requires one."""
    settings.REQUIRE_LOGIN = True
    return Client()


def test_opening_a_link_changes_nothing(stranger: Client) -> None:
    finding = make_finding()
    address = f"/snooze/{snoozing.make_link(finding)}/"

    for _ in range(3):
        answer = stranger.get(address)

    assert answer.status_code == 200
    assert "Snooze train" in answer.content.decode()
    finding.refresh_from_db()
    assert finding.state == "warned"


def test_button_of_a_link_snoozes_once(stranger: Client) -> None:
    finding = make_finding()
    address = f"/snooze/{snoozing.make_link(finding)}/"

    first = stranger.post(address, {"for": "4h"})
    second = stranger.post(address, {"for": "4h"})

    assert first.status_code == 200
    assert re.search(r"train is snoozed until \d{4}-\d\d-\d\d \d\d:\d\d UTC\.", first.content.decode())
    assert second.status_code == 410
    assert Snooze.objects.get().by == "link in a message"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Auckland", ""])
def test_link_snoozes_until_a_date(zone: str, stranger: Client) -> None:
    finding = make_finding(policy=make_policy(time_zone=zone))
    address = f"/snooze/{snoozing.make_link(finding)}/"
    offered = re.findall(r'<option value="([^"]+)"', stranger.get(address).content.decode())

    answer = stranger.post(address, {"for": "date", "until": offered[6]})

    assert answer.status_code == 200
    morning = Snooze.objects.get().until.astimezone(ZoneInfo(zone or "UTC"))
    assert morning.hour == 9
    assert morning.date().isoformat() == offered[6]
    assert morning.date() - timezone.now().astimezone(morning.tzinfo).date() == timedelta(days=7)


@pytest.mark.parametrize("zone", ["Nowhere/Else", "Europe", "../UTC"])
def test_link_of_a_policy_with_an_unknown_time_zone_offers_mornings_in_utc(zone: str, stranger: Client) -> None:
    address = f"/snooze/{snoozing.make_link(make_finding(policy=make_policy(time_zone=zone)))}/"

    page = stranger.get(address).content.decode()
    stranger.post(address, {"for": "tomorrow"})

    assert "Times of day are in the time zone UTC." in page
    assert Snooze.objects.get().until.hour == 9


@pytest.mark.parametrize("day", ["", "2020-01-01", "9999-12-31", "tomorrow"])
def test_day_that_a_link_does_not_offer_is_refused_and_uses_up_no_link(day: str, stranger: Client) -> None:
    address = f"/snooze/{snoozing.make_link(make_finding())}/"

    answer = stranger.post(address, {"for": "date", "until": day})

    assert answer.status_code == 400
    assert f'<a class="button" href="{address}">Choose again</a>' in answer.content.decode()
    assert "Name one of the next 30 days." in answer.content.decode()
    assert stranger.get(address).status_code == 200
    assert not Snooze.objects.exists()


@pytest.mark.parametrize("state", ["stopping", "stopped", "cleared"])
def test_link_whose_finding_has_ended_says_so(state: str, stranger: Client) -> None:
    ended_at = None if state == "stopping" else timezone.now()
    finding = make_finding(state=state, ended_at=ended_at)
    address = f"/snooze/{snoozing.make_link(finding)}/"

    for answer in (stranger.get(address), stranger.post(address, {"for": "1h"})):
        assert answer.status_code == 410
        assert "has ended, or its stop is requested already" in answer.content.decode()


def test_link_made_with_the_previous_key_is_valid_while_the_key_is_a_fallback(
    stranger: Client, settings: Settings
) -> None:
    address = f"/snooze/{snoozing.make_link(make_finding())}/"
    previous, settings.SECRET_KEY = settings.SECRET_KEY, "another key, as long as keys have to be, and as random"
    assert stranger.get(address).status_code == 410

    settings.SECRET_KEY_FALLBACKS = [previous]

    assert stranger.post(address, {"for": "1h"}).status_code == 200


def test_expired_link_snoozes_nothing(stranger: Client) -> None:
    finding = make_finding()
    address = f"/snooze/{snoozing.make_link(finding)}/"
    finding.links.update(expires_at=timezone.now())

    assert stranger.get(address).status_code == 410
    assert stranger.post(address, {"for": "4h"}).status_code == 410
    assert not Snooze.objects.exists()


@pytest.mark.parametrize("change", ["x", "cut"])
def test_forged_link_snoozes_nothing(change: str, stranger: Client) -> None:
    signed = snoozing.make_link(make_finding())
    forged = f"{signed}x" if change == "x" else signed.partition(":")[0]

    assert stranger.get(f"/snooze/{forged}/").status_code == 410
    assert stranger.post(f"/snooze/{forged}/", {"for": "1h"}).status_code == 410


def test_time_zone_is_checked_for_every_rule(client: Client) -> None:
    answer = client.post("/api/policies", {"name": "x", "rule": "idle", "timeZone": "Mars/Base"})

    assert answer.status_code == 400
    assert "is not a time zone" in answer.json()["fields"]["timeZone"]


@pytest.mark.parametrize("form", [{}, {"for": "forever"}, {"for": "1h", "x": "1"}], ids=str)
def test_wrong_form_uses_up_no_link(form: dict[str, str], stranger: Client) -> None:
    address = f"/snooze/{snoozing.make_link(make_finding())}/"

    assert stranger.post(address, form).status_code == 400

    assert stranger.get(address).status_code == 200


# --- The admin pages


FORM = {
    **{"name": "Idle", "mode": "observe", "is_on": "on", "rule": "idle", "name_pattern": "", "region": "", "gpu": ""},
    **{"owner": "", "project": "", "billing_mode": "", "threshold_percent": "5", "window_minutes": "60"},
    **{"start_grace_minutes": "30", "max_hours": "", "hours": "", "time_zone": "", "excepted_days": ""},
    **{"hand_start_hours": "2", "max_usd_per_hour": "", "min_runway_hours": "", "warning_minutes": "30"},
    **{"max_stops_per_hour": "10", "confirmed_name": ""},
}
ADD = "/admin/instances/policy/add/"


def send(client: Client, path: str, **fields: str) -> Any:
    return Client.post(client, path, {**FORM, **fields})


def test_policy_is_added_on_its_page(client: Client) -> None:
    assert send(client, ADD).status_code == 302

    assert Policy.objects.get().changed_by == "local-owner"


def test_page_of_a_policy_that_somebody_has_changed_since_is_not_saved(client: Client) -> None:
    policy = make_policy(mode="stop")
    path = f"/admin/instances/policy/{policy.pk}/change/"
    version = re.search(r'name="version" value="(\d+)"', client.get(path).content.decode())[1]
    client.put(f"{POLICIES}/{policy.pk}", {"mode": "observe"}, content_type=JSON)

    page = send(client, path, mode="stop", version=version).content.decode()

    assert "Somebody else has changed or deleted the policy meanwhile" in page
    policy.refresh_from_db()
    assert policy.mode == "observe"


def test_page_of_a_policy_is_saved_with_its_version(client: Client) -> None:
    policy = make_policy()

    answer = send(client, f"/admin/instances/policy/{policy.pk}/change/", version=str(policy.version), mode="notify")

    assert answer.status_code == 302
    policy.refresh_from_db()
    assert policy.mode == "notify"


def test_wrong_policy_keeps_what_was_typed(client: Client) -> None:
    page = send(client, ADD, rule="schedule", hours="always").content.decode()

    assert "is not like" in page
    assert 'value="always"' in page
    assert not Policy.objects.exists()


def test_budget_is_confirmed_on_its_page(client: Client) -> None:
    send(client, ADD, name="Cap", rule="budget", mode="stop", max_usd_per_hour="10", confirmed_name="Cap")

    assert Policy.objects.get().stop_confirmed_by == "local-owner"


@pytest.mark.parametrize("presses", [1, 2])
def test_button_on_the_page_switches_acting_off_also_when_two_people_press_it(presses: int, client: Client) -> None:
    for _ in range(presses):
        Client.post(client, "/admin/instances/policy/switch-off/")

    assert "Acting is switched off" in client.get("/admin/instances/policy/").content.decode()


def test_button_on_the_page_lets_policies_act_again(client: Client) -> None:
    Client.post(client, "/admin/instances/policy/switch-off/")

    Client.post(client, "/admin/instances/policy/switch-on/")

    assert "Acting is switched off" not in client.get("/admin/instances/policy/").content.decode()


def test_finding_shows_its_steps(client: Client) -> None:
    finding = make_finding()
    client.post(f"{FINDINGS}/{finding.pk}/snooze", {"for": "1h", "reason": "training"})

    page = client.get(f"/admin/instances/finding/{finding.pk}/change/").content.decode()

    assert "training" in page
    assert "local-owner" in page


@pytest.mark.parametrize("query", ["policy=0", "policy=9223372036854775808", "page=0", "state=unheard"])
def test_wrong_filter_of_findings_is_refused(query: str, client: Client) -> None:
    assert client.get(f"/api/policies/findings?{query}").status_code == 400
