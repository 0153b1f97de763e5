"""Single sign-on with a real login service on this machine, and with a lying one."""

import base64
import hashlib
import json
import os
import re
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Process, Service, ended, find_free_port, wait_until

SECRET = "FAKE-SECRET-oidc"
ROLES = "panel-admins=admin,research=operator,guests=viewer"

Query = Callable[..., list[tuple[Any, ...]]]


class Browser(requests.Session):
    """A browser that follows redirects and keeps cookies."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.trust_env = False
        self.service = service

    def open(self, path: str, **options: Any) -> requests.Response:
        return self.get(self.service.url + path, **{"allow_redirects": False, "timeout": 30, **options})

    def begin(self, path: str = "/sso/") -> str:
        """Follow the link of the login page; return its address."""
        return self.open(path).headers["Location"]

    def prove(self, url: str, **form: str) -> str:
        """Log in at the login service; return the address of its redirect."""
        answer = self.post(url, data=form, allow_redirects=False, timeout=30)
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def sign_in(self, sub: str, path: str = "/sso/") -> requests.Response:
        back = self.prove(self.begin(path), sub=sub)
        return self.get(back, allow_redirects=False, timeout=30)


class LoginService(Process):
    """oidc-provider-mock, as its own process."""

    def __init__(self, folder: Path) -> None:
        port = find_free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
        super().__init__(command, os.environ, folder / "login.log")
        self.session = requests.Session()
        self.session.trust_env = False
        wait_until(lambda: self.session.get(f"{self.url}/jwks", timeout=5).ok, "the login service answers")

    def set_claims(self, sub: str, **claims: Any) -> None:
        assert self.session.put(f"{self.url}/users/{sub}", json=claims, timeout=5).ok

    def end(self) -> None:
        super().end()
        self.session.close()


@pytest.fixture(scope="module")
def login_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoginService]:
    """A login service for all tests: each sets the claims of its own people, and has a browser of its own."""
    with ended(LoginService(tmp_path_factory.mktemp("login"))) as process:
        yield process


@pytest.fixture
def query(environment: dict[str, str]) -> Query:
    """Read or change the service's database directly."""

    def ask(statement: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(environment["DATABASE_URL"].removeprefix("sqlite:///"), timeout=10)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    return ask


StartSso = Callable[[str], Service]


@pytest.fixture(scope="session")
def sso_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the tables of single sign-on."""
    path = tmp_path_factory.mktemp("database") / "db.sqlite3"
    variables = {
        "DATABASE_URL": f"sqlite:///{path}",
        "DJANGO_SETTINGS_MODULE": "novita_site.settings",
        "OIDC_ISSUER": "https://login.test",
        "OIDC_CLIENT_ID": "panel",
        "OIDC_CLIENT_SECRET": SECRET,
    }
    python.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env={**os.environ, **variables}, check=True)
    return path


@pytest.fixture
def start_sso(start_service: Start, environment: dict[str, str], sso_database: Path) -> StartSso:
    """Start a service that requires a login, by password or at the issuer."""

    def start(issuer: str) -> Service:
        environment.update(
            REQUIRE_LOGIN="1",
            OIDC_ISSUER=issuer,
            OIDC_CLIENT_ID="panel",
            OIDC_CLIENT_SECRET=SECRET,
            OIDC_ROLES=ROLES,
            WEB_WORKERS="1",
            NOVITA_SYNC_ON_STARTUP="0",
            NOVITA_SYNC_INTERVAL="0",
        )
        shutil.copy(sso_database, environment["DATABASE_URL"].removeprefix("sqlite:///"))
        return start_service().wait_until_alive()

    return start


@pytest.fixture
def service(start_sso: StartSso, login_service: LoginService) -> Service:
    return start_sso(login_service.url)


@pytest.fixture
def browser(service: Service) -> Iterator[Browser]:
    with Browser(service) as browser:
        yield browser


def list_roles(query: Query) -> dict[str, set[str]]:
    """Return the accounts and their groups."""
    rows = query(
        "SELECT username, name FROM auth_user u LEFT JOIN auth_user_groups g ON g.user_id = u.id"
        " LEFT JOIN auth_group ON auth_group.id = g.group_id"
    )
    roles: dict[str, set[str]] = {}
    for username, name in rows:
        roles.setdefault(username, set()).update({name} - {None})
    return roles


def list_audit(query: Query) -> list[tuple[Any, ...]]:
    return query("SELECT actor, action, before, after, outcome FROM instances_auditentry ORDER BY id")


# --- Accepted logins


def test_first_login_creates_an_account_with_the_role_of_the_claim(
    browser: Browser, login_service: LoginService, query: Query
) -> None:
    login_service.set_claims(
        "s1", preferred_username="ann", email="ann@example.com", groups=["guests", "research", "else", 7, None]
    )
    assert browser.open("/api/instances").status_code == 401

    answer = browser.sign_in("s1")

    assert answer.status_code == 302
    assert answer.headers["Location"] == "/"
    assert "Log in" not in browser.open("/", allow_redirects=True).text
    assert browser.open("/api/instances").status_code in {200, 503}
    assert list_roles(query) == {"ann": {"operator"}}
    assert query("SELECT is_superuser, is_staff, is_active, email FROM auth_user") == [(0, 0, 1, "ann@example.com")]
    assert list_audit(query) == [("ann", "user.add", "", "operator", "done"), ("ann", "login", "", "", "done")]
    cookie = next(cookie for cookie in browser.cookies if cookie.name.startswith("sessionid_"))
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"


def test_changed_claim_changes_the_role_at_the_next_login(
    service: Service, login_service: LoginService, query: Query
) -> None:
    for claim, role in [("guests", "viewer"), (["panel-admins", "guests"], "admin"), (["guests"], "viewer")]:
        login_service.set_claims("s1", preferred_username="ann", groups=claim)
        with Browser(service) as browser:
            assert browser.sign_in("s1").status_code == 302
        assert list_roles(query) == {"ann": {role}}

    assert [entry for entry in list_audit(query) if entry[1] == "user.change"] == [
        ("ann", "user.change", "viewer", "admin", "done"),
        ("ann", "user.change", "admin", "viewer", "done"),
    ]


def test_claim_without_a_role_creates_no_account(browser: Browser, login_service: LoginService, query: Query) -> None:
    claims: list[dict[str, Any]] = [
        {},
        {"groups": []},
        {"groups": ["else", "admin"]},
        {"groups": {"research": 1}},
        {"groups": [["research"]]},
        {"groups": True},
    ]
    for number, claim in enumerate(claims):
        login_service.set_claims(f"s{number}", preferred_username="ann", **claim)

        answer = browser.sign_in(f"s{number}")

        assert answer.status_code == 403
        assert "gives you no role here." in answer.text
        assert browser.open("/api/instances").status_code == 401

    assert list_roles(query) == {}
    assert list_audit(query)[0] == ("sub s0", "login", "", "", "NOT_ALLOWED")


def test_user_who_lost_the_claim_loses_the_role_and_open_sessions(
    browser: Browser, login_service: LoginService, query: Query
) -> None:
    login_service.set_claims("s1", preferred_username="ann", groups="panel-admins")
    browser.sign_in("s1")
    assert browser.open("/").status_code == 200
    query("INSERT INTO auth_group (name) VALUES ('else')")
    query("INSERT INTO auth_user_groups (user_id, group_id) SELECT 1, id FROM auth_group WHERE name = 'else'")
    login_service.set_claims("s1", preferred_username="ann")

    with Browser(browser.service) as another:
        assert another.sign_in("s1").status_code == 403

    assert browser.open("/").status_code == 403
    assert list_roles(query) == {"ann": {"else"}}, "a group that is no role is none of the provider's business"


def test_existing_account_is_not_taken_over(service: Service, login_service: LoginService, query: Query) -> None:
    query(
        "INSERT INTO auth_user"
        " (id, username, email, password, is_superuser, is_staff, is_active, first_name, last_name, date_joined)"
        " VALUES (7, 'Ann', 'ann@example.com', 'x', 1, 1, 1, '', '', '2026-01-01')"
    )
    names = {
        "ann": "ann-2",
        "ANN": "ANN-3",
        "local-owner": "local-owner-2",
        "Worker": "Worker-2",
        "<script>": "script",
        "": "ann-4",
        "\N{CYRILLIC SMALL LETTER A}dmin": "dmin",
    }
    for number, wanted in enumerate(names):
        claims = {"preferred_username": wanted, "email": "ann@example.com", "email_verified": True, "groups": "guests"}
        login_service.set_claims(f"s{number}", **claims)
        with Browser(service) as browser:
            assert browser.sign_in(f"s{number}").status_code == 302
            assert browser.open("/admin/auth/user/").status_code == 403

    assert list_roles(query) == {"Ann": set(), **{name: {"viewer"} for name in names.values()}}
    assert query("SELECT is_superuser, email FROM auth_user WHERE id = 7") == [(1, "ann@example.com")]
    assert query("SELECT count(*) FROM auth_user WHERE is_superuser") == [(1,)]


def test_inactive_account_cannot_log_in(browser: Browser, login_service: LoginService, query: Query) -> None:
    login_service.set_claims("s1", preferred_username="ann", groups="guests")
    browser.sign_in("s1")
    query("UPDATE auth_user SET is_active = 0")

    with Browser(browser.service) as another:
        answer = another.sign_in("s1")
        assert another.open("/api/instances").status_code == 401

    assert answer.status_code == 403
    assert "Your account here is not active." in answer.text
    assert list_audit(query)[-1] == ("ann", "login", "", "", "NOT_AUTHENTICATED")


def test_login_page_leads_to_the_provider_and_back_and_nowhere_else(
    browser: Browser, login_service: LoginService
) -> None:
    login_service.set_claims("s1", preferred_username="ann", groups="guests")
    page = browser.open("/login/?next=/api/docs?a=1%26b=2")

    link = re.search(r'href="(/sso/[^"]*)">Sign in with 127.0.0.1<', page.text)

    assert link
    assert browser.sign_in("s1", link[1].replace("&amp;", "&")).headers["Location"] == "/api/docs?a=1&b=2"
    for url in ("https://evil.test/", "//evil.test", "javascript:alert(1)"):
        with Browser(browser.service) as another:
            assert another.sign_in("s1", f"/sso/?next={url}").headers["Location"] == "/"


# --- Refused logins


def test_state_of_another_browser_is_refused(browser: Browser, login_service: LoginService, query: Query) -> None:
    login_service.set_claims("s1", preferred_username="ann", groups="guests")
    back = browser.prove(browser.begin(), sub="s1")
    code, state = (parse_qs(urlsplit(back).query)[name][0] for name in ("code", "state"))

    with Browser(browser.service) as victim:
        victim.begin()
        answers = [
            victim.get(back, timeout=30),
            victim.open(f"/sso/callback/?code={code}&state={'a' * 43}"),
            victim.open(f"/sso/callback/?code={code}"),
            victim.open("/sso/callback/"),
            victim.open(f"/sso/callback/?error=access_denied&state={state}"),
        ]
        assert victim.open("/api/instances").status_code == 401

    assert [answer.status_code for answer in answers] == [400] * 5
    assert "was not started in this browser" in answers[0].text
    assert browser.get(back, allow_redirects=False, timeout=30).status_code == 302
    assert browser.get(back, allow_redirects=False, timeout=30).status_code == 400, "a state counts once"
    assert list_roles(query) == {"ann": {"viewer"}}


def test_login_cancelled_at_the_provider_shows_a_page(browser: Browser, query: Query) -> None:
    back = browser.prove(browser.begin(), action="deny")
    state = parse_qs(urlsplit(browser.begin()).query)["state"][0]

    # The login service omits the state, although the standard requires it.
    assert browser.get(back, timeout=30).status_code == 400
    answer = browser.open(f"/sso/callback/?error=access_denied&state={state}")

    assert answer.status_code == 403
    assert "The login service refused this login, or you cancelled it there." in answer.text
    assert list_audit(query)[-1][4] == "NOT_AUTHENTICATED"


def test_link_to_the_callback_logs_nobody_out(browser: Browser, login_service: LoginService) -> None:
    login_service.set_claims("s1", preferred_username="ann", groups="guests")
    pending = parse_qs(urlsplit(browser.begin()).query)["state"][0]
    browser.sign_in("s1")

    for query in (f"error=access_denied&state={pending}", f"state={pending}", "error=access_denied", "code=a&state=b"):
        assert browser.open(f"/sso/callback/?{query}").status_code >= 400

    assert browser.open("/").status_code == 200


def test_unreachable_provider_shows_a_page(start_sso: StartSso, tmp_path: Path, query: Query) -> None:
    with ended(LoginService(tmp_path)) as login_service, Browser(start_sso(login_service.url)) as browser:
        login_service.set_claims("s1", preferred_username="ann", groups="guests")
        back = browser.prove(browser.begin(), sub="s1")
        login_service.end()

        answers = [browser.get(back, timeout=30), browser.open("/sso/")]

        assert [answer.status_code for answer in answers] == [502, 502]
        assert all("The login service can" in answer.text for answer in answers)
        assert browser.open("/login/").status_code == 200, "the password's login goes on"
        assert "Traceback" not in browser.service.log
        assert [entry[4] for entry in list_audit(query)] == ["SSO_FAILED"], "one a minute"


def test_only_the_paths_of_the_flow_are_reachable(browser: Browser, login_service: LoginService, query: Query) -> None:
    login_service.set_claims("s1", preferred_username="ann", groups="panel-admins")
    for path in ("signup/", "3rdparty/", "email/", "password/reset/", "login/callback/", "oidc/", "connections/"):
        for folder in ("", "accounts/", "sso/", "3rdparty/", "oidc/"):
            assert browser.open(f"/{folder}{path}").status_code == 404
    assert [browser.post(f"{browser.service.url}/sso/{path}").status_code for path in ("", "callback/")] == [403, 403]

    browser.sign_in("s1")
    query("UPDATE auth_user SET is_superuser = 1, is_staff = 1")

    index = browser.open("/admin/").text
    assert "/admin/auth/user/" in index
    assert "socialaccount" not in index
    assert browser.open("/admin/socialaccount/socialapp/").status_code == 404
    assert browser.open("/admin/account/emailaddress/").status_code == 404
    assert browser.open("/sso/?process=connect").headers["Location"] == "/"


# --- A login service that lies


class Liar:
    """A login service with one defect; "" means none. It checks codes, secrets and PKCE."""

    def __init__(self) -> None:
        self.wrong = ""
        self.asked: dict[str, list[str]] = {}
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.tokens: list[str] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(*liar.answer(urlsplit(self.path).path, {}))

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                fields = {name: values[0] for name, values in parse_qs(form).items()}
                self.answer(*liar.answer(self.path, {**fields, "basic": self.headers.get("Authorization", "")}))

            def answer(self, status: int, body: Any) -> None:
                text = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                if status == 302:
                    self.send_header("Location", "/other")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str, form: dict[str, str]) -> tuple[int, Any]:
        match path:
            case "/.well-known/openid-configuration" if self.wrong == "redirect":
                return 302, ""
            case "/.well-known/openid-configuration" | "/other":
                return self._describe()
            case "/jwks":
                key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
                return 200, {"keys": [] if self.wrong == "no keys" else [{**key, "kid": "k", "alg": "RS256"}]}
            case "/token":
                return self._give_token(form)
            case "/userinfo":
                sub = {"userinfo": "somebody-else", "sub": "s1\n"}.get(self.wrong, "s1")
                return 200, {"sub": sub, "groups": ["guests"], "preferred_username": "ann"}
        return 404, {}

    def _describe(self) -> tuple[int, Any]:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        config = {name: f"{self.url}/{path}" for name, path in names.items()}
        config |= {"issuer": self.url, "userinfo_endpoint": f"{self.url}/userinfo"}
        match self.wrong:
            case "HTML":
                return 200, "<html>FAKE-SECRET-page"
            case "list":
                return 200, []
            case "error":
                return 500, "FAKE-SECRET-error"
            case "issuer's name":
                config["issuer"] = "https://evil.test"
            case "no TLS":
                config["token_endpoint"] = "http://192.0.2.7/token"
            case "no endpoint":
                del config["token_endpoint"]
        return 200, config

    def _give_token(self, form: dict[str, str]) -> tuple[int, Any]:
        basic = base64.b64encode(f"panel:{SECRET}".encode()).decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if self.wrong == "secret" or form["basic"] != f"Basic {basic}":
            return 401, {"error": "invalid_client", "error_description": f"not {SECRET}"}
        if challenge.decode().rstrip("=") != self.asked["code_challenge"][0]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {"iss": self.url, "aud": "panel", "sub": "s1", "iat": now, "exp": now + 300}
        claims["nonce"] = self.asked["nonce"][0]
        match self.wrong:
            case "ID token's issuer":
                claims["iss"] = "https://evil.test"
            case "audience":
                claims["aud"] = "other"
            case "authorized party":
                claims |= {"aud": ["panel", "other"], "azp": "other"}
            case "expired":
                claims |= {"iat": now - 900, "exp": now - 600}
            case "no expiry":
                del claims["exp"]
            case "nonce":
                claims["nonce"] = "a" * 64
            case "no nonce":
                del claims["nonce"]
            case "sub":
                claims["sub"] = "s1\n"
        key: Any = self.key
        if self.wrong == "signature":
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        token = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "k"})
        if self.wrong == "unsigned":
            token = jwt.encode(claims, "", algorithm="none", headers={"kid": "k"})
        if self.wrong == "signed by the secret":
            token = jwt.encode(claims, SECRET.ljust(32, "-"), algorithm="HS256", headers={"kid": "k"})
        if self.wrong == "no ID token":
            return 200, {"access_token": "FAKE-SECRET-access"}
        if self.wrong == "no token":
            return 200, {"id_token": 7, "access_token": ["FAKE-SECRET-access"]}
        self.tokens.append(token)
        body = {"access_token": "FAKE-SECRET-access", "id_token": token, "refresh_token": "FAKE-SECRET-refresh"}
        return 200, {**body, "token_type": "Bearer", "expires_in": "soon"}


@pytest.fixture
def liar() -> Iterator[Liar]:
    liar = Liar()
    yield liar
    liar.end()


AT_ONCE = ["HTML", "list", "error", "redirect", "issuer's name", "no TLS", "no endpoint"]
LIES = [
    *("secret", "no ID token", "no token", "no keys", "userinfo", "ID token's issuer", "audience", "authorized party"),
    *("expired", "no expiry", "nonce", "no nonce", "sub", "signature", "unsigned", "signed by the secret"),
]


def test_forged_answer_of_the_provider_logs_nobody_in_and_leaks_nothing(
    start_sso: StartSso, liar: Liar, query: Query, tmp_path: Path
) -> None:
    service = start_sso(liar.url)
    statuses: dict[str, int] = {}

    for lie in LIES:
        liar.wrong = lie
        with Browser(service) as browser:
            liar.asked = parse_qs(urlsplit(browser.begin()).query)
            answer = browser.open(f"/sso/callback/?code=FAKE-SECRET-code&state={liar.asked['state'][0]}")
            statuses[lie] = answer.status_code
            assert "FAKE-SECRET" not in answer.text
            assert browser.open("/api/instances").status_code == 401
    for liar.wrong in AT_ONCE:
        with Browser(service) as browser:
            statuses[liar.wrong] = browser.open("/sso/").status_code

    assert statuses == dict.fromkeys([*AT_ONCE, *LIES], 502)
    assert list_roles(query) == {}
    # The log has a client's first failure of each minute, with its reason.
    assert "the code was not taken: invalid_client" in service.log

    liar.wrong = ""
    for _ in range(2):
        with Browser(service) as browser:
            liar.asked = parse_qs(urlsplit(browser.begin()).query)
            answer = browser.open(f"/sso/callback/?code=FAKE-SECRET-code&state={liar.asked['state'][0]}")
            assert answer.status_code == 302, "the truth does"
    assert liar.asked["code_challenge_method"] == ["S256"]
    assert liar.asked["redirect_uri"] == [f"{service.url}/sso/callback/"]
    assert list_roles(query) == {"ann": {"viewer"}}
    assert query("SELECT issuer, sub FROM instances_identity") == [(liar.url, "s1")]
    assert "Traceback" not in service.log
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("db.sqlite3*"))
    for secret in ["FAKE-SECRET", *liar.tokens]:
        assert secret not in service.log
        assert secret.encode() not in stored
