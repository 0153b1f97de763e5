"""A new SECRET_KEY with the previous one in SECRET_KEY_FALLBACKS: logins, links and encrypted URLs stay valid."""

import io
from typing import Any

import pytest
from cryptography.fernet import InvalidToken
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from instances.errors import LinkNotValid
from instances.models import Channel, Finding, Policy
from instances.notifications import sealing
from instances.policies import snoozing
from novita_site.env import Env, name_installation
from tests.test_admin_records import make_delivery

pytestmark = pytest.mark.django_db

URL = "https://hooks.example.com/secret"


@pytest.fixture
def rotate(settings: Settings) -> Any:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "FAKE-SECRET-old", []

    def rotate(*fallbacks: str) -> None:
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "FAKE-SECRET-new", list(fallbacks)

    return rotate


def add_channel() -> Channel:
    return Channel.objects.create(name="team", receiver="https://hooks.example.com", sealed_url=sealing.seal(URL))


def test_fallbacks_are_a_list_with_commas() -> None:
    assert Env({"SECRET_KEY_FALLBACKS": "one, two"}).names("SECRET_KEY_FALLBACKS", "") == ["one", "two"]


def test_names_of_cookies_stay_while_the_previous_key_is_a_fallback() -> None:
    assert name_installation("new", ["middle", "old"]) == name_installation("old", [])
    assert name_installation("new", []) != name_installation("old", [])


def test_login_outlives_a_new_key(client: Client, rotate: Any, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    client.force_login(User.objects.create_superuser("ann"))
    rotate("FAKE-SECRET-old")

    assert client.get("/admin/").status_code == 200

    # Its session is signed with the new key now.
    rotate()
    assert client.get("/admin/").status_code == 200


def test_login_ends_with_a_new_key_without_the_previous_one(client: Client, rotate: Any, settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    client.force_login(User.objects.create_superuser("ann"))
    rotate()

    assert client.get("/admin/").status_code == 302


def test_snooze_link_outlives_a_new_key(rotate: Any) -> None:
    policy = Policy.objects.create(name="nights", rule="idle")
    finding = Finding.objects.create(policy=policy, policy_name="nights", policy_version=1, mode="stop", state="warned")
    link = snoozing.make_link(finding)

    rotate("FAKE-SECRET-old")
    assert snoozing.read_link(link).finding == finding

    rotate()
    with pytest.raises(LinkNotValid):
        snoozing.read_link(link)


def test_encrypted_url_outlives_a_new_key(rotate: Any) -> None:
    channel = add_channel()

    rotate("FAKE-SECRET-old")
    assert sealing.unseal(channel.sealed_url) == URL

    rotate()
    with pytest.raises(InvalidToken):
        sealing.unseal(channel.sealed_url)


def test_worker_encrypts_urls_with_the_new_key_so_that_the_previous_one_can_go(rotate: Any) -> None:
    channel = add_channel()
    delivery = make_delivery(sealed_url=sealing.seal(URL))
    rotate("FAKE-SECRET-old")

    sealing.seal_again()

    rotate()
    for row in (channel, delivery):
        row.refresh_from_db()
        assert sealing.unseal(row.sealed_url) == URL


def test_url_that_no_key_decrypts_is_kept_and_reported(rotate: Any, log_stream: io.StringIO) -> None:
    channel = add_channel()
    rotate("FAKE-SECRET-another")

    sealing.seal_again()

    assert channel.sealed_url == Channel.objects.get().sealed_url
    assert "can't be decrypted by any key" in log_stream.getvalue()


def test_nothing_is_encrypted_again_without_a_previous_key(rotate: Any, django_assert_num_queries: Any) -> None:
    add_channel()

    with django_assert_num_queries(0):
        sealing.seal_again()


def test_delivery_that_has_arrived_needs_no_url(rotate: Any) -> None:
    delivery = make_delivery(state="delivered", sealed_url=sealing.seal(URL), ended_at=timezone.now())
    before = delivery.sealed_url
    rotate("FAKE-SECRET-old")

    sealing.seal_again()

    delivery.refresh_from_db()
    assert delivery.sealed_url == before
