"""What REDIS_URL may be: the address of a Redis, or those of the sentinels that know which server is the primary.

A refusal is text that follows "REDIS_URL: ". It never contains a value of the URL that may be a password.
"""

import re
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

import redis

SENTINEL_PORT: Final = 26379
SENTINEL_SCHEME: Final = "+sentinel"
# The parameters allowed after the ?. redis-py has more, which take no text or change its answers.
TLS_PARAMETERS: Final = {
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
    *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
}
PARAMETERS: Final = TLS_PARAMETERS | {
    *("db", "username", "password", "client_name", "protocol", "max_connections", "health_check_interval"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "retry_on_timeout"),
}
# The login at the sentinels. The user and password before the @ are those of the servers.
SENTINEL_PARAMETERS: Final = {"sentinel_username": "username", "sentinel_password": "password"}

_SENTINELS: Final = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^/?#@]+)/(?P<service>[A-Za-z0-9._-]+)"
    r"(?:/(?P<database>\d*))?(?:\?(?P<query>[^#]*))?"
)
_HOST: Final = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Sentinels:
    """The parts of a URL with sentinels: the URL of each, the service that they watch, and the URL of its servers.

    The servers' URL has no address that counts: the sentinels know it.
    """

    urls: list[str]
    service: str
    server_url: str


def has_sentinels(url: str) -> bool:
    return url.partition("://")[0].lower().endswith(SENTINEL_SCHEME)


def split_sentinels(url: str) -> Sentinels | None:
    """Split a URL with sentinels; None for one that has another form."""
    match = _SENTINELS.fullmatch(url)
    hosts = [_HOST.fullmatch(host.strip()) for host in match["hosts"].split(",")] if match else []
    if match is None or not all(hosts):
        return None
    addresses = [f"{host['host']}:{host['port'] or SENTINEL_PORT}" for host in hosts if host]
    parameters = [pair for pair in (match["query"] or "").split("&") if pair]
    ours = [pair for pair in parameters if pair.partition("=")[0] not in SENTINEL_PARAMETERS]
    theirs = [
        f"{SENTINEL_PARAMETERS.get(name, name)}={value}"
        for name, _, value in (pair.partition("=") for pair in parameters)
        if name in SENTINEL_PARAMETERS or name in TLS_PARAMETERS
    ]
    user = f"{match['user']}@" if match["user"] else ""
    return Sentinels(
        [f"{match['scheme']}://{address}/?{'&'.join(theirs)}" for address in addresses],
        match["service"],
        f"{match['scheme']}://{user}{addresses[0]}/{match['database'] or ''}?{'&'.join(ours)}",
    )


def find_problem(url: str, default: str) -> tuple[str, str] | None:
    """Return what is wrong with a URL, and what to do; None when a connection can be made of it."""
    if not has_sentinels(url):
        return _find_problem_of_server(url, f"Use {default} or unix:///run/redis.sock.")
    cure = "Use redis+sentinel://host:26379,host:26379/service/0."
    parts = split_sentinels(url)
    if parts is None:
        return "it doesn't have the form of a URL with sentinels.", cure
    for one in (parts.server_url, *parts.urls):
        if problem := _find_problem_of_server(one, cure):
            return problem
    return None


def _find_problem_of_server(url: str, cure: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it is not a URL.", cure
    is_network = parts.scheme in {"redis", "rediss"} and host
    database = parts.path.strip("/")
    if not (is_network and (not database or database.isdecimal())) and not (parts.scheme == "unix" and parts.path):
        return f"{without_password(url)!r} is not the address of a Redis server.", cure
    if wrong := _find_wrong_parameter(url):
        return f"its parameter {wrong} is invalid for {parts.scheme}://.", "Correct it or remove it."
    return None


def without_password(url: str) -> str:
    """Shorten a URL with a user or a query to its scheme: a password may contain any character, even `/` and `@`."""
    return re.sub(r"^([a-z+]+://)?.*[@?#].*$", r"\1…", url, flags=re.IGNORECASE | re.DOTALL)


def _find_wrong_parameter(url: str) -> str:
    """Return the invalid parameter of a Redis URL; "" when all are valid.

    A value is never returned: it may be a password.
    """
    address, _, query = url.partition("?")
    parameters = parse_qs(query, keep_blank_values=True)
    for name, values in parameters.items():
        if name not in PARAMETERS:
            return repr(name) if re.fullmatch(r"\w{1,40}", name, re.ASCII) else "with an unknown name"
        if name.endswith("_timeout") and name.startswith("socket_") and not _is_timeout(values[0]):
            return repr(name)
        if name == "ssl_min_version" and values[0] not in {str(int(version)) for version in ssl.TLSVersion}:
            return repr(name)
        if not _makes_connection(f"{address}?{name}={quote(values[0])}"):
            return repr(name)
    return "" if _makes_connection(url) else "list"


def _makes_connection(url: str) -> bool:
    """Tell whether redis-py accepts a URL. Nothing is sent, and no host is resolved."""
    try:
        pool = redis.ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, OverflowError, redis.RedisError):
        return False
    return True


def _is_timeout(text: str) -> bool:
    return bool(re.fullmatch(r"\d{1,3}(\.\d{1,6})?", text, re.ASCII)) and float(text) > 0
