"""The admin pages can't lock out the local owner or the last admin."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from pytest_django import Settings

from instances.access import visitors
from instances.access.audit import LOCAL_OWNER
from instances.models import Token

pytestmark = pytest.mark.django_db

USERS = "/admin/auth/user/"
PASSWORD = "correct horse battery"


@pytest.fixture
def owner(client: Client) -> User:
    """The local owner's account, without a required login."""
    client.get("/admin/")
    return User.objects.get(username=LOCAL_OWNER)


@pytest.fixture
def ann(settings: Settings) -> User:
    """The only admin, with a required login."""
    settings.REQUIRE_LOGIN = True
    return make_user("ann", "admin")


@pytest.fixture
def as_ann(ann: User) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def make_user(name: str, role: str) -> User:
    user = User.objects.create_user(name, password=PASSWORD)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


def change(client: Client, user: User, **fields: str) -> Any:
    return client.post(f"{USERS}{user.pk}/change/", {"username": user.username, "email": "", **fields})


def forget_the_owner() -> None:
    """Drop the cached owner, as a minute or another process would."""
    visitors._owner = (0.0, None)


# --- The local owner


def test_owner_account_can_not_be_changed(client: Client, owner: User) -> None:
    words = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    before = User.objects.values().get()

    answers = [
        change(client, owner),
        change(client, owner, role="viewer"),
        change(client, owner, username="somebody", is_active="on"),
        client.post(f"{USERS}{owner.pk}/password/", words),
        client.post(f"{USERS}{owner.pk}/delete/", {"post": "yes"}),
        client.post(USERS, {"action": "delete_selected", "_selected_action": [owner.pk], "post": "yes"}),
    ]

    # The list names the accounts that can't be deleted, and deletes none.
    assert [answer.status_code for answer in answers] == [403] * 5 + [200]
    assert User.objects.values().get() == before
    forget_the_owner()
    assert client.get("/").status_code == 200


def test_owner_page_can_be_read(client: Client, owner: User) -> None:
    page = client.get(f"{USERS}{owner.pk}/change/").content.decode()

    assert LOCAL_OWNER in page and 'name="_save"' not in page
    assert client.get(USERS).status_code == 200


@pytest.mark.parametrize(
    "row", [{"is_active": False}, {"is_superuser": False}, {"is_staff": False}, {"is_active": False, "password": "x"}]
)
def test_local_visitor_is_the_owner_even_if_the_account_was_demoted(
    client: Client, owner: User, row: dict[str, Any]
) -> None:
    User.objects.filter(pk=owner.pk).update(**row)
    forget_the_owner()

    assert client.get("/").status_code == 200
    assert client.get("/api/instances").status_code == 200
    assert client.post("/api/cache/clear", "", "application/json").status_code == 200
    assert client.get(USERS).status_code == 200


@pytest.mark.parametrize("gone", ["deleted", "renamed"])
def test_deleted_owner_account_is_created_again(client: Client, owner: User, gone: str) -> None:
    if gone == "deleted":
        owner.delete()
    else:
        User.objects.update(username="somebody")
    forget_the_owner()

    assert client.get("/").status_code == 200
    assert User.objects.get(username=LOCAL_OWNER).is_superuser


def test_tokens_of_a_deleted_owner_stay_revoked(client: Client, owner: User) -> None:
    _, text = Token.objects.create(user=owner, name="ci", role="admin")
    User.objects.update(is_active=False)
    forget_the_owner()
    client.get("/")

    answer = client.get("/api/instances", headers={"Authorization": f"Bearer {text}"})

    assert answer.status_code == 401


def test_no_visitor_is_the_owner_when_login_is_required(settings: Settings, owner: User) -> None:
    owner.set_password(PASSWORD)
    owner.save()
    settings.REQUIRE_LOGIN = True

    answer = Client().post("/login/", {"username": LOCAL_OWNER, "password": PASSWORD})

    assert answer.status_code == 200, "the form again"
    logged_in = Client()
    logged_in.force_login(owner, backend="instances.access.visitors.PasswordBackend")
    assert logged_in.get("/").status_code == 302, "a session that somebody made opens nothing"


@pytest.mark.parametrize("name", [LOCAL_OWNER, "Local-Owner", "worker"])
def test_reserved_names_are_refused(as_ann: Client, name: str) -> None:
    bob = make_user("bob", "viewer")
    words = {"username": name, "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}

    assert b"errorlist" in as_ann.post(f"{USERS}add/", words).content
    assert b"errorlist" in change(as_ann, bob, username=name, role="viewer", is_active="on").content
    assert set(User.objects.values_list("username", flat=True)) == {"ann", "bob"}


# --- The last admin


def test_admin_can_not_remove_own_access(as_ann: Client, ann: User) -> None:
    disable = {"usable_password": "false", "unset-password": "1"}

    as_ann.post(USERS, {"action": "delete_selected", "_selected_action": [ann.pk], "post": "yes"})
    as_ann.post(f"{USERS}{ann.pk}/delete/", {"post": "yes"})
    as_ann.post(f"{USERS}{ann.pk}/password/", disable)
    change(as_ann, ann)
    change(as_ann, ann, role="viewer", is_active="on")

    ann.refresh_from_db()
    assert ann.is_active and ann.has_usable_password()
    assert [group.name for group in ann.groups.all()] == ["admin"]
    assert as_ann.get(USERS).status_code == 200


def test_admin_can_change_other_fields_of_own_account(as_ann: Client, ann: User) -> None:
    answer = change(as_ann, ann, email="ann@example.com")

    assert answer.status_code == 302
    ann.refresh_from_db()
    assert ann.email == "ann@example.com"
    assert ann.is_active is True


@pytest.mark.parametrize("how", ["delete", "deactivate", "demote"])
def test_admin_can_remove_another_admins_access(as_ann: Client, how: str) -> None:
    bob = make_user("bob", "admin")
    as_bob = Client()
    as_bob.force_login(bob)

    if how == "delete":
        as_ann.post(f"{USERS}{bob.pk}/delete/", {"post": "yes"})
    else:
        change(
            as_ann,
            bob,
            role="viewer" if how == "demote" else "admin",
            **({"is_active": "on"} if how == "demote" else {}),
        )

    assert as_bob.get(USERS).status_code in {302, 403}
