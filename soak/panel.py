"""The processes of a panel: two web servers, two workers, one Redis, on loopback. They are killed and started again."""

import contextlib
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import requests

from soak.schedule import Blow
from tests.system.processes import ROOT, Process, Redis, find_free_port, wait_until

SYNC_SECONDS: Final = 3
# After a kill a client may see a broken connection for so long, while the server is started again.
RESTART_SECONDS: Final = 30.0
CHILD_SECONDS: Final = 5.0

ADD_CHANNEL = """
import django, sys; django.setup()
from instances.models import Channel
from instances.notifications import sealing
Channel.objects.create(
    name="team", receiver="-", sealed_url=sealing.seal(sys.argv[1]),
    kinds=["operation.finished", "operation.failed", "policy.warning", "policy.stop"],
)
"""


class Part:
    """A web server or a worker, which can be started again with the same command."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._command, self._environment, self._log = command, environment, log
        self.disturbed_from, self.disturbed_until = 0.0, 0.0
        self.process = self._start()

    def _start(self) -> Process:
        return Process([sys.executable, "-m", *self._command], self._environment, self._log)

    def kill(self) -> None:
        """Kill -9 the whole group, and start it again at once, as a service manager does."""
        self._disturb(RESTART_SECONDS)
        self.process.end()
        self.process = self._start()

    def kill_child(self, choice: int) -> None:
        """Kill -9 one of the server's children, which the server replaces."""
        children = list_children(self.process.popen.pid)
        if children:
            self._disturb(CHILD_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.kill(children[choice % len(children)], signal.SIGKILL)

    def _disturb(self, seconds: float) -> None:
        now = time.monotonic()
        if now > self.disturbed_until:
            self.disturbed_from = now
        self.disturbed_until = max(self.disturbed_until, now + seconds)

    def is_disturbed(self, began: float, ended: float) -> bool:
        return began <= self.disturbed_until and ended >= self.disturbed_from


class Web(Part):
    def __init__(self, number: int, environment: dict[str, str], folder: Path) -> None:
        port = find_free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = ["gunicorn", "-c", "python:novita_site.gunicorn", "novita_site.wsgi"]
        super().__init__(f"web {number}", command, environment | {"PORT": str(port)}, folder / f"web-{number}.log")


class Panel:
    """All processes. `blows` counts what was killed."""

    def __init__(self, folder: Path, novita_url: str, receiver_port: int) -> None:
        self.database = folder / "db.sqlite3"
        self.redis = Redis(folder)
        self.blows: defaultdict[str, int] = defaultdict(int)
        self.redis_restarts: list[float] = []
        self.memory: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "soak.settings",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "DATABASE_URL": f"sqlite:///{self.database}",
            "VAR_DIR": str(folder / "var"),
            "REDIS_URL": self.redis.url,
            "NOVITA_API_KEY": "soak",
            "NOVITA_BASE_URL": novita_url,
            "NOVITA_SYNC_INTERVAL": str(SYNC_SECONDS),
            "WEB_WORKERS": "2",
            "API_RATE_LIMIT": "0",
            "WEBHOOK_SECRET": "whsec_" + "c29hayBzb2FrIHNvYWsgc29hayBzb2Fr",
            "WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
            "WEBHOOK_ALLOWED_PORTS": str(receiver_port),
        }
        python = [sys.executable]
        subprocess.run([*python, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
        url = f"http://127.0.0.1:{receiver_port}/notifications"
        subprocess.run([*python, "-c", ADD_CHANNEL, url], cwd=ROOT, env=environment, check=True)
        worker = ["celery", "-q", "-A", "novita_site", "worker"]
        self.webs = [Web(number, environment, folder) for number in (0, 1)]
        self.workers = [Part(f"worker {n}", worker, environment, folder / f"worker-{n}.log") for n in (0, 1)]
        self._is_over = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def wait_until_ready(self) -> None:
        for web in self.webs:
            wait_until(lambda web=web: requests.get(f"{web.url}/readyz", timeout=60).ok, f"{web.name} is ready", 60)
        health = f"{self.webs[0].url}/health"
        wait_until(lambda: requests.get(health, timeout=60).json()["services"]["worker"] == "up", "a worker works", 60)

    def strike(self, blow: Blow) -> None:
        self.blows[blow.target] += 1
        match blow.target:
            case "redis":
                self.redis.end()
                self.redis_restarts.append(time.monotonic())
                self.redis.start()
            case "web server":
                self.webs[blow.number].kill()
            case "web child":
                self.webs[blow.number].kill_child(self.blows[blow.target])
            case "worker":
                self.workers[blow.number].kill()

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection:
            return connection.execute(statement).fetchall()

    def _sample(self) -> None:
        """Note the memory of each process every two seconds."""
        while not self._is_over.wait(2):
            for name, pid in self._list_processes():
                with contextlib.suppress(OSError, StopIteration):
                    self.memory[name, pid].append((time.monotonic(), read_memory(pid)))

    def _list_processes(self) -> Iterator[tuple[str, int]]:
        for web in self.webs:
            pid = web.process.popen.pid
            yield f"{web.name}, master", pid
            for child in list_children(pid):
                yield f"{web.name}, child", child
        for worker in self.workers:
            yield worker.name, worker.process.popen.pid

    def end(self) -> None:
        self._is_over.set()
        for part in (*self.webs, *self.workers):
            part.process.end()
        self.redis.end()


def list_children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def read_memory(pid: int) -> float:
    """Return the MB of anonymous memory: what is shared with other processes doesn't grow."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024
