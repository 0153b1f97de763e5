"""The records as admin pages and CSV: readable, searchable, never changed; and the button *Send again*."""

import csv
import io
import re
import tracemalloc
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from instances.models import AuditEntry, Operation, Protection, SyncRun, Target, WebhookAttempt, WebhookDelivery
from tests.conftest import ApiClient
from tests.novita_answers import NovitaAnswers, make_row

pytestmark = pytest.mark.django_db

SEALED = "FAKE-SECRET-sealed"
AT = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
KINDS = ("operation", "target", "protection", "webhookdelivery", "auditentry", "syncrun")
HOSTILE = "<script>alert(1)</script>\"'& 🔥 \u202egnitseuq\u202c שלום"


def make_operation(*targets: dict[str, Any], **fields: Any) -> Operation:
    """Create a stop of these targets, finished by default."""
    operation = Operation.objects.create(
        **{
            "kind": "stop",
            "is_whole_account": True,
            "selection": "all",
            "state": "finished",
            "created_at": AT,
            "deadline_at": AT + timedelta(minutes=10),
            **fields,
        }
    )
    Target.objects.bulk_create(
        Target(
            **{
                "operation": operation,
                "instance_id": f"id-{number}",
                "name": f"trainer-{number}",
                "state": "confirmed",
                **target,
            }
        )
        for number, target in enumerate(targets)
    )
    return operation


def make_delivery(operation: Operation | None = None, **fields: Any) -> WebhookDelivery:
    """Create a delivery, given up by default."""
    operation = operation or make_operation()
    return WebhookDelivery.objects.create(
        **{
            "operation": operation,
            "message_id": f"msg_{operation.pk.hex}",
            "receiver": "https://hooks.example.com",
            "sealed_url": SEALED,
            "state": "dead",
            "payload": '{"type": "operation.finished"}',
            "created_at": AT,
            "ended_at": AT + timedelta(hours=1),
            **fields,
        }
    )


def make_record(kind: str, text: str, number: int = 0) -> Model:
    """Create records with this text in each field that strangers can fill."""
    fits = text[:100]
    match kind:
        case "operation":
            return make_operation(
                {"instance_id": f"{fits}{number}", "name": text, "state": "failed", "status": fits[:64], "error": text},
                reason=text,
                requested_by=text[:150],
                result=text,
                notes=[text],
                origin=text,
            )
        case "target":
            operation = make_record("operation", text)
            assert isinstance(operation, Operation)
            return operation.targets.get()
        case "protection":
            return Protection.objects.create(
                instance_id=f"{fits}{number}", name=text, reason=text, protected_by=text[:150], protected_at=AT
            )
        case "webhookdelivery":
            delivery = make_delivery(make_operation(), receiver=text, payload=text)
            WebhookAttempt.objects.create(delivery=delivery, attempted_at=AT, milliseconds=1234, error=text[:200])
            return delivery
        case "auditentry":
            return AuditEntry.objects.create(
                at=AT,
                actor=text[:150],
                action="instance.stop",
                target=fits,
                target_name=text,
                reason=text,
                before=text,
                after=text,
                outcome="done",
                error=text,
            )
        case _:
            named = [{"id": text, "name": text}]
            return SyncRun.objects.create(
                started_at=AT, trigger="api", outcome="succeeded", error=text, added=named, added_count=1
            )


def get_list(kind: str) -> str:
    return f"/admin/instances/{kind}/"


def get_page(record: Model) -> str:
    return f"{get_list(str(record._meta.model_name))}{record.pk}/change/"


def read_html(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def read_text(client: Client, path: str) -> str:
    """Return the visible text of the page."""
    main = read_html(client, path).partition('id="content"')[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", main)).split())


def count_rows(client: Client, path: str) -> int:
    return read_html(client, path).count('<th class="field-')


def read_csv(client: Client, path: str) -> list[dict[str, str]]:
    answer = client.get(path)
    assert answer.status_code == 200
    return list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode("utf-8-sig"), newline="")))


def count_queries(client: Client, path: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(path)
        assert answer.status_code == 200
        if answer.streaming:
            b"".join(answer.streaming_content)
    return len(queries)


@pytest.fixture
def records() -> None:
    """Two operations with three targets, their webhooks, a protection, and the activity about them."""
    stop = make_operation(
        {"instance_id": "id-a", "name": "trainer"},
        {"instance_id": "id-b", "name": "evaluator", "state": "stillRunning", "error": "It still runs."},
        success=False,
        result="1 of 2 is still running.",
        requested_by="ann",
        reason="budget",
        finished_at=AT + timedelta(minutes=5),
    )
    start = make_operation(
        {"instance_id": "id-a", "name": "trainer", "state": "requested"},
        kind="start",
        state="verifying",
        is_whole_account=False,
        selection="one",
        requested_by="bob",
        created_at=AT + timedelta(days=40),
    )
    dead = make_delivery(stop)
    WebhookAttempt.objects.create(delivery=dead, attempted_at=AT, status=500, milliseconds=31)
    WebhookAttempt.objects.create(
        delivery=dead, attempted_at=AT + timedelta(minutes=1), milliseconds=5000, error="The receiver is silent."
    )
    due = make_delivery(start, state="due", receiver="https://other.example.com:8443", next_attempt_at=AT)
    WebhookAttempt.objects.create(delivery=due, attempted_at=AT, status=503, milliseconds=7)
    Protection.objects.create(
        instance_id="id-c", name="database", reason="holds data", protected_by="ann", protected_at=AT
    )
    AuditEntry.objects.create(
        at=AT, actor="ann", action="operation.stop", target=str(stop.pk), outcome="done", request_id="r1"
    )
    AuditEntry.objects.create(
        at=AT + timedelta(days=40),
        actor="bob",
        action="instance.stop",
        target="id-c",
        target_name="database",
        reason="by mistake",
        outcome="PROTECTED",
        error="It is protected.",
        request_id="r2",
    )


# --- Every page


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_texts_are_shown_as_text_on_every_page(client: ApiClient, kind: str) -> None:
    record = make_record(kind, HOSTILE)

    for path in (get_page(record), get_list(kind), f"{get_list(kind)}?q=alert"):
        assert "<script>alert" not in read_html(client, path)
    assert HOSTILE in read_text(client, get_page(record))


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_opens_for_a_minimal_record(client: ApiClient, kind: str) -> None:
    record = make_record(kind, "")

    for path in (get_page(record), get_list(kind)):
        assert "None" not in read_text(client, path).replace("None yet.", "").replace("Unknown", "")


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_violates_the_content_security_policy(client: ApiClient, kind: str) -> None:
    record = make_record(kind, HOSTILE)

    for path in (get_page(record), get_list(kind)):
        html = read_html(client, path)
        assert re.findall(r"<style|<script(?![^>]*\ssrc=)[^>]*>|\sstyle=|\son[a-z]+=", html) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page", ["add/", "{pk}/delete/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_records_can_not_be_added_or_deleted(kind: str, page: str, method: str) -> None:
    record = make_record(kind, "x")

    answer = Client().generic(
        method, get_list(kind) + page.format(pk=record.pk), b"post=yes", "application/x-www-form-urlencoded"
    )

    assert answer.status_code == 403
    assert list(type(record)._default_manager.all()) == [record]


@pytest.mark.parametrize("kind", KINDS)
def test_records_can_not_be_changed(kind: str) -> None:
    record = make_record(kind, "x")
    before = type(record)._default_manager.values().get()

    answer = Client().post(get_page(record), {"name": "mallory", "reason": "mallory", "state": "due", "actor": "ann"})

    assert answer.status_code == 403
    assert type(record)._default_manager.values().get() == before


@pytest.mark.parametrize("kind", KINDS)
def test_records_can_not_be_deleted_together(kind: str) -> None:
    record = make_record(kind, "x")
    client = Client()

    client.post(get_list(kind), {"action": "delete_selected", "_selected_action": [record.pk], "post": "yes"})

    assert type(record)._default_manager.exists()
    assert "delete_selected" not in read_html(client, get_list(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_visitor_without_role_gets_no_records(settings: Settings, django_user_model: Any, kind: str) -> None:
    settings.REQUIRE_LOGIN = True
    record = make_record(kind, "x")
    client = Client()
    client.force_login(django_user_model.objects.create_user("ann", password="x", is_staff=True))

    for path in (get_list(kind), f"{get_list(kind)}csv/", get_page(record)):
        assert client.get(path).status_code == 403
        assert Client().get(path).status_code == 302, "to the login"


# --- Filters and search


@pytest.mark.thorough
@pytest.mark.usefixtures("records")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("operation/", 2),
        ("operation/?kind__exact=stop", 1),
        ("operation/?state__exact=verifying", 1),
        ("operation/?success__exact=0", 1),
        ("operation/?success__exact=1", 0),
        ("operation/?created_at__year=2026&created_at__month=2", 1),
        ("operation/?q=ann", 1),
        ("operation/?q=BUDGET", 1),
        ("operation/?q=evaluator", 1),
        ("operation/?q=trainer", 2),
        ("operation/?q=nobody", 0),
        ("target/", 3),
        ("target/?state__exact=stillRunning", 1),
        ("target/?operation__kind__exact=start", 1),
        ("target/?operation__created_at__month=2&operation__created_at__year=2026", 1),
        ("target/?q=id-a", 2),
        ("target/?q=evaluator", 1),
        ("target/?q=budget", 0),
        ("protection/", 1),
        ("protection/?protected_by=ann", 1),
        ("protection/?protected_by=bob", 0),
        ("protection/?q=holds+data", 1),
        ("protection/?q=id-a", 0),
        ("webhookdelivery/", 2),
        ("webhookdelivery/?state__exact=dead", 1),
        ("webhookdelivery/?receiver=https%3A%2F%2Fother.example.com%3A8443", 1),
        ("webhookdelivery/?q=hooks.example", 1),
        ("webhookdelivery/?q=FAKE-SECRET", 0),
        ("auditentry/", 2),
        ("auditentry/?action=instance.stop", 1),
        ("auditentry/?outcome=done", 1),
        ("auditentry/?actor=bob", 1),
        ("auditentry/?at__year=2026&at__month=1", 1),
        ("auditentry/?q=id-c", 1),
        ("auditentry/?q=database", 1),
        ("auditentry/?q=mistake", 1),
        ("auditentry/?q=ann", 1),
        ("auditentry/?q=r2", 1),
        ("auditentry/?q=nobody", 0),
    ],
)
def test_lists_and_their_files_can_be_filtered_and_searched(client: ApiClient, query: str, found: int) -> None:
    kind, _, choice = query.partition("/")

    assert count_rows(client, get_list(kind) + choice) == found
    assert len(read_csv(client, f"{get_list(kind)}csv/{choice}")) == found


def test_filter_for_records_without_a_user_has_a_label(client: ApiClient) -> None:
    Protection.objects.create(instance_id="a", reason="x")
    Protection.objects.create(instance_id="b", reason="x", protected_by="ann")
    AuditEntry.objects.create(action="sync", outcome="done")

    assert "Who All (nobody) ann" in read_text(client, get_list("protection"))
    assert count_rows(client, f"{get_list('protection')}?protected_by=") == 1
    assert "Who All (nobody)" in read_text(client, get_list("auditentry"))


@pytest.mark.usefixtures("records")
def test_operation_is_found_by_its_id(client: ApiClient) -> None:
    start = Operation.objects.get(kind="start")

    assert count_rows(client, f"{get_list('operation')}?q={start.pk}") == 1
    assert count_rows(client, f"{get_list('webhookdelivery')}?q={start.pk}") == 1


@pytest.mark.usefixtures("records")
def test_operation_page_links_to_its_results(client: ApiClient) -> None:
    stop = Operation.objects.get(kind="stop")
    link = f"/admin/instances/target/?operation={stop.pk}"

    assert f'href="{link}"' in read_html(client, get_page(stop))
    assert count_rows(client, link) == 2
    assert "column-shown_operation" not in read_html(client, link)
    assert "column-shown_operation" in read_html(client, get_list("target"))
    assert "Operation: stop of 2026-01-15 10:30:00 UTC All stop of 2026-01-15 10:30:00 UTC" in read_text(client, link)
    assert "Operation: " not in read_text(client, get_list("target"))


@pytest.mark.parametrize(
    "query", ["operation=x", "created_at__year=x", "operation__kind__exact=stop&p=x%00&operation=0"]
)
def test_invalid_filter_gives_no_file(client: ApiClient, query: str) -> None:
    make_operation({})

    assert client.get(f"{get_list('target')}csv/?{query}").status_code == 400
    assert client.get(f"{get_list('target')}?{query}", follow=True).status_code == 200


# --- An operation's page


@pytest.mark.usefixtures("records")
def test_operation_page_shows_result_and_targets(client: ApiClient) -> None:
    stop = Operation.objects.get(kind="stop")
    text = read_text(client, get_page(stop))

    assert "Result: 1 of 2 is still running." in text
    assert "Started (UTC): 2026-01-15 10:30:00" in text and "Finished (UTC): 2026-01-15 10:35:00" in text
    assert "Results 1 confirmed, 1 still running" in text
    assert text.index("evaluator id-b still running 0 It still runs.") < text.index("trainer id-a confirmed")
    assert f"Webhook: msg_{stop.pk.hex} to https://hooks.example.com : given up" in text


def test_large_operation_page_shows_failures_first_and_the_number_of_others(client: ApiClient) -> None:
    operation = make_operation(
        *({"instance_id": f"i{number}"} for number in range(510)),
        *(
            {"instance_id": f"bad{number}", "name": f"zz{number}", "state": state}
            for number, state in enumerate(("failed", "unknown", "stillRunning"))
        ),
    )

    html = read_html(client, get_page(operation))

    assert html.count('<th scope="row">') == 500
    assert "… and 13 more." in html
    assert all(f"bad{number}" in html for number in range(3))


@pytest.mark.usefixtures("records")
def test_operation_list_shows_the_number_of_confirmed_targets(client: ApiClient) -> None:
    operation = Operation.objects.get(kind="stop")
    Target.objects.create(operation=operation, instance_id="id-z", state="skipped", error="It is protected.")

    assert "1 of 2 is still running. 1 of 2 ann budget" in read_text(
        client, f"{get_list('operation')}?kind__exact=stop"
    )


@pytest.mark.usefixtures("records")
def test_operation_page_links_to_its_activity(client: ApiClient) -> None:
    stop = Operation.objects.get(kind="stop")
    link = f"/admin/instances/auditentry/?q={stop.pk}"

    assert f'href="{link}"' in read_html(client, get_page(stop))
    assert "operation.stop" in read_text(client, link) and count_rows(client, link) == 1


# --- A webhook's page


@pytest.mark.usefixtures("records")
def test_delivery_page_shows_each_attempt_and_the_payload(client: ApiClient) -> None:
    text = read_text(client, get_page(WebhookDelivery.objects.get(state="dead")))

    assert "2026-01-15 10:31:00 no answer 5000 The receiver is silent. 2026-01-15 10:30:00 500 31" in text
    assert '{"type": "operation.finished"}' in text


@pytest.mark.usefixtures("records")
def test_delivery_list_shows_the_outcome_of_the_last_attempt(client: ApiClient) -> None:
    text = read_text(client, get_list("webhookdelivery"))

    assert "given up 2 The receiver is silent." in text
    assert "due 1 503 2026-01-15 10:30:00" in text


@pytest.mark.usefixtures("records")
def test_encrypted_url_is_shown_nowhere(client: ApiClient) -> None:
    delivery = WebhookDelivery.objects.get(state="dead")

    paths = [get_page(delivery), get_page(delivery.operation)]
    paths += [f"{get_list(kind)}{page}" for kind in KINDS for page in ("", "csv/")]
    for path in paths:
        answer = client.get(path)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert SEALED not in body.decode() and b"sealed" not in body.lower()


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize(
    "path",
    [
        "webhookdelivery/?sealed_url__startswith",
        "operation/?webhook__sealed_url__startswith",
        "webhookdelivery/csv/?sealed_url__contains",
    ],
)
def test_encrypted_url_can_not_be_guessed_by_filters(client: ApiClient, path: str) -> None:
    assert client.get(f"/admin/instances/{path}=FAKE").status_code == 400


def press_send_again(delivery: WebhookDelivery, client: Client | None = None, **options: Any) -> Any:
    return (client or Client()).post(f"{get_list('webhookdelivery')}{delivery.pk}/send-again/", **options)


@pytest.mark.usefixtures("records")
def test_delivery_that_was_given_up_is_sent_again_once() -> None:
    delivery = WebhookDelivery.objects.get(state="dead")

    first = press_send_again(delivery, follow=True)
    delivery.refresh_from_db()
    second = press_send_again(delivery, follow=True)

    assert first.redirect_chain == [(get_page(delivery), 302)]
    (message,) = first.context["messages"]
    assert message.level_tag == "success"
    assert message.message == "The worker sends it again within seconds."
    assert delivery.state == "due" and delivery.next_attempt_at <= timezone.now()
    (message,) = second.context["messages"]
    assert message.level_tag == "error" and "has not been given up" in message.message


@pytest.mark.usefixtures("records")
def test_sending_again_is_recorded_with_its_outcome() -> None:
    delivery = WebhookDelivery.objects.get(state="dead")

    answer = press_send_again(delivery)
    press_send_again(delivery)

    refused, done = AuditEntry.objects.filter(action="webhook.resend").order_by("-pk")
    assert done.actor == "local-owner"
    assert done.address == "127.0.0.1"
    assert done.request_id == answer["X-Request-Id"]
    assert done.target == delivery.message_id
    assert done.target_name == "https://hooks.example.com"
    assert done.outcome == "done"
    assert refused.outcome == "INVALID_STATE"


@pytest.mark.parametrize("state", ["waiting", "due", "delivered", "dead"])
def test_only_a_delivery_that_was_given_up_has_the_button(client: ApiClient, state: str) -> None:
    delivery = make_delivery(state=state)

    page = read_html(client, get_page(delivery))

    form = re.search(r'<form[^>]*method="post"[^>]*/send-again/".*?</form>', page, re.DOTALL)
    assert (form is not None) is (state == "dead")
    assert form is None or ("csrfmiddlewaretoken" in form[0] and "Send again" in form[0])


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_send_again_button_requires_post(client: ApiClient, method: str) -> None:
    delivery = make_delivery()

    answer = client.generic(method, f"{get_list('webhookdelivery')}{delivery.pk}/send-again/")

    assert answer.status_code == 405
    assert WebhookDelivery.objects.get().state == "dead"


def test_send_again_button_requires_the_csrf_token() -> None:
    assert press_send_again(make_delivery(), Client(enforce_csrf_checks=True)).status_code == 403
    assert WebhookDelivery.objects.get().state == "dead"


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_viewer_can_not_send_deliveries_again(settings: Settings, django_user_model: Any, role: str) -> None:
    settings.REQUIRE_LOGIN = True
    delivery = make_delivery()
    user = django_user_model.objects.create_user("ann")
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    client = Client()
    client.force_login(user)

    assert "Send again" not in read_html(client, get_page(delivery))
    assert press_send_again(delivery, client).status_code == 403
    assert WebhookDelivery.objects.get().state == "dead"


def test_unknown_delivery_is_not_sent_again() -> None:
    assert Client().post(f"{get_list('webhookdelivery')}99999999999999999999/send-again/").status_code == 404


# --- CSV


def test_file_uses_the_field_names_of_the_api(client: ApiClient) -> None:
    operation = make_operation({"requested_at": AT}, success=False, result='said "no", twice\nover')

    (row,) = read_csv(client, f"{get_list('operation')}csv/")
    assert row["id"] == str(operation.pk)
    assert row["isWholeAccount"] == "true"
    assert row["success"] == "false"
    assert row["finishedAt"] == ""
    assert row["createdAt"] == "2026-01-15T10:30:00Z"
    assert row["targetCount"] == "1"
    assert row["confirmedCount"] == "1"
    assert row["result"] == 'said "no", twice\nover'
    (row,) = read_csv(client, f"{get_list('target')}csv/")
    assert row["operationId"] == str(operation.pk)
    assert row["operationKind"] == "stop"
    assert row["instanceId"] == "id-0"
    assert row["requestedAt"] == "2026-01-15T10:30:00Z"


@pytest.mark.usefixtures("records")
def test_delivery_row_has_the_outcome_of_the_last_attempt(client: ApiClient) -> None:
    (row,) = read_csv(client, f"{get_list('webhookdelivery')}csv/?state__exact=dead")

    assert row["attemptCount"] == "2"
    assert row["lastStatus"] == ""
    assert row["lastError"] == "The receiver is silent."


@pytest.mark.parametrize("kind", KINDS)
def test_file_name_contains_list_and_date(client: ApiClient, kind: str) -> None:
    record = make_record(kind, HOSTILE)

    answer = client.get(f"{get_list(kind)}csv/")

    name = str(record._meta.verbose_name_plural).replace(" ", "-")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == f'attachment; filename="{name}-{timezone.now():%Y-%m-%d}.csv"'
    assert any(HOSTILE in str(cell) for cell in read_csv(client, f"{get_list(kind)}csv/")[0].values())


@pytest.mark.parametrize(
    "start",
    [
        *"=+-@\t\r\n＝＋－＠﹢﹣﹦﹫⁺₌−",
        *(
            f"{blank}="
            for blank in " \t\r\n\v\f\0\x1f\x85\xa0\xad\u1680\u2003\u2028\u200b\u200e\u202e\u2060\u3000\ufeff"
        ),
        "  \u00a0\ufeff＝",
        "=\u0338",
        "\u0301=",
        " " * 250 + "=",
    ],
    ids=ascii,
)
def test_no_cell_is_a_formula(client: ApiClient, start: str) -> None:
    if "\0" in start and connection.vendor == "postgresql":
        pytest.skip("PostgreSQL stores no NUL")
    Protection.objects.create(instance_id="a", name=f"{start}1+1", reason="a=b")

    (row,) = read_csv(client, f"{get_list('protection')}csv/")

    assert row["name"] == f"'{start}1+1"
    assert row["reason"] == "a=b"


@pytest.mark.parametrize(
    "name", ["", " ", "worker-2", " a", "\xa0a", "Ünï", "'=1", '"=1"', "1+1", "#1", "a\n=1", "é", "東京"]
)
def test_other_cells_are_unchanged(client: ApiClient, name: str) -> None:
    Protection.objects.create(instance_id="a", name=name, reason="x")

    (row,) = read_csv(client, f"{get_list('protection')}csv/")

    assert row["name"] == name


def test_file_starts_with_the_byte_order_mark(client: ApiClient) -> None:
    Protection.objects.create(instance_id="a", name="Größe", reason="x")

    content = b"".join(client.get(f"{get_list('protection')}csv/").streaming_content)

    assert content.startswith(b"\xef\xbb\xbfinstanceId,")
    assert content.count(b"\xef\xbb\xbf") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_list_links_to_the_file_of_its_rows(client: ApiClient, kind: str) -> None:
    make_record(kind, "x")

    assert f'href="{get_list(kind)}csv/?q=x&amp;o=1"' in read_html(client, f"{get_list(kind)}?q=x&o=1&all=")


def test_file_has_all_pages_in_the_order_of_the_list(client: ApiClient) -> None:
    Protection.objects.bulk_create(Protection(instance_id=f"id-{n:03}", name=f"n{n:03}") for n in range(120))
    link = re.search(r'href="([^"]*/csv/[^"]*)"', read_html(client, f"{get_list('protection')}?o=-2&p=2"))

    assert link is not None
    rows = read_csv(client, unescape(link[1]))

    assert [row["instanceId"] for row in rows] == [f"id-{n:03}" for n in reversed(range(120))]


@pytest.mark.thorough
def test_ten_thousand_rows_take_as_many_queries_as_one(client: ApiClient) -> None:
    path = f"{get_list('target')}csv/"
    operation = make_operation({})
    client.get(path)
    few = count_queries(client, path)
    Target.objects.bulk_create(Target(operation=operation, instance_id=f"i{n}", name="x" * 50) for n in range(10_000))

    assert count_queries(client, path) == few <= 8
    answer = client.get(path)
    tracemalloc.start()
    pieces = [(piece.count(b"\n"), len(piece)) for piece in answer.streaming_content]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(lines for lines, _ in pieces) == 10_002
    assert len(pieces) > 10 and max(length for _, length in pieces) < 200_000
    assert peak_bytes < 4_000_000, "the rows are not held together"


# --- Queries


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page", ["", "csv/", "?q=x"])
def test_long_list_takes_no_more_queries_than_a_short_one(client: ApiClient, kind: str, page: str) -> None:
    make_record(kind, "x")
    path = get_list(kind) + page
    client.get(path)
    few = count_queries(client, path)
    for number in range(1, 8):
        make_record(kind, "x", number) if kind != "operation" else make_operation(
            {}, {}, selection=f"s{number}", reason="x"
        )

    assert count_queries(client, path) == few <= 14


@pytest.mark.parametrize("more", [1, 60])
def test_page_takes_the_same_queries_for_any_number_of_targets_and_attempts(client: ApiClient, more: int) -> None:
    delivery = make_delivery(make_operation(*({"instance_id": f"i{n}"} for n in range(more))))
    WebhookAttempt.objects.bulk_create(WebhookAttempt(delivery=delivery, milliseconds=n) for n in range(more))
    client.get("/admin/")

    assert count_queries(client, get_page(delivery.operation)) <= 5
    assert count_queries(client, get_page(delivery)) <= 4


# --- The sync button's entry


def test_sync_by_button_is_recorded(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"))

    answer = Client().post(f"{get_list('syncrun')}sync/")

    entry = AuditEntry.objects.get(action="sync")
    assert entry.actor == "local-owner"
    assert entry.outcome == "done"
    assert entry.error == ""
    assert entry.request_id == answer["X-Request-Id"]


def test_failed_sync_by_button_is_recorded_with_its_error(novita: NovitaAnswers) -> None:
    novita.lists(status=401)

    Client().post(f"{get_list('syncrun')}sync/")

    entry = AuditEntry.objects.get(action="sync")
    assert entry.outcome == "failed"
    assert "Novita rejected the API key." in entry.error


def test_every_kind_of_record_is_on_the_overview(client: ApiClient) -> None:
    html = read_html(client, "/admin/")

    assert [kind for kind in KINDS if f'href="{get_list(kind)}"' not in html] == []


def test_operation_lists_its_targets_in_natural_order_the_worst_first() -> None:
    operation = make_operation(
        {"name": "worker-20"}, {"name": "worker-2"}, {"name": "worker-19"}, {"name": "worker-100", "state": "failed"}
    )

    page = ApiClient().get(f"/admin/instances/operation/{operation.pk}/change/").content.decode()

    expected = ["worker-100", "worker-2", "worker-19", "worker-20"]
    assert sorted(expected, key=lambda name: page.index(f">{name}<")) == expected
    assert "The address of the panel that the webhook links to, for example https://panel.example.com" in page
