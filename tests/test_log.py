"""How the log reads, as text for people and as JSON for programs: one line an event, whatever it quotes."""

import io
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from novita_site.log import Fields, Ids, JsonFormatter, LineFormatter, OnceAMinute, RequestIdFilter, bound
from tests import python
from tests.settings import LOGGING

ROOT = Path(__file__).resolve().parent.parent
TEXT = LineFormatter(LOGGING["formatters"]["line"]["format"])
HOSTILE = [
    'a\n2026-01-15 10:30:00,000 CRITICAL instances [-] forged\n{"level": "CRITICAL"}',
    "a\r\nb",
    "a\x00b",
    "a\x1b[2Jb",
    "a\x85b",
    "a\u2028b",
    "a\u202eb",
    "a\ud800b",
]
SHOWN = ["a\\n2026", "a\\r\\nb", "a\\x00b", "a\\x1b[2Jb", "a\\x85b", "a\\u2028b", "a\\u202eb", "a\\ud800b"]

Log = Callable[[logging.Formatter, Callable[[logging.Logger], None]], str]


def fail(words: str) -> None:
    raise ValueError(words)


@pytest.fixture
def write() -> Log:
    """Return what an event writes into a log of this format, read as bytes by whoever keeps it."""

    def write(formatter: logging.Formatter, say: Callable[[logging.Logger], None]) -> str:
        file = io.BytesIO()
        handler = logging.StreamHandler(io.TextIOWrapper(file, "utf-8", "backslashreplace", write_through=True))
        handler.setFormatter(formatter)
        handler.addFilter(RequestIdFilter())
        logger = logging.Logger("instances.test")
        logger.addHandler(handler)
        say(logger)
        return file.getvalue().decode()

    return write


def say_failure(words: str) -> Callable[[logging.Logger], None]:
    def say(logger: logging.Logger) -> None:
        try:
            fail(words)
        except ValueError:
            logger.exception("it failed")

    return say


def test_an_event_is_one_json_object_with_all_that_is_known(write: Log) -> None:
    with bound(Ids("5f0c", "00-1-2-01")):
        written = write(JsonFormatter(), lambda logger: logger.warning("stopped in %d ms%s", 20, Fields(id="ä1", n=3)))

    event = json.loads(written)
    timestamp = event.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)
    assert event == {
        "level": "WARNING",
        "logger": "instances.test",
        "requestId": "5f0c",
        "traceparent": "00-1-2-01",
        "message": "stopped in 20 ms",
        "id": "ä1",
        "n": 3,
    }


def test_fields_are_at_the_end_of_a_line_of_text(write: Log) -> None:
    fields = Fields(id="a1", by="ann (shell)", empty="", count=3, none=None)

    assert write(TEXT, lambda logger: logger.info("stopped%s", fields)).endswith(
        " stopped id=a1 by='ann (shell)' empty='' count=3 none=None\n"
    )


def test_no_field_replaces_what_each_event_has(write: Log) -> None:
    fields = Fields(level="CRITICAL", message="forged", requestId="forged", id="a")

    event = json.loads(write(JsonFormatter(), lambda logger: logger.info("stopped%s", fields)))

    assert event["level"] == "INFO"
    assert event["message"] == "stopped"
    assert event["requestId"] == "-"
    assert event["id"] == "a"


def test_a_value_that_json_lacks_is_written_as_text(write: Log) -> None:
    event = json.loads(write(JsonFormatter(), lambda logger: logger.info("stopped%s", Fields(path=Path("a")))))

    assert event["path"] == "a"


def test_an_exception_is_one_string_of_its_event(write: Log) -> None:
    (line,) = write(JsonFormatter(), say_failure("a bug")).splitlines()

    event = json.loads(line)
    assert event["message"] == "it failed"
    assert event["exception"].startswith("Traceback (most recent call last):\n")
    assert event["exception"].endswith("\nValueError: a bug")


@pytest.mark.parametrize("formatter", [TEXT, JsonFormatter()], ids=["text", "json"])
@pytest.mark.parametrize(("name", "shown"), [*zip(HOSTILE, SHOWN, strict=True)], ids=SHOWN)
def test_a_hostile_name_stays_in_its_line(write: Log, formatter: logging.Formatter, name: str, shown: str) -> None:
    (line,) = write(formatter, lambda logger: logger.info("stop name=%s", name)).splitlines()

    message = json.loads(line)["message"] if isinstance(formatter, JsonFormatter) else line
    assert line.isprintable() and message.isprintable()
    assert f"stop name={shown}" in message


@pytest.mark.parametrize("formatter", [TEXT, JsonFormatter()], ids=["text", "json"])
@pytest.mark.parametrize("words", HOSTILE, ids=SHOWN)
def test_a_hostile_error_stays_in_its_line(write: Log, formatter: logging.Formatter, words: str) -> None:
    (line,) = write(formatter, say_failure(words)).splitlines()

    assert line.isprintable()
    # What a parser that knows no half surrogates is given.
    line.encode("ascii" if isinstance(formatter, JsonFormatter) else "utf-8")
    if isinstance(formatter, JsonFormatter):
        json.loads(line)["exception"].encode("utf-8")


SAY = """
import logging, warnings
{set_up}
warnings.warn("by Python")
logging.getLogger("instances").info("by itself")
logging.getLogger("{other}").error("its own")
try:
    1 / 0
except ArithmeticError:
    logging.getLogger("{other}").exception("it failed")
"""
# How each process comes to its log, and a logger of the library that runs it.
WEB = ("import novita_site.wsgi", "django.security")
WORKER = ("from novita_site.celery import app; app.loader.init_worker(); app.log.setup()", "celery.worker")
GUNICORN = (
    "from gunicorn import config, glogging; glogging.Logger(config.Config()); import novita_site.wsgi",
    "gunicorn.error",
)
PROCESSES = {"web": WEB, "worker": WORKER, "gunicorn": GUNICORN}


@pytest.mark.thorough
@pytest.mark.parametrize("process", PROCESSES)
def test_every_line_of_a_process_is_json(tmp_path: Path, process: str) -> None:
    lines = run(tmp_path, process, LOG_FORMAT="json").splitlines()

    warning, *events = [json.loads(line) for line in lines]
    assert warning["logger"] == "py.warnings" and "UserWarning: by Python" in warning["message"]
    other = PROCESSES[process][1]
    assert [(event["logger"], event["message"]) for event in events] == [
        ("instances", "by itself"),
        (other, "its own"),
        (other, "it failed"),
    ]
    assert "ZeroDivisionError" in events[-1]["exception"]


@pytest.mark.thorough
@pytest.mark.parametrize("variables", [{}, {"LOG_FORMAT": "text"}], ids=["unset", "text"])
def test_the_log_is_text_unless_told_otherwise(tmp_path: Path, variables: dict[str, str]) -> None:
    lines = run(tmp_path, "gunicorn", **variables).splitlines()

    assert len(lines) == 4
    assert all(
        re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) [\w.]+ \[-\] ", line) for line in lines
    )


def run(folder: Path, process: str, **variables: str) -> str:
    """Return the log of a process that says four things."""
    set_up, other = PROCESSES[process]
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "novita_site.settings",
        "SECRET_KEY": "FAKE-SECRET-django",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "REDIS_URL": "unix:///nowhere/redis.sock",
        "NOVITA_SYNC_ON_STARTUP": "0",
        "NOVITA_SYNC_INTERVAL": "0",
        **variables,
    }
    code = SAY.format(set_up=set_up, other=other)
    ended = python.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return ended.stderr


# --- What repeats


class Kept(logging.Handler):
    """Keeps the lines that a filter lets through."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self._once = OnceAMinute(seconds)
        self.addFilter(self._once)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def end_minute(self) -> None:
        """Do at once what the filter does at the end of a minute."""
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer) and getattr(thread.function, "__self__", None) is self._once:
                thread.cancel()
                thread.function(*thread.args, **thread.kwargs)


@pytest.fixture
def kept() -> Iterator[Kept]:
    # The counts of other files' refusals come a minute later, and not here.
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()
    handler = Kept(60)
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def test_refusals_of_a_kind_are_one_line_and_then_their_number(kept: Kept) -> None:
    security = logging.getLogger("django.security.DisallowedHost")
    for number in range(500):
        try:
            fail(f"Invalid HTTP_HOST header: 'a{number}.example'")
        except ValueError as exc:
            security.error(str(exc), exc_info=exc)

    assert kept.lines == ["ERROR Invalid HTTP_HOST header: 'a0.example'"]
    kept.end_minute()
    assert kept.lines[1:] == ["ERROR 499 more like this in 60 s: Invalid HTTP_HOST header: 'a0.example'"]
    security.error("again")
    assert kept.lines[2:] == ["ERROR again"]


def test_kinds_are_told_apart_and_one_that_stays_alone_has_no_number(kept: Kept) -> None:
    for kind in ("a", "b", "a"):
        logging.getLogger("instances.test").warning("refused %s", kind, extra={"rejection": kind})

    kept.end_minute()
    assert kept.lines == ["WARNING refused a", "WARNING refused b", "WARNING 1 more like this in 60 s: refused a"]


def test_a_long_refusal_is_cut(kept: Kept) -> None:
    logging.getLogger("django.security.DisallowedHost").error("Invalid HTTP_HOST header: " + "a" * 8000)

    assert len(kept.lines[0]) < 300


def test_what_the_service_does_is_never_held_back(kept: Kept) -> None:
    for number in range(100):
        logging.getLogger("instances.operations.orders").warning("operation %d: stop failed", number)
        logging.getLogger("instances.operations.orders").warning("the same")

    assert len(kept.lines) == 200


def test_an_error_of_the_service_is_complete_and_its_repetitions_are_counted(kept: Kept) -> None:
    log = logging.getLogger("instances.test")
    for _ in range(100):
        say_failure("the reason")(log)
    for number in range(3):
        try:
            fail("the reason")
        except ValueError:
            log.exception("operation %d failed", number)

    assert "ERROR it failed\nTraceback" in kept.lines[0] and "ValueError: the reason" in kept.lines[0]
    assert [line.split("\n")[0] for line in kept.lines[1:]] == [f"ERROR operation {n} failed" for n in range(3)]
    kept.end_minute()
    assert kept.lines[4] == "ERROR 99 more like this in 60 s: it failed"


def test_a_fork_that_lost_the_timers_writes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    once = OnceAMinute(60)
    record = logging.makeLogRecord({"name": "django.security.csrf", "msg": "Forbidden"})
    assert [once.filter(record), once.filter(record)] == [True, False]
    now = time.monotonic()

    monkeypatch.setattr("novita_site.log.time.monotonic", lambda: now + 121)

    assert once.filter(record)
