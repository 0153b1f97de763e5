"""Redis down, silent, empty, full or read-only: the service answers, reports it, and recovers by itself."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import Start
from tests.system.processes import Novita, Redis, ended, wait_until

ROUTES = [
    ("GET", "/health"),
    ("GET", "/readyz"),
    ("GET", "/api/instances"),
    ("GET", "/api/instances?search=a"),
    ("GET", "/api/instances/0000000000000000"),
    ("GET", "/api/cache/stats"),
    ("POST", "/api/cache/clear"),
    ("POST", "/api/instances/sync"),
]


def test_service_starts_without_redis_and_recovers_with_it(start_service: Start, redis_process: Redis) -> None:
    Redis.end(redis_process)
    service = start_service(WEB_WORKERS="2").wait_until_alive()

    assert service.get("/health").status_code == 503
    assert service.get("/health").json()["services"]["redis"] == "down"
    assert service.get("/api/instances").json()["code"] == "CACHE_UNAVAILABLE"

    wait_until(lambda: service.count_log("redis is unavailable"), "the log says that Redis is away")

    redis_process.start()
    service.wait_until_ready()
    assert len(service.list_ids()) == 25
    assert wait_until(lambda: service.count_log("redis is back"), "the log says that Redis is back")
    assert service.count_log("redis is unavailable") <= 2, "one warning for each worker, not for each poll"


def test_every_request_is_answered_within_two_seconds_when_redis_is_silent(
    start_service: Start, redis_process: Redis
) -> None:
    service = start_service().wait_until_ready()
    redis_process.signal(signal.SIGSTOP)

    for method, path in ROUTES:
        answer = service.session.request(method, service.url + path, timeout=10)
        assert answer.status_code == 503, path
        assert answer.elapsed.total_seconds() < 2, path
    assert service.get("/livez").ok

    redis_process.signal(signal.SIGCONT)
    service.wait_until_ready()
    assert len(service.list_ids()) == 25


def test_redis_that_comes_back_empty_is_filled_again(start_service: Start, redis_process: Redis) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="5").wait_until_ready()
    etag = service.get("/api/instances").headers["ETag"]

    Redis.end(redis_process)
    redis_process.start()

    service.wait_until_ready()
    answer = service.get("/api/instances", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.json()["total"] == 25


def test_full_redis_keeps_the_previous_listing_and_is_reported(
    start_service: Start, redis_process: Redis, novita: Novita
) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0").wait_until_ready()
    before = service.list_ids()
    novita.change(add=[{"id": f"{number:016x}", "name": "x" * 250} for number in range(3000)])
    redis_process.client.config_set("maxmemory", redis_process.client.info("memory")["used_memory"] + 500_000)

    answer = service.post("/api/instances/sync")

    assert answer.status_code == 503
    assert answer.json()["message"] == "Redis is out of memory."
    assert service.list_ids() == before
    assert len(redis_process.find("gen:*")) == 1, "a half generation was left"
    redis_process.client.config_set("maxmemory", 0)
    assert service.post("/api/instances/sync").ok
    assert len(service.list_ids()) == 3025


@pytest.fixture
def replica(tmp_path: Path, redis_process: Redis) -> Iterator[Redis]:
    """A read-only replica of the services' Redis."""
    redis_process.client.config_set("repl-diskless-sync-delay", 0)
    folder = tmp_path / "replica"
    folder.mkdir()
    with ended(Redis(folder)) as process:
        yield process


def test_read_only_redis_is_read_and_its_sync_error_names_the_reason(
    start_service: Start, redis_process: Redis, replica: Redis
) -> None:
    start_service().wait_until_ready()
    for key in redis_process.find("*"):
        if b"lease" not in key:
            replica.client.restore(key, 0, redis_process.client.dump(key))
    replica.client.replicaof("127.0.0.1", "1")
    service = start_service(REDIS_URL=replica.url).wait_until_alive()

    assert len(service.list_ids()) == 25
    etag = service.get("/api/instances").headers["ETag"]
    assert service.get("/api/instances", headers={"If-None-Match": etag}).status_code == 304
    answer = service.post("/api/instances/sync")
    assert answer.status_code == 503
    assert answer.json()["message"] == "Redis is a read-only replica."


def test_flushed_scripts_are_loaded_again(start_service: Start, redis_process: Redis) -> None:
    service = start_service().wait_until_ready()

    redis_process.client.script_flush()

    assert len(service.list_ids()) == 25
    assert service.post("/api/instances/sync").ok


def test_eviction_policy_of_redis_is_a_warning(start_service: Start, redis_process: Redis) -> None:
    redis_process.client.config_set("maxmemory-policy", "allkeys-lru")
    service = start_service().wait_until_ready()

    health = service.get("/health")

    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    assert "allkeys-lru" in " ".join(health.json()["warnings"])


def test_syncs_leave_no_keys_behind(start_service: Start, redis_process: Redis, novita: Novita) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0").wait_until_ready()
    resting = next(id_ for id_, row in sorted(novita.get_truth().items()) if row["status"] in {"running", "exited"})
    for number in range(5):
        novita.change(set={resting: {"name": f"name-{number}"}})
        assert service.post("/api/instances/sync").json()["changed"] == 1
        service.list_ids()

    ttls = {key: redis_process.client.ttl(key) for key in redis_process.client.keys("*")}
    assert len([key for key, ttl in ttls.items() if b":gen:" in key and ttl > 60]) == 1
    assert min(ttls.values()) > 0, "what is left when the panel is gone ends by itself"
    assert len([key for key in redis_process.client.keys("*") if b":body:" in key]) == 1
