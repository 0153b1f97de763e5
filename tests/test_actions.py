"""Start, stop and restart through the API: the request to Novita, the answer, and the inventory afterwards."""

import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
import requests
import responses
from django.test import Client
from fakeredis import FakeServer

from instances.inventory import store
from instances.novita.rows import from_novita
from tests.inventories import fill_inventory
from tests.novita_answers import API, NovitaAnswers, make_refusal, make_row

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_pauses")]

Json = dict[str, Any]
INVALID_STATE_CHANGE = {"status": 400, "json": make_refusal(400, "BAD_REQUEST", "invalid state change")}
LOST = [
    {"body": requests.ConnectionError("reset by peer"), "json": None},
    {"body": requests.ReadTimeout("silence"), "json": None},
    {"status": 502, "body": "<html>", "json": None},
    {"status": 404, "body": "<html>", "json": None},
    INVALID_STATE_CHANGE,
]
LOST_IDS = ["reset", "silence", "502", "a gateway's 404", "invalid state change"]
EACH_LOST = pytest.mark.parametrize(
    "lost",
    [
        pytest.param(lost, id=id_, marks=[] if id_ in {"silence", "invalid state change"} else pytest.mark.thorough)
        for lost, id_ in zip(LOST, LOST_IDS, strict=True)
    ],
)


def fill(novita: NovitaAnswers, *rows: Json) -> None:
    """Synchronize these rows first, and clear the list of calls to Novita."""
    novita.lists(*rows)
    fill_inventory()
    novita.mock.reset()


def list_calls(novita: NovitaAnswers) -> list[str]:
    """Name what Novita was requested: "stop", or "read"."""
    paths = [(call.request.method, str(call.request.url).partition("?")[0]) for call in novita.mock.calls]
    return [path.rpartition("/")[2] if method == "POST" else "read" for method, path in paths]


def read_status(client: Client, id_: str = "a") -> str:
    return str(client.get(f"/api/instances/{id_}").json()["status"])


def get_outcomes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("action ")]


# --- Taken


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [("start", "exited", "toStart"), ("stop", "running", "toStop"), ("restart", "running", "toRestart")],
)
def test_action_is_answered_and_shown_at_once(
    action: str, before: str, after: str, client: Client, novita: NovitaAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    fill(novita, make_row("a", name="train", status=before))
    novita.takes(action, "a")

    answer = client.post(f"/api/instances/a/{action}")

    body = answer.json()
    assert answer.status_code == 202
    assert body.pop("timestamp")[-1] == "Z"
    assert body == {
        "success": True,
        "message": f"{action.capitalize()} initiated for train",
        "instanceId": "a",
        "status": after,
    }
    shown = client.get("/api/instances").json()["instances"][0]
    assert shown["status"] == after
    assert shown["actions"] == []
    assert list_calls(novita) == [action]
    assert get_outcomes(caplog) == [f"action {action} id=a by=local-owner outcome=initiated status={after}"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"json": {"instanceId": "a", "state": "stopping"}}, "stopping"),
        ({"json": {}}, "toStop"),
        ({"json": []}, "toStop"),
        ({"json": {"state": None}}, "toStop"),
        ({"json": {"state": ""}}, "toStop"),
        ({"json": {"state": 7}}, "toStop"),
        ({"body": "", "json": None}, "toStop"),
        ({"body": "<html>", "json": None, "status": 202}, "toStop"),
    ],
)
def test_any_success_of_novita_counts_and_its_state_is_shown(
    answer: Json, status: str, client: Client, novita: NovitaAnswers
) -> None:
    fill(novita, make_row("a"))
    novita.takes("stop", "a", **answer)

    result = client.post("/api/instances/a/stop")

    assert result.status_code == 202
    assert result.json()["status"] == status
    assert read_status(client) == status


@pytest.mark.parametrize("is_known", [True, False])
def test_old_inventory_does_not_forbid_an_action(is_known: bool, client: Client, novita: NovitaAnswers) -> None:
    fill(novita, *([make_row("a", status="exited")] if is_known else []))
    novita.shows(make_row("a"))
    novita.takes("stop", "a")

    answer = client.post("/api/instances/a/stop")

    assert answer.status_code == 202
    assert answer.json()["status"] == "toStop"


# --- Already so, or not possible


@pytest.mark.parametrize(
    ("action", "status"),
    [("stop", "exited"), ("stop", "stopping"), ("start", "running"), ("start", "pulling"), ("restart", "restarting")],
)
def test_instance_already_in_the_wanted_status_gets_no_request(
    action: str, status: str, client: Client, novita: NovitaAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    fill(novita, make_row("a", status=status))
    novita.shows(make_row("a", status=status))

    answer = client.post(f"/api/instances/a/{action}")

    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["status"] == status
    assert list_calls(novita) == ["read"]
    assert get_outcomes(caplog) == [f"action {action} id=a by=local-owner outcome=already status={status}"]


def test_read_before_an_action_never_replaces_a_later_write(client: Client, novita: NovitaAnswers) -> None:
    row = make_row("a", status="exited")
    fill(novita, row)

    def start_meanwhile(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        store.write_instance(from_novita({**row, "status": "toStart"}))
        return 200, {}, json.dumps(row)

    novita.mock.add_callback(responses.GET, f"{API}/gpu/instance", start_meanwhile)

    assert client.post("/api/instances/a/stop").status_code == 200

    assert read_status(client) == "toStart"
    assert store.read_state().moving == {"a"}


@pytest.mark.parametrize(
    ("action", "status", "words", "suggestion"),
    [
        (
            "start",
            "stopping",
            "started while it is stopping",
            "Wait until the status changes; it is read again every few seconds.",
        ),
        (
            "stop",
            "pulling",
            "stopped while it is pulling its image",
            "Wait until the status changes; it is read again every few seconds.",
        ),
        ("restart", "exited", "restarted while it is stopped", "Possible now: start."),
        ("start", "migrating", "started while it is being migrated", "No action is possible in this status."),
        (
            "stop",
            "brand-new-status",
            "stopped while it is in status brand-new-status",
            "No action is possible in this status.",
        ),
    ],
)
def test_impossible_action_is_refused_with_a_suggestion(
    action: str, status: str, words: str, suggestion: str, client: Client, novita: NovitaAnswers
) -> None:
    fill(novita, make_row("a", name="train", status=status))
    novita.shows(make_row("a", name="train", status=status))

    answer = client.post(f"/api/instances/a/{action}")

    assert answer.status_code == 409
    assert answer.json()["code"] == "INVALID_STATE"
    assert answer.json()["message"] == f"train can't be {words}."
    assert answer.json()["suggestion"] == suggestion
    assert list_calls(novita) == ["read"]


# --- Lost answers


@EACH_LOST
@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("stop", {}, {"status": "stopping"}),
        ("stop", {}, {"status": "exited"}),
        ("start", {"status": "exited"}, {"status": "running"}),
        ("restart", {}, {"status": "toRestart"}),
        ("restart", {}, {"lastStartedAt": "1760009999"}),
    ],
)
def test_lost_answer_is_resolved_by_a_read(
    lost: Json, action: str, before: Json, after: Json, client: Client, novita: NovitaAnswers
) -> None:
    fill(novita, make_row("a", **before))
    novita.takes(action, "a", **lost)
    novita.shows(make_row("a", **after))

    answer = client.post(f"/api/instances/a/{action}")

    status = after.get("status", "running")
    assert answer.status_code == 202
    assert answer.json()["status"] == status
    assert read_status(client) == status
    assert list_calls(novita) == [action, "read"]


@EACH_LOST
@pytest.mark.parametrize(
    ("action", "status", "suggestion"),
    [
        ("stop", "running", "Possible now: stop, restart."),
        ("restart", "running", "Possible now: stop, restart."),
        ("start", "exited", "Possible now: start."),
    ],
)
def test_action_without_effect_is_reported_with_the_status(
    lost: Json,
    action: str,
    status: str,
    suggestion: str,
    client: Client,
    novita: NovitaAnswers,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill(novita, make_row("a", name="train", status=status))
    novita.takes(action, "a", **lost)
    novita.shows(make_row("a", name="train", status=status))

    answer = client.post(f"/api/instances/a/{action}")

    body = answer.json()
    assert answer.status_code >= 400 and body["success"] is False
    assert body["message"].endswith(f" The instance is {'stopped' if status == 'exited' else status}.")
    assert body["suggestion"] == suggestion
    assert read_status(client) == status
    assert list_calls(novita) == [action, "read", "read"]
    (line,) = get_outcomes(caplog)
    assert line.startswith(f"action {action} id=a by=local-owner outcome={body['code']} error=")


def test_effect_shown_by_the_second_read_counts(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a"))
    novita.takes("stop", "a", **LOST[0])
    novita.shows(make_row("a"))
    novita.shows(make_row("a", status="toStop"))

    answer = client.post("/api/instances/a/stop")

    assert answer.status_code == 202
    assert answer.json()["status"] == "toStop"


@EACH_LOST
def test_unreadable_effect_is_reported_as_not_known(lost: Json, client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a"))
    novita.takes("stop", "a", **lost)
    novita.shows(make_row("a"), status=401)

    answer = client.post("/api/instances/a/stop")

    assert answer.status_code >= 400
    assert "Whether the request took effect is not known" in answer.json()["message"]
    assert answer.json()["suggestion"] == "Check the instance in a minute, before you repeat the request."
    assert read_status(client) == "running"
    assert list_calls(novita).count("stop") == 1


# --- No such instance


def test_unknown_instance_is_read_once(client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a"))
    novita.lacks("b")

    answer = client.post("/api/instances/b/stop")

    assert answer.status_code == 404
    assert answer.json()["code"] == "INSTANCE_NOT_FOUND"
    assert list_calls(novita) == ["read"]


@pytest.mark.parametrize("lost", [None, LOST[0]], ids=["said at once", "said after a lost answer"])
def test_instance_removed_at_novita_leaves_the_inventory(
    lost: Json | None, client: Client, novita: NovitaAnswers
) -> None:
    fill(novita, make_row("a"), make_row("b"))
    novita.takes("stop", "a", **(lost or {"status": 400, "json": make_refusal(400, "RESOURCE_NOT_FOUND", "gone")}))
    if lost:
        novita.lacks("a")

    answer = client.post("/api/instances/a/stop")

    assert answer.status_code == 404
    assert answer.json()["code"] == "INSTANCE_NOT_FOUND"
    assert [one["id"] for one in client.get("/api/instances").json()["instances"]] == ["b"]


LONG = ["x" * 129, "x" * 10_000]
CONTROLS = ["%00", "a%00", "a%0d%0aX-Evil:1", "a%0a", "%7f", "%E2%80%AE"]
PATHS = ["..%2f..", "%2e%2e/b", "a/b", "%2f", ""]


@pytest.mark.parametrize("id_", [*LONG, *CONTROLS, *PATHS], ids=lambda id_: str(id_)[:20] or "empty")
def test_invalid_id_is_never_sent(id_: str, client: Client, novita: NovitaAnswers) -> None:
    fill(novita, make_row("a"))

    answer = client.post(f"/api/instances/{id_}/stop")

    assert answer.status_code == 404
    assert answer.json()["success"] is False
    assert not novita.mock.calls


@pytest.mark.parametrize("id_", ["..", "a b", "a+b", "%FF", "🚀", "<script>", "a?b#c&d=e", "'\"\\"])
def test_unusual_id_reaches_novita_unchanged(id_: str, client: Client, novita: NovitaAnswers) -> None:
    novita.lacks(id_)

    answer = client.post(f"/api/instances/{quote(id_, safe='')}/stop")

    assert answer.status_code == 404
    assert answer.json()["code"] == "INSTANCE_NOT_FOUND"
    assert list_calls(novita) == ["read"]


# --- Refusals


@pytest.mark.parametrize(
    ("answer", "status", "code", "words"),
    [
        ({"status": 429}, 503, "NOVITA_RATE_LIMITED", "limits"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, 503, "NOVITA_RATE_LIMITED", "limits"),
        ({"status": 401, "json": make_refusal(401, "INVALID_API_KEY", "")}, 502, "NOVITA_REJECTED_KEY", "key"),
        ({"status": 403, "json": make_refusal(403, "FAILED_TO_AUTH", "")}, 502, "NOVITA_REJECTED_KEY", "key"),
        (
            {"status": 400, "json": make_refusal(400, "INSUFFICIENT_RESOURCE", "")},
            409,
            "INSUFFICIENT_RESOURCE",
            "no free GPU",
        ),
        ({"status": 400, "json": make_refusal(400, "X", "balance too low")}, 409, "NOVITA_REFUSED", "balance too low"),
    ],
)
def test_refusal_is_reported_and_not_repeated(
    answer: Json, status: int, code: str, words: str, client: Client, novita: NovitaAnswers
) -> None:
    fill(novita, make_row("a", status="exited"))
    novita.takes("start", "a", **answer)

    refusal = client.post("/api/instances/a/start")

    assert refusal.status_code == status
    assert refusal.json()["code"] == code
    assert words in refusal.json()["message"]
    assert refusal.get("Retry-After") == answer.get("headers", {}).get("Retry-After")
    assert list_calls(novita) == ["start"]
    assert read_status(client) == "exited"


# --- Redis away


@pytest.mark.parametrize(("action", "status"), [("stop", "running"), ("restart", "running"), ("start", "exited")])
def test_without_redis_the_instance_is_read_from_novita_and_the_action_is_sent(
    action: str, status: str, client: Client, novita: NovitaAnswers, redis_server: FakeServer
) -> None:
    novita.shows(make_row("a", status=status))
    novita.takes(action, "a")
    redis_server.connected = False

    answer = client.post(f"/api/instances/a/{action}")

    assert answer.status_code == 202
    assert list_calls(novita) == ["read", action]
    assert answer.json()["message"] == (
        f"{action.capitalize()} initiated for name-a. The dashboard shows it later: Redis can't be reached."
    )


def test_without_redis_a_protected_instance_is_not_stopped(
    client: Client, novita: NovitaAnswers, redis_server: FakeServer
) -> None:
    fill(novita, make_row("a"))
    client.post("/api/instances/a/protect", {"reason": "the demo"})
    novita.shows(make_row("a"))
    redis_server.connected = False

    answer = client.post("/api/instances/a/stop")

    assert answer.status_code == 409
    assert answer.json()["code"] == "PROTECTED"
    assert list_calls(novita) == ["read"]


def test_without_redis_an_unknown_instance_is_not_found(
    client: Client, novita: NovitaAnswers, redis_server: FakeServer
) -> None:
    novita.lacks("a")
    redis_server.connected = False

    answer = client.post("/api/instances/a/stop")

    assert answer.status_code == 404
    assert answer.json()["code"] == "INSTANCE_NOT_FOUND"


def test_redis_that_returns_during_a_stop_shows_it(
    client: Client, novita: NovitaAnswers, redis_server: FakeServer
) -> None:
    fill(novita, make_row("a"))
    novita.shows(make_row("a"))
    redis_server.connected = False

    def recover(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        redis_server.connected = True
        return 200, {}, "{}"

    novita.mock.add_callback(responses.POST, f"{API}/gpu/instance/stop", recover)

    answer = client.post("/api/instances/a/stop")

    assert answer.json()["message"] == "Stop initiated for name-a"
    assert read_status(client) == "toStop"


def test_accepted_action_is_a_success_when_redis_fails_after_it(
    client: Client, novita: NovitaAnswers, redis_server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    fill(novita, make_row("a"))

    def die(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        redis_server.connected = False
        return 200, {}, "{}"

    novita.mock.add_callback(responses.POST, f"{API}/gpu/instance/stop", die)

    answer = client.post("/api/instances/a/stop")

    assert answer.status_code == 202
    assert answer.json()["status"] == "toStop"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("the inventory does not show toStop of a yet: ")
