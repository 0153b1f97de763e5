"""Searches of records stay cheap: one pass over the rows, the newest ones only, few at once, and not for long."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from instances.admin import searching
from instances.errors import SearchTooSlow
from instances.models import AuditEntry, Event, MeteredInstance, SyncRun, UsageInterval
from tests.test_admin_records import AT, KINDS, get_list, make_record, read_csv, read_text

pytestmark = pytest.mark.django_db

ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}
MANY = searching.MAX_FOUND + 3


def list_queries(client: Client, path: str) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    return [query["sql"] for query in queries]


@pytest.mark.parametrize("kind", [*KINDS, "event", "message", "finding", "snooze", "usageinterval"])
def test_search_reads_the_rows_once(client: Client, kind: str) -> None:
    if kind in KINDS:
        make_record(kind, "trainer")

    searches = [query for query in list_queries(client, f"{get_list(kind)}?q=trainer") if "LIKE" in query.upper()]

    assert len(searches) == 1
    assert f"LIMIT {MANY - 2}" in searches[0]


def add_entries(count: int) -> None:
    AuditEntry.objects.bulk_create(
        AuditEntry(at=AT + timedelta(minutes=number), actor="ann", action="sync", target=f"t{number}", outcome="done")
        for number in range(count)
    )


def test_search_shows_the_newest_rows_and_says_that_there_are_more(client: Client) -> None:
    add_entries(MANY)

    text = read_text(client, f"{get_list('auditentry')}?q=ann")

    assert f"The newest {searching.MAX_FOUND} entries that match. More match" in text
    assert f" t{MANY - 1} " in text


def test_search_for_few_rows_counts_them(client: Client) -> None:
    add_entries(3)

    assert "3 entries" in read_text(client, f"{get_list('auditentry')}?q=ann")
    assert "More match" not in read_text(client, f"{get_list('auditentry')}?q=ann")


def test_file_of_a_search_has_every_row(client: Client) -> None:
    add_entries(MANY)

    assert len(read_csv(client, f"{get_list('auditentry')}csv/?q=ann")) == MANY


def test_words_in_quotes_are_searched_together(client: Client) -> None:
    for reason in ("big model", "model that is big"):
        AuditEntry.objects.create(actor="ann", action="sync", outcome="done", reason=reason)

    assert "1 entry" in read_text(client, f'{get_list("auditentry")}?q="big model"')
    assert "2 entries" in read_text(client, f"{get_list('auditentry')}?q=big model")


def test_ledger_is_searched_by_the_names_of_its_instances(client: Client) -> None:
    for name in ("trainer", "other"):
        instance = MeteredInstance.objects.create(instance_id=name, name=name, gpu="H100")
        UsageInterval.objects.create(instance=instance, state=1, began_ms=1, ended_ms=2)

    assert "1 entry" in read_text(client, f"{get_list('usageinterval')}?q=trainer")
    assert "2 entries" in read_text(client, f"{get_list('usageinterval')}?q=h100")


def test_notifications_are_searched_by_title_and_channel(client: Client) -> None:
    event = Event.objects.create(kind="test", key="k", title="A test")
    event.messages.create(service="slack 1", message_id="m1")

    assert "1 entry" in read_text(client, f"{get_list('message')}?q=slack")
    assert "1 entry" in read_text(client, f"{get_list('message')}?q=a+test")
    assert "No entries match" in read_text(client, f"{get_list('message')}?q=nothing")


# --- Dates


def add_runs(*days: int) -> None:
    for day in days:
        SyncRun.objects.create(started_at=AT + timedelta(days=day), trigger="api", outcome="succeeded")


@pytest.mark.parametrize(
    ("days", "query", "links"),
    [
        ((), "", ""),
        ((), "?started_at__year=2026&started_at__month=3&started_at__day=1", "All dates"),
        ((0, 2), "", "January 15 January 16 January 17"),
        ((0, 40), "", "January 2026 February 2026"),
        ((0, 400), "", "2026 2027"),
        ((0, 400), "?started_at__year=2026", "All dates January 2026"),
        ((0, 1), "?started_at__year=2026&started_at__month=1", "2026 January 15 January 16"),
        ((0, 1), "?started_at__year=2026&started_at__month=1&started_at__day=15", "January 2026"),
    ],
)
def test_list_links_to_the_dates_of_its_rows(client: Client, days: tuple[int, ...], query: str, links: str) -> None:
    add_runs(*days)

    html = client.get(get_list("syncrun") + query).content.decode()

    navigation = html.partition('<nav class="toplinks">')[2].partition("</nav>")[0]
    titles = [part.partition("</a>")[0].partition(">")[2].strip() for part in navigation.split("<a ")[1:]]
    assert " ".join(titles).replace("&lsaquo; ", "") == links


def test_dates_are_found_without_reading_each_row(client: Client) -> None:
    add_runs(0, 400)

    queries = list_queries(client, get_list("syncrun"))

    assert not any("trunc" in query.lower() or "MIN(" in query for query in queries)


# --- Limits


def test_query_is_cancelled_at_the_deadline_and_the_connection_stays_usable() -> None:
    with connection.cursor() as cursor:
        with pytest.raises(SearchTooSlow), searching.deadline(0.05):
            cursor.execute(ENDLESS[connection.vendor])
        cursor.execute("SELECT 1")

        assert cursor.fetchone()[0] == 1


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL needs a slow query")
def test_page_that_takes_too_long_is_given_up_with_a_reason(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    add_entries(300)
    # As on a machine on which a single step takes longer than that.
    monkeypatch.setattr(searching, "_STEPS", 1)
    monkeypatch.setattr(searching, "PAGE_SECONDS", 0)

    answer = client.get(f"{get_list('auditentry')}?q=nothing")

    assert answer.status_code == 503
    assert "The search took too long and was given up." in answer.content.decode()


def test_page_beyond_the_number_at_once_is_refused_and_not_kept_waiting(client: Client) -> None:
    admitted = searching.MAX_RUNNING + searching.MAX_WAITING
    for _ in range(admitted):
        searching._admitted.acquire()
    try:
        answer = client.get(get_list("auditentry"))
    finally:
        searching._admitted.release(admitted)

    assert answer.status_code == 503
    assert answer["Retry-After"] == "1"
    assert "Too many pages of records" in answer.content.decode()


def test_each_page_gives_its_turn_back(client: Client) -> None:
    for _ in range(searching.MAX_RUNNING + searching.MAX_WAITING + 1):
        assert client.get(get_list("auditentry")).status_code == 200
