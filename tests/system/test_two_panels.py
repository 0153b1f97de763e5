"""Two panels on one host name: a browser stays logged in to both."""

import re
import shutil
from pathlib import Path

import requests

from tests.system.browser import log_in, make_admin
from tests.system.conftest import Start
from tests.system.processes import Service


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


def test_login_to_one_panel_keeps_the_login_to_another(
    environment: dict[str, str], start_service: Start, tmp_path: Path
) -> None:
    other_database = tmp_path / "other.sqlite3"
    shutil.copy(environment["DATABASE_URL"].removeprefix("sqlite:///"), other_database)
    other = {"DATABASE_URL": f"sqlite:///{other_database}", "SECRET_KEY": "FAKE-SECRET-of-the-other"}
    for variables in ({}, other):
        make_admin({**environment, **variables})
    one = start_service(REQUIRE_LOGIN="1", WEB_WORKERS="1").wait_until_alive()
    two = start_service(REQUIRE_LOGIN="1", WEB_WORKERS="1", **other).wait_until_alive()
    with requests.Session() as browser:
        browser.trust_env = False

        for service in (one, two):
            assert log_in(browser, service).url == f"{service.url}/admin/"

        for service in (one, two, one):
            assert browser.get(f"{service.url}/api/instances", timeout=30).status_code == 200
            assert send_form(browser, service) == 302
        assert "REQUIRE_LOGIN" not in one.log, "the line is for the mode without a login"
        assert len({cookie.name for cookie in browser.cookies}) == len(browser.cookies) >= 4


def test_processes_of_one_panel_share_a_login(environment: dict[str, str], start_service: Start) -> None:
    make_admin(environment)
    one, two = (start_service(REQUIRE_LOGIN="1", WEB_WORKERS="1").wait_until_alive() for _ in range(2))
    with requests.Session() as browser:
        browser.trust_env = False

        log_in(browser, one)

        assert browser.get(f"{two.url}/api/instances", timeout=30).status_code == 200
