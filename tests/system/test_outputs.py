"""Texts, terminals and logs never change what is done: arguments in other encodings; closed, full or lost outputs."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Novita, Service, Worker, ended, wait_until

NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0"}
ODD_TEXT = b"w\xe9ekend"


@pytest.fixture(autouse=True)
def all_running(novita: Novita) -> None:
    """25 running instances, one of them with a name that not every encoding has."""
    novita.change(running=True, set={min(novita.get_truth()): {"name": "Ünïcode 🚂"}})


def run_with(output: str, arguments: str, environment: dict[str, str]) -> int:
    """Run a command of manage.py with an output, as a shell does; return its exit status."""
    environment = {name: value for name, value in environment.items() if name != "PYTHONUNBUFFERED"}
    if output in IN_SHELL:
        line = IN_SHELL[output].format(f"{sys.executable} {ROOT / 'manage.py'} {arguments}")
        command, streams = ["bash", "-c", line], {"stdin": subprocess.DEVNULL}
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=120, **streams).returncode
    with OPENED[output]() as file:
        streams = {"stdout": file, "stderr": file} if output.startswith("both") else {"stdout": file}
        command = [sys.executable, "manage.py", *arguments.split()]
        return python.run(command, cwd=ROOT, env=environment, **streams).returncode


def list_reasons(environment: dict[str, str]) -> list[str]:
    connection = sqlite3.connect(environment["DATABASE_URL"].removeprefix("sqlite:///"))
    rows = connection.execute("SELECT reason FROM instances_operation").fetchall()
    connection.close()
    return [reason for (reason,) in rows]


# --- Outputs


def open_pipe_without_reader() -> BinaryIO:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "wb", buffering=0)


def open_full() -> BinaryIO:
    return open("/dev/full", "wb", buffering=0)


OPENED: dict[str, Callable[[], BinaryIO]] = {
    "full": open_full,
    "both full": open_full,
    "read by nobody": open_pipe_without_reader,
}
# A Python starts otherwise with these.
IN_SHELL = {"closed": "{} >&-", "both closed": "{} >&- 2>&-", "all closed": "{} <&- >&- 2>&-"}


@pytest.mark.parametrize("output", ["all closed", "both full", "read by nobody"])
def test_stop_all_stops_and_exits_with_0_with_any_output(
    output: str, environment: dict[str, str], novita: Novita
) -> None:
    assert run_with(output, "stop_all --yes", environment) == 0

    assert novita.are_all("exited")
    # The next opened file gets the number of a closed output: nothing is written into the database.
    assert list_reasons(environment) == [""]


@pytest.mark.parametrize("output", ["closed", "full"])
def test_failed_stop_stops_the_others_and_keeps_its_exit_status_with_any_output(
    output: str, environment: dict[str, str], novita: Novita
) -> None:
    novita.fault("stop", "ignore", instanceId=min(novita.get_truth()))

    assert run_with(output, "stop_all --yes --timeout 3", environment) == 1

    assert len(set(novita.list_stops())) == 25
    assert list_reasons(environment) == [""]


def test_name_that_the_encoding_of_the_terminal_lacks_is_printed_as_an_escape(
    environment: dict[str, str], novita: Novita
) -> None:
    novita.fault("stop", "ignore", instanceId=min(novita.get_truth()))

    done = python.run(
        [sys.executable, "manage.py", "stop_all", "--yes", "--timeout", "3"],
        cwd=ROOT,
        env={**environment, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
    )

    assert done.returncode == 1
    assert rb"\xdcn\xefcode \U0001f682" in done.stdout


# All commands write by one function, so each has some of the outputs.
@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("sync_instances", 0, "both closed"),
        ("sync_instances", 0, "read by nobody"),
        ("sync_instances --json", 0, "both full"),
        ("create_token nobody --name x", 1, "both full"),
    ],
)
def test_other_commands_keep_their_exit_status_with_any_output(
    command: str, status: int, output: str, environment: dict[str, str]
) -> None:
    assert run_with(output, command, environment) == status


FULL = Path("/dev/full")


@pytest.mark.parametrize("output", ["both full", "both closed"])
def test_web_server_serves_and_stops_with_an_unwritable_log(
    output: str, environment: dict[str, str], tmp_path: Path, novita: Novita
) -> None:
    environment |= NO_SYNC
    with ended(
        Service(environment, tmp_path, log=FULL) if output == "both full" else start_closed(environment, tmp_path)
    ) as service:
        service.wait_until_alive()
        novita.fault("stop", "status", status=500, times=1)

        ordered = service.stop_all(reason="the log is full")

        assert ordered["total"] == 25
        wait_until(lambda: len(set(novita.list_stops())) == 25, "each is requested")


def start_closed(environment: dict[str, str], folder: Path) -> Service:
    """Start the web server by a shell that closes its outputs."""
    line = f"exec {sys.executable} -m gunicorn -c python:novita_site.gunicorn novita_site.wsgi >&- 2>&-"
    (folder / "closed.py").write_text(f"import os\nos.execvp('bash', ['bash', '-c', {line!r}])\n")
    return Service({**environment, "PYTHONPATH": str(folder)}, folder, ["closed"])


def test_worker_verifies_with_an_unwritable_log(
    environment: dict[str, str], tmp_path: Path, start_service: Start
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    with ended(Worker({**environment, **NO_SYNC}, tmp_path, log=FULL)):
        assert service.wait_until_finished(service.stop_all())["success"]


def test_up_starts_and_ends_with_an_unwritable_output(
    environment: dict[str, str], tmp_path: Path, novita: Novita
) -> None:
    with ended(Service({**environment, **NO_SYNC}, tmp_path, ["manage", "up"], log=FULL)) as service:
        service.wait_until_alive()
        assert service.stop_all()["count"] == 25
        service.popen.send_signal(signal.SIGTERM)
        assert service.wait() in {0, 128 + signal.SIGTERM, -signal.SIGTERM}


# --- Texts


def test_texts_in_another_encoding_prevent_no_stop(environment: dict[str, str], novita: Novita) -> None:
    """The reason, and the shell's user and machine."""
    odd: dict[bytes, bytes] = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
    odd |= dict.fromkeys([b"LOGNAME", b"USER", b"HOSTNAME"], ODD_TEXT)
    command = [sys.executable, "manage.py", "stop_all", "--yes", "--json", "--reason", ODD_TEXT]
    done = subprocess.run(command, cwd=ROOT, env=odd, capture_output=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reason"] == "w�ekend"
    assert list_reasons(environment) == ["w�ekend"]
    assert novita.are_all("exited")


@pytest.mark.parametrize(
    ("username", "name"), [(os.fsdecode(ODD_TEXT), "x"), ("eve", os.fsdecode(ODD_TEXT))], ids=["user", "token"]
)
def test_token_for_a_name_in_another_encoding_prints_no_traceback(
    username: str, name: str, environment: dict[str, str]
) -> None:
    python.run(
        [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username", "eve", "--email", "e@example.com"],
        cwd=ROOT,
        env={**environment, "DJANGO_SUPERUSER_PASSWORD": "FAKE-SECRET-password"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    command = [sys.executable, "manage.py", "create_token", username, "--name", name]
    done = python.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60)

    assert b"Traceback" not in done.stderr
    assert done.returncode == (0 if username == "eve" else 1), done.stderr


@pytest.fixture
def service(start_service: Start) -> Service:
    return start_service(**NO_SYNC).wait_until_alive()


@pytest.mark.parametrize("reason", [r"half \ud800 a pair", r"nul \u0000 inside", r"\udce9"])
def test_reason_that_cannot_be_stored_prevents_no_stop(reason: str, service: Service, novita: Novita) -> None:
    headers = {"Content-Type": "application/json"}
    answer = service.post("/api/instances/stop-all", data=f'{{"reason": "{reason}"}}', headers=headers)

    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == 25, answer.text
    assert "�" in service.get_operation(answer.json())["reason"]
