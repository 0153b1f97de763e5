"""The only module that calls a URL that a user gave: it checks the URL and its address, and sends one POST.

Such a URL is treated as hostile. The rules are checked when the URL is given and again before each call, and the
connection goes to the exact address that was checked. The URL's path and query may be secret, and so may the
receiver's answer: no error here quotes them.
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

# urllib3's warning about a malformed header quotes the header and the URL's path; its debug lines quote the path.
logging.getLogger("urllib3").setLevel(logging.ERROR)

MAX_URL_LENGTH: Final = 2000
DNS_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5.0
# For one whole call: DNS, the TLS handshake and the answer.
DEADLINE_SECONDS: Final = 10.0

# Networks that some of Python 3.11 to 3.13 treat as global.
_SPECIAL_IPV4: Final = [ipaddress.ip_network(net) for net in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24")]
# The global IPv6 network, and its special parts: the IETF's (Teredo, ORCHID), documentation, 6to4, documentation.
_GLOBAL_IPV6: Final = ipaddress.ip_network("2000::/3")
_SPECIAL_IPV6: Final = [ipaddress.ip_network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]

T = TypeVar("T")


class RefusedURL(ValueError):
    """A URL that breaks a rule. The message says which."""


class NotDelivered(Exception):
    """No status came back. The message says why."""


# --- The rules for URLs and addresses


@dataclass(frozen=True)
class Receiver:
    """A URL that follows the rules. `is_excepted`: its host is in WEBHOOK_ALLOWED_HOSTS, so it may have any address."""

    url: str
    origin: str
    host: str
    port: int
    is_excepted: bool


def read_url(url: str) -> Receiver:
    """Parse a URL. Raises RefusedURL when it breaks a rule, except for the rule on addresses, which needs DNS."""
    if len(url) > MAX_URL_LENGTH:
        raise RefusedURL(f"It is longer than {MAX_URL_LENGTH} characters.")
    # Parsers disagree on these characters, so the checked host could differ from the called one.
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise RefusedURL(
            "It is empty, or contains spaces, backslashes or characters outside ASCII. Write them as xn--… or %…."
        )
    try:
        parts = urlsplit(url)
        host, typed_port = parts.hostname or "", parts.port
        called = urlsplit(requests.Request("POST", url).prepare().url or "")
        called_as = (called.scheme, called.hostname, called.port)
    except (ValueError, requests.RequestException):
        raise RefusedURL("It is not a URL.") from None
    if "@" in parts.netloc:
        raise RefusedURL("It contains a user or a password, which webhooks don't support.")
    if parts.scheme not in {"https", "http"}:
        raise RefusedURL("It doesn't start with https://.")
    if called_as != (parts.scheme, host, typed_port) or not _is_host(host):
        raise RefusedURL(
            "Its host or port is not in the usual form: a name, or an address like 192.0.2.1 or [2001:db8::1]."
        )
    is_excepted = host in settings.WEBHOOK_ALLOWED_HOSTS
    if parts.scheme == "http" and not is_excepted:
        raise RefusedURL("It doesn't start with https://. Plain http is only for hosts in WEBHOOK_ALLOWED_HOSTS.")
    port = typed_port or {"https": 443, "http": 80}[parts.scheme]
    if port not in settings.WEBHOOK_ALLOWED_PORTS:
        allowed = ", ".join(map(str, settings.WEBHOOK_ALLOWED_PORTS))
        raise RefusedURL(f"Its port {port} is not one of WEBHOOK_ALLOWED_PORTS ({allowed}).")
    if "#" in url:
        raise RefusedURL("It contains a #. The part after it is never sent.")
    return Receiver(url, f"{called.scheme}://{called.netloc}", host, port, is_excepted)


def _is_host(host: str) -> bool:
    """Return whether this is a name, or an address as Python writes it. Resolvers also accept 127.1 and 0x7f000001."""
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
    """Look the host up. Raises RefusedURL unless it is excepted or all of its addresses are public."""
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
        raise RefusedURL("Its host is not on the public internet. To allow it, add it to WEBHOOK_ALLOWED_HOSTS.")


def is_public(address: str) -> bool:
    """Return whether an address is on the public internet and contains no other address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.scope_id is None and ip in _GLOBAL_IPV6 and not any(ip in net for net in _SPECIAL_IPV6)
    is_special = ip.is_multicast or ip.is_reserved or any(ip in net for net in _SPECIAL_IPV4)
    return ip.is_global and not is_special


def _call_within(seconds: float, function: Callable[[], T]) -> T:
    """Call a function in a thread. Raises TimeoutError when it takes longer; the thread then ends later."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as exc:
            future.set_exception(exc)

    # A daemon thread doesn't delay the end of the process, as an executor would.
    threading.Thread(target=run, name="receiver", daemon=True).start()
    return future.result(timeout=seconds)


# --- The call


def post(receiver: Receiver, headers: Mapping[str, str], body: bytes) -> int:
    """Send the body once, within DEADLINE_SECONDS, and return the status. Raises NotDelivered when none came.

    Raises ShuttingDown when this process ends meanwhile. The body of the answer is never read: it could hang, come byte
    by byte, or unpack to gigabytes.
    """
    budget = Budget(DEADLINE_SECONDS)
    try:
        with cancellable(budget):
            return _call_within(DEADLINE_SECONDS, lambda: _exchange(receiver, headers, body, budget))
    except Exception as exc:
        if budget.is_cancelled:
            raise ShuttingDown from None
        # A connection that was cut at the deadline fails in many ways.
        raise NotDelivered(_TIMED_OUT if not budget.remaining_seconds else _describe(exc)) from None


def _exchange(receiver: Receiver, headers: Mapping[str, str], body: bytes, budget: Budget) -> int:
    with _make_session(receiver) as session, budget.attempt(DEADLINE_SECONDS) as attempt:
        with session.post(receiver.url, data=body, headers=headers, allow_redirects=False, stream=True) as response:
            status: int = response.status_code
        # An answer that was cut within its headers can look complete.
        if attempt.is_cut:
            raise TimeoutError
        return status


def _make_session(receiver: Receiver) -> HTTPSession:
    """Return a session for one call. No cookie and no connection outlives it."""
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
        """Return None for every answer: requests unpacks the whole body of a redirect, even if it may not follow it."""


class _PinningAdapter(IPFilterAdapter, WatchedAdapter):  # type: ignore[misc] # Likewise.
    """Connects to the address that was checked, even if the name resolves differently a moment later."""

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        host, pool = super().build_connection_pool_key_attributes(*args, **kwargs)
        # The library accepts ::127.0.0.1 and fec0::1.
        if not is_public(host["host"].strip("[]")):
            raise InvalidIPAddress
        return host, pool


_TIMED_OUT: Final = f"No answer within {DEADLINE_SECONDS:g} s."
# The first match among an error and its causes gives the sentence. The library's own texts would quote the URL.
_FAILURES: Final[list[tuple[type[BaseException], str]]] = [
    (InvalidIPAddress, "The receiver's host is no longer on the public internet."),
    (ssl.SSLCertVerificationError, "The receiver's certificate is not trusted."),
    (CertificateError, "The receiver's certificate belongs to another host."),
    (socket.gaierror, "The receiver's host can't be found."),
    (TimeoutError, "The connection to the receiver timed out."),
    (requests.Timeout, "The connection to the receiver timed out."),
    (ssl.SSLError, "The TLS handshake with the receiver failed."),
    (ConnectionRefusedError, "The receiver refused the connection."),
    (requests.RequestException, "The connection was lost, or the answer was not HTTP."),
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
