"""A real nginx in front of a service."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.system.processes import Process, find_free_port, wait_until

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
    server {{
        listen 127.0.0.1:{port}{tls};
        {server_lines}
        location / {{
            {location_lines}
        }}
    }}
}}
"""


class Nginx(Process):
    """nginx with the given lines in its `location /`; with a certificate, it also has a TLS server."""

    def __init__(self, folder: Path, location_lines: str, certificate: Path | None = None) -> None:
        assert PROGRAM
        self.port = find_free_port()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        config = folder / f"nginx-{self.port}.conf"
        config.write_text(
            CONFIG.format(
                folder=folder,
                port=self.port,
                tls=" ssl" if certificate else "",
                server_lines=f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
                if certificate
                else "",
                location_lines=location_lines,
            )
        )
        command = [PROGRAM, "-e", "stderr", "-p", str(folder), "-c", str(config)]
        super().__init__(command, os.environ, folder / f"nginx-{self.port}.log")
        wait_until(self._listens, f"nginx listens\n{self.log}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
