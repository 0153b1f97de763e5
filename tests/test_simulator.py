"""The promises of the simulator, over HTTP."""

import contextlib
import gzip
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from novita import NovitaClient
from requests import Response

from instances.management.commands.novita_simulator import Command
from instances.simulator import BASE_PATH, CALLS, KINDS, Account, Server, start

STEP_SECONDS = 1
Json = Any


class Clock:
    """A clock that moves only while a test watches an instance."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Client:
    """A client that has only a key and the server's address. It moves the account's clock when it watches."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self.clock = clock or Clock()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = "Bearer any-key"

    def send(self, method: str, path: str, timeout: float = 5, **kwargs: Any) -> Response:
        return self.session.request(method, self.url + path, timeout=timeout, allow_redirects=False, **kwargs)

    def list_page(self, number: int = 1, size: int = 100, timeout: float = 5, **filters: str) -> Response:
        query = {"pageSize": size, "pageNum": number, **filters}
        return self.send("GET", f"{BASE_PATH}/gpu/instances", timeout, params=query)

    def list_ids(self, number: int = 1, size: int = 100) -> list[str]:
        return [row["id"] for row in self.list_page(number, size).json()["instances"]]

    def get(self, instance_id: str) -> Response:
        return self.send("GET", f"{BASE_PATH}/gpu/instance", params={"instanceId": instance_id})

    def read_status(self, instance_id: str) -> str:
        return str(self.get(instance_id).json()["status"])

    def act(self, action: str, instance_id: str) -> Response:
        return self.send("POST", f"{BASE_PATH}/gpu/instance/{action}", json={"instanceId": instance_id})

    def add_fault(self, **fault: Json) -> None:
        answer = self.send("POST", "/__faults", json=fault)
        assert answer.status_code == 200, answer.text

    def find(self, status: str, **fields: Json) -> str:
        """Return the id of a resting instance with this status and these fields."""
        rows = self.send("GET", "/__instances").json()["instances"]
        wanted = {"status": status, "billingMode": "onDemand", **fields}
        return next(row["id"] for row in rows if wanted.items() <= row.items())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[Server]:
    with start(Account(step_seconds=STEP_SECONDS, clock=clock)) as server:
        yield server


@pytest.fixture
def client(server: Server, clock: Clock) -> Iterator[Client]:
    client = Client(server.url, clock)
    with client.session:
        yield client


def wait_for(condition: Callable[[], bool], seconds: float = 3) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def watch(client: Client, instance_id: str, last: str) -> list[str]:
    """Return the statuses of an instance in order, up to the last."""
    seen: list[str] = []

    def is_there() -> bool:
        answer = client.get(instance_id)
        status = answer.json()["status"] if answer.status_code == 200 else "gone"
        if status not in seen[-1:]:
            seen.append(status)
        client.clock.now += STEP_SECONDS / 2
        return status == last

    wait_for(is_there)
    return seen


def assert_error(answer: Response, status: int, reason: str) -> None:
    body = answer.json()
    assert answer.status_code == status
    assert body["code"] == status
    assert body["reason"] == reason
    assert isinstance(body["message"], str) and body["metadata"] == {}


# ---- The seeded account ----


def test_account_has_instances_of_every_kind() -> None:
    rows = Account().list_rows()
    statuses = [row["status"] for row in rows]
    assert len(rows) == 25
    assert statuses.count("running") >= 8 and statuses.count("exited") >= 5
    assert {"pulling", "creating", "toStop"} <= set(statuses)
    assert {row["billingMode"] for row in rows} == {"onDemand", "spot", "monthly"}
    assert "26" in {row["productId"] for row in rows}
    assert len({row["clusterName"] for row in rows}) == 3
    assert [row["status"] for row in rows if row["spotStatus"] == "terminated"] == ["exited"]
    assert [row["statusError"]["state"] for row in rows if row["statusError"]["state"]] == ["ImagePullFailed"]
    assert {row["gpuNum"] for row in rows} >= {"1", "2", "4", "8"}


def test_same_seed_gives_the_same_account() -> None:
    def names(seed: int) -> list[tuple[str, str]]:
        return [(row["id"], row["name"]) for row in Account(seed=seed).list_rows()]

    assert names(7) == names(7)
    assert names(7) != names(8)


def test_every_secret_is_marked() -> None:
    for row in Account(instances=100).list_rows():
        secrets = [
            row["command"],
            row["entrypoint"],
            row["sshPassword"],
            *(env["value"] for env in row["envs"]),
        ]
        secrets += [
            value
            for name, part in row.items()
            if name.startswith("connectComponent")
            for value in part.values()
            if isinstance(value, str)
        ]
        assert len(secrets) > 8
        assert all(secret.startswith("FAKE-SECRET-") for secret in secrets if secret)


def test_moving_instances_come_to_rest() -> None:
    account = Account(step_seconds=0.001)
    wait_for(lambda: {row["status"] for row in account.list_rows()} == {"running", "exited"})


def test_numbers_and_times_are_strings(client: Client) -> None:
    for row in client.list_page().json()["instances"]:
        assert all(row[name].lstrip("-").isdigit() for name in ("cpuNum", "memory", "gpuNum", "endTime"))
        assert all(row[name].isdigit() for name in ("createdAt", "lastStartedAt", "lastStoppedAt"))
        assert len(row["id"]) == 16 and int(row["id"], 16)


# ---- The API ----


def test_sdk_lists_and_reads_every_instance(server: Server) -> None:
    with NovitaClient(api_key="any-key", base_url=server.url) as sdk:
        listed = sdk.gpu.instances.list(page_size=100, page_num=0)
        assert len(listed) == 25
        assert [sdk.gpu.instances.get(one.id).name for one in listed] == [one.name for one in listed]
        assert len(sdk.gpu.products.list()) == 5
        assert len(sdk.gpu.clusters.list()) == 3


@pytest.mark.parametrize("action", ["start", "stop", "restart", "delete"])
def test_sdk_acts(server: Server, client: Client, action: str) -> None:
    instance_id = client.find("exited" if action == "start" else "running")
    with NovitaClient(api_key="any-key", base_url=server.url) as sdk:
        getattr(sdk.gpu.instances, action)(instance_id)
        assert sdk.gpu.instances.get(instance_id).status not in ("exited", "running")


@pytest.mark.parametrize(("page_base", "repeats"), [(1, True), (0, False)])
def test_first_page_has_the_configured_number(page_base: int, repeats: bool) -> None:
    with start(Account(page_base=page_base)) as server:
        client = Client(server.url)
        with client.session:
            pages = [client.list_ids(number, 10) for number in range(4)]
    whole = list(dict.fromkeys(instance_id for page in pages for instance_id in page))
    assert (pages[0] == pages[1]) is repeats
    assert len(whole) == 25
    assert pages[0] == whole[:10]


def test_listing_is_newest_first_and_has_the_total(client: Client) -> None:
    answer = client.list_page(size=7).json()
    created = [int(row["createdAt"]) for row in answer["instances"]]
    assert created == sorted(created, reverse=True) and len(created) == 7
    assert answer["total"] == 25
    assert client.list_page(9).json() == {"instances": [], "total": 25}


def test_filters_narrow_the_listing(client: Client) -> None:
    for query, field, test in (
        ({"name": "llama"}, "name", lambda value: "llama" in value),
        ({"productName": "4090"}, "productName", lambda value: "4090" in value),
        ({"status": "exited"}, "status", lambda value: value == "exited"),
    ):
        answer = client.list_page(**query).json()
        assert 0 < answer["total"] == len(answer["instances"]) < 25
        assert all(test(row[field]) for row in answer["instances"])


@pytest.mark.parametrize(
    "query",
    ["", "pageSize=5", "pageNum=1", "pageSize=-1&pageNum=1", "pageSize=5&pageNum=x", "pageSize=&pageNum=1"],
)
def test_listing_without_both_page_parameters_is_refused(client: Client, query: str) -> None:
    assert_error(client.send("GET", f"{BASE_PATH}/gpu/instances?{query}"), 400, "INVALID_ARGUMENT")


def test_direct_read_shows_more_than_the_listing(client: Client) -> None:
    listed = client.list_page().json()["instances"][3]
    read = client.get(listed["id"]).json()
    assert {**read, **listed} == read
    assert read.keys() - listed.keys() >= {"connectComponentSSH", "keepDataDay", "exitedLocalStoragePrice"}


def test_call_without_a_key_is_unauthorized(client: Client) -> None:
    del client.session.headers["Authorization"]
    assert_error(client.list_page(), 401, "UNAUTHORIZED")


def test_edge_refuses_urllib(client: Client) -> None:
    client.session.headers["User-Agent"] = "Python-urllib/3.11"
    answer = client.list_page()
    assert answer.status_code == 403
    assert answer.text == "error code: 1010"
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("action", ["start", "stop", "restart", "delete"])
def test_unknown_instance_is_not_found(client: Client, action: str) -> None:
    assert_error(client.act(action, "0000000000000000"), 400, "RESOURCE_NOT_FOUND")
    assert_error(client.get("0000000000000000"), 400, "RESOURCE_NOT_FOUND")


def test_unknown_paths_and_methods_are_well_formed_errors(client: Client) -> None:
    assert_error(client.send("GET", f"{BASE_PATH}/gpu/nothing"), 404, "NOT_FOUND")
    assert_error(client.send("GET", "/elsewhere"), 404, "NOT_FOUND")
    assert_error(client.send("GET", f"{BASE_PATH}/gpu/instance/stop"), 405, "METHOD_NOT_ALLOWED")
    assert_error(client.send("PUT", f"{BASE_PATH}/gpu/instances"), 405, "METHOD_NOT_ALLOWED")
    assert_error(client.send("PATCH", "/__faults"), 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"instanceId": 5}', b"[" * 100_000, b"\xff"])
def test_malformed_body_is_refused(client: Client, body: bytes) -> None:
    answer = client.send("POST", f"{BASE_PATH}/gpu/instance/stop", data=body)
    assert_error(answer, 400, "INVALID_ARGUMENT")


def test_body_size_is_limited(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"POST /__faults HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 413"


# ---- Moves ----


@pytest.mark.parametrize(
    ("action", "before", "path"),
    [
        ("start", "exited", ["toStart", "starting", "running"]),
        ("stop", "running", ["toStop", "stopping", "exited"]),
        ("restart", "running", ["toRestart", "restarting", "running"]),
    ],
)
def test_action_answers_at_once_and_moves_step_by_step(
    client: Client, action: str, before: str, path: list[str]
) -> None:
    instance_id = client.find(before)
    assert client.act(action, instance_id).json() == {"instanceId": instance_id, "state": path[0]}
    assert watch(client, instance_id, path[-1]) == path


def test_deleted_instance_is_removed_and_not_found(client: Client) -> None:
    instance_id = client.find("running")
    answer = client.act("delete", instance_id)
    assert answer.status_code == 200
    assert answer.content == b""
    assert watch(client, instance_id, "gone") == ["toRemove", "removing", "gone"]
    assert instance_id not in client.list_ids()
    assert client.list_page().json()["total"] == 24


@pytest.mark.parametrize(
    ("action", "status"),
    [("start", "running"), ("stop", "exited"), ("restart", "exited"), ("stop", "creating")],
)
def test_action_in_a_wrong_status_is_refused(client: Client, action: str, status: str) -> None:
    instance_id = client.find(status)
    assert_error(client.act(action, instance_id), 400, "INVALID_STATE")
    assert client.read_status(instance_id) == status


def test_instance_that_is_being_removed_can_not_be_deleted_again(client: Client) -> None:
    instance_id = client.find("exited")
    client.act("delete", instance_id)
    assert_error(client.act("delete", instance_id), 400, "INVALID_STATE")


def test_monthly_instance_can_not_be_deleted(client: Client) -> None:
    instance_id = client.find("running", billingMode="monthly")
    assert client.act("delete", instance_id).status_code == 400
    assert client.read_status(instance_id) == "running"


def test_start_and_stop_set_their_times_and_a_new_password(client: Client) -> None:
    instance_id, began = client.find("exited"), int(time.time())
    before = client.get(instance_id).json()
    client.act("start", instance_id)
    watch(client, instance_id, "running")
    started = client.get(instance_id).json()
    assert int(started["lastStartedAt"]) >= began > int(before["lastStartedAt"])
    assert started["sshPassword"] != before["sshPassword"]
    client.act("stop", instance_id)
    watch(client, instance_id, "exited")
    assert int(client.get(instance_id).json()["lastStoppedAt"]) >= began > int(before["lastStoppedAt"])


def test_listing_shows_instances_that_moved(client: Client) -> None:
    instance_id = client.find("running")
    assert instance_id in client.list_ids()
    client.act("stop", instance_id)
    rows = client.list_page().json()["instances"]
    assert next(row["status"] for row in rows if row["id"] == instance_id) == "toStop"


# ---- Faults ----


def test_fault_fires_as_often_as_requested_and_is_counted(client: Client) -> None:
    client.add_fault(on="list", kind="status", status=500, times=2)
    assert [client.list_page().status_code for _ in range(3)] == [500, 500, 200]
    told = client.send("GET", "/__faults").json()
    assert told["faults"] == [] and told["spent"][0]["fired"] == 2


def test_fault_can_hit_every_second_call(client: Client) -> None:
    client.add_fault(kind="status", status=500, every=2)
    assert [client.list_page().status_code for _ in range(4)] == [200, 500, 200, 500]


def test_fault_can_be_for_one_page_one_call_or_one_instance(client: Client) -> None:
    first, second = client.find("running"), client.find("exited")
    client.add_fault(on="list", kind="status", page=2)
    client.add_fault(on="get", kind="status", instanceId=first)
    assert [client.list_page(number, 10).status_code for number in (1, 2, 3)] == [200, 500, 200]
    assert [client.get(instance_id).status_code for instance_id in (first, second)] == [500, 200]
    assert client.send("GET", f"{BASE_PATH}/products").status_code == 200


def test_first_of_two_faults_wins_and_clearing_ends_both(client: Client) -> None:
    answer = client.send("POST", "/__faults", json=[{"kind": "status", "status": 502}, {"kind": "status"}])
    assert len(answer.json()["faults"]) == 2
    assert client.list_page().status_code == 502
    assert client.send("DELETE", "/__faults").json() == {"faults": [], "spent": []}
    assert client.list_page().status_code == 200


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"kind": "nonsense"}, "gzip_bomb"),
        ({"kind": "delay"}, "seconds"),
        ({"kind": "delay", "seconds": "1"}, "a number"),
        ({"kind": "status", "size": 1}, "headers"),
        ({"kind": "status", "status": True}, "200"),
        ({"kind": "status", "headers": {"X": "a\r\nb: c"}}, "headers"),
        ({"kind": "status", "on": "lists"}, "products"),
        ({"kind": "empty", "on": "stop"}, "list"),
        ({"kind": "hide"}, "fraction"),
        ({"kind": "status", "times": 0}, "times"),
        ("text", "JSON object"),
        (None, "JSON object"),
    ],
)
def test_invalid_fault_is_refused_with_the_allowed_values(client: Client, fault: Json, word: str) -> None:
    answer = client.send("POST", "/__faults", json=[{"kind": "status"}, fault])
    assert_error(answer, 400, "INVALID_ARGUMENT")
    assert word in answer.json()["message"]
    assert client.send("GET", "/__faults").json()["faults"] == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHORIZED"),
        (403, "INVALID_API_KEY"),
        (429, "RATE_LIMIT_EXCEEDED"),
        (500, "UNKNOWN"),
    ],
)
def test_status_fault_sends_the_matching_error(client: Client, status: int, reason: str) -> None:
    client.add_fault(kind="status", status=status)
    assert_error(client.list_page(), status, reason)


@pytest.mark.parametrize("body", [None, [], {"instances": 5}, 7, {"reason": "INSUFFICIENT_RESOURCE"}])
def test_status_fault_sends_any_json(client: Client, body: Json) -> None:
    client.add_fault(kind="status", status=200, body=body, headers={"retry-after": "3600"})
    answer = client.list_page()
    assert answer.json() == body
    assert answer.headers["Retry-After"] == "3600"


def test_status_fault_sends_html_and_redirects(client: Client) -> None:
    client.add_fault(on="list", kind="status", status=200, body="<h1>Hello</h1>")
    client.add_fault(on="get", kind="status", status=302, headers={"Location": "http://127.0.0.1:1/"})
    client.add_fault(on="products", kind="status", status=503)
    assert client.list_page().headers["Content-Type"].startswith("text/html")
    assert client.get("x").headers["Location"] == "http://127.0.0.1:1/"
    assert client.send("GET", f"{BASE_PATH}/products").headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("status", [204, 304])
def test_status_fault_sends_no_body_with_a_status_without_one(server: Server, client: Client, status: int) -> None:
    client.add_fault(kind="status", status=status, body={"instances": []})
    whole = b"".join(read_pieces(server))
    assert whole.startswith(b"HTTP/1.1 %d" % status) and whole.endswith(b"\r\n\r\n")


def test_delay_fault_holds_the_answer_back(client: Client) -> None:
    client.add_fault(kind="delay", seconds=0.1)
    began = time.monotonic()
    assert len(client.list_ids()) == 25
    assert time.monotonic() - began >= 0.1


def test_hang_fault_does_not_answer_until_it_is_cleared(server: Server, client: Client) -> None:
    client.add_fault(on="list", kind="hang")
    with pytest.raises(requests.ReadTimeout):
        client.list_page(timeout=0.15)
    wait_for(lambda: count_in_flight(server) == 0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(raw_listing())
        wait_for(lambda: count_in_flight(server) == 1)
        client.send("DELETE", "/__faults")
        assert connection.recv(1) == b""


def count_in_flight(server: Server) -> int:
    """Return the number of calls in progress."""
    server.calls.clear()
    return int(server.calls.describe()["maxConcurrent"])


def raw_listing() -> bytes:
    path = f"{BASE_PATH}/gpu/instances?pageSize=1&pageNum=1"
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nConnection: close\r\n\r\n".encode()


def read_pieces(server: Server) -> list[bytes]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(raw_listing())
        return list(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(("part", "counts"), [("body", range(10, 40)), ("head", range(41, 200))])
def test_drip_fault_sends_a_byte_at_a_time(server: Server, client: Client, part: str, counts: range) -> None:
    client.send("POST", "/__instances", json={"remove": client.list_ids()})
    client.add_fault(kind="drip", seconds=0.002, part=part)
    pieces = read_pieces(server)
    assert b"".join(pieces).endswith(b'{"instances": [], "total": 0}')
    assert len(pieces) in counts


def test_reset_fault_carries_nothing_out(client: Client) -> None:
    instance_id = client.find("running")
    client.add_fault(on="stop", kind="reset")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        client.act("stop", instance_id)
    assert client.read_status(instance_id) == "running"


def test_lost_fault_carries_the_action_out_without_an_answer(client: Client) -> None:
    instance_id = client.find("running")
    client.add_fault(on="stop", kind="lost")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        client.act("stop", instance_id)
    assert client.read_status(instance_id) in ("toStop", "stopping", "exited")


@pytest.mark.parametrize("action", ["list", "delete"])
def test_cut_fault_ends_before_the_announced_length(client: Client, action: str) -> None:
    instance_id = client.find("running")
    client.add_fault(on=action, kind="cut")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        client.list_page() if action == "list" else client.act("delete", instance_id)


@pytest.mark.parametrize("action", ["start", "stop", "restart", "delete"])
def test_ignore_fault_accepts_and_falls_back(client: Client, action: str) -> None:
    status = "exited" if action == "start" else "running"
    instance_id = client.find(status)
    before = client.get(instance_id).json()
    client.add_fault(kind="ignore", times=1)
    assert client.act(action, instance_id).status_code == 200
    shown = watch(client, instance_id, status)
    assert len(shown) == 2 and shown[0].startswith("to")
    assert client.get(instance_id).json() == before


def test_refuse_but_do_fault_refuses_and_carries_out(client: Client) -> None:
    instance_id = client.find("running")
    client.add_fault(kind="refuse_but_do")
    assert_error(client.act("stop", instance_id), 400, "INVALID_STATE")
    assert "exited" in watch(client, instance_id, "exited")


def test_gzip_bomb_fault_is_small_and_inflates(client: Client) -> None:
    client.add_fault(kind="gzip_bomb", megabytes=3)
    with client.send("GET", f"{BASE_PATH}/products", stream=True) as answer:
        packed = answer.raw.read(decode_content=False)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(packed) < 50_000
    assert len(gzip.decompress(packed)) > 3 * 1024 * 1024


def test_big_fault_sends_a_valid_page_of_that_size(client: Client) -> None:
    client.add_fault(kind="big", megabytes=2)
    answer = client.list_page()
    assert 2 * 1024 * 1024 < len(answer.content) < 3 * 1024 * 1024
    assert len(answer.json()["instances"]) == 25


def test_endless_fault_sends_new_instances_forever(client: Client) -> None:
    client.add_fault(kind="endless")
    pages = [client.list_page(number, 10).json() for number in (0, 1, 99)]
    assert all("total" not in page for page in pages)
    assert len({row["id"] for page in pages for row in page["instances"]}) == 30


def test_full_account_can_look_empty(client: Client) -> None:
    client.add_fault(kind="empty", times=1)
    client.add_fault(kind="null")
    assert client.list_page().json() == {"instances": [], "total": 0}
    assert client.list_page().json() == {"instances": None}


def test_no_total_fault_leaves_the_total_out(client: Client) -> None:
    client.add_fault(kind="no_total")
    answer = client.list_page().json()
    assert answer.keys() == {"instances"} and len(answer["instances"]) == 25


def test_page_cap_fault_shortens_every_page(client: Client) -> None:
    client.add_fault(kind="page_cap", size=10)
    pages = [client.list_ids(number) for number in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert len({instance_id for page in pages for instance_id in page}) == 25


def test_hide_fault_removes_instances_from_listings_only(client: Client) -> None:
    hidden = client.list_ids()[:2]
    client.add_fault(kind="hide", ids=hidden)
    assert len(client.list_ids()) == 23 and not set(hidden) & set(client.list_ids())
    assert client.get(hidden[0]).status_code == 200


def test_hide_fault_hides_the_same_share_each_time(client: Client) -> None:
    client.add_fault(kind="hide", fraction=0.9)
    assert client.list_ids() == client.list_ids()
    assert client.list_page().json()["total"] == 25 - round(25 * 0.9)


def test_slip_fault_hides_an_instance_at_the_edge_of_a_page(client: Client) -> None:
    before = client.list_ids()
    client.add_fault(kind="slip", page=1, times=1)
    listed = client.list_ids(1, 10) + client.list_ids(2, 10) + client.list_ids(3, 10)
    slipped = set(before) - set(listed)
    assert slipped == {before[10]}
    assert client.get(before[10]).status_code == 200
    deleted = set(before) - set(client.list_ids())
    assert len(deleted) == 1 and deleted < set(before[:10])
    assert_error(client.get(deleted.pop()), 400, "RESOURCE_NOT_FOUND")


def test_rows_fault_appends_to_the_first_page(client: Client) -> None:
    rows = [{"id": "x"}, {"name": "no id"}, None, "text"]
    client.add_fault(kind="rows", rows=rows)
    first, second = client.list_page(1, 20).json(), client.list_page(2, 20).json()
    assert first["instances"][20:] == rows
    assert first["total"] == 26
    assert second["total"] == 26
    assert len(second["instances"]) == 5


def test_duplicate_fault_sends_the_first_row_twice(client: Client) -> None:
    client.add_fault(kind="duplicate")
    ids = client.list_ids()
    assert len(ids) == 26 and ids[0] == ids[1]


def test_each_kind_of_fault_has_a_test(request: pytest.FixtureRequest) -> None:
    source = request.path.read_text()
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []


# ---- Reading and changing it ----


def test_calls_are_counted_and_listed(client: Client) -> None:
    instance_id = client.find("running")
    client.send("DELETE", "/__calls")
    began = time.time()
    client.session.headers["User-Agent"] = "tests/1"
    client.list_page(2)
    client.act("stop", instance_id)
    client.send("GET", "/elsewhere")
    told = client.send("GET", "/__calls").json()
    assert told["counts"] == {**dict.fromkeys(CALLS, 0), "list": 1, "stop": 1, "other": 1}
    assert told["maxConcurrent"] == 1
    listed, stopped, _ = told["calls"]
    assert listed["call"] == "list"
    assert listed["page"] == 2
    assert listed["userAgent"] == "tests/1"
    assert stopped["call"] == "stop"
    assert stopped["instanceId"] == instance_id
    assert began <= listed["at"] <= stopped["at"] <= time.time()
    assert client.send("DELETE", "/__calls").json()["calls"] == []


def test_parallel_calls_are_served_in_parallel(server: Server, client: Client) -> None:
    client.add_fault(on="list", kind="hang")
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            connection.sendall(raw_listing())
        wait_for(lambda: client.send("GET", "/__calls").json()["maxConcurrent"] == 16)


def test_instances_can_be_added_set_and_removed(client: Client) -> None:
    ids = client.list_ids()
    change = {
        "add": [{"id": "new", "name": "<b>", "createdAt": "9999999999"}],
        "set": {ids[0]: {"status": "pending", "gpuNum": None}},
        "remove": [ids[1]],
    }
    assert client.send("POST", "/__instances", json=change).json() == {"total": 25}
    assert client.list_ids() == ["new", ids[0], *ids[2:]]
    added, changed = client.get("new").json(), client.get(ids[0]).json()
    assert added["name"] == "<b>" and added["status"] == "running" and added["productId"]
    assert changed["status"] == "pending"
    assert changed["gpuNum"] is None


def test_status_that_was_set_stays(client: Client) -> None:
    instance_id = client.find("running")
    client.act("stop", instance_id)
    client.send("POST", "/__instances", json={"set": {instance_id: {"status": "stopping"}}})
    other = client.find("running")
    client.act("stop", other)
    watch(client, other, "exited")
    assert client.read_status(instance_id) == "stopping"


def test_instance_removed_while_it_moves_stays_removed(client: Client) -> None:
    gone, other = client.find("exited"), client.find("running")
    client.act("delete", gone)
    client.send("POST", "/__instances", json={"remove": [gone]})
    client.act("stop", other)
    watch(client, other, "exited")
    assert gone not in client.list_ids()


def test_all_instances_can_be_set_running(client: Client) -> None:
    assert client.send("POST", "/__instances", json={"running": True}).json() == {"total": 25}
    assert {row["status"] for row in client.list_page().json()["instances"]} == {"running"}


@pytest.mark.parametrize(
    "change",
    [
        {"sat": {}},
        {"set": {"nobody": {}}},
        {"remove": "x"},
        {"add": [5]},
        {"add": [{"id": "a"}] * 2},
        {"running": 1},
        [],
    ],
)
def test_invalid_change_changes_nothing(client: Client, change: Json) -> None:
    assert_error(client.send("POST", "/__instances", json=change), 400, "INVALID_ARGUMENT")
    assert client.list_page().json()["total"] == 25


# ---- The server ----


@pytest.mark.thorough
def test_large_account_is_listed_quickly() -> None:
    with start(Account(instances=10_000)) as server:
        client = Client(server.url)
        with client.session:
            seconds = []
            for number in range(1, 101):
                began = time.perf_counter()
                assert len(client.list_ids(number)) == 100
                seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[50] < 0.05


def test_latency_delays_every_answer() -> None:
    with start(Account(), latency_seconds=0.1) as server:
        client = Client(server.url)
        with client.session:
            began = time.monotonic()
            client.list_page()
            assert time.monotonic() - began >= 0.1


def test_close_ends_waiting_calls_and_frees_the_port() -> None:
    server = start(Account())
    client, idle = Client(server.url), Client(server.url)
    with client.session, idle.session:
        client.add_fault(kind="delay", seconds=60)
        idle.send("GET", "/__calls")
        waiting = threading.Thread(target=expect_no_answer, args=(client,))
        waiting.start()
        wait_for(lambda: count_in_flight(server) == 1)
        server.close()
        waiting.join()
        wait_for(lambda: not any("process_request" in thread.name for thread in threading.enumerate()))
    start(Account(), port=server.port).close()


def expect_no_answer(client: Client) -> None:
    with pytest.raises(requests.ConnectionError):
        client.list_page()


def test_port_in_use_is_an_error(server: Server) -> None:
    with pytest.raises(OSError, match="in use"):
        start(Account(), port=server.port)


def test_client_that_disconnects_prints_nothing(
    server: Server, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    client.add_fault(on="list", kind="big", megabytes=20)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(raw_listing())
        wait_for(lambda: client.send("GET", "/__calls").json()["counts"]["list"] == 1)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /half")
    wait_for(lambda: count_in_flight(server) == 0)
    server.close()
    assert capfd.readouterr() == ("", "")


def test_simulator_listens_on_this_machine_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.port}"


# ---- The command ----

RUN_COMMAND = (
    "import sys; from instances.management.commands.novita_simulator import Command; "
    "Command().run_from_argv(['manage.py', 'novita_simulator', *sys.argv[1:]])"
)


def run_command(*arguments: str) -> "subprocess.Popen[str]":
    """Start the command as manage.py does, but without settings."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN_COMMAND, *arguments],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.thorough
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_command_serves_until_it_is_stopped(ending: signal.Signals) -> None:
    with run_command("--port", "0", "--instances", "3", "--page-base", "0") as process:
        assert process.stdout is not None
        client = Client(process.stdout.readline().split()[0].removeprefix("NOVITA_BASE_URL="))
        with client.session:
            assert len(client.list_ids(0)) == 3 and client.list_ids(1) == []
        process.send_signal(ending)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "--port 65536",
        "--port x",
        "--instances -1",
        "--latency -1",
        "--step-seconds nan",
        "--page-base 2",
        "--time-factor 0.5",
    ],
)
def test_command_refuses_invalid_values(
    arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Command, "handle", lambda *args, **options: None)

    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "novita_simulator", *arguments.split()])

    assert ended.value.code == 2
    assert arguments.split()[0] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.thorough
def test_command_reports_a_port_in_use(server: Server) -> None:
    with run_command("--port", str(server.port)) as process:
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert errors == f"CommandError: Cannot listen on 127.0.0.1:{server.port}: Address already in use\n"
