"""`/metrics`: who may read it, what it tells, and that counting costs a request nothing in Redis."""

import re
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from fakeredis import FakeRedis, FakeServer
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from instances import redis_client
from instances.api.shortcut import shorten
from instances.errors import CacheUnavailable
from instances.inventory import heartbeat
from instances.inventory.sync import synchronize
from instances.models import Event, Message, Operation, Policy, Target, WebhookDelivery
from instances.monitoring import counters, families
from novita_site.settings import REDIS_KEY_TAG
from tests.novita_answers import NovitaAnswers, make_row
from tests.raw_requests import Server, write
from tests.test_sync import count_commands

pytestmark = pytest.mark.django_db

TOKEN = "FAKE-SECRET-metrics-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
Samples = dict[tuple[str, ...], float]


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    counters.reset()
    yield
    counters.reset()


def scrape(client: Client, **options: Any) -> Samples:
    """Return the samples of a scrape: name and values of the labels, in the order of the labels' names → value."""
    answer = client.get("/metrics", **options)
    assert answer.status_code == 200, answer.content
    return read(answer.content.decode())


def read(text: str) -> Samples:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name.removeprefix("novita_panel_"), *sample.labels.values()] = sample.value
    return found


def tell_names(samples: Samples) -> set[str]:
    return {key[0] for key in samples}


# --- Who may read it


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer "])
def test_metrics_are_off_on_a_network_without_token_and_addresses(
    client: Client, settings: Settings, header: str
) -> None:
    settings.REQUIRE_LOGIN = True

    answer = client.get("/metrics", headers={"Authorization": header})

    assert answer.status_code == 403
    assert answer.json()["message"] == "Metrics are off, because METRICS_TOKEN and METRICS_ALLOW are not set."


def test_local_owner_reads_metrics_without_a_token(client: Client) -> None:
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, "Bearer \xe9"]
)
def test_wrong_token_is_refused(client: Client, settings: Settings, header: str) -> None:
    settings.REQUIRE_LOGIN, settings.METRICS_TOKEN = True, TOKEN

    answer = client.get("/metrics", headers={"Authorization": header})

    assert answer.status_code == 401
    assert "METRICS_TOKEN" in answer.json()["suggestion"]


def test_token_is_compared_in_constant_time(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    settings.METRICS_TOKEN = TOKEN
    monkeypatch.setattr("instances.api.metrics.hmac", Mock(compare_digest=lambda a, b: compared.append(a)))

    client.get("/metrics", headers={"Authorization": "Bearer guess"})

    assert compared == [b"Bearer guess"]


def test_right_token_is_enough_with_any_host_name_and_address(client: Client, settings: Settings) -> None:
    settings.REQUIRE_LOGIN, settings.METRICS_TOKEN = True, TOKEN

    scrape(client, headers={**BEARER, "Host": "10.1.2.3:3000"}, REMOTE_ADDR="192.0.2.7")


def test_another_name_of_this_machine_gives_no_access_without_the_token(client: Client) -> None:
    assert client.get("/metrics", headers={"Host": "evil.test"}).status_code == 400


@pytest.mark.parametrize(
    ("address", "header", "status"),
    [
        ("10.1.2.3", {}, 200),
        ("::ffff:10.1.2.3", {}, 200),
        ("192.0.2.7", {}, 403),
        ("", {}, 403),
        # An unknown proxy: its address is that of every visitor.
        ("10.1.2.3", {"X-Forwarded-For": "192.0.2.7"}, 403),
        ("10.1.2.3", {"X-Forwarded-For": "10.1.2.3"}, 403),
        # A trusted proxy.
        ("10.0.0.1", {"X-Forwarded-For": "10.1.2.3"}, 200),
        ("10.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 403),
    ],
)
def test_addresses_of_the_list_may_read_metrics(
    client: Client, settings: Settings, address: str, header: dict[str, str], status: int
) -> None:
    settings.REQUIRE_LOGIN = True
    settings.METRICS_ALLOW = [ip_network("10.1.0.0/16")]
    settings.TRUSTED_PROXIES = [ip_network("10.0.0.1")]

    assert client.get("/metrics", headers=header, REMOTE_ADDR=address).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_metrics_are_read_only(client: Client, method: str) -> None:
    assert client.generic(method, "/metrics").status_code == 405


def test_refusal_needs_neither_session_nor_database(client: Client, settings: Settings) -> None:
    settings.REQUIRE_LOGIN, settings.METRICS_TOKEN = True, TOKEN
    with CaptureQueriesContext(connection) as captured:
        client.get("/metrics", headers={"Cookie": f"{settings.SESSION_COOKIE_NAME}=0123456789abcdef0123456789abcdef"})

    assert len(captured) == 0


# --- What it tells


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.lists(
        make_row("a"),
        make_row("b", status="exited", productName="A100 80GB"),
        make_row("c", productName="", clusterName=""),
    )
    synchronize("command")


@pytest.mark.usefixtures("account")
def test_instances_are_told_by_group_gpu_and_region(client: Client) -> None:
    samples = scrape(client)

    assert samples["instances", "RTX 4090 24GB", "running", "US-CA-06 (California)"] == 1
    assert samples["instances", "A100 80GB", "stopped", "US-CA-06 (California)"] == 1
    assert samples["group_instances", "running"] == 2
    assert samples["group_instances", "starting"] == 0


@pytest.mark.usefixtures("account")
def test_unknown_amounts_are_left_out_and_counted(client: Client) -> None:
    samples = scrape(client)

    assert samples["unknown_prices",] == 2
    assert not tell_names(samples) & {"balance_usd", "balance_hours"}


def test_missing_inventory_has_no_instances_and_no_costs(client: Client) -> None:
    samples = scrape(client)

    assert samples["inventory_stale",] == 1
    assert not tell_names(samples) & {"instances", "group_instances", "burn_rate_usd_per_hour", "inventory_age_seconds"}


def test_names_that_novita_chooses_make_a_bounded_number_of_series(client: Client, novita: NovitaAnswers) -> None:
    rows = [make_row(f"i{n}", productName=f"GPU {n}\n", clusterName=f"region {n}") for n in range(100)]
    novita.lists(*rows)
    synchronize("command")

    samples = scrape(client)

    gpus = {key[1] for key in samples if key[0] == "instances"}
    regions = {key[3] for key in samples if key[0] == "instances"}
    assert len(gpus) == families.MAX_GPUS + 1
    assert len(regions) == families.MAX_REGIONS + 1
    assert sum(value for key, value in samples.items() if key[0] == "instances") == 100


def test_operations_and_targets_are_told(client: Client) -> None:
    now = timezone.now()
    running = Operation.objects.create(kind="stop", is_whole_account=True, selection="a", deadline_at=now)
    failed = Operation.objects.create(
        **{"kind": "stop", "is_whole_account": True, "selection": "b", "deadline_at": now},
        **{"state": "finished", "success": False, "finished_at": now},
    )
    Target.objects.create(operation=running, instance_id="a", state="requested")
    Target.objects.create(operation=running, instance_id="b", state="confirmed")
    Target.objects.create(operation=failed, instance_id="a", state="stillRunning")
    # Long ago, and over.
    Operation.objects.filter(
        pk=Operation.objects.create(
            **{"kind": "start", "is_whole_account": False, "selection": "c", "deadline_at": now},
            **{"state": "finished", "success": True, "finished_at": now},
        ).pk
    ).update(created_at=now - timedelta(days=2))

    samples = scrape(client)

    assert samples["operations", "stop", "none", "requesting"] == 1
    assert samples["operations", "stop", "failed", "finished"] == 1
    assert samples["operations", "start", "succeeded", "finished"] == 0
    assert samples["targets_open",] == 1
    assert samples["targets_still_running",] == 1

    failed.dismissed_at = now
    failed.save()

    assert scrape(client)["targets_still_running",] == 0


def test_backlogs_are_told_with_their_age(client: Client) -> None:
    now = timezone.now()
    operation = Operation.objects.create(
        **{"kind": "stop", "is_whole_account": True, "selection": "b", "deadline_at": now},
        **{"state": "finished", "success": True, "finished_at": now - timedelta(seconds=90)},
    )
    WebhookDelivery.objects.create(operation=operation, message_id="m", state="due", next_attempt_at=now)
    event = Event.objects.create(kind="test", key="k", title="t", created_at=now - timedelta(hours=1))
    Message.objects.create(event=event, service="s", message_id="1")
    Message.objects.create(event=event, service="s", message_id="2", state="dead", next_attempt_at=None, ended_at=now)

    samples = scrape(client)

    assert samples["webhook_backlog",] == 1
    assert 90 <= samples["webhook_backlog_seconds",] < 200
    assert samples["notification_backlog",] == 1
    assert 3600 <= samples["notification_backlog_seconds",] < 3700
    assert samples["notifications_given_up",] == 1


def test_policies_and_workers_are_told(client: Client, settings: Settings) -> None:
    Policy.objects.create(name="a", rule="idle", mode="stop")
    Policy.objects.create(name="b", rule="idle", mode="stop", is_on=False)
    settings.POLICIES = False
    assert "worker_last_seen_timestamp_seconds" not in tell_names(scrape(client))
    heartbeat.note_worker()

    samples = scrape(client)

    assert samples["policies", "stop"] == 1
    assert samples["policies", "off"] == 1
    assert samples["policies_acting",] == 0
    assert samples["worker_up",] == 1
    assert abs(samples["worker_last_seen_timestamp_seconds",] - timezone.now().timestamp()) < 60


def test_worker_that_is_gone_has_a_last_sign(client: Client, raw_redis: FakeRedis) -> None:
    heartbeat.note_worker()
    raw_redis.delete(heartbeat.get_worker_key())

    samples = scrape(client)

    assert samples["worker_up",] == 0
    assert samples["worker_last_seen_timestamp_seconds",] > 0


@pytest.mark.usefixtures("account")
def test_scrape_without_redis_tells_what_the_database_holds(client: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False

    samples = scrape(client)

    assert samples["redis_up",] == 0
    assert samples["database_up",] == 1
    assert samples["operations", "stop", "failed", "finished"] == 0
    assert "worker_up" not in tell_names(samples)


@pytest.mark.usefixtures("account")
def test_scrape_without_the_database_tells_what_redis_holds(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families.database, "find_state", lambda seconds: ("it doesn't answer", None))

    with CaptureQueriesContext(connection) as captured:
        samples = scrape(client)

    assert len(captured) == 0
    assert samples["database_up",] == 0
    assert samples["redis_up",] == 1
    assert samples["group_instances", "running"] == 2


def test_prometheus_gets_the_format_that_it_accepts(client: Client) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})

    assert answer["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.content.endswith(b"# EOF\n")


def test_each_family_has_help_and_counters_say_how_late_they_are(client: Client) -> None:
    text = client.get("/metrics").content.decode()

    types = dict(re.findall(r"# TYPE (\w+) (\w+)", text))
    helps = dict(re.findall(r"# HELP (\w+) (.+)", text))
    assert types.keys() == helps.keys()
    late = {name for name, kind in types.items() if kind in {"counter", "histogram"}}
    assert late == {name for name, words in helps.items() if words.endswith(families._LATE)}


# --- Counters


def count_one(path: str, **headers: str) -> None:
    Server(shorten(WSGIHandler())).send(write(path, list(headers.items())))


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/api/instances", "instance-list", "200"),
        ("/api/instances?page=1", "instance-list", "200"),
        ("/api/instances/a", "instance-detail", "200"),
        ("/api/instances/none", "instance-detail", "404"),
        ("/health", "health", "200"),
        ("/livez", "livez", "200"),
        ("/livez?a=1", "livez", "200"),
        ("/api/overview", "overview", "200"),
        ("/api/nope/1234", "none", "404"),
        ("/nope/1234", "none", "404"),
        ("/static/nope.js", "static", "404"),
        ("/metrics", "metrics", "200"),
    ],
)
def test_an_answer_is_counted_by_route_once(client: Client, path: str, route: str, status: str) -> None:
    counters.flush()
    before = counters.read()
    count_one(path)

    counters.flush()

    added = counters.read() - before
    assert {key: value for key, value in added.items() if key[0] == "http"} == {("http", route, status): 1}


@pytest.mark.usefixtures("account")
def test_counting_adds_no_command_of_redis_to_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    count_one("/api/instances")
    sent = count_commands(monkeypatch)
    count_one("/api/instances")
    usual = len(sent)

    monkeypatch.setattr(counters, "count_request", lambda *args: None)
    count_one("/api/instances")

    assert len(sent) == 2 * usual
    assert not [command for command in sent if "counters" in command]


def test_thousand_requests_are_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        counters.count_request("health", 200 + number % 3)
    sent = count_commands(monkeypatch)

    counters.flush()
    counters.flush()

    assert len([command for command in sent if "EVAL" in command]) <= 2
    assert counters.read()["http", "health", "200"] == 334


def test_processes_add_up_and_each_reports_the_same(client: Client) -> None:
    for _ in range(3):
        counters.reset()
        counters.count_request("health", 200)
        counters.flush()

    assert scrape(client)["http_requests_total", "health", "200"] == 3


def test_batch_is_added_once_when_its_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_answer(**given: Any) -> None:
        add(**given)
        raise CacheUnavailable

    add = counters._ADD_COUNTS
    counters.count_request("health", 200)
    monkeypatch.setattr(counters, "_ADD_COUNTS", lose_answer)
    counters.try_to_flush()
    counters.count_request("health", 200)
    counters.try_to_flush()
    monkeypatch.setattr(counters, "_ADD_COUNTS", add)

    counters.flush()
    counters.flush()

    assert counters.read()["http", "health", "200"] == 2


def test_counts_wait_while_redis_is_away(redis_server: FakeServer) -> None:
    counters.count_request("health", 200)
    redis_server.connected = False
    counters.try_to_flush()
    counters.count_request("health", 200)
    redis_server.connected = True

    counters.flush()
    counters.flush()

    assert counters.read()["http", "health", "200"] == 2


def test_damaged_counters_start_again_at_zero(client: Client, raw_redis: FakeRedis) -> None:
    raw_redis.hset(redis_client.COUNTERS, mapping={"http|health|200": "-7", "\xff|": "x", "sync": "9" * 30})
    counters.count_request("health", 200)

    counters.flush()

    assert scrape(client)["http_requests_total", "health", "200"] == 1


def test_counters_have_the_accounts_prefix_and_expire(raw_redis: FakeRedis) -> None:
    counters.count_request("health", 200)
    counters.flush()

    keys = [key.decode() for key in raw_redis.keys("*count*")]
    assert len(keys) == 2
    assert all(key.startswith(REDIS_KEY_TAG) for key in keys)
    assert all(raw_redis.ttl(key) > 0 for key in keys)


@pytest.mark.usefixtures("account")
def test_calls_and_synchronizations_are_counted_with_their_durations(client: Client) -> None:
    counters.flush()

    samples = scrape(client)

    assert samples["novita_requests_total", "list", "200"] == 1
    assert samples["novita_request_duration_seconds_bucket", "list", "+Inf"] == 1
    assert samples["novita_request_duration_seconds_count", "list"] == 1
    assert samples["syncs_total", "succeeded"] == 1
    assert samples["syncs_total", "failed"] == 0
    assert samples["sync_duration_seconds_bucket", "240.0"] == 1


def test_failed_calls_are_counted_by_their_code(client: Client, novita: NovitaAnswers, no_pauses: None) -> None:
    novita.lists(status=500)
    with pytest.raises(Exception, match="500"):
        synchronize("command")
    novita.mock.reset()
    novita.lists(json=None, body=requests.ConnectionError("away"))
    with pytest.raises(Exception, match="reached"):
        synchronize("command")
    counters.flush()

    samples = scrape(client)

    assert samples["novita_requests_total", "list", "500"] == 4
    assert samples["novita_requests_total", "list", "NOVITA_UNAVAILABLE"] == 4
    assert samples["syncs_total", "failed"] == 2


@pytest.mark.parametrize("code", ["299", "999", "777"])
def test_status_that_http_lacks_is_counted_as_other(code: str) -> None:
    counters.count_call("list", code, 0.1)
    counters.flush()

    assert counters.read()["call", "list", "other"] == 1


def test_duration_on_a_limit_belongs_to_its_bucket() -> None:
    counters.count_call("list", "200", 0.05)
    counters.count_call("list", "200", 1000)
    counters.flush()

    assert counters.read()["call_bucket", "list", "0"] == 1
    assert counters.read()["call_bucket", "list", str(len(counters.CALL_BUCKETS))] == 1
