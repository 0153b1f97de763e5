"""deploy/alerts.yaml and deploy/grafana.json use what /metrics tells, and each alert says what to do."""

import json
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.utils import timezone

from instances.costs import balance
from instances.inventory import heartbeat
from instances.inventory.sync import synchronize
from instances.models import EvaluationState
from instances.monitoring import counters
from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_row

ROOT = Path(__file__).resolve().parent.parent
ALERTS = ROOT / "deploy/alerts.yaml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = (ROOT / "deploy/grafana.json").read_text()
PANELS: list[dict[str, Any]] = json.loads(DASHBOARD)["panels"]
EXPRESSIONS = [
    *((rule["alert"], rule["expr"]) for rule in RULES),
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
]
needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="there is no promtool: install the package prometheus"
)


@pytest.fixture
def scraped(client: ApiClient, novita: NovitaAnswers) -> str:
    """A scrape of a panel with everything."""
    novita.lists(make_row("a", gpuPrice="30000", price="30000"))
    synchronize("command")
    balance._share(balance.Reading(Decimal(100), None, timezone.now()))
    heartbeat.note_worker()
    EvaluationState.objects.create(evaluated_at=timezone.now())
    client.get("/health")
    counters.flush()
    return client.get("/metrics").content.decode()


@pytest.mark.django_db
def test_every_metric_in_alerts_and_dashboard_is_told(scraped: str) -> None:
    told = set(re.findall(r"^(novita_panel_\w+)", scraped, re.MULTILINE))

    used = {name for _, expression in EXPRESSIONS for name in re.findall(r"novita_panel_\w+", expression)}

    # A burn rate needs a price, which only Novita's price list has here.
    assert used - told <= {"novita_panel_burn_rate_usd_per_hour", "novita_panel_balance_hours"}


@pytest.mark.django_db
def test_labels_in_alerts_and_dashboard_are_told(scraped: str) -> None:
    for title, expression in EXPRESSIONS:
        for name, labels in re.findall(r"(novita_panel_\w+)\{([^}]*)\}", expression):
            samples = re.findall(rf"^{name}\{{([^}}]*)\}}", scraped, re.MULTILINE)
            for label in re.findall(r"(\w+)[=!]", labels):
                assert any(re.search(rf"\b{label}=", sample) for sample in samples), f"{title}: {name} has no {label}"


def test_every_alert_says_in_the_documentation_what_to_do() -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("### Alerts\n")[2].partition("\n## ")[0]

    documented = re.findall(r"^- `(\w+)`: ..", section, re.MULTILINE)

    assert sorted(documented) == sorted(rule["alert"] for rule in RULES)


def test_every_alert_has_a_severity_and_a_summary() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"].endswith(".")


def test_panels_of_the_dashboard_dont_overlap() -> None:
    cells = [
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@needs_promtool
def test_prometheus_accepts_the_alerts() -> None:
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@needs_promtool
def test_prometheus_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"q{number}", "expr": expression} for number, (_, expression) in enumerate(EXPRESSIONS)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.django_db
def test_prometheus_accepts_the_scrape(scraped: str) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=scraped, capture_output=True, text=True)

    assert done.returncode == 0
    assert done.stdout + done.stderr == ""


# Alert → what is told when it has to fire.
FIRING = {
    "NovitaPanelRedisDown": "novita_panel_redis_up 0",
    "NovitaPanelDatabaseDown": "novita_panel_database_up 0",
    "NovitaPanelNoWorker": "novita_panel_worker_up 0",
    "NovitaPanelStillRunning": "novita_panel_targets_still_running 2",
    "NovitaPanelOperationSlow": "novita_panel_targets_open 1",
    "NovitaPanelInventoryStale": "novita_panel_inventory_stale 1",
    "NovitaPanelSyncsFail": "novita_panel_sync_failures 5",
    "NovitaPanelBalanceLow": "novita_panel_balance_hours 3",
    "NovitaPanelPricesUnknown": "novita_panel_unknown_prices 1",
    "NovitaPanelWebhooksLate": "novita_panel_webhook_backlog_seconds 1000",
    "NovitaPanelNotificationsLate": "novita_panel_notification_backlog_seconds 1000",
}
GROWING = {
    "NovitaPanelCallsFail": 'novita_panel_novita_requests_total{call="list",code="500"}',
    "NovitaPanelErrors": 'novita_panel_http_requests_total{route="overview",status="500"}',
}


@needs_promtool
def test_alerts_fire(tmp_path: Path) -> None:
    tests = [make_test(alert, name, f"{value}x600") for alert, (name, value) in split(FIRING)]
    tests += [make_test(alert, name, "0+60x600") for alert, name in GROWING.items()]
    tests += [make_test("NovitaPanelMissing", "novita_panel_redis_up", "1x600")]
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests})
    )

    done = subprocess.run(["promtool", "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def split(samples: dict[str, str]) -> list[tuple[str, list[str]]]:
    return [(alert, sample.split()) for alert, sample in samples.items()]


def make_test(alert: str, series: str, values: str) -> dict[str, Any]:
    """Return a test of promtool: after seven hours of this series, the alert and perhaps others fire."""
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values}],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": "7h",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }
