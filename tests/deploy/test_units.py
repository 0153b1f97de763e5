"""A server by the commands of docs/operations.md: systemd's units, and nginx with the shipped site, booted for real."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.conftest import CHROMIUM_OPTIONS, find_chromium
from tests.certificates import Authority
from tests.deploy.trees import ADMIN, Machine, copy, copy_project, fill_in, make_server, read_commands
from tests.system.browser import PASSWORD
from tests.system.processes import ended, wait_until
from tests.test_deploy import read_by_shell

pytestmark = pytest.mark.timeout(1800)

SIMULATOR_PORT = 4010
SIMULATOR = f"""[Service]
User=novita-panel
WorkingDirectory=/opt/novita-panel
Environment=VAR_DIR=/tmp
ExecStart=/opt/novita-panel/.venv/bin/python manage.py novita_simulator --port {SIMULATOR_PORT} --time-factor 10
"""
NOVITA = f"http://127.0.0.1:{SIMULATOR_PORT}"
UNITS = ["novita-panel", "novita-panel-worker"]
PANEL = "http://127.0.0.1:3000"
NAME = "panel.example.com"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A server that an administrator has installed word for word, and filled in the settings of."""
    folder = tmp_path_factory.mktemp("server") / "root"
    copy(make_server(), folder)
    copy_project(folder / "opt/novita-panel")
    before, after = read_commands("systemd")
    with ended(Machine(folder)) as machine:
        machine.install(before)
        fill_in(folder / "etc/novita-panel.env", NOVITA)
        (folder / "etc/systemd/system/novita-simulator.service").write_text(SIMULATOR)
        put_certificate(folder / f"etc/letsencrypt/live/{NAME}", tmp_path_factory.mktemp("authority"))
        machine.boot()
        machine.run("systemctl start novita-simulator")
        machine.run(after.replace("createsuperuser", "createsuperuser --noinput"), **ADMIN)
        machine.run("\n".join(read_commands("A proxy in front")).replace("deploy/", "/opt/novita-panel/deploy/"))
        yield machine
    shutil.rmtree(folder)


def put_certificate(folder: Path, authority_folder: Path) -> None:
    authority = Authority(authority_folder)
    folder.mkdir(parents=True)
    # The file has the key, the certificate and its chain.
    signed = authority.sign(NAME)
    for name in ("fullchain.pem", "privkey.pem"):
        shutil.copy(signed, folder / name)
    shutil.copy(authority.path, folder / "authority.pem")


def get(server: Machine, path: str) -> str:
    """Return what curl prints for a page of the web server itself, with its status in a line of its own."""
    return server.run(f"curl --silent --write-out '\\n%{{http_code}}' {PANEL}{path}", accept_failure=True)


def list_states(server: Machine) -> dict[str, str]:
    """Return the true status of each instance in the simulated account."""
    rows = json.loads(server.run(f"curl --silent --show-error --fail {NOVITA}/__instances"))["instances"]
    return {row["id"]: row["status"] for row in rows}


def start_instances(server: Machine, count: int) -> None:
    change = json.dumps({"set": {id: {"status": "running"} for id in list(list_states(server))[:count]}})
    server.run(f"curl --silent --show-error --fail --data '{change}' {NOVITA}/__instances")


def wait_until_ready(server: Machine) -> None:
    wait_until(lambda: get(server, "/readyz").endswith("200"), "the panel is ready", 60, 0.5)


def test_documented_installation_serves(server: Machine) -> None:
    wait_until_ready(server)

    assert server.run("systemctl is-active novita-panel novita-panel-worker").split() == ["active", "active"]
    assert server.run("systemctl list-units --failed --quiet 'novita-panel*'") == ""


def test_worker_is_healthy(server: Machine) -> None:
    check = "novita-panel check_worker >/dev/null && echo healthy"

    wait_until(lambda: server.run(check, accept_failure=True), "check_worker says so", 180, 1)


def test_panel_writes_to_its_own_folder_only_and_nobody_else_reads_it(server: Machine) -> None:
    elsewhere = "-not -path '/proc/*' -not -path '/var/lib/novita-panel*' -not -path '*/systemd-private-*'"

    assert server.run(f"find / -xdev -user novita-panel {elsewhere}") == ""
    assert server.run("find /var/lib/novita-panel -perm /077") == ""


@pytest.mark.parametrize("unit", UNITS)
def test_unit_has_a_tmp_of_its_own(server: Machine, unit: str) -> None:
    mounts = server.run(f"cat /proc/$(systemctl show --property MainPID --value {unit})/mountinfo")

    assert re.search(rf"/systemd-private-\w+-{unit}\.service-\w+/tmp /tmp ", mounts)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_and_a_shell_read_the_same_settings(server: Machine, unit: str) -> None:
    by_shell = read_by_shell(server.folder / "etc/novita-panel.env")
    raw = server.run(f"tr '\\0' '\\n' </proc/$(systemctl show --property MainPID --value {unit})/environ")
    by_systemd = dict(line.split("=", 1) for line in raw.splitlines())

    assert {name: by_systemd.get(name) for name in by_shell} == by_shell


def test_processes_have_no_capability(server: Machine) -> None:
    for unit in UNITS:
        status = server.run(f"cat /proc/$(systemctl show --property MainPID --value {unit})/status")

        assert set(re.findall(r"^Cap\w+:\s+(\w+)$", status, re.MULTILINE)) == {"0000000000000000"}


def test_shipped_site_redirects_to_tls_with_its_certificate(server: Machine) -> None:
    options = f"--silent --show-error --fail --location --resolve {NAME}:80:127.0.0.1 --resolve {NAME}:443:127.0.0.1"
    authority = f"/etc/letsencrypt/live/{NAME}/authority.pem"

    assert "alive" in server.run(f"curl {options} --cacert {authority} http://{NAME}/livez")


def stop_everything_by_browser(server: Machine, folder: Path, url: str) -> None:
    """Log in with this machine's Chromium in the network of the other, and stop everything."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("missing: Chromium. Install the distribution's package `chromium-headless-shell`")
    inside = folder / "chromium"
    inside.write_text(f'#!/bin/sh\nexec nsenter --net=/proc/{server.leader}/ns/net {chromium} "$@"\n')
    inside.chmod(0o755)
    options = [*CHROMIUM_OPTIONS, f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]

    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=str(inside), args=options).new_page(ignore_https_errors=True)
        page.goto(url)
        page.get_by_label("Username").fill("ann")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Stop all").click()
        dialog = page.get_by_role("dialog")
        field = dialog.get_by_label(re.compile(r"Enter \d+ to stop"))
        expect(field).to_be_visible()
        field.fill(re.findall(r"(\d+) instances? will be stopped", dialog.inner_text())[0])
        page.keyboard.press("Enter")
        summary = re.compile(r"^All \d+ are stopped\. Verified at")
        expect(page.locator("#operation-summary")).to_have_text(summary, timeout=120_000)


def test_browser_logs_in_and_stops_everything_through_nginx(server: Machine, tmp_path: Path) -> None:
    wait_until_ready(server)

    stop_everything_by_browser(server, tmp_path, f"https://{NAME}/")

    assert "running" not in list_states(server).values()


def test_browser_stops_everything_below_a_path(server: Machine, tmp_path: Path) -> None:
    start_instances(server, 3)
    server.run(f"printf 'PATH_PREFIX=/panel\nPUBLIC_URL=https://{NAME}/panel\n' >>/etc/novita-panel.env")
    server.run("systemctl restart novita-panel novita-panel-worker")
    server.run("sed -i 's#location / {#location /panel/ {#' /etc/nginx/conf.d/*.conf; systemctl reload nginx")
    wait_until_ready(server)

    stop_everything_by_browser(server, tmp_path, f"https://{NAME}/panel/")

    assert "running" not in list_states(server).values()


@pytest.mark.parametrize("unit", UNITS)
def test_killed_process_comes_back(server: Machine, unit: str) -> None:
    show = f"systemctl show --property MainPID --value {unit}"
    killed = server.run(show)
    server.run(f"kill -9 {killed}")

    wait_until(lambda: server.run(show).strip() not in {killed.strip(), "0"}, "it has been started again", 60, 0.5)
    wait_until_ready(server)


@pytest.mark.parametrize("unit", UNITS)
def test_stopped_unit_ends_by_itself(server: Machine, unit: str) -> None:
    server.run(f"systemctl restart {unit}")
    # `timeout` after TimeoutStopSec, when systemd has to kill it.
    result = server.run(f"systemctl stop {unit}; systemctl show --property Result --value {unit}")
    server.run(f"systemctl start {unit}")

    assert result.strip() == "success"


def test_without_a_database_everything_is_stopped_all_the_same(server: Machine) -> None:
    start_instances(server, 1)
    server.run("echo DATABASE_URL=postgres://panel@127.0.0.1:1/panel >>/etc/novita-panel.env")
    server.run("systemctl restart novita-panel novita-panel-worker")

    wait_until(lambda: get(server, "/livez").endswith("200"), "the web server starts", 60, 0.5)
    server.run("novita-panel stop_all --yes")
    assert "running" not in list_states(server).values()
    server.run("sed -i '$d' /etc/novita-panel.env; systemctl restart novita-panel novita-panel-worker")
    wait_until_ready(server)
