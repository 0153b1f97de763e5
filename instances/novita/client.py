"""The only module that speaks HTTP to Novita: its v1 GPU-instance API.

The policy, for every call: our own User-Agent (the edge refuses Python's default one); a time limit on each attempt and
a budget over the whole piece of work, since requests has no total timeout; a cap on the body as it is unpacked; no
redirect followed, and no proxy but EGRESS_PROXY_URL, since the key would go there. Only GETs are repeated: a lost
answer to a POST is resolved by reading the instance, never by asking again on trust.
"""

import email.utils
import json
import logging
import math
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, Literal, TypeVar

import requests
import urllib3
from django.conf import settings

from instances.errors import (
    InsufficientResource,
    InvalidStateChange,
    NotFoundAtNovita,
    NovitaBadAnswer,
    NovitaError,
    NovitaRateLimited,
    NovitaRefused,
    NovitaRejectedKey,
    NovitaTimeout,
    NovitaUnavailable,
)
from instances.instance import ActionName, Instance, MalformedInstance, from_novita, read_integer
from instances.outgoing import egress
from instances.outgoing.deadline import Budget

log = logging.getLogger(__name__)

API_PATH: Final = "/gpu-instance/openapi/v1"
USER_AGENT: Final = "novita-panel/1.0"
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
# Ten times the largest account that was tried; an endless paging must end.
MAX_PAGES: Final = 2000
RETRIES: Final = 3
MAX_RETRY_AFTER_SECONDS: Final = 30
FIRST_PAUSE_SECONDS: Final = 0.5
MAX_PAUSE_SECONDS: Final = 8.0

T = TypeVar("T")
R = TypeVar("R")


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that nothing redirects: requests unpacks all of a redirect's body even when it isn't to follow it."""


@dataclass(frozen=True)
class Listing:
    """All instances that Novita listed. `missing_rows`: how many fewer rows than its own `total` says."""

    instances: dict[str, Instance]
    pages: int
    missing_rows: int = 0


@dataclass(frozen=True)
class Product:
    """What can be rented. `price_usd` is per GPU and hour; None: not known, never "free"."""

    id: str
    name: str
    regions: tuple[str, ...]
    is_available: bool
    price_usd: float | None


@dataclass(frozen=True)
class Cluster:
    id: str
    name: str
    gpu_types: tuple[str, ...]


@dataclass
class _Pages:
    """The pages of one listing as they come in."""

    rows: dict[str, Instance] = field(default_factory=dict)
    first_ids: list[str] = field(default_factory=list)
    read: int = 0
    listed_rows: int = 0
    total: int | None = None

    def add(self, number: int, instances: Sequence[Instance], total: int | None) -> bool:
        """Merge a page; True when it was the last one."""
        ids = [instance.id for instance in instances]
        has_new = any(id_ not in self.rows for id_ in ids)
        self.rows.update((instance.id, instance) for instance in instances)
        self.read += 1
        self.total = total if total is not None else self.total
        if number == 0:
            self.first_ids = ids
            # An empty page 0 of an account that isn't empty: pages count from 1, strictly.
            return self._is_complete()
        if not (number == 1 and ids == self.first_ids):
            self.listed_rows += len(ids)
        return not ids or self._is_complete() or (number >= 2 and not has_new)

    def _is_complete(self) -> bool:
        # More rows than the total: an instance went while paging, or the total is nonsense; the pages tell the end.
        return len(self.rows) == self.total

    @property
    def missing_rows(self) -> int:
        return max(0, (self.total or 0) - self.listed_rows - len(self.first_ids))

    def get_expected_last(self) -> int | None:
        """Return the number of the last page if pages count from 1; None when Novita doesn't tell how many rows."""
        if self.total is None or not self.first_ids:
            return None
        return math.ceil(self.total / len(self.first_ids))


class Novita:
    """A connection pool to Novita; made once for each process, shared by its threads."""

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
        self._base = base_url + API_PATH
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

    def list_instances(self, budget: Budget, on_page: Callable[[int, int | None], None] | None = None) -> Listing:
        """Read all pages, several at once; `on_page` hears how many instances are known, of how many.

        Raises NovitaError when any page fails or isn't a listing: a part of the account is never returned as the whole.
        Pages are no snapshot (seen, not documented): an instance that exists can be missing all the same.
        """
        pages = self._read_pages(budget, on_page)
        if not pages.missing_rows:
            return Listing(pages.rows, pages.read)
        # Novita counts more instances than it showed. A second look shows those that slipped over a page's edge.
        again = self._read_pages(budget, on_page)
        return Listing({**pages.rows, **again.rows}, pages.read + again.read, again.missing_rows)

    def _read_pages(self, budget: Budget, on_page: Callable[[int, int | None], None] | None) -> _Pages:
        """Ask for page 0, 1, 2, … until one ends the listing.

        Sources disagree whether pages count from 0 or from 1 (with 0 answered as 1), so a page 1 that repeats page 0 is
        no end, and neither is a short page: Novita may cap the page's size.
        """
        pages = _Pages()
        wave = [0]
        while wave[0] < MAX_PAGES:
            answers = dict(call_each(lambda number: self._read_page(number, budget), wave, self.concurrency))
            for number in wave:
                answer = answers[number]
                if isinstance(answer, NovitaError):
                    raise answer
                is_last = pages.add(number, *self._check_page(number, *answer, pages))
                if on_page:
                    on_page(len(pages.rows), pages.total)
                if is_last:
                    return pages
            width = min(self.concurrency, 2 * len(wave))
            expected = pages.get_expected_last()
            if expected is not None:
                width = max(1, min(self.concurrency, expected - wave[-1]))
            wave = list(range(wave[-1] + 1, wave[-1] + 1 + width))
        raise NovitaBadAnswer(f"Novita's listing did not end within {MAX_PAGES} pages.")

    def _read_page(self, number: int, budget: Budget) -> tuple[list[Instance] | None, int | None]:
        body = self._list("/gpu/instances", {"pageSize": self._page_size, "pageNum": number}, budget)
        if not isinstance(body, dict):
            raise NovitaBadAnswer(f"Novita's page {number} is no object.")
        rows = body.get("instances")
        if not isinstance(rows, list | None):
            raise NovitaBadAnswer(f"Novita's page {number} holds no list of instances.")
        try:
            instances = [from_novita(row) for row in rows] if rows is not None else None
        except MalformedInstance as exc:
            raise NovitaBadAnswer(f"Novita's page {number} can't be used: {exc}.") from exc
        return instances, read_integer(body.get("total"))

    def _check_page(
        self, number: int, instances: list[Instance] | None, total: int | None, pages: _Pages
    ) -> tuple[list[Instance], int | None]:
        """Take a missing list for an empty one where nothing can be left to list, and for nonsense elsewhere."""
        expected = total if total is not None else pages.total
        if instances is None and (len(pages.rows) < expected if expected is not None else number == 0):
            raise NovitaBadAnswer(f"Novita's page {number} holds no list of instances.")
        return instances or [], total

    def get_instance(self, instance_id: str, budget: Budget) -> Instance:
        """Read one instance. Raises NotFoundAtNovita when Novita itself says that there is none."""
        body = self._get("/gpu/instance", {"instanceId": instance_id}, budget)
        try:
            instance = from_novita(body)
        except MalformedInstance as exc:
            raise NovitaBadAnswer(f"Novita's answer is no instance: {exc}.") from exc
        if instance.id != instance_id:
            raise NovitaBadAnswer("Novita answered with another instance.")
        return instance

    def ask(self, action: ActionName, instance_id: str, budget: Budget) -> str | None:
        """Ask for a start, stop or restart; returns the status that Novita named, if any. Sent once, never repeated.

        Novita only takes the order: the status moves later (seen, not documented). A NovitaTimeout, NovitaUnavailable,
        NovitaBadAnswer or InvalidStateChange doesn't tell whether it took effect.
        """
        body = self._call("POST", f"/gpu/instance/{action}", budget, payload={"instanceId": instance_id})
        state = body.get("state") if isinstance(body, dict) else None
        return state if isinstance(state, str) and state else None

    def list_products(self, budget: Budget) -> list[Product]:
        return [
            Product(
                id=str(row.get("id") or ""),
                name=str(row.get("name") or ""),
                regions=_read_texts(row.get("regions")),
                is_available=row.get("availableDeploy") is True,
                price_usd=read_price(row.get("price")),
            )
            for row in self._list_data("/products", budget)
        ]

    def list_clusters(self, budget: Budget) -> list[Cluster]:
        return [
            Cluster(
                id=str(row.get("id") or ""),
                name=str(row.get("name") or ""),
                gpu_types=_read_texts(row.get("availableGpuType")),
            )
            for row in self._list_data("/clusters", budget)
        ]

    def _list_data(self, path: str, budget: Budget) -> list[dict[str, Any]]:
        body = self._list(path, {}, budget)
        rows = body.get("data") if isinstance(body, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise NovitaBadAnswer(f"Novita's answer to {path} holds no list.")
        return rows

    def _list(self, path: str, query: dict[str, str | int], budget: Budget) -> Any:
        """Read a list, where a "not found" can only mean the address itself."""
        try:
            return self._get(path, query, budget)
        except NotFoundAtNovita as exc:
            raise NovitaBadAnswer(f"Novita knows no {path}.") from exc

    def _get(self, path: str, query: dict[str, str | int], budget: Budget) -> Any:
        """Read a JSON document, with retries."""
        for attempt in range(RETRIES + 1):
            try:
                body = self._call("GET", path, budget, query=query)
            except NovitaError as error:
                pause = find_pause(error, attempt, random.random)
                if pause is None:
                    raise
                log.debug("novita GET %s failed (%s), again in %.1f s", path, error.code, pause)
                budget.pause(pause)
                budget.retries += 1
            else:
                if body is _NOT_JSON:
                    raise NovitaBadAnswer("Novita's answer is not JSON.")
                return body
        raise AssertionError("the last attempt raises or returns")

    def _call(
        self,
        method: Literal["GET", "POST"],
        path: str,
        budget: Budget,
        query: dict[str, str | int] | None = None,
        payload: dict[str, str] | None = None,
    ) -> Any:
        """Make one HTTP exchange and return its parsed body, `_NOT_JSON` when it is none. Raises NovitaError."""
        if not self._has_key:
            raise NovitaRejectedKey("NOVITA_API_KEY is not set.")
        with budget.attempt(sum(self._timeouts)) as attempt:
            try:
                response = self._session.request(
                    method,
                    self._base + path,
                    params=query,
                    json=payload,
                    timeout=self._timeouts,
                    allow_redirects=False,
                    stream=True,
                )
                with response:
                    body = _read_body(response)
            except requests.RequestException as exc:
                budget.check()
                raise _name_failure(exc, self._base, is_cut=attempt.is_cut) from exc
        if attempt.is_cut:
            budget.check()
            raise NovitaTimeout(f"Novita did not answer in time{egress.name_way(self._base)}.")
        return _check(response, body)


def find_pause(error: NovitaError, attempt: int, random_unit: Callable[[], float]) -> float | None:
    """Return how many seconds to wait before a GET is repeated; None when it isn't worth it.

    Not repeated: what would be the same again (a refused key, nonsense, a wrong id); a silence, which has taken its
    time already; and a server that asks for more patience than we have.
    """
    if not isinstance(error, NovitaUnavailable | NovitaRateLimited) or attempt >= RETRIES:
        return None
    if error.retry_after is not None and error.retry_after > MAX_RETRY_AFTER_SECONDS:
        return None
    pause = min(FIRST_PAUSE_SECONDS * 2.0**attempt, MAX_PAUSE_SECONDS)
    return max(pause * (0.5 + random_unit()), error.retry_after or 0)


def parse_retry_after(value: str | None) -> float | None:
    """Read Retry-After in seconds or as a date; None when it is absent or malformed."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value[:12])
    try:
        moment: datetime = email.utils.parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def read_price(value: object) -> float | None:
    """Read a price, which Novita gives in 1e-5 USD per GPU and hour, in dollars. "0" and null mean: not known."""
    units = read_integer(value)
    return units / 100_000 if units and units > 0 else None


def call_each(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[tuple[T, R | NovitaError]]:
    """Call a function for each item, some at once; yields each item with its result or error, as they come in.

    The threads are daemons: a process that ends doesn't wait for calls under way, as an executor would.
    """
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[tuple[T, R | BaseException]] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def work() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcomes.put((item, function(item)))
            except BaseException as exc:
                outcomes.put((item, exc))

    for _ in range(min(workers, len(items))):
        threading.Thread(target=work, name="novita", daemon=True).start()
    for _ in items:
        item, outcome = outcomes.get()
        if isinstance(outcome, BaseException) and not isinstance(outcome, NovitaError):
            raise outcome
        yield item, outcome


@cache
def get_novita() -> Novita:
    """Return this process's connection to Novita, after the settings."""
    return Novita(
        api_key=settings.NOVITA_API_KEY,
        base_url=settings.NOVITA_BASE_URL,
        page_size=settings.NOVITA_PAGE_SIZE,
        concurrency=settings.NOVITA_CONCURRENCY,
        connect_timeout_seconds=settings.NOVITA_CONNECT_TIMEOUT,
        read_timeout_seconds=settings.NOVITA_READ_TIMEOUT,
    )


# --- Answers and failures


class _NotJson:
    pass


_NOT_JSON: Final = _NotJson()
_REASON: Final = re.compile("[A-Z][A-Z_]{2,49}")
_PLAIN_WORD: Final = re.compile(
    r"[\"'(]?(?:[A-Za-z]?[a-z]{0,15}|[a-z]{1,9}'[a-z]{1,2}|[A-Z]{1,5}|\d{1,4})[\"')]?[.,;:!?]?"
)
_SECRET_NAME: Final = re.compile("passw|passphrase|secret|token|key|credential|command|env", re.IGNORECASE)


def _read_body(response: requests.Response) -> bytes:
    """Read the body as it is unpacked, up to the cap: 97 kB of gzip can hold 100 MB."""
    body = bytearray()
    for piece in response.iter_content(64 * 1024):
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise NovitaBadAnswer(f"Novita's answer is larger than {MAX_BODY_BYTES >> 20} MB.")
    return bytes(body)


def _check(response: requests.Response, raw: bytes) -> Any:
    """Return the parsed body of a good answer; raise what a bad one means."""
    status = response.status_code
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = _NOT_JSON
    if 200 <= status < 300:
        return body
    retry_after = parse_retry_after(response.headers.get("Retry-After"))
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise NovitaRejectedKey(
            "Novita refuses the API key." if isinstance(body, dict) else f"Novita's edge refuses us (HTTP {status})."
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise NovitaRateLimited(retry_after=retry_after)
    if status >= 500:
        raise NovitaUnavailable(f"Novita is broken (HTTP {status}).", retry_after=retry_after)
    if 300 <= status < 400:
        raise NovitaBadAnswer("Novita redirects elsewhere, which is not followed.")
    if not isinstance(body, dict):
        # A 404 page of some gateway must not pass for "no such instance".
        raise NovitaBadAnswer(f"Novita answered HTTP {status}, not in its own form.")
    raise _name_refusal(status, body)


def _name_refusal(status: int, body: dict[str, Any]) -> NovitaError:
    """Read Novita's `{"code", "reason", "message"}`."""
    reason, message = str(body.get("reason") or ""), str(body.get("message") or "")
    if reason == "RESOURCE_NOT_FOUND" or (status == HTTPStatus.NOT_FOUND and (reason or body.get("code") == status)):
        return NotFoundAtNovita()
    if reason == "INSUFFICIENT_RESOURCE":
        return InsufficientResource()
    name = reason if _REASON.fullmatch(reason) else str(status)
    words = " ".join(f"{_keep_plain_words(message)} ({name})".split())
    if "invalid state" in message.lower() or reason == "INVALID_STATE":
        return InvalidStateChange(f"Novita refused: {words}.")
    return NovitaRefused(f"Novita refused: {words}.")


def _keep_plain_words(message: str) -> str:
    """Return Novita's own words as far as they are plain ones, with … for the others.

    People need to know why; what an error may quote beside that (a password, a command, a key, an address) would be
    stored and shown with it. A secret that is a word like any other would stand after what it is called.
    """
    words = message[:200].split()
    kept: list[str] = []
    for number, word in enumerate(words, 1):
        kept.append(word if _PLAIN_WORD.fullmatch(word) else "…")
        if _SECRET_NAME.search(word):
            kept += ["…"] if words[number:] else []
            break
    return re.sub("…( …)+", "…", " ".join(kept))


def _name_failure(exc: requests.RequestException, url: str, *, is_cut: bool) -> NovitaError:
    way = egress.name_way(url)
    # A silence in the middle of a body comes as a ConnectionError around urllib3's ReadTimeoutError.
    is_silence = bool(exc.args) and isinstance(exc.args[0], urllib3.exceptions.ReadTimeoutError)
    if is_cut or is_silence or isinstance(exc, requests.ReadTimeout):
        return NovitaTimeout(f"Novita did not answer in time{way}.")
    if explained := egress.explain(exc, url):
        return NovitaUnavailable(f"Novita can't be reached: {explained[0]}", suggestion=explained[1])
    if isinstance(exc, requests.exceptions.ContentDecodingError):
        return NovitaBadAnswer("Novita's answer can't be unpacked.")
    if isinstance(exc, requests.ConnectTimeout):
        return NovitaUnavailable(f"Novita can't be reached: no connection in time{way}.")
    if isinstance(exc, requests.exceptions.ChunkedEncodingError):
        return NovitaUnavailable(f"Novita's answer ended too early{way}.")
    return NovitaUnavailable(f"Novita can't be reached{way}.")


def _read_texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
