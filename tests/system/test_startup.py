"""The start of services: which process synchronizes."""

import time

import pytest

from tests.system.conftest import Start
from tests.system.processes import Novita

GUNICORN = ["gunicorn", "--bind", "127.0.0.1:{port}", "--no-control-socket"]


def test_two_servers_of_two_workers_started_at_once_sync_once(start_service: Start, novita: Novita) -> None:
    services = [start_service(WEB_WORKERS="2"), start_service(WEB_WORKERS="2")]

    for service in services:
        service.wait_until_ready()
    time.sleep(3)

    assert novita.count_syncs() == 1
    assert services[0].list_ids() == services[1].list_ids()
    assert len(services[0].list_ids()) == 25


@pytest.mark.parametrize(
    "command",
    [
        [*GUNICORN, "--preload", "--workers", "3", "novita_site.wsgi"],
        [*GUNICORN, "--workers", "2", "--threads", "4", "novita_site.wsgi"],
        ["django", "runserver", "{port}"],
        ["django", "runserver", "--noreload", "{port}"],
    ],
    ids=["preload", "plain gunicorn", "runserver", "runserver without reload"],
)
def test_every_way_to_serve_syncs_once(start_service: Start, novita: Novita, command: list[str]) -> None:
    service = start_service(command=command).wait_until_ready()
    time.sleep(3)

    assert novita.count_syncs() == 1, service.log
