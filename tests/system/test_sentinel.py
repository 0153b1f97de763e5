"""`redis+sentinel://`: the primary dies during a synchronization and during a stop of everything."""

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import make_environment
from tests.system.processes import Novita, Process, Service, Worker, ended, wait_until
from tests.system.sentinels import PASSWORD, SENTINEL_PASSWORD, Cluster

SYNC = [sys.executable, "manage.py", "sync_instances"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ended(Cluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_environment(
    cluster: Cluster, shared_novita: Novita, tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("panel")
    return make_environment(folder, cluster, shared_novita, migrated_database) | {"NOVITA_SYNC_INTERVAL": "0"}


@pytest.fixture(scope="module")
def service(shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with (
        ended(Service(shared_environment, folder)) as service,
        ended(Worker(shared_environment, folder)) as worker,
    ):
        wait_until(lambda: service.wait_until_ready().get_worker() == "up", f"the worker works\n{worker.log}")
        yield service


@pytest.fixture(autouse=True)
def whole(cluster: Cluster, shared_novita: Novita) -> Iterator[None]:
    yield
    shared_novita.clear_faults()
    cluster.repair()


def mark(novita: Novita, name: str) -> None:
    """Give each instance a name, so that a listing shows of which state it is."""
    novita.change(set={id_: {"name": name} for id_ in novita.get_truth()})


class Reader:
    """Reads the listing all the time, and notes each answer: its status, and the names and number of its rows."""

    def __init__(self, service: Service) -> None:
        self.answers: list[tuple[int, str, int]] = []
        self._service = service
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._is_over.wait(0.02):
            answer = self._service.get("/api/instances?group=running" if len(self.answers) % 2 else "/api/instances")
            body = answer.json()
            rows = body.get("instances", [])
            # A moving instance is read on its own every few seconds, so its row may be newer than the listing.
            names = {row["name"] for row in rows if row["group"] in ("running", "stopped")}
            self.answers.append((answer.status_code, ",".join(names) or body.get("code", ""), len(rows)))

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()


def test_failover_during_a_synchronization_mixes_no_listings_and_the_next_one_succeeds(
    service: Service, cluster: Cluster, shared_novita: Novita
) -> None:
    mark(shared_novita, "old")
    assert service.post("/api/instances/sync").ok
    mark(shared_novita, "new")
    shared_novita.fault("list", "hang", times=1)
    before, dead = shared_novita.count_syncs(), cluster.primary.port
    syncs: list[tuple[int, str]] = []

    def synchronize() -> None:
        answer = service.post("/api/instances/sync")
        syncs.append((answer.status_code, answer.json().get("code", "")))

    with ended(Reader(service)) as reader:
        request = threading.Thread(target=synchronize)
        request.start()
        wait_until(lambda: shared_novita.count_syncs() > before, "it reads the listing")
        cluster.kill_primary()
        cluster.wait_until_switched(dead)
        shared_novita.clear_faults()
        request.join()
        wait_until(lambda: service.post("/api/instances/sync").ok, "the next synchronization succeeds")
        wait_until(lambda: reader.answers[-1][1] == "new", "readers have the new listing")

    statuses = {(status, words) for status, words, _ in reader.answers}
    assert statuses <= {(200, "old"), (200, "new"), (503, "CACHE_UNAVAILABLE")}
    assert len({size for status, _, size in reader.answers if status == 200}) == 2, "the whole list, and the running"
    assert syncs == [(503, "SYNC_LOST_LOCK")]
    assert PASSWORD not in service.log and SENTINEL_PASSWORD not in service.log


def test_failover_during_a_stop_of_everything_stops_each_instance_once_and_verifies_it(
    service: Service, cluster: Cluster, shared_novita: Novita
) -> None:
    shared_novita.change(running=True)
    shared_novita.fault("stop", "delay", seconds=0.2)
    dead = cluster.primary.port
    running = sorted(shared_novita.get_truth())
    killer = threading.Thread(
        target=lambda: wait_until(lambda: shared_novita.list_stops(), "it stops") and cluster.kill_primary()
    )
    killer.start()

    ordered = service.stop_all()

    killer.join()
    operation = service.wait_until_finished(ordered)
    assert operation["success"] is True
    assert operation["result"] == "All 25 are stopped."
    assert sorted(shared_novita.list_stops()) == running
    assert shared_novita.are_all("exited")
    cluster.wait_until_switched(dead)
    wait_until(lambda: service.get_worker() == "up", "the worker works with the new primary")


def test_holder_of_a_lease_that_the_new_primary_has_lost_publishes_nothing(
    service: Service, cluster: Cluster, shared_novita: Novita, shared_environment: dict[str, str], tmp_path: Path
) -> None:
    mark(shared_novita, "old")
    shared_novita.fault("list", "hang", times=1)
    before, dead = shared_novita.count_syncs(), cluster.primary.port
    cluster.lose_writes()
    with ended(Process(SYNC, shared_environment, tmp_path / "sync.log")) as first:
        wait_until(lambda: shared_novita.count_syncs() > before, "the first one has the lease")
        first.signal(signal.SIGSTOP)
        suspended = cluster.replica
        cluster.kill_primary()
        suspended.signal(signal.SIGCONT)
        cluster.wait_until_switched(dead)
        mark(shared_novita, "new")
        wait_until(lambda: service.post("/api/instances/sync").ok, "the second one publishes")
        etag = service.get("/api/instances").headers["ETag"]

        first.signal(signal.SIGCONT)
        shared_novita.clear_faults()

        assert first.wait() == 1, first.log
    listing = service.get("/api/instances")
    assert {row["name"] for row in listing.json()["instances"]} == {"new"}
    assert listing.headers["ETag"] == etag
