"""A fork of the fork server can't be told from a new Python, as far as the project asks."""

import json
import os
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
