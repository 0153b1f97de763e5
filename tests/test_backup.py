"""Backup and restore: one file that holds everything, from and to any database, whole or not at all."""

import io
import os
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from pytest_django import Settings

from instances.access.audit import WORKER
from instances.access.tokens import create_token
from instances.backup import files, restoring
from instances.models import (
    AuditEntry,
    Channel,
    EvaluationState,
    Event,
    Finding,
    Message,
    MeteredInstance,
    Operation,
    Policy,
    SyncRun,
    Target,
    Token,
    UsageInterval,
    WebhookDelivery,
)
from instances.notifications import sealing
from novita_site.roles import ROLES
from tests.test_admin_records import AT, make_delivery, make_operation

# An SQLite file is replaced as a whole, which no test's transaction can undo.
pytestmark = pytest.mark.django_db(transaction=True)

URL = "https://hooks.example.com/secret"


def run(name: str, *arguments: Any, **options: Any) -> str:
    output = io.StringIO()
    call_command(name, *map(str, arguments), stdout=output, **options)
    return output.getvalue()


def fail(name: str, *arguments: Any, **options: Any) -> str:
    with pytest.raises(CommandError) as caught:
        run(name, *arguments, **options)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "panel.backup"


@pytest.fixture
def used() -> None:
    """A panel with a record of most kinds."""
    ann = User.objects.create_user("ann", password="FAKE-SECRET")
    # A restore makes the roles that are missing.
    roles = {name: Group.objects.get_or_create(name=name)[0] for name in ROLES}
    ann.groups.add(roles["operator"])
    token, _ = create_token(ann, "ci", "viewer", 30, actor=WORKER)
    Token.objects.filter(pk=token.pk).update(created=AT)
    done = make_operation({"instance_id": "id-a", "state": "confirmed"}, usd_per_hour=Decimal("1.25"), success=True)
    make_operation({"instance_id": "id-b"}, retry_of=done, notes=["Größe 🔥"], selection="again")
    make_delivery(done, sealed_url=sealing.seal(URL))
    Channel.objects.create(name="team", receiver="https://hooks.example.com", sealed_url=sealing.seal(URL))
    instance = MeteredInstance.objects.create(instance_id="id-a", name="trainer")
    UsageInterval.objects.create(instance=instance, state=1, began_ms=2**41, ended_ms=2**41 + 5, price=7, gpus=8)
    SyncRun.objects.create(
        started_at=AT, trigger="api", outcome="succeeded", added_count=1, added=[{"id": "a", "name": "é"}]
    )
    AuditEntry.objects.create(at=AT, actor="ann", action="instance.stop", outcome="done")


def read_everything() -> dict[str, list[dict[str, Any]]]:
    models = (User, Group, Token, Operation, Target, WebhookDelivery, Channel, MeteredInstance, UsageInterval, SyncRun)
    found = {model.__name__: list(model._base_manager.order_by("pk").values()) for model in models}
    return {**found, "roles": list(User.groups.through._base_manager.values("user", "group"))}


def lose_everything() -> None:
    for model in (User, Group, Operation, Channel, MeteredInstance, SyncRun, AuditEntry, EvaluationState, Policy):
        model._base_manager.all().delete()


@pytest.mark.usefixtures("used")
def test_everything_comes_back_after_a_total_loss(file: Path) -> None:
    before = read_everything()
    run("backup", file)
    lose_everything()

    run("restore", file)

    assert read_everything() == before
    assert User.objects.get().check_password("FAKE-SECRET")
    assert sealing.unseal(Channel.objects.get().sealed_url) == URL


@pytest.mark.usefixtures("used")
def test_records_can_be_added_after_a_restore(file: Path) -> None:
    run("backup", file)
    lose_everything()
    run("restore", file)
    highest = SyncRun.objects.latest("pk").pk

    assert SyncRun.objects.create(started_at=AT, trigger="api", outcome="succeeded").pk > highest


@pytest.mark.usefixtures("used")
def test_backup_says_what_it_has_and_that_the_key_is_not_in_it(file: Path) -> None:
    output = run("backup", file)

    assert "users: 1, " in output and "operations: 2" in output
    assert "Keep SECRET_KEY" in output


@pytest.mark.usefixtures("used")
def test_only_its_owner_can_read_a_backup(file: Path) -> None:
    run("backup", file)

    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("used")
def test_backup_is_one_file(file: Path) -> None:
    run("backup", file)

    assert list(file.parent.iterdir()) == [file]


def test_backup_replaces_no_file_unless_that_is_said(file: Path) -> None:
    file.write_text("precious")

    assert "exists. Choose another name" in fail("backup", file)
    assert file.read_text() == "precious"

    run("backup", file, overwrite=True)
    assert file.read_bytes().startswith(b"SQLite format 3")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_backup_replaces_nothing_but_files(file: Path) -> None:
    os.mkfifo(file)

    assert "is not a file. Choose another name" in fail("backup", file, overwrite=True)
    assert file.is_fifo()


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.usefixtures("sqlite_only")
def test_backup_never_replaces_the_database_itself(suffix: str, file: Path) -> None:
    database = Path(connection.settings_dict["NAME"])
    file.symlink_to(database.parent)
    inode = database.stat().st_ino

    assert "The panel itself uses" in fail("backup", file / f"{database.name}{suffix}", overwrite=True)
    assert database.stat().st_ino == inode


def test_backup_of_a_database_that_is_away_says_so(file: Path) -> None:
    with connection.execute_wrapper(Mock(side_effect=OperationalError("away"))):
        assert "was not written: the database can't be used. OperationalError: away." in fail("backup", file)


def test_backup_into_a_missing_folder_says_so(file: Path) -> None:
    assert "No such file" in fail("backup", file.parent / "missing" / "panel.backup")


def test_name_that_somebody_takes_meanwhile_is_not_replaced(file: Path) -> None:
    with pytest.raises(Exception, match="was not written"), files.created(file):
        file.write_text("precious")

    assert file.read_text() == "precious"
    assert list(file.parent.iterdir()) == [file]


def test_full_disk_leaves_no_file(file: Path) -> None:
    with pytest.raises(Exception, match="The disk is full"), files.created(file):
        raise sqlite3.OperationalError("database or disk is full")

    assert list(file.parent.iterdir()) == []


def test_copy_that_has_not_counted_the_pages_reports_no_progress() -> None:
    told: list[tuple[int, int]] = []

    with closing(sqlite3.connect(":memory:")) as empty, closing(sqlite3.connect(":memory:")) as target:
        files.copy_database(empty, target, lambda done, total: told.append((done, 100 * done // total)))

    assert told == []


def test_nobody_stays_logged_in_by_a_backup(file: Path) -> None:
    Session.objects.create(session_key="FAKE-SECRET-session", session_data="x", expire_date=AT)
    User.objects.create_user("ann")

    run("backup", file)
    assert b"FAKE-SECRET-session" not in file.read_bytes()

    run("restore", file, replace=True)
    assert not Session.objects.exists()


# --- Refusals


@pytest.mark.usefixtures("used")
def test_database_in_use_is_not_replaced_unless_that_is_said(file: Path) -> None:
    run("backup", file)
    User.objects.create_user("bob")

    assert "The database is not empty (users: 2, " in fail("restore", file)
    assert User.objects.filter(username="bob").exists()

    run("restore", file, replace=True)
    assert not User.objects.filter(username="bob").exists()


@pytest.mark.usefixtures("used")
def test_database_that_others_have_open_is_not_replaced_unless_that_is_said(file: Path) -> None:
    run("backup", file)
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM auth_user")

    assert "Other processes have the database open. End the web processes" in fail("restore", file, replace=True)
    assert "Restored" in run("restore", file, replace=True, while_running=True)
    other.close()


@pytest.mark.usefixtures("used")
def test_restore_is_refused_when_somebody_opens_the_database_meanwhile(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", file)
    before = read_everything()
    other = connection.copy()

    def settle(alias: str) -> list[str]:
        with other.cursor() as cursor:
            cursor.execute("SELECT 1 FROM auth_user")
        return []

    monkeypatch.setattr(restoring, "_settle", settle)
    message = fail("restore", file, replace=True)
    other.close()

    assert "Other processes have the database open." in message
    assert read_everything() == before


def test_local_owner_and_recorded_commands_are_no_use(file: Path) -> None:
    run("backup", file)
    User.objects.create_user("local-owner")
    AuditEntry.objects.create(action="command.migrate", outcome="done")

    assert "Restored" in run("restore", file)


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:40960] = b"\xaa" * (40960 - 4096)
    file.write_bytes(content)


def empty_file(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50_000])


def write_text(file: Path) -> None:
    file.write_text("no database " * 100)


def add_migration(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('instances', '9999_x', '2030-01-01')"
        )


def drop_tables(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE recipe (name text)")


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damage, "can't be read"),
        (cut, "can't be read"),
        (write_text, "can't be read"),
        (empty_file, "has no tables of the panel"),
        (drop_tables, "has no tables of the panel"),
        (add_migration, "is of a newer version of the panel: it has the migration instances.9999_x"),
        (Path.unlink, "is not a file"),
    ],
)
def test_unusable_file_changes_nothing(file: Path, change: Any, reason: str) -> None:
    run("backup", file)
    before = read_everything()
    change(file)

    assert reason in fail("restore", file, replace=True)
    assert read_everything() == before


@pytest.mark.thorough
@pytest.mark.usefixtures("used")
def test_backup_of_an_older_version_is_migrated(file: Path) -> None:
    run("backup", file)
    with files.opened(file) as alias:
        call_command("migrate", "instances", "0019", database=alias, verbosity=0)
    before = read_everything()
    lose_everything()

    run("restore", file)

    assert read_everything() == before


# --- What was under way


def test_interrupted_operation_is_not_continued(file: Path) -> None:
    operation = make_operation({"state": "pending"}, state="requesting", finished_at=None, success=None)
    make_delivery(operation, state="waiting")
    run("backup", file)

    run("restore", file, replace=True)

    operation.refresh_from_db()
    assert operation.state == "finished"
    assert not operation.success
    assert "restored from a backup" in operation.result
    assert operation.targets.get().state == "unknown"
    assert WebhookDelivery.objects.get().state == "dead"


def test_old_notification_is_not_sent(file: Path) -> None:
    event = Event.objects.create(kind="test", key="k", title="A test")
    event.messages.create(service="slack", message_id="m1")
    run("backup", file)

    run("restore", file, replace=True)

    assert Message.objects.get().state == "dead"


def test_old_finding_stops_nothing(file: Path) -> None:
    policy = Policy.objects.create(name="nights", rule="idle", mode="stop")
    finding = Finding.objects.create(
        policy=policy, policy_name="nights", policy_version=1, mode="stop", state="due", instance_id="a"
    )
    run("backup", file)

    output = run("restore", file, replace=True)

    finding.refresh_from_db()
    assert finding.state == "cleared" and finding.ended_at
    assert EvaluationState.objects.get().is_switched_off
    assert "policies stop nothing until an admin lets them act again" in output
    assert "restored from a backup" in finding.steps.get().reason


def test_policies_that_stop_nothing_are_not_switched_off(file: Path) -> None:
    Policy.objects.create(name="nights", rule="idle", mode="notify")
    run("backup", file)

    run("restore", file, replace=True)

    assert not EvaluationState.objects.filter(is_switched_off=True).exists()


@pytest.mark.usefixtures("used")
def test_another_secret_key_is_reported_with_the_channels_that_need_it(file: Path, settings: Settings) -> None:
    run("backup", file)
    settings.SECRET_KEY = "FAKE-SECRET-another"

    assert "encrypted with another SECRET_KEY: team." in run("restore", file, replace=True)


# --- SQLite's own


@pytest.fixture
def sqlite_only() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("about SQLite's file")


@pytest.mark.usefixtures("used", "sqlite_only")
def test_damaged_database_is_moved_aside(file: Path) -> None:
    run("backup", file)
    before = read_everything()
    database = Path(connection.settings_dict["NAME"])
    connection.close()
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    write_text(database)

    assert "--replace moves it aside" in fail("restore", file)
    run("restore", file, replace=True)

    (aside,) = database.parent.glob(f"{database.name}.damaged-*")
    assert aside.read_text().startswith("no database")
    aside.unlink()
    assert database.stat().st_mode & 0o777 == 0o600
    assert read_everything() == before


@pytest.mark.usefixtures("used", "sqlite_only")
def test_backup_has_what_only_the_wal_holds(file: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_autocheckpoint = 0")
    User.objects.create_user("late")

    run("backup", file)

    with closing(sqlite3.connect(file)) as copy:
        assert copy.execute("SELECT count(*) FROM auth_user WHERE username = 'late'").fetchone() == (1,)
