"""Copies of what the database could not take, read back: damage to one hides no other, and fails no request."""

import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import serializers
from django.db import models
from django.test import Client
from django.utils import timezone
from fakeredis import FakeRedis

from instances import redis_client
from instances.fallback import journal, kept
from instances.models import AuditEntry, Operation, Target
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import OPERATIONS, missing_audit_table
from tests.system.processes import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


def make_operation(**fields: Any) -> Operation:
    now = timezone.now()
    wanted = {"kind": "stop", "is_whole_account": True, "selection": "stop:all", "deadline_at": now}
    return Operation(**{**wanted, **fields})


def make_finished() -> tuple[Operation, Target]:
    """A stop that has left "a" running."""
    operation = make_operation(state="finished", finished_at=timezone.now(), success=False, listed_at=timezone.now())
    return operation, Target(pk=1, operation=operation, instance_id="a", state="stillRunning")


def make_document(*rows: models.Model, is_last: bool = False) -> dict[str, Any]:
    shown = json.loads(serializers.serialize("json", rows))
    return {"keptAt": timezone.now().isoformat(), "isLast": is_last, "rows": shown}


def keep(name: str, text: str) -> None:
    kept.write(f"{journal.PREFIX}{name}", text)


def list_ids(client: Client) -> list[str]:
    answer = client.get(OPERATIONS)
    assert answer.status_code == 200, answer.content
    return [one["id"] for one in answer.json()["operations"]]


Damage = Callable[[dict[str, Any]], object]
DAMAGES: dict[str, Damage] = {
    "no fields": lambda document: document["rows"][0].update(fields={}),
    "no key": lambda document: document["rows"][0].pop("pk"),
    "no beginning": lambda document: document["rows"][0]["fields"].pop("created_at"),
    "no deadline": lambda document: document["rows"][0]["fields"].update(deadline_at=None),
    "no time zone": lambda document: document["rows"][0]["fields"].update(deadline_at="2026-01-01T00:00:00"),
    "no selection": lambda document: document["rows"][0]["fields"].pop("selection"),
    "another state": lambda document: document["rows"][1]["fields"].update(state="x"),
    "notes of no list": lambda document: document["rows"][0]["fields"].update(notes=5),
    "another model": lambda document: document["rows"][0].update(model="auth.group", fields={"name": "x"}),
    "fields of no object": lambda document: document["rows"][0].update(fields=[1]),
    "rows of no list": lambda document: document.update(rows=5),
    "a moment of no time": lambda document: document.update(keptAt="x"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.filterwarnings("ignore:DateTimeField .* received a naive datetime:RuntimeWarning")
def test_incomplete_copy_is_set_aside_with_one_log_line(
    damage: Damage, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    whole, damaged = make_document(*make_finished()), make_document(*make_finished(), is_last=True)
    damage(damaged)
    keep("a", json.dumps(damaged))
    keep("b", json.dumps(whole))
    with caplog.at_level(logging.WARNING, "instances"):
        for _ in range(2):
            assert list_ids(client) == [whole["rows"][0]["pk"]]
            journal.record_left_behind()
        shown = client.get(f"{OPERATIONS}/{whole['rows'][0]['pk']}")
        others = [
            client.get(f"{OPERATIONS}/11111111-1111-1111-1111-111111111111"),
            client.post(f"{OPERATIONS}/11111111-1111-1111-1111-111111111111/cancel", "", "application/json"),
        ]

    assert shown.status_code == 200
    assert [one.status_code for one in others] == [404, 404]
    lines = [one for one in caplog.messages if "unrecorded-a" in one]
    assert len(lines) == 1 and f"{kept.ASIDE}unrecorded-a in Redis and " in lines[0], lines
    assert (kept.get_folder() / f"{kept.ASIDE}unrecorded-a.json").read_text() == json.dumps(damaged)


def test_unreadable_file_hides_no_other(client: Client, raw_redis: FakeRedis) -> None:
    whole = make_document(*make_finished())
    for name in "abc":
        keep(name, json.dumps(whole))
    raw_redis.flushall()
    folder = kept.get_folder()
    (folder / "unrecorded-a.json").write_bytes(b"\xff\xfe{")
    (folder / "unrecorded-b.json").unlink()
    (folder / "unrecorded-b.json").mkdir()
    # Whatever the folder's order is.
    (folder / "unrecorded-zz.json").write_bytes(b"\xff")

    assert list_ids(client) == [whole["rows"][0]["pk"]]


def test_damaged_file_leaves_the_copy_in_redis(client: Client) -> None:
    whole = make_document(*make_finished())
    keep("a", json.dumps(whole))
    (kept.get_folder() / "unrecorded-a.json").write_text("{")

    for _ in range(2):
        assert list_ids(client) == [whole["rows"][0]["pk"]]


def test_copy_refused_by_the_database_is_set_aside_and_the_others_are_recorded(client: Client) -> None:
    operation, target = make_finished()
    twice = Target(pk=2, operation=operation, instance_id="a", state="failed")
    keep("a", json.dumps(make_document(operation, target, twice, is_last=True)))
    good = make_document(*make_finished(), is_last=True)
    keep("b", json.dumps(good))

    for _ in range(journal.MAX_REFUSALS):
        journal.record_left_behind()

    assert [str(one.pk) for one in Operation.objects.all()] == [good["rows"][0]["pk"]]
    assert [path.name for path in kept.get_folder().iterdir()] == [f"{kept.ASIDE}unrecorded-a.json"]


def test_copy_is_removed_once_the_database_has_its_rows(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(journal, "RECORD_EVERY_SECONDS", 0)
    client.get("/health")
    with missing_audit_table():
        client.post("/api/cache/clear")
        wait_until(lambda: list(kept.read_all(journal.PREFIX)), "the entry is kept")

    wait_until(lambda: not list(kept.read_all(journal.PREFIX)), "the copy is removed")

    assert AuditEntry.objects.filter(action="cache.clear").count() == 1


def test_newer_copy_of_a_process_that_wakes_is_not_removed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("a", json.dumps(make_document(*make_finished(), is_last=True)))
    newer = json.dumps(make_document(*make_finished()))
    record = journal._record

    def record_slowly(*args: Any, **options: Any) -> bool:
        keep("a", newer)
        return record(*args, **options)

    monkeypatch.setattr(journal, "_record", record_slowly)

    journal.record_left_behind()

    assert [text for _, text in kept.read_all(journal.PREFIX)] == [newer, newer]


def test_file_that_can_not_be_written_leaves_no_draft() -> None:
    occupied = kept.get_folder() / f"{journal.PREFIX}a.json"
    occupied.mkdir(parents=True)

    keep("a", "{}")

    assert list(kept.get_folder().iterdir()) == [occupied]


def test_two_threads_that_keep_a_text_at_once_leave_one_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    other = [threading.Thread(target=lambda: kept.write("protections", "a longer text"))]
    fdopen = os.fdopen

    def open_slowly(*args: Any, **options: Any) -> Any:
        file = fdopen(*args, **options)
        if other:
            thread = other.pop()
            thread.start()
            thread.join()
        return file

    monkeypatch.setattr(kept.os, "fdopen", open_slowly)

    kept.write("protections", "a text")

    assert set(kept.read("protections")) <= {"a text", "a longer text"}
    assert [path.name for path in kept.get_folder().iterdir()] == ["protections.json"]


def test_copies_in_redis_expire(raw_redis: FakeRedis) -> None:
    keep("a", "{}")

    lifetimes = [raw_redis.ttl(key) for key in raw_redis.keys(f"{redis_client.KEPT}*")]

    assert len(lifetimes) == 1
    assert 0 < lifetimes[0] <= redis_client.KEEP_SECONDS


def test_unrecorded_operation_can_be_retried(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"), make_row("b"))
    operation, target = make_finished()
    keep("a", json.dumps(make_document(operation, target)))

    answer = client.post(OPERATIONS, {"fromOperation": str(operation.pk)}, "application/json")

    assert answer.status_code == 200, answer.content
    assert answer.json()["total"] == 1, answer.content
    assert account.orders == ["stop a"]


def test_operation_running_in_another_process_is_not_retried(client: Client) -> None:
    operation = make_operation(deadline_at=timezone.now() + timedelta(seconds=60))
    keep("a", json.dumps(make_document(operation)))

    answer = client.post(OPERATIONS, {"fromOperation": str(operation.pk)}, "application/json")

    assert answer.status_code == 409, answer.content
    assert "still running" in answer.json()["message"], answer.content
