"""`make run`: one command starts everything, and leaves nothing running."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from novita_site import __version__
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
    """`manage.py up` in a copy of the project, as on a bare machine."""

    def __init__(self, folder: Path, command: Sequence[str] = UP, **variables: str) -> None:
        self.port = variables.get("PORT") or str(find_free_port())
        environment = build_environment(**{"PORT": self.port, "WEB_WORKERS": "1", **variables})
        super().__init__([*command], environment, folder / "up.log", cwd=folder)

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

    def list_pids(self) -> list[int]:
        return list_pids(self.log_path.parent)


def list_pids(folder: Path) -> list[int]:
    """Return the processes that run in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # Redis works in a folder below.
            if (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
    return found


def run_command(up: Up, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in another shell, in the same folder."""
    command, environment = [sys.executable, "manage.py", *arguments], build_environment(**variables)
    return subprocess.run(command, cwd=up.log_path.parent, env=environment, capture_output=True, text=True, timeout=60)


def copy_project(folder: Path) -> Path:
    """Copy the project, with no `var` and no `.env`."""
    folder.mkdir()
    for name in ("manage.py", "novita_site", "instances", "templates"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")


def add_database(folder: Path, migrated_database: Path) -> Path:
    """Give a project its tables, since creating them takes a second."""
    (folder / "var").mkdir(mode=0o700)
    shutil.copy(migrated_database, folder / "var" / "db.sqlite3")
    return folder


@pytest.fixture
def migrated_project(project: Path, migrated_database: Path) -> Path:
    return add_database(project, migrated_database)


@contextlib.contextmanager
def started(folder: Path, command: Sequence[str] = UP, **variables: str) -> Iterator[Up]:
    process = Up(folder, command, **variables)
    try:
        yield process
    finally:
        process.signal(signal.SIGTERM)
        process.wait()
        for pid in list_pids(folder):  # only after a failed test
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def up(migrated_project: Path) -> Iterator[Up]:
    with started(migrated_project) as process:
        yield process


@pytest.fixture(scope="module")
def bare_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """What `make run` starts on a bare machine, with the default number of web workers, for several tests.

    Its folder's path is too long for the path of a Unix socket.
    """
    parent = tmp_path_factory.mktemp("bare") / ("d" * 60) / ("e" * 60)
    parent.mkdir(parents=True)
    folder = copy_project(parent / "project")
    shutil.copy(ROOT / "Makefile", folder / "Makefile")
    (folder / ".venv").symlink_to(sys.prefix)
    with started(folder, MAKE_RUN, WEB_WORKERS="") as process:
        wait_until(lambda: process.get("/readyz").ok, f"it serves\n{process.log}")
        yield process
        process.popen.terminate()
        process.wait()
        wait_until(lambda: process.list_pids() == [], "nothing that make started runs")


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


def test_ctrl_c_ends_every_started_process(up: Up) -> None:
    wait_until(lambda: up.get("/livez").ok, "it serves")
    wait_until(lambda: up.get_worker() == "up", "its worker works")
    assert len(up.list_pids()) >= 5

    os.kill(up.popen.pid, signal.SIGINT)

    assert up.wait() == 128 + signal.SIGINT
    assert wait_until(lambda: up.list_pids() == [], "nothing of it runs")


def test_worker_verifies_a_stop(bare_up: Up) -> None:
    wait_until(lambda: bare_up.get_worker() == "up", "its worker works")
    running = [one["id"] for one in bare_up.get("/api/instances?status=running").json()["instances"]]

    operation = bare_up.stop(*running[:2])

    assert operation["success"] is True
    assert operation["result"] == "All 2 are stopped."
    assert not list(bare_up.log_path.parent.glob("celerybeat*"))


def test_command_in_another_shell_uses_the_running_redis_and_simulator(bare_up: Up) -> None:
    before = bare_up.get("/health").json()["sync"]["lastSync"]

    done = run_command(bare_up, "sync_instances")

    assert done.returncode == 0, done.stderr
    assert "25 instances" in done.stdout
    assert bare_up.get("/health").json()["sync"]["lastSync"] > before


@pytest.fixture(scope="module")
def killed_up(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[Up]:
    """A panel whose process group was killed, as a closed terminal does. The programs are in sessions of their own."""
    folder = add_database(copy_project(tmp_path_factory.mktemp("killed") / "project"), migrated_database)
    with started(folder) as process:
        wait_until(lambda: process.get("/readyz").ok, f"it serves\n{process.log}")
        process.signal(signal.SIGKILL)
        process.popen.wait()
        yield process


def test_killing_the_process_group_ends_every_started_process(killed_up: Up) -> None:
    assert wait_until(lambda: killed_up.list_pids() == [], "nothing of it runs")


def test_file_left_by_a_killed_panel_is_ignored(killed_up: Up) -> None:
    assert (killed_up.log_path.parent / "var" / "running.env").read_text()

    done = run_command(killed_up, "sync_instances", NOVITA_SYNC_DEADLINE="1")

    assert done.returncode == 1
    assert "Redis" in done.stderr


def test_killing_the_panel_ends_its_processes_and_frees_the_port(up: Up) -> None:
    wait_until(lambda: up.get("/readyz").ok, "it serves")
    wait_until(lambda: up.get_worker() == "up", "its worker works")
    assert len(up.list_pids()) >= 8

    os.kill(up.popen.pid, signal.SIGKILL)
    up.popen.wait()
    # Its first synchronization may come before the simulator listens; the next one follows soon.
    again = Up(up.log_path.parent, PORT=up.port, NOVITA_SYNC_INTERVAL="1")

    try:
        wait_until(lambda: again.log.count("Serving http://") == 2, f"it serves again\n{again.log}")
        # A synchronization that was killed holds its lease for up to 30 s.
        wait_until(lambda: again.get("/readyz").ok, "it has a copy again", seconds=75)
        assert "PORT:" not in again.log
    finally:
        again.signal(signal.SIGTERM)
        again.wait()
    assert wait_until(lambda: up.list_pids() == [], "nothing of either runs")


def test_two_panels_in_one_folder_share_the_redis_and_sync_once(bare_up: Up) -> None:
    second = Up(bare_up.log_path.parent)
    try:
        wait_until(lambda: second.get("/readyz").ok, "the second serves")
        assert second.get("/api/instances").headers["ETag"] == bare_up.get("/api/instances").headers["ETag"]
    finally:
        second.popen.terminate()
        second.wait()
    assert bare_up.get("/readyz").ok


def test_panel_started_while_another_is_ending_uses_nothing_of_it(up: Up) -> None:
    wait_until(lambda: up.get("/readyz").ok, "it serves")
    told = up.log_path.parent / "var" / "running.env"
    (simulator,) = (one for one in up.list_pids() if b"simulator" in Path(f"/proc/{one}/cmdline").read_bytes())
    # It ends late, so `up` does.
    os.kill(simulator, signal.SIGSTOP)
    os.kill(up.popen.pid, signal.SIGTERM)
    wait_until(lambda: not told.read_text(), "it is ending")

    with started(up.log_path.parent) as again:
        wait_until(lambda: again.get("/readyz").ok, f"the second serves\n{again.log}")
        with contextlib.suppress(ProcessLookupError):  # `up` kills it after 10 s.
            os.kill(simulator, signal.SIGCONT)
        up.wait()
        assert wait_until(lambda: f"redis-{again.popen.pid}.sock" in told.read_text(), "other shells find the second")


def test_terminated_panel_ends_with_all_that_uses_its_redis(up: Up) -> None:
    wait_until(lambda: up.get("/livez").ok, "it serves")
    second = Up(up.log_path.parent)
    wait_until(lambda: second.get("/livez").ok, "the second serves")

    os.kill(up.popen.pid, signal.SIGTERM)

    assert second.wait() == 1
    assert "The other `manage.py up` in this folder has ended" in second.log
    up.wait()
    assert wait_until(lambda: up.list_pids() == [], "nothing of either runs")


def test_signal_during_the_start_leaves_nothing_running(up: Up) -> None:
    wait_until(lambda: "simulated" in up.log, "it begins to start")

    os.kill(up.popen.pid, signal.SIGTERM)

    up.wait()
    assert wait_until(lambda: up.list_pids() == [], "nothing of it runs")


def test_port_in_use_is_reported_in_one_line(project: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        up = Up(project, PORT=str(port))

        assert up.wait() == 1
    assert up.log.strip().count("\n") == 0
    assert f"PORT: can't listen on 127.0.0.1:{port}" in up.log
    assert up.list_pids() == []


def test_invalid_settings_are_refused_by_name(project: Path) -> None:
    up = Up(project, PORT="http", NOVITA_SYNC_INTERVAL="soon", NOVITA_API_KEY="FAKE-SECRET key")

    assert up.wait() == 1
    lines = up.log.strip().splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["NOVITA_API_KEY", "NOVITA_SYNC_INTERVAL", "PORT"]
    assert "FAKE-SECRET" not in up.log


def test_unreachable_redis_is_a_warning(migrated_project: Path) -> None:
    up = Up(migrated_project, REDIS_URL="redis://127.0.0.1:1/0")
    try:
        wait_until(lambda: up.get("/livez").ok, "it serves")
        assert "Warning: REDIS_URL: Redis can't be reached." in up.log
        assert up.get("/health").status_code == 503
    finally:
        up.signal(signal.SIGTERM)
        up.wait()
