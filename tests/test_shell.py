"""Each manage.py command that may change something is recorded."""

import contextlib
import getpass
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command, get_commands
from django.db import connection

from instances.access.shell import READING, RECORDING, recorded_command
from instances.models import AuditEntry, SyncRun
from tests import python
from tests.commands import Ran
from tests.novita_answers import NovitaAnswers, make_row
from tests.system.conftest import migrated_database  # noqa: F401 - a fixture
from tests.system.processes import ROOT

SHELL = f"{getpass.getuser()} (shell)"


def run(*arguments: str, **options: Any) -> None:
    """Run a command as manage.py does."""
    with recorded_command(["manage.py", *arguments]):
        call_command(*arguments, **options)


def record(*arguments: str, error: BaseException | None = None) -> None:
    """Record a command without running it."""
    with recorded_command(["manage.py", *arguments]):
        if error:
            raise error


def list_entries() -> list[tuple[str, str, str, str]]:
    return [(one.actor, one.action, one.target, one.outcome) for one in AuditEntry.objects.order_by("pk")]


@pytest.mark.django_db(transaction=True)
def test_sync_from_the_shell_is_recorded_with_its_user(novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))

    assert Ran("sync_instances").status == 0
    account.answers("list", 401)
    assert Ran("sync_instances").status == 1

    assert list_entries() == [(SHELL, "sync", "", "done"), (SHELL, "sync", "", "NOVITA_REJECTED_KEY")]
    assert {run.requested_by for run in SyncRun.objects.all()} == {SHELL}


@pytest.mark.django_db(transaction=True)
def test_dry_run_leaves_no_entry(novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"))

    assert Ran("sync_instances", "--dry-run").status == 0

    assert list_entries() == []


@pytest.mark.django_db(transaction=True)
def test_new_superuser_is_recorded_by_name() -> None:
    User.objects.create_user("earlier")

    run("createsuperuser", "--noinput", "--username", "ann", "--email", "ann@example.com")

    assert list_entries() == [(SHELL, "command.createsuperuser", "ann", "done")]


@pytest.mark.django_db(transaction=True)
def test_unknown_command_is_recorded() -> None:
    run("clearsessions")

    assert list_entries() == [(SHELL, "command.clearsessions", "", "done")]


@pytest.mark.django_db(transaction=True)
def test_failed_command_is_recorded_as_failed() -> None:
    with pytest.raises(CommandError):
        run("loaddata", "nope.json")

    assert list_entries() == [(SHELL, "command.loaddata", "nope.json", "CommandError")]


@pytest.mark.django_db(transaction=True)
def test_shell_input_is_not_recorded() -> None:
    run("shell", "-c", "secret = 'FAKE-SECRET'", verbosity=0)

    assert list_entries() == [(SHELL, "command.shell", "", "done")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("command", ["check", "showmigrations", "diffsettings"])
def test_reading_leaves_no_entry(command: str) -> None:
    run(command)

    assert list_entries() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "arguments",
    [[], ["clearsessions", "--help"], ["clearsessions", "-h"], ["clearsessions", "--version"], ["nonsense"]],
    ids=" ".join,
)
def test_command_that_does_not_run_leaves_no_entry(arguments: list[str]) -> None:
    record(*arguments)

    assert list_entries() == []


@pytest.mark.django_db(transaction=True)
def test_command_that_ends_while_django_loads_leaves_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as loading:
        loading.setattr(apps, "ready", False)
        record("clearsessions")

    assert list_entries() == []


@pytest.mark.django_db(transaction=True)
def test_database_shell_input_is_not_recorded() -> None:
    record("dbshell", "--", "-c", "SELECT 'FAKE-SECRET'")

    assert list_entries() == [(SHELL, "command.dbshell", "", "done")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("arguments", "target"), [([], getpass.getuser()), (["ann"], "ann")], ids=["own", "named"])
def test_changed_password_is_recorded_with_its_user(arguments: list[str], target: str) -> None:
    record("changepassword", *arguments)

    assert list_entries() == [(SHELL, "command.changepassword", target, "done")]


@pytest.mark.django_db(transaction=True)
def test_new_superuser_is_recorded_while_the_users_can_not_be_read() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE auth_user RENAME TO elsewhere")
    try:
        record("createsuperuser", "--noinput")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO auth_user")

    assert list_entries() == [(SHELL, "command.createsuperuser", "--noinput", "done")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("status", "outcome"), [(None, "done"), (0, "done"), (3, "exit status 3")])
def test_exit_status_is_the_recorded_outcome(status: int | None, outcome: str) -> None:
    with pytest.raises(SystemExit):
        record("clearsessions", error=SystemExit(status))

    assert list_entries() == [(SHELL, "command.clearsessions", "", outcome)]


@pytest.mark.django_db(transaction=True)
def test_long_names_are_cut_to_their_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(get_commands(), "c" * 60, "instances")

    with pytest.raises(RuntimeError):
        record("c" * 60, error=type("E" * 60, (RuntimeError,), {})())

    assert list_entries() == [(SHELL, f"command.{'c' * 32}", "", "E" * 40)]


@pytest.mark.django_db(transaction=True)
def test_user_name_that_is_no_text_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "w\udce9ekend")

    record("clearsessions")

    assert list_entries() == [("w\ufffdekend (shell)", "command.clearsessions", "", "done")]


def test_unrecorded_commands_exist() -> None:
    ours = {name for name, app in get_commands().items() if app == "instances"}

    assert ours >= RECORDING
    assert READING & ours == {"check_worker", "novita_simulator", "up"}, "does the new command change anything?"


@pytest.mark.thorough
def test_real_shell_command_is_recorded(tmp_path: Path, migrated_database: Path) -> None:  # noqa: F811 - the fixture
    database = tmp_path / "db.sqlite3"
    database.write_bytes(migrated_database.read_bytes())
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "novita_site.settings",
        "DATABASE_URL": f"sqlite:///{database}",
        "DJANGO_SUPERUSER_PASSWORD": "FAKE-SECRET-password",
    }
    command = [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username", "ann", "--email", ""]
    first, second = (
        python.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60).returncode
        for _ in range(2)
    )

    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT actor, action, target, outcome FROM instances_auditentry").fetchall()
    assert first == 0
    assert second == 1
    assert rows == [
        (SHELL, "command.createsuperuser", "ann", "done"),
        (SHELL, "command.createsuperuser", "ann", "exit status 1"),
    ]
