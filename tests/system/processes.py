"""The processes of the system tests: Redis, the web server, workers. Each test ends what it starts."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import redis
import requests

from instances.management.commands.up import find_redis_server
from tests import python

ROOT = Path(__file__).resolve().parent.parent.parent
# Enough for a slow, shared machine. Only failing tests wait this long.
PATIENCE_SECONDS = 30


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(
    condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS, pause_seconds: float = 0.05
) -> Any:
    """Return the condition's first true value. Fail with `what` at the deadline."""
    ends_at, first_pause = time.monotonic() + seconds, pause_seconds
    while time.monotonic() < ends_at:
        with contextlib.suppress(requests.ConnectionError, redis.ConnectionError):
            if value := condition():
                return value
        time.sleep(pause_seconds)
        # A request costs the service and the test 10 ms of CPU.
        pause_seconds = min(pause_seconds * 1.4, 6 * first_pause)
    raise AssertionError(f"not within {seconds} s: {what}")


class Process:
    """A process in a group of its own, with its output in a file. `end` kills the whole group."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path, cwd: Path = ROOT) -> None:
        self.log_path = log
        with log.open("ab") as output:
            self.popen = python.start(
                command, env=environment, cwd=cwd, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def log(self) -> str:
        # A device may have no end.
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.is_file() else ""

    def signal(self, number: int) -> None:
        """Send a signal to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        return self.popen.wait(seconds)

    def end(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.popen.wait()


class Redis(Process):
    """A Redis on a socket of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.path = folder / "redis.sock"
        self._options = options
        self.url = f"unix://{self.path}"
        self.client = redis.Redis.from_url(self.url)
        self._folder = folder
        self.start()

    def start(self) -> None:
        options = ["--port", "0", "--save", "", "--dir", str(self._folder), "--unixsocket", str(self.path)]
        super().__init__([find_redis_server(), *options, *self._options], os.environ, self._folder / "redis.log")
        wait_until(self.client.ping, "Redis answers")

    def find(self, suffix: str) -> list[bytes]:
        """Return our keys of this kind, for any account."""
        return sorted(self.client.keys(f"{{novita:*}}:{suffix}"))

    def end(self) -> None:
        super().end()
        self.client.close()


class Service(Process):
    """The web server, started by the README's command."""

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path,
        command: list[str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.session = requests.Session()
        self.session.trust_env = False
        command = command or ["gunicorn", "-c", "python:novita_site.gunicorn", "novita_site.wsgi"]
        log = log or folder / f"web-{self.port}.log"
        environment = {**environment, "PORT": str(self.port)}
        command = [part.replace("{port}", str(self.port)) for part in command]
        super().__init__([sys.executable, "-m", *command], environment, log)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, **{"timeout": PATIENCE_SECONDS, **options})

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, **{"timeout": PATIENCE_SECONDS, **options})

    def wait_until_alive(self) -> "Service":
        wait_until(lambda: self.get("/livez").ok, f"the service answers\n{self.log}")
        return self

    def wait_until_ready(self) -> "Service":
        wait_until(lambda: self.get("/readyz").ok, f"the service has a copy\n{self.log}")
        return self

    def list_ids(self) -> set[str]:
        return {instance["id"] for instance in self.get("/api/instances").json()["instances"]}

    def count_log(self, words: str) -> int:
        return self.log.count(words)

    def stop_all(self, **wish: Any) -> dict[str, Any]:
        answer = self.post("/api/instances/stop-all", json=wish)
        assert answer.status_code in {200, 202}, answer.text
        ordered: dict[str, Any] = answer.json()
        return ordered

    def get_operation(self, ordered: Mapping[str, Any]) -> dict[str, Any]:
        """Return the operation that the answer to a request names."""
        operation: dict[str, Any] = self.get(ordered["operationUrl"]).json()
        return operation

    def wait_until_finished(self, ordered: Mapping[str, Any], seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        wait_until(lambda: self.get_operation(ordered)["finishedAt"], f"there is a verdict\n{self.log}", seconds)
        return self.get_operation(ordered)

    def get_worker(self) -> str:
        """Return the state of the workers in /health: up, down, unknown."""
        worker: str = self.get("/health").json()["services"]["worker"]
        return worker

    def end(self) -> None:
        super().end()
        self.session.close()


class Worker(Process):
    """The worker, started by the README's command."""

    def __init__(self, environment: Mapping[str, str], folder: Path, log: Path | None = None) -> None:
        command = [sys.executable, "-m", "celery", "-q", "-A", "novita_site", "worker"]
        number = len(list(folder.glob("worker-*.log")))
        super().__init__(command, environment, log or folder / f"worker-{number}.log")


class Novita:
    """The simulator's controls: faults, calls, and the true state of the account."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def fault(self, on: str, kind: str, **fields: Any) -> None:
        answer = self._session.post(f"{self.url}/__faults", json={"on": on, "kind": kind, **fields}, timeout=5)
        assert answer.ok, answer.text

    def clear_faults(self) -> None:
        self._session.delete(f"{self.url}/__faults", timeout=5)

    def change(self, **wanted: Any) -> None:
        """Change the account: `set={id: {field: value}}`, `add=[rows]`, `remove=[ids]`."""
        answer = self._session.post(f"{self.url}/__instances", json=wanted, timeout=30)
        assert answer.ok, answer.text

    def get_truth(self) -> dict[str, dict[str, Any]]:
        rows = self._session.get(f"{self.url}/__instances", timeout=30).json()["instances"]
        return {row["id"]: row for row in rows}

    def list_calls(self) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = self._session.get(f"{self.url}/__calls", timeout=30).json()["calls"]
        return calls

    def count_calls(self, kind: str) -> int:
        return sum(call["call"] == kind for call in self.list_calls())

    def list_stops(self) -> list[str]:
        """Return the instance id of each stop request."""
        return [call["instanceId"] for call in self.list_calls() if call["call"] == "stop"]

    def count_fired(self, kind: str) -> int:
        """Return the number of calls that had this kind of fault."""
        told = self._session.get(f"{self.url}/__faults", timeout=5).json()
        return sum(fault["fired"] for fault in [*told["faults"], *told["spent"]] if fault["kind"] == kind)

    def count_most_at_once(self) -> int:
        """Return the highest number of simultaneous calls."""
        most: int = self._session.get(f"{self.url}/__calls", timeout=30).json()["maxConcurrent"]
        return most

    def are_all(self, status: str) -> bool:
        return all(row["status"] == status for row in self.get_truth().values())

    def count_syncs(self) -> int:
        """Return the number of listings."""
        return sum(call["call"] == "list" and call["page"] == 0 for call in self.list_calls())

    def end(self) -> None:
        self._session.close()


@contextlib.contextmanager
def ended(process: Any) -> Iterator[Any]:
    """End the process with the block."""
    try:
        yield process
    finally:
        process.end()
