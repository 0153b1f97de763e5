"""gunicorn's configuration: `gunicorn -c python:novita_site.gunicorn novita_site.wsgi`."""

import signal
import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured

try:
    from novita_site import settings
except ImproperlyConfigured as exc:
    sys.exit(str(exc))
from novita_site.env import is_loopback

bind = f"[{settings.HOST}]:{settings.PORT}" if ":" in settings.HOST else f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_WORKERS
threads = settings.WEB_THREADS
worker_class = "gthread"
# Longer than the longest call to Novita that a request waits for.
graceful_timeout = 30
loglevel = "warning"
# It would be a file in the home folder, which nobody here uses.
control_socket_disable = True


def when_ready(server: Any) -> None:
    host = "localhost" if is_loopback(settings.HOST) else settings.HOST
    print(f"Serving http://{host}:{settings.PORT}/", flush=True)


def post_worker_init(worker: Any) -> None:
    """Make SIGTERM end a running sync at once, and with it the lock; then gunicorn goes on as it does."""
    from instances import startup

    stop_gracefully = signal.getsignal(signal.SIGTERM)

    def stop(signal_number: int, frame: Any) -> None:
        startup.end()
        if callable(stop_gracefully):
            stop_gracefully(signal_number, frame)

    signal.signal(signal.SIGTERM, stop)


def worker_exit(server: Any, worker: Any) -> None:
    from instances import startup

    startup.wait()
