"""A real nginx in front of a service."""

import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.system.processes import ROOT, Process, find_free_port, wait_until

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")

CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    {site}
}}
"""


class Nginx(Process):
    """nginx with one site, which listens on `{port}`."""

    def __init__(self, folder: Path, site: str, scheme: str = "http") -> None:
        assert PROGRAM
        self.port = find_free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        config = folder / f"nginx-{self.port}.conf"
        config.write_text(CONFIG.format(folder=folder, site=site.replace("{port}", str(self.port))))
        command = [PROGRAM, "-e", "stderr", "-p", str(folder), "-c", str(config)]
        super().__init__(command, os.environ, folder / f"nginx-{self.port}.log")
        wait_until(self._listens, f"nginx listens\n{self.log}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def make_site(location_lines: str) -> str:
    """Return a site with these lines in its `location /`, and nothing else."""
    return f"server {{ listen 127.0.0.1:{{port}}; location / {{ {location_lines} }} }}"


def read_shipped_site(upstream: str, certificate: Path) -> str:
    """Return deploy/nginx.conf with this machine's addresses and files, and without what listens on port 80."""
    text = (ROOT / "deploy/nginx.conf").read_text()
    for pattern, replacement in {
        r"server \{\s+listen 80;.*?\n\}\n": "",
        r"listen \[::\]:443 ssl;\s+": "",
        r"listen 443 ssl;": "listen 127.0.0.1:{port} ssl;",
        r"ssl_certificate(_key)? .*;": rf"ssl_certificate\1 {certificate};",
        r"http://127\.0\.0\.1:3000": upstream,
    }.items():
        text, count = re.subn(pattern, replacement, text, flags=re.DOTALL if "server" in pattern else 0)
        assert count, pattern
    return text
