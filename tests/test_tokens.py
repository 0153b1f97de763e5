"""Access tokens of scripts: their rights, their end, and their text, which is stored nowhere."""

import io
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from fakeredis import FakeRedis, FakeServer
from pytest_django import Settings

from instances.models import AuditEntry, Token
from tests.conftest import ApiClient

pytestmark = pytest.mark.django_db

ACT = "/api/cache/clear"


@pytest.fixture(autouse=True)
def login_wanted(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True


@pytest.fixture
def ann() -> User:
    user = User.objects.create_user("ann", password="correct horse")
    user.groups.add(Group.objects.get_or_create(name="admin")[0])
    return user


def make_token(user: User, role: str = "admin", days: int = 90) -> tuple[Token, ApiClient]:
    """Create a token, and a client that sends it."""
    token, text = Token.objects.create(user=user, name="ci", role=role, expiry=timedelta(days=days))
    return token, ApiClient(headers={"Authorization": f"Bearer {text}"})


def is_unknown(answer: Any) -> bool:
    return answer.status_code == 401 and answer.json()["code"] == "NOT_AUTHENTICATED"


# --- Rights


def test_token_acts_without_cookie_and_csrf_token(ann: User) -> None:
    _, text = Token.objects.create(user=ann, name="ci", role="admin")
    client = Client(enforce_csrf_checks=True, headers={"Authorization": f"bearer {text}"})

    answer = client.post(ACT, "", "application/json")

    assert answer.status_code == 200
    assert not answer.cookies
    assert AuditEntry.objects.get(action="cache.clear").actor == "ann (token ci)"


@pytest.mark.parametrize("path", ["/", "/admin/", "/admin/instances/token/", "/admin/instances/syncrun/sync/"])
def test_token_gives_no_access_to_pages(ann: User, path: str) -> None:
    _, client = make_token(ann)

    for answer in (client.get(path), client.post(path)):
        assert answer.status_code == 302
        assert "/login/?next=" in answer["Location"]


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
@pytest.mark.parametrize("owners_role", ["viewer", "operator", "admin", ""])
def test_token_never_exceeds_its_owners_current_role(ann: User, role: str, owners_role: str) -> None:
    _, client = make_token(ann, role)

    ann.groups.set([Group.objects.get_or_create(name=owners_role)[0]] if owners_role else [])

    may_act = (role, owners_role) == ("admin", "admin")
    assert client.post(ACT).status_code == (200 if may_act else 403)
    assert client.get("/api/instances").status_code == (200 if owners_role else 403)


def test_superusers_token_has_its_own_role() -> None:
    _, client = make_token(User.objects.create_superuser("root"), "viewer")

    assert [client.get("/api/instances").status_code, client.post(ACT).status_code] == [200, 403]


def test_token_with_unknown_role_gives_no_access(ann: User) -> None:
    _, client = make_token(ann)
    Token.objects.update(role="root")

    assert client.get("/api/instances").status_code == 403


def test_token_role_also_applies_to_health(ann: User) -> None:
    _, client = make_token(ann, "viewer")

    assert "services" in client.get("/health").json()
    ann.groups.clear()
    assert client.get("/health").json().keys() == {"status", "timestamp"}


# --- The end of a token


def test_token_ends_with_its_owner(ann: User) -> None:
    _, client = make_token(ann)
    User.objects.update(is_active=False)

    assert is_unknown(client.get("/api/instances"))
    ann.delete()
    assert is_unknown(client.get("/api/instances"))


def test_token_expires_on_time(ann: User) -> None:
    _, client = make_token(ann)
    Token.objects.update(expiry=timezone.now() + timedelta(minutes=1))
    assert client.get("/api/instances").status_code == 200

    Token.objects.update(expiry=timezone.now() - timedelta(seconds=1))

    assert is_unknown(client.get("/api/instances"))
    assert is_unknown(client.post(ACT))


def test_revoked_token_gives_no_access(ann: User) -> None:
    token, client = make_token(ann)
    token.delete()

    assert is_unknown(client.get("/api/instances"))


def test_token_lasts_90_days_by_default(ann: User) -> None:
    token, _ = Token.objects.create(user=ann, name="ci")

    assert abs(token.expiry - timezone.now() - timedelta(days=90)) < timedelta(minutes=1)


def test_last_use_is_recorded_once_a_minute(ann: User) -> None:
    token, client = make_token(ann)
    assert token.last_used_at is None

    client.get("/api/instances")
    first = Token.objects.get().last_used_at
    client.get("/api/instances")
    second = Token.objects.get().last_used_at
    Token.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    client.get("/api/instances")

    assert first is not None and first == second
    third = Token.objects.get().last_used_at
    assert third is not None and third > first


# --- Headers without a valid token

MALFORMED = [
    "Bearer",
    "Bearer ",
    "Bearer a b",
    "Bearer nvp_" + "0" * 64,
    "Bearer \xff\xfe\xfd",
    "Bearer nvp_\x00" + "0" * 60,
    "Bearer " + "a" * 10_000,
    "Bearer ' OR 1=1 --",
    "Bearer None",
    "Bearer,",
    "nvp_" + "0" * 64,
    "Token nvp_" + "0" * 64,
    "Bearer\tnvp_" + "0" * 64,
    "\x00",
]


@pytest.mark.parametrize("is_login_wanted", [True, False])
@pytest.mark.parametrize("header", MALFORMED, ids=lambda header: repr(header[:20]))
def test_header_without_valid_token_is_refused_on_loopback_too(
    settings: Settings, header: str, is_login_wanted: bool
) -> None:
    settings.REQUIRE_LOGIN = is_login_wanted
    client = ApiClient(headers={"Authorization": header})

    assert is_unknown(client.get("/api/instances"))
    assert is_unknown(client.get("/health"))
    assert is_unknown(client.post(ACT))
    assert not AuditEntry.objects.exists()


def test_invalid_token_is_refused_despite_a_login(ann: User) -> None:
    client = ApiClient(headers={"Authorization": "Bearer nvp_" + "0" * 64})
    client.force_login(ann)

    assert is_unknown(client.get("/api/instances"))


def test_proxy_password_is_not_treated_as_a_token(ann: User) -> None:
    client = ApiClient(headers={"Authorization": "Basic YTpi"})
    assert is_unknown(client.get("/api/instances"))

    client.force_login(ann)

    assert client.get("/api/instances").status_code == 200


def test_part_of_a_token_is_refused(ann: User) -> None:
    token, text = Token.objects.create(user=ann, name="ci")
    for wrong in (text[:-1], f"{text}0", token.token_key, token.digest, text.upper(), text.removeprefix("nvp_")):
        assert is_unknown(ApiClient(headers={"Authorization": f"Bearer {wrong}"}).get("/api/instances"))


# --- Shown once


def test_token_text_is_on_one_page_and_nowhere_else(
    ann: User, settings: Settings, raw_redis: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = Client()
    client.force_login(ann)

    answer = client.post("/admin/instances/token/add/", {"user": ann.pk, "name": "ci", "role": "viewer", "days": "7"})

    page = answer.content.decode()
    assert answer.status_code == 200
    text = page[page.index("nvp_") :][: 4 + 64]
    assert ApiClient(headers={"Authorization": f"Bearer {text}"}).get("/api/instances").status_code == 200
    assert page.count(text) == 1
    assert "no-store" in answer["Cache-Control"]
    assert text not in str(answer.cookies) and text not in str(dict(client.session))
    assert text not in caplog.text
    assert text not in dump_database()
    assert not [key for key in raw_redis.scan_iter() if text.encode() in key]
    token = Token.objects.get()
    for path in ("", "add/", f"{token.pk}/change/", f"{token.pk}/history/", f"{token.pk}/delete/"):
        assert text not in client.get(f"/admin/instances/token/{path}").content.decode()
    assert text not in client.get("/admin/instances/auditentry/csv/").getvalue().decode()
    assert text not in client.get("/admin/").content.decode()


def dump_database() -> str:
    """Return the whole content of the database."""
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - our own tables' names
            rows += cursor.fetchall()
    return repr(rows)


# --- manage.py create_token


def create(*args: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("create_token", *args, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_command_prints_only_the_token(ann: User) -> None:
    out, err = create("ann", "--name", "ci", "--role", "operator", "--days", "7")

    client = ApiClient(headers={"Authorization": f"Bearer {out.strip()}"})
    assert client.get("/api/instances").status_code == 200
    token = Token.objects.get()
    assert token.name == "ci"
    assert token.role == "operator"
    assert token.user == ann
    assert abs(token.expiry - timezone.now() - timedelta(days=7)) < timedelta(minutes=1)
    assert out.strip() not in err and f"{token.expiry:%Y-%m-%d}" in err
    entry = AuditEntry.objects.get(action="token.create")
    assert entry.target == "ann"
    assert entry.target_name == "ci"
    assert entry.after == "operator, 7 days"
    assert entry.actor.endswith("(shell)") or entry.actor.startswith("uid ")


def test_token_role_is_viewer_by_default(ann: User) -> None:
    create("ann", "--name", "ci")

    assert Token.objects.get().role == "viewer"


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nobody", "--name", "ci"], "no active user"),
        (["idle", "--name", "ci"], "no active user"),
        (["vic", "--name", "ci", "--role", "operator"], "role is lower than this: viewer"),
        (["none", "--name", "ci"], "role is lower than this: none"),
        (["ann", "--name", "ci", "--days", "0"], "--days"),
        (["ann", "--name", "ci", "--days", "3651"], "--days"),
        (["ann", "--name", "ci", "--days", "soon"], "--days"),
        (["ann", "--name", ""], "--name"),
        (["ann", "--name", "x" * 101], "--name"),
        (["ann", "--name", "ci", "--role", "root"], "--role"),
        (["ann"], "--name"),
        ([], "username"),
    ],
)
def test_command_names_the_error_and_creates_no_token(args: list[str], words: str) -> None:
    User.objects.create_user("idle", is_active=False, is_superuser=True)
    User.objects.create_user("none")
    User.objects.create_user("vic").groups.add(Group.objects.get_or_create(name="viewer")[0])

    with pytest.raises(CommandError, match=words):
        create(*args)

    assert not Token.objects.exists()
    assert not AuditEntry.objects.exists()


# --- Guessing


def guess(number: int) -> list[int]:
    client = ApiClient()
    return [
        client.get("/api/instances", headers={"Authorization": f"Bearer nvp_{n:0>60}"}).status_code
        for n in range(number)
    ]


def test_many_invalid_tokens_are_refused_without_a_database_query() -> None:
    assert guess(60) == [401] * 60

    with CaptureQueriesContext(connection) as queries:
        assert guess(200) == [429] * 200

    assert queries.captured_queries == []


def test_known_token_works_despite_invalid_tokens_from_its_address(ann: User) -> None:
    _, known = make_token(ann)
    _, new = make_token(ann)
    assert known.get("/api/instances").status_code == 200
    guess(100)

    assert known.post(ACT).status_code == 200
    assert new.post(ACT).status_code == 429
    assert new.post(ACT, REMOTE_ADDR="192.0.2.9").status_code == 200


def test_valid_tokens_are_not_counted(ann: User, redis_server: FakeServer) -> None:
    _, client = make_token(ann)

    assert {client.get("/api/instances").status_code for _ in range(100)} == {200}


def test_valid_token_works_without_redis(ann: User, redis_server: FakeServer) -> None:
    _, client = make_token(ann)
    guess(100)
    redis_server.connected = False

    assert client.get("/api/operations").status_code == 200
