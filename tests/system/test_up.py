"""`make run`: everything with one command, and nothing left when it ends."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.system.processes import ROOT, Process, find_free_port, wait_until


HIDDEN = ("NOVITA_API_KEY", "REDIS_URL", "DATABASE_URL", "SECRET_KEY", "HOST", "ALLOWED_HOSTS")


def build_environment(**variables: str) -> dict[str, str]:
    """Return an environment that has nothing for the service but these variables."""
    others = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return {**others, **dict.fromkeys(HIDDEN, ""), **variables}


class Up(Process):
    """`manage.py up` in a copy of the project, as on a machine that has nothing else."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.port = variables.get("PORT") or str(find_free_port())
        environment = build_environment(PORT=self.port, **variables)
        super().__init__([sys.executable, "manage.py", "up"], environment, folder / "up.log", cwd=folder)

    def get(self, path: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://localhost:{self.port}{path}", timeout=10)

    def list_processes(self) -> list[str]:
        return list_processes(self.log_path.parent)


def list_processes(folder: Path) -> list[str]:
    """Return the command lines of all that runs in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = (entry / "cwd").resolve() == folder
            found += [(entry / "cmdline").read_text().replace("\0", " ")] if is_ours else []
        except OSError:
            continue
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, with no `var` and no `.env`."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("manage.py", "novita_site", "instances", "templates"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def up(project: Path) -> Iterator[Up]:
    process = Up(project)
    yield process
    process.signal(signal.SIGTERM)
    process.wait()


def test_a_bare_machine_gets_a_simulated_account_and_a_redis(up: Up) -> None:
    wait_until(lambda: up.get("/readyz").ok, "it serves")

    listing = up.get("/api/instances").json()
    assert listing["total"] == 25
    assert len({one["region"] for one in listing["instances"]}) > 1
    moving = [one["name"] for one in listing["instances"] if one["group"] in {"starting", "stopping"}]
    assert len(moving) in {2, 3}
    assert f"http://localhost:{up.port}/" in up.log
    assert "simulated" in up.log
    assert up.get("/admin/").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process_it_started(up: Up, number: int) -> None:
    wait_until(lambda: up.get("/livez").ok, "it serves")
    assert len(up.list_processes()) >= 4

    os.kill(up.popen.pid, number)

    up.wait()
    assert wait_until(lambda: up.list_processes() == [], "nothing of it runs")


def test_a_signal_during_the_start_leaves_nothing_running(up: Up) -> None:
    wait_until(lambda: "simulated" in up.log, "it begins to start")

    os.kill(up.popen.pid, signal.SIGTERM)

    up.wait()
    assert wait_until(lambda: up.list_processes() == [], "nothing of it runs")


def test_a_port_in_use_is_one_clear_line(project: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        up = Up(project, PORT=str(port))

        assert up.wait() == 1
    assert up.log.strip().count("\n") == 0
    assert f"PORT: can't listen on 127.0.0.1:{port}" in up.log
    assert up.list_processes() == []


def test_bad_settings_are_refused_by_their_names(project: Path) -> None:
    up = Up(project, PORT="http", NOVITA_SYNC_INTERVAL="soon", NOVITA_API_KEY="FAKE-SECRET key")

    assert up.wait() == 1
    lines = up.log.strip().splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["NOVITA_API_KEY", "NOVITA_SYNC_INTERVAL", "PORT"]
    assert "FAKE-SECRET" not in up.log


def test_a_redis_that_does_not_answer_is_a_warning(project: Path) -> None:
    up = Up(project, REDIS_URL="redis://127.0.0.1:1/0")
    try:
        wait_until(lambda: up.get("/livez").ok, "it serves")
        assert "Warning: REDIS_URL: Redis can't be reached." in up.log
        assert up.get("/health").status_code == 503
    finally:
        up.signal(signal.SIGTERM)
        up.wait()


def test_a_long_path_is_no_obstacle(tmp_path: Path, project: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.parent.mkdir()
    project.rename(deep)
    up = Up(deep)
    try:
        wait_until(lambda: up.get("/readyz").ok, "it serves")
    finally:
        up.signal(signal.SIGTERM)
        up.wait()


def test_make_run_starts_it(project: Path) -> None:
    shutil.copy(ROOT / "Makefile", project / "Makefile")
    (project / ".venv").symlink_to(sys.prefix)
    environment = build_environment(PORT=str(find_free_port()))
    # The packages are installed: the tests run with them.
    process = Process(["make", "-o", ".venv/installed", "run"], environment, project / "up.log", cwd=project)
    try:
        wait_until(lambda: "sync done" in process.log, "it syncs")
    finally:
        process.popen.terminate()
        process.wait()

    assert wait_until(lambda: list_processes(project) == [], "nothing of it runs")
