"""Fixtures: an empty Redis for each test, and Novita's answers by `responses`."""

import functools
import gc
import io
import logging
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import responses
from django.conf import settings
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client, SimpleTestCase, TransactionTestCase
from django.utils.safestring import SafeString
from django_redis import get_redis_connection
from fakeredis import FakeRedis, FakeServer
from xdist.scheduler import LoadScopeScheduling

from instances import health, outages
from instances.access import limits, visitors
from instances.api import overview, reads
from instances.fallback import database, journal, kept, standby
from instances.inventory import store
from instances.novita.client import get_novita
from instances.operations import protections
from instances.pages import cards
from novita_site.env import is_loopback
from novita_site.log import LineFormatter, OnceAMinute
from tests import warm
from tests.novita_answers import NovitaAnswers
from tests.settings import FAKE_REDIS

# No example fails because the machine is slow.
hypothesis.settings.register_profile("unhurried", deadline=None)
# For `make quick`; `make test` tries all examples.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.load_profile("unhurried")

# A shell's background job ignores Ctrl-C, and so would the processes that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Django lets a test's threads connect to the test's own databases only; the one in memory stands in for them.
SimpleTestCase.ensure_connection_patch_method = lambda: BaseDatabaseWrapper.ensure_connection  # type: ignore[attr-defined]  # no stub
# The database in memory that `standby` adds is a test's own, too, whenever it appears.
SimpleTestCase._disallowed_connection_methods = []  # type: ignore[attr-defined]  # no stub


def empty_tables(self: TransactionTestCase) -> None:
    """Empty the tables that tests write to. Django's own `flush` would make all permissions anew, in 30 ms."""
    kept = {"django_content_type", "auth_permission", "django_migrations"}
    names = sorted(set(connection.introspection.django_table_names(only_existing=True)) - kept)
    # In one transaction, at whose end PostgreSQL checks the references between them.
    with connection.constraint_checks_disabled(), transaction.atomic(), connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(name)}")  # noqa: S608 - names of our own tables


TransactionTestCase._fixture_teardown = empty_tables  # type: ignore[attr-defined]  # no stub


# The files that take longest begin first: of tests/system, and of the unit tests those with few long tests.
LONG = (
    "emergency",
    "operations",
    "worker_faults",
    "outputs",
    "stop_all_command",
    "leaks",
    "up",
    "worker",
    "slow_clients",
    "schema",
    "policies",
    "kills",
    "postgresql",
    "webhooks",
    "upstream",
    "costs_week",
    "policy_model",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the browser's tests, which take longest, and mix the others.

    Unit tests use the processors while system tests wait for other processes. Of each kind the long files come first.
    """
    counts = Counter(item.path for item in items)
    folders: dict[str, list[Path]] = {}
    for path in counts:
        folders.setdefault(path.parent.name, []).append(path)
    places = {}
    for folder, paths in folders.items():
        paths.sort(key=lambda path: (rank(path), -counts[path]))
        if folder != "browser":
            places |= {path: number / len(paths) for number, path in enumerate(paths)}
    items.sort(key=lambda item: places.get(item.path, -1.0))


def rank(path: Path) -> int:
    name = path.stem.removeprefix("test_")
    return LONG.index(name) if name in LONG else len(LONG)


class FileScheduling(LoadScopeScheduling):
    """Runs the tests of a file in one test process, where they share the services of their module.

    System tests that share nothing make three parts of their file, so that no process waits for a long one at the end.

    Files with the same mark `xdist_group` run in one process, too: each process that runs tests of the browser starts a
    Chromium and its panels. xdist's own `loadgroup` appends groups to node ids, which pytest 9.2 ignores.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = self.config.rootpath / nodeid.partition("::")[0]
        return find_group(path) or f"{path} {zlib.crc32(nodeid.encode()) % 3}"


@functools.cache
def find_group(path: Path) -> str:
    """Return the name of what runs in one process; "" for system tests that share nothing."""
    # The process that distributes the tests collects none, so it knows no marks and no fixtures.
    text = path.read_text(encoding="utf-8")
    if mark := re.search(r'xdist_group\("(.+)"\)', text):
        return mark[1]
    shares = path.parent.name != "system" or re.search(r'scope="|\bshared_|@(functools\.)?cache\b', text)
    return str(path) if shares else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    return FileScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    warm.fork_test_processes(config)


@pytest.fixture(scope="session")
def django_db_keepdb(django_db_modify_db_settings: None) -> Iterator[bool]:
    """Take a copy of the migrated database, where there is one, in place of migrating a new one."""
    if warm.migrated is None:
        yield False
        return
    path = Path(settings.DATABASES["default"]["TEST"]["NAME"])
    shutil.copy(warm.migrated, path)
    yield True
    path.unlink()


@pytest.fixture(scope="session", autouse=True)
def fallback_folder() -> Iterator[None]:
    # The test processes are forks of one that has read the settings.
    settings.FALLBACK_DIR = Path(tempfile.gettempdir()) / f"novita-panel-tests-{os.getpid()}"
    yield
    shutil.rmtree(settings.FALLBACK_DIR, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def frozen() -> None:
    """Exempt what the imports made from garbage collection: reading it again takes 0.6 s after each file."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Find sockets that a file's tests leave open during that file, and not during another one's tests.

    What survives is exempt from then on: each file would read it again, in 0.2 s.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """No test reaches for another machine, not even to ask for its address, and not when it fails."""
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def guarded_look_up(host: Any, *args: Any, **options: Any) -> Any:
        is_number = host is None or re.fullmatch("[0-9a-fA-F:.]+", host)
        assert is_number or is_loopback(host), f"a test looks for {host}"
        return look_up(host, *args, **options)

    def guarded_connect(self: socket.socket, address: Any) -> None:
        assert isinstance(address, str | bytes) or is_loopback(address[0]), f"a test reaches for {address}"
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        patch.setattr(socket.socket, "connect", guarded_connect)
        yield


@pytest.fixture(autouse=True)
def redis_server() -> Iterator[FakeServer]:
    """Redis, empty. `redis_server.connected = False` is an outage."""
    # An open connection keeps the database that it began with.
    get_redis_connection("default").connection_pool.disconnect()
    FAKE_REDIS.dbs.clear()
    FAKE_REDIS.connected = True
    store._parsed = None
    store._kept.clear()
    overview._last = (float("-inf"), "")
    reads._known_health.clear()
    cards._last_line = (float("-inf"), 0, SafeString())
    limits.memory.clear()
    outages.redis.reset()
    outages.database.reset()
    visitors._owner = (0.0, None)
    database._last = None
    protections._last = None
    journal._is_ending.clear()
    shutil.rmtree(kept.get_folder(), ignore_errors=True)
    yield FAKE_REDIS
    FAKE_REDIS.connected = True
    end_journal()


@pytest.fixture(scope="session", autouse=True)
def patient_database() -> Iterator[None]:
    """On a busy machine a write may take seconds, and no test must take that for a broken database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "WAIT_SECONDS", 20.0)
        patch.setattr(health, "WAIT_SECONDS", 20.0)
        yield


@pytest.fixture
def raw_redis(redis_server: FakeServer) -> FakeRedis:
    """The same Redis, by a connection of the test's own."""
    return FakeRedis(server=redis_server)


@pytest.fixture
def novita() -> Iterator[NovitaAnswers]:
    """Novita's answers, as far as the test registers them: another call fails, and so does an answer nobody fetched."""
    get_novita.cache_clear()
    with responses.RequestsMock() as mock:
        yield NovitaAnswers(mock)
        end_background_work()


def end_background_work() -> None:
    """Wait for the threads that a test began: one that goes on would call Novita in the next test, or for real."""
    end_journal()
    join_threads("operation", "emergency")


def end_journal() -> None:
    """End the journal's thread, and then what it reads: it closes its connections last, after it has signed off."""
    journal._is_ending.set()
    join_threads("journal")
    standby.forget()


def join_threads(*names: str) -> None:
    for thread in threading.enumerate():
        if thread.name in names:
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} goes on"


class ApiClient(Client):
    """Django's client as a script would be: a POST has no body unless it is given one."""

    def post(self, path: str, data: Any = "", content_type: str = "application/json", **extra: Any) -> Any:  # type: ignore[override]  # narrower
        return super().post(path, data, content_type, **extra)


@pytest.fixture
def client() -> ApiClient:
    return ApiClient()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries and second reads follow at once."""
    monkeypatch.setattr("instances.novita.client.FIRST_PAUSE_SECONDS", 0)
    monkeypatch.setattr("instances.operations.single.SECOND_LOOK_SECONDS", 0)


@pytest.fixture
def log_stream() -> Iterator[io.StringIO]:
    """What the service's log writes."""
    handlers = [one for one in logging.getLogger().handlers if isinstance(one.formatter, LineFormatter)]
    (handler,) = handlers
    assert isinstance(handler, logging.StreamHandler)
    for one in handler.filters:
        if isinstance(one, OnceAMinute):
            # Otherwise what an earlier test logged would hide a line of this test, or add its number to them.
            one._kinds.clear()
    stream = io.StringIO()
    usual = handler.setStream(stream)
    yield stream
    handler.setStream(usual)
