"""The sync history as admin pages: readable, never changed; and the button that starts a sync."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from fakeredis import FakeServer
from pytest_django import Settings

from instances.inventory import lease
from instances.models import SyncRun
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

RUNS = "/admin/instances/syncrun/"
BUTTON = f"{RUNS}sync/"
HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture
def synchronize(client: Client, novita: NovitaAnswers) -> Callable[..., SyncRun]:
    """Sync these rows, or fail. Returns the record."""

    def synchronize(*rows: dict[str, Any], **answer: Any) -> SyncRun:
        novita.mock.reset()
        novita.lists(*rows, **answer)
        client.post("/api/instances/sync")
        return SyncRun.objects.latest("pk")

    return synchronize


@pytest.fixture
def runs(synchronize: Callable[..., SyncRun], client: Client, novita: NovitaAnswers) -> None:
    """Four syncs: with an addition, without changes, with a removal, and a failed sync."""
    synchronize(make_row("a", name="trainer"), make_row("b", name="evaluator"))
    synchronize(make_row("a", name="trainer"), make_row("b", name="evaluator"))
    novita.mock.reset()
    novita.lists(make_row("a", name="trainer"))
    novita.lacks("b")
    client.post("/api/instances/sync")
    synchronize(status=401)


def read_text(client: Client, path: str) -> str:
    """Return the visible text of the page."""
    answer = client.get(path)
    assert answer.status_code == 200
    main = answer.content.decode().partition('id="content"')[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", main)).split())


def count_rows(client: Client, query: str = "") -> int:
    return client.get(f"{RUNS}?{query}").content.decode().count('<th class="field-shown_start">')


def show(run: SyncRun) -> str:
    return f"{RUNS}{run.pk}/change/"


# --- The list


@pytest.mark.usefixtures("runs")
def test_list_shows_the_changes_of_each_sync(client: Client) -> None:
    text = read_text(client, RUNS)

    assert [words for words in ("2 new", "1 gone", "Novita rejected the API key.") if words not in text] == []
    assert text.index("rejected") < text.index("1 gone") < text.index("2 new"), "the newest first"


@pytest.mark.thorough
@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 4),
        ("outcome__exact=failed", 1),
        ("outcome__exact=succeeded", 3),
        ("trigger__exact=api", 4),
        ("trigger__exact=startup", 0),
        ("found=changes", 2),
        ("found=removals", 1),
        ("found=nothing", 2),
        ("q=evaluator", 2),
        ("q=TRAINER", 1),
        ("q=rejected", 1),
        ("q=NOVITA_REJECTED_KEY", 1),
        ("q=local-owner", 4),
        ("q=nobody", 0),
    ],
)
def test_list_can_be_filtered_and_searched(client: Client, query: str, found: int) -> None:
    assert count_rows(client, query) == found


def test_long_record_takes_no_more_queries_than_a_short_one(client: Client) -> None:
    client.get(RUNS)
    counts = []
    for number in (1, 60):
        started_at = timezone.now() - timedelta(seconds=1)
        SyncRun.objects.bulk_create([SyncRun(started_at=started_at, trigger="api", outcome="succeeded")] * number)
        with CaptureQueriesContext(connection) as queries:
            client.get(RUNS)
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 12
    assert count_rows(client) == 50


# --- One sync


def test_record_names_added_changed_and_removed_instances(
    client: Client, synchronize: Callable[..., SyncRun], novita: NovitaAnswers
) -> None:
    first = synchronize(make_row("id-a", name="trainer"), make_row("id-b", name="evaluator"))
    novita.mock.reset()
    novita.lists(
        make_row("id-a", name="trainer", status="exited", lastStoppedAt="1760000500"), make_row("id-c", name="")
    )
    novita.lacks("id-b")
    client.post("/api/instances/sync")
    second = SyncRun.objects.latest("pk")

    assert "Added: trainer id-a evaluator id-b Changed: none Removed: none" in read_text(client, show(first))
    text = read_text(client, show(second))
    assert "Added: (no name) id-c" in text
    assert "Changed: trainer id-a status: running → exited" in text
    assert "lastStoppedAt: nothing → 2025-10-09T09:01:40Z" in text
    assert "Removed: evaluator id-b" in text


def test_record_names_instances_whose_removal_was_not_confirmed(
    client: Client, synchronize: Callable[..., SyncRun], novita: NovitaAnswers
) -> None:
    synchronize(make_row("a"), make_row("b", name="evaluator"))
    novita.mock.reset()
    novita.lists(make_row("a"))
    novita.shows({"id": "b"}, status=401)
    client.post("/api/instances/sync")

    assert "Kept, removal not confirmed: evaluator b" in read_text(client, show(SyncRun.objects.latest("pk")))


def test_failure_is_shown_as_a_sentence(client: Client, synchronize: Callable[..., SyncRun]) -> None:
    run = synchronize(status=401)

    text = read_text(client, show(run))
    assert "NOVITA_REJECTED_KEY" in text and "Novita rejected the API key." in text


def test_hostile_names_are_shown_as_text(client: Client, synchronize: Callable[..., SyncRun]) -> None:
    synchronize(make_row("a", name=HOSTILE))
    run = synchronize(make_row("a", name=f"{HOSTILE} again", status=HOSTILE), make_row("b", name=HOSTILE))

    for path in (show(run), RUNS, f"{RUNS}?q={HOSTILE}"):
        assert "<script>alert" not in client.get(path).content.decode()
    assert f"name: {HOSTILE} → {HOSTILE} again" in read_text(client, show(run))


def test_no_secret_of_an_instance_is_in_the_record(client: Client, synchronize: Callable[..., SyncRun]) -> None:
    synchronize(make_row("a"))
    run = synchronize(make_row("a", sshPassword="FAKE-SECRET-new", command="FAKE-SECRET-new", status="exited"))

    assert "FAKE-SECRET" not in read_text(client, show(run))


def test_very_large_change_is_shown_in_part(client: Client, synchronize: Callable[..., SyncRun]) -> None:
    run = synchronize(*(make_row(f"i{number}", name="x") for number in range(520)))

    assert "… and 20 more." in read_text(client, show(run))


# --- Nothing can be changed


@pytest.mark.parametrize("page", ["add/", "{pk}/delete/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_records_can_not_be_added_or_deleted(synchronize: Callable[..., SyncRun], page: str, method: str) -> None:
    run = synchronize(make_row("a"))

    answer = Client().generic(method, RUNS + page.format(pk=run.pk), b"post=yes", "application/x-www-form-urlencoded")

    assert answer.status_code == 403
    assert SyncRun.objects.get() == run


def test_records_can_not_be_changed(synchronize: Callable[..., SyncRun]) -> None:
    run = synchronize(make_row("a"))

    answer = Client().post(show(run), {"requested_by": "mallory", "error": "x", "outcome": "failed"})

    assert answer.status_code == 403
    assert SyncRun.objects.get().requested_by == "local-owner"
    assert SyncRun.objects.get().outcome == "succeeded"


def test_records_can_not_be_deleted_together(synchronize: Callable[..., SyncRun]) -> None:
    run = synchronize(make_row("a"))
    client = Client()

    client.post(RUNS, {"action": "delete_selected", "_selected_action": [run.pk], "post": "yes"})

    assert SyncRun.objects.exists()
    assert "delete_selected" not in client.get(RUNS).content.decode()


# --- The button


def test_button_syncs_and_shows_the_result(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b"))
    client = Client()

    page = client.post(BUTTON, follow=True)

    assert page.redirect_chain == [(RUNS, 302)]
    (message,) = page.context["messages"]
    assert message.level_tag == "success"
    assert message.message.startswith("2 instances: 2 new")
    assert message.message in unescape(page.content.decode())
    run = SyncRun.objects.get()
    assert run.trigger == "admin"
    assert run.requested_by == "local-owner"
    assert run.novita_instances == 2


def test_page_has_the_sync_button(client: Client) -> None:
    page = client.get(RUNS).content.decode()

    form = re.search(rf'<form[^>]*method="post"[^>]*action="{BUTTON}".*?</form>', page, re.DOTALL)
    assert form is not None
    assert "csrfmiddlewaretoken" in form[0]
    assert "Sync" in form[0]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_sync_button_requires_post(client: Client, novita: NovitaAnswers, method: str) -> None:
    assert client.generic(method, BUTTON).status_code == 405
    assert len(novita.mock.calls) == 0


def test_sync_button_requires_the_csrf_token() -> None:
    assert Client(enforce_csrf_checks=True).post(BUTTON).status_code == 403


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 401}, "Novita rejected the API key. Set NOVITA_API_KEY"),
        ({"json": None, "body": "<html>"}, "Novita's answer is not JSON. Try again in a minute"),
    ],
)
def test_failed_sync_by_button_shows_reason_and_cure(novita: NovitaAnswers, answer: dict[str, Any], words: str) -> None:
    novita.lists(**answer)

    page = Client().post(BUTTON, follow=True)

    (message,) = page.context["messages"]
    assert message.level_tag == "error"
    assert words in message.message


def test_second_press_says_that_a_sync_is_running() -> None:
    with lease.acquire("interval"):
        page = Client().post(BUTTON, follow=True)

    (message,) = page.context["messages"]
    assert message.level_tag == "error"
    assert "already running" in message.message and "Wait" in message.message


def test_button_without_redis_names_the_problem(redis_server: FakeServer) -> None:
    redis_server.connected = False

    page = Client().post(BUTTON, follow=True)

    (message,) = page.context["messages"]
    assert "Redis can't be reached." in message.message and "REDIS_URL" in message.message


# --- The frame


def test_local_owner_sees_no_logout(client: Client) -> None:
    page = client.get("/admin/").content.decode()

    assert "No login is needed on this machine." in page
    assert "logout" not in page


def test_logged_in_user_can_log_out(settings: Settings, django_user_model: Any) -> None:
    settings.REQUIRE_LOGIN = True
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("ann", password="x"))

    assert 'action="/logout/"' in client.get("/admin/").content.decode()


def test_search_finds_names_in_any_script(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a", name="größe-名前"))
    client.post("/api/instances/sync")

    assert "1 entry" in client.get("/admin/instances/syncrun/?q=größe-名前").content.decode()
    assert "No entries match" in client.get("/admin/instances/syncrun/?q=größer").content.decode()
