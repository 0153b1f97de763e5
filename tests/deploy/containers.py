"""Containers by buildah, podman and docker-compose, in a network of their own that has no way out.

docker-compose speaks to podman's service. podman leaves the health checks to systemd, which a machine may lack.
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.trees import CACHE, copy_project, make_base, need, run
from tests.system.processes import Process, wait_until

PANEL, BASE = "localhost/novita-panel", "localhost/novita-panel-base"
# What compose.yaml takes from a registry. Debian's packages stand in for the official images.
STORES = ["docker.io/library/redis:7.2-alpine", "docker.io/library/postgres:17-alpine"]
STORES_IMAGE = f"""FROM {BASE}
RUN apt-get update -qq && apt-get install -qq --no-install-recommends redis-server postgresql socat >/dev/null
COPY --chmod=755 stores.sh /usr/local/bin/
ENTRYPOINT ["stores.sh"]
"""
# A container may not raise the limits of this machine.
CONTAINERS = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""
STORAGE = """[storage]
driver = "vfs"
graphroot = "{cache}/store"
runroot = "{cache}/run"
"""


class Podman:
    """Builds images at once, and runs containers once `start` has been called."""

    def __init__(self, folder: Path) -> None:
        need("buildah", "podman", "runc", "docker-compose", "unshare", "nsenter")
        self.folder = folder
        self.project = folder / "project"
        copy_project(self.project)
        CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, text in {"containers": CONTAINERS, "storage": STORAGE}.items():
            (folder / f"{name}.conf").write_text(text.format(folder=folder, cache=CACHE))
        self._variables = {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "DOCKER_HOST": f"unix://{folder}/podman.sock",
            "COMPOSE_PROJECT_NAME": "panel",
            "COMPOSE_HTTP_TIMEOUT": "300",
        }
        self._service: Process | None = None

    def build(self) -> None:
        """Build the panel's image on a base of this machine's Debian, and what stands in for the registry's."""
        self._remove_containers()
        if self.run(f"podman images --quiet {BASE}") == "":
            self.run(f"tar --create --directory {make_base()} . | podman import --quiet - {BASE}")
        options = "--isolation chroot --network host --ulimit nofile=1024:1024 --format docker"
        command = f"buildah build {options} --build-arg BASE={BASE} --file deploy/Dockerfile --tag {PANEL} ."
        self.run(f"cd {self.project} && {command}")
        if self.run(f"podman images --quiet {STORES[0]}") == "":
            (self.folder / "Dockerfile").write_text(STORES_IMAGE)
            tags = " ".join(f"--tag {tag}" for tag in STORES)
            shutil.copy(self.project / "tests/deploy/stores.sh", self.folder)
            self.run(f"buildah build {options} {tags} {self.folder}")

    def start(self) -> None:
        # The name server of the containers leaves its address in the first folder, podman its networks in the second.
        own = "for name in containers netns; do mkdir --parents /run/$name; mount -t tmpfs tmpfs /run/$name; done"
        command = f"{own}; ip link set lo up; exec podman system service --time 0 {self._variables['DOCKER_HOST']}"
        self._service = Process(
            # With the first process end all others: the containers and what watches them.
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", command],
            {**os.environ, **self._variables},
            self.folder / "podman.log",
        )
        wait_until((self.folder / "podman.sock").exists, f"podman listens\n{self._service.log}")

    def _enter(self) -> list[str]:
        """Return the command that enters the network of the containers, once it is there."""
        if not self._service:
            return []
        unshare = self._service.popen.pid
        first = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().strip()
        return ["nsenter", "--net", "--mount", "--pid", f"--target={first}"]

    def run(self, commands: str, *, accept_failure: bool = False, **variables: str) -> str:
        """Run commands of a shell, in the network of the containers once it is there."""
        command = [*self._enter(), "sh", "-euc", commands]
        return run(command, accept_failure=accept_failure, **self._variables, **variables)

    def list_names(self) -> list[str]:
        return self.run("podman ps --format '{{.Names}}'").split()

    def is_healthy(self, name: str) -> bool:
        """Run a container's HEALTHCHECK."""
        checked = self.run(f"timeout 60 podman healthcheck run {name} && echo passed", accept_failure=True)
        return checked.endswith("passed\n")

    def end(self) -> None:
        if self._service:
            self._service.end()
            self._service = None
        self._remove_containers()
        self.run(f"podman rmi --force {PANEL}; podman image prune --force", accept_failure=True)

    def _remove_containers(self) -> None:
        """Remove what is left of containers that were killed."""
        for state in ("libpod", "volumes"):
            shutil.rmtree(CACHE / "store" / state, ignore_errors=True)
        self.run("podman ps --all --quiet --external | xargs --no-run-if-empty podman rm --force")


@contextlib.contextmanager
def health_checks(podman: Podman) -> Iterator[None]:
    """Run the health check of each container again and again, as systemd does.

    Not for longer than needed: when a container ends during a check, podman never returns.
    """
    stopped = threading.Event()

    def check() -> None:
        while not stopped.wait(1):
            for name in podman.list_names():
                podman.is_healthy(name)

    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
