"""Nothing leaks: the test uses marked secrets everywhere, then searches all outputs and stores for the marks."""

import base64
import contextlib
import gzip
import re
import sqlite3
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
import redis
import requests

from tests import python
from tests.system.conftest import Start
from tests.system.processes import ROOT, Novita, Process, Redis, Service, find_free_port, wait_until
from tests.test_webhooks import SECRET_PATH, Receiver, answer

MARK = "FAKE-SECRET"
PASSWORD = "FAKE-SECRET-password-of-ann"
REDIS_PASSWORD = "FAKE-SECRET-redis"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"FAKE-SECRET-that-signs-the-webhooks").decode()
TOLD = {
    "code": 400,
    "reason": "FAKE-SECRET-reason",
    "message": "no: FAKE-SECRET-message",
    "metadata": {"FAKE-SECRET": 1},
}
ROW = {"name": "train", "sshPassword": "FAKE-SECRET-row", "envs": [{"key": "TOKEN", "value": "FAKE-SECRET-row"}]}
COOKIE = {"Set-Cookie": "session=FAKE-SECRET-cookie", "X-Key": "FAKE-SECRET-header"}
ANY_FAULTS: list[dict[str, Any]] = [
    *({"kind": "status", "status": status, "body": TOLD, "headers": COOKIE} for status in (400, 401, 403, 404, 500)),
    # A request waits for the end of this.
    {"kind": "status", "status": 429, "body": TOLD, "headers": COOKIE, "times": 8},
    {"kind": "status", "status": 400, "body": {**TOLD, "reason": "INVALID_STATE"}},
    {"kind": "status", "status": 400, "body": {**TOLD, "reason": "INSUFFICIENT_RESOURCE"}},
    {"kind": "status", "status": 502, "body": "<html>FAKE-SECRET-html</html>"},
    {"kind": "status", "status": 404, "body": "<html>FAKE-SECRET-html</html>"},
    {"kind": "status", "status": 200, "body": "<html>FAKE-SECRET-html</html>"},
    {"kind": "status", "status": 200, "body": '{"instances": [{"sshPassword": "FAKE-SECRET-broken'},
    {"kind": "status", "status": 200, "body": ["FAKE-SECRET-list"]},
    {"kind": "status", "status": 200, "body": {"id": {"FAKE-SECRET-id": 1}, "instances": "FAKE-SECRET-instances"}},
    {"kind": "status", "status": 302, "headers": {"Location": "http://127.0.0.1:1/?key=FAKE-SECRET-key"}, "body": ""},
    {"kind": "reset"},
    {"kind": "cut"},
    {"kind": "hang"},
    {"kind": "gzip_bomb", "megabytes": 100},
]
LIST_FAULTS = [{"kind": "rows", "rows": [row]} for row in (ROW, "FAKE-SECRET-text", {**ROW, "id": ["FAKE-SECRET-id"]})]
LINK = re.compile(r"""\s(?:href|src|action|data-[a-z-]+)=["']((?:[/?.]|https?:)[^"'<>\s]*)""")
MAX_PAGES = 400
# At most so many pages of a kind: of records of one model, and of one list with queries, since each filter is a link.
MAX_OF_A_KIND = 2
ID = re.compile(r"/(\d+|[0-9a-f-]{32,})(?=/)")


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[Redis]:
    """A Redis that requires a password from each later connection."""
    process = Redis(tmp_path, "--port", str(port := find_free_port()))
    process.client.config_set("requirepass", REDIS_PASSWORD)
    process.url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{port}/0"
    process.client = redis.Redis.from_url(process.url)
    yield process
    process.end()


class Search:
    """Searches the added data for the marks, packed and unpacked, and stores where it found them."""

    def __init__(self) -> None:
        self.needles = [MARK, WEBHOOK_SECRET.removeprefix("whsec_"), WEBHOOK_SECRET]
        self.found: set[str] = set()
        self.places: set[str] = set()

    def add(self, place: str, data: bytes | str) -> None:
        raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        self.places.add(place)
        for form in unpack(raw):
            for needle in self.needles:
                at = form.find(needle.encode())
                if at >= 0:
                    self.found.add(f"{place}: {form[max(0, at - 120) : at + 60]!r}")


def unpack(raw: bytes) -> Iterator[bytes]:
    """Yield the data, its parts in base64 and in escapes, and all of these unpacked."""
    pending = [raw]
    for depth in range(4):
        yield from pending
        pending = [inner for data in pending for inner in unwrap(data)] if depth < 3 else []


def unwrap(data: bytes) -> Iterator[bytes]:
    with contextlib.suppress(OSError, EOFError, zlib.error):
        yield gzip.decompress(data)
    with contextlib.suppress(zlib.error):
        yield zlib.decompress(data)
    if len(data) > 1_000_000:
        return
    for run in re.findall(rb"[A-Za-z0-9+/_-]{16,}", data):
        with contextlib.suppress(ValueError):
            yield base64.b64decode(run.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(run) % 4))


class Visitor:
    """All running processes, and a visitor's requests to them."""

    def __init__(self, service: Service, environment: dict[str, str], is_open: bool) -> None:
        self.service, self.environment, self.is_open = service, environment, is_open
        self.database = Path(environment["DATABASE_URL"].removeprefix("sqlite:///"))
        self.search = Search()
        self.browser = requests.Session()
        self.browser.trust_env = False

    def open(self, path: str, method: str = "GET", **options: Any) -> requests.Response:
        """Send a request as a logged-in browser does, and search the whole answer."""
        options.setdefault("headers", {"Accept": "text/html"})
        url = urljoin(self.service.url, path)
        received = self.browser.request(method, url, allow_redirects=False, timeout=60, **options)
        self._see(method, path, received)
        return received

    def call(self, path: str, method: str = "POST", **options: Any) -> requests.Response:
        """Send a request as a script does."""
        received = self.service.session.request(method, self.service.url + path, timeout=60, **options)
        self._see(method, path, received)
        return received

    def _see(self, method: str, path: str, received: requests.Response) -> None:
        self.search.add(f"{method} {path} {received.status_code}", received.content)
        self.search.add(f"headers of {method} {path}", str(received.headers))

    def submit(self, path: str, action: str = "", **fields: str) -> requests.Response:
        """Open a page and send its form, to the page's own address by default."""
        page = self.open(path)
        tokens = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        headers = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
        return self.open(
            urljoin(path, action),
            "POST",
            data={**fields, "csrfmiddlewaretoken": tokens[0] if tokens else ""},
            headers=headers,
        )

    def visit_all(self, *starts: str) -> set[str]:
        """Follow every link from page to page; returns the addresses that were opened."""
        seen: set[str] = set()
        kinds: Counter[tuple[str, bool]] = Counter()
        waiting = list(starts)
        while waiting and len(seen) < MAX_PAGES:
            path = waiting.pop(0)
            parts = urlsplit(path)
            if path in seen or parts.path.startswith("/static/"):
                continue
            kind = (ID.sub("/*", parts.path), bool(parts.query))
            if kinds[kind] == MAX_OF_A_KIND and "csv" not in parts.path:
                continue
            kinds[kind] += 1
            seen.add(path)
            received = self.open(path)
            links = [*LINK.findall(received.text), received.headers.get("Location", "")]
            for link in links:
                target = urlsplit(urldefrag(urljoin(self.service.url + path, unescape(link))).url)
                if target.netloc == urlsplit(self.service.url).netloc:
                    waiting.append(target.path + (f"?{target.query}" if target.query else ""))
        return seen

    def look_at_the_stores(self, client: "redis.Redis[bytes]") -> None:
        for key in client.scan_iter(count=1000):
            self.search.add("Redis", key)
            for value in read_values(client, key):
                self.search.add(f"Redis {key.decode()}", value)
        for path in self.database.parent.glob(self.database.name + "*"):
            self.search.add(path.name, path.read_bytes())
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - its own name
                    for value in row:
                        self.search.add(f"table {table}", value if isinstance(value, bytes) else str(value))

    def execute(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as connection, connection:
            connection.execute(statement)

    def manage(self, *arguments: str, **variables: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        process = python.run(
            command, cwd=ROOT, env={**self.environment, **variables}, capture_output=True, text=True, timeout=60
        )
        output = process.stdout
        if arguments[0] == "create_token":
            self.search.needles.append(output.strip().removeprefix("nvp_"))
            return output.strip()
        self.search.add(f"manage.py {arguments[0]}", output + process.stderr)
        return output


def read_values(client: "redis.Redis[bytes]", key: bytes) -> list[bytes]:
    match client.type(key):
        case b"string":
            value = client.get(key) or b""
            # A mark precedes a rendered listing.
            return [value, value[max(value.find(b"\x1f\x8b"), 0) :]]
        case b"hash":
            return [part for pair in client.hgetall(key).items() for part in pair]
        case b"list":
            return list(client.lrange(key, 0, -1))
        case b"set":
            return list(client.smembers(key))
        case b"zset":
            return list(client.zrange(key, 0, -1))
        case _:
            return []


def test_search_finds_packed_secrets() -> None:
    packed = base64.b64encode(zlib.compress(b"a FAKE-SECRET of all"))
    search = Search()

    for place, data in {
        "plain": b"a FAKE-SECRET",
        "gzip": gzip.compress(b"FAKE-SECRET"),
        "session": b".ey" + b":" + packed,
        "message": b'{"body": "%s"}' % base64.urlsafe_b64encode(b"[[], {FAKE-SECRET}]"),
        "key": WEBHOOK_SECRET.encode(),
    }.items():
        search.add(place, data)

    assert {found.partition(":")[0] for found in search.found} == search.places


Begin = Callable[..., Visitor]


@pytest.fixture
def begin(start_service: Start, environment: dict[str, str], tmp_path: Path, redis_process: Redis) -> Iterator[Begin]:
    with contextlib.ExitStack() as stack:

        def start(receiver: Receiver, *, is_open: bool, **variables: str) -> Visitor:
            stack.callback(receiver.close)
            environment.update(
                DJANGO_SETTINGS_MODULE="tests.system.loud_settings",
                SECRET_KEY="FAKE-SECRET-django-0123456789-abcdefghijklmnopqrstuvwxyz",
                NOVITA_SYNC_INTERVAL="0",
                NOVITA_READ_TIMEOUT="1",
                NOVITA_STOP_DEADLINE="4",
                REQUIRE_LOGIN="0" if is_open else "1",
                WEBHOOK_SECRET=WEBHOOK_SECRET,
                WEBHOOK_ALLOWED_HOSTS="127.0.0.1",
                WEBHOOK_ALLOWED_PORTS=str(receiver.port),
                OIDC_ISSUER="http://127.0.0.1:1",
                OIDC_CLIENT_ID="panel",
                OIDC_CLIENT_SECRET="FAKE-SECRET-oidc",
                WEB_WORKERS="1",
                **variables,
            )
            command = [sys.executable, "-m", "celery", "-q", "-A", "novita_site", "worker"]
            worker = Process(command, environment, tmp_path / "worker.log")
            stack.callback(worker.end)
            service = start_service()
            visitor = Visitor(service, environment, is_open)
            visitor.manage("migrate", "-v0")
            service.wait_until_alive()
            stack.callback(visitor.browser.close)
            return visitor

        yield start


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("is_open", "variables"),
    [(False, {"LOG_FORMAT": "json"}), (True, {"DEBUG": "1"})],
    ids=["behind a login", "open, with DEBUG"],
)
def test_no_secret_is_stored_logged_or_shown(
    begin: Begin, novita: Novita, redis_process: Redis, tmp_path: Path, is_open: bool, variables: dict[str, str]
) -> None:
    receiver = Receiver(answer("500 Broken", "X-Key: FAKE-SECRET-answer", body=b"FAKE-SECRET-answer"))
    visitor = begin(receiver, is_open=is_open, **variables)
    search = visitor.search
    visitor.manage(
        "createsuperuser",
        "--noinput",
        "--username",
        "ann",
        "--email",
        "ann@example.com",
        DJANGO_SUPERUSER_PASSWORD=PASSWORD,
    )
    token = visitor.manage("create_token", "ann", "--name", "script", "--role", "admin")
    visitor.service.session.headers["Authorization"] = f"Bearer {token}"

    log_in(visitor)
    act(visitor, novita)
    fail(visitor, novita, redis_process)
    stop_everything(visitor, novita, receiver)
    visitor.call("/api/instances", "GET")
    visitor.look_at_the_stores(redis_process.client)
    pages = visitor.visit_all(
        "/", "/admin/", "/api", "/api/docs", "/health", "/api/schema?format=json", "/nope", "/sso/"
    )
    crash(visitor)

    visitor.look_at_the_stores(redis_process.client)
    for path in tmp_path.glob("*.log"):
        search.add(path.name, path.read_bytes())
    assert "\n".join(sorted(search.found)) == ""
    assert_everything_was_searched(visitor, pages, tmp_path)


def log_in(visitor: Visitor) -> None:
    visitor.call("/api/instances", "GET", headers={"Authorization": "Bearer nvp_0123456789abcdef-FAKE-SECRET-token"})
    visitor.call("/api/instances", "GET", headers={"Authorization": "Basic FAKE-SECRET-basic"})
    if visitor.is_open:
        return
    assert visitor.submit("/login/", username="ann", password="FAKE-SECRET-wrong-password").status_code == 200
    assert visitor.submit("/login/", username="FAKE" + "-NAME", password=PASSWORD).status_code == 200
    assert visitor.submit("/login/", username="ann", password=PASSWORD).status_code == 302


def act(visitor: Visitor, novita: Novita) -> None:
    assert visitor.call("/api/instances/sync").ok
    listed = visitor.call("/api/instances", "GET").json()["instances"]
    running = [one["id"] for one in listed if one["actions"] == ["stop", "restart"]]
    stopped = [one["id"] for one in listed if one["actions"] == ["start"]]
    for path in (f"{running[0]}/stop", f"{running[1]}/restart", f"{stopped[0]}/start"):
        assert visitor.call(f"/api/instances/{path}").ok
    assert visitor.call(f"/api/instances/{running[2]}/protect", json={"reason": "trains"}).ok
    assert visitor.submit("/admin/instances/syncrun/", "sync/").status_code == 302
    novita.change(set={stopped[1]: {"name": "renamed", "sshPassword": "FAKE-SECRET-new"}}, remove=[stopped[2]])
    assert visitor.call("/api/instances/sync").ok
    visitor.manage("sync_instances", "--json")


def fail(visitor: Visitor, novita: Novita, redis_process: Redis) -> None:
    running, other, *_ = [id_ for id_, row in sorted(novita.get_truth().items()) if row["status"] == "running"]
    # Retries take long, so only one of the two modes waits for them.
    for fault in ANY_FAULTS[:: 4 if visitor.is_open else 1]:
        novita.fault("any", **fault)
        # In parallel, since retries wait.
        with ThreadPoolExecutor() as pool:
            pool.submit(visitor.call, "/api/instances/sync")
            pool.submit(visitor.call, f"/api/instances/{running}/stop")
            pool.submit(visitor.call, "/api/operations", json={"kind": "stop", "ids": [running]})
        visitor.open("/")
        visitor.open("/health")
        novita.clear_faults()
    novita.fault(
        "stop", "status", status=400, body={**TOLD, "reason": "FROZEN", "message": "balance too low: FAKE-SECRET"}
    )
    # The answer must name the reason. The worker may have stopped the first instance by now.
    words = visitor.call(f"/api/instances/{other}/stop").json()["message"]
    assert words.startswith("Novita refused: balance too low: … (FROZEN).")
    novita.clear_faults()
    for fault in LIST_FAULTS:
        novita.fault("list", **fault)
        assert visitor.call("/api/instances/sync").status_code == 502
        novita.clear_faults()
    visitor.look_at_the_stores(redis_process.client)
    for body in (
        '{"FAKE-SECRET',
        '["FAKE-SECRET-body"]',
        '{"webhookUrl": "https://ann:FAKE-SECRET@10.0.0.1/FAKE-SECRET"}',
    ):
        visitor.call("/api/instances/stop-all", data=body, headers={"Content-Type": "application/json"})
    visitor.call("/api/instances/nope/stop", data="FAKE-SECRET", headers={"Content-Type": "text/plain"})
    if visitor.environment.get("DEBUG") != "1":
        # Under DEBUG a page repeats the caller's own address.
        visitor.open("/nope?token=FAKE-SECRET-query")
        visitor.open("/api/instances?name=FAKE-SECRET&page=FAKE-SECRET", headers={"Accept": "application/json"})


def stop_everything(visitor: Visitor, novita: Novita, receiver: Receiver) -> None:
    novita.fault("stop", "status", status=400, body=TOLD, times=3)
    ordered = visitor.call("/api/instances/stop-all", json={"webhookUrl": receiver.url + SECRET_PATH}).json()
    wait_until(lambda: receiver.requests, "the webhook was tried", 60)
    receiver.write = answer("200 OK")

    def is_delivered() -> bool:
        # Each retry would wait longer.
        visitor.execute("UPDATE instances_webhookdelivery SET next_attempt_at = datetime('now') WHERE state = 'due'")
        with contextlib.closing(sqlite3.connect(visitor.database, timeout=30)) as connection:
            return connection.execute("SELECT state FROM instances_webhookdelivery").fetchall() == [("delivered",)]

    wait_until(is_delivered, "the webhook arrived", 60)
    # The receiver gets its whole URL, so the search could have found the hidden part.
    assert receiver.requests[-1][0] == SECRET_PATH
    visitor.search.add("the webhook", receiver.requests[-1][2])
    visitor.call(ordered["operationUrl"], "GET")
    visitor.call("/api/operations", "GET")


def crash(visitor: Visitor) -> None:
    """Make pages fail, by removing a table."""
    visitor.execute("ALTER TABLE instances_syncrun RENAME TO gone")
    assert visitor.open("/admin/instances/syncrun/").status_code == 500
    visitor.execute("ALTER TABLE auth_user RENAME TO gone_too")
    visitor.browser.cookies.clear()
    visitor.submit("/admin/login/", username="ann", password="FAKE-SECRET-at-a-bug")
    visitor.execute("ALTER TABLE instances_token RENAME TO gone_as_well")
    visitor.call("/api/instances", "GET")


def assert_everything_was_searched(visitor: Visitor, pages: set[str], folder: Path) -> None:
    places = "\n".join(sorted(visitor.search.places))
    for name in ("table instances_target", "table instances_auditentry"):
        assert name in places, name
    for kind in ("gen", "body"):
        assert re.search(rf"^Redis \{{novita:\w+\}}:{kind}:", places, re.MULTILINE), kind
    for model in ("syncrun", "operation", "target", "webhookdelivery", "auditentry", "token", "protection"):
        assert re.search(rf"^GET /admin/instances/{model}/[^/]+/change/ 200$", places, re.MULTILINE), model
        assert f"GET /admin/instances/{model}/ 200" in places, model
    assert "GET /admin/instances/auditentry/csv/ 200" in places
    assert 60 < len(pages) < MAX_PAGES
    assert "DEBUG" in (folder / "worker.log").read_text() and "DEBUG" in visitor.service.log
    assert "Traceback" in visitor.service.log
