"""What a proxy in front changes: whose address a request has, and whether it comes from this machine at all.

Of the headers that name a client's address only X-Forwarded-For is read, and only from TRUSTED_PROXIES.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from novita_site.env import is_loopback
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
            while chain and is_trusted(address):
                address = read_address(chain.pop()) or UNKNOWN
            request.META["REMOTE_ADDR"] = address
        return get_response(request)

    return middleware


def is_trusted(address: str) -> bool:
    """Tell whether an address is a trusted proxy's."""
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


# --- Requests that come from elsewhere although the connection comes from this machine

# Headers that proxies, CDNs, tunnels and clouds add, by the beginning of their names. A local program sends none.
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
# The others name a client's address, or say themselves that they forward.
_NAMES_A_CLIENT = re.compile(
    r"VIA|.*FORWARDED.*|(.*_)?(CLIENT|CONNECTING|REAL|REMOTE|SRC|SOURCE|USER|PEER|VISITOR|VIEWER|TRUE)_?(IP|ADDR).*"
)


def is_local_owner(request: HttpRequest) -> bool:
    """Tell whether the request needs no login: open mode, from this machine, through no proxy.

    Decided for each request by itself: a web page could make the owner's browser send one that looks forwarded.
    """
    return not settings.REQUIRE_LOGIN and is_loopback(request.META.get("REMOTE_ADDR", "")) and not is_forwarded(request)


def is_forwarded(request: HttpRequest) -> bool:
    """Tell whether anything shows that a proxy has passed the request on.

    A proxy that adds nothing still passes the browser's Origin and Referer on, which name the address that the browser
    knows. nginx before 1.30 speaks HTTP/1.0 unless it is told otherwise; browsers, curl and HTTP libraries don't.
    Nothing shows a stranger's curl behind a proxy that adds nothing and speaks HTTP/1.1: hence REQUIRE_LOGIN.
    """
    meta = request.META
    if meta.get("SERVER_PROTOCOL") == "HTTP/1.0" or any(_is_added_by_proxy(name) for name in meta):
        return True
    origin, referer = meta.get("HTTP_ORIGIN", ""), meta.get("HTTP_REFERER", "")
    # "null": a sandboxed page, which has no address.
    if origin not in {"", "null"} and not _is_own_host(origin, request):
        return True
    return bool(referer) and not _is_own_host(referer, request) and not _is_link_from_elsewhere(request)


def _is_added_by_proxy(name: str) -> bool:
    if not name.startswith("HTTP_"):
        return False
    header = name.removeprefix("HTTP_")
    return header.startswith(_ADDED_BY_PROXIES) or _NAMES_A_CLIENT.fullmatch(header) is not None


def _is_own_host(url: str, request: HttpRequest) -> bool:
    """Tell whether a URL leads to this machine or to the host that the request names; the port is none of this."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return is_loopback(host) or host == urlsplit(f"//{request.get_host()}").hostname


def _is_link_from_elsewhere(request: HttpRequest) -> bool:
    """Tell whether the owner followed a link on another site's page, whose address is the Referer then.

    The browser must call it another site's. By "same-origin" it says that the Referer is the address it knows us by.
    """
    headers = request.headers
    return (
        request.method in {"GET", "HEAD"}
        and headers.get("Sec-Fetch-Site") == "cross-site"
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )
