"""Values that would make each request or each stop fail are refused at the start, and a stop goes on all the same."""

import base64
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django_redis.pool import ConnectionFactory

from instances.errors import CacheUnavailable
from instances.outgoing.deadline import WatchedAdapter
from instances.redis_client import redis_errors
from novita_site import private_files
from novita_site.env import Env, InvalidSettings
from tests.test_env import Process, copy_site, read_refusals, run
from tests.tls_servers import Server, serve_listing

# redis-py leaves the socket of a connection that it can't set up to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def novita() -> Iterator[Server]:
    with contextlib.closing(Server(serve_listing)) as server:
        yield server


def preview_stop(site: Path, novita: Server, **variables: str) -> Process:
    needed = {"NOVITA_BASE_URL": f"http://127.0.0.1:{novita.port}", "NOVITA_API_KEY": "FAKE-SECRET-key"}
    return run(site, "manage.py", "stop_all", "--dry-run", **needed, **variables)


@pytest.mark.parametrize(
    ("url", "parameter"),
    [
        ("redis://127.0.0.1:6379/0?foo=bar", "'foo'"),
        ("unix:///run/redis.sock?foo=bar", "'foo'"),
        ("redis://127.0.0.1:6379/0?ssl_cert_reqs=none", "'ssl_cert_reqs'"),
        ("rediss://127.0.0.1:6379/0?ssl_cert_reqs=maybe", "'ssl_cert_reqs'"),
        ("rediss://127.0.0.1:6379/0?ssl_min_version=4", "'ssl_min_version'"),
        ("redis://127.0.0.1:6379/0?socket_timeout=abc", "'socket_timeout'"),
        ("redis://127.0.0.1:6379/0?socket_timeout=inf", "'socket_timeout'"),
        ("redis://127.0.0.1:6379/0?socket_connect_timeout=-1", "'socket_connect_timeout'"),
        ("redis://127.0.0.1:6379/0?db=FAKE-SECRET", "'db'"),
        ("redis://127.0.0.1:6379/0?protocol=7", "'protocol'"),
        ("redis://127.0.0.1:6379/0?max_connections=-1", "'max_connections'"),
        ("redis://127.0.0.1:6379/0?db=1&encoding=nothing", "'encoding'"),
        ("redis://127.0.0.1:6379/0?decode_responses=1", "'decode_responses'"),
        ("redis://127.0.0.1:6379/0?retry=FAKE-SECRET", "'retry'"),
        ("redis://127.0.0.1:6379/0?p%40FAKE-SECRET=1", "with an unknown name"),
    ],
)
def test_a_redis_parameter_that_no_connection_takes_is_refused_by_name(url: str, parameter: str) -> None:
    env = Env({"REDIS_URL": url})
    env.redis_url("REDIS_URL", "redis://127.0.0.1:6379/0")

    with pytest.raises(InvalidSettings) as refusal:
        env.check()

    assert str(refusal.value).startswith(f"REDIS_URL: its parameter {parameter} is invalid for ")
    assert "FAKE-SECRET" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0?socket_timeout=1.5&health_check_interval=30&client_name=the%20panel",
        "unix:///run/redis.sock?db=1&password=p%26%40",
        "rediss://127.0.0.1:6379/0?ssl_cert_reqs=none&ssl_check_hostname=false&ssl_min_version=771",
    ],
)
def test_a_redis_parameter_that_works_is_taken(url: str) -> None:
    env = Env({"REDIS_URL": url})

    assert env.redis_url("REDIS_URL", "redis://127.0.0.1:6379/0") == url
    env.check()


def test_what_fails_while_connecting_to_redis_is_an_outage() -> None:
    options = {"CONNECTION_POOL_CLASS": "instances.redis_client.Pool", "SOCKET_TIMEOUT": 1}
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0?socket_timeout=-1&client_name=FAKE-SECRET"
        connection: Any = ConnectionFactory(options).connect(url)

        with pytest.raises(CacheUnavailable, match="REDIS_URL has a wrong parameter") as caught, redis_errors():
            connection.get("key")

    assert "FAKE-SECRET" not in str(caught.value)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "redis://127.0.0.1:1/0?foo=bar"),
        ("REDIS_URL", "redis://127.0.0.1:port"),
        ("LOG_FORMAT", "xml"),
        ("PORT", "http"),
        ("ALLOWED_HOSTS", "panel.test,http://panel.test"),
        ("WEBHOOK_SECRET", "FAKE-SECRET"),
    ],
)
def test_a_wrong_value_that_a_stop_does_not_need_is_printed_and_does_not_block_it(
    site: Path, novita: Server, name: str, value: str
) -> None:
    process = preview_stop(site, novita, **{name: value})

    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("Nothing is running.\n")
    assert f"{name}: " in process.stderr
    assert "This command runs without it.\n" in process.stderr
    assert "Traceback" not in process.stderr and "FAKE-SECRET" not in process.stderr


@pytest.mark.parametrize(("name", "value"), [("NOVITA_BASE_URL", "http://panel.test"), ("CA_BUNDLE", "/nowhere.pem")])
def test_a_wrong_value_that_a_stop_needs_ends_it(site: Path, name: str, value: str) -> None:
    process = run(site, "manage.py", "stop_all", "--dry-run", **{name: value})

    assert set(read_refusals(process)) == {name}


@pytest.mark.parametrize("user", ["пётр", "%D0%BF%D1%91%D1%82%D1%80"])
def test_a_login_at_the_proxy_goes_as_utf8(user: str) -> None:
    url = Env({"EGRESS_PROXY_URL": f"http://{user}:p%40%FF@127.0.0.1:3128"}).proxy_url("EGRESS_PROXY_URL")

    headers = WatchedAdapter().proxy_headers(url)

    assert base64.b64decode(headers["Proxy-Authorization"].removeprefix("Basic ")) == "пётр:p@".encode() + b"\xff"


@pytest.mark.parametrize("login", ["ann:FAKE SECRET", "ann:FAKE%SECRET", "ann:FAKE%2", "ann:FAKE\udcff"])
def test_a_login_at_the_proxy_that_can_not_be_sent_is_refused(login: str) -> None:
    env = Env({"EGRESS_PROXY_URL": f"http://{login}@127.0.0.1:3128"})
    env.proxy_url("EGRESS_PROXY_URL")

    with pytest.raises(InvalidSettings, match=r"^EGRESS_PROXY_URL: ") as refusal:
        env.check()

    assert "FAKE" not in str(refusal.value)


def test_a_folder_as_the_database_is_refused_and_keeps_its_mode(site: Path, novita: Server, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o755)
    variables = {"DATABASE_URL": f"sqlite:///{folder}", "REDIS_URL": "unix:///dev/null"}

    assert set(read_refusals(run(site, "manage.py", "check", **variables))) == {"DATABASE_URL"}
    assert preview_stop(site, novita, **variables).returncode == 0
    assert folder.stat().st_mode & 0o777 == 0o755


def test_only_what_is_of_the_expected_kind_is_made_private(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    folder.chmod(0o755)
    file.touch()
    file.chmod(0o644)
    link.symlink_to(file)
    settings.VAR_DIR, settings.FALLBACK_DIR = file, folder
    for database in (folder, link):
        monkeypatch.setitem(settings.DATABASES["default"], "NAME", str(database))
        private_files.repair()

    assert folder.stat().st_mode & 0o777 == 0o755
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_fallback_folder_that_can_not_be_made_is_said_in_a_line(
    tmp_path: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.VAR_DIR = settings.FALLBACK_DIR = tmp_path / "file"
    settings.FALLBACK_DIR.touch(mode=0o600)
    private_files.log_problems()

    assert [record.getMessage() for record in caplog.records if "FALLBACK_DIR" in record.getMessage()] == [
        f"FALLBACK_DIR: the folder {tmp_path / 'file'} can't be made (File exists). Without the database nothing is "
        "kept there. Name another."
    ]


def test_a_connect_timeout_that_is_no_number_is_refused() -> None:
    env = Env({"DATABASE_URL": "postgres://user@127.0.0.1/name?connect_timeout=x"})
    env.database("DATABASE_URL", "unused")

    with pytest.raises(InvalidSettings, match=r"^DATABASE_URL: its connect_timeout "):
        env.check()
