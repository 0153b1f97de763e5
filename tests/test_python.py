"""A fork of the fork server can't be told from a new Python, as far as the project asks."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import python

DESCRIBE = """
import json, os, signal, sys
json.dump({
    "arguments": sys.argv,
    "import path": sys.path[0],
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "name": __name__,
    "encodings": [(one.encoding, one.errors, one.fileno()) for one in (sys.stdin, sys.stdout, sys.stderr)],
    "signals": {one: str(signal.getsignal(one)) for one in ("SIGINT SIGTERM SIGCHLD SIGPIPE SIGHUP".split())},
    "descriptors": [one for one in range(3, 64) if os.path.exists(f"/proc/self/fd/{one}")],
    "modules": [one for one in sys.modules if one.split(".")[0] in ("gunicorn", "instances", "novita_site", "tests")],
    "is leader": os.getpid() == os.getsid(0),
}, sys.stdout)
""".replace("signal.getsignal(one)", "signal.getsignal(getattr(signal, one))")
# Without a locale Python sets LC_CTYPE for itself.
ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "NAME": "Ünïcode"}


def describe(start: Any, folder: Path, *arguments: str, is_session: bool) -> dict[str, Any]:
    with (folder / "described").open("w+") as output:
        command = [sys.executable, *arguments]
        process = start(command, cwd=folder, env=ENVIRONMENT, stdout=output, start_new_session=is_session)
        assert process.wait(60) == 0
        output.seek(0)
        described: dict[str, Any] = json.load(output)
    return described


@pytest.mark.thorough
@pytest.mark.parametrize("is_session", [True, False])
@pytest.mark.parametrize("arguments", [["-c", DESCRIBE, "a b"], ["-m", "described", "-x"], ["manage.py", "check"]])
def test_fork_sees_what_a_new_python_sees(tmp_path: Path, arguments: list[str], is_session: bool) -> None:
    for name in ("described.py", "manage.py"):
        (tmp_path / name).write_text(DESCRIBE)

    fork = describe(python.start, tmp_path, *arguments, is_session=is_session)

    assert fork == describe(subprocess.Popen, tmp_path, *arguments, is_session=is_session)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(4)", 4),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("raise KeyboardInterrupt", -signal.SIGINT),
    ],
)
def test_fork_ends_as_a_new_python_does(code: str, status: int) -> None:
    done = python.run([sys.executable, "-c", code], cwd="/", env=ENVIRONMENT, capture_output=True, text=True)

    assert done.returncode == status


def test_fork_ends_its_threads_and_writes_everything_before_its_end() -> None:
    code = "import atexit, threading; atexit.register(print, 'end'); threading.Timer(0.1, print, ['thread']).start()"

    done = python.run([sys.executable, "-c", code], cwd="/", env=ENVIRONMENT, capture_output=True, text=True)

    assert done.stdout == "thread\nend\n"


@pytest.mark.parametrize("code", ["print('text')", "import sys; sys.stdout.close()", "import sys; sys.stdout = None"])
def test_fork_ends_as_a_new_python_does_with_an_output_that_is_full_or_closed(code: str) -> None:
    statuses = []
    with open("/dev/full", "w") as full:
        for start in (python.start, subprocess.Popen):
            process = start([sys.executable, "-c", code], cwd="/", env=ENVIRONMENT, stdout=full, stderr=full)
            statuses.append(process.wait(60))

    assert statuses[0] == statuses[1]


def test_running_fork_has_no_exit_status_and_takes_signals() -> None:
    fork = python.start([sys.executable, "-c", "import time; time.sleep(60)"], cwd="/", env=ENVIRONMENT)
    running = fork.poll()

    fork.terminate()

    assert running is None
    assert fork.wait(30) == -signal.SIGTERM


DESCRIBE_PROJECT = """
import json, logging, sys, threading
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.urls import reverse
from instances import redis_client, tasks
json.dump({
    "keys": {name: repr(value) for name, value in vars(redis_client).items() if isinstance(value, str)},
    "tick": tasks.TICK_SECONDS,
    # Django adds to the settings of the database when they are used.
    "database": str(connection.settings_dict),
    "settings": {one: str(getattr(settings, one)) for one in filter(str.isupper, dir(settings)) if "NEEDED" not in one},
    "address": reverse("dashboard"),
    "logging": [str(logging.root), *(type(one).__name__ for one in logging.root.handlers)],
    "levels": {name: logging.getLogger(name).level for name in ("django", "instances", "celery")},
    "threads": len(threading.enumerate()),
    "stream": logging.root.handlers[0].stream is sys.stderr,
    "models": [model.__name__ for model in apps.get_models()],
    "servers": [name for name in ("novita_site.wsgi", "novita_site.celery", "gunicorn.arbiter") if name in sys.modules],
}, sys.stdout)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("variables", "is_prepared"),
    [
        (
            {"REDIS_URL": "redis://127.0.0.1:1/7", "DATABASE_URL": "sqlite:////other.sqlite3", "LOG_FORMAT": "json"},
            True,
        ),
        # A third is missing, so there is no single sign-on, and its addresses don't exist.
        ({"OIDC_CLIENT_SECRET": ""}, False),
        ({"WEB_THREADS": "no number"}, False),
    ],
)
def test_fork_with_the_project_imported_does_what_a_new_python_does(
    tmp_path: Path, variables: dict[str, str], is_prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        **ENVIRONMENT,
        "DJANGO_SETTINGS_MODULE": "tests.system.quick_settings",
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
        "FALLBACK_DIR": str(tmp_path),
        "SECRET_KEY": "FAKE-SECRET-django",
        "NOVITA_BASE_URL": "http://127.0.0.1:9",
        "OIDC_ISSUER": "https://login.example.com",
        "OIDC_CLIENT_ID": "panel",
        "OIDC_CLIENT_SECRET": "FAKE-SECRET-oidc",
        "OIDC_ROLES": "gpu-admins=admin",
    }
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-v0", "-c", DESCRIBE_PROJECT]
    options: Any = {"cwd": python.ROOT, "capture_output": True, "text": True}
    python.find_prepared(command, python.ROOT, environment)
    server = python.find_prepared(command, python.ROOT, environment)
    asked = []
    ask = python.Fork._ask

    def watched_ask(fork: python.Fork, *args: Any) -> int:
        asked.append(args[0])
        return ask(fork, *args)

    monkeypatch.setattr(python.Fork, "_ask", watched_ask)

    fork = python.run(command, env={**environment, **variables}, **options)

    new = subprocess.run(command, env={**environment, **variables}, check=False, **options)
    assert json.loads(fork.stdout or "{}") == json.loads(new.stdout or "{}")
    # Log lines begin with the time.
    assert re.sub("[0-9]", "", fork.stderr) == re.sub("[0-9]", "", new.stderr)
    assert fork.returncode == new.returncode
    assert asked == [server] if is_prepared else [server, python.start_server()]


@pytest.mark.parametrize(
    ("command", "variables", "options"),
    [
        (["bash", "-c", "true"], {}, {}),
        ([sys.executable, "-I", "manage.py"], {}, {}),
        ([sys.executable, "manage.py"], {"PYTHONIOENCODING": "ascii"}, {}),
        ([sys.executable, "manage.py"], {}, {"umask": 0}),
        ([sys.executable, "manage.py", b"\xff"], {}, {}),
    ],
)
def test_other_commands_are_started_as_usual(command: list[Any], variables: dict[str, str], options: Any) -> None:
    assert not python.can_fork(command, variables, options)
