"""How each possible answer of Novita is read. tests/test_novita_wire.py has the tests that need a real socket."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st

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
from instances.instance import Instance
from instances.novita.catalog import Cluster, Product
from instances.novita.client import Novita, find_pause
from instances.novita.failures import parse_retry_after
from instances.outgoing.deadline import Budget
from tests.novita_answers import API, NovitaAnswers, make_refusal, make_row

LISTING = f"{API}/gpu/instances"


def connect(*, api_key: str = "FAKE-SECRET-key", concurrency: int = 4) -> Novita:
    return Novita(
        api_key=api_key,
        base_url="https://novita.test",
        page_size=100,
        concurrency=concurrency,
        connect_timeout_seconds=5,
        read_timeout_seconds=20,
    )


# --- Paging

Start = Literal["0", "1", "1 strictly"]


class Pages:
    """An account that is listed page by page, in one of the ways that sources report of Novita."""

    def __init__(
        self, novita: NovitaAnswers, *ids: str, start: Start = "1", cap: int = 3, total: object = None
    ) -> None:
        self.ids, self.start, self.cap, self.total = ids, start, cap, total
        self.past_end: dict[str, Any] = {"instances": []}
        self.requested: list[int] = []
        self.refused: int | None = None
        self.on_call: Callable[[], None] | None = None
        novita.mock.add_callback(responses.GET, LISTING, self.answer)

    def answer(self, request: Any) -> tuple[int, dict[str, str], str]:
        number = int(request.params["pageNum"])
        self.requested.append(number)
        if self.on_call:
            self.on_call()
        if number == self.refused:
            return 401, {}, "{}"
        size = min(int(request.params["pageSize"]), self.cap)
        index = {"0": number, "1": max(0, number - 1), "1 strictly": number - 1}[self.start]
        ids = self.ids[index * size : (index + 1) * size] if index >= 0 else ()
        body = {"instances": [make_row(id_) for id_ in ids]} if ids or number == 0 else self.past_end
        return 200, {}, json.dumps(body if self.total is None else {**body, "total": self.total})


@pytest.mark.parametrize("start", ["0", "1", "1 strictly"])
@pytest.mark.parametrize("total", [None, int, str])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 30])
def test_every_instance_is_listed_however_novita_counts_pages(
    novita: NovitaAnswers, start: Start, total: Callable[[int], object] | None, count: int
) -> None:
    ids = [f"id-{number}" for number in range(count)]
    Pages(novita, *ids, start=start, total=total and total(count))

    listing = connect().list_instances(Budget(30))

    assert sorted(listing.instances) == sorted(ids)
    assert listing.missing_rows == 0


@pytest.mark.parametrize("start", ["0", "1", "1 strictly"])
@pytest.mark.parametrize(
    "past_end", [{"instances": None}, {}, {"instances": [make_row("g")]}], ids=["null", "absent", "repeated"]
)
def test_any_answer_past_the_end_ends_the_listing(
    novita: NovitaAnswers, start: Start, past_end: dict[str, Any]
) -> None:
    Pages(novita, *"abcdefg", start=start).past_end = past_end

    assert sorted(connect().list_instances(Budget(30)).instances) == list("abcdefg")


@pytest.mark.parametrize("total", [0, "0", "1", -1, "many", []])
def test_wrong_total_does_not_end_the_listing(novita: NovitaAnswers, total: object) -> None:
    Pages(novita, *"abcdefg", total=total)

    assert sorted(connect().list_instances(Budget(30)).instances) == list("abcdefg")


def test_account_of_one_page_takes_one_call(novita: NovitaAnswers) -> None:
    pages = Pages(novita, *"abc", total=3)

    connect().list_instances(Budget(30))

    assert pages.requested == [0]


def test_instance_on_two_pages_is_listed_once(novita: NovitaAnswers) -> None:
    novita.lists(make_row("a"), make_row("b"), page=0, total=3)
    novita.lists(make_row("b", status="exited"), make_row("c"), page=1, total=3)
    # Requested at the same time as page 1, or no longer needed.
    novita.mock.assert_all_requests_are_fired = False
    novita.lists(page=2, total=3)

    listed = connect().list_instances(Budget(30)).instances

    assert {id_: instance.status for id_, instance in listed.items()} == {"a": "running", "b": "exited", "c": "running"}


def test_listing_short_of_its_total_is_read_again_and_merged(novita: NovitaAnswers) -> None:
    for last in ("c", "d"):
        novita.lists(make_row("a"), make_row("b"), page=0, total="4")
        novita.lists(make_row(last), page=1, total="4")
        novita.lists(page=2, total="4")

    listing = connect().list_instances(Budget(30))

    assert sorted(listing.instances) == ["a", "b", "c", "d"]
    assert listing.missing_rows == 1


def test_endless_listing_is_an_error(novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instances.novita.paging.MAX_PAGES", 20)
    pages = Pages(novita, *map(str, range(1000)), cap=1)

    with pytest.raises(NovitaBadAnswer, match="did not end within 20 pages"):
        connect().list_instances(Budget(30))

    assert len(pages.requested) <= 20 + 4


def test_no_page_is_requested_after_one_has_failed(novita: NovitaAnswers) -> None:
    pages = Pages(novita, *map(str, range(300)), start="0", cap=3, total=300)
    pages.refused = 1

    with pytest.raises(NovitaRejectedKey):
        connect(concurrency=2).list_instances(Budget(30))

    time.sleep(0.1)
    assert len(pages.requested) < 20


def test_pages_of_a_known_total_are_each_requested_once(novita: NovitaAnswers) -> None:
    pages = Pages(novita, *map(str, range(300)), cap=3, total=300)

    assert connect().list_instances(Budget(30)).pages == 101

    assert sorted(pages.requested) == list(range(101))


def test_one_thread_reads_the_rows_of_all_pages(novita: NovitaAnswers) -> None:
    Pages(novita, *map(str, range(60)), total=60)

    listing = connect().list_kept(lambda _: threading.get_ident(), Budget(30))

    assert set(listing.instances.values()) == {threading.get_ident()}


def test_few_pages_wait_for_their_rows_to_be_read(novita: NovitaAnswers) -> None:
    pages = Pages(novita, *map(str, range(300)), total=300)
    ahead = []

    def keep(instance: Instance) -> None:
        time.sleep(0.001)
        ahead.append(len(pages.requested) - len(ahead) // 3)

    connect(concurrency=2).list_kept(keep, Budget(30))

    assert max(ahead) <= 2 * 2 + 2


PAGE_FAILURES = {
    "broken": ({"status": 500}, NovitaUnavailable),
    "refused key": ({"status": 401, "json": {}}, NovitaRejectedKey),
    "HTML": ({"json": None, "body": "<html>"}, NovitaBadAnswer),
    "null": ({"json": None, "body": "null"}, NovitaBadAnswer),
    "a list": ({"json": [make_row("c")]}, NovitaBadAnswer),
    "rows by id": ({"json": {"instances": {"c": make_row("c")}, "total": 3}}, NovitaBadAnswer),
    "null for the rows": ({"json": {"instances": None, "total": 3}}, NovitaBadAnswer),
    "no rows": ({"json": {"total": 3}}, NovitaBadAnswer),
    "a row without id": ({"json": {"instances": [make_row("")], "total": 3}}, NovitaBadAnswer),
    "a row that is null": ({"json": {"instances": [None], "total": 3}}, NovitaBadAnswer),
}


@pytest.mark.parametrize(("failure", "error"), PAGE_FAILURES.values(), ids=PAGE_FAILURES)
@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.usefixtures("no_pauses")
def test_failed_page_fails_the_listing(
    novita: NovitaAnswers, page: int, failure: dict[str, Any], error: type[NovitaError]
) -> None:
    if page == 1:
        novita.lists(make_row("a"), make_row("b"), total=3)
        novita.mock.assert_all_requests_are_fired = False
        novita.lists(make_row("c"), page=2, total=3)
    novita.lists(page=page, total=3, **failure)

    with pytest.raises(error):
        connect().list_instances(Budget(30))


@pytest.mark.parametrize(
    ("row", "reason"), [({"name": "FAKE-SECRET"}, "a row has no id"), ("FAKE-SECRET", "a row is a str, not an object")]
)
def test_malformed_row_is_reported_without_its_contents(novita: NovitaAnswers, row: object, reason: str) -> None:
    novita.lists(make_row("a"), row)

    with pytest.raises(NovitaBadAnswer, match=f"^Page 0 of Novita's list can't be used: {reason}") as refusal:
        connect().list_instances(Budget(30))

    assert "FAKE-SECRET" not in str(refusal.value)


def test_pages_are_read_in_parallel_up_to_the_limit(novita: NovitaAnswers) -> None:
    pages = Pages(novita, *map(str, range(9)), start="0", cap=1, total=9)
    meeting, inside, most = threading.Barrier(3, timeout=20), set[str](), 0

    def meet() -> None:
        nonlocal most
        if len(pages.requested) > 1:
            inside.add(str(threading.get_ident()))
            time.sleep(0.05)
            most = max(most, len(inside))
            meeting.wait()  # No call is answered before three have arrived.
            inside.discard(str(threading.get_ident()))

    pages.on_call = meet

    connect(concurrency=3).list_instances(Budget(30))

    assert most == 3


def test_progress_is_reported_after_each_page(novita: NovitaAnswers) -> None:
    Pages(novita, *"abcdefg", start="0", total="7")
    heard: list[tuple[int, int | None]] = []

    connect().list_instances(Budget(30), on_page=lambda known, total: heard.append((known, total)))

    assert heard == [(3, 7), (6, 7), (7, 7)]


# --- One error for each failure


@pytest.mark.parametrize(
    ("answer", "error", "calls"),
    [
        ({"status": 401, "json": make_refusal(401, "UNAUTHORIZED", "unauthorized")}, NovitaRejectedKey, 1),
        ({"status": 403, "json": make_refusal(403, "INVALID_API_KEY", "invalid api key")}, NovitaRejectedKey, 1),
        ({"status": 403, "body": "<html>error code: 1010</html>"}, NovitaRejectedKey, 1),
        ({"status": 429, "json": make_refusal(429, "RATE_LIMIT_EXCEEDED", "too fast")}, NovitaRateLimited, 4),
        ({"status": 500, "json": make_refusal(500, "UNKNOWN", "overload")}, NovitaUnavailable, 4),
        ({"status": 502, "body": "<html>502</html>"}, NovitaUnavailable, 4),
        ({"status": 503}, NovitaUnavailable, 4),
        ({"status": 504}, NovitaUnavailable, 4),
        ({"status": 200, "body": "<html>"}, NovitaBadAnswer, 1),
        ({"status": 200, "body": ""}, NovitaBadAnswer, 1),
        ({"status": 200, "body": b'{"instances": ["\xff"]}'}, NovitaBadAnswer, 1),
        ({"status": 200, "body": "[" * 200_000}, NovitaBadAnswer, 1),
        ({"status": 302, "headers": {"Location": "https://elsewhere.test/"}}, NovitaBadAnswer, 1),
        ({"status": 302, "headers": {"Location": "http://["}}, NovitaBadAnswer, 1),
        ({"status": 400, "body": "<html>"}, NovitaBadAnswer, 1),
        ({"status": 404, "body": "<html>"}, NovitaBadAnswer, 1),
        ({"status": 404, "json": make_refusal(404, "NOT_FOUND", "no such route")}, NovitaBadAnswer, 1),
        ({"status": 400, "json": make_refusal(400, "INVALID_PARAMS", "bad pageSize")}, NovitaRefused, 1),
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_pauses")
def test_each_failure_has_its_error(
    novita: NovitaAnswers, answer: dict[str, Any], error: type[NovitaError], calls: int
) -> None:
    novita.mock.get(LISTING, **answer)

    with pytest.raises(NovitaError) as failure:
        connect().list_instances(Budget(30))

    assert type(failure.value) is error
    assert len(novita.mock.calls) == calls


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 400, "json": make_refusal(400, "RESOURCE_NOT_FOUND", "instance not found")}, NotFoundAtNovita),
        ({"status": 404, "json": make_refusal(404, "RESOURCE_NOT_FOUND", "instance not found")}, NotFoundAtNovita),
        ({"status": 404, "json": make_refusal(404, "NOT_FOUND", "instance not found")}, NotFoundAtNovita),
        ({"status": 404, "body": "<html>404 page not found</html>"}, NovitaBadAnswer),
        ({"status": 404, "body": "null"}, NovitaBadAnswer),
        ({"status": 404, "body": ""}, NovitaBadAnswer),
        ({"status": 404, "json": {}}, NovitaRefused),
        ({"status": 200, "json": {}}, NovitaBadAnswer),
        ({"status": 200, "json": {"instance": make_row("a")}}, NovitaBadAnswer),
        ({"status": 200, "json": make_row("b")}, NovitaBadAnswer),
    ],
    ids=str,
)
def test_only_novitas_own_not_found_means_that_an_instance_is_gone(
    novita: NovitaAnswers, answer: dict[str, Any], error: type[NovitaError]
) -> None:
    novita.shows({"id": "a"}, **{"json": None, **answer})

    with pytest.raises(NovitaError) as failure:
        connect().get_instance("a", Budget(30))

    assert type(failure.value) is error


def test_single_instance_is_read(novita: NovitaAnswers) -> None:
    novita.shows(make_row("a", name="train-a"))

    assert connect().get_instance("a", Budget(30)).name == "train-a"


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (make_refusal(400, "INVALID_STATE", "invalid state change"), InvalidStateChange),
        (make_refusal(400, "BAD_REQUEST", "Invalid state change"), InvalidStateChange),
        (make_refusal(400, "INSUFFICIENT_RESOURCE", "insufficient resource"), InsufficientResource),
        (make_refusal(400, "RESOURCE_NOT_FOUND", "instance not found"), NotFoundAtNovita),
        (make_refusal(400, "BAD_REQUEST", "the account is frozen"), NovitaRefused),
    ],
    ids=str,
)
def test_refused_action_gives_novitas_reason(
    novita: NovitaAnswers, refusal: dict[str, Any], error: type[NovitaError]
) -> None:
    novita.takes("start", "a", status=400, json=refusal)

    with pytest.raises(NovitaError) as failure:
        connect().request("start", "a", Budget(30))

    assert type(failure.value) is error
    assert error is not NovitaRefused or "the account is frozen" in failure.value.message


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({}, "toStop"),
        ({"json": {}}, None),
        ({"json": None}, None),
        ({"json": {"state": 5}}, None),
        ({"json": None, "status": 204}, None),
    ],
    ids=str,
)
def test_any_2xx_accepts_an_action(novita: NovitaAnswers, answer: dict[str, Any], status: str | None) -> None:
    novita.takes("stop", "a", **answer)

    assert connect().request("stop", "a", Budget(30)) == status


def test_nothing_is_sent_without_a_key(novita: NovitaAnswers) -> None:
    with pytest.raises(NovitaRejectedKey, match="NOVITA_API_KEY is not set"):
        connect(api_key="").list_instances(Budget(30))


def test_page_of_ten_megabytes_is_read(novita: NovitaAnswers) -> None:
    novita.lists(*(make_row(str(number), name="n" * 100_000) for number in range(100)))

    assert len(connect().list_instances(Budget(30)).instances) == 100


# --- Products and clusters


@pytest.mark.parametrize(
    ("price", "units"),
    [("67000", 67000), (21000, 21000), *((x, None) for x in (-5, "1e99", 10**40, "0", 0, None, "", "x"))],
)
def test_unknown_price_is_never_free(novita: NovitaAnswers, price: object, units: int | None) -> None:
    row = {"id": "26", "name": "RTX 3090", "regions": ["US-CA-06", None], "availableDeploy": True, "price": price}
    novita.mock.get(f"{API}/products", json={"data": [row]})

    assert connect().list_products(Budget(30)) == [Product("26", "RTX 3090", ("US-CA-06",), True, units, None)]


def test_product_is_available_only_if_novita_says_so(novita: NovitaAnswers) -> None:
    novita.mock.get(f"{API}/products", json={"data": [{"id": "26"}, {"id": "27", "availableDeploy": False}]})

    assert not any(product.is_available for product in connect().list_products(Budget(30)))


def test_clusters_are_listed(novita: NovitaAnswers) -> None:
    rows = [
        {"id": "us-ca-6", "name": "US-CA-06", "availableGpuType": ["RTX 4090"]},
        {"id": "b", "availableGpuType": None},
    ]
    novita.mock.get(f"{API}/clusters", json={"data": rows})

    listed = connect().list_clusters(Budget(30))

    assert listed == [Cluster("us-ca-6", "US-CA-06", ("RTX 4090",)), Cluster("b", "", ())]


@pytest.mark.parametrize("body", [None, [], {}, {"data": None}, {"data": {}}, {"data": ["26"]}], ids=str)
@pytest.mark.parametrize("what", ["products", "clusters"])
def test_answer_without_a_list_is_a_bad_answer(novita: NovitaAnswers, what: str, body: object) -> None:
    novita.mock.get(f"{API}/{what}", body=json.dumps(body))

    with pytest.raises(NovitaBadAnswer):
        getattr(connect(), f"list_{what}")(Budget(30))


# --- Retries


@pytest.mark.usefixtures("no_pauses")
def test_failed_read_is_repeated(novita: NovitaAnswers) -> None:
    novita.lists(status=502)
    novita.lists(status=429, headers={"Retry-After": "soon"})
    novita.lists(make_row("a"))
    budget = Budget(30)

    assert list(connect().list_instances(budget).instances) == ["a"]
    assert budget.calls == 3
    assert budget.retries == 2


@pytest.mark.parametrize(
    ("error", "attempt", "random_unit", "pause"),
    [
        (NovitaUnavailable(), 0, 0.5, 0.5),
        (NovitaUnavailable(), 1, 0.5, 1),
        (NovitaUnavailable(), 2, 0.5, 2),
        (NovitaUnavailable(), 3, 0.5, None),
        (NovitaUnavailable(), 0, 0, 0.25),
        (NovitaUnavailable(), 0, 1, 0.75),
        (NovitaUnavailable(retry_after=7), 0, 0.5, 7),
        (NovitaRateLimited(), 0, 0.5, 0.5),
        (NovitaRateLimited(retry_after=0), 0, 0.5, 0.5),
        (NovitaRateLimited(retry_after=30), 0, 0.5, 30),
        (NovitaRateLimited(retry_after=31), 0, 0.5, None),
        (NovitaRateLimited(retry_after=3), 3, 0.5, None),
        (NovitaTimeout(), 0, 0.5, None),
        (NovitaRejectedKey(), 0, 0.5, None),
        (NovitaBadAnswer(), 0, 0.5, None),
        (NovitaRefused(), 0, 0.5, None),
        (NotFoundAtNovita(), 0, 0.5, None),
    ],
)
def test_retry_pause_doubles_varies_and_ends(
    error: NovitaError, attempt: int, random_unit: float, pause: float | None
) -> None:
    assert find_pause(error, attempt, lambda: random_unit) == pause


@pytest.mark.parametrize("value", ["3600", "31", "9" * 50, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_long_retry_after_is_not_waited_for(novita: NovitaAnswers, value: str) -> None:
    novita.lists(status=429, headers={"Retry-After": value})

    with pytest.raises(NovitaRateLimited) as failure:
        connect().list_instances(Budget(7200))

    assert failure.value.retry_after is not None and failure.value.retry_after > 30
    assert len(novita.mock.calls) == 1


def test_pause_beyond_the_budget_fails_at_once(novita: NovitaAnswers) -> None:
    novita.lists(status=503, headers={"Retry-After": "25"})
    budget = Budget(20)

    with pytest.raises(NovitaTimeout):
        connect().list_instances(budget)

    assert budget.remaining_seconds > 10


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", " ", "1e9", "²", "Mon, 99 Foo 2026 99:99:99 GMT", "0, 5", None])
def test_malformed_retry_after_is_ignored(value: str | None) -> None:
    assert parse_retry_after(value) is None


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), (" 12 ", 12), ("Mon, 05 Jan 2026 10:30:00 GMT", 0)])
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert parse_retry_after(value) == seconds


@pytest.mark.thorough
@settings(deadline=None)
@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} Jan \d{1,8} \d\d:\d\d:\d\d [+-]?\w{1,5}", fullmatch=True))
def test_any_retry_after_is_handled(value: str) -> None:
    seconds = parse_retry_after(value)

    assert seconds is None or seconds >= 0
