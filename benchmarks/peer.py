"""The peer: a comparable program with the same routes, in a folder with a `server.js` and a `package.json`."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import is_open, post
from tests.system.processes import Process, Redis, find_free_port, wait_until


class NoPeer(Exception):
    """The peer can't run here; the message says why."""


@contextmanager
def run(source: Path, folder: Path, novita_url: str) -> Iterator[int]:
    """Start a copy of the peer with a Redis of its own. Yields its port once it has a listing. Raises NoPeer."""
    program = folder / "peer"
    shutil.copytree(source, program)
    _install(program)
    redis_port, port = find_free_port(), find_free_port()
    redis = Redis(program, "--port", str(redis_port), "--bind", "127.0.0.1")
    variables = {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/1",
        "NOVITA_BASE_URL": novita_url,
        "NOVITA_API_KEY": "bench",
        "PORT": str(port),
        "WORKERS": "2",
    }
    process = Process(["node", "server.js"], {**os.environ, **variables}, folder / "peer.log", cwd=program)
    try:
        wait_until(lambda: is_open(port), "the peer listens")
        post(port, "/api/instances/sync")
        yield port
    finally:
        process.end()
        redis.end()


def _install(program: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NoPeer("node is missing")
    if not (program / "node_modules").is_dir():
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        if subprocess.run(command, cwd=program, capture_output=True).returncode:
            raise NoPeer("npm can't install its packages")
