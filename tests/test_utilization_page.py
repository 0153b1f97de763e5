"""The lines of an instance's utilization, as the server draws them for its drawer."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from fakeredis import FakeServer

from instances.utilization import readings, sampling
from tests.inventories import fill_inventory
from tests.novita_answers import NovitaAnswers, make_row
from tests.policy_steps import make_reading, make_series

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(novita: NovitaAnswers) -> None:
    novita.holds(make_row("a"), make_row("b", status="exited"))
    fill_inventory()


def read(client: Client, id_: str = "a") -> str:
    answer = client.get(f"/utilization/{id_}/")
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.usefixtures("account")
def test_lines_are_drawn_with_a_sentence_and_the_last_value(client: Client) -> None:
    now = timezone.now()
    cpu = make_series(now - timedelta(hours=1), [20.0] * 59 + [40.0])
    readings.write("a", make_reading(now, [0.0] * 59 + [70.0], [0.0] * 59 + [30.0], cpu=cpu))

    page = read(client)

    assert "<title>GPU in the last hour: 50 % now, at most 50 %.</title>" in page
    assert "<title>CPU in the last hour: 40 % now, at most 40 %.</title>" in page
    assert "GPU memory" not in page


@pytest.mark.usefixtures("account")
def test_failed_reading_says_why(client: Client) -> None:
    readings.write("a", make_reading(timezone.now(), 0.0, error="Novita returned an error (HTTP 500)."))

    assert "Metrics can't be read: Novita returned an error (HTTP 500)." in read(client)


@pytest.mark.usefixtures("account")
def test_open_drawer_lets_the_worker_read(client: Client) -> None:
    assert "are being read" in read(client)

    assert sampling.list_watched() == ["a"]


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("id_", ["b", "nope"])
def test_instance_that_does_not_run_is_not_read(id_: str, client: Client) -> None:
    assert "running" in read(client, id_)
    assert sampling.list_watched() == []


def test_page_that_needs_redis_says_that_it_is_away(client: Client, redis_server: FakeServer) -> None:
    redis_server.connected = False

    answer = client.get("/utilization/a/")

    assert answer.status_code == 503
    assert "Redis can&#x27;t be reached." in answer.content.decode()
