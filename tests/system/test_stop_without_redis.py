"""Stops while Redis is down or silent: each is sent and answered, and Novita shows its effect."""

import signal
from collections.abc import Callable

import pytest
import requests

from tests.system.conftest import Start
from tests.system.processes import Novita, Redis, Service, wait_until

# The longest acceptable answer time.
ANSWER_SECONDS = 10


def kill(redis_process: Redis) -> None:
    Redis.end(redis_process)


def pause(redis_process: Redis) -> None:
    redis_process.signal(signal.SIGSTOP)


def choose_running(novita: Novita, count: int) -> list[str]:
    return sorted(id_ for id_, row in novita.get_truth().items() if row["status"] == "running")[:count]


def is_stopping(novita: Novita, ids: list[str]) -> bool:
    truth = novita.get_truth()
    return all(truth[id_]["status"] in {"toStop", "stopping", "exited"} for id_ in ids)


@pytest.mark.parametrize("fail", [kill, pause])
def test_stops_are_sent_while_redis_is_away(
    fail: Callable[[Redis], None], start_service: Start, redis_process: Redis, novita: Novita
) -> None:
    service = start_service().wait_until_ready()
    one, protected, *some = choose_running(novita, 4)
    assert service.post(f"/api/instances/{protected}/protect", json={"reason": "the demo"}).ok
    fail(redis_process)

    refused = post(service, f"/api/instances/{protected}/stop")
    assert refused.status_code == 409
    assert refused.json()["code"] == "PROTECTED"

    answer = post(service, f"/api/instances/{one}/stop")
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "toStop", answer.text
    assert "The dashboard shows it later: Redis " in answer.json()["message"]
    wait_until(lambda: novita.get_truth()[one]["status"] == "exited", "Novita has stopped it")

    answer = post(service, "/api/operations", json={"kind": "stop", "ids": some})
    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == 2, answer.text
    assert is_stopping(novita, some)

    answer = post(service, "/api/instances/stop-all")
    assert answer.status_code == 200, answer.text
    rest = [id_ for id_, row in novita.get_truth().items() if row["status"] == "running"]
    assert rest == [protected]


def post(service: Service, path: str, **options: object) -> requests.Response:
    return service.post(path, timeout=ANSWER_SECONDS, **options)
