"""The admin pages for users and tokens: permissions, changes, and their records."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from instances.models import AuditEntry, Channel, LabelRule, Token
from tests.logged_in import PASSWORD, log_in, make_user

pytestmark = pytest.mark.django_db

USERS = "/admin/auth/user/"
TOKENS = "/admin/instances/token/"


@pytest.fixture(autouse=True)
def login_wanted(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True


@pytest.fixture
def ann(login_wanted: None) -> User:
    """An admin."""
    return make_user("ann", "admin")


@pytest.fixture
def client(ann: User) -> Client:
    """A client that is logged in as ann."""
    return log_in(ann)


def change(client: Client, user: User, **fields: Any) -> Any:
    """Submit a user's page. Fields that are not given keep their shown values."""
    role = user.groups.first()
    form = {
        "username": user.username,
        "email": user.email,
        "role": role.name if role else "",
        **({"is_active": "on"} if user.is_active else {}),
        **fields,
    }
    return client.post(f"{USERS}{user.pk}/change/", {name: value for name, value in form.items() if value is not None})


def list_entries() -> list[tuple[str, str, str, str, str]]:
    rows = AuditEntry.objects.order_by("pk").values_list("action", "target", "before", "after", "outcome")
    return list(rows)


# --- Users


def test_new_user_has_no_role_until_one_is_assigned(client: Client) -> None:
    words = {"username": "bob", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}

    answer = client.post(f"{USERS}add/", words)

    bob = User.objects.get(username="bob")
    assert answer.status_code == 302
    assert answer["Location"] == f"{USERS}{bob.pk}/change/"
    assert not bob.groups.exists() and not bob.is_staff and not bob.is_superuser
    assert list_entries() == [("user.add", "bob", "", "none", "done")]
    entry = AuditEntry.objects.get()
    assert entry.actor == "ann"
    assert entry.address == "192.0.2.7"
    assert entry.request_id == answer["X-Request-Id"]


@pytest.mark.parametrize("change_meanwhile", ["deactivate", "demote"])
def test_old_page_does_not_undo_a_change_that_was_made_meanwhile(change_meanwhile: str, client: Client) -> None:
    bob = make_user("bob", "admin")
    page = client.get(f"{USERS}{bob.pk}/change/").content.decode()
    (seen,) = re.findall(r'name="seen" value="([^"]+)"', page)
    if change_meanwhile == "deactivate":
        User.objects.filter(pk=bob.pk).update(is_active=False)
    else:
        bob.groups.clear()

    answer = change(client, bob, email="bob@example.com", role="admin", seen=seen)

    assert "Somebody else has changed this record meanwhile" in answer.content.decode()
    now = User.objects.get(pk=bob.pk)
    assert (now.is_active, now.groups.count(), now.email) == (
        (False, 1, "") if change_meanwhile == "deactivate" else (True, 0, "")
    )


def test_old_page_of_a_rule_or_a_channel_is_not_saved(client: Client) -> None:
    rule = LabelRule.objects.create(pattern="train-*", owner="ada")
    channel = Channel.objects.create(name="ops", receiver="https://hooks.test", sealed_url="-")
    rule_page, channel_page = f"/admin/instances/labelrule/{rule.pk}/", f"/admin/instances/channel/{channel.pk}/"
    seen = [
        re.findall(r'name="seen" value="([^"]+)"', client.get(f"{page}change/").content.decode())[0]
        for page in (rule_page, channel_page)
    ]
    LabelRule.objects.update(owner="bob")
    Channel.objects.update(is_on=False)

    rule_form = {"seen": seen[0], "pattern": "train-*", "owner": "ada", "project": "llm", "position": "10"}
    client.post(f"{rule_page}change/", rule_form)
    client.post(f"{channel_page}change/", {"seen": seen[1], "name": "operations", "is_on": "on"})

    assert LabelRule.objects.get().owner == "bob"
    assert not Channel.objects.get().is_on


def test_page_that_is_not_old_is_saved(client: Client) -> None:
    bob = make_user("bob", "viewer")
    page = client.get(f"{USERS}{bob.pk}/change/").content.decode()
    (seen,) = re.findall(r'name="seen" value="([^"]+)"', page)

    assert change(client, bob, email="bob@example.com", seen=seen).status_code == 302

    assert User.objects.get(pk=bob.pk).email == "bob@example.com"


@pytest.mark.parametrize("name", ["ann", "ANN"])
def test_name_that_exists_is_refused_with_a_reason(client: Client, name: str) -> None:
    words = {"username": name, "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}

    answer = client.post(f"{USERS}add/", words)

    assert answer.status_code == 200
    assert "A user with that username already exists." in answer.content.decode()


@pytest.mark.parametrize("old", ["", "viewer", "operator", "admin"])
def test_role_change_is_recorded(client: Client, old: str) -> None:
    for new in ("", "viewer", "operator", "admin"):
        bob = make_user(f"bob-{new}", old)
        AuditEntry.objects.all().delete()

        change(client, bob, role=new)

        assert [group.name for group in bob.groups.all()] == ([new] if new else [])
        assert list_entries() == [("user.change", bob.username, old or "none", new or "none", "done")]


def test_deactivated_user_loses_access_and_it_is_recorded(client: Client) -> None:
    bob = make_user("bob", "viewer")
    his = Client()
    his.force_login(bob)
    AuditEntry.objects.all().delete()

    change(client, bob, is_active=None)

    assert his.get("/").status_code == 302
    assert [entry[3] for entry in list_entries()] == ["none, not active"]


def test_user_page_shows_the_role_and_no_hash(client: Client) -> None:
    bob = make_user("bob", "operator")

    page = client.get(f"{USERS}{bob.pk}/change/").content.decode()

    assert re.search(r'<option value="operator" selected', page)
    assert bob.password not in page
    assert not re.search(r'<input[^>]*name="password"', page)
    assert not re.search(r'name="(is_superuser|is_staff|groups|user_permissions|last_login)"', page)


@pytest.mark.parametrize(
    "fields",
    [
        {"is_superuser": "on", "is_staff": "on"},
        {"password": "md5$x$forged"},
        {"groups": "1", "user_permissions": "1"},
    ],
)
def test_user_page_changes_only_shown_fields(client: Client, fields: dict[str, str]) -> None:
    bob = make_user("bob", "viewer")

    change(client, bob, **fields)

    after = User.objects.get(pk=bob.pk)
    assert after.is_superuser is False
    assert after.is_staff is False
    assert after.password == bob.password
    assert [group.name for group in after.groups.all()] == ["viewer"]
    assert not after.user_permissions.exists()


def test_unknown_role_is_refused(client: Client) -> None:
    bob = make_user("bob", "viewer")

    answer = change(client, bob, role="root")

    assert answer.status_code == 200
    assert list_entries() == []


def test_superuser_has_no_role_field_to_change(client: Client) -> None:
    root = User.objects.create_superuser("root")

    change(client, root, role="viewer")

    assert not root.groups.exists()
    assert list_entries() == [("user.change", "root", "admin", "admin", "done")]


def test_password_set_by_an_admin_is_recorded_without_the_password(client: Client) -> None:
    bob = make_user("bob")
    words = {"usable_password": "true", "password1": "FAKE-SECRET-word", "password2": "FAKE-SECRET-word"}

    answer = client.post(f"{USERS}{bob.pk}/password/", words)

    assert answer.status_code == 302
    assert User.objects.get(pk=bob.pk).check_password("FAKE-SECRET-word")
    assert list_entries() == [("user.password", "bob", "", "", "done")]
    assert "FAKE-SECRET" not in client.get("/admin/instances/auditentry/csv/").getvalue().decode()


@pytest.mark.parametrize("is_by_list", [True, False])
def test_deleting_a_user_deletes_the_tokens_and_is_recorded(client: Client, is_by_list: bool) -> None:
    bob = make_user("bob", "viewer")
    Token.objects.create(user=bob, name="ci")

    if is_by_list:
        client.post(USERS, {"action": "delete_selected", "_selected_action": [bob.pk], "post": "yes"})
    else:
        client.post(f"{USERS}{bob.pk}/delete/", {"post": "yes"})

    assert not User.objects.filter(username="bob").exists() and not Token.objects.exists()
    assert [entry[:2] for entry in list_entries()] == [("user.delete", "bob")]


def test_groups_can_not_be_created(client: Client) -> None:
    assert client.get("/admin/auth/group/").status_code == 404


# --- Tokens


def send_token(client: Client, owner: User, **fields: Any) -> Any:
    return client.post(f"{TOKENS}add/", {"user": owner.pk, "name": "ci", "role": "viewer", "days": "90", **fields})


def test_token_is_valid_for_90_days_by_default(client: Client) -> None:
    page = client.get(f"{TOKENS}add/").content.decode()

    assert re.search(r'name="days" value="90"', page)
    assert re.search(r'<option value="viewer" selected', page)


def test_token_creation_is_recorded(client: Client) -> None:
    bob = make_user("bob", "operator")

    answer = send_token(client, bob, role="operator", days="7")

    token = Token.objects.get()
    assert token.user == bob
    assert token.name == "ci"
    assert token.role == "operator"
    entry = AuditEntry.objects.get()
    assert entry.action == "token.create"
    assert entry.target == "bob"
    assert entry.target_name == "ci"
    assert entry.after == "operator, 7 days"
    assert entry.actor == "ann"
    assert entry.address == "192.0.2.7"
    assert entry.request_id == answer["X-Request-Id"]


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "admin"},
        {"role": "root"},
        {"role": ""},
        {"days": "0"},
        {"days": "-1"},
        {"days": "3651"},
        {"days": "1e9"},
        {"days": ""},
        {"name": ""},
        {"name": "x" * 101},
        {"user": "999"},
        {"user": ""},
    ],
)
def test_invalid_token_form_creates_no_token(client: Client, fields: dict[str, str]) -> None:
    answer = send_token(client, make_user("bob", "operator"), **fields)

    assert answer.status_code == 200 and b"errorlist" in answer.content
    assert not Token.objects.exists() and list_entries() == []


def test_inactive_user_gets_no_token(client: Client) -> None:
    bob = make_user("bob", "viewer")
    User.objects.filter(pk=bob.pk).update(is_active=False)

    assert b"errorlist" in send_token(client, bob).content
    assert not Token.objects.exists()


@pytest.mark.parametrize("is_by_list", [True, False])
def test_token_revocation_is_recorded(client: Client, is_by_list: bool) -> None:
    token, _ = Token.objects.create(user=make_user("bob", "viewer"), name="ci")

    if is_by_list:
        client.post(TOKENS, {"action": "delete_selected", "_selected_action": [token.pk], "post": "yes"})
    else:
        client.post(f"{TOKENS}{token.pk}/delete/", {"post": "yes"})

    assert not Token.objects.exists()
    entry = AuditEntry.objects.get()
    assert entry.action == "token.revoke"
    assert entry.target == "bob"
    assert entry.target_name == "ci"
    assert entry.before == "viewer"
    assert entry.actor == "ann"


def test_token_can_not_be_changed(client: Client) -> None:
    token, _ = Token.objects.create(user=make_user("bob", "admin"), name="ci", role="viewer")

    answer = client.post(f"{TOKENS}{token.pk}/change/", {"name": "ci", "role": "admin", "days": "9"})

    assert answer.status_code == 403
    assert Token.objects.get().role == "viewer"


def test_token_list_shows_names(client: Client) -> None:
    Token.objects.create(user=make_user("bob", "viewer"), name="nightly report")

    page = client.get(TOKENS, {"q": "nightly"}).content.decode()

    assert "nightly report" in page and "bob" in page


def test_token_name_is_shown_as_text(client: Client) -> None:
    page = send_token(client, make_user("bob", "viewer"), name="<script>alert(1)</script>").content.decode()

    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
