"""One log line when the database or Redis becomes unavailable and one when it is back, whatever fails meanwhile."""

import io
import logging
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, OperationalError, connection

from instances import outages
from instances.outages import LoggedOnce, Outage
from tests.conftest import ApiClient


def get_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "instances.outages"]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_outage_is_one_line_at_its_start_and_one_with_a_count_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage("redis", clock)

    outage.note_success()
    for _ in range(1000):
        outage.note_failure("It can't be reached.", "refused")
    clock.now += 7
    for _ in range(3):
        outage.note_success()

    assert get_lines(caplog) == [
        "redis is unavailable: It can't be reached. refused",
        "redis is back after 7 s; failed calls: 1000",
    ]


def test_further_reasons_are_logged_up_to_a_few(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("redis")

    for number in range(100):
        outage.note_failure(f"reason {number}")

    assert len(get_lines(caplog)) == outages.MAX_REASONS


def test_store_that_only_refuses_writes_does_not_count_as_back(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage("database", clock)

    for _ in range(50):
        clock.now += 2
        outage.note_failure("database is locked")
        outage.note_success(quiet_seconds=10)
    clock.now += 10
    outage.note_success(quiet_seconds=10)

    assert get_lines(caplog) == [
        "database is unavailable: database is locked",
        "database is back after 108 s; failed calls: 50",
    ]


def log_error(error: Exception) -> bool:
    """Tell whether a request that fails with this error gets a log line."""
    try:
        raise error
    except Exception as exc:
        fields = (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("django.request", logging.ERROR, "", 0, "Internal Server Error", (), fields)
    return LoggedOnce().filter(record)


def test_only_bugs_are_logged_with_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logged = [log_error(error) for error in (OperationalError("gone\nmore"), OperationalError("gone"))]

    assert logged == [False, False]
    assert get_lines(caplog) == ["database is unavailable: gone"]
    assert log_error(IntegrityError("a bug")) and log_error(ValueError("a bug"))


@pytest.mark.django_db
def test_successful_statement_ends_the_outage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages.watch_connection(connection)
    monkeypatch.setattr(outages, "QUIET_SECONDS", 0)
    outages.note_database_error(OperationalError("gone"))

    User.objects.count()

    assert [line.split(" after")[0] for line in get_lines(caplog)] == [
        "database is unavailable: gone",
        "database is back",
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/operations", "/api/protections", "/admin/instances/operation/", "/"])
def test_hundred_requests_without_a_database_are_one_line(
    path: str, client: ApiClient, log_stream: io.StringIO
) -> None:
    client.raise_request_exception = False
    client.get("/livez")

    def refuse(execute: Callable[..., object], *args: object) -> None:
        raise OperationalError("connection refused")

    with connection.execute_wrapper(refuse):
        for _ in range(20):
            client.get(path)

    (line,) = log_stream.getvalue().splitlines()
    assert "database is unavailable: connection refused" in line
