"""The team's receiver of webhooks and notifications, which fails now and then."""

import json
import random
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

FAILING_SHARE: Final = 0.1


class Receiver(ThreadingHTTPServer):
    """Stores what it accepted: path, message id, body."""

    daemon_threads = True

    def __init__(self, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.rng = random.Random(seed)
        self.accepted: list[tuple[str, str, dict[str, Any]]] = []
        self.refused = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def list_received(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        return [(message_id, body) for where, message_id, body in list(self.accepted) if where == path]


class _Exchange(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_failing = self.server.rng.random() < FAILING_SHARE
        if is_failing:
            self.server.refused += 1
        else:
            self.server.accepted.append((self.path, self.headers["webhook-id"], body))
        self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if is_failing else HTTPStatus.NO_CONTENT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Print nothing."""
