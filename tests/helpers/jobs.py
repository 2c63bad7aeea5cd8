"""A job with numbers for items, for the tests of what runs it."""

from __future__ import annotations

import threading
import time

import numpy as np

from visit.runs.job import steps

PATIENCE = 60  # seconds that nothing here should ever take


class Sums:
    """A job with numbers for items, whose batches can be held up from outside."""

    def __init__(self, n=200, gate=None, breaks_at=None):
        self.items = np.random.default_rng(1).normal(size=(n, 3)) + 100
        self.n, self.sums, self.largest = 0, np.zeros(3), np.full(3, -np.inf)
        self.gate, self.breaks_at, self.batches, self.seen = gate, breaks_at, 0, 0

    def update(self, items):
        if self.gate:
            assert self.gate.acquire(timeout=PATIENCE)
        if self.batches == self.breaks_at:
            raise ZeroDivisionError("a bug")
        self.n += len(items)
        self.sums = self.sums + np.sum(items, 0)
        self.largest = np.maximum(self.largest, np.max(items, 0))
        self.batches += 1
        self.seen += len(items)

    def snapshot(self):
        return {name: np.copy(array) for name, array in self.state().items()}

    def state(self):
        return {"n": np.array(self.n), "sums": self.sums, "largest": self.largest}

    def load(self, state):
        self.n, self.sums, self.largest = int(state["n"]), state["sums"], state["largest"]


class Calls(list):
    """Builds jobs and remembers them."""

    def __init__(self, **how):
        super().__init__()
        self.how = how

    def __call__(self):
        self.append(Sums(**self.how))
        return self[-1]


def until(true):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def gate_of(n):
    return threading.Semaphore(n)


WHOLE = Sums()
for _ in steps(WHOLE):
    pass


def same(found, n=200):
    whole = WHOLE.snapshot()
    assert found["n"] == n
    for name, array in whole.items():
        assert np.abs(found[name] - array).max() <= 1e-12 * np.abs(array).max(), name
    return True
