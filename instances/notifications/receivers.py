"""The only module that calls a URL that somebody typed in: which are let pass, and one POST to one of them.

Such a URL is hostile until it is shown harmless. Its rules are checked when it is typed in and again before each call,
and the connection goes to the very address that was checked. Its path and query may be secret, and so may what a
receiver answers: no error here quotes either.
"""

import ipaddress
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from django.conf import settings
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.util.ssl_match_hostname import CertificateError

from instances.errors import ShuttingDown
from instances.outgoing.deadline import Budget, WatchedAdapter, cancellable

# urllib3's warning of a malformed header quotes the header and the URL's path; its debug lines quote the path.
logging.getLogger("urllib3").setLevel(logging.ERROR)

MAX_URL_LENGTH: Final = 2000
DNS_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5.0
# For the whole of a call: DNS, the TLS handshake and the answer.
DEADLINE_SECONDS: Final = 10.0

# What Python 3.11 to 3.13 take for global, or some of them do.
_SPECIAL_IPV4: Final = [ipaddress.ip_network(net) for net in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24")]
# All that is global in IPv6, and in it: the IETF's own (Teredo, ORCHID), documentation, 6to4, documentation.
_GLOBAL_IPV6: Final = ipaddress.ip_network("2000::/3")
_SPECIAL_IPV6: Final = [ipaddress.ip_network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]

T = TypeVar("T")


class RefusedURL(ValueError):
    """A URL that breaks a rule; the message is a sentence on it."""


class NotDelivered(Exception):
    """No status came back; the message says why, in a sentence."""


# --- Which URLs are let pass


@dataclass(frozen=True)
class Receiver:
    """A URL that keeps the rules. `is_excepted`: named in WEBHOOK_ALLOWED_HOSTS, so its address may be any."""

    url: str
    origin: str
    host: str
    port: int
    is_excepted: bool


def read_url(url: str) -> Receiver:
    """Raise RefusedURL when it breaks a rule, but for the one on addresses."""
    if len(url) > MAX_URL_LENGTH:
        raise RefusedURL(f"It is longer than {MAX_URL_LENGTH} characters.")
    # Parsers disagree on these, so that one could check another host than is called.
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise RefusedURL(
            "It is empty, or holds spaces, backslashes or characters outside ASCII: a name is written xn--…, others %…."
        )
    try:
        parts = urlsplit(url)
        host, typed_port = parts.hostname or "", parts.port
        called = urlsplit(requests.Request("POST", url).prepare().url or "")
        called_as = (called.scheme, called.hostname, called.port)
    except (ValueError, requests.RequestException):
        raise RefusedURL("It is no URL.") from None
    if "@" in parts.netloc:
        raise RefusedURL("It holds a user or a password, which a webhook doesn't take.")
    if parts.scheme not in {"https", "http"}:
        raise RefusedURL("It doesn't begin with https://.")
    if called_as != (parts.scheme, host, typed_port) or not _is_host(host):
        raise RefusedURL(
            "Its host or port is not in the usual form: a name, or an address like 192.0.2.1 or [2001:db8::1]."
        )
    is_excepted = host in settings.WEBHOOK_ALLOWED_HOSTS
    if parts.scheme == "http" and not is_excepted:
        raise RefusedURL("It doesn't begin with https://; http is for hosts in WEBHOOK_ALLOWED_HOSTS.")
    port = typed_port or {"https": 443, "http": 80}[parts.scheme]
    if port not in settings.WEBHOOK_ALLOWED_PORTS:
        allowed = ", ".join(map(str, settings.WEBHOOK_ALLOWED_PORTS))
        raise RefusedURL(f"Its port {port} is not one of WEBHOOK_ALLOWED_PORTS ({allowed}).")
    if "#" in url:
        raise RefusedURL("It holds a #; what follows one is never sent.")
    return Receiver(url, f"{called.scheme}://{called.netloc}", host, port, is_excepted)


def _is_host(host: str) -> bool:
    """Tell whether it is a name, or an address as Python writes it: a resolver takes 127.1 and 0x7f000001 as well."""
    if ":" in host:
        return "%" not in host and _is_address(host)
    labels = host.split(".")
    looks_like_number = re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1])
    is_name = len(host) <= 253 and all(re.fullmatch(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", label) for label in labels)
    return _is_address(host) if looks_like_number else is_name


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def check_addresses(receiver: Receiver) -> None:
    """Look the host up; raise RefusedURL unless each of its addresses is public, or it is excepted."""
    if receiver.is_excepted:
        return
    try:
        found = _call_within(
            DNS_SECONDS, lambda: socket.getaddrinfo(receiver.host, receiver.port, type=socket.SOCK_STREAM)
        )
    except TimeoutError:
        raise RefusedURL(f"Its host could not be looked up within {DNS_SECONDS:g} s.") from None
    except (OSError, UnicodeError):
        raise RefusedURL("Its host can't be found.") from None
    if not found or not all(is_public(str(entry[4][0])) for entry in found):
        raise RefusedURL("Its host is not on the public internet; WEBHOOK_ALLOWED_HOSTS names exceptions.")


def is_public(address: str) -> bool:
    """Tell whether it is an address on the public internet and carries no other address in it."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.scope_id is None and ip in _GLOBAL_IPV6 and not any(ip in net for net in _SPECIAL_IPV6)
    is_special = ip.is_multicast or ip.is_reserved or any(ip in net for net in _SPECIAL_IPV4)
    return ip.is_global and not is_special


def _call_within(seconds: float, function: Callable[[], T]) -> T:
    """Call a function in a thread; raise TimeoutError when it takes longer, and leave the thread to itself."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as exc:
            future.set_exception(exc)

    # A daemon: a process that ends doesn't wait for it, as an executor would.
    threading.Thread(target=run, name="receiver", daemon=True).start()
    return future.result(timeout=seconds)


# --- The call


def post(receiver: Receiver, headers: Mapping[str, str], body: bytes) -> int:
    """Send it once, for DEADLINE_SECONDS at most, and return the status. Raises NotDelivered when none came.

    Raises ShuttingDown when this process ends meanwhile.

    The answer's body is never read: it could hang, drip or be a bomb.
    """
    budget = Budget(DEADLINE_SECONDS)
    try:
        with cancellable(budget):
            return _call_within(DEADLINE_SECONDS, lambda: _exchange(receiver, headers, body, budget))
    except Exception as exc:
        if budget.is_cancelled:
            raise ShuttingDown from None
        # A connection that was cut in time breaks off in many ways.
        raise NotDelivered(_TIMED_OUT if not budget.remaining_seconds else _describe(exc)) from None


def _exchange(receiver: Receiver, headers: Mapping[str, str], body: bytes, budget: Budget) -> int:
    with _make_session(receiver) as session, budget.attempt(DEADLINE_SECONDS) as attempt:
        with session.post(receiver.url, data=body, headers=headers, allow_redirects=False, stream=True) as response:
            status: int = response.status_code
        # What was cut within its headers looks like a whole answer.
        if attempt.is_cut:
            raise TimeoutError
        return status


def _make_session(receiver: Receiver) -> HTTPSession:
    """Return a session for one call: nothing is left in it, no cookie and no connection."""
    timeouts = (CONNECT_SECONDS, DEADLINE_SECONDS)
    session = _Session(Config(True, False, never_redirect=True, default_timeout=timeouts))
    session.trust_env = False
    session.headers.clear()
    session.mount("https://", WatchedAdapter() if receiver.is_excepted else _PinningAdapter(True))
    if receiver.is_excepted:
        session.mount("http://", WatchedAdapter())
    return session


class _Session(HTTPSession):  # type: ignore[misc] # The library has no types.
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that nothing redirects: requests unpacks all of a redirect's body even when it isn't to follow it."""


class _PinningAdapter(IPFilterAdapter, WatchedAdapter):  # type: ignore[misc] # Likewise.
    """Connects to the address that was checked, whatever the name means a moment later."""

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        host, pool = super().build_connection_pool_key_attributes(*args, **kwargs)
        # The library lets ::127.0.0.1 and fec0::1 pass.
        if not is_public(host["host"].strip("[]")):
            raise InvalidIPAddress
        return host, pool


_TIMED_OUT: Final = f"No answer within {DEADLINE_SECONDS:g} s."
# The first that fits an error, or what caused it, tells it; the library's words would quote the URL.
_FAILURES: Final[list[tuple[type[BaseException], str]]] = [
    (InvalidIPAddress, "The receiver's host is not on the public internet any more."),
    (ssl.SSLCertVerificationError, "The receiver's certificate is not trusted."),
    (CertificateError, "The receiver's certificate is another host's."),
    (socket.gaierror, "The receiver's host can't be found."),
    (TimeoutError, "The receiver can't be reached in time."),
    (requests.Timeout, "The receiver can't be reached in time."),
    (ssl.SSLError, "The TLS handshake with the receiver failed."),
    (ConnectionRefusedError, "The receiver refused the connection."),
    (requests.RequestException, "The connection broke off, or the answer was not HTTP."),
]


def _describe(error: BaseException) -> str:
    causes = list(_list_causes(error))
    for kind, words in _FAILURES:
        if any(isinstance(cause, kind) for cause in causes):
            return words
    return f"An unexpected error: {type(error).__name__}."


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__
