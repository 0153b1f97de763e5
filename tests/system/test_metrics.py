"""`/metrics` of several processes: they report the same, lose nothing at their end, and count nothing twice."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.system.conftest import make_environment
from tests.system.processes import Novita, Redis, Service, Worker, ended, wait_until

TOKEN = "FAKE-SECRET-metrics-token"
LIST = r'novita_panel_http_requests_total{route="instance-list",status="200"}'


def scrape(service: Service) -> str:
    # A connection of its own: any process may answer.
    answer = requests.get(
        f"{service.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}", "Connection": "close"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return answer.text


def find(text: str, sample: str) -> float | None:
    match = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else None


@pytest.fixture(scope="module")
def panel(
    tmp_path_factory: pytest.TempPathFactory, shared_novita: Novita, migrated_database: Path
) -> Iterator[tuple[dict[str, str], Path]]:
    folder = tmp_path_factory.mktemp("metrics")
    with ended(Redis(folder)) as redis_process:
        environment = make_environment(folder, redis_process, shared_novita, migrated_database)
        yield {**environment, "WEB_WORKERS": "2", "METRICS_TOKEN": TOKEN, "REQUIRE_LOGIN": "0"}, folder


def test_two_processes_report_each_request_once_and_keep_their_counts_when_they_end(
    panel: tuple[dict[str, str], Path],
) -> None:
    environment, folder = panel
    with ended(Service(environment, folder)) as service:
        service.wait_until_ready()
        for _ in range(40):
            requests.get(f"{service.url}/api/instances", headers={"Connection": "close"}, timeout=30)
        service.signal(signal.SIGTERM)
        service.wait()

    with ended(Service(environment, folder)) as service, ended(Worker(environment, folder)):
        service.wait_until_ready()
        found = {find(scrape(service), LIST) for _ in range(10)}
        wait_until(lambda: find(scrape(service), "novita_panel_worker_up") == 1, "the worker is seen")
        text = scrape(service)

    assert found == {40.0}
    assert find(text, "novita_panel_redis_up") == 1
    assert find(text, "novita_panel_database_up") == 1
    assert sum(map(float, re.findall(r"^novita_panel_instances{.*} (\S+)$", text, re.MULTILINE))) == 25
    assert (find(text, 'novita_panel_syncs_total{outcome="succeeded"}') or 0) >= 1
    assert (find(text, 'novita_panel_novita_requests_total{call="list",code="200"}') or 0) >= 1
