"""A Redis whose default user is off: the panel works with the rules in docs/operations.md, and reaches no other key."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from instances.management.commands.up import find_redis_server
from tests.fake_redis import read_rules
from tests.system.conftest import make_environment
from tests.system.processes import Novita, Process, Service, Worker, ended, wait_until

PASSWORD = "FAKE-SECRET-panel"


class GuardedRedis(Process):
    """A Redis with the panel's user; `client` is an administrator."""

    def __init__(self, folder: Path) -> None:
        path, rules = folder / "redis.sock", folder / "users.acl"
        rules.write_text(
            f"user default off\nuser admin on nopass ~* &* +@all\nuser panel on >{PASSWORD} {' '.join(read_rules())}\n"
        )
        self.client = redis.Redis(unix_socket_path=str(path), username="admin", password="any")
        self.url = f"unix://panel:{PASSWORD}@{path}"
        options = ["--port", "0", "--save", "", "--dir", str(folder), "--unixsocket", str(path)]
        command = [find_redis_server(), *options, "--aclfile", str(rules)]
        super().__init__(command, os.environ, folder / "redis.log")
        wait_until(self.client.ping, "Redis answers")

    def list_refused(self) -> set[str]:
        """Return the commands and keys that Redis refused."""
        # Without its rule, Redis 7.2 and newer refuse it at each new connection. Older ones don't know it.
        return {entry["object"].decode() for entry in self.client.acl_log()} - {"client|setinfo"}

    def end(self) -> None:
        super().end()
        self.client.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedRedis]:
    with ended(GuardedRedis(tmp_path_factory.mktemp("guarded"))) as process:
        yield process


@pytest.fixture(scope="module")
def service(
    guarded: GuardedRedis, shared_novita: Novita, tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("panel")
    environment = make_environment(folder, guarded, shared_novita, migrated_database)
    with ended(Service(environment, folder)) as service, ended(Worker(environment, folder)):
        yield service.wait_until_ready()


def test_panel_needs_no_other_rule(service: Service, guarded: GuardedRedis, shared_novita: Novita) -> None:
    """Reads of each kind, a synchronization with and without changes, actions, limits, metrics and a cleared cache."""
    wait_until(lambda: service.get_worker() == "up", "the worker has noted that it works")
    first = next(iter(shared_novita.get_truth()))

    for path in ("", "?group=running", f"/{first}", f"/{first}/utilization"):
        assert service.get(f"/api/instances{path}").ok
    for path in ("/api/overview", "/api/cache/stats", "/api/costs/bill", "/health", "/"):
        assert service.get(path).status_code == 200, path
    service.get("/api/instances", headers={"Authorization": "Token FAKE-SECRET-wrong"})
    shared_novita.change(running=True, set={first: {"name": "another"}})
    assert service.post("/api/instances/sync").ok
    assert service.post("/api/instances/sync").ok
    assert service.post(f"/api/instances/{first}/stop").ok
    assert service.wait_until_finished(service.stop_all())["success"]
    assert service.post("/api/cache/clear").ok
    assert service.post("/api/instances/sync").ok

    assert guarded.list_refused() == set()
    assert "ACL" not in service.log


def test_missing_rule_is_named_by_answers(service: Service, guarded: GuardedRedis) -> None:
    guarded.client.acl_setuser("panel", enabled=True, commands=["-evalsha"])

    answer = service.get("/api/instances")

    guarded.client.acl_setuser("panel", enabled=True, commands=["+evalsha"])
    assert answer.status_code == 503
    assert answer.json()["message"] == "Redis's ACL forbids it."
    guarded.client.acl_log_reset()


def test_other_keys_cannot_be_reached(guarded: GuardedRedis) -> None:
    with redis.Redis.from_url(guarded.url) as panel, pytest.raises(redis.exceptions.NoPermissionError):
        panel.get("celery")
