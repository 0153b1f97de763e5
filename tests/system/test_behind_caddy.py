"""The shipped site of Caddy in front, at the root and under a path: people log in, and stop everything."""

import os
import re
import shutil
import socket
from pathlib import Path

import pytest
import requests

from tests.certificates import Authority
from tests.system.browser import log_in, make_admin
from tests.system.conftest import Start
from tests.system.processes import ROOT, Novita, Process, ended, find_free_port, wait_until

pytestmark = pytest.mark.skipif(not shutil.which("caddy"), reason="there is no caddy: install the package caddy")

OPTIONS = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"


class Caddy(Process):
    """Caddy with deploy/Caddyfile, but for this machine's addresses and a certificate of the tests."""

    def __init__(self, folder: Path, prefix: str, upstream: str, certificate: Path) -> None:
        self.port = find_free_port()
        origin = f"https://127.0.0.1:{self.port}"
        self.url = f"{origin}{prefix}"
        text = (ROOT / "deploy/Caddyfile").read_text()
        for pattern, replacement in {
            r"^panel\.example\.com \{": f"{origin} {{\n\ttls {certificate} {certificate}",
            # As the comment in the file says.
            r"reverse_proxy 127\.0\.0\.1:3000 \{": f"reverse_proxy {f'{prefix}/* ' if prefix else ''}{upstream} {{",
        }.items():
            text, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
            assert count, pattern
        config = folder / "Caddyfile"
        config.write_text(OPTIONS + text)
        folders = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
        super().__init__(command, {**os.environ, **folders}, folder / "caddy.log")
        wait_until(self._listens, f"Caddy listens\n{self.log}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.mark.parametrize("prefix", ["", "/panel"])
def test_people_log_in_and_stop_everything_through_caddy(
    environment: dict[str, str], start_service: Start, novita: Novita, tmp_path: Path, prefix: str
) -> None:
    novita.change(running=True)
    make_admin(environment)
    service = start_service(
        REQUIRE_LOGIN="1",
        ALLOWED_HOSTS="127.0.0.1",
        TRUSTED_PROXIES="127.0.0.1",
        SECURE_PROXY_SSL_HEADER="X-Forwarded-Proto: https",
        PATH_PREFIX=prefix,
    ).wait_until_ready()
    authority = Authority(tmp_path)
    upstream = service.url.removeprefix("http://")
    with (
        ended(Caddy(tmp_path, prefix, upstream, authority.sign("127.0.0.1"))) as caddy,
        requests.Session() as browser,
    ):
        browser.trust_env, browser.verify = False, str(authority.path)
        page = log_in(browser, caddy)
        token = browser.get(f"{caddy.url}/api/session", timeout=30).json()["csrfToken"]
        headers = {"X-CSRFToken": token, "X-Request-Id": "chosen-by-the-client"}
        headers["Origin"] = headers["Referer"] = caddy.url.removesuffix(prefix)

        stopped = browser.post(f"{caddy.url}/api/instances/stop-all", headers=headers, json={}, timeout=60)

    assert page.ok and page.url == f"{caddy.url}/admin/"
    assert stopped.status_code in {200, 202}, stopped.text
    assert stopped.json()["count"] == len(novita.list_stops()) == 25
    assert re.fullmatch(r"[0-9a-f-]{36}", stopped.headers["X-Request-Id"])
    assert [cookie.secure for cookie in browser.cookies] == [True, True]
