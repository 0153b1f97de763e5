"""Texts, terminals and logs never change what is done: arguments in other encodings; closed, full or lost outputs."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Novita, Service, ended, wait_until

NO_SYNC = {"NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0"}
ODD_TEXT = b"w\xe9ekend"


@pytest.fixture(autouse=True)
def all_running(novita: Novita) -> None:
    """25 running instances."""
    novita.change(running=True)


def run_in_shell(environment: dict[str, str], command: str, **variables: str) -> int:
    """Run a line of bash in which $MANAGE is manage.py; return its exit status."""
    manage = f"{sys.executable} {ROOT / 'manage.py'}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**environment, "MANAGE": manage, **variables},
        stdin=subprocess.DEVNULL,
        timeout=120,
    ).returncode


def list_reasons(environment: dict[str, str]) -> list[str]:
    connection = sqlite3.connect(environment["DATABASE_URL"].removeprefix("sqlite:///"))
    rows = connection.execute("SELECT reason FROM instances_operation").fetchall()
    connection.close()
    return [reason for (reason,) in rows]


# --- Outputs

OUTPUTS = {
    "closed": "$MANAGE {} >&-",
    "both closed": "$MANAGE {} >&- 2>&-",
    "all closed": "$MANAGE {} <&- >&- 2>&-",
    "full": "$MANAGE {} >/dev/full",
    "both full": "$MANAGE {} >/dev/full 2>&1",
    "read by nobody": "$MANAGE {} | head -0; exit ${{PIPESTATUS[0]}}",
    "ascii": "PYTHONIOENCODING=ascii LC_ALL=C $MANAGE {}",
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_stop_all_stops_and_exits_with_0_with_any_output(
    output: str, environment: dict[str, str], novita: Novita
) -> None:
    id_ = min(novita.get_truth())
    novita.change(set={id_: {"name": "Ünïcode 🚂"}})

    assert run_in_shell(environment, OUTPUTS[output].format("stop_all --yes")) == 0

    assert novita.are_all("exited")
    # The next opened file gets the number of a closed output: nothing is written into the database.
    assert list_reasons(environment) == [""]


@pytest.mark.parametrize("output", ["closed", "full", "read by nobody"])
def test_failed_stop_keeps_its_exit_status_with_any_output(
    output: str, environment: dict[str, str], novita: Novita
) -> None:
    novita.fault("stop", "ignore", instanceId=min(novita.get_truth()))

    assert run_in_shell(environment, OUTPUTS[output].format("stop_all --yes --timeout 4")) == 1


# All commands write by one function, so each has some of the outputs.
@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("sync_instances", 0, "both closed"),
        ("sync_instances", 0, "read by nobody"),
        ("sync_instances --json", 0, "both full"),
        ("sync_instances --json", 0, "ascii"),
        ("create_token nobody --name x", 1, "both closed"),
        ("create_token nobody --name x", 1, "both full"),
    ],
)
def test_other_commands_keep_their_exit_status_with_any_output(
    command: str, status: int, output: str, environment: dict[str, str], novita: Novita
) -> None:
    novita.change(set={min(novita.get_truth()): {"name": "Ünïcode 🚂"}})

    assert run_in_shell(environment, OUTPUTS[output].format(command)) == status


@pytest.mark.parametrize("output", [">/dev/full 2>&1", ">&- 2>&-"])
def test_web_server_serves_and_stops_with_an_unwritable_log(
    output: str, environment: dict[str, str], tmp_path: Path, novita: Novita
) -> None:
    gunicorn = "-m gunicorn -c python:novita_site.gunicorn novita_site.wsgi"
    with ended(start_redirected(f"{gunicorn} {output}", environment, tmp_path)) as service:
        service.wait_until_alive()
        novita.fault("stop", "status", status=500, times=1)

        ordered = service.stop_all(reason="the log is full")

        assert ordered["total"] == 25
        wait_until(lambda: len(set(novita.list_stops())) == 25, "each is requested")


def test_worker_verifies_with_an_unwritable_log(
    environment: dict[str, str], tmp_path: Path, start_service: Start
) -> None:
    service = start_service(**NO_SYNC).wait_until_alive()
    with ended(start_redirected("-m celery -q -A novita_site worker >/dev/full 2>&1", environment, tmp_path)):
        assert service.wait_until_finished(service.stop_all())["success"]


def start_redirected(arguments: str, environment: dict[str, str], folder: Path) -> Service:
    """Start Python with these arguments, in shell syntax."""
    line = f"exec {sys.executable} {arguments}"
    (folder / "redirected.py").write_text(f"import os\nos.execvp('bash', ['bash', '-c', {line!r}])\n")
    return Service({**environment, **NO_SYNC, "PYTHONPATH": str(folder)}, folder, ["redirected"])


def test_up_starts_and_ends_with_an_unwritable_output(
    environment: dict[str, str], tmp_path: Path, novita: Novita
) -> None:
    with ended(start_redirected("manage.py up >/dev/full 2>&1", environment, tmp_path)) as service:
        service.wait_until_alive()
        assert service.stop_all()["count"] == 25
        service.popen.send_signal(signal.SIGTERM)
        assert service.wait() in {0, 128 + signal.SIGTERM, -signal.SIGTERM}


# --- Texts


def test_reason_in_another_encoding_prevents_no_stop(environment: dict[str, str], novita: Novita) -> None:
    command = [sys.executable, "manage.py", "stop_all", "--yes", "--json", "--reason"]
    done = subprocess.run([*command, ODD_TEXT], cwd=ROOT, env=environment, capture_output=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reason"] == "w�ekend"
    assert list_reasons(environment) == ["w�ekend"]
    assert novita.are_all("exited")


def test_shell_user_in_another_encoding_prevents_no_stop(environment: dict[str, str], novita: Novita) -> None:
    odd: dict[bytes, bytes] = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
    odd |= dict.fromkeys([b"LOGNAME", b"USER", b"HOSTNAME"], ODD_TEXT)
    command = [sys.executable, "manage.py", "stop_all", "--yes"]
    done = subprocess.run(command, cwd=ROOT, env=odd, capture_output=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert novita.are_all("exited")


@pytest.mark.parametrize("arguments", [[ODD_TEXT, "--name", b"x"], [b"eve", "--name", ODD_TEXT]])
def test_token_for_a_name_in_another_encoding_prints_no_traceback(
    arguments: list[Any], environment: dict[str, str]
) -> None:
    python.run(
        [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username", "eve", "--email", "e@example.com"],
        cwd=ROOT,
        env={**environment, "DJANGO_SUPERUSER_PASSWORD": "FAKE-SECRET-password"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    command = [sys.executable, "manage.py", "create_token", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60)

    assert b"Traceback" not in done.stderr
    assert done.returncode == (0 if arguments[0] == b"eve" else 1), done.stderr


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
