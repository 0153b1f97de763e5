"""`/metrics`, for Prometheus. It needs neither a session nor the database: a token, or an address.

It is answered before anything compares the host name with ALLOWED_HOSTS, because Prometheus often has only an address.
Without the token the name counts: any web page can send a browser's request to a name of its own.
"""

import hmac
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from instances import answers
from instances.access import proxies
from instances.errors import NotAllowed, NotAuthenticated, PanelError
from instances.monitoring import families
from novita_site.middleware import Handler

PATH: Final = "/metrics"
_OFF: Final = "Metrics are off, because METRICS_TOKEN and METRICS_ALLOW are not set."


class _Collected(Collector):
    def collect(self) -> Iterable[Metric]:
        return families.collect()


def answer_early(get_response: Handler) -> Handler:
    """Answer a GET at once. Other methods go on to `show`, with all checks of a request."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path_info.removesuffix("/") != PATH or request.method not in {"GET", "HEAD"}:
            return get_response(request)
        return _answer(request)

    return middleware


@login_not_required
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    return _answer(request)


def _answer(request: HttpRequest) -> HttpResponse:
    if refusal := _find_refusal(request):
        return answers.to_response(refusal, request)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(_Collected()), content_type=content_type)


def _find_refusal(request: HttpRequest) -> PanelError | None:
    """Return why the visitor may not read the metrics. Raises DisallowedHost without the token."""
    token, networks = settings.METRICS_TOKEN, settings.METRICS_ALLOW
    given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if token and hmac.compare_digest(given, f"Bearer {token}".encode()):
        return None
    request.get_host()
    if proxies.is_local_owner(request) or (networks and _is_in(request, networks)):
        return None
    if token:
        return NotAuthenticated(suggestion="Send METRICS_TOKEN as a bearer token in the Authorization header.")
    if networks:
        return NotAllowed("Your address is not in METRICS_ALLOW.")
    return NotAllowed(_OFF, suggestion="Set one of them, and restart the web server.")


def _is_in(request: HttpRequest, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Tell whether the client's address is in the networks.

    Behind a proxy that isn't trusted, the address is the proxy's, whoever sends the request.
    """
    if proxies.is_forwarded(request) and not proxies.is_trusted(request.META[proxies.PEER]):
        return False
    address = proxies.read_address(request.META["REMOTE_ADDR"])
    return bool(address) and any(ip_address(address) in network for network in networks)
