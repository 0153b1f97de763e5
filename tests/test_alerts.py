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


# What a panel tells on which nothing is wrong, as promtool writes series over minutes.
CALM = {
    "novita_panel_info": "1x600",
    "novita_panel_redis_up": "1x600",
    "novita_panel_database_up": "1x600",
    "novita_panel_worker_up": "1x600",
    "novita_panel_targets_still_running": "0x600",
    "novita_panel_targets_open": "0x600",
    "novita_panel_inventory_stale": "0x600",
    "novita_panel_sync_failures": "0x600",
    'novita_panel_novita_requests_total{call="list",code="200"}': "0+60x600",
    'novita_panel_novita_requests_total{call="list",code="500"}': "0x600",
    'novita_panel_novita_request_duration_seconds_bucket{call="list",le="5.0"}': "0+60x600",
    'novita_panel_novita_request_duration_seconds_bucket{call="list",le="10.0"}': "0+60x600",
    'novita_panel_novita_request_duration_seconds_bucket{call="list",le="+Inf"}': "0+60x600",
    'novita_panel_http_requests_total{route="overview",status="500"}': "0x600",
    "novita_panel_balance_hours": "100x600",
    "novita_panel_unknown_prices": "0x600",
    "novita_panel_webhook_backlog_seconds": "0x600",
    "novita_panel_notification_backlog_seconds": "0x600",
    "novita_panel_webhooks_given_up": "0x600",
    "novita_panel_notifications_given_up": "0x600",
    'novita_panel_policies{state="stop"}': "2x600",
    "novita_panel_policies_evaluated_timestamp_seconds": "0+60x600",
}
# Alert → what differs when it has to fire.
FIRING: dict[str, dict[str, str]] = {
    "NovitaPanelMissing": {"novita_panel_info": "_x600"},
    "NovitaPanelRedisDown": {"novita_panel_redis_up": "0x600"},
    "NovitaPanelDatabaseDown": {"novita_panel_database_up": "0x600"},
    "NovitaPanelNoWorker": {"novita_panel_worker_up": "0x600"},
    "NovitaPanelStillRunning": {"novita_panel_targets_still_running": "2x600"},
    "NovitaPanelOperationSlow": {"novita_panel_targets_open": "1x600"},
    "NovitaPanelInventoryStale": {"novita_panel_inventory_stale": "1x600"},
    "NovitaPanelSyncsFail": {"novita_panel_sync_failures": "5x600"},
    "NovitaPanelCallsFail": {'novita_panel_novita_requests_total{call="list",code="500"}': "0+60x600"},
    # A fifth of the requests take between 5 and 10 s.
    "NovitaPanelCallsSlow": {'novita_panel_novita_request_duration_seconds_bucket{call="list",le="5.0"}': "0+48x600"},
    "NovitaPanelErrors": {'novita_panel_http_requests_total{route="overview",status="500"}': "0+60x600"},
    "NovitaPanelBalanceLow": {"novita_panel_balance_hours": "3x600"},
    "NovitaPanelPricesUnknown": {"novita_panel_unknown_prices": "1x600"},
    "NovitaPanelWebhooksLate": {"novita_panel_webhook_backlog_seconds": "1000x600"},
    "NovitaPanelNotificationsLate": {"novita_panel_notification_backlog_seconds": "1000x600"},
    "NovitaPanelGivenUp": {"novita_panel_notifications_given_up": "1x600"},
    "NovitaPanelPoliciesUnwatched": {"novita_panel_policies_evaluated_timestamp_seconds": "0x600"},
}
NEVER_EVALUATED = {"novita_panel_policies_evaluated_timestamp_seconds": "_x600"}


def test_firing_of_each_alert_is_tested() -> None:
    assert sorted(FIRING) == sorted(rule["alert"] for rule in RULES)


@pytest.mark.thorough
@needs_promtool
def test_exactly_the_alerts_that_apply_fire(tmp_path: Path) -> None:
    tests = [
        make_test("calm", [], {}),
        *(make_test(alert, [alert], difference) for alert, difference in FIRING.items()),
        make_test("never evaluated", ["NovitaPanelPoliciesUnwatched"], NEVER_EVALUATED),
    ]
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "5m", "tests": tests}))

    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def make_test(name: str, alerts: list[str], difference: dict[str, str]) -> dict[str, Any]:
    """Return a test of promtool: after seven hours, longer than any alert waits, these alerts fire and no others."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in (CALM | difference).items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "7h",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts],
            }
        ],
    }
