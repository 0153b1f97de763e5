"""The image, and compose.yaml's services by the commands of docs/operations.md, built and started for real."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.deploy.containers import BASE, PANEL, STORES, Podman, health_checks
from tests.deploy.trees import ADMIN, fill_in, read_commands
from tests.system.processes import ROOT, ended, wait_until

pytestmark = pytest.mark.timeout(1800)

MEGABYTE = 1_000_000
SERVICES = ["panel_web_1", "panel_worker_1"]
COMPOSE = "docker-compose --file deploy/compose.yaml"
# A request as a proxy on this machine sends it.
CURL = (
    "curl --silent --show-error --fail --header 'Host: panel.example.com' --header 'X-Forwarded-Proto: https' "
    "--header 'X-Forwarded-For: 192.0.2.7'"
)
PANEL_URL = "http://127.0.0.1:3000"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    with ended(Podman(tmp_path_factory.mktemp("podman"))) as podman:
        podman.build()
        podman.start()
        yield podman


@pytest.fixture(scope="module")
def inside(podman: Podman) -> Callable[[str], str]:
    """Return a function that runs commands of a shell in a container of the image."""
    podman.run(f"podman run --detach --name inside --network none --healthcheck-command none {PANEL} sleep 3600")
    return lambda commands: podman.run(f"podman exec inside sh -euc '{commands}'")


def get_size(podman: Podman, image: str) -> int:
    return int(podman.run(f"podman image inspect --format '{{{{.Size}}}}' {image}"))


def test_image_is_small(podman: Podman) -> None:
    assert get_size(podman, PANEL) - get_size(podman, BASE) <= 250 * MEGABYTE


def test_image_has_the_runtime_packages_only(inside: Callable[[str], str]) -> None:
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    found = inside("ls -d /opt/venv/lib/python3*/site-packages/*.dist-info")
    installed = {re.sub(r"[._]", "-", name).lower() for name in re.findall(r"([^/]+)-[^-/]+\.dist-info", found)}

    assert installed - {re.sub(r"[._]", "-", name) for name in pinned} == set()


def test_image_has_no_compiler_and_no_pip(inside: Callable[[str], str]) -> None:
    programs = "gcc cc c++ make ld pip pip3 pytest mypy git curl"

    assert inside(f"for name in {programs}; do command -v $name || true; done") == ""


def test_image_has_no_file_that_it_does_not_run(inside: Callable[[str], str]) -> None:
    assert inside("ls -A").split() == [
        "deploy",
        "instances",
        "manage.py",
        "novita_site",
        "requirements.txt",
        "templates",
    ]


def test_image_runs_as_a_user_that_owns_only_its_folder(inside: Callable[[str], str]) -> None:
    assert inside("id -u; id -g; stat -c %a /var/lib/novita-panel").split() == ["10001", "10001", "700"]
    # That user may not look everywhere.
    owned = inside('find / -xdev -user panel -not -path "/proc/*" 2>/dev/null || true')
    assert owned.split() == ["/var/lib/novita-panel"]


@pytest.fixture(scope="module")
def services(podman: Podman) -> Podman:
    """The services by the documented commands, with a simulated account at 127.0.0.1:3900 of each container."""
    go = f"cd {podman.project}; "
    copy, up, add_admin = read_commands("Containers")[0].replace("docker compose", "docker-compose").splitlines()
    podman.run(go + copy)
    fill_in(podman.project / "deploy/.env", "http://127.0.0.1:3900")
    with health_checks(podman):
        podman.run(go + up)
    simulate_novita(podman)
    variables = "".join(f" --env {name}={value}" for name, value in ADMIN.items())
    podman.run(go + add_admin.replace("exec", f"exec -T{variables}").replace("superuser", "superuser --noinput"))
    for name in SERVICES:
        wait_until(lambda name=name: podman.is_healthy(name), f"{name} is healthy", 120, 1)
    return podman


def simulate_novita(podman: Podman) -> None:
    """Start a simulator, and beside it and each service a program that connects them."""
    run = "podman run --detach --healthcheck-command none"
    simulator = (
        f"--name novita --env HOST=127.0.0.1 {PANEL} python manage.py novita_simulator --port 3900 --time-factor 10"
    )
    forward = f"--entrypoint socat {STORES[0]} TCP-LISTEN"
    podman.run(
        f"{run} --network panel_default {simulator}\n"
        f"{run} --network container:novita {forward}:4000,fork TCP:127.0.0.1:3900\n"
    )
    for name in SERVICES:
        podman.run(f"{run} --network container:{name} {forward}:3900,bind=127.0.0.1,fork TCP:novita:4000")


def run_in_service(podman: Podman, command: str) -> str:
    return podman.run(f"cd {podman.project}; {COMPOSE} exec -T {command}")


def call(podman: Podman, token: str, path: str, *options: str) -> Any:
    return json.loads(
        podman.run(f"{CURL} --header 'Authorization: Bearer {token}' {' '.join(options)} {PANEL_URL}{path}")
    )


def test_services_stop_everything(services: Podman) -> None:
    token = run_in_service(services, "web python manage.py create_token ann --name deploy --role admin").strip()
    wait_until(lambda: call(services, token, "/api/instances")["instances"], "there is an inventory", 60, 1)

    ordered = call(services, token, "/api/instances/stop-all", "--request POST")
    url = ordered["operationUrl"]
    wait_until(lambda: call(services, token, url)["finishedAt"], "the worker has verified the stops", 120, 1)

    assert call(services, token, url)["success"] is True
    # The proxy on this machine is trusted, and told the client's address.
    code = "from instances.models import Operation; print(Operation.objects.get().address)"
    assert run_in_service(services, f"web python manage.py shell -v 0 -c '{code}'").strip() == "192.0.2.7"


@pytest.mark.parametrize("name", SERVICES)
def test_killed_process_comes_back(services: Podman, name: str) -> None:
    killed = services.run(f"podman inspect --format '{{{{.State.Pid}}}}' {name}")
    services.run(f"kill -9 {killed}")

    wait_until(lambda: services.is_healthy(name), "it has been started again", 120, 1)
    assert services.run(f"podman inspect --format '{{{{.State.Pid}}}}' {name}") != killed


def test_worker_without_redis_is_unhealthy(services: Podman) -> None:
    services.run("podman pause panel_redis_1")

    assert not services.is_healthy("panel_worker_1")
    assert services.is_healthy("panel_web_1")
    services.run("podman unpause panel_redis_1")
    wait_until(lambda: services.is_healthy("panel_worker_1"), "the worker is healthy again", 60, 1)
