"""`rediss://`: web and worker verify Redis's certificate by the same rule, and name its defect."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from instances.management.commands.up import find_redis_server
from tests.certificates import Authority
from tests.system.conftest import Start, StartWorker
from tests.system.processes import Process, ended, find_free_port, wait_until

PASSWORD = "FAKE-SECRET-redis"
QUIET = {"NOVITA_SYNC_INTERVAL": "0", "WEB_WORKERS": "1"}


class Listener:
    """A TLS server that stores the received bytes, as a thief of passwords would."""

    def __init__(self, certificate: Path) -> None:
        self.received = b""
        self.connections = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                connection.settimeout(2)
                with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secured:
                    self.received += secured.recv(1000)

    def end(self) -> None:
        self._socket.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def wait_for_outage(process: Process) -> str:
    """Return the log lines about Redis."""
    wait_until(lambda: "redis is unavailable: " in process.log, f"it says so\n{process.log}")
    return process.log.split("redis is unavailable: ")[1]


@pytest.mark.parametrize(
    ("host", "days", "is_trusted", "words"),
    [
        ("localhost", 30, False, "self-signed certificate in certificate chain"),
        ("elsewhere.test", 30, True, "not valid for 'localhost'"),
        ("localhost", -1, True, "certificate has expired"),
    ],
)
def test_untrusted_redis_gets_nothing_from_web_or_worker(
    host: str,
    days: int,
    is_trusted: bool,
    words: str,
    authority: Authority,
    start_service: Start,
    start_worker: StartWorker,
) -> None:
    with ended(Listener(authority.sign(host, days=days))) as listener:
        query = f"?ssl_ca_certs={authority.path}" if is_trusted else ""
        url = f"rediss://:{PASSWORD}@localhost:{listener.port}/0{query}"
        service = start_service(REDIS_URL=url, **QUIET).wait_until_alive()
        worker = start_worker(REDIS_URL=url)

        for process in (service, worker):
            assert wait_for_outage(process).startswith("Redis's certificate is not trusted") and words in process.log
            assert PASSWORD not in process.log
        answer = service.get("/api/instances").json()
        assert "certificate" in answer["message"] and "ssl_ca_certs" in answer["suggestion"]
        assert listener.connections and listener.received == b""


@pytest.fixture
def tls_redis(tmp_path: Path, authority: Authority) -> Iterator[str]:
    """A real Redis over TLS with a certificate for localhost: its URL, with the authority to trust."""
    program, port = find_redis_server(), find_free_port()
    certificate = str(authority.sign("localhost"))
    options = [
        *["--port", "0", "--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", certificate],
        *["--tls-ca-cert-file", str(authority.path), "--tls-auth-clients", "no", "--requirepass", PASSWORD],
        *["--save", "", "--dir", str(tmp_path)],
    ]
    process = Process([program, *options], {}, tmp_path / "tls-redis.log")
    url = f"rediss://:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={authority.path}"
    try:
        with redis.Redis.from_url(url) as client:
            wait_until(lambda: process.popen.poll() is not None or client.ping(), "it answers")
            if process.popen.poll() is not None:
                pytest.skip(f"{program} has no TLS: {subprocess.list2cmdline(options[:4])}")
        yield url
    finally:
        process.end()


def test_trusted_redis_is_used_by_web_and_worker(
    tls_redis: str, start_service: Start, start_worker: StartWorker
) -> None:
    service = start_service(REDIS_URL=tls_redis, **QUIET).wait_until_ready()
    start_worker(REDIS_URL=tls_redis)

    wait_until(lambda: service.get_worker() == "up", "the worker is seen")
    assert len(service.list_ids()) == 25
