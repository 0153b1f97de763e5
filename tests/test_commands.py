"""`manage.py sync_instances` for scripts and people, and what `manage.py up` refuses."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client
from fakeredis import FakeServer
from pytest_django import Settings

from instances.inventory import lease
from instances.models import SyncRun
from tests import commands, python
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command takes SIGTERM for itself, and this process goes on after it."""
    usual = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, usual)


Ran = functools.partial(commands.Ran, "sync_instances")


# --- sync_instances


def test_it_syncs_and_says_what_changed(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a", name="trainer"), make_row("b", name="evaluator"))
    first = Ran()
    novita.mock.reset()
    novita.lists(make_row("a", name="trainer", status="exited"), make_row("c", name=""))
    novita.lacks("b")

    second = Ran()

    assert first.status == 0
    assert first.err == ""
    assert second.status == 0
    assert second.err == ""
    assert "new: trainer (a)\nnew: evaluator (b)\n2 instances: 2 new" in first.out
    assert second.out.splitlines()[:3] == [
        "new: (no name) (c)",
        "changed: trainer (a): status running → exited",
        "gone: evaluator (b)",
    ]
    assert client.get("/api/instances").json()["total"] == 2
    assert SyncRun.objects.latest("pk").trigger == "command"


def test_json_is_what_the_api_answers(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b"))
    printed = json.loads(Ran("--json").out)
    client.post("/api/cache/clear")

    answered = client.post("/api/instances/sync").json()

    assert printed.keys() == answered.keys()
    for measured in ("timestamp", "duration"):
        assert type(printed.pop(measured)) is type(answered.pop(measured))
    assert printed == answered


def test_a_dry_run_tells_and_changes_nothing(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a", name="trainer"))

    with lease.acquire("interval"):
        ran = Ran("--dry-run")

    assert ran.status == 0
    assert "new: trainer (a)" in ran.out
    assert "Dry run: nothing was changed. 1 instance: 1 new" in ran.out
    assert client.get("/api/instances").json()["total"] == 0
    assert not SyncRun.objects.exists()


def test_a_dry_run_says_so_in_json_too(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))

    assert json.loads(Ran("--dry-run", "--json").out)["message"] == "Dry run: nothing was changed"


def test_a_long_list_is_cut(novita: NovitaAnswers) -> None:
    novita.lists(*(make_row(f"i{number}") for number in range(25)))

    lines = Ran().out.splitlines()

    assert len(lines) == 22
    assert lines[-2] == "new: 5 more"


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_a_hostile_name_moves_no_cursor(novita: NovitaAnswers, arguments: list[str]) -> None:
    novita.lists(make_row("a", name="\x1b[2J\r\nnew: forged (b)\x00\u202e\x9b"), make_row("b\x07", status="\x1b]0;x"))

    lines = Ran(*arguments).out.splitlines()

    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_json_is_one_line_whatever_the_names_are(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a", name="\x1b[2J\n"))

    assert Ran("--json").out.strip().isprintable()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 401}, "Novita rejected the API key. Set NOVITA_API_KEY to a valid key"),
        ({"json": None, "body": "<html>"}, "Novita's answer is not JSON."),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_a_failure_ends_with_1_and_words(
    novita: NovitaAnswers, answer: dict[str, Any], words: str, arguments: list[str]
) -> None:
    novita.lists(**answer)

    ran = Ran(*arguments)

    assert ran.status == 1
    assert ran.out == ""
    assert ran.err.startswith(words)
    assert ran.err.count("\n") == 1


def test_a_failure_in_json_is_the_apis_error(novita: NovitaAnswers) -> None:
    novita.lists(status=401)

    ran = Ran("--json")

    body = json.loads(ran.out)
    assert ran.status == 1
    assert body["success"] is False
    assert body["code"] == "NOVITA_REJECTED_KEY"
    assert body.keys() == {"success", "code", "message", "suggestion", "requestId", "timestamp"}
    assert "Novita rejected the API key." in ran.err


def test_without_redis_it_ends_with_1(redis_server: FakeServer) -> None:
    redis_server.connected = False

    ran = Ran()

    assert ran.status == 1
    assert ran.out == ""
    assert ran.err.startswith("Redis can't be reached. Check that Redis is running and REDIS_URL is correct")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_while_another_sync_runs_it_ends_with_3(novita: NovitaAnswers, arguments: list[str]) -> None:
    with lease.acquire("interval"):
        ran = Ran(*arguments)

    assert ran.status == 3
    assert "A synchronization is already running." in ran.err
    assert len(novita.mock.calls) == 0


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("end", "status"), [(_interrupt, 130), (lambda: os.kill(os.getpid(), signal.SIGTERM), 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_it_and_frees_the_lock(
    client: Client, novita: NovitaAnswers, end: Callable[[], None], status: int
) -> None:
    novita.lists_during(end, make_row("a"))

    ran = Ran()

    assert ran.status == status
    assert client.get("/api/instances").json()["total"] == 0
    lease.acquire("test")


def test_progress_is_shown_on_a_terminal_and_wiped(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))

    ran = Ran(stderr=commands.Terminal())

    assert "\r\x1b[K1 of 1 instances read …" in ran.err
    assert ran.err.endswith("\r\x1b[K")
    assert "\x1b" not in ran.out


def test_no_progress_is_written_to_a_file_or_beside_json(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))

    assert Ran().err == ""
    assert Ran("--json", stderr=commands.Terminal()).err == ""


def run_manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py as people do, with nothing in its environment but these variables."""
    environment = {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": "FAKE-SECRET",
        "NOVITA_API_KEY": "FAKE-SECRET",
        **variables,
    }
    command = [sys.executable, "manage.py", *arguments]
    return python.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_help_tells_the_exit_statuses() -> None:
    done = run_manage("sync_instances", "--help")

    assert done.returncode == 0
    assert all(words in " ".join(done.stdout.split()) for words in ("0 done", "1 failed", "3 another", "--dry-run"))


def test_a_failed_process_ends_with_1_and_no_traceback(tmp_path: Path) -> None:
    done = run_manage(
        "sync_instances", REDIS_URL="redis://127.0.0.1:1/0", DATABASE_URL=f"sqlite:///{tmp_path / 'db.sqlite3'}"
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert "Redis can't be reached." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_argument_is_refused() -> None:
    done = run_manage("sync_instances", "--dryrun")

    assert done.returncode == 2
    assert "unrecognized arguments: --dryrun" in done.stderr


def test_each_wrong_setting_is_a_line() -> None:
    done = run_manage("sync_instances", PORT="http", NOVITA_PAGE_SIZE="0")

    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["PORT", "NOVITA_PAGE_SIZE"]


# --- up


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_stops_the_start(settings: Settings, monkeypatch: pytest.MonkeyPatch, used_port: int) -> None:
    monkeypatch.setattr("instances.management.commands.up.PORT_SECONDS", 0.1)
    settings.HOST, settings.PORT = "127.0.0.1", used_port

    with pytest.raises(CommandError, match=rf"^PORT: can't listen on 127\.0\.0\.1:{used_port} \(.*\)\..* set PORT"):
        call_command("up")


@pytest.mark.thorough
def test_a_port_in_use_is_one_line_for_people(tmp_path: Path, used_port: int) -> None:
    database = tmp_path / "db.sqlite3"

    done = run_manage("up", PORT=str(used_port), DATABASE_URL=f"sqlite:///{database}")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"PORT: can't listen on 127.0.0.1:{used_port}" in done.stderr
    # Its file is there, empty: it is made with a mode that keeps it private.
    assert database.stat().st_size == 0, "nothing is begun"


def test_a_host_of_another_machine_stops_the_start(settings: Settings) -> None:
    settings.HOST = "192.0.2.1"

    with pytest.raises(CommandError, match=r"^HOST: '192\.0\.2\.1' is no address of this machine\."):
        call_command("up")


def test_an_unusable_database_stops_the_start(settings: Settings) -> None:
    settings.HOST, settings.PORT, settings.HAS_REDIS_URL = "127.0.0.1", 0, False

    with (
        connection.execute_wrapper(Mock(side_effect=OperationalError("unable to open database file"))),
        pytest.raises(CommandError, match=r"^DATABASE_URL: .*unable to open database file"),
    ):
        call_command("up")


def test_a_wrong_size_of_the_account_is_refused() -> None:
    with pytest.raises(CommandError, match="--instances: must be an integer from 0 to 1000000, not 'many'"):
        call_command("up", "--instances", "many")
