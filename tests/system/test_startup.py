"""The start of services: which process synchronizes."""

import time

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


WAYS = {
    "preload": [*GUNICORN, "--preload", "--workers", "3", "novita_site.wsgi"],
    "plain gunicorn": [*GUNICORN, "--workers", "2", "--threads", "4", "novita_site.wsgi"],
    "runserver": ["django", "runserver", "{port}"],
    "runserver without reload": ["django", "runserver", "--noreload", "{port}"],
}


def test_every_way_to_serve_syncs_once(start_service: Start, environment: dict[str, str], novita: Novita) -> None:
    # Each with an inventory of its own.
    urls = {way: f"{environment['REDIS_URL']}?db={number}" for number, way in enumerate(WAYS, 1)}
    services = {way: start_service(command=command, REDIS_URL=urls[way]) for way, command in WAYS.items()}
    for service in services.values():
        service.wait_until_ready()
    time.sleep(3)

    assert {way: service.count_log("sync done") for way, service in services.items()} == dict.fromkeys(WAYS, 1)
    assert novita.count_syncs() == len(WAYS)
