"""The certificates and the proxy for calls to Novita and to the login service. Webhooks use neither.

HTTP_PROXY and similar variables are ignored: the API key would go to any address that they contain.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import requests
import urllib3
from django.conf import settings

from instances.outgoing.deadline import WatchedAdapter

# OpenSSL's codes for the forms of "not signed by a trusted authority".
_UNKNOWN_AUTHORITY: Final = {2, 18, 19, 20, 21}
_REFUSED_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")


def prepare(session: requests.Session, *, pool_size: int = 10) -> None:
    """Make a session also trust the authorities of CA_BUNDLE, and call https addresses through EGRESS_PROXY_URL.

    http addresses are on this machine, where no proxy can reach them.
    """
    session.trust_env = False
    adapter = WatchedAdapter(ca_certificates=settings.CA_BUNDLE, pool_maxsize=pool_size, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    if settings.EGRESS_PROXY_URL:
        session.proxies = {"https": settings.EGRESS_PROXY_URL}


def name_way(url: str) -> str:
    """Return " (through the proxy …)" for an error text, without a password; "" for a direct call."""
    if not settings.EGRESS_PROXY_URL or not url.startswith("https:"):
        return ""
    return f" (through the proxy {_name_proxy()})"


def explain(error: BaseException, url: str) -> tuple[str, str] | None:
    """Return the problem and the cure for a failure of certificates or the proxy. None for other failures."""
    host = urlsplit(url).hostname or ""
    causes = list(_list_causes(error))
    is_proxy = any(
        isinstance(cause, urllib3.exceptions.ProxyError | requests.exceptions.ProxyError) for cause in causes
    )
    where = f"the proxy {_name_proxy()}" if is_proxy else host
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _explain_certificate(cause, where)
        if isinstance(cause, ssl.SSLError) and cause.reason:
            words = cause.reason.replace("_", " ").lower()
            return f"The TLS handshake with {where} failed: {words}{name_way(url)}.", "Check the scheme and the port."
        if isinstance(cause, OSError) and (refusal := _REFUSED_TUNNEL.match(str(cause))):
            return _explain_refusal(refusal[1], host)
    if not is_proxy:
        return None
    return f"The proxy {_name_proxy()} can't be reached: {_name_reason(causes)}.", "Check EGRESS_PROXY_URL."


def _explain_certificate(error: ssl.SSLCertVerificationError, where: str) -> tuple[str, str]:
    words = error.verify_message.strip(" .") or "no reason given"
    cure = f"Check the certificate of {where}, and this machine's clock."
    if error.verify_code in _UNKNOWN_AUTHORITY:
        cure = "Set CA_BUNDLE to a PEM file with the certificate of the private authority that signs it."
    return f"certificate verify failed: the certificate of {where} is not trusted: {words}.", cure


def _explain_refusal(status: str, host: str) -> tuple[str, str]:
    cure = "Allow this host at the proxy, or set EGRESS_PROXY_URL to another."
    if status == "407":
        cure = "Put the right user and password into EGRESS_PROXY_URL: http://user:password@host:port."
    return f"The proxy {_name_proxy()} refuses to connect to {host} (HTTP {status}).", cure


def _name_proxy() -> str:
    """Return the proxy's host and port, without a user and a password."""
    return urlsplit(settings.EGRESS_PROXY_URL).netloc.rpartition("@")[2]


def _name_reason(causes: list[BaseException]) -> str:
    for kind, words in (
        (ConnectionRefusedError, "connection refused"),
        (socket.gaierror, "its name can't be found"),
        (TimeoutError, "timed out"),
        (urllib3.exceptions.TimeoutError, "timed out"),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return words
    return "the connection was lost"


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes. requests and urllib3 store some causes in the arguments."""
    while error:
        yield error
        for argument in error.args:
            if isinstance(argument, BaseException):
                yield argument
        error = error.__cause__ or error.__context__
