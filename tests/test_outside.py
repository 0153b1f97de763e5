"""Changes that nobody requested here: a synchronization marks them in its record."""

import pytest
from django.test import Client
from django.utils import timezone

from instances.errors import CacheUnavailable
from instances.inventory.difference import Difference, Listed
from instances.inventory.outside import find_change
from instances.inventory.report import SyncReport, record
from instances.models import SyncRun
from tests.conftest import ApiClient
from tests.novita_answers import Account, NovitaAnswers, make_row
from tests.operation_steps import OPERATIONS, order, sync

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_pauses")]


@pytest.fixture
def account(client: Client, novita: NovitaAnswers) -> Account:
    """A running and a stopped instance, and their inventory."""
    account = novita.holds(make_row("a", name="train"), make_row("b", name="serve", status="exited"))
    sync(client, account)
    return account


def find_marked(client: Client, account: Account) -> dict[str, str]:
    """Synchronize, and return what its record marks as made outside."""
    sync(client, account)
    run = SyncRun.objects.first()
    assert run
    assert run.outside_count == len(run.outside)
    return {one["id"]: one["change"] for one in run.outside}


def test_first_synchronization_marks_nothing(client: Client, account: Account) -> None:
    assert SyncRun.objects.get().outside == []


def test_unchanged_account_marks_nothing(client: Client, account: Account) -> None:
    assert find_marked(client, account) == {}


def test_stop_in_the_console_is_marked(client: Client, account: Account) -> None:
    account.change("a", "exited")

    assert find_marked(client, account) == {"a": "stopped"}


def test_start_in_the_console_is_marked(client: Client, account: Account) -> None:
    account.change("b", "pulling")

    assert find_marked(client, account) == {"b": "started"}


def test_restart_in_the_console_is_marked(client: Client, account: Account) -> None:
    account.change("a", "running", lastStartedAt="1760009999")

    assert find_marked(client, account) == {"a": "restarted"}


def test_new_instance_is_marked_as_created_elsewhere(client: Client, account: Account) -> None:
    account.change("c", "running")

    assert find_marked(client, account) == {"c": "created"}


def test_missing_instance_is_marked_as_deleted_elsewhere(client: Client, account: Account) -> None:
    del account.rows["b"]

    assert find_marked(client, account) == {"b": "deleted"}


def test_change_that_is_no_start_or_stop_is_not_marked(client: Client, account: Account) -> None:
    account.change("a", "running", name="renamed")

    assert find_marked(client, account) == {}


@pytest.mark.parametrize(("id_", "action"), [("a", "stop"), ("b", "start"), ("a", "restart")])
def test_action_of_this_panel_is_not_marked(id_: str, action: str, client: Client, account: Account) -> None:
    assert client.post(f"/api/instances/{id_}/{action}").status_code == 202
    account.settle()

    assert find_marked(client, account) == {}


@pytest.mark.parametrize(("id_", "action"), [("a", "stop"), ("b", "start")])
def test_action_that_the_inventory_never_showed_is_not_marked(
    id_: str, action: str, client: Client, account: Account
) -> None:
    before = dict(account.rows[id_])
    assert client.post(f"/api/instances/{id_}/{action}").status_code == 202
    # A synchronization that had read the account before the request has published the old status.
    after, account.rows[id_] = account.rows[id_], before
    assert find_marked(client, account) == {}
    account.rows[id_] = after
    account.settle()

    assert find_marked(client, account) == {}


def test_operation_of_this_panel_is_not_marked(client: Client, account: Account) -> None:
    before = dict(account.rows["a"])
    order(client, OPERATIONS, kind="stop", ids=["a"])
    # As above.
    after, account.rows["a"] = account.rows["a"], before
    assert find_marked(client, account) == {}
    account.rows["a"] = after

    assert find_marked(client, account) == {}


def test_request_of_an_operation_that_is_not_answered_yet_is_not_marked(client: Client, account: Account) -> None:
    marked: list[dict[str, str]] = []

    def answer_slowly() -> tuple[int, dict[str, str], str]:
        account.change("a", "toStop")
        marked.append(find_marked(ApiClient(), account))
        return 200, {}, "{}"

    account.answers("stop a", answer_slowly)

    order(client)

    assert marked == [{}]


def test_lost_answer_explains_a_stop(client: Client, account: Account) -> None:
    account.answers("stop a", 502)
    account.answers("read a", 502)
    assert client.post("/api/instances/a/stop").status_code == 502
    account.change("a", "exited")

    assert find_marked(client, account) == {}


def test_stop_of_this_panel_does_not_explain_a_later_start(client: Client, account: Account) -> None:
    client.post("/api/instances/a/stop")
    account.settle()
    sync(client, account)
    account.change("a", "running")

    assert find_marked(client, account) == {"a": "started"}


def test_refilled_inventory_marks_nothing(client: Client, account: Account) -> None:
    client.post("/api/cache/clear")

    assert find_marked(client, account) == {}


def test_synchronization_that_could_not_be_published_marks_nothing(account: Account) -> None:
    # The next one finds the change again.
    difference = Difference(removed=Listed(1, [{"id": "a", "name": "train"}]))

    record(SyncReport(SyncRun.Trigger.API, difference=difference, last_sync=timezone.now()), CacheUnavailable(), 0)

    run = SyncRun.objects.first()
    assert run
    assert run.outside == []


def test_record_shows_the_change(client: Client, account: Account) -> None:
    account.change("a", "exited")
    sync(client, account)
    run = SyncRun.objects.first()
    assert run

    page = client.get(f"/admin/instances/syncrun/{run.pk}/change/").content.decode()

    assert "<strong>train</strong> <code>a</code> stopped" in page


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        *(("running", "exited", "stopped"), ("pulling", "toStop", "stopped"), ("exited", "creating", "started")),
        *(
            ("stopping", "running", None),
            ("toStart", "exited", None),
            ("stopping", "pulling", "started"),
            ("toStop", "exited", None),
            ("toStart", "running", None),
        ),
        *(("running", "restarting", None), ("exited", "removed", None), ("running", "unheard-of", None)),
    ],
)
def test_status_change_means(before: str, after: str, expected: str | None) -> None:
    assert find_change({"status": (before, after)}) == expected


@pytest.mark.parametrize("before", [None, ""])
def test_start_time_that_appears_is_no_restart(before: str | None) -> None:
    assert find_change({"lastStartedAt": (before, "2026-01-15T10:30:00Z")}) is None
