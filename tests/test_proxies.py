"""A client's address behind a proxy, and the addresses that count as one client."""

import ipaddress
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from fakeredis import FakeRedis
from pytest_django import Settings

from instances.access.proxies import client_network, read_address
from instances.models import AuditEntry
from tests.redis_keys import name_of

PASSWORD = "correct horse battery"
PROXY = "10.0.0.1"


@pytest.fixture(autouse=True)
def behind_a_proxy(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8")]


@pytest.fixture
def ann(behind_a_proxy: None, db: None) -> User:
    user = User.objects.create_user("ann", password=PASSWORD)
    user.groups.add(Group.objects.get_or_create(name="viewer")[0])
    return user


def log_in(forwarded: str, password: str = PASSWORD) -> Any:
    headers = {"X-Forwarded-For": forwarded}
    return Client().post("/login/", {"username": "ann", "password": password}, headers=headers, REMOTE_ADDR=PROXY)


# --- Addresses as proxies write them


@pytest.mark.parametrize(
    ("item", "address"),
    [
        ("198.51.100.77", "198.51.100.77"),
        (" 198.51.100.77\t", "198.51.100.77"),
        ("198.51.100.77:6001", "198.51.100.77"),
        ("2001:DB8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ('"[2001:db8::7]:443"', "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("::ffff:198.51.100.77", "198.51.100.77"),
        ("[::ffff:198.51.100.77]:443", "198.51.100.77"),
        ("[198.51.100.77]:80", "198.51.100.77"),
    ],
)
def test_address_is_read_with_port_brackets_and_zone(item: str, address: str) -> None:
    assert read_address(item) == address


@pytest.mark.parametrize(
    "item",
    [
        "",
        "unknown",
        "_hidden",
        "198.51.100.77:",
        "198.51.100.77:port",
        "198.51.100",
        "198.51.100.777",
        "010.0.0.1",
        "[2001:db8::7",
        "2001:db8::7]:443",
        "[]:443",
        "%eth0",
        "localhost",
        "198.51.100.77 198.51.100.78",
        "\u0661.2.3.4",
        "1" * 5000,
    ],
)
def test_garbage_is_no_address(item: str) -> None:
    assert read_address(item) == ""


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.77", "198.51.100.77"),
        ("::ffff:198.51.100.77", "198.51.100.77"),
        ("64:ff9b::c633:644d", "198.51.100.77"),
        ("2001:db8:0:1:aaaa::1", "2001:db8:0:1::"),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::"),
        ("2001:db8:0:2::1", "2001:db8:0:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_one_client_is_an_ipv4_address_or_an_ipv6_64(address: str, network: str) -> None:
    assert client_network(address) == network


# --- Lockouts


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize("form", ["198.51.100.{}:6001", "[2001:db8:0:{}::7]:443", "2001:db8:0:{}::7%eth0"])
def test_lockout_covers_all_forms_of_a_clients_address(form: str) -> None:
    guesses = [log_in(form.format(1), f"guess-{number}").status_code for number in range(6)]

    assert guesses[-1] == 429
    assert log_in(form.format(1)).status_code == 429
    assert log_in(form.format(2)).status_code == 302


@pytest.mark.usefixtures("ann")
def test_six_addresses_of_one_64_are_one_client(raw_redis: FakeRedis) -> None:
    guesses = [log_in(f"2001:db8:0:1::{number}", f"guess-{number}").status_code for number in range(1, 7)]

    assert guesses[-1] == 429
    assert raw_redis.exists(name_of("rate:login-client:2001:db8:0:1::"))
    assert AuditEntry.objects.get(action="login").address == "2001:db8:0:1::1", "the audit keeps the full address"


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize("unknown", ["unknown", "_hidden", "", "198.51.100.1, unknown"])
def test_unknown_clients_lock_out_neither_known_clients_nor_the_proxy(unknown: str) -> None:
    for number in range(6):
        guess = log_in(unknown, f"guess-{number}")

    assert guess.status_code == 429
    assert log_in("198.51.100.1").status_code == 302
    at_the_proxy = Client().post("/login/", {"username": "ann", "password": PASSWORD}, REMOTE_ADDR=PROXY)
    assert at_the_proxy.status_code == 302
    assert AuditEntry.objects.filter(action="login", address="unknown").count() == 1


@pytest.mark.usefixtures("ann")
def test_invented_header_does_not_change_a_clients_address() -> None:
    for number in range(6):
        guess = log_in(f"[2001:db8:{number}::1]:443, 198.51.100.77:{6000 + number}", f"guess-{number}")

    assert guess.status_code == 429
