"""Single sign-on without its variables, and the variables. The logins are tested in tests/system/test_sso.py."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings

from instances.access import sso
from instances.models import Identity
from novita_site.env import Env, InvalidSettings
from tests import python

ROOT = Path(__file__).resolve().parent.parent
WHOLE = {"OIDC_ISSUER": "https://login.test", "OIDC_CLIENT_ID": "panel", "OIDC_CLIENT_SECRET": "FAKE-SECRET-oidc"}


def refuse(env: Env) -> str:
    with pytest.raises(InvalidSettings) as raised:
        env.check()
    return str(raised.value)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/sso", "/sso/", "/sso/callback/", "/sso/callback/?code=a&state=b"])
def test_sso_pages_do_not_exist_without_its_variables(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_login_page_has_no_sso_link_without_its_variables(client: Client, path: str) -> None:
    page = client.get(path, REMOTE_ADDR="192.0.2.7", follow=True).content.decode()

    assert 'name="password"' in page
    assert "Sign in with" not in page
    assert "/sso" not in page


@pytest.mark.thorough
@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_missing_variable_stops_startup_and_is_named(missing: str, tmp_path: Path) -> None:
    variables = {name: value for name, value in WHOLE.items() if name != missing}
    database = f"sqlite:///{tmp_path / 'db.sqlite3'}"

    process = python.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "novita_site.settings", "DATABASE_URL": database, **variables},
        capture_output=True,
        text=True,
    )

    assert process.returncode != 0
    assert f"{missing}: it is not set" in process.stderr
    assert "FAKE-SECRET" not in process.stderr


def test_all_or_none_of_the_variables_are_valid() -> None:
    none, whole = Env({}), Env(WHOLE)

    assert none.has_all(*WHOLE) is False
    assert whole.has_all(*WHOLE) is True
    none.check()
    whole.check()


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("", {}),
        ("panel-admins=admin", {"panel-admins": "admin"}),
        (" panel-admins = admin , research=operator,", {"panel-admins": "admin", "research": "operator"}),
        ("ou=panel=viewer", {"ou=panel": "viewer"}),
    ],
)
def test_roles_are_read(text: str, roles: dict[str, str]) -> None:
    env = Env({"OIDC_ROLES": text})

    assert env.roles("OIDC_ROLES") == roles
    env.check()


@pytest.mark.parametrize("text", ["admin", "=admin", "panel-admins=root", "panel-admins=Admin", "a=viewer,a=admin"])
def test_invalid_roles_are_refused_by_name(text: str) -> None:
    env = Env({"OIDC_ROLES": text})

    env.roles("OIDC_ROLES")

    assert refuse(env).startswith("OIDC_ROLES: ")


def test_code_in_the_url_of_a_password_login_is_ignored(settings: Settings) -> None:
    settings.OIDC_ISSUER = "http://127.0.0.1:1"
    request = RequestFactory().post("/login/?code=FAKE-SECRET-code&state=a")

    assert sso.Backend().authenticate(request, username="ann", password="FAKE-SECRET-password") is None


@pytest.mark.parametrize("url", ["http://login.test", "login.test", "https://user:FAKE-SECRET@login.test", "ftp://a"])
def test_issuer_without_tls_is_refused(url: str) -> None:
    env = Env({"OIDC_ISSUER": url})

    env.issuer("OIDC_ISSUER")

    problem = refuse(env)
    assert problem.startswith("OIDC_ISSUER: ")
    assert "FAKE-SECRET" not in problem


@pytest.mark.parametrize("url", ["https://login.test/realms/a/", "http://127.0.0.1:9400", "http://localhost:9400/"])
def test_issuer_with_tls_or_on_this_machine_is_accepted(url: str) -> None:
    env = Env({"OIDC_ISSUER": url})

    assert env.issuer("OIDC_ISSUER") == url.rstrip("/")
    env.check()


@pytest.fixture
def log_in(settings: Settings) -> Callable[[str], User]:
    """Logs somebody named ann in whom the provider knows by this `sub`."""
    settings.OIDC_ISSUER, settings.OIDC_ROLES = "https://login.test", {"ops": "viewer"}
    settings.OIDC_ROLE_CLAIM = "role"

    def log_in(sub: str) -> User:
        backend = sso.Backend()
        backend.description, backend.request = {}, RequestFactory().get("/")
        return backend.get_or_create_user("", "", {"sub": sub, "preferred_username": "ann", "role": "ops"})

    return log_in


@pytest.mark.django_db
@pytest.mark.parametrize(("sub", "names"), [("1", ["ann"]), ("2", ["ann", "ann-2"])], ids=["one", "two of a name"])
def test_two_first_logins_at_once_both_succeed(
    sub: str, names: list[str], log_in: Callable[[str], User], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_free_name, waiting = sso._find_free_name, [sub]

    def find_slowly(wanted: str) -> str:
        name = find_free_name(wanted)
        if waiting:
            log_in(waiting.pop())
        return name

    monkeypatch.setattr(sso, "_find_free_name", find_slowly)

    user = log_in("1")

    assert Identity.objects.get(sub="1").user == user
    assert sorted(User.objects.values_list("username", flat=True)) == names
    assert [group.name for group in user.groups.all()] == ["viewer"]
