"""The dashboard's bar as the server renders it: how fresh the page is, and what a stop of all stops and saves."""

import html
import re
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from fakeredis import FakeServer
from pytest_django import Settings

from instances.pages import bar
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_refusal, make_row

pytestmark = pytest.mark.django_db


def read_live(client: Client, *, has_script: bool = True) -> str:
    if has_script:
        client.cookies[settings.SCRIPT_COOKIE_NAME] = "1"
    page = client.get("/").content.decode()
    (words,) = re.findall(r'<div id="live" .*?<p>(.*?)<span id="next-refresh"', page, re.DOTALL)
    return html.unescape(re.sub(r"<.*?>", "", words)).strip()


def read_button(client: Client) -> tuple[str, str]:
    """Return the words of the button, and its tooltip."""
    page = client.get("/").content.decode()
    (title, words) = re.findall(r'<button [^>]*id="stop-all"[^>]* title="(.*?)".*?>(.*?)</button>', page, re.DOTALL)[0]
    return re.sub(r"<.*?>", "", words), html.unescape(title)


@pytest.fixture
def synced(client: Client, novita: NovitaAnswers) -> Client:
    novita.lists(make_row("a"))
    fill_inventory()
    return client


def test_synchronized_page_is_live(synced: Client) -> None:
    assert re.fullmatch(r"Live · synced \d\d:\d\d UTC", read_live(synced))


def test_page_without_its_script_does_not_claim_to_be_live(synced: Client) -> None:
    assert re.fullmatch(r"Not live · synced \d\d:\d\d UTC", read_live(synced, has_script=False))


def test_page_before_the_first_synchronization_says_so(client: Client) -> None:
    assert read_live(client) == "Not synchronized"


def test_old_data_is_stale_since_its_synchronization(synced: Client, settings: Settings) -> None:
    settings.NOVITA_STALE_AFTER = -1

    assert re.fullmatch(r"Stale since \d\d:\d\d UTC", read_live(synced))


def test_unreachable_redis_is_named(synced: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False

    assert read_live(synced) == "Redis unreachable"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({"status": 503}, "Novita unreachable"),
        ({"status": 401, "json": make_refusal(401, "INVALID_API_KEY", "no")}, "API key rejected"),
        ({"json": None, "body": "<html>"}, "Synchronization failing"),
    ],
)
@pytest.mark.usefixtures("no_pauses")
def test_failed_synchronization_is_named(
    synced: Client, novita: NovitaAnswers, failure: dict[str, Any], words: str
) -> None:
    novita.mock.reset()
    novita.lists(**failure)
    synced.post("/api/instances/sync")

    assert read_live(synced).startswith(f"{words} · synced ")


# --- The button that stops everything


def make_shown(
    id_: str, group: str = "running", price: float | None = 1.25, *, prepaid: bool = False
) -> dict[str, Any]:
    return {"id": id_, "group": group, "costPerHour": 0.0 if prepaid else price, "prepaid": prepaid}


def test_button_names_number_and_saving_of_a_dry_run(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(
        make_row("a", instancePrice="125000"),
        make_row("b", instancePrice="50000", status="pulling"),
        make_row("c", instancePrice="70000"),
        make_row("d", instancePrice="90000", status="exited"),
        make_row("e", instancePrice="99000", status="creating"),
    )
    client.post("/api/instances/sync")
    assert client.post("/api/instances/c/protect", {"reason": "demo"}, "application/json").status_code < 300

    words, title = read_button(client)

    plan = client.post("/api/instances/stop-all", {"dryRun": True}, "application/json").json()
    assert plan["count"] == 3
    assert plan["savesPerHour"] == 1.75
    assert words == "Stop all… 3 · $1.75/h"
    assert title == "Stops 3 instances. Saves $1.75/h."


def test_unknown_price_is_counted_and_marked() -> None:
    found = bar.describe_stop_all([make_shown("a"), make_shown("b", price=None)], [])

    assert found == bar.StopAll("2", " · $1.25/h+", "Stops 2 instances. Saves $1.25/h + 1 unknown.")


def test_sum_of_unknown_prices_alone_is_not_0() -> None:
    found = bar.describe_stop_all([make_shown("a", price=None)], [])

    assert found == bar.StopAll("1", "", "Stops 1 instance. Saves 1 unknown.")


def test_prepaid_instance_saves_nothing() -> None:
    found = bar.describe_stop_all([make_shown("a", prepaid=True)], [])

    assert found == bar.StopAll("1", "", "Stops 1 instance. Saves nothing now.")


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        ([], "no instance is running"),
        ([make_shown("a", "stopped")], "no instance is running"),
        ([make_shown("a", "stopping")], "1 stopping"),
        ([make_shown("kept"), make_shown("a", "stopping")], "1 stopping, 1 protected"),
    ],
)
def test_button_without_work_says_why_and_what_a_press_does(instances: list[dict[str, Any]], reason: str) -> None:
    found = bar.describe_stop_all(instances, ["kept"])

    words = f"By this list nothing is to stop: {reason}. Pressing reads the account anew."
    assert found == bar.StopAll(title=words)


def test_old_list_names_no_number_and_disables_nothing(synced: Client, settings: Settings) -> None:
    settings.NOVITA_STALE_AFTER = -1

    assert read_button(synced) == ("Stop all… ", "")
    assert b'aria-disabled="true"' not in synced.get("/").content
