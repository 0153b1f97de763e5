"""What the answers of an operation say, and in which order they name instances."""

import re

import pytest
from django.test import Client

from instances.models import AuditEntry, Target
from tests.novita_answers import NovitaAnswers, make_row
from tests.operation_steps import Json, order, show

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]

NEVER_STOPS = (200, {}, "{}")


def list_names(rows: list[Json]) -> list[str]:
    return [row["name"] for row in rows]


# --- Joining


@pytest.mark.parametrize(
    ("more", "again", "words"),
    [
        ("bc", "", "2 more to stop"),
        ("", "a", "1 requested again"),
        ("b", "a", "1 more to stop; 1 requested again"),
    ],
)
def test_joining_counts_new_and_repeated_requests_separately(
    more: str, again: str, words: str, client: Client, novita: NovitaAnswers
) -> None:
    account = novita.holds(make_row("a"), make_row("z"))
    account.answers("stop a", NEVER_STOPS)
    account.answers("stop z", NEVER_STOPS)
    order(client)
    for id_ in again:
        Target.objects.filter(instance_id=id_).update(state="failed", error_code="NOVITA_REJECTED_KEY")
    for id_ in more:
        account.change(id_, "running")

    joined = order(client)

    assert f"{words}." in joined["warnings"]
    assert AuditEntry.objects.filter(after=f"joined the running operation: {words}").exists()


def test_joining_without_new_requests_names_no_number(client: Client, novita: NovitaAnswers) -> None:
    account = novita.holds(make_row("a"))
    account.answers("stop a", NEVER_STOPS)
    order(client)

    joined = order(client)

    assert not re.search(r"\d+ (more to stop|requested again)\b", " ".join(joined["warnings"]))
    assert AuditEntry.objects.filter(after="joined the running operation: nothing more to request").exists()


# --- The order of names


def test_targets_are_in_natural_order(client: Client, novita: NovitaAnswers) -> None:
    numbers = {"a": 20, "b": 2, "c": 19, "d": 1}
    novita.holds(*[make_row(id_, name=f"worker-{number}") for id_, number in numbers.items()])
    expected = ["worker-1", "worker-2", "worker-19", "worker-20"]
    for id_ in "abcd":
        client.post(f"/api/instances/{id_}/protect", {"reason": "the demo"})
    assert list_names(order(client, dryRun=True)["skipped"]) == expected
    for id_ in "abcd":
        client.delete(f"/api/instances/{id_}/protect")

    assert list_names(order(client, dryRun=True)["results"]) == expected
    ordered = order(client)

    assert list_names(ordered["results"]) == expected
    assert list_names(show(client, ordered)["targets"]) == expected


# --- A dry run


def test_dry_run_warns_only_of_monthly_instances_that_it_would_request(client: Client, novita: NovitaAnswers) -> None:
    monthly = {"billingMode": "monthly"}
    novita.holds(
        make_row("a", name="w10", **monthly),
        make_row("b", name="w9", **monthly),
        make_row("c", name="protected", **monthly),
        make_row("d", name="stopping", status="stopping", **monthly),
        make_row("e", name="stopped", status="exited", **monthly),
    )
    client.post("/api/instances/c/protect", {"reason": "the demo"})

    warnings = order(client, dryRun=True, ids=list("abcde"))["warnings"]

    assert "Prepaid by the month: stopping saves nothing for w9, w10." in warnings


def test_dry_run_that_requests_nothing_warns_of_no_loss(client: Client, novita: NovitaAnswers) -> None:
    novita.holds(make_row("a", status="stopping", billingMode="monthly"))

    body = order(client, dryRun=True, ids=["a"])

    assert body["message"] == "Would stop 0 instances"
    assert not [warning for warning in body["warnings"] if "data is kept" in warning or "month" in warning]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("a", "1 instance is in another status (migrating) and is not included; check it again."),
        ("ab", "2 instances are in another status (migrating) and are not included; check them again."),
    ],
)
@pytest.mark.parametrize("is_dry_run", [True, False])
def test_instances_in_another_status_are_named_as_not_included(
    ids: str, words: str, is_dry_run: bool, client: Client, novita: NovitaAnswers
) -> None:
    novita.holds(make_row("z"), *[make_row(id_, status="migrating") for id_ in ids])

    assert words in order(client, dryRun=is_dry_run)["warnings"]
