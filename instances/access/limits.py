"""Limits on actions, logins and invalid tokens. Counted in Redis, for all processes together.

Stops are never counted and never refused.
"""

import hashlib
import logging
import threading
import time
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from rest_framework.request import Request

from instances import lua, redis_client
from instances.access.proxies import client_network
from instances.errors import CacheUnavailable, TooManyRequests

log = logging.getLogger(__name__)

MINUTE: Final = 60
DAY: Final = 86400
LOCKED_SECONDS: Final = 15 * 60
KNOWN_SECONDS: Final = 90 * DAY
# Failures per account and client, and per client for all accounts, since attackers also try many accounts.
PER_LOGIN: Final = 5
PER_CLIENT: Final = 20
# Failures per minute of one account and of all accounts, from all addresses: these slow a botnet down. They don't
# apply to an address that has logged in to the account before, so no stranger can lock an admin out.
PER_ACCOUNT: Final = 10
OVERALL: Final = 60
# Per client and minute: calls to the identity provider, two for each login; and invalid tokens.
SINGLE_SIGN_ON: Final = 60
BAD_TOKENS: Final = 60
# Failed logins per minute that get an audit entry.
NOTED_FAILURES: Final = 10
UNLIMITED: Final = 10**9
MEMORY_KEYS: Final = 10_000


@dataclass(frozen=True)
class Bucket:
    """At most `limit` in `seconds`."""

    key: str
    limit: int
    seconds: int


_TAKE: Final = lua.load(__file__, "take")
_GIVE_BACK: Final = lua.load(__file__, "give_back")


class _Memory:
    """The counts of this process alone, for the times without Redis."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, float]] = {}

    def take(self, buckets: tuple[Bucket, ...]) -> int:
        now = time.monotonic()
        with self._lock:
            for bucket in buckets:
                count, ends_at = self._find(bucket, now)
                if count >= bucket.limit:
                    return -max(1, round(ends_at - now))
            for bucket in buckets:
                count, ends_at = self._find(bucket, now)
                self._counts[bucket.key] = (count + 1, ends_at)
            while len(self._counts) > MEMORY_KEYS:
                del self._counts[next(iter(self._counts))]
        return count + 1

    def _find(self, bucket: Bucket, now: float) -> tuple[int, float]:
        count, ends_at = self._counts.get(bucket.key, (0, 0.0))
        return (count, ends_at) if ends_at > now else (0, now + bucket.seconds)

    def give_back(self, buckets: tuple[Bucket, ...]) -> None:
        with self._lock:
            for bucket in buckets:
                count, ends_at = self._counts.get(bucket.key, (0, 0.0))
                if count > 0:
                    self._counts[bucket.key] = (count - 1, ends_at)

    def clear(self) -> None:
        with self._lock:
            self._counts.clear()


memory: Final = _Memory()


def take(*buckets: Bucket) -> int:
    """Add one to each bucket, unless one of them is full.

    Returns the count of the last bucket, or the seconds to wait as a negative number. Raises CacheUnavailable.
    """
    limits_and_seconds = [number for bucket in buckets for number in (bucket.limit, bucket.seconds)]
    return int(_TAKE(counters=_name_counters(buckets), limits_and_seconds=limits_and_seconds))


def _name_counters(buckets: Iterable[Bucket]) -> list[str]:
    return [f"{redis_client.RATE}{bucket.key}" for bucket in buckets]


def take_always(*buckets: Bucket) -> int:
    """Count like `take`. Without Redis, count in this process's memory."""
    try:
        return take(*buckets)
    except CacheUnavailable:
        return memory.take(buckets)


def _give_back(*buckets: Bucket) -> None:
    memory.give_back(buckets)
    try:
        _GIVE_BACK(counters=_name_counters(buckets))
    except CacheUnavailable as exc:
        log.warning("successful attempt still counted: %s", exc.message, extra={"rejection": "redis"})


# --- Acting


def check_acting(request: Request, *, is_stop: bool) -> None:
    """Count a request that would change something. Raises TooManyRequests.

    A stop always passes, and so does the cancelling of an operation: after a flood of requests by a script, its user
    can still stop. A flood of stops only costs calls at Novita, because equal stops join one operation. Requests that
    were refused before, for their form, address or role, are not counted. Without Redis nothing is counted.
    """
    if is_stop or not settings.API_RATE_LIMIT:
        return
    client = client_network(request.META.get("REMOTE_ADDR", ""))
    who = f"user:{request.user.pk}" if request.user.is_authenticated else f"address:{client}"
    try:
        count = take(Bucket(who, settings.API_RATE_LIMIT, MINUTE))
    except CacheUnavailable:
        return
    if count < 0:
        log.warning("too many acting requests by %s", who, extra={"rejection": "acting"})
        raise TooManyRequests(retry_after=-count)


# --- Logging in


class Login:
    """An attempt to log in to an account from an address. No name is stored: people type passwords into that field."""

    def __init__(self, address: str, name: str) -> None:
        client = client_network(address)
        account = unicodedata.normalize("NFKC", name).strip().casefold()
        self._mark = f"login:{_hash(client, account)}"
        self._buckets = [
            Bucket(self._mark, PER_LOGIN, LOCKED_SECONDS),
            Bucket(f"login-client:{client}", PER_CLIENT, LOCKED_SECONDS),
        ]
        if not is_known(self._mark):
            self._buckets += [
                Bucket(f"login-account:{_hash(account)}", PER_ACCOUNT, MINUTE),
                Bucket("login-overall", OVERALL, MINUTE),
            ]

    def begin(self) -> int:
        """Count the attempt before the password is checked. Returns 0, or the seconds to wait."""
        return max(0, -take_always(*self._buckets))

    def succeed(self) -> None:
        """Remove the attempt and the account's earlier failures from this address, and store the address as known."""
        _give_back(*[self._buckets[0]] * PER_LOGIN, *self._buckets[1:])
        remember(self._mark)


def count_failed_login(address: str) -> int:
    """Count a failed or refused login. Returns the client's failures within a day, or 0 when none needs to be recorded:
    an entry for the client was written within the last minute, or the minute's entries for all clients are used up.
    """
    client = client_network(address)
    count = take_always(Bucket(f"login-failures:{client}", UNLIMITED, DAY))
    noted = take_always(Bucket(f"login-noted:{client}", 1, MINUTE), Bucket("login-noted", NOTED_FAILURES, MINUTE))
    return count if noted > 0 else 0


def begin_single_sign_on(address: str) -> int:
    """Count a request that leads to a call to the provider. Returns 0, or the seconds to wait."""
    return max(0, -take_always(Bucket(f"sso:{client_network(address)}", SINGLE_SIGN_ON, MINUTE)))


# --- Presenting a token


class BadTokens:
    """The invalid tokens of a client. A token that was valid before is always looked up."""

    def __init__(self, address: str, token: bytes) -> None:
        self._bucket = Bucket(f"token:{client_network(address)}", BAD_TOKENS, MINUTE)
        self._mark = f"token:{_hash(token.decode('latin-1'))}"

    def begin(self) -> None:
        """Count the token as invalid, before it is looked up. Raises TooManyRequests.

        Counted in this process's memory: each request of a script has a token, and must not depend on Redis.
        """
        self._count = memory.take((self._bucket,))
        if self._count < 0 and not is_known(self._mark):
            log.warning("too many invalid tokens: %s", self._bucket.key, extra={"rejection": "token"})
            raise TooManyRequests("Too many invalid tokens were sent from your address.", retry_after=-self._count)

    def succeed(self) -> None:
        if self._count > 0:
            memory.give_back((self._bucket,))

    def remember(self) -> None:
        remember(self._mark)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:40]


# --- Logins and tokens that were valid before


def remember(name: str) -> None:
    """Store for 90 days that this login or token was valid."""
    try:
        with redis_client.redis_errors():
            redis_client.get_redis().set(f"{redis_client.KNOWN}{name}", 1, ex=KNOWN_SECONDS)
    except CacheUnavailable as exc:
        log.warning("known login or token not stored: %s", exc.message, extra={"rejection": "redis"})


def is_known(name: str) -> bool:
    """Return whether the login or token was valid before. Without Redis: True, so that no known user is refused."""
    try:
        with redis_client.redis_errors():
            return bool(redis_client.get_redis().exists(f"{redis_client.KNOWN}{name}"))
    except CacheUnavailable:
        return True
