"""Refuses unsafe requests that another site's page sent. The only module that compares origins.

Django and DRF also compare origins, and exactly. Where this module accepts an origin in another spelling, it replaces
the header with the spelling that they expect.
"""

from urllib.parse import SplitResult, urlsplit

from django.http import HttpRequest, HttpResponseBase

from instances.access.proxies import is_local_owner
from instances.answers import find_own_origin, refuse_origin, to_response
from novita_site.middleware import Handler

SAFE_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE"}
DEFAULT_PORTS = {"http": 80, "https": 443}


def refuse_cross_site(get_response: Handler) -> Handler:
    """Refuse requests that another site's page makes a browser send, with a login and without.

    Browsers send the source of a request in Sec-Fetch-Site, older browsers in Origin. A script sends neither header and
    passes, because no web page can make a script act.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.method not in SAFE_METHODS:
            if _is_cross_site(request):
                return to_response(refuse_origin(request), request)
            _write_origin_as_expected(request)
        return get_response(request)

    return middleware


def _is_cross_site(request: HttpRequest) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        # "same-site" includes other ports of this machine, which belong to other programs.
        return site not in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    return origin is not None and not _is_own(origin, request)


def _is_own(origin: str, request: HttpRequest) -> bool:
    """Compare an origin with the address that the request was sent to, as far as the request still contains it.

    A proxy may have dropped the port (nginx: `Host $host`), terminated TLS without a header, or added a default port.
    It may not have changed the host. Without a login the port must match, because no cookie or token protects anything.
    """
    try:
        theirs, ours = urlsplit(origin.lower()), urlsplit(f"//{request.get_host().lower()}")
        their_port, our_port = theirs.port, ours.port
    except ValueError:
        return False
    is_origin = theirs.scheme in DEFAULT_PORTS and origin.lower() == f"{theirs.scheme}://{theirs.netloc}"
    if not is_origin or "@" in theirs.netloc or theirs.hostname != ours.hostname:
        return False
    if request.is_secure() and theirs.scheme != "https":
        return False
    if our_port is None:
        return their_port in {None, DEFAULT_PORTS[theirs.scheme]} or not is_local_owner(request)
    return (their_port or DEFAULT_PORTS[theirs.scheme]) == our_port


def _write_origin_as_expected(request: HttpRequest) -> None:
    """Replace an equivalent origin with the spelling that Django's CSRF check expects.

    Without an Origin the check compares the Referer of a request over TLS, also with its port.
    """
    sender = request.META.get("HTTP_ORIGIN")
    if sender is None and request.is_secure():
        sender = _find_origin(request.META.get("HTTP_REFERER", ""))
    if sender and _is_own(sender, request):
        request.META["HTTP_ORIGIN"] = find_own_origin(request)


def _find_origin(url: str) -> str:
    try:
        parts: SplitResult = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}"
