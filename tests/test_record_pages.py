"""What all pages of records have in common: the frame, the words of an empty list, and how a record is deleted."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from instances.models import AuditEntry, MeteredInstance, Policy, Snooze, SyncRun, Token, UsageInterval
from tests.logged_in import log_in, make_user
from tests.test_admin_records import read_text

pytestmark = pytest.mark.django_db

RECORDS = [model for model in admin.site._registry if model is not User]


@pytest.fixture
def ann() -> User:
    return make_user("ann", "admin")


@pytest.fixture
def client(ann: User) -> Client:
    """A client that is logged in as ann, an admin."""
    return log_in(ann)


def get_address(model: type[Model], page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def test_page_of_a_user_is_below_the_records(client: Client) -> None:
    bob = User.objects.create_user("bob")

    html = client.get(get_address(User, "change", bob.pk)).content.decode()
    links = html.partition('<div class="breadcrumbs">')[2].partition("</div>")[0]

    assert re.sub(r"<[^>]*>|\s", "", links) == "Records›Users›bob"


def test_each_empty_list_says_what_it_is_for_and_that_it_is_empty(client: Client) -> None:
    silent = []
    for model in RECORDS:
        purpose = admin.site.get_model_admin(model).purpose  # type: ignore[attr-defined]  # of all our pages
        text = read_text(client, get_address(model))
        if not purpose or purpose not in text or f"No {model._meta.verbose_name_plural} yet." not in text:
            silent.append(model.__name__)

    assert silent == []


def test_list_without_a_match_leads_to_all_rows(client: Client) -> None:
    AuditEntry.objects.create(action="sync", outcome="done")

    answer = client.get(f"{get_address(AuditEntry)}?q=nobody")

    assert "No entries match." in answer.content.decode()
    assert '<a href="?">Show all activity</a>' in answer.content.decode()


def test_filters_stand_before_the_rows(client: Client) -> None:
    AuditEntry.objects.create(action="sync", outcome="done")

    html = client.get(f"{get_address(AuditEntry)}?outcome=done").content.decode()

    assert html.count("<summary>Outcome: done</summary>") == 1
    assert 0 < html.index("<summary>Outcome: done</summary>") < html.index('id="result_list"')


def test_number_of_rows_is_said_once_and_in_groups_of_three_digits(client: Client) -> None:
    AuditEntry.objects.bulk_create(AuditEntry(action="sync", outcome="done") for _ in range(1234))

    text = read_text(client, get_address(AuditEntry))

    assert "1,234 entries" in text
    assert "1234" not in text


def test_figures_of_a_synchronization_have_separators(client: Client) -> None:
    changed = {"added_count": 1234, "changed_count": 5678, "novita_instances": 9999}
    SyncRun.objects.create(started_at=timezone.now(), trigger="api", outcome="succeeded", **changed)

    assert "9,999 1,234 new, 5,678 changed" in read_text(client, get_address(SyncRun))
    assert "Instances: 1,234 new, 5,678 changed" in read_text(client, "/activity/")


def test_yes_and_no_are_words(client: Client) -> None:
    instance = MeteredInstance.objects.create(instance_id="a", name="trainer")
    UsageInterval.objects.create(instance=instance, state=1, began_ms=1, ended_ms=2)

    assert "icon-no" not in client.get(get_address(UsageInterval)).content.decode()


# --- Deleting


def test_deletion_says_what_it_means_and_what_goes_along(client: Client) -> None:
    bob = User.objects.create_user("bob")
    bob.groups.add(Group.objects.get_or_create(name="viewer")[0])
    Token.objects.create(user=bob, name="ci")

    text = read_text(client, get_address(User, "delete", bob.pk))

    assert "Delete the user bob?" in text
    assert "logins and tokens are refused" in text
    assert "Deleted along with the user: tokens (1)." in text
    assert "relationship" not in text


@pytest.mark.parametrize("is_by_list", [True, False])
def test_policy_is_deleted_with_its_snoozes(client: Client, is_by_list: bool) -> None:
    policy = Policy.objects.create(name="nights", rule="idle")
    until = timezone.now() + timedelta(hours=1)
    Snooze.objects.create(policy=policy, instance_id="a", until=until, by="ann", at=timezone.now())

    if is_by_list:
        form = {"action": "delete_selected", "_selected_action": [policy.pk], "post": "yes"}
        client.post(get_address(Policy), form)
    else:
        client.post(get_address(Policy, "delete", policy.pk), {"post": "yes"})

    assert not Policy.objects.exists()


def test_own_account_is_not_deleted_by_a_selection(client: Client, ann: User) -> None:
    form = {"action": "delete_selected", "_selected_action": [ann.pk]}

    asked = client.post(get_address(User), form)
    answer = client.post(get_address(User), {**form, "post": "yes"})

    assert "Nothing was deleted" in asked.content.decode()
    assert "your own, or that of the local owner" in asked.content.decode()
    assert answer.status_code == 403
    assert User.objects.filter(pk=ann.pk).exists()


# --- Policies


def test_fields_of_each_rule_can_be_hidden(client: Client) -> None:
    html = client.get(get_address(Policy, "add")).content.decode()

    styles = Path(project.BASE_DIR, "instances/static/instances/styles/record-forms.css").read_text()
    for rule in Policy.Rule.values:
        assert f'<option value="{rule}">' in html
        assert f"module aligned rule-{rule}" in html
        assert f'[value="{rule}"]:checked)) .rule-{rule}' in styles


# --- Accounts


def test_page_of_a_user_tells_whether_there_is_a_password_and_not_how_it_is_stored(client: Client) -> None:
    text = read_text(client, get_address(User, "change", User.objects.create_user("bob", password="x" * 12).pk))

    assert "Password: Set Reset password" in text
    assert "salt" not in text


@pytest.mark.parametrize("model", [User, Policy])
def test_changes_of_a_record_are_found_in_activity(client: Client, model: type[Model]) -> None:
    record = User.objects.create_user("night shift") if model is User else Policy.objects.create(name="night shift")

    html = client.get(get_address(model, "change", record.pk)).content.decode()

    assert '<a href="/admin/instances/auditentry/?q=night%20shift">Activity</a>' in html
