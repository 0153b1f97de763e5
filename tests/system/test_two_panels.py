"""Two panels on one host name: a browser that logs in to both stays logged in to both."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import requests

from tests.system.conftest import Start
from tests.system.processes import ROOT, Service

PASSWORD = "FAKE-SECRET-password"


def make_admin(environment: dict[str, str]) -> None:
    variables = {**environment, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    command = [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username", "ann", "--email", "a@b.test"]
    subprocess.run(command, cwd=ROOT, env=variables, check=True, capture_output=True)


def log_in(browser: requests.Session, service: Service) -> None:
    page = browser.get(f"{service.url}/login/", timeout=30).text
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token
    form = {"username": "ann", "password": PASSWORD, "csrfmiddlewaretoken": token[1], "next": "/admin/"}
    answer = browser.post(f"{service.url}/login/", data=form, headers={"Origin": service.url}, timeout=30)
    assert answer.ok and answer.url.endswith("/admin/"), answer.text


def send_form(browser: requests.Session, service: Service) -> int:
    """Press a button of an admin page; return the status."""
    page = browser.get(f"{service.url}/admin/instances/syncrun/", timeout=30).text
    token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[0]
    answer = browser.post(
        f"{service.url}/admin/instances/syncrun/sync/",
        data={"csrfmiddlewaretoken": token},
        headers={"Origin": service.url},
        allow_redirects=False,
        timeout=30,
    )
    return answer.status_code


def test_a_login_to_one_panel_leaves_the_login_to_the_other(
    environment: dict[str, str], start_service: Start, tmp_path: Path
) -> None:
    other_database = tmp_path / "other.sqlite3"
    shutil.copy(environment["DATABASE_URL"].removeprefix("sqlite:///"), other_database)
    other = {"DATABASE_URL": f"sqlite:///{other_database}", "SECRET_KEY": "FAKE-SECRET-of-the-other"}
    for variables in ({}, other):
        make_admin({**os.environ, **environment, **variables})
    one = start_service(REQUIRE_LOGIN="1", WEB_WORKERS="1").wait_until_alive()
    two = start_service(REQUIRE_LOGIN="1", WEB_WORKERS="1", **other).wait_until_alive()
    with requests.Session() as browser:
        browser.trust_env = False

        for service in (one, two):
            log_in(browser, service)

        for service in (one, two, one):
            assert browser.get(f"{service.url}/api/instances", timeout=30).status_code == 200
            assert send_form(browser, service) == 302
        assert len({cookie.name for cookie in browser.cookies}) == len(browser.cookies) >= 4


def test_the_processes_of_one_panel_share_a_login(environment: dict[str, str], start_service: Start) -> None:
    make_admin({**os.environ, **environment})
    one, two = (start_service(REQUIRE_LOGIN="1", WEB_WORKERS="1").wait_until_alive() for _ in range(2))
    with requests.Session() as browser:
        browser.trust_env = False

        log_in(browser, one)

        assert browser.get(f"{two.url}/api/instances", timeout=30).status_code == 200
