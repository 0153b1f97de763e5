"""Becomes Python processes of the project. `tests.python` starts it, as a script of its own.

It imports the libraries once, without settings and without a line of the project. For each request it forks; the fork
takes over the request's environment, folder, streams and arguments, and runs the command as a new Python would.

With arguments of pytest it becomes test processes: it has collected these tests before, so it has imported them all.

A fork can become a server in its turn, with the project imported (`tests.prepared`).
"""
# ruff: noqa: SIM115 - the streams are open for as long as the process

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NoReturn

# What takes longest to import, by `python -X importtime`, and needs no settings. Not gunicorn: the refresher tells by
# that module how the service is started.
LIBRARIES = [
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.events.state",
    "celery.fixups.django",
    "cryptography.fernet",
    "cryptography.hazmat.primitives.kdf.hkdf",
    "cryptography.x509",
    "dj_database_url",
    "dotenv",
    "django.contrib.admin",
    "django.contrib.postgres.fields",
    "django.contrib.sessions.middleware",
    "django.contrib.staticfiles.storage",
    "django.core.handlers.wsgi",
    "django.core.management.commands.migrate",
    "django.core.management.commands.runserver",
    "django.core.servers.basehttp",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.autodetector",
    "django.forms",
    "django.template.defaulttags",
    "django.test",
    "django.views.debug",
    "django.views.i18n",
    "django_redis.cache",
    "honcho.manager",
    "inflection",
    "jinja2",
    "jsonschema",
    "jwt",
    "kombu.transport.memory",
    "markdown",
    "mozilla_django_oidc.utils",
    "psycopg",
    "pygments.formatters.html",
    "redis.asyncio",
    "requests",
    "requests_hardened",
    "rest_framework.serializers",
    "standardwebhooks",
    "uritemplate",
    "whitenoise.middleware",
    "yaml",
]


# The command of a fork that serves in its turn.
SERVE = "serve prepared"


def main(control: socket.socket) -> list[str]:
    """Import what the forks share. Then serve."""
    if sys.argv[2:]:
        collect(sys.argv[2:])
    else:
        for name in LIBRARIES:
            importlib.import_module(name)
    return serve(control)


def serve(control: socket.socket, fits: Callable[[], bool] | None = None) -> list[str]:
    """Fork for each request. Return the command of the request in the fork; never return in this process.

    With `fits`, this process is for some requests only: a fork that it doesn't fit refuses its request and ends.
    """
    # The forks share this memory as long as no collection writes to it.
    gc.collect()
    gc.freeze()
    ended, wake_up = os.pipe()
    os.set_blocking(wake_up, False)
    os.set_blocking(ended, False)
    signal.set_wakeup_fd(wake_up)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    reports: dict[int, int] = {}
    sources = [control, ended]
    while control in sources or (fits and reports):
        ready, _, _ = select.select(sources, [], [])
        if control in ready:
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 4)
            if not message:
                # The tests are over, or need no more of these forks. A fork goes on without its parent.
                sources.remove(control)
                continue
            request = json.loads(message)
            if (pid := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                become(request, descriptors, fits)
                # No others: the log of the unit tests has a stream of its own.
                close([control.detach(), ended, wake_up, *descriptors, *reports.values()])
                return request["command"]
            *streams, reports[pid] = descriptors
            close(streams)
        if ended in ready:
            os.read(ended, 1024)
            for pid, status in list_ended():
                # Nobody waits for a fork that refused its request.
                with contextlib.suppress(BrokenPipeError):
                    os.write(reports[pid], b"%d\n" % os.waitstatus_to_exitcode(status))
                close([reports.pop(pid)])
    sys.exit()


def collect(arguments: list[str]) -> None:
    """Collect the tests. The forks do so again, and report what fails; the rest of their preparation is done once."""
    import pytest

    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        pytest.main([*arguments, "--collect-only", "--numprocesses", "0"])

    from tests import warm

    warm.prepare()


def serve_prepared() -> list[str]:
    """Serve with the project imported. The requests come by the standard input."""
    sys.path[0] = os.getcwd()
    prepared = importlib.import_module("tests.prepared")
    return serve(socket.socket(fileno=os.dup(0)), prepared.prepare())


def list_ended() -> Iterable[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


def close(descriptors: Iterable[int]) -> None:
    for one in descriptors:
        os.close(one)


def become(request: dict[str, Any], descriptors: list[int], fits: Callable[[], bool] | None) -> None:
    """Take over what the request says, and report the process id; 0 says that another process must do it."""
    if request["startNewSession"]:
        os.setsid()
    *streams, report = descriptors
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    sys.argv = get_arguments(request["command"])
    if fits and not fits():
        os.write(report, b"0\n")
        os._exit(0)
    os.write(report, b"%d\n" % os.getpid())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    is_unbuffered = bool(request["env"].get("PYTHONUNBUFFERED"))
    buffering = 1 if is_unbuffered or os.isatty(1) else -1
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = open(1, "w", buffering, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def get_arguments(command: list[str]) -> list[str]:
    return command[1:] if command[0] == "-m" else command


def run(command: list[str]) -> None:
    """Run `-m module …`, `-c code …` or `script.py …`, as Python does with these arguments."""
    kind = command[0]
    sys.argv = get_arguments(command)
    sys.path[0] = {"-m": os.getcwd(), "-c": ""}.get(kind, os.path.dirname(os.path.abspath(kind)))
    if kind == "-m":
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.modules["__main__"] = main_module = ModuleType("__main__")
        sys.argv = ["-c", *command[2:]]
        exec(command[1], vars(main_module))  # noqa: S102 - what a test says
    else:
        runpy.run_path(kind, run_name="__main__")


def end(status: int) -> NoReturn:
    """Exit as Python does, but for its last step: it would free all that the fork shares, in 0.07 s."""
    threading._shutdown()  # type: ignore[attr-defined]  # Python's own first step
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream and not stream.closed:
                stream.flush()
    except OSError:
        # Python has a message and a status for that.
        sys.exit(status)
    os._exit(status)


if __name__ == "__main__":
    command = main(socket.socket(fileno=int(sys.argv[1])))
    if command == [SERVE]:
        command = serve_prepared()
    try:
        run(command)
    except SystemExit as exc:
        # A text is left to Python, which prints it.
        if exc.code is None or isinstance(exc.code, int):
            end((exc.code or 0) & 0xFF)
        raise
    end(0)
