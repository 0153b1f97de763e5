"""What the environment may hold, and how what is wrong in it is refused."""

import ast
import base64
import fcntl
import multiprocessing
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from novita_site.env import (
    MAKE_WEBHOOK_KEY,
    Env,
    InvalidSettings,
    identify_account,
    is_loopback,
    read_or_make_secret_key,
)
from tests import python

ROOT = Path(__file__).resolve().parent.parent
Process = subprocess.CompletedProcess[str]
GUNICORN = ("-m", "gunicorn", "-c", "python:novita_site.gunicorn", "--check-config", "novita_site.wsgi")

# Each wrong value, and what is said of it besides the variable's name.
WRONG_VALUES = [
    ("HOST", "127.0.0.1:80", "'127.0.0.1:80' is not a host name or address. Use 127.0.0.1."),
    ("PORT", "0", "'0' is not a whole number from 1 to 65535. Use 3000."),
    ("WEB_WORKERS", "two", "'two' is not a whole number from 1 to 64. Use 2."),
    ("WEB_THREADS", "16.5", "'16.5' is not a whole number from 1 to 256. Use 16."),
    ("DEBUG", "maybe", "'maybe' is not a boolean. Use 1 or 0."),
    ("ALLOWED_HOSTS", "localhost,http://panel.test", "'http://panel.test' is not a host name"),
    ("PATH_PREFIX", "panel", "'panel' is not a path. Use the path alone: /panel"),
    ("NOVITA_API_KEY", "FAKE-SECRET key", "the key contains spaces or non-ASCII characters. Copy it again."),
    (
        "NOVITA_BASE_URL",
        "http://api.novita.ai",
        "'http://api.novita.ai' is neither an https:// URL nor an http:// URL of this machine;",
    ),
    ("NOVITA_PAGE_SIZE", "٣", "'٣' is not a whole number from 1 to 1000. Use 100."),
    ("NOVITA_CONCURRENCY", "65", "'65' is not a whole number from 1 to 64. Use 8."),
    ("NOVITA_CONNECT_TIMEOUT", "5s", "'5s' is not a number of seconds from 0.1 to 60. Use 5."),
    ("NOVITA_READ_TIMEOUT", "nan", "'nan' is not a number of seconds from 0.1 to 300. Use 20."),
    ("NOVITA_SYNC_DEADLINE", "1e9", "'1e9' is not a number of seconds from 1 to 3600. Use 240."),
    ("NOVITA_SYNC_ON_STARTUP", "2", "'2' is not a boolean. Use 1 or 0."),
    ("NOVITA_SYNC_INTERVAL", "-1", "'-1' is not a number of seconds from 0 to 86400. Use 60."),
    ("NOVITA_STALE_AFTER", "0", "'0' is not a number of seconds from 1 to 604800. Use 180."),
    ("WEBHOOK_SECRET", "whsec_RkFLRS1TRUNSRVQ=", "each secret is whsec_ and the base64 of 24 to 64 bytes;"),
    ("WEBHOOK_ALLOWED_HOSTS", "10.0.0.5,*", "'*' is not a host name or address. Use hooks.example.com or 10.0.0.5."),
    ("WEBHOOK_ALLOWED_PORTS", "443,0", "'0' is not a port from 1 to 65535. Use 443,8443."),
    (
        "REDIS_URL",
        "localhost:6379",
        "'localhost:6379' is not the address of a Redis server. Use redis://127.0.0.1:6379/0",
    ),
    ("CA_BUNDLE", "/nowhere.pem", "'/nowhere.pem' can't be read (No such file or directory). Name a PEM file"),
    ("EGRESS_PROXY_URL", "http://u:FAKE-SECRET@p.test:1/x?y", "'http://…' is not the address and port of an HTTP"),
    ("LOG_FORMAT", "xml", "'xml' is not a log format. Use text or json."),
    ("DATABASE_URL", "mysql://user:FAKE-SECRET@host/name", "only SQLite and PostgreSQL are supported. Use postgres://"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of its own, since `.env` and `var/` lie beside the code."""
    return copy_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def own_site(tmp_path: Path) -> Path:
    return copy_site(tmp_path)


def copy_site(root: Path) -> Path:
    shutil.copytree(ROOT / "novita_site", root / "novita_site", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", root)
    for folder in ("instances", "templates"):
        (root / folder).symlink_to(ROOT / folder)
    return root


def run(site: Path, *command: str, **variables: str) -> Process:
    """Run Python there with these variables only."""
    environment = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1", **variables}
    return python.run(
        [sys.executable, *command], cwd=site, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def read_setting(site: Path, name: str, **variables: str) -> Any:
    """Return what a process there takes the setting for."""
    process = run(site, "-c", f"from novita_site.settings import {name}; print(repr({name}))", **variables)
    assert process.returncode == 0, process.stderr
    return ast.literal_eval(process.stdout)


def read_refusals(process: Process) -> dict[str, str]:
    """Return what is said of each variable, when every line that was printed is a refusal."""
    assert process.returncode != 0
    lines = process.stderr.strip().splitlines()
    return dict(line.split(": ", 1) for line in lines)


@pytest.fixture(scope="module")
def refusals(site: Path) -> dict[str, str]:
    return read_refusals(run(site, "manage.py", "check", **{name: value for name, value, _ in WRONG_VALUES}))


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, _, words in WRONG_VALUES])
def test_a_wrong_value_is_refused_with_the_cure(refusals: dict[str, str], name: str, words: str) -> None:
    assert refusals[name].startswith(words)


def test_all_problems_are_told_at_once_a_line_each(refusals: dict[str, str]) -> None:
    # The port in HOST makes it no loopback address, so that a key is wanted too.
    assert set(refusals) == {name for name, _, _ in WRONG_VALUES} | {"SECRET_KEY"}


def test_no_secret_is_printed_with_the_problems(refusals: dict[str, str]) -> None:
    assert "FAKE-SECRET" not in str(refusals)


def test_an_address_for_people_without_the_path_of_the_panel_is_refused(site: Path) -> None:
    process = run(site, "manage.py", "check", PATH_PREFIX="/panel/", PUBLIC_URL="https://tools.test")

    assert read_refusals(process) == {
        "PUBLIC_URL": "its path is not /panel, which PATH_PREFIX names. End it with /panel"
    }


def test_gunicorn_refuses_in_the_same_words(site: Path) -> None:
    process = run(site, *GUNICORN, PORT="http", WEB_WORKERS="0")

    assert set(read_refusals(process)) == {"PORT", "WEB_WORKERS"}


@pytest.mark.thorough
@pytest.mark.parametrize("command", [("manage.py", "check"), GUNICORN], ids=["manage.py", "gunicorn"])
def test_an_empty_environment_is_good(site: Path, command: tuple[str, ...]) -> None:
    away = {"REDIS_URL": "unix:///nowhere/redis.sock", "NOVITA_SYNC_ON_STARTUP": "0", "NOVITA_SYNC_INTERVAL": "0"}

    process = run(site, *command, **away)

    assert process.returncode == 0
    assert process.stderr == ""


@pytest.mark.thorough
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_counts_as_unset(site: Path, empty: str) -> None:
    names = ["HOST", "PORT", "DEBUG", "ALLOWED_HOSTS", "REQUIRE_LOGIN", "SECRET_KEY", "REDIS_URL", "DATABASE_URL"]

    process = run(site, "manage.py", "check", **dict.fromkeys([name for name, *_ in WRONG_VALUES] + names, empty))

    assert process.returncode == 0, process.stderr


def test_the_environment_goes_before_the_env_file(own_site: Path) -> None:
    (own_site / ".env").write_text("PORT=4000\n")

    assert read_setting(own_site, "PORT", PORT="5000") == 5000


def test_the_env_file_is_read_for_what_the_environment_lacks(own_site: Path) -> None:
    (own_site / ".env").write_text("PORT=4000\n")

    assert read_setting(own_site, "PORT") == 4000


@pytest.mark.parametrize(("is_running", "port"), [(True, 4000), (False, 3000)])
def test_what_up_has_started_is_found_as_long_as_it_runs(own_site: Path, is_running: bool, port: int) -> None:
    (own_site / "var").mkdir()
    (own_site / "var" / "running.env").write_text("PORT=4000\n")

    with (own_site / "var" / "running.env").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX if is_running else fcntl.LOCK_UN)
        assert read_setting(own_site, "PORT") == port


def test_the_env_file_goes_before_what_up_has_started(own_site: Path) -> None:
    (own_site / "var").mkdir()
    (own_site / "var" / "running.env").write_text("PORT=4000\n")
    (own_site / ".env").write_text("PORT=5000\n")

    with (own_site / "var" / "running.env").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_setting(own_site, "PORT") == 5000


@pytest.mark.thorough
@pytest.mark.parametrize("where", ["environment", ".env"])
def test_everything_that_the_panel_writes_is_in_the_folder_of_var_dir(
    own_site: Path, tmp_path_factory: pytest.TempPathFactory, where: str
) -> None:
    folder = tmp_path_factory.mktemp("state")
    variables = {"VAR_DIR": str(folder)} if where == "environment" else {}
    if where == ".env":
        (own_site / ".env").write_text(f"VAR_DIR={folder}\n")

    assert run(own_site, "manage.py", "migrate", "-v0", **variables).returncode == 0
    assert {"db.sqlite3", "fallback", "secret-key"} <= {path.name for path in folder.iterdir()}
    assert not (own_site / "var").exists()


def test_what_up_has_started_is_found_in_the_folder_of_var_dir(own_site: Path, tmp_path: Path) -> None:
    (tmp_path / "running.env").write_text("PORT=4000\n")

    with (tmp_path / "running.env").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_setting(own_site, "PORT", VAR_DIR=str(tmp_path)) == 4000


def test_what_is_wrong_in_the_env_file_is_refused(own_site: Path) -> None:
    (own_site / ".env").write_text("PORT=http\n")

    assert set(read_refusals(run(own_site, "manage.py", "check"))) == {"PORT"}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("api_key", "NOVITA_API_KEY", "FAKE-SECRET with spaces"),
        ("api_key", "NOVITA_API_KEY", "FAKE-SECRET-ключ"),
        ("redis_url", "REDIS_URL", "redis://:FAKE-SECRET@host/name"),
        ("redis_url", "REDIS_URL", "redis://:p@FAKE-SECRET@host/name"),
        ("redis_url", "REDIS_URL", "redis://user:12/FAKE-SECRET@host/0"),
        ("redis_url", "REDIS_URL", "redis://host/name?password=FAKE-SECRET"),
        ("redis_url", "REDIS_URL", "redis://host/name?password=p@FAKE-SECRET"),
        ("redis_url", "REDIS_URL", "redis://:FAKE-SECRET@host:port"),
        ("redis_url", "REDIS_URL", "user:FAKE-SECRET@host:6379"),
        ("redis_url", "REDIS_URL", "redis+sentinel://:FAKE-SECRET@one,two"),
        ("redis_url", "REDIS_URL", "redis+sentinel://:12/FAKE-SECRET@one/panel/0"),
        ("redis_url", "REDIS_URL", "redis+sentinel://one/panel/0?sentinel_password=FAKE-SECRET&port=FAKE-SECRET"),
        ("database", "DATABASE_URL", "postgres://user:FAKE-SECRET@host:port/name"),
        ("database", "DATABASE_URL", "mysql://user:FAKE-SECRET@host/name"),
        ("database", "DATABASE_URL", "FAKE-SECRET"),
        ("novita_url", "NOVITA_BASE_URL", "https://user:FAKE-SECRET@api.novita.ai"),
        ("novita_url", "NOVITA_BASE_URL", "https://user:FAKE/SECRET?FAKE-SECRET@api.novita.ai"),
        ("novita_url", "NOVITA_BASE_URL", "https://api.novita.ai?key=FAKE-SECRET"),
        ("novita_url", "NOVITA_BASE_URL", "https://FAKE-SECRET@[api.novita.ai"),
    ],
)
def test_a_refusal_never_prints_a_secret(kind: str, name: str, value: str) -> None:
    env = Env({name: value})
    getattr(env, kind)(name, *([] if kind == "api_key" else ["unused"]))

    with pytest.raises(InvalidSettings) as refusal:
        env.check()

    assert str(refusal.value).startswith(f"{name}: ")
    assert "FAKE-SECRET" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.0.7:8000",
        "http://localhost.evil.test",
        "http://127.0.0.1@evil.test",
        "ftp://api.novita.ai",
        "https://",
        "https://api novita.ai",
        "https://api.novita.ai:99999",
        "https://api.novita.ai/#here",
        "api.novita.ai",
    ],
)
def test_the_key_goes_to_no_such_base_url(url: str) -> None:
    env = Env({"NOVITA_BASE_URL": url})
    env.novita_url("NOVITA_BASE_URL", "https://api.novita.ai")

    with pytest.raises(InvalidSettings, match=r"^NOVITA_BASE_URL: .* Use https://api\.novita\.ai\.$"):
        env.check()


@pytest.mark.parametrize(
    "url", ["https://api.novita.ai", "http://127.0.0.1:8000", "http://[::1]:80", "http://localhost"]
)
def test_a_base_url_over_https_or_on_this_machine_is_taken(site: Path, url: str) -> None:
    assert read_setting(site, "NOVITA_BASE_URL", NOVITA_BASE_URL=f"{url}/") == url


@pytest.mark.parametrize(
    "url",
    [
        "rediss://user:p%40ss@host:6380/2",
        "redis://host?db=1",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://one/panel",
        "redis+sentinel://:p%2Cs@one:26379,[::1]:26380/panel.main/2?sentinel_password=p%40ss&socket_timeout=2",
        "rediss+sentinel://user:p@one,two/panel/?sentinel_username=u&ssl_check_hostname=false",
    ],
)
def test_an_address_of_a_redis_is_taken_as_it_is(site: Path, url: str) -> None:
    assert read_setting(site, "REDIS_URL", REDIS_URL=url) == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+sentinel://one,two", "it doesn't have the form of a URL with sentinels. Use redis+sentinel://host:"),
        ("redis+sentinel://one,/panel", "it doesn't have the form"),
        ("redis+sentinel://one:x/panel", "it doesn't have the form"),
        ("redis+sentinel:///panel/0", "it doesn't have the form"),
        ("redis+sentinel://one/panel/main", "it doesn't have the form"),
        ("unix+sentinel://one/panel", "it doesn't have the form"),
        ("redis+sentinel://one:99999/panel", "it is not a URL."),
        ("redis+sentinel://one/panel?ssl_ciphers=x", "its parameter 'ssl_ciphers' is invalid for redis://."),
        ("redis+sentinel://one/panel?socket_timeout=x", "its parameter 'socket_timeout' is invalid"),
        ("redis://one/0?sentinel_password=x", "its parameter 'sentinel_password' is invalid"),
    ],
)
def test_a_wrong_address_of_sentinels_is_refused_with_the_cure(url: str, problem: str) -> None:
    env = Env({"REDIS_URL": url})
    env.redis_url("REDIS_URL", "redis://127.0.0.1:6379/0")

    with pytest.raises(InvalidSettings) as refusal:
        env.check()

    assert str(refusal.value).startswith(f"REDIS_URL: {problem}")


@pytest.mark.parametrize("word", ["1", "true", "YES", "On"])
def test_a_flag_is_on_by_each_of_its_words(word: str) -> None:
    assert Env({"DEBUG": word}).flag("DEBUG", default=False)


@pytest.mark.parametrize("word", ["0", "false", "NO", "Off"])
def test_a_flag_is_off_by_each_of_its_words(word: str) -> None:
    assert not Env({"DEBUG": word}).flag("DEBUG", default=True)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "a.localhost", ".localhost", "127.8.8.8", "::1", "[::1]"])
def test_a_loopback_host_means_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "*", "", "10.0.0.1", "128.0.0.1", "localhost.test", "127.0.0.1.test", "notlocalhost", "[::2]"],
)
def test_another_host_is_not_taken_for_this_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "hosts", ["http://panel.test", "panel.test:3000", "localhost panel.test", "::1", "[::1]:80", "[localhost]", ","]
)
def test_a_host_that_no_request_can_have_is_refused(hosts: str) -> None:
    env = Env({"ALLOWED_HOSTS": hosts})
    env.hosts("ALLOWED_HOSTS", "localhost")

    with pytest.raises(InvalidSettings, match=r"^ALLOWED_HOSTS: .* Use localhost\.$"):
        env.check()


BEYOND_LOOPBACK = [
    {"HOST": "0.0.0.0"},
    {"HOST": "::"},
    {"ALLOWED_HOSTS": "localhost,panel.test"},
    {"ALLOWED_HOSTS": "*"},
]


@pytest.mark.parametrize("reach", BEYOND_LOOPBACK)
def test_beyond_loopback_a_login_is_required(site: Path, reach: dict[str, str]) -> None:
    assert read_setting(site, "REQUIRE_LOGIN", SECRET_KEY="FAKE-SECRET", **reach) is True


@pytest.mark.parametrize("reach", BEYOND_LOOPBACK)
def test_beyond_loopback_nobody_switches_the_login_off(site: Path, reach: dict[str, str]) -> None:
    process = run(site, "manage.py", "check", SECRET_KEY="FAKE-SECRET", REQUIRE_LOGIN="0", **reach)

    assert set(read_refusals(process)) == {"REQUIRE_LOGIN"}


def test_beyond_loopback_the_secret_key_must_be_set(own_site: Path) -> None:
    process = run(own_site, "manage.py", "check", HOST="0.0.0.0")

    assert set(read_refusals(process)) == {"SECRET_KEY"}
    assert not (own_site / "var" / "secret-key").exists()


@pytest.mark.parametrize(("word", "required"), [("1", True), ("0", False), ("", False)])
def test_on_loopback_a_login_is_a_choice(site: Path, word: str, required: bool) -> None:
    assert read_setting(site, "REQUIRE_LOGIN", REQUIRE_LOGIN=word) is required


def test_on_loopback_a_secret_key_is_made_once_and_kept(own_site: Path) -> None:
    first = read_setting(own_site, "SECRET_KEY")

    assert len(first) >= 50
    assert read_setting(own_site, "SECRET_KEY") == first


def test_a_kept_secret_key_is_readable_by_its_owner_only(own_site: Path) -> None:
    read_setting(own_site, "SECRET_KEY")

    assert [path.name for path in (own_site / "var").iterdir()] == ["secret-key"]
    assert stat.S_IMODE((own_site / "var" / "secret-key").stat().st_mode) == 0o600


def test_a_secret_key_in_the_environment_goes_before_the_kept_one(own_site: Path) -> None:
    assert read_setting(own_site, "SECRET_KEY", SECRET_KEY="FAKE-SECRET") == "FAKE-SECRET"


def make_keys(folder: Path, barrier: Any, keys: Any) -> None:
    """Be one of several processes that want the key at the same moment, many times."""
    for number in range(40):
        barrier.wait(timeout=30)
        keys.put((number, read_or_make_secret_key(folder / str(number) / "secret-key")))


@pytest.mark.thorough
def test_processes_that_start_at_once_read_the_same_key(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, keys = spawn.Barrier(4), spawn.Queue()
    processes = [spawn.Process(target=make_keys, args=(tmp_path, barrier, keys), daemon=True) for _ in range(4)]

    for process in processes:
        process.start()
    read = [keys.get(timeout=60) for _ in range(4 * 40)]
    for process in processes:
        process.join()

    assert len(set(read)) == 40


@pytest.mark.parametrize(
    ("name", "variables"),
    [("SECRET_KEY", {"DATABASE_URL": "sqlite://:memory:"}), ("DATABASE_URL", {"SECRET_KEY": "FAKE-SECRET"})],
)
def test_a_folder_that_cannot_be_made_is_refused_by_its_variable(
    own_site: Path, name: str, variables: dict[str, str]
) -> None:
    (own_site / "var").write_text("a file in the folder's place")

    assert set(read_refusals(run(own_site, "manage.py", "check", **variables))) == {name}


def make_webhook_secret(length: int) -> str:
    return "whsec_" + base64.b64encode(b"FAKE-SECRET".ljust(length, b"!")).decode()


@pytest.mark.parametrize(
    "value",
    [
        make_webhook_secret(23),
        make_webhook_secret(65),
        make_webhook_secret(32).removeprefix("whsec_"),
        make_webhook_secret(32).replace("_", "-"),
        make_webhook_secret(32).rstrip("="),
        make_webhook_secret(32) + "ü",
        make_webhook_secret(32) + " " + make_webhook_secret(24),
        make_webhook_secret(32) + ",whsec_",
    ],
)
def test_a_webhook_secret_in_another_form_is_refused_without_being_printed(value: str) -> None:
    env = Env({"WEBHOOK_SECRET": value})

    assert env.webhook_secrets("WEBHOOK_SECRET") == []
    with pytest.raises(InvalidSettings) as refused:
        env.check()

    assert str(refused.value).startswith("WEBHOOK_SECRET: each secret is whsec_ and ")
    assert value not in str(refused.value) and "RkFLRS1" not in str(refused.value)


def test_the_way_to_make_a_webhook_secret_makes_one_that_is_taken() -> None:
    secret = subprocess.run(
        shlex.split(MAKE_WEBHOOK_KEY), capture_output=True, text=True, timeout=60, check=True
    ).stdout
    env = Env({"WEBHOOK_SECRET": secret})

    assert env.webhook_secrets("WEBHOOK_SECRET") == [secret.strip()]
    env.check()


def test_webhook_settings_are_read_as_lists(site: Path) -> None:
    secrets = [make_webhook_secret(24), make_webhook_secret(64)]

    assert read_setting(site, "WEBHOOK_SECRET", WEBHOOK_SECRET=" , ".join(secrets)) == secrets
    hosts = read_setting(site, "WEBHOOK_ALLOWED_HOSTS", WEBHOOK_ALLOWED_HOSTS="Hooks.Intern, 10.0.0.5,[FD12::1],::1")
    assert hosts == ["hooks.intern", "10.0.0.5", "fd12::1", "::1"]
    assert read_setting(site, "WEBHOOK_ALLOWED_PORTS", WEBHOOK_ALLOWED_PORTS="443, 9000") == [443, 9000]


def test_webhooks_are_off_and_go_out_by_the_usual_ports_unless_set() -> None:
    env = Env({})

    assert env.webhook_secrets("WEBHOOK_SECRET") == []
    assert env.receivers("WEBHOOK_ALLOWED_HOSTS") == []
    assert env.ports("WEBHOOK_ALLOWED_PORTS", "443,8443") == [443, 8443]


@pytest.mark.parametrize("value", ["65536", "http", "-1", "443;8443", "٤٤٣", ","])
def test_a_webhook_port_that_is_none_is_refused(value: str) -> None:
    env = Env({"WEBHOOK_ALLOWED_PORTS": value})

    env.ports("WEBHOOK_ALLOWED_PORTS", "443,8443")

    with pytest.raises(InvalidSettings, match="WEBHOOK_ALLOWED_PORTS: "):
        env.check()


@pytest.mark.parametrize(
    "value", ["http://hooks.intern", "hooks.intern:8080", "10.0.0.0/8", "*.intern", "hooks intern"]
)
def test_a_webhook_host_that_is_more_or_less_than_a_host_is_refused(value: str) -> None:
    env = Env({"WEBHOOK_ALLOWED_HOSTS": value})

    env.receivers("WEBHOOK_ALLOWED_HOSTS")

    with pytest.raises(InvalidSettings, match="WEBHOOK_ALLOWED_HOSTS: "):
        env.check()


# --- The account's identity


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://api.novita.ai/", "FAKE-SECRET"),
        ("https://API.Novita.AI", "FAKE-SECRET"),
        ("HTTPS://api.novita.ai:443", "FAKE-SECRET"),
        ("https://api.novita.ai:443//", "FAKE-SECRET"),
        (" https://api.novita.ai ", " FAKE-SECRET\n"),
        ("https://api.novita.ai.", "FAKE-SECRET"),
    ],
)
def test_spellings_of_one_account_are_one(url: str, key: str) -> None:
    assert identify_account(url, key) == identify_account("https://api.novita.ai", "FAKE-SECRET")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://api.novita.ai", "FAKE-SECRET-2"),
        ("https://api.novita.ai", "fake-secret"),
        ("https://api.novita.ai", ""),
        ("https://api.novita.ai:8443", "FAKE-SECRET"),
        ("http://api.novita.ai:443", "FAKE-SECRET"),
        ("https://api.novita.ai/v2", "FAKE-SECRET"),
        ("https://api2.novita.ai", "FAKE-SECRET"),
    ],
)
def test_another_key_or_address_is_another_account(url: str, key: str) -> None:
    assert identify_account(url, key) != identify_account("https://api.novita.ai", "FAKE-SECRET")


def test_an_account_is_named_in_a_few_characters_that_fit_a_key() -> None:
    name = identify_account("https://api.novita.ai", "FAKE-SECRET")

    assert len(name) == 10 and name.isalnum() and "SECRET" not in name
