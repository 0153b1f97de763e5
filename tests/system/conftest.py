"""Fixtures of the system tests: a real Redis, the simulator over real HTTP, a database file, and services."""

import contextlib
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from instances import simulator
from instances.management.commands.up import find_redis_server
from tests import python, warm
from tests.system.processes import ROOT, Novita, Process, Redis, Service, Worker, ended, find_free_port


@pytest.fixture(scope="session", autouse=True)
def redis_server_program() -> None:
    """Skip without a redis-server. In CI, where all tests must run, fail."""
    try:
        find_redis_server()
    except CommandError as exc:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if warm.migrated:
        return warm.migrated
    path = tmp_path_factory.mktemp("database") / "db.sqlite3"
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{path}", "DJANGO_SETTINGS_MODULE": "novita_site.settings"}
    python.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
    return path


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[Redis]:
    with ended(Redis(tmp_path)) as process:
        yield process


novita_port = functools.cache(find_free_port)


@contextlib.contextmanager
def simulate_novita() -> Iterator[Novita]:
    """Run the simulator with 25 instances whose statuses move fast."""
    account = simulator.Account(instances=25, step_seconds=0.3)
    try:
        # Services of an account whose address a service had before start in a third of the time (`tests.prepared`).
        server = simulator.start(account, novita_port())
    except OSError:
        server = simulator.start(account)
    with server, ended(Novita(server.url)) as novita:
        yield novita


@pytest.fixture
def novita() -> Iterator[Novita]:
    with simulate_novita() as novita:
        yield novita


def make_environment(folder: Path, redis_process: Redis, novita: Novita, migrated_database: Path) -> dict[str, str]:
    """Make a service's environment, with a database in the folder."""
    database = folder / "db.sqlite3"
    shutil.copy(migrated_database, database)
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.system.quick_settings",
        "PYTHONUNBUFFERED": "1",
        "SECRET_KEY": "FAKE-SECRET-django",
        "DATABASE_URL": f"sqlite:///{database}",
        "REDIS_URL": redis_process.url,
        "NOVITA_API_KEY": "FAKE-SECRET-key",
        "NOVITA_BASE_URL": novita.url,
        # A test whose promise is about several web processes starts more.
        "WEB_WORKERS": "1",
        "FALLBACK_DIR": str(folder / "fallback"),
    }


@pytest.fixture
def environment(tmp_path: Path, redis_process: Redis, novita: Novita, migrated_database: Path) -> dict[str, str]:
    """The environment of a service. A test may change it before it starts one."""
    return make_environment(tmp_path, redis_process, novita, migrated_database)


@pytest.fixture
def impatient(environment: dict[str, str]) -> None:
    """A process that dies or sleeps loses its claims after 5 s, and an ignored stop is requested again after 5 s."""
    environment["DJANGO_SETTINGS_MODULE"] = "tests.system.impatient_settings"


@pytest.fixture
def hasty(environment: dict[str, str]) -> None:
    """Nobody waits for more than 1.5 s for the database, nor for 5 s for a dead process."""
    environment["DJANGO_SETTINGS_MODULE"] = "tests.system.hasty_settings"


@pytest.fixture(scope="module")
def shared_novita() -> Iterator[Novita]:
    with simulate_novita() as novita:
        yield novita


@pytest.fixture(scope="module")
def shared_service(
    tmp_path_factory: pytest.TempPathFactory, shared_novita: Novita, migrated_database: Path
) -> Iterator[Service]:
    """A service with an inventory, for the tests of a file that change nothing."""
    folder = tmp_path_factory.mktemp("shared")
    with (
        ended(Redis(folder)) as redis_process,
        ended(Service(make_environment(folder, redis_process, shared_novita, migrated_database), folder)) as service,
    ):
        yield service.wait_until_ready()


Start = Callable[..., Service]


@pytest.fixture
def start_service(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a service. Variables change its environment."""
    started: list[Process] = []

    def start(*, command: list[str] | None = None, **variables: str) -> Service:
        service = Service({**environment, **variables}, tmp_path, command)
        started.append(service)
        return service

    yield start
    for process in started:
        process.end()


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker. Variables change its environment."""
    started: list[Worker] = []

    def start(**variables: str) -> Worker:
        worker = Worker({**environment, **variables}, tmp_path)
        started.append(worker)
        return worker

    yield start
    for process in started:
        process.end()
