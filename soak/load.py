"""The people and scripts that use the panel all the time. Each is a thread; all share one Load."""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

import requests

from soak import checks, overlaps
from soak.account import WITNESS, WORKING, CountingAccount
from soak.panel import Panel, Web

READERS: Final = 4
TIMEOUT_SECONDS: Final = 30
SETTLE_SECONDS: Final = 40


class Load:
    """What the users share: the faults that they saw, and the operations that the panel accepted."""

    def __init__(self, panel: Panel, account: CountingAccount, oracle: checks.Oracle, receiver: str, seed: int) -> None:
        self.panel, self.account, self.oracle = panel, account, oracle
        self.receiver = receiver
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []
        self.interrupted = 0
        self.accepted: dict[str, bool] = {}
        self.whole_stops = 0
        self.overlaps: Counter[str] = Counter()
        # Stops of single instances: which, and from when until when.
        self.single_stops: list[checks.Order] = []
        self.unread = 0
        # When a whole listing arrived.
        self.listed_at: list[float] = []
        self._seed = seed
        self._over = threading.Event()
        self._orders = Orders()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        users: list[Callable[[random.Random], None]] = [self.rename, *[self.read] * READERS]
        users += [self.synchronize, self.act_on_one, self.act_on_some, self.feed_policy]
        users += [self.stop_everything, self.overlap]
        for number, user in enumerate(users):
            rng = random.Random(self._seed * 100 + number)
            self._threads.append(threading.Thread(target=self._run, args=(user, rng), daemon=True))
            self._threads[-1].start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * SETTLE_SECONDS)
            if thread.is_alive():
                self.faults.append("A user waits for an answer for ever.")

    def _run(self, user: Callable[[random.Random], None], rng: random.Random) -> None:
        try:
            user(rng)
        except Exception as exc:  # A broken user is a fault of the soak, and must be seen.
            self.faults.append(f"The soak itself failed: {user.__name__}: {exc!r}")

    def call(self, rng: random.Random, method: str, path: str, **options: Any) -> requests.Response | None:
        """Send a request to either server. None when its process was killed meanwhile."""
        web = rng.choice(self.panel.webs)
        began = time.monotonic()
        try:
            with requests.Session() as session:
                session.trust_env = False
                answer = session.request(method, web.url + path, timeout=TIMEOUT_SECONDS, **options)
        except requests.RequestException as exc:
            self._note_failure(web, began, f"{method} {path}: {exc!r:.200}")
            return None
        self.answers[describe(answer)] += 1
        body = None if answer.status_code < HTTPStatus.BAD_REQUEST else read_json(answer)
        self.faults += [f"{method} {path}: {fault}" for fault in checks.check_answer(answer.status_code, body)]
        return answer

    def _note_failure(self, web: Web, began: float, what: str) -> None:
        if web.is_disturbed(began, time.monotonic()):
            self.interrupted += 1
        else:
            self.faults.append(f"{web.name} was not killed, and gave no answer: {what}")

    def rename(self, rng: random.Random) -> None:
        """Rename all witnesses at once, again and again."""
        witnesses = self.account.list_group(WITNESS)
        epoch = 0
        while not self._over.wait(rng.uniform(0.2, 0.8)):
            epoch += 1
            self.oracle.begin_epoch(epoch)
            self.account.rename_witnesses(witnesses, epoch)

    def read(self, rng: random.Random) -> None:
        """Read the list, its pages, single instances and the overview, often with the last ETag."""
        witnesses = self.account.list_group(WITNESS)
        etag = ""
        while not self._over.wait(rng.uniform(0.05, 0.2)):
            began = time.monotonic()
            match rng.randrange(6):
                case 0 | 1:
                    headers = {"If-None-Match": etag} if etag and rng.random() < 0.7 else {}
                    answer = self.call(rng, "GET", "/api/instances", headers=headers)
                    if answer is not None and "Data-As-Of" in answer.headers:
                        self.listed_at.append(time.monotonic())
                    if answer is not None and answer.status_code == HTTPStatus.OK:
                        etag = answer.headers.get("ETag", "")
                        self._judge(answer, began, is_whole=True, etag=etag)
                case 2:
                    self._judge(self.call(rng, "GET", "/api/instances?status=exited&pageSize=500&page=1"), began)
                case 3:
                    page = f"/api/instances?ordering=name&pageSize=20&page={rng.randint(1, 3)}"
                    self._judge(self.call(rng, "GET", page), began)
                case 4:
                    self._judge(self.call(rng, "GET", f"/api/instances/{rng.choice(witnesses)}"), began)
                case 5:
                    self.call(rng, "GET", rng.choice(["/api/overview", "/health", "/api/operations", "/"]))

    def _judge(self, answer: requests.Response | None, began: float, *, is_whole: bool = False, etag: str = "") -> None:
        if answer is None or answer.status_code != HTTPStatus.OK:
            return
        if "Data-As-Of" not in answer.headers:
            # Redis is empty: nothing has been read since. Such an answer must say that it is stale.
            self.unread += 1
            if answer.headers.get("Data-Stale") != "true":
                self.faults.append("An empty listing without an age is not marked as stale.")
            return
        body = answer.json()
        rows = body["instances"] if "instances" in body else [body.get("instance", body)]
        self.faults += self.oracle.judge(rows, began, time.monotonic(), is_whole=is_whole, etag=etag)

    def synchronize(self, rng: random.Random) -> None:
        while not self._over.wait(rng.uniform(1, 4)):
            self.call(rng, "POST", "/api/instances/sync")

    def act_on_one(self, rng: random.Random) -> None:
        """Stop, start and restart single instances, as a person does who looks at the result."""
        ids = self.account.list_group("single")
        while not self._over.wait(rng.uniform(0.2, 1)):
            with self._orders.shared():
                one = rng.choice(ids)
                (status,) = self.account.list_statuses((one,))
                action = "start" if status == "exited" else rng.choice(["stop", "stop", "restart"])
                if action == "stop":
                    self.stop_one(rng, one)
                else:
                    self.call(rng, "POST", f"/api/instances/{one}/{action}")
                self._wait_for_rest((one,))

    def act_on_some(self, rng: random.Random) -> None:
        """Start and stop a selection, with a webhook for the stop."""
        ids = self.account.list_group("selected")
        while not self._over.wait(rng.uniform(0.5, 2)):
            with self._orders.shared():
                some = tuple(rng.sample(ids, min(5, len(ids))))
                self.order(rng, overlaps.OPERATIONS, {"kind": "start", "ids": some})
                self._wait_for_operations()
                self.order(rng, overlaps.STOP_ALL, {"ids": some, "webhookUrl": self.receiver})
                self._wait_for_operations()

    def stop_everything(self, rng: random.Random) -> None:
        """Stop everything, and compare the result with the account's true state. Then let everything run again."""
        working = self._list_working()
        while not self._over.wait(rng.uniform(15, 30)):
            with self._orders.alone():
                self._wait_for_operations()
                self.account.run(working)
                id_ = overlaps.read_id(self.order(rng, overlaps.STOP_ALL, {"webhookUrl": self.receiver}))
                if id_ is None or not self._wait_for_success(rng, id_):
                    continue
                self.whole_stops += 1
                if running := self.account.list_statuses(working) - {"exited"}:
                    self.faults.append(f"A stop of everything reported success, and instances are {running}.")

    def overlap(self, rng: random.Random) -> None:
        """Give orders at the same moment, wait for their end, and compare it with the account's true state."""
        working = self._list_working()
        while not self._over.wait(rng.uniform(5, 15)):
            with self._orders.alone():
                self._wait_for_operations()
                what, stopped = overlaps.give(self, rng, working)
                self.overlaps[what] += 1
                self._wait_for_operations()
                self._wait_for_rest(working)
                if running := self.account.list_statuses(stopped) - {"exited"}:
                    self.faults.append(f"After {what} were accepted, instances are {running}.")

    def feed_policy(self, rng: random.Random) -> None:
        """Let instances run for too long, so that a policy stops them."""
        ids = self.account.list_group("leased")
        wish = {"name": "lease", "rule": "lease", "mode": "stop", "namePattern": "leased-*", "maxHours": 1}
        while not self._over.wait(1):
            answer = self.call(rng, "POST", "/api/policies", json={**wish, "warningMinutes": 1})
            if answer is None:
                continue
            if not answer.ok:
                raise ValueError(answer.text)
            break
        while not self._over.wait(rng.uniform(5, 15)):
            with self._orders.shared():
                self.account.run((rng.choice(ids),), lastStartedAt=str(int(time.time()) - 7200))

    def _list_working(self) -> tuple[str, ...]:
        return tuple(id_ for name in WORKING for id_ in self.account.list_group(name))

    def order(self, rng: random.Random, path: str, wish: dict[str, Any]) -> requests.Response | None:
        """Give an order that makes an operation or joins one, and note the operation."""
        answer = self.call(rng, "POST", path, json=wish)
        if id_ := overlaps.read_id(answer):
            self.accepted[id_] = "webhookUrl" in wish or self.accepted.get(id_, False)
        return answer

    def stop_one(self, rng: random.Random, id_: str) -> requests.Response | None:
        began = time.time()
        answer = self.call(rng, "POST", f"/api/instances/{id_}/stop")
        self.single_stops.append(checks.Order(id_, began, time.time()))
        return answer

    def _wait_for_rest(self, ids: tuple[str, ...]) -> None:
        """Wait until nothing moves, so that no other order meets it half-way."""
        ends_at = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends_at:
            time.sleep(0.3)
            if self.account.list_statuses(ids) <= {"running", "exited"}:
                return
        self.faults.append(f"Instances are {self.account.list_statuses(ids)} after {SETTLE_SECONDS} s.")

    def _wait_for_operations(self) -> None:
        """Wait until no operation runs: a killed process may have left one that a worker goes on with later."""
        ends_at = time.monotonic() + 2 * SETTLE_SECONDS
        while self.panel.fetch("SELECT 1 FROM instances_operation WHERE finished_at IS NULL LIMIT 1"):
            if time.monotonic() > ends_at:
                self.faults.append(f"An operation runs for more than {2 * SETTLE_SECONDS} s.")
                return
            time.sleep(0.3)

    def _wait_for_success(self, rng: random.Random, id_: str) -> bool:
        ends_at = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends_at:
            answer = self.call(rng, "GET", f"/api/operations/{id_}")
            if answer is not None and answer.ok and answer.json()["finishedAt"]:
                return bool(answer.json()["success"])
            time.sleep(0.5)
        return False


class Orders:
    """Lets several users give orders at once, or the one who stops everything alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing, self._is_alone = 0, False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._is_alone = True
            self._changed.wait_for(lambda: self._sharing == 0)
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


def describe(answer: requests.Response) -> str:
    if answer.status_code < HTTPStatus.BAD_REQUEST:
        return str(answer.status_code)
    body = read_json(answer)
    return f"{answer.status_code} {body.get('code', '?') if isinstance(body, dict) else '?'}"


def read_json(answer: requests.Response) -> Any:
    with contextlib.suppress(ValueError):
        return answer.json()
    return None
