"""What the sentinels answer, and what is said of it."""

from typing import Any

import pytest
import redis

from instances.redis_client import NoPrimary, Pool, SentinelPool, Sentinels, TLSPrimaryConnection

UP = {"is_master": True, "is_sdown": False, "is_odown": False, "ip": "10.0.0.5", "port": 6379}
SILENT = redis.exceptions.TimeoutError("Timeout connecting to server")


class Sentinel:
    """Answers each question in the same way, and counts them."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer, self.questions = answer, 0

    def execute_command(self, *command: str) -> dict[str, Any]:
        self.questions += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def discover(*answers: dict[str, Any] | Exception) -> tuple[str, int]:
    return Sentinels([Sentinel(answer) for answer in answers]).discover_master("panel")  # type: ignore[misc]  # stand-ins


@pytest.mark.parametrize("first", [SILENT, {**UP, "is_sdown": True}, redis.exceptions.ResponseError("No such master")])
def test_another_sentinel_is_asked_when_one_names_no_primary(first: dict[str, Any] | Exception) -> None:
    assert discover(first, UP) == ("10.0.0.5", 6379)


def test_sentinel_that_answered_is_asked_first() -> None:
    silent, answering = Sentinel(SILENT), Sentinel(UP)
    sentinels = Sentinels([silent, answering])  # type: ignore[list-item]  # stand-ins
    sentinels.discover_master("panel")

    sentinels.discover_master("panel")

    assert silent.questions == 1
    assert answering.questions == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (SILENT, "None of Redis's sentinels can be reached."),
        (redis.exceptions.ResponseError("No such master with that name"), "don't know the service 'panel'"),
        (redis.exceptions.AuthenticationError("invalid password"), "refused the login"),
        (redis.exceptions.NoPermissionError("no permissions"), "refused the login"),
        ({**UP, "is_odown": True}, "Redis has no primary at present."),
    ],
)
def test_each_failure_of_the_sentinels_has_a_message(answer: dict[str, Any] | Exception, words: str) -> None:
    with pytest.raises(NoPrimary) as failure:
        discover(answer, SILENT)

    assert words in failure.value.message


def test_url_gives_each_server_its_login() -> None:
    url = "rediss+sentinel://user:p%40ss@one:1,two/panel/3?sentinel_password=s&ssl_ca_certs=/ca.pem"

    pool = Pool.from_url(url, socket_timeout=0.6)

    assert isinstance(pool, SentinelPool) and pool.service_name == "panel"
    assert pool.connection_class is TLSPrimaryConnection
    made = pool.connection_kwargs
    login = {"username": "user", "password": "p@ss", "db": 3, "ssl_ca_certs": "/ca.pem", "socket_timeout": 0.6}
    assert {name: made.get(name) for name in login} == login
    theirs = [client.connection_pool.connection_kwargs for client in pool.sentinel_manager._clients]
    assert [(one["host"], one["port"], one["password"], one["ssl_ca_certs"]) for one in theirs] == [
        ("one", 1, "s", "/ca.pem"),
        ("two", 26379, "s", "/ca.pem"),
    ]
    assert not any(one.get("username") for one in theirs)
