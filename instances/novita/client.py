"""The only module that sends HTTP requests to Novita: its v1 GPU-instance API.

For every call: a User-Agent of our own, since Novita's edge refuses Python's; a time limit for each attempt and a
budget for the whole task, since requests has no total timeout; a limit on the unpacked body; no redirects, and no proxy
but EGRESS_PROXY_URL, which would all receive the key. Only GETs are repeated. A lost answer to a POST is resolved by
reading the instance: a second request could act twice.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, Literal

import requests
from django.conf import settings

from instances.errors import (
    NotFoundAtNovita,
    NovitaBadAnswer,
    NovitaError,
    NovitaRateLimited,
    NovitaRejectedKey,
    NovitaTimeout,
    NovitaUnavailable,
    PanelError,
)
from instances.instance import ACTION_NAMES, ActionName, Instance, MalformedInstance
from instances.monitoring import counters
from instances.novita import failures, paging
from instances.novita.billing import Balance, Bill, parse_balance, parse_bills
from instances.novita.catalog import Cluster, Product, parse_clusters, parse_products
from instances.novita.metrics import Metrics, parse_metrics
from instances.novita.rows import from_novita
from instances.outgoing import egress
from instances.outgoing.deadline import Budget
from novita_site import __version__

log = logging.getLogger(__name__)

API_PATH: Final = "/gpu-instance/openapi/v1"
BILLING_PATH: Final = "/openapi/v1/billing"
METRICS_PATH: Final = "/openapi/v1/metrics/gpu/instance"
# The name of each call in the metrics.
_CALLS: Final = {
    f"{API_PATH}/gpu/instances": "list",
    f"{API_PATH}/gpu/instance": "read",
    **{f"{API_PATH}/gpu/instance/{action}": action for action in ACTION_NAMES},
    f"{API_PATH}/products": "products",
    f"{API_PATH}/clusters": "clusters",
    f"{BILLING_PATH}/balance/detail": "balance",
    f"{BILLING_PATH}/bill/list": "bills",
    METRICS_PATH: "metrics",
}
USER_AGENT: Final = f"novita-panel/{__version__}"
RETRIES: Final = 3
MAX_RETRY_AFTER_SECONDS: Final = 30
FIRST_PAUSE_SECONDS: Final[float] = settings.NOVITA_FIRST_PAUSE_SECONDS
MAX_PAUSE_SECONDS: Final = 8.0


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Find no redirect: requests unpacks the whole body of one, even when it isn't to follow it."""


class Novita:
    """A connection pool to Novita. Each process has one, which its threads share."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        page_size: int,
        concurrency: int,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
    ) -> None:
        self._has_key = bool(api_key)
        self._host = base_url
        self._page_size = page_size
        self.concurrency = concurrency
        self._timeouts = (connect_timeout_seconds, read_timeout_seconds)
        self._session = _Session()
        egress.prepare(self._session, pool_size=2 * concurrency)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": USER_AGENT,
        }

    def list_instances(self, budget: Budget, on_page: paging.OnPage | None = None) -> paging.Listing[Instance]:
        """List the whole account. Raises NovitaError when any page fails: a part never passes for the whole."""
        return self.list_kept(lambda instance: instance, budget, on_page)

    def list_kept(
        self, keep: Callable[[Instance], paging.Kept], budget: Budget, on_page: paging.OnPage | None = None
    ) -> paging.Listing[paging.Kept]:
        """List the whole account, and keep only what `keep` returns for each instance."""

        def fetch(number: int) -> Any:
            return self._list(f"{API_PATH}/gpu/instances", {"pageSize": self._page_size, "pageNum": number}, budget)

        return paging.list_all(fetch, keep, self.concurrency, on_page)

    def probe(self, budget: Budget) -> None:
        """Read one row of the account, without a retry. Raises NovitaError while Novita can't be read."""
        self._call("GET", f"{API_PATH}/gpu/instances", budget, query={"pageSize": 1, "pageNum": 0})

    def get_instance(self, instance_id: str, budget: Budget) -> Instance:
        """Read one instance. Raises NotFoundAtNovita when Novita itself says that it doesn't exist."""
        body = self._get(f"{API_PATH}/gpu/instance", {"instanceId": instance_id}, budget)
        try:
            instance = from_novita(body)
        except MalformedInstance as exc:
            raise NovitaBadAnswer(f"Novita's answer is not an instance: {exc}.") from exc
        if instance.id != instance_id:
            raise NovitaBadAnswer("Novita answered with another instance.")
        return instance

    def request(self, action: ActionName, instance_id: str, budget: Budget) -> str | None:
        """Request a start, stop or restart, once. Return the status that Novita named, if any.

        Novita only accepts the request; the status changes later (seen, not documented). After a NovitaTimeout,
        NovitaUnavailable, NovitaBadAnswer or InvalidStateChange it is unknown whether the request took effect.
        """
        body = self._call("POST", f"{API_PATH}/gpu/instance/{action}", budget, payload={"instanceId": instance_id})
        state = body.get("state") if isinstance(body, dict) else None
        return state if isinstance(state, str) and state else None

    def list_products(self, budget: Budget) -> list[Product]:
        return parse_products(self._list(f"{API_PATH}/products", {}, budget))

    def list_clusters(self, budget: Budget) -> list[Cluster]:
        return parse_clusters(self._list(f"{API_PATH}/clusters", {}, budget))

    def read_balance(self, budget: Budget) -> Balance:
        """Raises NovitaRejectedKey also for a good key whose role may not read the balance."""
        return parse_balance(self._list(f"{BILLING_PATH}/balance/detail", {}, budget))

    def list_bills(self, category: str, begin: datetime, end: datetime, budget: Budget) -> Sequence[Bill]:
        """List the bills by day, of at most 31 days."""
        query: Mapping[str, str | int] = {
            "cycleType": "Day",
            "productCategory": category,
            "startTime": int(begin.timestamp()),
            "endTime": int(end.timestamp()),
        }
        return parse_bills(self._list(f"{BILLING_PATH}/bill/list", query, budget))

    def read_metrics(
        self, instance_id: str, begin: datetime, end: datetime, interval_seconds: int, budget: Budget
    ) -> Metrics:
        """Read the metrics of an instance, with a single attempt: everything else is more important."""
        query: Mapping[str, str | int] = {
            "instanceId": instance_id,
            "startTime": int(begin.timestamp()),
            "endTime": int(end.timestamp()),
            "interval": interval_seconds,
        }
        body = self._call("GET", METRICS_PATH, budget, query=query)
        if body is failures.NOT_JSON:
            raise NovitaBadAnswer("Novita's answer is not JSON.")
        return parse_metrics(body)

    def _list(self, path: str, query: Mapping[str, str | int], budget: Budget) -> Any:
        """Read a list, where "not found" can only mean a wrong address."""
        try:
            return self._get(path, query, budget)
        except NotFoundAtNovita as exc:
            raise NovitaBadAnswer(f"Novita has no {path}. Is NOVITA_BASE_URL right?") from exc

    def _get(self, path: str, query: Mapping[str, str | int], budget: Budget) -> Any:
        """Read a JSON document, with retries."""
        for attempt in range(RETRIES + 1):
            try:
                body = self._call("GET", path, budget, query=query)
            except NovitaError as error:
                pause = find_pause(error, attempt, random.random)
                if pause is None:
                    raise
                log.debug("novita GET %s failed (%s), retrying in %.1f s", path, error.code, pause)
                budget.pause(pause)
                budget.retries += 1
            else:
                if body is failures.NOT_JSON:
                    raise NovitaBadAnswer("Novita's answer is not JSON.")
                return body
        raise AssertionError("the last attempt raises or returns")

    def _call(
        self,
        method: Literal["GET", "POST"],
        path: str,
        budget: Budget,
        query: Mapping[str, str | int] | None = None,
        payload: dict[str, str] | None = None,
    ) -> Any:
        """Make one HTTP exchange, and count it. Return the parsed body, or NOT_JSON. Raises NovitaError."""
        if not self._has_key:
            raise NovitaRejectedKey("NOVITA_API_KEY is not set.")
        began = time.monotonic()
        code = ""
        try:
            response, body = self._exchange(method, path, budget, query, payload)
            code = str(response.status_code)
        except PanelError as exc:
            code = exc.code
            raise
        finally:
            counters.count_call(_CALLS[path], code, time.monotonic() - began)
        return failures.check_answer(response, body)

    def _exchange(
        self,
        method: Literal["GET", "POST"],
        path: str,
        budget: Budget,
        query: Mapping[str, str | int] | None,
        payload: dict[str, str] | None,
    ) -> tuple[requests.Response, bytes]:
        """Return the answer and its body. Raises NovitaError when no complete answer comes."""
        with budget.attempt(sum(self._timeouts)) as attempt:
            try:
                response = self._session.request(
                    method,
                    self._host + path,
                    params=query,
                    json=payload,
                    timeout=self._timeouts,
                    allow_redirects=False,
                    stream=True,
                )
                with response:
                    body = failures.read_body(response)
            except requests.RequestException as exc:
                budget.check()
                raise failures.name_failure(exc, self._host, is_cut=attempt.is_cut) from exc
        if attempt.is_cut:
            budget.check()
            raise NovitaTimeout(f"Novita did not answer in time{egress.name_way(self._host)}.")
        return response, body


def find_pause(error: NovitaError, attempt: int, random_unit: Callable[[], float]) -> float | None:
    """Return the seconds until a GET is repeated, or None when a retry is pointless.

    Not repeated: a refused key, an unreadable answer and a wrong id, which would be the same again; a silence, which
    has cost its time already; and a Retry-After beyond our own limit.
    """
    if not isinstance(error, NovitaUnavailable | NovitaRateLimited) or attempt >= RETRIES:
        return None
    if error.retry_after is not None and error.retry_after > MAX_RETRY_AFTER_SECONDS:
        return None
    pause = min(FIRST_PAUSE_SECONDS * 2.0**attempt, MAX_PAUSE_SECONDS)
    return max(pause * (0.5 + random_unit()), error.retry_after or 0)


@cache
def get_novita() -> Novita:
    """Return this process's connection pool to Novita, made from the settings."""
    return Novita(
        api_key=settings.NOVITA_API_KEY,
        base_url=settings.NOVITA_BASE_URL,
        page_size=settings.NOVITA_PAGE_SIZE,
        concurrency=settings.NOVITA_CONCURRENCY,
        connect_timeout_seconds=settings.NOVITA_CONNECT_TIMEOUT,
        read_timeout_seconds=settings.NOVITA_READ_TIMEOUT,
    )
