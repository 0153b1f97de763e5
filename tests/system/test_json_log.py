"""LOG_FORMAT=json: each line of each process is a JSON object."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Process, ended, wait_until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read(text: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in text.splitlines()]
    assert all({"timestamp", "level", "logger", "requestId", "message"} <= event.keys() for event in events)
    return events


def find(events: list[dict[str, Any]], message: str) -> dict[str, Any]:
    return next(event for event in events if event["message"].startswith(message))


def test_web_server_and_worker_write_json(environment: dict[str, str], tmp_path: Path, start_service: Start) -> None:
    environment |= {"LOG_FORMAT": "json", "TRUSTED_PROXIES": "127.0.0.1", "REQUIRE_LOGIN": "0"}
    gunicorn = ["gunicorn", "-c", "python:novita_site.gunicorn", "--access-logfile", "-", "novita_site.wsgi"]
    service = start_service(command=gunicorn).wait_until_ready()
    # With its banner.
    command = [sys.executable, "-m", "celery", "-A", "novita_site", "worker"]
    with ended(Process(command, environment, tmp_path / "worker.log")) as worker:
        wait_until(lambda: service.get_worker() == "up", "the worker runs")
        service.get("/api/instances", headers={"X-Request-Id": "from-the-proxy", "traceparent": TRACE})
        service.popen.terminate()
        worker.popen.terminate()
        service.wait()
        worker.wait()

    events = read(service.log)
    read(worker.log)
    assert find(events, "Novita panel ")["level"] == "INFO"
    synced = find(events, "sync done")
    assert synced["instances"] == 25
    assert synced["trigger"] == "startup"
    asked = next(event for event in events if event.get("path") == "/api/instances")
    assert asked["logger"] == "gunicorn.access"
    assert asked["status"] == 200
    assert asked["requestId"] == "from-the-proxy"
    assert asked["traceparent"] == TRACE


def run(environment: dict[str, str], *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *arguments]
    return python.run(
        command,
        cwd=ROOT,
        env={**environment, "LOG_FORMAT": "json", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_commands_write_json(environment: dict[str, str]) -> None:
    migrated = run(environment, "migrate")
    assert find(read(migrated.stdout), "Operations to perform")["logger"] == "stdout"

    refused = run(environment, "migrate", WEB_WORKERS="many")
    (event,) = read(refused.stderr)
    assert event["message"].startswith("WEB_WORKERS: ")
    assert refused.returncode == 1

    unknown = run(environment, "nosuch")
    assert find(read(unknown.stderr), "Unknown command")["level"] == "WARNING"


def test_traceback_is_one_event(environment: dict[str, str]) -> None:
    failed = run(environment, "shell", "-c", "1 / 0")

    event = find(read(failed.stderr), "ended by an error")
    assert event["level"] == "CRITICAL"
    assert event["exception"].startswith("Traceback")
    assert event["exception"].endswith("ZeroDivisionError: division by zero")
    assert failed.returncode == 1


def test_result_of_a_command_stays_as_it_is(environment: dict[str, str]) -> None:
    done = run(environment, "sync_instances")

    assert done.stdout.startswith("new: ")
    assert find(read(done.stderr), "sync done")["added"] == 25
