"""A lane that many visitors share: one run each, nobody's run that nobody watches goes first, models are not held."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from dataclasses import replace

import models
import numpy as np
import pytest
import torch

from visit.app import prompt_sets
from visit.errors import VisitError
from visit.models.pool import Shelf
from visit.runs import worker as lane
from visit.runs.worker import Worker

PATIENCE = 60


class Counting:
    """A job of numbers, one a batch, each let through by hand."""

    work = property(lambda self: [1.0] * len(self.items))

    def __init__(self, gate: threading.Semaphore | None = None, n: int = 6) -> None:
        self.items, self.n, self.gate = list(range(n)), 0, gate

    def update(self, items):
        if self.gate is not None:
            assert self.gate.acquire(timeout=PATIENCE)
        self.n += len(items)

    def snapshot(self):
        return self.n

    def state(self):
        return {"n": np.array(self.n)}

    def load(self, state):
        self.n = int(state["n"])


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setattr("visit.runs.job.AIM", 1e-9)  # a batch holds one item
    found = Worker(tmp_path, seconds=0)
    yield found
    assert found.reset()


def until(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_one_visitor_who_asks_twenty_times_has_one_run_and_refuses_nobody(worker):
    gate = threading.Semaphore(0)
    first = worker.submit("first", lambda: Counting(gate), visitor="other")
    until(lambda: first.state == "running")
    asked = [worker.submit(n, lambda: Counting(), visitor="greedy") for n in range(21)]
    assert worker.runs() == [first, asked[-1]] and {run.state for run in asked[:-1]} == {"cancelled"}
    late = worker.submit("late", lambda: Counting(), visitor="third")
    assert late.place == 2
    gate.release(100)
    assert first.wait(PATIENCE) == asked[-1].wait(PATIENCE) == late.wait(PATIENCE) == 6


def test_a_run_that_goes_on_is_replaced_too_but_not_while_somebody_else_waits_for_it(worker):
    gate = threading.Semaphore(0)
    alone = worker.submit("alone", lambda: Counting(gate), visitor="a")
    until(lambda: alone.state == "running")
    shared = worker.submit("shared", lambda: Counting(gate), visitor="a")
    gate.release(100)
    until(lambda: alone.state != "running")
    assert alone.state == "cancelled"
    held = threading.Semaphore(0)
    one = worker.submit("one", lambda: Counting(held), visitor="a")
    assert worker.submit("one", lambda: Counting(held), visitor="b") is one
    two = worker.submit("two", lambda: Counting(), visitor="a")
    watched = worker.submit("watched", lambda: Counting(), visitor="c")
    watched.look("d")
    three = worker.submit("three", lambda: Counting(), visitor="c")
    assert one.alive and watched.alive, "b asked for the one, d looks at the other"
    one.leave("b")
    until(lambda: not one.alive)
    held.release(100)
    assert two.wait(PATIENCE) == three.wait(PATIENCE) == watched.wait(PATIENCE) == 6
    assert shared.state in ("cancelled", "done")


def test_runs_that_nobody_watches_keep_nobody_out_and_the_first_of_many_are_given_up(worker, monkeypatch):
    """A page begins some of itself, behind all others: a hundred links opened must not fill the queue for who asks."""
    monkeypatch.setattr(lane, "MAX_WAITING", 3)
    monkeypatch.setattr(lane, "MAX_STANDING_BACK", 5)
    gate = threading.Semaphore(0)
    first = worker.submit("first", lambda: Counting(gate), visitor="a")
    until(lambda: first.state == "running")
    unasked = [worker.submit(n, lambda: Counting(), background=True) for n in range(20)]
    assert [run.alive for run in unasked] == [False] * 15 + [True] * 5
    asked = [worker.submit(name, lambda: Counting(), visitor=name) for name in ("b", "c", "d")]
    assert worker.runs()[:4] == [first, *asked]
    with pytest.raises(VisitError, match="3 runs are waiting"):
        worker.submit("e", lambda: Counting(), visitor="e")
    gate.release(100)
    assert [run.wait(PATIENCE) for run in asked] == [6] * 3


def test_at_home_nobody_is_one_visitor(worker):
    gate = threading.Semaphore(0)
    runs = [worker.submit(n, lambda: Counting(gate)) for n in range(4)]
    assert all(run.alive for run in runs)
    gate.release(100)
    assert [run.wait(PATIENCE) for run in runs] == [6] * 4


def test_a_run_that_nobody_has_watched_for_a_minute_yields_and_goes_on_where_it_was(worker, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(lane, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))
    gates = threading.Semaphore(0), threading.Semaphore(0)
    left = worker.submit("left", lambda: Counting(gates[0]), visitor="gone")
    gates[0].release(2)
    until(lambda: left.progress.done == 2)
    now[0] += lane.WATCHED + 1
    assert left.stands_back
    waits = worker.submit("waits", lambda: Counting(gates[1], 2), visitor="here")
    gates[0].release(1)  # the batch at hand ends
    until(lambda: waits.state == "running")
    assert left.state == "waiting" and left.place == 1 and left.alive
    gates[1].release(100)
    assert waits.wait(PATIENCE) == 2
    gates[0].release(100)
    assert left.wait(PATIENCE) == 6, "it goes on where it was"


def test_who_looks_keeps_the_turn_and_who_waits_knows_how_long(worker, monkeypatch):
    gate = threading.Semaphore(0)
    first = worker.submit("first", lambda: Counting(gate), visitor="a")
    until(lambda: first.state == "running")
    second, third = (worker.submit(n, lambda: Counting(), visitor=n) for n in ("b", "c"))
    assert second.seconds_before is None and first.seconds_before is None, "nobody knows yet"
    worker._took.append(20.0)
    assert third.seconds_before == 40.0
    assert prompt_sets.waits_for(third) == "2 before you, about 40 s" and prompt_sets.waits_for(first) == ""
    gate.release(100)
    third.wait(PATIENCE)


def test_runs_that_wait_hold_no_models(worker, monkeypatch):
    """Five runs on five models, and no more in memory than the pool allows."""
    made = []

    def load(name, _report):
        model = models.small("gpt2", torch.float32)
        found = replace(model, name=name)
        made.append(weakref.ref(found))
        return found

    shelf = Shelf(2, load)
    monkeypatch.setattr(prompt_sets, "model_shelf", lambda: shelf)
    monkeypatch.setattr("visit.models.fingerprint.fingerprint", lambda model: model.name)
    gate = threading.Semaphore(0)
    first = worker.submit("gate", lambda: Counting(gate))
    until(lambda: first.state == "running")
    runs = []
    for n in range(5):
        name = f"model {n}"
        runs.append(worker.submit(n, prompt_sets.on_model(shelf.get(name), lambda model: Counting(n=len(model.name)))))
    gc.collect()
    assert len(shelf.names) == 2 and sum(one() is not None for one in made) <= 2
    gate.release(100)
    assert [run.wait(PATIENCE) for run in runs] == [7] * 5


def test_a_model_that_has_changed_meanwhile_is_said(worker, monkeypatch):
    weights = iter(["before", "after"])
    monkeypatch.setattr(prompt_sets, "model_shelf", lambda: type("S", (), {"get": lambda self, name: None})())
    monkeypatch.setattr("visit.models.fingerprint.fingerprint", lambda model: next(weights))
    run = worker.submit("x", prompt_sets.on_model(models.small("gpt2", torch.float32), lambda model: Counting()))
    with pytest.raises(Exception, match="has changed since this run was asked for"):
        run.wait(PATIENCE)
