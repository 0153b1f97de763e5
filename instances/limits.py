"""How many acting requests one user or address may send a minute; counted in Redis, for all processes."""

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from instances import redis_client
from instances.errors import CacheUnavailable
from novita_site.proxies import client_network

WINDOW_SECONDS = 60

_COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('TTL', KEYS[1])}
"""


class ActingLimit(BaseThrottle):
    """Counts what would change something. Without Redis nothing is counted: a stop must get through."""

    def __init__(self) -> None:
        self._wait_seconds = 0

    def allow_request(self, request: Request, view: object) -> bool:
        if request.method in {"GET", "HEAD", "OPTIONS"} or not settings.API_RATE_LIMIT:
            return True
        who = f"user:{request.user.pk}" if request.user.is_authenticated else f"address:{self.get_ident(request)}"
        try:
            count, ttl = redis_client.run_script(_COUNT, [f"{redis_client.RATE}{who}"], [WINDOW_SECONDS])
        except CacheUnavailable:
            return True
        self._wait_seconds = max(1, int(ttl))
        return bool(count <= settings.API_RATE_LIMIT)

    def get_ident(self, request: Request) -> str:
        return client_network(request.META.get("REMOTE_ADDR", ""))

    def wait(self) -> float:
        return self._wait_seconds
