"""`manage.py check_worker`: the exit status and one sentence."""

import functools
import socket
from unittest.mock import Mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from fakeredis import FakeRedis, FakeServer

from instances import tasks
from instances.access.shell import recorded_command
from instances.fallback.database import find_id
from instances.management.commands.check_worker import Command
from instances.models import AuditEntry
from tests.commands import Ran
from tests.redis_keys import name_of

pytestmark = pytest.mark.django_db

check = functools.partial(Ran, "check_worker")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on another machine."""
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "elsewhere")
        tasks.move_operations()


def refuse(*arguments: str) -> str:
    with pytest.raises(CommandError) as refused:
        call_command("check_worker", *arguments)
    assert refused.value.returncode == 1
    return str(refused.value)


def test_worker_of_this_machine_is_found() -> None:
    tasks.move_operations()

    ran = check()

    assert ran.status == 0
    assert ran.out == f"A worker runs on {socket.gethostname()}.\n"


def test_missing_worker_is_exit_status_1_and_how_to_start_one() -> None:
    assert refuse() == (
        f"No worker on {socket.gethostname()} has given a sign of life within 15 s. "
        "Start one: celery -A novita_site worker"
    )


@pytest.mark.usefixtures("elsewhere")
def test_worker_of_another_machine_does_not_count() -> None:
    assert "No worker on" in refuse()


@pytest.mark.usefixtures("elsewhere")
def test_worker_of_any_machine_counts_on_request() -> None:
    assert check("--any").status == 0


def test_worker_counts_for_15_seconds(raw_redis: FakeRedis) -> None:
    tasks.move_operations()

    assert 0 < raw_redis.ttl(f"{name_of('worker-on')}:{socket.gethostname()}:{find_id()}") <= 15


def test_sign_of_life_that_never_ends_does_not_count(raw_redis: FakeRedis) -> None:
    raw_redis.set(f"{name_of('worker-on')}:{socket.gethostname()}:{find_id()}", "up")

    assert "No worker on" in refuse()


def test_missing_redis_is_the_reason(redis_server: FakeServer) -> None:
    redis_server.connected = False

    assert refuse() == "Redis can't be reached. Without Redis a worker can't be checked."


def test_missing_database_is_the_reason() -> None:
    with connection.execute_wrapper(Mock(side_effect=OperationalError("disk full"))):
        assert refuse() == "The database can't be used, so no worker can work: its disk is full."


def test_check_is_not_recorded() -> None:
    tasks.move_operations()

    with recorded_command(["manage.py", "check_worker"]):
        check()

    assert not AuditEntry.objects.exists()


def test_help_tells_the_exit_status() -> None:
    assert "Exit status: 0" in Command.help
