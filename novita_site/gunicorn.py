"""gunicorn's configuration: `gunicorn -c python:novita_site.gunicorn novita_site.wsgi`."""

import functools
import gc
import json
import os
import signal
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from gunicorn import util
from gunicorn.glogging import Logger as GunicornLogger

from novita_site import __version__, log, memory, streams
from novita_site.env import is_loopback

if TYPE_CHECKING:
    from instances.errors import PanelError

memory.share_arenas()
streams.make_safe()
streams.write_json_if_wanted("stdout", "stderr")
# The worker class below uses Django's settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "novita_site.settings")
try:
    from novita_site import settings
except ImproperlyConfigured as exc:
    sys.exit(str(exc))

OPEN_MODE = (
    "No login: everybody on this machine is the owner. Behind a proxy or tunnel, or on a machine that you share, set "
    "REQUIRE_LOGIN=1."
)

bind = f"[{settings.HOST}]:{settings.PORT}" if ":" in settings.HOST else f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_WORKERS
# Four more threads answer the probes while all others wait for Novita.
threads = settings.WEB_THREADS + 4
worker_class = "novita_site.worker.PatientWorker"
# Per process. At the limit the connection that has waited longest is closed.
worker_connections = 512
# Longer than the pause between two polls of a page, which would connect anew for each one. A connection that the server
# closes may carry a request at that moment.
keepalive = 10
# The worker buffers answers.
sendfile = False
# Longer than any request waits for Novita.
graceful_timeout = 50
loglevel = "warning"
# The same log format, also for the master process.
logconfig_dict = settings.LOGGING
logger_class = "novita_site.gunicorn.Logger"
# The control socket would be a file in the home folder. It is unused.
control_socket_disable = True
# Only SECURE_PROXY_SSL_HEADER marks TLS. gunicorn would trust any client on this machine.
forwarded_allow_ips = ""


class Logger(GunicornLogger):  # type: ignore[misc]  # gunicorn has no types
    """Makes lines of the access log in our format, and none where nobody asks for one.

    gunicorn takes `logconfig_dict` for a wish, makes a line for each request (0.05 ms), and writes it nowhere.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        if settings.LOG_FORMAT == "json":
            for handler in (*self.access_log.handlers, *self.error_log.handlers):
                handler.setFormatter(log.JsonFormatter())

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        if settings.LOG_FORMAT != "json":
            super().access(resp, req, environ, request_time)
        elif self.access_log_enabled:
            headers = {name.lower(): value for name, value in resp.headers}
            figures = log.Fields(
                method=environ.get("REQUEST_METHOD"),
                path=environ.get("RAW_URI", ""),
                status=int(str(resp.status).split(None, 1)[0]),
                bytes=resp.sent,
                seconds=round(request_time.total_seconds(), 6),
                address=environ.get("REMOTE_ADDR"),
                userAgent=environ.get("HTTP_USER_AGENT", ""),
            )
            ids = log.Ids(headers.get("x-request-id", "-"), headers.get("traceparent", ""))
            self.access_log.info("request%s", figures, extra={"ids": ids})

    def _compute_access_log_enabled(self) -> bool:
        return bool(self.cfg.accesslog)


def when_ready(server: Any) -> None:
    host = "localhost" if is_loopback(settings.HOST) else settings.HOST
    print(f"Novita panel {__version__}. Serving http://{host}:{settings.PORT}{settings.PATH_PREFIX}/", flush=True)
    if not settings.REQUIRE_LOGIN:
        print(OPEN_MODE, flush=True)


def pre_request(worker: Any, req: Any) -> None:
    """Give the application a function that checks for bytes after the announced body (`novita_site.body`)."""
    req.body.find_rest = functools.partial(find_rest, req)


def find_rest(req: Any, wait_seconds: float) -> bool:
    """Tell whether bytes follow the body. If so, drop them and close the connection after the answer."""
    rest = req.unreader.buf.getvalue() or req.unreader.sock.peek(wait_seconds)
    # Old clients send an empty line after a body.
    has_rest = bool(rest.strip(b"\r\n"))
    if has_rest:
        req.unreader.take_buffered()
        req.force_close()
    return has_rest


def pre_fork(server: Any, worker: Any) -> None:
    """Let a SIGTERM wait until the new worker handles it. The master's handler, which it has first, would lose it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def unblock_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


# gunicorn has no hook for that. The worker does it in `init_signals`.
os.register_at_fork(after_in_parent=unblock_sigterm)


def post_worker_init(worker: Any) -> None:
    """Prepare a worker that has loaded the application."""
    from instances.backup import holding
    from instances.monitoring import counters

    # A synchronization computes in this process. With Python's 5 ms, a request that waits for its turn of the processor
    # several times takes 24 ms longer (p99), with 1 ms 8.
    sys.setswitchinterval(0.001)
    # A full garbage collection stops all threads. What is loaded now stays, and needs 60 ms to look through.
    gc.freeze()
    _cancel_sync_on_sigterm()
    counters.begin()
    holding.begin()


def _cancel_sync_on_sigterm() -> None:
    """Let SIGTERM cancel a running sync and release its lease before gunicorn handles the signal.

    A thread does so. The signal may interrupt this one while it holds a lock that cancelling needs: when systemd ends
    all processes of the service, gunicorn's master sends a second signal, which interrupts the handling of the first.
    """
    from instances import refresher

    stop_gracefully = signal.getsignal(signal.SIGTERM)
    # Its `put` takes no lock that the signal may have interrupted.
    signals: SimpleQueue[int] = SimpleQueue()

    def end() -> None:
        signals.get()
        refresher.end()

    def stop(signal_number: int, frame: Any) -> None:
        signals.put(signal_number)
        if callable(stop_gracefully):
            stop_gracefully(signal_number, frame)

    threading.Thread(target=end, name="end", daemon=True).start()
    signal.signal(signal.SIGTERM, stop)


def worker_exit(server: Any, worker: Any) -> None:
    from instances import refresher

    refresher.wait()


def write_error(sock: Any, status: int, reason: str, message: str) -> None:
    """Refuse a request that never reaches Django (an address that is too long, a malformed header)."""
    from instances.errors import InvalidRequest, PanelError
    from instances.monitoring import counters, requests

    counters.count_request(requests.REFUSED, status)
    error = InvalidRequest(f"{reason}.") if status < 500 else PanelError()
    util.write_nonblock(sock, make_answer(error, status, reason, is_head=sock.is_head))


def make_answer(error: "PanelError", status: int, reason: str, *, is_head: bool) -> bytes:
    """Return an error in the format of the API, with the headers that Django would add."""
    from instances.answers import describe
    from novita_site.middleware import HEADERS, make_request_id

    body = json.dumps(describe(error, make_request_id())).encode()
    headers = {
        **HEADERS,
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
        "Cache-Control": "private, no-store",
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    head = "\r\n".join(
        [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    )
    return head.encode() + (b"" if is_head else body)


# gunicorn has no setting for its own error page.
util.write_error = write_error
