"""The damage of `tests/test_damage.py` on a real Redis, whose scripts handle types and errors differently."""

from tests.system.conftest import Start
from tests.system.processes import Redis
from tests.test_damage import DAMAGES, NAMES


def test_damage_of_any_key_breaks_no_answer_and_is_cured(start_service: Start, redis_process: Redis) -> None:
    service = start_service(NOVITA_SYNC_INTERVAL="0", NOVITA_SYNC_ON_STARTUP="0", WEB_WORKERS="1").wait_until_alive()
    assert service.post("/api/instances/sync").ok
    whole = service.list_ids()
    tag = redis_process.find("current")[0].removesuffix(b":current").decode()

    for number, (name, kind) in enumerate((name, kind) for name in NAMES for kind in DAMAGES):
        keys = [key.decode() for key in redis_process.find(f"{name}:*")] or [f"{tag}:{name}"]
        for key in keys:
            redis_process.client.delete(key)
            DAMAGES[kind](redis_process.client, key)

        answers = [service.get(path) for path in ("/api/instances", f"/api/instances/{min(whole)}", "/", "/health")]
        if number % 3 == 0:
            answers.append(service.post("/api/cache/clear"))
        answers.append(service.post("/api/instances/sync"))

        told = [answer.status_code for answer in answers]
        assert set(told) <= {200, 404} and told[-1] == 200, (name, kind, told)
        assert service.list_ids() == whole, (name, kind)
        assert service.get("/readyz").ok, (name, kind)
    assert service.count_log("Traceback") == 0
