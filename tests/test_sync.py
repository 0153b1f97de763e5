"""What a synchronization changes, seen through the API, the record and the log."""

import json
import logging
import threading
import time
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from django.db import OperationalError, connection
from django.test import Client
from fakeredis import FakeRedis, FakeRedisConnection

from instances.inventory import publishing, store
from instances.inventory.sync import synchronize
from instances.models import SyncRun, UsageInterval
from tests.novita_answers import NovitaAnswers, make_refusal, make_row
from tests.redis_keys import name_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_pauses")]

Json = dict[str, Any]
LEASE = name_of("lease")
FENCE = name_of("fence")
LONG_AGO = "2020-01-01T00:00:00Z"


def sync(client: Client, status: int = 200) -> Json:
    answer = client.post("/api/instances/sync")
    assert answer.status_code == status, answer.content
    body: Json = answer.json()
    return body


def read_statuses(client: Client) -> dict[str, str]:
    return {one["id"]: one["status"] for one in client.get("/api/instances").json()["instances"]}


def fill(client: Client, novita: NovitaAnswers, *rows: Json) -> bytes:
    """Synchronize these rows first, and return the listing as readers get it."""
    novita.lists(*rows)
    sync(client)
    return client.get("/api/instances").content


def get_lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "instances.inventory.report" and r.levelno >= level]


def test_sync_copies_the_account(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b", status="exited"))

    answer = client.post("/api/instances/sync")

    assert answer.status_code == 200
    assert answer.json()["novitaInstances"] == 2
    listing = client.get("/api/instances").json()
    assert {one["id"]: one["status"] for one in listing["instances"]} == {"a": "running", "b": "exited"}


# --- What a synchronization reports


@pytest.fixture
def busy_account(client: Client, novita: NovitaAnswers) -> None:
    """An inventory of four, and an account with one new, one stopped, one removed and one unreadable instance."""
    fill(client, novita, make_row("same"), make_row("stopped"), make_row("gone"), make_row("dark"))
    novita.lists(make_row("same"), make_row("stopped", status="exited", lastStoppedAt="1760000300"), make_row("new"))
    novita.lacks("gone")
    novita.shows(make_row("dark"), status=500)


@pytest.mark.usefixtures("busy_account")
def test_answer_counts_the_changes(client: Client) -> None:
    answer = sync(client)

    assert answer.pop("timestamp").endswith("Z")
    assert answer.pop("duration") >= 0
    assert answer == {
        "success": True,
        "message": "Synchronization completed successfully",
        "novitaInstances": 3,
        "redisInstances": 4,
        "synchronized": 3,
        "deleted": 1,
        "errors": [],
        "added": 1,
        "changed": 1,
        "unconfirmed": 1,
    }


@pytest.mark.usefixtures("busy_account")
def test_record_names_the_changes(client: Client) -> None:
    sync(client)

    run = SyncRun.objects.first()
    assert run
    assert run.trigger == "api"
    assert run.requested_by == "local-owner"
    assert run.outcome == "succeeded"
    assert run.novita_instances == 3
    assert run.redis_instances == 4
    assert run.added == [{"id": "new", "name": "name-new"}]
    assert run.removed == [{"id": "gone", "name": "name-gone"}]
    assert run.unconfirmed == [{"id": "dark", "name": "name-dark"}]
    assert run.changed == [
        {
            "id": "stopped",
            "name": "name-stopped",
            "fields": {"status": ["running", "exited"], "lastStoppedAt": [None, "2025-10-09T08:58:20Z"]},
        }
    ]
    counts = (run.added_count, run.changed_count, run.removed_count, run.unconfirmed_count)
    assert counts == (1, 1, 1, 1)
    assert run.pages == 1
    assert run.calls == 6
    assert run.retries == 3


@pytest.mark.usefixtures("busy_account")
def test_log_has_one_line_per_sync(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    sync(client)

    (line,) = get_lines(caplog)
    assert line.startswith(
        "sync done trigger=api by=local-owner instances=3 before=4 added=1 changed=1 removed=1 unconfirmed=1 "
        "pages=1 calls=6 retries=3 "
    )


def test_no_secret_of_an_instance_is_stored(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    fill(client, novita, make_row("a"), make_row("b"))
    novita.lists(make_row("a", sshPassword="FAKE-SECRET-new"))
    novita.shows(make_row("b", command="FAKE-SECRET-new"))

    sync(client)

    kept = [str(raw_redis.dump(key)) for key in raw_redis.scan_iter() if b"body" not in key]
    kept += [client.get("/api/instances").content.decode(), caplog.text]
    kept += [str(values) for values in SyncRun.objects.values()]
    assert len(kept) > 5 and not [text for text in kept if "FAKE-SECRET" in text]


def test_instances_that_novita_counts_but_does_not_list_are_reported(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), total="2")
    novita.lists(page=1, total="2")
    novita.lists(page=2, total="2")

    answer = sync(client)

    assert answer["errors"] == ["Novita counts 1 more instance than it lists."]


def test_changed_at_moves_only_for_changed_instances(
    client: Client, novita: NovitaAnswers, raw_redis: FakeRedis
) -> None:
    fill(client, novita, make_row("same"), make_row("stopped"))
    (generation,) = raw_redis.keys(name_of("gen:*"))
    for id_, value in raw_redis.hgetall(generation).items():
        if id_:
            raw_redis.hset(
                generation, id_, json.dumps({**json.loads(value), "changedAt": LONG_AGO}, separators=(",", ":"))
            )
    novita.lists(make_row("same"), make_row("stopped", status="exited"))

    sync(client)

    changed_at = {one["id"]: one["changedAt"] for one in client.get("/api/instances").json()["instances"]}
    assert changed_at["same"] == LONG_AGO
    assert changed_at["stopped"] > LONG_AGO


def test_sync_without_changes_only_renews_the_age(client: Client, novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    fill(client, novita, make_row("a"), make_row("b"))
    raw_redis.hincrby(name_of("sync"), "as_of", -60_000)
    listing, generations = client.get("/api/instances"), raw_redis.keys(name_of("gen:*"))

    sync(client)

    again = client.get("/api/instances")
    assert again.content == listing.content
    assert again["ETag"] == listing["ETag"]
    assert raw_redis.keys(name_of("gen:*")) == generations
    assert again["Data-As-Of"] > listing["Data-As-Of"]


def test_duplicate_ids_are_one_instance(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(page=1)

    fill(client, novita, make_row("a"), make_row("a", status="exited"), make_row("b"))

    listing = client.get("/api/instances").json()
    assert sorted(one["id"] for one in listing["instances"]) == ["a", "b"] and listing["total"] == 2


def test_empty_account_is_an_empty_inventory(client: Client, novita: NovitaAnswers) -> None:
    fill(client, novita)

    answer = client.get("/api/instances")
    assert answer.json() == {"instances": [], "total": 0}
    assert answer["Data-Stale"] == "false"
    assert "Data-As-Of" in answer
    assert client.get("/readyz").status_code == 200


def test_name_with_nul_reaches_the_inventory_and_the_record(client: Client, novita: NovitaAnswers) -> None:
    fill(client, novita, make_row("a", name="x\x00y <script> \u202e 🚀"))

    assert client.get("/api/instances/a").json()["name"] == "x\x00y <script> \u202e 🚀"
    assert SyncRun.objects.get().added == [{"id": "a", "name": "x\ufffdy <script> \u202e 🚀"}]


# --- A failed synchronization


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"status": 500}, 502, "NOVITA_UNAVAILABLE"),
        ({"body": "<html>", "json": None}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": None}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": []}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": {}}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": {"instances": {"a": 1}}}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": {"instances": [make_row("a"), {"name": "no id"}]}}, 502, "NOVITA_BAD_ANSWER"),
        ({"json": {"instances": [make_row("a"), "b"]}}, 502, "NOVITA_BAD_ANSWER"),
        ({"status": 302, "headers": {"Location": "https://elsewhere.test/"}}, 502, "NOVITA_BAD_ANSWER"),
        ({"status": 401, "json": make_refusal(401, "UNAUTHORIZED", "")}, 502, "NOVITA_REJECTED_KEY"),
        ({"status": 403, "json": make_refusal(403, "FAILED_TO_AUTH", "")}, 502, "NOVITA_REJECTED_KEY"),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, 503, "NOVITA_RATE_LIMITED"),
        ({"status": 429, "headers": {"Retry-After": "soon"}}, 503, "NOVITA_RATE_LIMITED"),
        ({"body": requests.ConnectionError("refused"), "json": None}, 502, "NOVITA_UNAVAILABLE"),
        ({"body": requests.ReadTimeout("silence"), "json": None}, 504, "NOVITA_TIMEOUT"),
    ],
)
def test_failed_listing_keeps_the_previous_one(
    answer: Json, status: int, code: str, client: Client, novita: NovitaAnswers
) -> None:
    old = fill(client, novita, make_row("a"), make_row("b"))
    novita.lists(**answer)

    failure = sync(client, status)

    assert failure["code"] == code
    assert client.get("/api/instances").content == old
    health = client.get("/health").json()
    assert health["status"] == "degraded"
    assert health["sync"]["lastError"] == failure["message"]
    run = SyncRun.objects.first()
    assert run and (run.outcome, run.error_code, run.error) == ("failed", code, failure["message"])


def test_failed_page_keeps_the_previous_listing(client: Client, novita: NovitaAnswers) -> None:
    old = fill(client, novita, make_row("a"), make_row("b"))
    novita.lists(make_row("a"), total=3)
    for page in (1, 2, 3):
        novita.lists(page=page, status=500)

    sync(client, 502)

    assert client.get("/api/instances").content == old


def test_failed_first_sync_leaves_no_inventory(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(status=500)

    sync(client, 502)

    answer = client.get("/api/instances")
    assert answer["Data-Stale"] == "true"
    assert "Data-As-Of" not in answer
    assert client.get("/readyz").status_code == 503


def test_first_failure_and_recovery_are_warned_of_once(
    client: Client, novita: NovitaAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    for failing in (True, True, True, False, False):
        novita.mock.reset()
        novita.lists(status=401 if failing else 200)
        sync(client, 502 if failing else 200)

    first, second = get_lines(caplog, logging.WARNING)
    assert first.startswith("sync failed trigger=api ") and "code=NOVITA_REJECTED_KEY" in first
    assert second == "sync works again after 3 failures"


@pytest.mark.django_db(transaction=True)
def test_sync_succeeds_without_a_database(
    client: Client, novita: NovitaAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise OperationalError("database is locked")

    with connection.execute_wrapper(fail):
        fill(client, novita, make_row("a"))

    assert read_statuses(client) == {"a": "running"}
    assert "sync not recorded in the database: database is locked" in get_lines(caplog, logging.WARNING)


# --- Instances that the listing lacks


@pytest.mark.parametrize("listed", [[make_row("a")], []], ids=["one missing", "empty listing"])
@pytest.mark.parametrize(
    "answer",
    [
        {"status": 400, "json": make_refusal(400, "RESOURCE_NOT_FOUND", "instance not found")},
        {"status": 404, "json": make_refusal(404, "NOT_FOUND", "no such instance")},
        {"json": make_row("b", status="removed")},
    ],
    ids=["400", "404", "removed"],
)
def test_instance_that_novita_calls_gone_is_removed(
    answer: Json, listed: list[Json], client: Client, novita: NovitaAnswers
) -> None:
    fill(client, novita, make_row("a"), make_row("b"))
    novita.lists(*listed)
    novita.shows(make_row("b"), **answer)
    if not listed:
        novita.shows(make_row("a"))

    counts = sync(client)

    assert counts["deleted"] == 1
    assert read_statuses(client) == {"a": "running"}


def test_direct_read_updates_an_instance_that_the_listing_lacks(client: Client, novita: NovitaAnswers) -> None:
    fill(client, novita, make_row("a"), make_row("b"), make_row("c"))
    novita.lists(make_row("a"))
    novita.shows(make_row("b"))
    novita.shows(make_row("c", status="exited"))

    counts = sync(client)

    assert counts["deleted"] == 0
    assert counts["unconfirmed"] == 0
    assert counts["changed"] == 1
    assert read_statuses(client) == {"a": "running", "b": "running", "c": "exited"}


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500},
        {"status": 404, "body": "<html>", "json": None},
        {"status": 401},
        {"status": 400, "json": make_refusal(400, "BAD_REQUEST", "instanceId")},
        {"json": {}},
        {"json": make_row("another")},
        {"body": requests.ReadTimeout("silence"), "json": None},
    ],
)
def test_unreadable_missing_instance_is_kept_as_unconfirmed(
    answer: Json, client: Client, novita: NovitaAnswers
) -> None:
    old = fill(client, novita, make_row("a"), make_row("b"))
    novita.lists(make_row("a"))
    novita.shows(make_row("b"), **answer)

    counts = sync(client)

    assert counts["deleted"] == 0
    assert counts["unconfirmed"] == 1
    assert client.get("/api/instances").content == old


@pytest.fixture
def few_direct_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four missing instances are too many to read each; three are read as a sample."""
    monkeypatch.setattr("instances.inventory.sync.MAX_DIRECT_READS", 3)


@pytest.mark.usefixtures("few_direct_reads")
def test_too_many_missing_are_all_removed_when_a_sample_is_gone(client: Client, novita: NovitaAnswers) -> None:
    fill(client, novita, *[make_row(id_) for id_ in "abcde"])
    novita.lists(make_row("a"))
    novita.mock.assert_all_requests_are_fired = False
    for id_ in "bcde":
        novita.lacks(id_)

    counts = sync(client)

    assert counts["deleted"] == 4
    assert counts["unconfirmed"] == 0
    assert read_statuses(client) == {"a": "running"}
    assert len([call for call in novita.mock.calls if "instanceId" in str(call.request.url)]) == 3


@pytest.mark.usefixtures("few_direct_reads")
@pytest.mark.parametrize("answer", [{}, {"status": 401}], ids=["alive", "unread"])
def test_too_many_missing_are_all_kept_when_one_of_a_sample_may_exist(
    answer: Json, client: Client, novita: NovitaAnswers
) -> None:
    fill(client, novita, *[make_row(id_) for id_ in "abcde"])
    novita.lists(make_row("a"))
    novita.mock.assert_all_requests_are_fired = False
    for id_ in "bc":
        novita.lacks(id_)
        novita.shows(make_row(chr(ord(id_) + 2)), **answer)

    counts = sync(client)

    assert counts["deleted"] == 0 and counts["unconfirmed"] >= 2
    assert read_statuses(client) == dict.fromkeys("abcde", "running")


@pytest.mark.usefixtures("few_direct_reads")
def test_too_many_missing_are_listed_once_more(client: Client, novita: NovitaAnswers) -> None:
    fill(client, novita, *[make_row(id_) for id_ in "abcdef"])
    novita.lists()
    novita.lists(*[make_row(id_, status="exited") for id_ in "abcde"])
    novita.lacks("f")

    counts = sync(client)

    assert counts["deleted"] == 1
    assert counts["changed"] == 5
    assert read_statuses(client) == dict.fromkeys("abcde", "exited")


# --- Actions during a synchronization


def test_action_during_a_sync_survives_it(client: Client, novita: NovitaAnswers) -> None:
    fill(client, novita, make_row("a"), make_row("b"))
    novita.mock.reset()
    novita.takes("stop", "a")
    novita.lists_during(lambda: client.post("/api/instances/a/stop"), make_row("a"), make_row("b"), make_row("c"))

    sync(client)

    assert read_statuses(client) == {"a": "toStop", "b": "running", "c": "running"}


def test_removal_during_a_sync_survives_it(client: Client, novita: NovitaAnswers) -> None:
    fill(client, novita, make_row("a"), make_row("b"))
    novita.mock.reset()
    novita.takes("stop", "a", status=404, json=make_refusal(404, "RESOURCE_NOT_FOUND", "instance not found"))
    novita.lists_during(lambda: client.post("/api/instances/a/stop"), make_row("a"), make_row("b"), make_row("c"))

    sync(client)

    assert read_statuses(client) == {"b": "running", "c": "running"}


def test_sync_replaces_the_status_of_an_earlier_action(client: Client, novita: NovitaAnswers) -> None:
    fill(client, novita, make_row("a"))
    novita.takes("stop", "a")
    client.post("/api/instances/a/stop")
    novita.lists(make_row("a", status="exited"))

    sync(client)

    assert read_statuses(client) == {"a": "exited"}


def test_dry_run_changes_nothing(client: Client, novita: NovitaAnswers, raw_redis: FakeRedis) -> None:
    fill(client, novita, make_row("a"), make_row("b"))
    novita.mock.reset()
    novita.lists(make_row("c"))
    novita.lacks("a")
    novita.lacks("b")
    before = {key: raw_redis.dump(key) for key in raw_redis.scan_iter()}

    difference = synchronize("command", dry_run=True).difference

    assert [one["id"] for one in difference.added] == ["c"]
    assert [one["id"] for one in difference.removed] == ["a", "b"]
    assert {key: raw_redis.dump(key) for key in raw_redis.scan_iter()} == before
    assert SyncRun.objects.count() == 1


def test_record_names_the_first_instances_and_counts_all(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.inventory.difference.MAX_LISTED", 2)

    fill(client, novita, make_row("a"), make_row("b"), make_row("c"))

    run = SyncRun.objects.get()
    assert run.added_count == 3
    assert [one["id"] for one in run.added] == ["a", "b"]


def test_sync_without_changes_makes_two_statements_in_the_database(
    client: Client, novita: NovitaAnswers, django_assert_num_queries: Any
) -> None:
    novita.lists(*[make_row(f"id-{number}") for number in range(50)])
    synchronize("command")

    # The ledger of costs, and the record.
    with django_assert_num_queries(2):
        synchronize("command")


@pytest.mark.parametrize("size", [2, 500])
def test_commands_to_redis_do_not_grow_with_the_account(
    size: int, client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, novita)
    novita.mock.reset()
    novita.lists(*[make_row(f"id-{number}") for number in range(size)])
    sent = count_commands(monkeypatch)

    synchronize("command")
    assert len(sent) == 8, sent
    sent.clear()
    synchronize("command")
    assert len(sent) == 6, sent


def count_commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the commands to Redis from now on; those of a pipeline count as one."""
    sent: list[str] = []
    send = FakeRedisConnection.send_packed_command

    def count(connection: FakeRedisConnection, command: Any, *args: Any, **options: Any) -> Any:
        sent.append(str(command)[:60])
        return send(connection, command, *args, **options)

    monkeypatch.setattr(FakeRedisConnection, "send_packed_command", count)
    return sent


def test_ledger_has_every_unconfirmed_instance_as_unread(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.inventory.difference.MAX_LISTED", 1)
    fill(client, novita, make_row("a"), make_row("b"), make_row("c"))
    novita.lists(make_row("a"))
    for id_ in "bc":
        novita.shows(make_row(id_), status=500)

    sync(client)

    open_ones = UsageInterval.objects.filter(ended_ms=None)
    states = dict(open_ones.values_list("instance__instance_id", "state"))
    assert states == {"a": UsageInterval.State.GPU, "b": UsageInterval.State.GAP, "c": UsageInterval.State.GAP}


def test_reader_right_after_a_publication_waits_for_its_answer(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, read_whole = publishing.publish, store._read_whole
    readers, reads = [], []

    def publish_before_a_reader(*args: Any) -> Any:
        revision = publish(*args)
        readers.append(threading.Thread(target=store.read_body))
        readers[0].start()
        time.sleep(0.1)
        return revision

    monkeypatch.setattr(publishing, "publish", publish_before_a_reader)
    monkeypatch.setattr(store, "_read_whole", lambda *args: (reads.append(args), read_whole(*args))[1])

    fill(client, novita, make_row("a"))

    readers[0].join(10)
    assert reads == []


def test_bug_in_the_ledger_fails_no_synchronization(
    client: Client, novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instances.costs.recording.observe", Mock(side_effect=OverflowError("too large")))
    novita.lists(make_row("a"))

    assert sync(client)["success"] is True
    assert read_statuses(client) == {"a": "running"}
