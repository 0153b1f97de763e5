"""Installed packages: pinned and hashed for each supported Python and system, without known vulnerabilities."""

import importlib.metadata
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.system.processes import ROOT

MACHINES = [
    {"python_version": version.rpartition(".")[0], "python_full_version": version, **system}
    for version in ("3.11.0", "3.11.9", "3.12.0", "3.13.0")
    for system in (
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    )
]


# What each of the two commands installs: `make run`, and `make test`, which needs all of it.
RUNTIME = ("requirements",)
ALL = ("requirements", "requirements-dev")
INSTALLS = pytest.mark.parametrize("files", [RUNTIME, ALL], ids=["make run", "make test"])


def read_pinned(files: tuple[str, ...]) -> dict[str, str]:
    """Return the name of each package in the compiled files with its whole entry."""
    text = "".join((ROOT / f"{file}.txt").read_text() for file in files).replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(re.split("[=; ]", entry)[0]): entry for entry in entries}


def read_wanted(files: tuple[str, ...]) -> list[Requirement]:
    lines = "".join((ROOT / f"{file}.in").read_text() for file in files).splitlines()
    return [Requirement(text) for line in lines if (text := line.partition("#")[0].strip()) and text[0] != "-"]


@INSTALLS
def test_each_package_is_pinned_with_its_hashes(files: tuple[str, ...]) -> None:
    pinned = read_pinned(files)

    assert {canonicalize_name(wanted.name) for wanted in read_wanted(files)} <= pinned.keys()
    for entry in pinned.values():
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; [^-]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry


def test_tests_run_with_the_versions_of_the_service() -> None:
    runtime, dev = read_pinned(RUNTIME), read_pinned(("requirements-dev",))

    assert {name: dev[name].split()[0] for name in runtime.keys() & dev.keys()} == {
        name: runtime[name].split()[0] for name in runtime.keys() & dev.keys()
    }


def test_service_imports_only_what_make_run_installs() -> None:
    sources = [ROOT / "manage.py", *(ROOT / "novita_site").rglob("*.py"), *(ROOT / "instances").rglob("*.py")]
    lines = "\n".join(source.read_text() for source in sources)
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", lines, re.MULTILINE))
    owners = importlib.metadata.packages_distributions()
    packages = {canonicalize_name(package) for name in imported for package in owners.get(name, [])}

    assert packages - read_pinned(RUNTIME).keys() == set()


@pytest.mark.parametrize(
    ("target", "files"), [("run", ["requirements.txt"]), ("audit", ["requirements.txt", "requirements-dev.txt"])]
)
def test_make_run_installs_the_runtime_file_only(target: str, files: list[str], tmp_path: Path) -> None:
    command = ["make", "--dry-run", f"VENV={tmp_path}", target]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installs = [line for line in told.splitlines() if "pip install" in line]

    assert re.findall(r"--requirement (\S+)", installs[-1]) == files


def test_no_registry_is_named() -> None:
    for name in (*(f"{file}{suffix}" for file in ALL for suffix in (".in", ".txt")), "Makefile"):
        assert "://" not in (ROOT / name).read_text().replace("sqlite://", "").replace("unix://", "")


@INSTALLS
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: " ".join(machine.values()))
def test_requirements_of_each_supported_machine_are_pinned(machine: dict[str, str], files: tuple[str, ...]) -> None:
    """With hashes pip installs only listed packages, and the required packages depend on Python and the system."""
    pinned = read_pinned(files)
    to_see = [(wanted.name, "", wanted) for wanted in read_wanted(files)]
    seen: set[str] = set()

    while to_see:
        by, extra, wanted = to_see.pop()
        if str(wanted) in seen or (wanted.marker and not wanted.marker.evaluate({**machine, "extra": extra})):
            continue
        seen.add(str(wanted))
        assert canonicalize_name(wanted.name) in pinned, f"{wanted}, for {by}"
        try:
            needs = importlib.metadata.requires(wanted.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # not for this machine
        to_see += [(wanted.name, extra, Requirement(need)) for extra in {"", *wanted.extras} for need in needs]


# --- The audit

ADVISORY = {
    "id": "GHSA-xxxx",
    "summary": "It opens a door.",
    "aliases": ["CVE-2025-1"],
    "affected": [
        {
            "package": {"name": "django", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "5.2.2"}]}],
        }
    ],
}
Audit = Callable[..., subprocess.CompletedProcess[str]]


def ask(
    folder: Path, port: int, pin: str = f"django==5.2.1 --hash=sha256:{'0' * 64}", **variables: str
) -> subprocess.CompletedProcess[str]:
    (folder / "requirements.txt").write_text(f"{pin}\n")
    source = ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/"]
    command = [sys.executable, ".ci/audit.py", "--requirement", str(folder / "requirements.txt"), *source]
    environment = {**{name: value for name, value in os.environ.items() if name != "AUDIT"}, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    """Run the audit of one package against a source of advisories with this answer."""
    answer = [0, b""]

    class Source(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    def run(status: int, body: bytes, **variables: str) -> subprocess.CompletedProcess[str]:
        answer[:] = [status, body]
        return ask(tmp_path, server.server_port, **variables)

    with ThreadingHTTPServer(("127.0.0.1", 0), Source) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield run
        server.shutdown()


def test_known_vulnerability_fails_and_is_named(audit: Audit) -> None:
    ended = audit(200, json.dumps({"vulns": [ADVISORY]}).encode())

    assert ended.returncode == 1
    assert ended.stdout == "django 5.2.1: CVE-2025-1, GHSA-xxxx, fixed in 5.2.2. It opens a door.\n"


def test_audit_reports_that_there_is_no_known_vulnerability(audit: Audit) -> None:
    ended = audit(200, b"{}")

    assert ended.returncode == 0
    assert ended.stdout == "pip-audit: no known vulnerability in 1 packages\n"


@pytest.mark.parametrize(("status", "body"), [(500, b""), (403, b"no"), (200, b"<html>Log in to the network.")])
def test_source_without_advisories_is_skipped_with_a_message(audit: Audit, status: int, body: bytes) -> None:
    ended = audit(status, body)

    assert ended.returncode == 0
    assert ended.stdout.startswith("pip-audit: skipped, its source can't be reached (")
    assert ended.stdout.count("\n") == 1 and ended.stderr == ""


def test_unreachable_source_is_skipped_with_a_message(tmp_path: Path) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        ended = ask(tmp_path, unheard.getsockname()[1])

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert ended.stdout == "pip-audit: skipped, its source can't be reached (ConnectionError)\n"


@pytest.mark.parametrize(("status", "body"), [(500, b""), (200, b"<html>Log in to the network.")])
def test_strict_audit_without_advisories_fails(audit: Audit, status: int, body: bytes) -> None:
    ended = audit(status, body, AUDIT="strict")

    assert ended.returncode == 1
    assert ended.stdout.startswith("pip-audit: skipped, ")
    assert ended.stdout.endswith("pip-audit: failed, AUDIT=strict wants every package checked\n")


def test_strict_audit_without_findings_passes(audit: Audit) -> None:
    ended = audit(200, b"{}", AUDIT="strict")

    assert ended.returncode == 0
    assert ended.stdout == "pip-audit: no known vulnerability in 1 packages\n"


def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *packages: object) -> tuple[int, str]:
    """Run the audit where pip-audit reports these packages."""
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    done = subprocess.CompletedProcess("pip-audit", 0, json.dumps({"dependencies": packages}), "")
    monkeypatch.setattr(module.subprocess, "run", lambda *args, **options: done)
    status = module.main()
    return status, capsys.readouterr().out


KNOWN: dict[str, object] = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "not on the index"}


@pytest.mark.parametrize(
    ("packages", "relaxed", "strict"), [([KNOWN], 0, 0), ([KNOWN, UNKNOWN], 0, 1), ([UNKNOWN], 0, 1)]
)
def test_unchecked_package_is_never_reported_as_free_of_vulnerabilities(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[object],
    relaxed: int,
    strict: int,
) -> None:
    monkeypatch.delenv("AUDIT", raising=False)
    status, out = report(monkeypatch, capsys, *packages)
    monkeypatch.setenv("AUDIT", "strict")
    strict_status, _ = report(monkeypatch, capsys, *packages)

    assert status == relaxed
    assert strict_status == strict
    assert ("no known vulnerability in 1 packages" in out) == (KNOWN in packages)
    assert ("not checked" in out or "skipped" in out) == (UNKNOWN in packages)


def test_audit_that_cannot_run_fails(tmp_path: Path) -> None:
    ended = ask(tmp_path, 9, pin="django")

    assert ended.returncode == 1
    assert "hashed requirements" in ended.stderr
