"""How many actions a user may send in a minute, how large a request may be, and where its address comes from."""

import ipaddress
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from fakeredis import FakeRedis, FakeServer
from pytest_django import Settings

from instances.models import AuditEntry, Token
from tests.conftest import ApiClient
from tests.redis_keys import name_of

pytestmark = pytest.mark.django_db

ACT = "/api/cache/clear"


@pytest.fixture
def limited(settings: Settings) -> None:
    settings.API_RATE_LIMIT = 3


def make_client(name: str) -> ApiClient:
    """Return a client that is logged in as an admin."""
    user = User.objects.create_user(name)
    user.groups.add(Group.objects.get_or_create(name="admin")[0])
    client = ApiClient()
    client.force_login(user)
    return client


def act(client: ApiClient, times: int, **extra: Any) -> list[int]:
    return [client.post(ACT, **extra).status_code for _ in range(times)]


# --- Rate


@pytest.mark.usefixtures("limited")
def test_too_many_actions_are_refused_with_a_retry_after(client: ApiClient) -> None:
    assert act(client, 3) == [200, 200, 200]

    answer = client.post(ACT)

    assert answer.status_code == 429
    assert answer.json()["code"] == "TOO_MANY_REQUESTS"
    assert 1 <= int(answer["Retry-After"]) <= 60
    assert answer.json()["suggestion"]
    assert AuditEntry.objects.filter(action="cache.clear").count() == 3


@pytest.mark.usefixtures("limited")
def test_reads_are_not_counted(client: ApiClient) -> None:
    assert {client.get("/api/instances").status_code for _ in range(20)} == {200}
    assert act(client, 3) == [200, 200, 200]


@pytest.mark.usefixtures("limited")
def test_limit_ends_after_a_minute(client: ApiClient, raw_redis: FakeRedis) -> None:
    act(client, 4)
    (key,) = raw_redis.scan_iter(name_of("rate:*"))
    assert 0 < raw_redis.ttl(key) <= 60

    raw_redis.delete(key)

    assert act(client, 1) == [200]


@pytest.mark.usefixtures("limited")
def test_limit_is_shared_with_other_processes(client: ApiClient, raw_redis: FakeRedis) -> None:
    act(client, 1)
    (key,) = raw_redis.scan_iter(name_of("rate:*"))

    raw_redis.incrby(key, 5)  # as another process would

    assert act(client, 1) == [429]


@pytest.mark.usefixtures("limited")
def test_each_user_has_a_limit(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    ann, bob = make_client("ann"), make_client("bob")

    assert act(ann, 4) == [200, 200, 200, 429]
    assert act(bob, 1) == [200]


@pytest.mark.usefixtures("limited")
def test_tokens_and_addresses_of_a_user_share_one_limit(settings: Settings) -> None:
    settings.REQUIRE_LOGIN = True
    ann = make_client("ann")
    texts = [Token.objects.create(user=User.objects.get(), name=f"ci-{n}", role="admin")[1] for n in range(2)]
    tokens = [ApiClient(headers={"Authorization": f"Bearer {text}"}) for text in texts]

    assert act(ann, 1) + act(tokens[0], 1) + act(tokens[1], 1) == [200, 200, 200]
    assert act(tokens[0], 1) + act(ann, 1, REMOTE_ADDR="192.0.2.9") == [429, 429]


@pytest.mark.usefixtures("limited")
def test_refused_users_are_not_counted(settings: Settings, raw_redis: FakeRedis) -> None:
    settings.REQUIRE_LOGIN = True

    assert act(ApiClient(), 10) == [401] * 10
    assert not list(raw_redis.scan_iter(name_of("rate:*")))


@pytest.mark.usefixtures("limited")
def test_nothing_is_counted_without_redis(client: ApiClient, redis_server: FakeServer) -> None:
    """The refusal comes from Redis, and is no 429."""
    redis_server.connected = False
    away = act(client, 6)
    redis_server.connected = True

    assert away == [503] * 6
    assert act(client, 1) == [200]


def test_limit_of_zero_means_no_limit(client: ApiClient, settings: Settings, raw_redis: FakeRedis) -> None:
    settings.API_RATE_LIMIT = 0

    assert set(act(client, 20)) == {200}
    assert not list(raw_redis.scan_iter(name_of("rate:*")))


# --- Size


@pytest.mark.parametrize("path", [ACT, "/api/instances/stop-all", "/api/operations"])
def test_large_body_is_refused(client: ApiClient, path: str) -> None:
    answer = client.post(path, "[" * 100_000)

    assert answer.status_code == 413
    assert answer.json()["code"] == "BODY_TOO_LARGE"


@pytest.mark.parametrize("path", ["/api/instances", "/api/operations"])
@pytest.mark.parametrize("size", ["1001", "0", "-1", "1e9", "9" * 400])
def test_page_size_is_limited(client: ApiClient, path: str, size: str) -> None:
    assert client.get(path, {"pageSize": size}).status_code == 400


# --- Address


def find_address(client: ApiClient, forwarded: str | None, address: str) -> str:
    """Act, and return the recorded address."""
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert client.post(ACT, REMOTE_ADDR=address, headers=headers).status_code == 200
    entry = AuditEntry.objects.filter(action="cache.clear").first()
    assert entry is not None
    return entry.address


@pytest.mark.parametrize(
    ("proxies", "address", "forwarded", "expected"),
    [
        ([], "192.0.2.1", "198.51.100.1", "192.0.2.1"),
        ([], "127.0.0.1", "198.51.100.1", "127.0.0.1"),
        (["10.0.0.0/8"], "192.0.2.1", "198.51.100.1", "192.0.2.1"),
        (["10.0.0.0/8"], "10.0.0.1", "198.51.100.1", "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (["10.0.0.0/8"], "10.0.0.1", "203.0.113.9, unknown", "unknown"),
        (["10.0.0.0/8"], "10.0.0.1", "198.51.100.1, , ", "unknown"),
        (["10.0.0.0/8"], "10.0.0.1", "", "unknown"),
        (["10.0.0.0/8"], "10.0.0.1", None, "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", "," * 5000, "unknown"),
        (["10.0.0.0/8"], "10.0.0.1", "' OR 1=1 --", "unknown"),
        (["10.0.0.0/8"], "10.0.0.1", "2001:DB8::1", "2001:db8::1"),
        (["2001:db8::/64"], "2001:db8::5", "198.51.100.1", "198.51.100.1"),
    ],
)
def test_visitors_address_is_taken_only_from_a_trusted_proxy(
    settings: Settings, proxies: list[str], address: str, forwarded: str | None, expected: str
) -> None:
    settings.REQUIRE_LOGIN = True
    settings.TRUSTED_PROXIES = [ipaddress.ip_network(proxy) for proxy in proxies]

    assert find_address(make_client("ann"), forwarded, address) == expected


@pytest.mark.parametrize("forwarded", ["127.0.0.1", "::1", "127.0.0.1, 127.0.0.1"])
def test_visitor_behind_a_trusted_proxy_is_not_the_local_owner(settings: Settings, forwarded: str) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("127.0.0.0/8")]

    for address in ("10.0.0.1", "127.0.0.1"):
        answer = ApiClient().post(ACT, REMOTE_ADDR=address, headers={"X-Forwarded-For": forwarded})
        assert answer.status_code == 401
