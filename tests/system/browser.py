"""Logs in through the form, as a browser would, with a session of requests."""

import os
import re
import sys
from typing import Protocol
from urllib.parse import urlsplit

import requests

from tests import python
from tests.system.processes import ROOT

PASSWORD = "FAKE-SECRET-password"


class Site(Protocol):
    url: str


def make_admin(environment: dict[str, str]) -> None:
    """Make the superuser ann in the environment's database."""
    variables = {**os.environ, **environment, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    command = [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username", "ann", "--email", "a@b.test"]
    python.run(command, cwd=ROOT, env=variables, check=True, capture_output=True)


def log_in(browser: requests.Session, site: Site) -> requests.Response:
    """Log ann in; return the page that follows the login: the first admin page, if the login succeeds."""
    page = browser.get(f"{site.url}/login/", timeout=30).text
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token, page
    parts = urlsplit(site.url)
    form = {"username": "ann", "password": PASSWORD, "csrfmiddlewaretoken": token[1], "next": f"{parts.path}/admin/"}
    headers = {"Origin": f"{parts.scheme}://{parts.netloc}"}
    return browser.post(f"{site.url}/login/", data=form, headers=headers, timeout=30)
