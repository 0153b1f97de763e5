"""A client that openapi-python-client makes of the OpenAPI description, against a real service."""

import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Protocol

import pytest

from tests import python
from tests.system.processes import Novita, Service, wait_until


class Load(Protocol):
    def __call__(self, module: str) -> ModuleType: ...


@pytest.fixture(scope="module")
def load(shared_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Make the client; return the function that imports one of its modules."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(shared_service.get("/api/schema?format=json").text)
    # By default it calls ruff to format the files.
    (folder / "config.yml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    options = ["--path", "openapi.json", "--output-path", "panel_client", "--config", "config.yml"]
    made = python.run(
        [*command, *options], cwd=folder, env=os.environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr

    def load(module: str) -> ModuleType:
        sys.path.insert(0, str(folder))
        try:
            return importlib.import_module(f"panel_client.{module}")
        finally:
            sys.path.remove(str(folder))

    return load


@pytest.fixture
def client(load: Load, shared_service: Service) -> Iterator[Any]:
    with load("client").Client(base_url=shared_service.url, httpx_args={"trust_env": False}) as client:
        yield client


def list_running(load: Load, client: Any) -> list[str]:
    listing = load("api.instances.list_instances").sync(client=client, group=load("models").ListInstancesGroup.RUNNING)
    return [instance.id for instance in listing.instances]


def test_client_lists_the_instances(load: Load, client: Any, shared_novita: Novita) -> None:
    listing = load("api.instances.list_instances").sync(client=client)

    assert {instance.id for instance in listing.instances} == shared_novita.get_truth().keys()


def test_client_synchronizes(load: Load, client: Any) -> None:
    report = load("api.instances.sync_instances").sync(client=client)

    assert report.success and report.synchronized == 25


def test_client_stops_nothing_in_a_dry_run(load: Load, client: Any, shared_novita: Novita) -> None:
    before = shared_novita.list_stops()
    body = load("models").StopAllRequest(dry_run=True)

    plan = load("api.instances.stop_all").sync(client=client, body=body)

    assert {*list_running(load, client)} <= {result.instance_id for result in plan.results}
    assert shared_novita.list_stops() == before


def test_client_stops_an_instance(load: Load, client: Any, shared_novita: Novita) -> None:
    id_ = list_running(load, client)[0]

    load("api.instances.stop_instance").sync(id=id_, client=client)

    wait_until(lambda: id_ in shared_novita.list_stops(), "the stop is requested")


def test_client_stops_everything(load: Load, client: Any, shared_novita: Novita) -> None:
    before = {*list_running(load, client)}

    load("api.instances.stop_all").sync(client=client)

    # One that is still starting is stopped when Novita accepts it.
    running = {id_ for id_, row in shared_novita.get_truth().items() if row["status"] == "running"}
    assert before
    assert not running & before


def test_client_gets_the_code_of_an_error(load: Load, client: Any) -> None:
    error = load("api.instances.get_instance").sync(id="none", client=client)

    assert error.code is load("models").ErrorCode.INSTANCE_NOT_FOUND
