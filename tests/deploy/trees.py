"""Debian in a folder: what an image is built on, and a machine that boots. They are made once and kept in CACHE.

Everything is of the distribution: debootstrap makes the folders, systemd-nspawn boots them. Needed are root and the
package registries that this machine uses itself.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.browser import PASSWORD
from tests.system.processes import ROOT, Process, wait_until

CACHE = Path("/var/tmp/novita-panel-deploy")  # noqa: S108 - it outlives a test run, and only root writes there
BASE_PACKAGES = "ca-certificates,python3,python3-venv"
SERVER_PACKAGES = ["systemd", "systemd-sysv", "dbus", "python3-venv", "redis-server", "nginx-light", "curl"]
# This machine's own way to the registries.
OWN_FILES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"]
ADMIN = {
    "DJANGO_SUPERUSER_USERNAME": "ann",
    "DJANGO_SUPERUSER_EMAIL": "ann@example.com",
    "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
}
# A download over a slow line, or a build on a busy machine.
PATIENCE_SECONDS = 900


def need(*programs: str) -> None:
    """Skip the test, and say why, where it can't run."""
    if os.geteuid() != 0:
        pytest.skip("only root can do this")
    if missing := [program for program in programs if not shutil.which(program)]:
        pytest.skip(f"missing: {', '.join(missing)}. Install the distribution's packages")


def fill_in(path: Path, novita: str) -> None:
    """Fill in a copy of deploy/novita-panel.env."""
    values = {"NOVITA_API_KEY": "FAKE-SECRET-key", "SECRET_KEY": secrets.token_urlsafe(48), "POSTGRES_PASSWORD": "FAKE"}
    text = path.read_text()
    for name, value in values.items():
        text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    path.write_text(f"{text}NOVITA_BASE_URL={novita}\n")


def run(command: list[str], *, accept_failure: bool = False, **variables: str) -> str:
    """Run a program and return its output; fail with all that it printed."""
    ended = subprocess.run(
        command,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert accept_failure or ended.returncode == 0, f"{command}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def make_base() -> Path:
    """Return a folder with a Debian and its Python, as the official images of Python are."""
    need("debootstrap")
    with made_once("base") as folder:
        if not folder.exists():
            try:
                run(["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(folder)])
            except AssertionError as exc:
                pytest.skip(f"debootstrap can't install Debian here: {exc}")
            for file in filter(os.path.exists, OWN_FILES):
                shutil.copy(file, f"{folder}{file}")
    return folder


def make_server() -> Path:
    """Return a folder with a Debian that has the packages of docs/operations.md."""
    base = make_base()
    with made_once("server") as folder:
        if not folder.exists():
            copy(base, folder)
            command = (
                f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {' '.join(SERVER_PACKAGES)}"
            )
            run(["chroot", str(folder), "sh", "-c", command], DEBIAN_FRONTEND="noninteractive")
    return folder


@contextlib.contextmanager
def made_once(name: str) -> Iterator[Path]:
    """Yield a folder in CACHE, which exists if it was completed before."""
    folder, mark = CACHE / name, CACHE / f"{name}.complete"
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
    yield folder
    mark.touch()


def copy(source: Path, target: Path) -> None:
    run(["cp", "--archive", str(source), str(target)])


def copy_project(target: Path) -> None:
    """Copy what git knows, as a clone would."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)


def read_commands(heading: str) -> list[str]:
    """Return the blocks of commands in a section of docs/operations.md."""
    section = (ROOT / "docs/operations.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


class Machine:
    """A Debian in a folder. `install` runs commands before it boots, with this machine's network.

    Booted, it has a systemd of its own, and a network of its own that has only a loopback.
    """

    def __init__(self, folder: Path) -> None:
        need("systemd-nspawn", "nsenter")
        self.folder = folder
        # No registration: this machine may have no systemd itself.
        self._command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={folder}"]
        self._process: Process | None = None
        self.leader = 0

    def install(self, commands: str) -> None:
        run([*self._command, "--pipe", "sh", "-eu", "-c", commands])

    def boot(self) -> None:
        command = [*self._command, "--private-network", "--boot"]
        self._process = Process(command, os.environ, self.folder.parent / "boot.log")
        wait_until(self._is_up, "the machine boots", 120, 0.2)

    def _find_leader(self) -> int:
        assert self._process
        children = Path(f"/proc/{self._process.popen.pid}/task/{self._process.popen.pid}/children")
        pids = children.read_text().split() if children.exists() else []
        return int(pids[0]) if pids else 0

    def _is_up(self) -> bool:
        # systemd-nspawn's first child makes the second one, which is the leader, and ends.
        self.leader = self._find_leader()
        return self.leader != 0 and self.run("systemctl is-system-running", accept_failure=True).strip() in {
            "running",
            "degraded",
        }

    def run(self, commands: str, *, accept_failure: bool = False, **variables: str) -> str:
        """Run commands of a shell in the booted machine, as root."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        pairs = [f"{name}={value}" for name, value in variables.items()]
        enter = ["nsenter", "--all", f"--target={self.leader}", "env", "--ignore-environment", path, "HOME=/root"]
        return run([*enter, *pairs, "sh", "-eu", "-c", commands], accept_failure=accept_failure)

    def end(self) -> None:
        if self._process:
            self.run("systemctl poweroff", accept_failure=True)
            ends_at = time.monotonic() + 60
            while self._process.popen.poll() is None and time.monotonic() < ends_at:
                time.sleep(0.2)
            # Its systemd outlives a systemd-nspawn that is killed.
            if leader := self._find_leader():
                os.kill(leader, signal.SIGKILL)
            self._process.end()
