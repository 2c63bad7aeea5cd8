"""Who computes: few at once, in the order in which they came, each thing once, and never one waiting for another."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise

import pytest

from visit import cache
from visit.cache import Store, Turns


def together(*works: Callable[[], object]) -> None:
    """Run all at once; a failure where one does not end."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "it waits for ever"


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def test_what_thirty_ask_at_once_is_made_once_and_is_the_same_for_all():
    store, made, got = Store(1 << 20, Turns(2)), [], []

    def make() -> list[int]:
        made.append(1)
        time.sleep(0.1)
        return [1]

    together(*[lambda: got.append(store.get("prompt", make))] * 30)
    assert len(made) == 1 and len(got) == 30 and len({id(one) for one in got}) == 1


def test_two_compute_at_once_and_the_others_in_the_order_in_which_they_came():
    turns = Turns(2)
    store, at_once, most, order = Store(1 << 20, turns), [0], [0], []
    lock = threading.Lock()

    def make(n: int) -> str:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            order.append(n)
        time.sleep(0.05)
        with lock:
            at_once[0] -= 1
        return str(n)

    threads = [threading.Thread(target=lambda n=n: store.get(n, lambda: make(n)), daemon=True) for n in range(8)]
    for n, thread in enumerate(threads):
        thread.start()
        until(lambda n=n: turns._came > n)
    for thread in threads:
        thread.join(20)
    assert most[0] == 2
    assert all(abs(order.index(n) - n) <= 2 for n in range(8)), "two that begin at once may do so in either order"


def test_analyses_that_ask_for_each_other_never_wait_in_a_ring():
    """Each record needs three of those below it, asked for in any order by twelve threads at once."""
    turns = Turns(2)
    store, passes = Store(1 << 20, turns), Store(1 << 20, turns)

    def value(n: int) -> int:
        def make() -> int:
            time.sleep(0.001)
            return 1 + sum(value(m) for m in random.Random(n).sample(range(n), min(3, n)))

        return (store if n % 2 else passes).get(n, make)

    def ask(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(30):
            value(dice.randrange(40))

    together(*[lambda seed=seed: ask(seed) for seed in range(12)])


def test_who_waits_longer_than_a_moment_is_told_behind_how_many(monkeypatch):
    monkeypatch.setattr(cache, "MOMENT", 0.05)
    turns, go, told = Turns(1), threading.Event(), []

    def hold() -> None:
        with turns.taken():
            go.wait(10)

    def wait() -> None:
        with turns.taken(lambda before: told.append(before) or nullcontext()):
            pass

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    waiting = [threading.Thread(target=wait, daemon=True) for _ in range(2)]
    until(lambda: turns._came == 1)
    for n, thread in enumerate(waiting, start=1):
        thread.start()
        until(lambda n=n: len(told) == n)
    assert not turns.quiet(0.0), "somebody computes"
    go.set()
    for thread in (holder, *waiting):
        thread.join(10)
    assert told == [1, 2] and turns.quiet(1.0)


def test_what_could_not_be_made_is_tried_again_and_takes_nobodys_turn_away():
    store = Store(1 << 20, Turns(1))
    with pytest.raises(ZeroDivisionError):
        store.get("a", lambda: 1 / 0)
    assert store.get("a", lambda: 2) == 2


def test_what_is_measured_aside_waits_for_no_turn():
    turns = Turns(1)
    store, go = Store(1 << 20, turns), threading.Event()
    holder = threading.Thread(target=lambda: store.get("page", lambda: go.wait(10)), daemon=True)
    holder.start()
    until(lambda: turns._came == 1)
    with turns.aside():
        assert store.get("measured", lambda: 3) == 3
    go.set()
    holder.join(10)


def test_a_record_put_again_counts_once():
    store = Store(100)
    store.put("a", 1, 60)
    store.put("a", 2, 70)
    store.put("b", 3, 30)
    assert store.bytes == 100 and store.find("a") == 2


def test_a_turn_begins_with_how_many_are_asked_for():
    """The app gives a computation one thread while there are others, and all threads when it is alone."""
    asked, inside, go = [], threading.Event(), threading.Event()
    turns = Turns(2, before=asked.append)

    def hold() -> None:
        with turns.taken():
            inside.set()
            go.wait()

    first = threading.Thread(target=hold)
    first.start()
    inside.wait()
    with turns.taken(), turns.taken():  # the inner one is the same turn
        pass
    go.set()
    first.join()
    with turns.taken():
        pass
    assert asked == [1, 2, 1]


def test_who_comes_within_the_time_of_stillness_begins_it_anew():
    turns, over, seen = Turns(1), threading.Event(), [time.monotonic()]

    def class_of_three():
        for _ in range(3):
            with turns.taken():
                seen.append(time.monotonic())
                time.sleep(0.02)
            seen.append(time.monotonic())
            time.sleep(0.05)
        over.set()

    assert not turns.quiet(0.05, still=10), "it was not still for as long"
    threading.Thread(target=class_of_three).start()
    assert turns.quiet(20, still=0.5)
    stood_still = max(b - a for a, b in pairwise([*seen, time.monotonic()]))  # the machine may have, for once
    assert over.is_set() or stood_still >= 0.5


class Queue:
    """One turn, held until `order` is asked for; those who came meanwhile note their names in the order of turns."""

    def __init__(self) -> None:
        self.turns, self._go, self._order, self._threads = Turns(1), threading.Event(), [], []
        self.begin(lambda: self.turn(self._go.wait))

    def turn(self, work: Callable[[], object], much: bool = False) -> None:
        with self.turns.taken(much=much):
            work()

    def begin(self, run: Callable[[], object]) -> None:
        """On a thread of its own, which has come when this returns."""
        came = self.turns._came
        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()
        while self.turns._came == came:
            time.sleep(0.001)

    def come(self, name: str, much: bool = False) -> None:
        self.begin(lambda: self.turn(lambda: self._order.append(name), much))

    def order(self) -> list[str]:
        self._go.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "it waits for ever"
        return self._order


def test_what_needs_little_goes_before_what_is_known_to_need_much_and_came_shortly_before():
    queue = Queue()
    for name, much in (("prompt 1", True), ("prompt 2", True), ("pruning 1", False), ("pruning 2", False)):
        queue.come(name, much)
    assert queue.order() == ["pruning 1", "pruning 2", "prompt 1", "prompt 2"]


def test_what_needs_much_waits_for_what_came_much_later_no_longer_than_a_bound(monkeypatch):
    monkeypatch.setattr(cache, "MOST_LATER", 0.05)
    queue = Queue()
    queue.come("prompt", much=True)
    time.sleep(0.1)
    queue.come("pruning")
    assert queue.order() == ["prompt", "pruning"]


def test_a_page_came_when_it_began_and_later_by_what_it_has_had():
    queue, began, asks = Queue(), threading.Event(), {name: threading.Event() for name in ("old", "greedy")}

    def page(name: str, had: float) -> None:
        with queue.turns.through():
            queue.turns._mine.later = had
            began.set()
            asks[name].wait(10)
            queue.turn(lambda: queue._order.append(name))

    for name, had in (("old", 0.0), ("greedy", 1.0)):
        began.clear()
        queue._threads.append(threading.Thread(target=page, args=(name, had), daemon=True))
        queue._threads[-1].start()
        assert began.wait(10)
    queue.come("new")
    for name in ("greedy", "old"):
        came = queue.turns._came
        asks[name].set()
        while queue.turns._came == came:
            time.sleep(0.001)
    assert queue.order() == ["old", "new", "greedy"]


def test_a_turn_that_took_long_makes_its_page_count_as_come_later_and_no_other_page():
    turns = Turns(1)
    with turns.through():
        for _ in range(2):
            with turns.taken():
                time.sleep(0.01)
        assert 2 * 0.01 * cache.DEARER <= turns._mine.later <= cache.MOST_LATER
    with turns.through():
        assert turns._mine.later == 0
