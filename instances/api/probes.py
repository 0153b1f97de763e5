"""`/livez` and `/readyz`. They answer on any address, and tell nothing but their status.

Load balancers and kubelets send the address of a machine as the host name, or none. So the probes are answered before
anything compares the name with ALLOWED_HOSTS.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from instances import health
from instances.api.reads import Answer
from novita_site.middleware import Handler


def _answer_livez() -> Answer:
    return _show("alive")


def _answer_readyz() -> Answer:
    return _show("ready") if health.is_ready() else _show("not ready", HTTPStatus.SERVICE_UNAVAILABLE)


def _show(word: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    body = f'{{"status": "{word}"}}'.encode()
    return Answer(status, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)


PROBES: Final[dict[str, Callable[[], Answer]]] = {"/livez": _answer_livez, "/readyz": _answer_readyz}


def answer_early(get_response: Handler) -> Handler:
    """Answer a GET of a probe at once. Other methods go on to `probe`, with all checks of a request."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        answer = PROBES.get(request.path_info.removesuffix("/"))
        if answer is None or request.method not in {"GET", "HEAD"}:
            return get_response(request)
        return answer().to_response()

    return middleware


@login_not_required
def probe(request: HttpRequest) -> HttpResponse:
    return PROBES[request.path_info.removesuffix("/")]().to_response()
