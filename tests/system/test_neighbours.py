"""Several panels on one Redis: different accounts stay apart, panels of one account share."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instances import simulator
from tests.system.conftest import Start, StartWorker
from tests.system.processes import Novita, Redis, Service, wait_until

OURS, THEIRS = 25, 3


@pytest.fixture
def their_novita() -> Iterator[Novita]:
    """The neighbours' account."""
    with simulator.start(simulator.Account(instances=THEIRS, seed=7, step_seconds=0.3), port=0) as server:
        novita = Novita(server.url)
        yield novita
        novita.end()


@pytest.fixture
def them(tmp_path: Path, their_novita: Novita, migrated_database: Path) -> dict[str, str]:
    """The neighbours' environment, which differs except for the Redis."""
    shutil.copy(migrated_database, tmp_path / "their.sqlite3")
    return {
        "NOVITA_BASE_URL": their_novita.url,
        "NOVITA_API_KEY": "FAKE-SECRET-their-key",
        "DATABASE_URL": f"sqlite:///{tmp_path}/their.sqlite3",
        "WEB_WORKERS": "1",
    }


def test_two_accounts_show_clear_and_synchronize_their_own_instances_only(
    start_service: Start, novita: Novita, their_novita: Novita, them: dict[str, str]
) -> None:
    ours, theirs = start_service(WEB_WORKERS="1"), start_service(**them)
    for service in (ours, theirs):
        service.wait_until_ready()

    for _ in range(2):
        for service, account in ((ours, novita), (theirs, their_novita)):
            report = service.post("/api/instances/sync").json()
            assert report["added"] == 0
            assert report["deleted"] == 0
            assert service.list_ids() == set(account.get_truth())
    cleared = ours.post("/api/cache/clear").json()["cleared"]

    assert cleared == OURS
    assert theirs.list_ids() == set(their_novita.get_truth())
    assert theirs.get("/readyz").ok
    assert len(novita.get_truth().keys() & their_novita.get_truth().keys()) == 0


def test_worker_works_only_for_its_own_account(
    start_service: Start,
    start_worker: StartWorker,
    novita: Novita,
    their_novita: Novita,
    them: dict[str, str],
) -> None:
    for account in (novita, their_novita):
        account.change(running=True)
    ours, theirs = start_service(WEB_WORKERS="1"), start_service(**them)
    for service in (ours, theirs):
        service.wait_until_ready()
    worker = start_worker()
    wait_until(lambda: ours.get_worker() == "up", "our worker is up")

    ordered = theirs.stop_all()
    wait_until(lambda: ours.wait_until_finished(ours.stop_all())["success"], "our stop is done")

    assert theirs.get_worker() == "down"
    assert theirs.get_operation(ordered)["finishedAt"] is None, "our worker has taken their task"
    start_worker(**them)
    assert theirs.wait_until_finished(ordered)["success"]
    assert set(novita.list_stops()).isdisjoint(their_novita.list_stops())
    assert len(novita.list_stops()) == OURS
    assert len(their_novita.list_stops()) == THEIRS
    assert "Traceback" not in worker.log and "does not exist" not in worker.log


def test_two_panels_of_one_account_share_the_inventory_and_the_worker(
    start_service: Start, start_worker: StartWorker, novita: Novita, redis_process: Redis
) -> None:
    start_worker()
    one = start_service(WEB_WORKERS="1").wait_until_ready()
    # The same address in another spelling.
    other = start_service(WEB_WORKERS="1", NOVITA_BASE_URL=f"{novita.url}/").wait_until_ready()

    assert one.list_ids() == other.list_ids() == set(novita.get_truth())
    assert novita.count_syncs() == 1
    for service in (one, other):
        wait_until(lambda service=service: service.get_worker() == "up", "both see the worker")
    assert len(redis_process.find("current")) == 1


def test_data_of_a_rotated_key_expires(
    start_service: Start, start_worker: StartWorker, redis_process: Redis, novita: Novita
) -> None:
    novita.change(running=True)
    old, worker = start_service(WEB_WORKERS="1").wait_until_ready(), start_worker()
    assert old.wait_until_finished(old.stop_all())["success"]
    worker.signal(signal.SIGTERM)
    worker.wait()
    old.end()

    rotated = start_service(WEB_WORKERS="1", NOVITA_API_KEY="FAKE-SECRET-rotated").wait_until_ready()

    assert len(rotated.list_ids()) == OURS
    assert len(redis_process.find("current")) == 2
    ttls = {key: redis_process.client.ttl(key) for key in redis_process.client.keys("*")}
    assert {key: ttl for key, ttl in ttls.items() if ttl < 0} == {}


def test_data_of_an_older_version_is_ignored_and_kept(
    start_service: Start, start_worker: StartWorker, redis_process: Redis, novita: Novita
) -> None:
    client = redis_process.client
    old = {b"{novita}:current": b"1", b"{novita}:lease": b"held", b"{novita}:fence": b"9"}
    for key, value in old.items():
        client.set(key, value)
    client.hset("{novita}:gen:1", mapping={"": "1", "zzz": "{}"})
    client.rpush("novita", "a message of an older version")
    client.sadd("_kombu.binding.novita", "novita\x06\x16\x06\x16novita")

    service, worker = start_service(WEB_WORKERS="1").wait_until_ready(), start_worker()
    wait_until(lambda: service.get_worker() == "up", "the worker is up")

    assert service.list_ids() == set(novita.get_truth())
    assert service.post("/api/cache/clear").ok
    assert {key: client.get(key) for key in old} == old
    assert client.llen("novita") == 1
    assert client.hlen("{novita}:gen:1") == 2
    assert worker.popen.poll() is None, worker.log


Cause = Callable[[Service, Redis], object]


def restart(service: Service, redis_process: Redis) -> None:
    Redis.end(redis_process)
    wait_until(lambda: service.get("/health").status_code == 503, "it is noticed")
    redis_process.start()


@pytest.mark.parametrize(
    "lose",
    [
        lambda service, redis_process: service.post("/api/cache/clear"),
        lambda service, redis_process: redis_process.client.flushall(),
        restart,
    ],
    ids=["cleared", "flushed", "restarted empty"],
)
def test_lost_inventory_is_back_within_seconds(
    lose: Cause, start_service: Start, redis_process: Redis, novita: Novita
) -> None:
    service = start_service().wait_until_ready()

    lose(service, redis_process)

    wait_until(lambda: service.get("/readyz").ok, "it is ready again", 5)
    assert service.list_ids() == set(novita.get_truth())
    assert service.get("/health").json()["status"] == "healthy"


def test_redis_that_accepts_writes_again_is_noticed_within_seconds(start_service: Start, redis_process: Redis) -> None:
    redis_process.client.replicaof("127.0.0.1", "1")
    service = start_service(WEB_WORKERS="1").wait_until_alive()
    # Several refusals, each of which would delay the next attempt.
    wait_until(lambda: service.count_log("code=CACHE_UNAVAILABLE"), "a sync is refused")
    assert service.get("/readyz").status_code == 503

    redis_process.client.replicaof("NO", "ONE")

    wait_until(lambda: service.get("/readyz").ok, f"it is ready\n{service.log}")
    assert service.count_log("code=CACHE_UNAVAILABLE") == 1, "one line for an outage"
