"""What a proxy in front changes: whose address a request has, and whether it comes from this machine at all.

Of the headers that name a client's address only X-Forwarded-For is read, and only from TRUSTED_PROXIES.
"""

import ipaddress
import re

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from novita_site.middleware import Handler

# An address that a proxy did not name: never this machine, and no client that has an address.
UNKNOWN = "unknown"
# An address with a port or brackets, as proxies write it: "192.0.2.7:6001", "[2001:db8::7]:443".
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]+)\](?::\d+)?|(?P<v4>[\d.]+):\d+")
# Translators between IPv4 and IPv6 (RFC 6052) show every IPv4 client in this network.
_TRANSLATED_IPV4 = ipaddress.ip_network("64:ff9b::/96")
CLIENT_PREFIX_LENGTH = 64


def find_client_address(get_response: Handler) -> Handler:
    """Make REMOTE_ADDR the client's address where a proxy of TRUSTED_PROXIES has passed it on.

    X-Forwarded-For is read from its end, as far as trusted proxies wrote it: the items before that are the client's
    own invention. An item that is no address ("unknown", "_hidden", nothing) makes the client unknown. It must not
    become the proxy, whose address all clients would share, nor what the items before it say.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if settings.TRUSTED_PROXIES:
            header = request.META.get("HTTP_X_FORWARDED_FOR")
            chain = header.split(",") if header is not None else []
            address = request.META.get("REMOTE_ADDR", "")
            while chain and _is_trusted(address):
                address = read_address(chain.pop()) or UNKNOWN
            request.META["REMOTE_ADDR"] = address
        return get_response(request)

    return middleware


def _is_trusted(address: str) -> bool:
    found = read_address(address)
    return bool(found) and any(ipaddress.ip_address(found) in network for network in settings.TRUSTED_PROXIES)


def read_address(text: str) -> str:
    """Return the address in one item of X-Forwarded-For, without port, brackets and zone. "" when it holds none."""
    text = text.strip().strip('"')
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def client_network(address: str) -> str:
    """Return what counts as one client for limits and lockouts: an IPv4 address, the first address of an IPv6 /64.

    A provider gives each customer a /64 at least, so its addresses cost nothing. The audit keeps the full address.
    Always an address that a database column takes, or "" for a client whose address isn't known.
    """
    found = read_address(address)
    if not found:
        return ""
    ip = ipaddress.ip_address(found)
    if isinstance(ip, ipaddress.IPv4Address):
        return found
    if ip in _TRANSLATED_IPV4:
        return str(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
    return str(ipaddress.ip_network((ip, CLIENT_PREFIX_LENGTH), strict=False).network_address)
