"""The effects of a proxy: the client's real address, and whether a request comes from this machine at all.

X-Forwarded-For is the only header that names a client here, and it counts only when a TRUSTED_PROXIES address sent it.
"""

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from novita_site.env import is_loopback
from novita_site.middleware import Handler

# The address when a proxy did not name one. It is neither this machine nor any client with an address.
UNKNOWN = "unknown"
# The address at the other end of the connection, in a request's META.
PEER = "panel.peer_address"
# An address with a port or brackets, as proxies write it: "192.0.2.7:6001", "[2001:db8::7]:443".
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]+)\](?::\d+)?|(?P<v4>[\d.]+):\d+")
# Translators between IPv4 and IPv6 (RFC 6052) map every IPv4 client into this network.
_TRANSLATED_IPV4 = ipaddress.ip_network("64:ff9b::/96")
CLIENT_PREFIX_LENGTH = 64


def find_client_address(get_response: Handler) -> Handler:
    """Set REMOTE_ADDR to the client's address when a proxy of TRUSTED_PROXIES forwarded the request.

    X-Forwarded-For is read from its end, as far as trusted proxies wrote it; a client can invent the items before.
    An item that is no address ("unknown", "_hidden", nothing) makes the client unknown. It must neither become the
    proxy's address, which all clients would share, nor any of the items before it.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        request.META[PEER] = request.META.get("REMOTE_ADDR", "")
        if settings.TRUSTED_PROXIES:
            header = request.META.get("HTTP_X_FORWARDED_FOR")
            chain = header.split(",") if header is not None else []
            address = request.META.get("REMOTE_ADDR", "")
            while chain and is_trusted(address):
                address = read_address(chain.pop()) or UNKNOWN
            request.META["REMOTE_ADDR"] = address
        return get_response(request)

    return middleware


def is_trusted(address: str) -> bool:
    """Return whether the address belongs to a trusted proxy."""
    found = read_address(address)
    return bool(found) and any(ipaddress.ip_address(found) in network for network in settings.TRUSTED_PROXIES)


def read_address(text: str) -> str:
    """Return the address in one item of X-Forwarded-For, without port, brackets and zone. "" when there is none."""
    text = text.strip().strip('"')
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def client_network(address: str) -> str:
    """Return the address that counts as one client for limits and lockouts: IPv4, or the first address of an IPv6 /64.

    Providers give each customer a /64 or more, so addresses within it cost nothing. The audit has the full address.
    The result fits a database column; it is "" for a client with an unknown address.
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


# --- Requests from elsewhere that reach us over a connection from this machine

# Headers that proxies, CDNs, tunnels and clouds add, by prefix. A local program sends none of them.
_ADDED_BY_PROXIES = (
    # Proxies and load balancers
    *(
        "FORWARDED",
        "X_FORWARD",
        "X_NGINX_",
        "X_REWRITE_",
        "X_REAL_",
        "X_ORIGINAL_",
        "X_ORIGINATING_",
        "X_CLIENT_",
        "X_CLUSTER_",
    ),
    *("X_REMOTE_", "REMOTE_", "X_PROXY", "PROXY_CLIENT_", "WL_PROXY_", "X_SCHEME", "X_URL_SCHEME", "FRONT_END_HTTPS"),
    *("MAX_FORWARDS", "X_REQUEST_START", "X_QUEUE_START", "SURROGATE_", "X_VARNISH", "X_ENVOY_", "X_ISTIO_", "X_KONG_"),
    *("X_HAPROXY_", "X_BLUECOAT_", "X_IMFORWARDS", "X_SSL_", "SSL_CLIENT_", "SSL_HTTPS", "X_HTTPS", "X_TLS_"),
    # CDNs
    *(
        "CF_",
        "CDN_",
        "X_CDN",
        "TRUE_CLIENT_",
        "AKAMAI_",
        "X_AKAMAI_",
        "X_EDGE_",
        "FASTLY_",
        "X_SUCURI_",
        "INCAP_",
        "X_PULL",
    ),
    *("CLOUDFRONT_", "ALI_", "EAGLEEYE_"),
    # Clouds and hosting
    *("FLY_", "X_AMZN_", "X_AMZ_", "X_AZURE_", "X_FD_", "X_ARR_", "X_MS_", "X_WAWS_", "X_SITE_DEPLOYMENT_"),
    *("DISGUISED_HOST", "WAS_DEFAULT_HOSTNAME", "X_APPENGINE_", "X_GOOG_", "X_GOOGLE_", "X_GFE_", "X_CLOUD_TRACE_"),
    *("X_VERCEL_", "X_NF_", "X_RAILWAY_", "RNDR_", "X_REPLIT_", "X_KOYEB_", "X_HEROKU_"),
    # Tunnels, and proxies that log people in
    *(
        "TAILSCALE_",
        "X_LOCALTUNNEL_",
        "NGROK_",
        "X_NGROK_",
        "X_TUNNEL_",
        "X_AUTH_REQUEST_",
        "X_AUTHENTIK_",
        "X_POMERIUM_",
        "X_VOUCH_",
    ),
    "X_WEBAUTH_",
)
# Other headers that name a client's address or contain the word "forwarded".
_NAMES_A_CLIENT = re.compile(
    r"VIA|.*FORWARDED.*|(.*_)?(CLIENT|CONNECTING|REAL|REMOTE|SRC|SOURCE|USER|PEER|VISITOR|VIEWER|TRUE)_?(IP|ADDR).*"
)


def is_local_owner(request: HttpRequest) -> bool:
    """Return whether the request needs no login: open mode, sent from this machine, through no proxy.

    Each request is judged alone. Any web page can make the owner's browser send a request that looks forwarded.
    """
    address = request.META.get("REMOTE_ADDR", "")
    return not settings.REQUIRE_LOGIN and _is_this_machine(address) and not is_forwarded(request)


# Most requests come from the same addresses.
_is_this_machine = lru_cache(maxsize=256)(is_loopback)


def is_forwarded(request: HttpRequest) -> bool:
    """Return whether the request shows a sign of a proxy.

    A proxy that adds no header still forwards the browser's Origin and Referer, which contain the public address.
    nginx before 1.30 uses HTTP/1.0 by default; browsers, curl and HTTP libraries don't. A stranger's curl through a
    proxy that adds no header and uses HTTP/1.1 shows no sign at all, and only REQUIRE_LOGIN stops it.
    """
    meta = request.META
    if meta.get("SERVER_PROTOCOL") == "HTTP/1.0" or any(map(_is_added_by_proxy, meta)):
        return True
    origin, referer = meta.get("HTTP_ORIGIN", ""), meta.get("HTTP_REFERER", "")
    # "null" is the origin of a sandboxed page, which has no address.
    if origin not in {"", "null"} and not _is_own_host(origin, request):
        return True
    return bool(referer) and not _is_own_host(referer, request) and not _is_link_from_elsewhere(request)


# Most requests have the same names of headers.
@lru_cache(maxsize=1024)
def _is_added_by_proxy(name: str) -> bool:
    if not name.startswith("HTTP_"):
        return False
    header = name.removeprefix("HTTP_")
    return header.startswith(_ADDED_BY_PROXIES) or _NAMES_A_CLIENT.fullmatch(header) is not None


def _is_own_host(url: str, request: HttpRequest) -> bool:
    """Return whether a URL's host is this machine or the request's Host. Ports don't count."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return is_loopback(host) or host == urlsplit(f"//{request.get_host()}").hostname


def _is_link_from_elsewhere(request: HttpRequest) -> bool:
    """Return whether the owner followed a link on another site's page, so the Referer is that page.

    Sec-Fetch-Site must be "cross-site". With "same-origin" the Referer would be this panel's own public address.
    """
    headers = request.headers
    return (
        request.method in {"GET", "HEAD"}
        and headers.get("Sec-Fetch-Site") == "cross-site"
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )
