"""Shared reads: fewer calls than threads, and nothing older than the question."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from instances.inventory import store
from instances.inventory.sharing import Shared
from instances.inventory.sync import synchronize
from tests.novita_answers import NovitaAnswers, make_row

THREADS = 8


class Source:
    """A slow read that notes its calls; `hold` keeps it from answering."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.began = threading.Event()
        self.asked: list[list[int]] = []

    def read(self, asked: Sequence[int]) -> list[tuple[int, float]]:
        self.asked.append(list(asked))
        began_at = time.monotonic()
        self.began.set()
        assert self.hold.wait(10)
        return [(item * 10, began_at) for item in asked]


def call_while_one_is_under_way(shared: Shared[int, Any], source: Source) -> list[Any]:
    """Start a read, let seven more threads ask during it, and return what they got, the first thread's answer first."""
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(shared, 0)]
        assert source.began.wait(10)
        futures += [pool.submit(shared, number) for number in range(1, THREADS)]
        deadline = time.monotonic() + 10
        while not shared._open or len(shared._open.asked) < THREADS - 1:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        source.hold.set()
        return [future.exception() or future.result() for future in futures]


def test_threads_that_ask_during_a_call_share_the_next_one() -> None:
    source = Source()

    call_while_one_is_under_way(Shared(source.read), source)

    assert [len(asked) for asked in source.asked] == [1, THREADS - 1]


def test_each_thread_gets_its_own_answer() -> None:
    source = Source()

    answers = call_while_one_is_under_way(Shared(source.read), source)

    assert [answer[0] for answer in answers] == [number * 10 for number in range(THREADS)]


def test_answer_is_never_older_than_the_question() -> None:
    source = Source()
    source.hold.set()
    shared = Shared(source.read)

    def ask(number: int) -> bool:
        asked_at = time.monotonic()
        return shared(number)[1] >= asked_at

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(ask, range(2000)))


def test_failure_reaches_every_thread_and_the_next_call_works() -> None:
    source = Source()
    fails = True

    def read(asked: Sequence[int]) -> list[Any]:
        found = source.read(asked)
        if fails:
            raise ValueError("away")
        return found

    shared = Shared(read)
    answers = call_while_one_is_under_way(shared, source)
    fails = False

    assert [str(answer) for answer in answers] == ["away"] * THREADS
    assert shared(5)[0] == 50


@pytest.mark.django_db
def test_readers_with_different_revisions_share_a_command_and_get_what_each_lacks(
    novita: NovitaAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    novita.lists(make_row("a"))
    synchronize("command")
    revision = store.read_body().revision
    monkeypatch.setattr(store, "_kept", {})  # As in a new process.

    answers = store._read_for_all([((), revision), ((), None), ((), revision)])

    assert {answer[3] is None for answer, _ in answers if answer} == {False}
    assert store.read_stats().state.not_modified == 2
