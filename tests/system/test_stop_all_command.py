"""`manage.py stop_all` without web server and worker: with Redis down, on a terminal, and when it is terminated."""

import contextlib
import json
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import python
from tests.system.conftest import StartWorker
from tests.system.processes import ROOT, Novita, Process, Redis, ended, wait_until

STOP_ALL = [sys.executable, "manage.py", "stop_all"]


@pytest.fixture(autouse=True)
def all_running(novita: Novita) -> None:
    """25 running instances."""
    novita.change(running=True)


def run_stop_all(environment: dict[str, str], *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return python.run(
        [*STOP_ALL, *options],
        cwd=ROOT,
        env={**environment, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def in_the_middle(environment: dict[str, str], novita: Novita, tmp_path: Path) -> Iterator[Process]:
    """A running command that has requested a few stops."""
    novita.fault("stop", "delay", seconds=0.5)
    slow = {**environment, "NOVITA_CONCURRENCY": "2"}
    with ended(Process([*STOP_ALL, "--yes"], slow, tmp_path / "stop-all.log")) as process:
        wait_until(lambda: len(novita.list_stops()) >= 4, "it is in the middle")
        yield process


# --- The outcome


def test_command_verifies_all_stops_without_web_and_worker(environment: dict[str, str], novita: Novita) -> None:
    done = run_stop_all(environment, "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "All 25 are stopped.", done.stderr
    assert novita.are_all("exited")
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())


def test_json_output_is_the_operation(environment: dict[str, str]) -> None:
    operation = json.loads(run_stop_all(environment, "--yes", "--json", "--reason", "over budget").stdout)

    assert operation["success"] is True
    assert operation["reason"] == "over budget"
    assert operation["counts"]["confirmed"] == 25


def test_dry_run_stops_nothing(environment: dict[str, str], novita: Novita) -> None:
    done = run_stop_all(environment, "--dry-run")

    assert done.returncode == 0, done.stderr
    assert "Would stop 25 running instances." in done.stdout, done.stderr
    assert novita.list_stops() == []


def test_yes_is_required_without_a_terminal(environment: dict[str, str], novita: Novita) -> None:
    done = run_stop_all(environment)

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert novita.list_calls() == []


def test_instance_that_keeps_running_is_named_and_is_a_failure(environment: dict[str, str], novita: Novita) -> None:
    stubborn = min(novita.get_truth())
    novita.fault("stop", "ignore", instanceId=stubborn)

    done = run_stop_all(environment, "--yes", "--timeout", "4")

    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if ": Still running at the deadline" in line]
    assert stubborn in line
    assert done.stdout.splitlines()[-1] == "1 of 25 is still running."


def test_failed_stops_are_requested_again_until_all_are_verified(environment: dict[str, str], novita: Novita) -> None:
    novita.fault("stop", "status", status=500, every=2, times=12)

    done = run_stop_all(environment, "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "All 25 are stopped.", done.stderr
    assert len(novita.list_stops()) == 25 + novita.count_fired("status")


def test_refused_key_is_reported_and_is_a_failure(environment: dict[str, str], novita: Novita) -> None:
    novita.fault("any", "status", status=403)

    done = run_stop_all(environment, "--yes")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Novita rejected the API key.")


# --- Redis and the database


def test_stop_needs_no_redis(environment: dict[str, str], redis_process: Redis, novita: Novita) -> None:
    redis_process.signal(signal.SIGKILL)

    done = run_stop_all(environment, "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "All 25 are stopped."
    assert novita.are_all("exited")


def test_stop_tries_a_silent_redis_less_often_than_it_has_instances(
    environment: dict[str, str], tmp_path: Path, novita: Novita
) -> None:
    with silent_redis(tmp_path / "silent.sock") as attempts:
        done = run_stop_all(environment, "--yes", REDIS_URL=f"unix://{tmp_path / 'silent.sock'}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "All 25 are stopped."
    assert novita.are_all("exited")
    # Each attempt waits 0.6 s for an answer.
    assert 0 < len(attempts) < 25


@contextlib.contextmanager
def silent_redis(path: Path) -> Iterator[list[socket.socket]]:
    """Accept connections and answer nothing, as a suspended Redis. Yield them."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(listener.accept()[0])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=accept)
        thread.start()
        yield accepted
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for one in accepted:
        one.close()


def test_database_without_tables_is_reported_and_the_stop_goes_on(
    environment: dict[str, str], tmp_path: Path, novita: Novita
) -> None:
    done = run_stop_all(environment, "--yes", DATABASE_URL=f"sqlite:///{tmp_path / 'empty.sqlite3'}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "All 25 are stopped.", done.stderr
    assert "manage.py migrate" in done.stderr
    assert "Traceback" not in done.stderr
    assert novita.are_all("exited")


@pytest.mark.usefixtures("hasty")
def test_stop_waits_for_a_locked_database(in_the_middle: Process, environment: dict[str, str], novita: Novita) -> None:
    with contextlib.closing(sqlite3.connect(environment["DATABASE_URL"].removeprefix("sqlite:///"))) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        time.sleep(3)  # longer than a write waits for the lock

    assert in_the_middle.wait(60) == 0, in_the_middle.log
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())


# --- Terminated


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_worker_continues_for_a_terminated_command(
    in_the_middle: Process, start_worker: StartWorker, novita: Novita, number: int
) -> None:
    in_the_middle.signal(number)

    assert in_the_middle.wait(5) == 128 + number
    assert "Traceback" not in in_the_middle.log
    asked = len(novita.list_stops())
    time.sleep(1)
    assert len(novita.list_stops()) == asked, "it went on asking"
    start_worker()
    wait_until(lambda: novita.are_all("exited"), "a worker goes on", 60)
    assert sorted(novita.list_stops()) == sorted(novita.get_truth()), "each was asked once"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_that_is_terminated_while_it_lists_requests_nothing(
    environment: dict[str, str], tmp_path: Path, novita: Novita, number: int
) -> None:
    novita.fault("list", "hang")
    with ended(Process([*STOP_ALL, "--yes"], environment, tmp_path / "stop-all.log")) as process:
        wait_until(novita.count_syncs, "it looks")

        process.signal(number)

        assert process.wait(5) == 128 + number
    assert "Traceback" not in process.log
    assert novita.list_stops() == []


@pytest.mark.usefixtures("impatient")
def test_next_command_continues_for_a_killed_one(
    in_the_middle: Process, environment: dict[str, str], novita: Novita
) -> None:
    in_the_middle.end()

    done = run_stop_all(environment, "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "All 25 are stopped.", done.stderr
    assert "Joined the operation" in done.stderr
    assert sorted(novita.list_stops()) == sorted(novita.get_truth()), "each was asked once"


def test_two_simultaneous_commands_make_one_operation(
    environment: dict[str, str], tmp_path: Path, novita: Novita
) -> None:
    novita.fault("stop", "delay", seconds=0.5)
    with contextlib.ExitStack() as stack:
        processes = [Process([*STOP_ALL, "--yes"], environment, tmp_path / f"{number}.log") for number in range(2)]
        for process in processes:
            stack.enter_context(ended(process))

        assert [process.wait(60) for process in processes] == [0, 0], [process.log for process in processes]
    assert sorted(novita.list_stops()) == sorted(novita.get_truth())


# --- On a terminal


class Terminal:
    """The command on its own terminal."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._popen = python.start(
            STOP_ALL,
            cwd=ROOT,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, words: str) -> None:
        """Read the output, up to these words or to the end."""
        with contextlib.suppress(OSError):  # The end of a terminal's output.
            while words not in self.text and (piece := os.read(self._ours, 4096)):
                self.text += piece.decode()
        assert words in self.text, self.text

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._popen.send_signal(signal.SIGINT)

    def wait(self) -> int:
        with contextlib.suppress(OSError):
            while piece := os.read(self._ours, 4096):
                self.text += piece.decode()
        return self._popen.wait(30)

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(environment: dict[str, str], all_running: Any) -> Iterator[Terminal]:
    terminal = Terminal(environment)
    yield terminal
    terminal.end()


def test_terminal_shows_what_would_be_stopped_and_a_wrong_number_stops_nothing(
    terminal: Terminal, novita: Novita
) -> None:
    terminal.read_until("Type 25 to stop them: ")
    assert "Would stop 25 running instances." in terminal.text
    assert all(id_ in terminal.text for id_ in novita.get_truth())
    assert "7 days" in terminal.text

    terminal.press("24\n")

    assert terminal.wait() == 1
    assert "Nothing was stopped." in terminal.text
    assert novita.list_stops() == []


def test_right_number_shows_the_progress_and_the_result(terminal: Terminal, novita: Novita) -> None:
    terminal.read_until("Type 25 to stop them: ")

    terminal.press("25\n")

    assert terminal.wait() == 0
    assert "verifying: " in terminal.text
    assert "All 25 are stopped." in terminal.text
    assert novita.are_all("exited")


@pytest.mark.parametrize("leave", [lambda terminal: terminal.press("\x04"), lambda terminal: terminal.interrupt()])
def test_interrupt_at_the_prompt_stops_nothing(
    terminal: Terminal, novita: Novita, leave: Callable[[Terminal], None]
) -> None:
    terminal.read_until("Type 25 to stop them: ")

    leave(terminal)

    assert terminal.wait() != 0
    assert "Traceback" not in terminal.text
    assert novita.list_stops() == []
