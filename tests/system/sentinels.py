"""Two Redis servers on loopback, a primary and its replica, and the three sentinels that watch them."""

import os
import signal
from pathlib import Path
from typing import Any

import redis

from instances.management.commands.up import find_redis_server
from tests.system.processes import Process, find_free_port, wait_until

PASSWORD, SENTINEL_PASSWORD = "FAKE-SECRET-redis", "FAKE-SECRET-sentinel"
SERVICE = "panel"
# Fast, and not so fast that a primary on a busy machine counts as dead.
WATCH = f"""
sentinel auth-pass {SERVICE} {PASSWORD}
sentinel down-after-milliseconds {SERVICE} 1000
sentinel failover-timeout {SERVICE} 1000
sentinel sentinel-pass {SENTINEL_PASSWORD}
requirepass {SENTINEL_PASSWORD}
"""


class Server(Process):
    def __init__(self, folder: Path, port: int, primary: int | None = None) -> None:
        self.port = port
        self.client = redis.Redis(port=port, password=PASSWORD)
        options = [
            *["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
            *["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"],
            *(["--replicaof", f"127.0.0.1 {primary}"] if primary else []),
        ]
        super().__init__([find_redis_server(), *options], os.environ, folder / f"redis-{port}.log")
        wait_until(self.client.ping, "the server answers")

    def end(self) -> None:
        super().end()
        self.client.close()


class Cluster:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers = [Server(folder, find_free_port())]
        self._servers.append(Server(folder, find_free_port(), self._servers[0].port))
        self._sentinels = [self._start_sentinel(number, find_free_port()) for number in range(3)]
        self.wait_until_whole()

    def _start_sentinel(self, number: int, port: int) -> tuple[Process, Any]:
        config = self._folder / f"sentinel-{number}.conf"
        monitor = f"sentinel monitor {SERVICE} 127.0.0.1 {self._servers[0].port} 2"
        config.write_text(f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n{monitor}{WATCH}")
        log = self._folder / f"sentinel-{number}.log"
        process = Process([find_redis_server(), str(config), "--sentinel"], os.environ, log)
        return process, redis.Redis(port=port, password=SENTINEL_PASSWORD)

    @property
    def url(self) -> str:
        ports = [sentinel.connection_pool.connection_kwargs["port"] for _, sentinel in self._sentinels]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{SERVICE}/0?sentinel_password={SENTINEL_PASSWORD}"

    @property
    def primary(self) -> Server:
        return next(server for server in self._servers if server.port == self._find_primary())

    @property
    def replica(self) -> Server:
        return next(server for server in self._servers if server.port != self._find_primary())

    def _find_primary(self) -> int:
        port: int = self._describe(0)["port"]
        return port

    def _describe(self, number: int) -> dict[str, Any]:
        state: dict[str, Any] = self._sentinels[number][1].execute_command("SENTINEL MASTER", SERVICE)
        return state

    def wait_until_whole(self) -> None:
        """Wait until all sentinels know each other, the primary and a replica that has its data."""
        for number in range(3):
            wait_until(
                lambda number=number: (
                    self._describe(number)["num-other-sentinels"] == 2
                    and self._describe(number)["num-slaves"] >= 1
                    and not self._describe(number)["is_sdown"]
                ),
                "the sentinels know each other",
            )
        wait_until(lambda: self.replica.client.info("replication")["master_link_status"] == "up", "it is a replica")

    def kill_primary(self) -> None:
        self.primary.end()

    def lose_writes(self) -> None:
        """Suspend the replica: it gets nothing that is written from now on."""
        self.replica.signal(signal.SIGSTOP)
        self.primary.client.client_kill_filter(_type="replica")

    def wait_until_switched(self, dead: int) -> None:
        """Wait until another server is the primary for all sentinels."""
        for number in range(3):
            wait_until(lambda number=number: self._describe(number)["port"] != dead, "the sentinels have switched")
        wait_until(lambda: self.primary.client.info("replication")["role"] == "master", "it is the primary")

    def repair(self) -> None:
        """Start the dead server again, as a replica."""
        primary = self.primary
        number, dead = next((n, server) for n, server in enumerate(self._servers) if server is not primary)
        dead.end()
        self._servers[number] = Server(self._folder, dead.port, primary.port)
        self.wait_until_whole()

    def end(self) -> None:
        for process, client in self._sentinels:
            process.end()
            client.close()
        for server in self._servers:
            server.end()
