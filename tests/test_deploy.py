"""deploy/: what can be checked without starting it. `make test-deploy` (tests/deploy) starts it."""

import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from novita_site import settings as own_settings
from novita_site.env import Env

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
ENV_FILE = (DEPLOY / "novita-panel.env").read_text()


def read_by_shell(path: Path) -> dict[str, str]:
    """Return the variables that `. path` sets."""
    command = ["env", "-i", "/bin/sh", "-euc", 'set -a; . "$1"; exec env -0', "sh", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pairs = dict(pair.split("=", 1) for pair in output.split("\0") if pair)
    return {name: value for name, value in pairs.items() if name not in {"PWD", "OLDPWD", "_"}}


def test_shell_reads_the_env_file_like_compose() -> None:
    assert read_by_shell(DEPLOY / "novita-panel.env") == dotenv_values(DEPLOY / "novita-panel.env")


def test_values_in_single_quotes_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "novita-panel.env"
    path.write_text(ENV_FILE + "NOTIFY_URLS='slack://a b#c balance.low|mailto://u:p$x`y`\\z@example.com'\n")

    assert read_by_shell(path) == dotenv_values(path)


def test_env_file_names_settings_only() -> None:
    documented = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs/settings.md").read_text()))

    assert dotenv_values(DEPLOY / "novita-panel.env").keys() - documented == {"POSTGRES_PASSWORD"}


def test_env_file_marks_tls_as_the_panel_reads_it() -> None:
    header = Env(dotenv_values(stream=io.StringIO(ENV_FILE))).header("SECURE_PROXY_SSL_HEADER")

    assert header == ("HTTP_X_FORWARDED_PROTO", "https")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_units_are_valid(tmp_path: Path) -> None:
    # The programs must exist: this folder stands in for the server's.
    for unit in UNITS:
        text = unit.read_text().replace("/opt/novita-panel", str(tmp_path))
        (tmp_path / unit.name).write_text(text)
        program = Path(re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE)[0])
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(mode=0o755)

    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)

    assert verified.stderr + verified.stdout == ""
    assert verified.returncode == 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_each_unit_has_the_same_user_files_and_limits(unit: Path) -> None:
    """The three must see the same files: a folder that only two of them can write to stops the third."""
    first, rest = (re.split(r"\n(?=User=)", one.read_text())[1].partition("\n[")[0].strip() for one in (UNITS[0], unit))

    assert drop_own_lines(rest) == drop_own_lines(first)


def drop_own_lines(section: str) -> list[str]:
    """Return the lines of a section without comments, and without what the web server's unit has in addition."""
    own = ("#", "Environment=REQUIRE_LOGIN=")
    return [line for line in section.splitlines() if line and not line.startswith(own)]


def test_units_run_the_documented_commands() -> None:
    documented = (ROOT / "docs/operations.md").read_text().partition("## Processes")[2]
    commands = [re.findall(r"^ExecStart=/opt/novita-panel/(.+)", unit.read_text(), re.MULTILINE)[0] for unit in UNITS]

    assert [command for command in commands if drop_quiet(command) not in drop_quiet(documented)] == []


def drop_quiet(text: str) -> str:
    """Return commands without the options that only keep them quiet."""
    return re.sub(r" (-q|--noinput)\b", "", text)


def test_compose_runs_the_commands_of_the_units() -> None:
    commands = {name: " ".join(service.get("command", [])) for name, service in COMPOSE["services"].items()}
    image = re.findall(r'^CMD \["(.+)"\]', (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[0].replace('", "', " ")
    in_units = "\n".join(unit.read_text() for unit in UNITS)

    for command in (commands["migrate"], commands["worker"], image):
        assert f"/opt/novita-panel/.venv/bin/{command}\n" in in_units


def test_compose_starts_from_the_env_file_alone() -> None:
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))

    assert wanted <= dotenv_values(DEPLOY / "novita-panel.env").keys()
    assert ((DEPLOY / COMPOSE["x-panel"]["build"]["context"]) / COMPOSE["x-panel"]["build"]["dockerfile"]).exists()


def test_compose_opens_no_port_to_other_machines() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]

    assert ports == ["127.0.0.1:3000:3000"]


@pytest.mark.parametrize(
    ("site", "timeout"),
    [("nginx.conf", r"proxy_read_timeout (\d+)s;"), ("Caddyfile", r"response_header_timeout (\d+)s")],
)
def test_proxies_wait_longer_than_the_longest_answer(site: str, timeout: str) -> None:
    seconds = re.findall(timeout, (DEPLOY / site).read_text())

    assert [int(number) > own_settings.NOVITA_SYNC_DEADLINE + 30 for number in seconds] == [True]


@pytest.mark.skipif(not shutil.which("caddy"), reason="there is no caddy")
@pytest.mark.parametrize("location", ["reverse_proxy 127", "reverse_proxy /panel/* 127"], ids=["root", "path"])
def test_caddy_accepts_its_site(location: str, tmp_path: Path) -> None:
    text = (DEPLOY / "Caddyfile").read_text()
    assert location in text
    (tmp_path / "Caddyfile").write_text(text.replace("reverse_proxy 127", location, 1))

    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")]
    folders = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    validated = subprocess.run(command, env={**os.environ, **folders}, capture_output=True, text=True, check=False)

    assert validated.returncode == 0, validated.stderr


@pytest.mark.parametrize("name", ["novita-panel", "healthcheck"])
def test_scripts_are_executable_and_valid(name: str) -> None:
    assert os.access(DEPLOY / name, os.X_OK)
    subprocess.run(["/bin/sh", "-n", str(DEPLOY / name)], check=True)
