"""Steps that the tests of operations share: a request through the API, and a worker's rounds at any time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from instances import tasks
from instances.models import Operation, Target
from instances.operations import orders
from tests.conftest import ApiClient
from tests.novita_answers import Account

Json = dict[str, Any]
STOP_ALL = "/api/instances/stop-all"
OPERATIONS = "/api/operations"


def sync(client: Client, account: Account) -> None:
    """Fill the inventory, and clear the list of calls to Novita."""
    assert client.post("/api/instances/sync").status_code == 200
    account.calls.clear()


def protect(client: Client, id_: str, reason: str = "the demo runs on it") -> None:
    assert client.post(f"/api/instances/{id_}/protect", {"reason": reason}).status_code == 200


def order(client: Client, path: str = STOP_ALL, **wish: Any) -> Json:
    """Begin an operation through the API, and return the answer."""
    answer = client.post(path, wish)
    assert answer.status_code in {200, 202}, answer.content
    body: Json = answer.json()
    return body


def wait_for_no_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an answer wait for the requests of its own process alone, and not for the next round of the operation."""
    monkeypatch.setattr(orders, "run", lambda begun, ends_at, run=orders.run: run(begun, time.monotonic()))


def order_at_once(count: int, **wish: Any) -> list[Json]:
    """Begin or join an operation in several threads at the same moment, and return the answers."""
    answers: list[Json] = []
    barrier = threading.Barrier(count)

    def press() -> None:
        barrier.wait()
        answers.append(order(ApiClient(), **wish))
        connections.close_all()

    threads = [threading.Thread(target=press) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def cancel(client: Client, answer: Json) -> Any:
    return client.post(f"{answer['operationUrl']}/cancel")


def show(client: Client, answer: Json) -> Json:
    """Return the operation of an answer, as the API shows it."""
    shown: Json = client.get(answer["operationUrl"]).json()
    return shown


def show_states(client: Client, answer: Json) -> dict[str, str]:
    return {target["instanceId"]: target["state"] for target in show(client, answer)["targets"]}


def show_target(client: Client, answer: Json, id_: str = "a") -> Json:
    (target,) = [one for one in show(client, answer)["targets"] if one["instanceId"] == id_]
    return dict(target)


def move_on(answer: Json, rounds: int = 1) -> None:
    """Advance an operation as a worker does, each time after all of its pauses."""
    for _ in range(rounds):
        past = timezone.now() - timedelta(seconds=1)
        Operation.objects.filter(pk=answer["operationId"]).update(next_round_at=past)
        Target.objects.filter(operation=answer["operationId"], next_request_at__gt=past).update(next_request_at=past)
        tasks.move_operation(answer["operationId"])


def move_on_at_once(answer: Json) -> None:
    """Advance an operation during its pauses."""
    tasks.move_operation(answer["operationId"])


@contextmanager
def missing_audit_table() -> Iterator[None]:
    """Let the database refuse every audit entry while the block runs."""
    _run("ALTER TABLE instances_auditentry RENAME TO elsewhere")
    try:
        yield
    finally:
        _run("ALTER TABLE elsewhere RENAME TO instances_auditentry")


def _run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def pass_deadline(answer: Json, seconds: float = 1) -> None:
    """Let the deadline have passed so many seconds ago."""
    Operation.objects.filter(pk=answer["operationId"]).update(deadline_at=timezone.now() - timedelta(seconds=seconds))
