"""Starts Python processes of the project in a third of the time: the fork server (`tests.forkserver`) forks them.

A new Python spends 0.6 of the 0.9 s that `manage.py check` takes on importing libraries. A fork that starts with the
settings of an earlier one is made from a process that has imported the project, too. `start` and `run` are as
`subprocess.Popen` and `subprocess.run`, with the options that the tests need. What a fork can't do they start as usual:
another program, an option of Python itself, an environment that changes how Python starts, arguments in bytes.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The command of a fork that becomes such a process.
SERVE = "serve prepared"
FORKSERVER = Path(__file__).with_name("forkserver.py")
ROOT = FORKSERVER.parent.parent
# The entry points of the project.
ENTRIES = {("-m", "gunicorn"), ("-m", "celery"), ("manage.py",)}
# What is decided when the project is imported depends on these (`tests.prepared` compares all of it).
DECIDING = (
    "DJANGO_SETTINGS_MODULE",
    "NOVITA_BASE_URL",
    "NOVITA_API_KEY",
    "DEBUG",
    "PATH_PREFIX",
    "REQUIRE_LOGIN",
    "OIDC_ISSUER",
)
# Each has 60 MB of its own.
MOST_PREPARED = 3
# A fork takes these over; any other variable of Python's needs a new Python.
KNOWN_VARIABLES = {"PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE"}


@functools.cache
def start_server(*arguments: str) -> socket.socket:
    """Start the fork server of this process. Return the socket that takes requests."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    with its:
        command = [sys.executable, str(FORKSERVER), str(its.fileno()), *arguments]
        server = subprocess.Popen(command, env=environment, pass_fds=[its.fileno()])

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


# Threads of a test start processes, too.
starting = threading.RLock()
# By the deciding variables, the sockets of processes that have imported the project. The first use needs none.
prepared: dict[tuple[str | None, ...], Any] = {}


def find_prepared(args: Sequence[str], cwd: str | Path, env: Mapping[str, str]) -> socket.socket | None:
    """Return the socket of a process that has imported the project with such variables; None for their first use."""
    command = tuple(args[1:3] if args[1] == "-m" else args[1:2])
    if command not in ENTRIES or Path(cwd).resolve() != ROOT or "DJANGO_SETTINGS_MODULE" not in env:
        return None
    key = tuple(env.get(name) for name in DECIDING)
    is_first, server = key not in prepared, prepared.pop(key, None)
    if not is_first and server is None:
        server, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            Fork([args[0], SERVE], cwd=cwd, env=env, stdin=its, server=start_server())
        atexit.register(server.close)
        used = [one for one, other in prepared.items() if other]
        if len(used) == MOST_PREPARED:
            # It ends with the last of its forks.
            prepared[used[0]].close()
            prepared[used[0]] = None
    # The last used one is the last.
    prepared[key] = server
    return server


class Fork:
    """A process that the fork server started, with the methods of `subprocess.Popen`."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        cwd: str | Path,
        env: Mapping[str, str],
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        start_new_session: bool = False,
        server: socket.socket | None = None,
    ) -> None:
        self.args = args
        self.returncode: int | None = None
        self._lock = threading.Lock()
        request = {"command": args[1:], "cwd": str(cwd), "env": dict(env), "startNewSession": start_new_session}
        self.pid = 0
        with open(os.devnull, "r+b") as null, starting:
            streams = [_find_descriptor(one, usual, null) for usual, one in enumerate([stdin, stdout, stderr])]
            servers = [server] if server else [find_prepared(args, cwd, env), start_server()]
            for one in filter(None, servers):
                self.pid = self.pid or self._ask(one, request, streams)

    def _ask(self, server: socket.socket, request: dict[str, Any], streams: list[int]) -> int:
        """Return the process id; 0 when this server can't do it."""
        # The fork writes its process id there, and the fork server the exit status.
        self._report, report = os.pipe()
        try:
            socket.send_fds(server, [json.dumps(request).encode()], [*streams, report])
        finally:
            os.close(report)
        pid = self._read()
        if not pid:
            os.close(self._report)
        return pid

    def _read(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            part = os.read(self._report, 1)
            assert part, "the fork server is gone"
            line += part
        return int(line)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self.returncode is None:
                if not select.select([self._report], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                self.returncode = self._read()
                os.close(self._report)
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _find_descriptor(stream: Any, usual: int, null: Any) -> int:
    if stream is None:
        return usual
    if stream == subprocess.DEVNULL:
        stream = null
    return stream if isinstance(stream, int) else int(stream.fileno())


def can_fork(args: Sequence[Any], env: Mapping[Any, Any], options: Mapping[str, Any]) -> bool:
    """Tell whether a fork would do just what a new Python does."""
    is_text = all(isinstance(one, str) for one in [*args, *env])
    return (
        is_text
        and options.keys() <= {"cwd", "stdin", "stdout", "stderr", "start_new_session"}
        and args[0] == sys.executable
        and args[1] in {"-m", "-c", "manage.py"}
        and {name for name in env if name.startswith("PYTHON")} <= KNOWN_VARIABLES
    )


def start(args: Sequence[Any], *, env: Mapping[Any, Any], **options: Any) -> "Fork | subprocess.Popen[bytes]":
    """Start the process."""
    starter = Fork if can_fork(args, env, options) else subprocess.Popen
    return starter(args, env=env, **options)


def run(
    args: Sequence[Any],
    *,
    env: Mapping[Any, Any],
    capture_output: bool = False,
    text: bool = False,
    timeout: float | None = 120,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run the process to its end."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        if capture_output:
            options |= {"stdout": output, "stderr": errors}
        process = start(args, env=env, **options)
        try:
            status = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        written: list[Any] = [None, None]
        if capture_output:
            for number, file in enumerate([output, errors]):
                file.seek(0)
                written[number] = file.read().decode() if text else file.read()
    done = subprocess.CompletedProcess(args, status, *written)
    if check:
        done.check_returncode()
    return done
