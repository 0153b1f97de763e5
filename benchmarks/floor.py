"""The floor: what gunicorn with as many processes and threads answers, with one GET from Redis and nothing else."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import redis

client = redis.Redis.from_url(os.environ["REDIS_URL"])


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    value = client.get("floor") or b"-"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(value)))])
    return [value]
