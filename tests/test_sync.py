"""What a sync leaves in the copy, seen through the API."""

import pytest
from django.test import Client

from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db


def test_a_sync_copies_the_account(client: Client, novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b", status="exited"))

    answer = client.post("/api/instances/sync")

    assert answer.status_code == 200
    assert answer.json()["novitaInstances"] == 2
    listing = client.get("/api/instances").json()
    assert {one["id"]: one["status"] for one in listing["instances"]} == {"a": "running", "b": "exited"}
