"""Login with a password: page, cookies, protection against guessing, and records."""

import re
from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from fakeredis import FakeRedis, FakeServer
from pytest_django import Settings

from instances.models import AuditEntry
from novita_site.settings import CSRF_COOKIE_NAME, SESSION_COOKIE_NAME
from tests.redis_keys import name_of

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def login_wanted(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True


@pytest.fixture(autouse=True)
def ann(login_wanted: None) -> User:
    user = User.objects.create_user("ann", password=PASSWORD)
    user.groups.add(Group.objects.get_or_create(name="viewer")[0])
    return user


def log_in(password: str = PASSWORD, name: str = "ann", path: str = "/login/", **extra: Any) -> Any:
    return Client().post(path, {"username": name, "password": password}, **extra)


# --- The page


@pytest.mark.parametrize("path", ["/", "/admin/", "/admin/instances/operation/", "/admin/password_change/"])
def test_visitor_without_login_is_redirected_to_login_and_back(path: str) -> None:
    client = Client()

    login = client.get(path)["Location"]
    page = client.get(login)
    field = re.search(r'name="next" value="([^"]*)"', page.content.decode())
    assert field
    back = client.post(login, {"username": "ann", "password": PASSWORD, "next": field[1]})

    assert back.status_code == 302
    assert back["Location"] == path
    assert client.get(path).status_code == 200


ELSEWHERE = [
    "https://evil.test/",
    "//evil.test/",
    "///evil.test/",
    "/\\evil.test/",
    "\\\\evil.test",
    "http:evil.test",
    "javascript:alert(1)",
    "data:text/html,x",
    "http://testserver@evil.test/",
    "http://testserver:81/",
    "ftp://testserver/",
    "\x00https://evil.test/",
]


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_login_never_redirects_to_another_site(path: str) -> None:
    home = "/" if path == "/login/" else "/admin/"
    for target in ELSEWHERE:
        client = Client()
        by_form = client.post(path, {"username": "ann", "password": PASSWORD, "next": target})
        logged_in = client.get(path, {"next": target})

        assert [by_form["Location"], logged_in["Location"]] == [home, home], target


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
@pytest.mark.parametrize("role", ["viewer", None])
def test_login_never_redirects_to_a_login_page(ann: User, path: str, role: str | None) -> None:
    if role is None:
        ann.groups.clear()
    client = Client()
    client.force_login(ann)

    for target in ("/login/", "/login/?next=/login/", "/admin/login/", "http://testserver/login/"):
        answer = client.get(path, {"next": target}, follow=True)

        assert answer.status_code == (200 if role else 403), target


@pytest.mark.parametrize("path", ["/", "/login/", "/admin/", "/admin/login/", "/admin/instances/operation/"])
def test_user_without_role_gets_a_refusal_and_no_redirect(ann: User, path: str) -> None:
    ann.groups.clear()
    client = Client()
    client.force_login(ann)

    answer = client.get(path, follow=True)

    assert answer.status_code == 403
    page = answer.content.decode()
    assert "Your account has no role yet. Ask an admin for a role" in page
    # The dashboard would refuse again.
    assert "Back to the dashboard" not in page
    assert len(answer.redirect_chain) <= 1


def test_user_without_role_can_log_out(ann: User) -> None:
    ann.groups.clear()
    client = Client()
    client.force_login(ann)

    (address,) = re.findall(r'<form method="post" action="([^"]*logout[^"]*)"', client.get("/").content.decode())
    client.post(address)

    assert client.get("/").status_code == 302


def test_refused_login_does_not_reveal_whether_the_name_exists(ann: User) -> None:
    known, unknown = log_in("wrong"), log_in("wrong", "nobody")
    User.objects.update(is_active=False)
    idle = log_in()

    pages = {re.sub(r'value="[^"]*"', "", answer.content.decode()) for answer in (known, unknown, idle)}
    assert len(pages) == 1
    assert {answer.status_code for answer in (known, unknown, idle)} == {200}
    assert "Wrong username or password" in known.content.decode()


@pytest.mark.parametrize("name", ["ann\x00", "a" * 10_000, "\u202eann", "' OR 1=1 --", "💩" * 200, ""])
def test_malformed_name_is_refused(name: str) -> None:
    assert log_in(name=name).status_code == 200


def test_malformed_password_is_refused() -> None:
    for password in ("\x00", "a" * 50_000, "\ud800".encode("utf-8", "replace").decode(), ""):
        assert log_in(password).status_code in {200, 429}


def test_refusal_page_does_not_contain_the_password() -> None:
    assert "FAKE-SECRET" not in log_in("FAKE-SECRET-word").content.decode()


@pytest.mark.parametrize("path", ["/login/", "/logout/", "/admin/login/", "/admin/logout/", "/admin/password_change/"])
def test_forms_need_a_csrf_token(ann: User, path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    if "login" not in path:
        client.force_login(ann)

    answer = client.post(path, {"username": "ann", "password": PASSWORD})

    assert answer.status_code == 403
    assert ("_auth_user_id" in client.session) == ("login" not in path)


def test_logout_requires_post(ann: User) -> None:
    client = Client()
    client.force_login(ann)

    assert [client.get(path).status_code for path in ("/logout/", "/admin/logout/")] == [405, 405]
    assert client.get("/").status_code == 200
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/").status_code == 302


def test_login_creates_a_new_session() -> None:
    client = Client()
    client.get("/login/")
    client.cookies[SESSION_COOKIE_NAME] = "chosen-by-another"

    client.post("/login/", {"username": "ann", "password": PASSWORD})

    assert client.cookies[SESSION_COOKIE_NAME].value != "chosen-by-another"
    assert client.get("/").status_code == 200


def test_new_password_ends_other_sessions(ann: User) -> None:
    mine, other = Client(), Client()
    mine.force_login(ann)
    other.force_login(ann)
    words = {"old_password": PASSWORD, "new_password1": "another good horse", "new_password2": "another good horse"}

    answer = mine.post("/admin/password_change/", words)

    assert answer.status_code == 302
    assert [mine.get("/").status_code, other.get("/").status_code] == [200, 302]
    assert log_in("another good horse").status_code == 302
    entry = AuditEntry.objects.get(action="user.password")
    assert entry.actor == "ann"
    assert entry.target == "ann"
    assert entry.outcome == "done"
    assert entry.request_id == answer["X-Request-Id"] and entry.address == "127.0.0.1"


@pytest.mark.parametrize(
    "words",
    [
        {"old_password": "wrong", "new_password1": "another good horse", "new_password2": "another good horse"},
        {"old_password": PASSWORD, "new_password1": "another good horse", "new_password2": "another"},
        {"old_password": PASSWORD, "new_password1": "password", "new_password2": "password"},
    ],
)
def test_refused_new_password_changes_nothing(ann: User, words: dict[str, str]) -> None:
    client = Client()
    client.force_login(ann)

    assert client.post("/admin/password_change/", words).status_code == 200
    assert log_in().status_code == 302
    assert not AuditEntry.objects.filter(action="user.password").exists()


# --- Guessing


def pass_time(raw_redis: FakeRedis, seconds: int) -> None:
    """Move the start of every count back by this time."""
    for key in raw_redis.scan_iter(name_of("rate:*")):
        left = raw_redis.ttl(key) - seconds
        raw_redis.expire(key, left) if left > 0 else raw_redis.delete(key)


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that collects each password that is hashed."""
    hashed: list[str] = []
    encode = MD5PasswordHasher.encode

    def counted(self: MD5PasswordHasher, password: str, salt: str) -> str:
        hashed.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", counted)
    return hashed


@pytest.mark.parametrize("is_redis_away", [False, True])
def test_locked_out_attempt_costs_no_hash_no_query_and_no_row(
    is_redis_away: bool, redis_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.connected = not is_redis_away
    for number in range(6):
        log_in(f"guess-{number}")
    hashed = count_hashes(monkeypatch)

    with CaptureQueriesContext(connection) as queries:
        answers = {log_in(PASSWORD).status_code for _ in range(50)}

    assert answers == {429}
    assert hashed == []
    assert queries.captured_queries == []


@pytest.mark.thorough
@pytest.mark.parametrize(("path", "is_redis_away"), [("/login/", False), ("/admin/login/", True)])
def test_one_address_can_not_try_one_password_on_many_names(
    path: str, is_redis_away: bool, redis_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.connected = not is_redis_away
    hashed = count_hashes(monkeypatch)

    answers = [log_in("Spring2026!", f"name-{number}", path).status_code for number in range(25)]

    assert answers == [200] * 20 + [429] * 5
    assert len(hashed) <= 2 * 20
    assert AuditEntry.objects.count() == 1


def test_many_addresses_can_not_guess_one_password_fast(raw_redis: FakeRedis) -> None:
    def guess() -> list[int]:
        return [log_in(f"guess-{n}", REMOTE_ADDR=f"192.0.2.{n}").status_code for n in range(30)]

    assert guess() == [200] * 10 + [429] * 20
    pass_time(raw_redis, 60)
    assert guess()[:10] == [200] * 10


@pytest.mark.thorough
def test_attack_from_elsewhere_does_not_lock_out_known_addresses(raw_redis: FakeRedis) -> None:
    User.objects.create_user("bob", password=PASSWORD)
    at_home = "198.51.100.7"
    assert log_in(REMOTE_ADDR=at_home).status_code == 302
    pass_time(raw_redis, 15 * 60)
    for n in range(30):
        log_in(f"guess-{n}", REMOTE_ADDR=f"192.0.2.{n}")
    for n in range(50):
        log_in("guess", f"name-{n}", REMOTE_ADDR=f"203.0.113.{n}")

    assert log_in(REMOTE_ADDR="198.51.100.8").status_code == 429
    assert log_in(name="bob", REMOTE_ADDR=at_home).status_code == 429
    assert log_in(REMOTE_ADDR=at_home).status_code == 302


@pytest.mark.thorough
def test_flood_from_many_addresses_exhausts_neither_cpu_nor_records(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = count_hashes(monkeypatch)

    answers = [log_in("guess", f"name-{n}", REMOTE_ADDR=f"192.0.{n // 250}.{n % 250}").status_code for n in range(120)]

    assert answers == [200] * 60 + [429] * 60
    assert len(hashed) <= 2 * 60
    assert AuditEntry.objects.count() <= 60


@pytest.mark.parametrize("name", ["ANN", " ann", "ａｎｎ", "ann "])
def test_spelling_variants_of_a_name_share_one_lock(name: str) -> None:
    for number in range(5):
        log_in(f"guess-{number}", name)

    assert log_in().status_code == 429


def test_names_are_not_stored_in_redis(raw_redis: FakeRedis) -> None:
    log_in("x", "FAKE-SECRET-typed-as-a-name")
    log_in()

    assert not [key for key in raw_redis.scan_iter("*") if b"FAKE-SECRET" in key or b"ann" in key]
    assert all(raw_redis.ttl(key) > 0 for key in raw_redis.scan_iter("*"))


def test_count_without_expiry_gets_one(raw_redis: FakeRedis) -> None:
    for number in range(6):
        log_in(f"guess-{number}")
    for key in raw_redis.scan_iter(name_of("rate:*")):
        raw_redis.persist(key)

    assert log_in().status_code == 429

    assert all(raw_redis.ttl(key) > 0 for key in raw_redis.scan_iter(name_of("rate:login:*")))


def test_stolen_session_can_not_guess_the_old_password(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.force_login(ann)
    words = {"new_password1": "another good horse", "new_password2": "another good horse"}

    guesses = [
        client.post("/admin/password_change/", {**words, "old_password": f"guess-{n}"}).status_code for n in range(6)
    ]
    hashed = count_hashes(monkeypatch)

    assert guesses == [200] * 5 + [429]
    assert client.post("/admin/password_change/", {**words, "old_password": PASSWORD}).status_code == 429
    assert hashed == []


def test_weak_new_password_is_not_counted_as_a_failure(ann: User) -> None:
    client = Client()
    client.force_login(ann)
    weak = {"old_password": PASSWORD, "new_password1": "1", "new_password2": "1"}

    assert {client.post("/admin/password_change/", weak).status_code for _ in range(10)} == {200}


def test_sixth_attempt_is_locked_out_even_with_the_right_password() -> None:
    guesses = [log_in(f"guess-{number}").status_code for number in range(5)]

    answer = log_in()

    assert guesses[:4] == [200] * 4
    assert answer.status_code == 429
    assert "Too many failed logins" in answer.content.decode()
    assert SESSION_COOKIE_NAME not in answer.cookies
    assert log_in(path="/admin/login/").status_code == 429


def test_lock_applies_to_one_user_from_one_address() -> None:
    User.objects.create_user("bob", password=PASSWORD)
    for number in range(6):
        log_in(f"guess-{number}")

    assert log_in().status_code == 429
    assert log_in(name="bob").status_code == 302
    assert log_in(REMOTE_ADDR="192.0.2.9").status_code == 302


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP"])
def test_invented_address_in_a_header_does_not_lift_the_lock(header: str) -> None:
    for number in range(6):
        answer = log_in(f"guess-{number}", headers={header: f"192.0.2.{number}"})

    assert answer.status_code == 429


def test_behind_a_trusted_proxy_the_lock_applies_to_the_visitors_address(settings: Settings) -> None:
    import ipaddress

    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8")]
    for number in range(6):
        # The visitor's invented address comes first.
        forged = f"198.51.100.{number}, 192.0.2.7"
        guess = log_in(f"guess-{number}", headers={"X-Forwarded-For": forged}, REMOTE_ADDR="10.0.0.1")

    assert guess.status_code == 429
    other = log_in(headers={"X-Forwarded-For": "192.0.2.8"}, REMOTE_ADDR="10.0.0.1")
    assert other.status_code == 302
    assert AuditEntry.objects.filter(action="login", outcome="done").get().address == "192.0.2.8"


def test_lock_ends_after_15_minutes(raw_redis: FakeRedis) -> None:
    for number in range(6):
        log_in(f"guess-{number}")
    answer = log_in()
    assert answer.status_code == 429
    assert 14 * 60 < int(answer["Retry-After"]) <= 15 * 60

    pass_time(raw_redis, 15 * 60)

    assert log_in().status_code == 302


def test_login_resets_earlier_failures() -> None:
    for _ in range(2):
        assert [log_in("wrong").status_code for _ in range(4)] == [200] * 4
        assert log_in().status_code == 302


def test_guessed_passwords_are_stored_nowhere() -> None:
    from tests.test_tokens import dump_database

    for number in range(6):
        log_in(f"FAKE-SECRET-{number}")

    assert "FAKE-SECRET" not in dump_database()


# --- Cookies


@pytest.mark.parametrize("is_over_tls", [True, False])
def test_cookies_are_restricted_to_this_site(is_over_tls: bool) -> None:
    client = Client()
    page = client.get("/login/", secure=is_over_tls)
    answer = client.post("/login/", {"username": "ann", "password": PASSWORD}, secure=is_over_tls)

    session, csrf = answer.cookies[SESSION_COOKIE_NAME], page.cookies[CSRF_COOKIE_NAME]
    assert session["httponly"]
    assert [session["samesite"], csrf["samesite"]] == ["Lax", "Lax"]
    assert [bool(session["secure"]), bool(csrf["secure"])] == [is_over_tls, is_over_tls]
    assert 0 < session["max-age"] <= 12 * 3600


@pytest.mark.parametrize("is_set", [True, False])
def test_tls_header_counts_only_when_configured(settings: Settings, is_set: bool) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if is_set else None
    settings.SECURE_HSTS_SECONDS = 3600

    answer = log_in(headers={"X-Forwarded-Proto": "https"})

    assert bool(answer.cookies[SESSION_COOKIE_NAME]["secure"]) == is_set
    assert ("Strict-Transport-Security" in answer) == is_set


# --- The record


def test_logins_failures_and_logouts_are_recorded() -> None:
    client = Client(REMOTE_ADDR="192.0.2.7")
    failed = client.post("/login/", {"username": "ann", "password": "FAKE-SECRET"})
    done = client.post("/login/", {"username": "ann", "password": PASSWORD})
    ended = client.post("/logout/")

    rows = list(AuditEntry.objects.order_by("pk").values_list("actor", "action", "outcome", "address", "request_id"))
    assert rows == [
        ("ann", "login", "NOT_AUTHENTICATED", "192.0.2.7", failed["X-Request-Id"]),
        ("ann", "login", "done", "192.0.2.7", done["X-Request-Id"]),
        ("ann", "logout", "done", "192.0.2.7", ended["X-Request-Id"]),
    ]


def test_failures_are_recorded_once_a_minute_with_their_number(raw_redis: FakeRedis) -> None:
    for number in range(30):
        log_in(f"guess-{number}")
    pass_time(raw_redis, 60)
    log_in()

    last, first = AuditEntry.objects.filter(action="login")
    assert [(entry.actor, entry.address) for entry in (first, last)] == [("ann", "127.0.0.1")] * 2
    assert first.outcome == "NOT_AUTHENTICATED"
    assert last.outcome == "TOO_MANY_REQUESTS"
    assert "Failed login 1 " in first.error and "Failed login 31 " in last.error


@pytest.mark.usefixtures("login_wanted")
def test_login_page_is_titled_with_the_panels_name() -> None:
    page = Client().get("/login/").content.decode()

    assert "<title>Log in · Novita panel</title>" in page
