"""One version number, in `novita_site.__version__`, at every place that shows a version."""

import re

import pytest
from django.test import Client

from instances.novita.client import USER_AGENT
from novita_site import __version__
from tests.conftest import ApiClient


def test_version_has_three_numbers() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.django_db
def test_health_shows_the_version(client: ApiClient) -> None:
    assert client.get("/health").json()["version"] == __version__


@pytest.mark.django_db
def test_api_description_shows_the_version(client: ApiClient) -> None:
    assert client.get("/api/schema?format=json").json()["info"]["version"] == __version__


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/admin/"])
def test_menu_of_a_page_shows_the_version(path: str) -> None:
    page = Client().get(path).content.decode()

    assert f">Novita panel {__version__}</span>" in page


def test_requests_to_others_name_the_version() -> None:
    assert f"novita-panel/{__version__}" == USER_AGENT
