"""`make run`: one command starts everything, and leaves nothing running."""

import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from novita_site import __version__
from tests import python
from tests.system.processes import ROOT, Process, find_free_port, wait_until

HIDDEN = (
    "DJANGO_SETTINGS_MODULE",
    "NOVITA_API_KEY",
    "REDIS_URL",
    "DATABASE_URL",
    "SECRET_KEY",
    "HOST",
    "ALLOWED_HOSTS",
    # `make test VENV=…` hands its own variables on to each other make.
    "MAKEFLAGS",
    "MAKEOVERRIDES",
)


def build_environment(**variables: str) -> dict[str, str]:
    """Return an environment with only these variables for the service."""
    return {name: value for name, value in os.environ.items() if name not in HIDDEN} | variables


UP = (sys.executable, "manage.py", "up")
# The packages are installed: the tests run with them.
MAKE_RUN = ("make", "-o", ".venv/installed", "run")


class Up(Process):
    """`manage.py up` in a copy of the project, as on a bare machine. All of it works in folders below `top`."""

    def __init__(self, folder: Path, command: Sequence[str] = UP, top: Path | None = None, **variables: str) -> None:
        self.port = variables.get("PORT") or str(find_free_port())
        self.folder = folder
        self.top = top or folder
        self.told = folder / "var" / "running.env"
        variables = {"PORT": self.port, "WEB_WORKERS": "1", "TMPDIR": str(self.top), **variables}
        log = folder / f"up-{len(list(folder.glob('up-*.log')))}.log"
        super().__init__([*command], build_environment(**variables), log, cwd=folder)

    def get(self, path: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://localhost:{self.port}{path}", timeout=10)

    def stop(self, *ids: str) -> dict[str, Any]:
        """Stop these instances; return the operation."""
        with requests.Session() as session:
            session.trust_env = False
            address = f"http://localhost:{self.port}"
            ordered = session.post(f"{address}/api/instances/stop-all", json={"ids": ids}, timeout=30).json()
        wait_until(lambda: self.get(ordered["operationUrl"]).json()["finishedAt"], "there is a verdict", 60)
        operation: dict[str, Any] = self.get(ordered["operationUrl"]).json()
        return operation

    def get_worker(self) -> str:
        worker: str = self.get("/health").json()["services"]["worker"]
        return worker

    def wait_until_alive(self) -> None:
        wait_until(lambda: self.get("/livez").ok, f"it serves\n{self.log}")

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.get("/readyz").ok, f"it has a copy\n{self.log}")

    def list_pids(self) -> set[int]:
        """Return the processes of this panel, and of others in its folder."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # Redis works in a folder of its own.
                if (entry / "cwd").readlink().is_relative_to(self.top):
                    found.add(int(entry.name))
        return found


def copy_project(folder: Path) -> Path:
    """Copy the project, with no `var` and no `.env`."""
    folder.mkdir(parents=True)
    for name in ("manage.py", "novita_site", "instances", "templates"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A copy of the project with its tables, since creating them takes a second."""
    folder = copy_project(tmp_path_factory.mktemp("migrated") / "project")
    (folder / "var").mkdir(mode=0o700)
    shutil.copy(migrated_database, folder / "var" / "db.sqlite3")
    return folder


@contextlib.contextmanager
def started(up: Up) -> Iterator[Up]:
    try:
        yield up
    finally:
        up.signal(signal.SIGTERM)
        up.wait()


@contextlib.contextmanager
def nothing_left(up: Up) -> Iterator[None]:
    """Kill what of a failed test would go on after it."""
    try:
        yield
    finally:
        for pid in up.list_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def bare_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """What `make run` starts on a bare machine, with the default number of web workers, for several tests.

    Its folder's path is too long for the path of a Unix socket.
    """
    top = tmp_path_factory.mktemp("bare")
    folder = copy_project(top / ("d" * 60) / ("e" * 60) / "project")
    shutil.copy(ROOT / "Makefile", folder / "Makefile")
    (folder / ".venv").symlink_to(sys.prefix)
    up = Up(folder, MAKE_RUN, top, WEB_WORKERS="")
    with nothing_left(up), started(up):
        up.wait_until_ready()
        yield up


@pytest.fixture(scope="module")
def second_up(bare_up: Up) -> Iterator[Up]:
    """Another panel in the same folder."""
    with started(Up(bare_up.folder, top=bare_up.top)) as second:
        second.wait_until_ready()
        yield second


def test_start_prints_few_lines(bare_up: Up) -> None:
    wait_until(lambda: bare_up.get_worker() == "up" and "sync done" in bare_up.log, "everything runs")

    # On a new machine make itself prints two more: the commands that install the packages.
    assert len(bare_up.log.splitlines()) + 2 < 15, bare_up.log


def test_bare_machine_gets_a_simulated_account_and_a_redis(bare_up: Up) -> None:
    listing = bare_up.get("/api/instances").json()
    assert listing["total"] == 25
    assert len({one["region"] for one in listing["instances"]}) > 1
    moving = [one["name"] for one in listing["instances"] if one["group"] in {"starting", "stopping"}]
    assert len(moving) in {2, 3}
    assert f"Novita panel {__version__}. Serving http://localhost:{bare_up.port}/" in bare_up.log
    assert bare_up.log.count("No login: everybody on this machine is the owner.") == 1
    assert bare_up.log.count("set REQUIRE_LOGIN=1") == 1
    assert "simulated" in bare_up.log
    assert bare_up.get("/admin/").status_code == 200


def test_worker_verifies_a_stop(bare_up: Up) -> None:
    wait_until(lambda: bare_up.get_worker() == "up", "its worker works")
    running = [one["id"] for one in bare_up.get("/api/instances?status=running").json()["instances"]]

    operation = bare_up.stop(*running[:2])

    assert operation["success"] is True
    assert operation["result"] == "All 2 are stopped."
    assert not list(bare_up.folder.glob("celerybeat*"))


def test_command_in_another_shell_uses_the_running_redis_and_simulator(bare_up: Up) -> None:
    before = bare_up.get("/health").json()["sync"]["lastSync"]

    command, environment = [sys.executable, "manage.py", "sync_instances"], build_environment()
    done = python.run(command, cwd=bare_up.folder, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "25 instances" in done.stdout
    assert bare_up.get("/health").json()["sync"]["lastSync"] > before


def test_ctrl_c_ends_every_started_process_and_no_other(bare_up: Up) -> None:
    """With a Redis that can't be reached, which is a warning."""
    before = bare_up.list_pids()
    with started(Up(bare_up.folder, top=bare_up.top, REDIS_URL="redis://127.0.0.1:1/0")) as up:
        up.wait_until_alive()
        assert "Warning: REDIS_URL: Redis can't be reached." in up.log
        assert up.get("/health").status_code == 503
        assert len(up.list_pids() - before) >= 5

        os.kill(up.popen.pid, signal.SIGINT)

        assert up.wait() == 128 + signal.SIGINT
    wait_until(lambda: up.list_pids() == before, "nothing of it runs, and all of the first does")
    assert bare_up.get("/readyz").ok


def test_two_panels_in_one_folder_share_the_redis_and_sync_once(bare_up: Up, second_up: Up) -> None:
    assert second_up.get("/api/instances").headers["ETag"] == bare_up.get("/api/instances").headers["ETag"]


# --- The ends of panels in one folder, one after another: each of these tests needs the one before it


class Past(NamedTuple):
    """What was there before an end: all processes, and the file for commands in other shells."""

    pids: set[int]
    told: str


def remember(up: Up) -> Past:
    wait_until(up.told.read_text, "other shells find it")
    return Past(up.list_pids(), up.told.read_text())


@pytest.fixture(scope="module")
def past_of_first(bare_up: Up, second_up: Up) -> Past:
    return remember(bare_up)


@pytest.fixture(scope="module")
def third_up(bare_up: Up, past_of_first: Past) -> Iterator[Up]:
    """A panel that was started while the first was ending, and with it the second."""
    (simulator,) = (one for one in past_of_first.pids if b"simulator" in Path(f"/proc/{one}/cmdline").read_bytes())
    # It ends late, so `up` does.
    os.kill(simulator, signal.SIGSTOP)
    bare_up.popen.terminate()
    wait_until(lambda: not bare_up.told.read_text(), "the first is ending")
    with started(Up(bare_up.folder, top=bare_up.top)) as third:
        third.wait_until_ready()
        with contextlib.suppress(ProcessLookupError):  # `up` kills it after 10 s.
            os.kill(simulator, signal.SIGCONT)
        bare_up.wait()
        yield third


def test_terminated_panel_ends_with_all_that_uses_its_redis(second_up: Up, third_up: Up, past_of_first: Past) -> None:
    assert second_up.wait() == 1
    assert "The other `manage.py up` in this folder has ended" in second_up.log
    assert wait_until(lambda: not third_up.list_pids() & past_of_first.pids, "nothing of either runs")


def test_panel_started_while_another_is_ending_uses_nothing_of_it(third_up: Up, past_of_first: Past) -> None:
    assert wait_until(third_up.told.read_text, "other shells find the second")
    assert not read_addresses(third_up.told.read_text()) & read_addresses(past_of_first.told)
    assert third_up.get("/readyz").ok


def read_addresses(told: str) -> set[str]:
    addresses = {line for line in told.splitlines() if "_URL=" in line}
    assert len(addresses) == 2
    return addresses


@pytest.fixture(scope="module")
def past_of_third(third_up: Up) -> Past:
    wait_until(lambda: third_up.get_worker() == "up", "its worker works")
    return remember(third_up)


@pytest.fixture(scope="module")
def fourth_up(third_up: Up, past_of_third: Past) -> Iterator[Up]:
    """A panel on the port of the third, which was killed."""
    os.kill(third_up.popen.pid, signal.SIGKILL)
    third_up.popen.wait()
    # Its first synchronization may come before the simulator listens; the next one follows soon.
    variables = {"PORT": third_up.port, "NOVITA_SYNC_INTERVAL": "1"}
    with started(Up(third_up.folder, top=third_up.top, **variables)) as fourth:
        yield fourth


def test_killing_the_panel_ends_its_processes_and_frees_the_port(fourth_up: Up, past_of_third: Past) -> None:
    wait_until(lambda: "Serving http://" in fourth_up.log, f"it serves again\n{fourth_up.log}")
    fourth_up.wait_until_ready()
    assert "PORT:" not in fourth_up.log
    assert len(past_of_third.pids) >= 8
    assert wait_until(lambda: not fourth_up.list_pids() & past_of_third.pids, "nothing of the killed one runs")


def test_file_left_by_a_killed_panel_is_ignored(fourth_up: Up, past_of_third: Past) -> None:
    fourth_up.wait_until_ready()
    assert not read_addresses(fourth_up.told.read_text()) & read_addresses(past_of_third.told)


def test_killing_the_process_group_ends_every_started_process(fourth_up: Up) -> None:
    """As a closed terminal does. The programs are in sessions of their own."""
    wait_until(lambda: fourth_up.get_worker() == "up", "its worker works")
    assert len(fourth_up.list_pids()) >= 8

    fourth_up.signal(signal.SIGKILL)
    fourth_up.popen.wait()

    assert wait_until(lambda: not fourth_up.list_pids(), "nothing of it runs")


# --- Starts that fail


def test_signal_during_the_start_leaves_nothing_running(project: Path) -> None:
    up = Up(project)
    with nothing_left(up):
        wait_until(lambda: "simulated" in up.log, "it begins to start")

        up.popen.terminate()

        up.wait()
        wait_until(lambda: not up.list_pids(), "nothing of it runs")


def test_port_in_use_is_reported_in_one_line(project: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        up = Up(project, PORT=str(port))

        assert up.wait() == 1
    assert up.log.strip().count("\n") == 0
    assert f"PORT: can't listen on 127.0.0.1:{port}" in up.log
    assert not up.list_pids()


def test_invalid_settings_are_refused_by_name(project: Path) -> None:
    up = Up(project, PORT="http", NOVITA_SYNC_INTERVAL="soon", NOVITA_API_KEY="FAKE-SECRET key")

    assert up.wait() == 1
    lines = up.log.strip().splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["NOVITA_API_KEY", "NOVITA_SYNC_INTERVAL", "PORT"]
    assert "FAKE-SECRET" not in up.log
