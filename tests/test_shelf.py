"""Models in memory: few, loaded once for all who ask, and the old one stays when a new one fails."""

from __future__ import annotations

import threading
import weakref

import pytest

from visit import VisitError
from visit.models.catalog import MINI
from visit.models.pool import Shelf


class Double:
    """A model of no weight."""


def test_two_stay_and_the_one_used_longest_ago_goes_before_the_next_is_read():
    seen = []
    shelf = Shelf(2, lambda name, report: seen.append((name, shelf.names)) or Double())
    a, b = shelf.get("a"), shelf.get("b")
    assert shelf.get("a") is a and shelf.names == ["b", "a"]
    gone, b = weakref.ref(b), None
    shelf.get("c")
    assert shelf.names == ["a", "c"] and seen[-1] == ("c", ["a"]) and gone() is None


def test_a_failure_is_raised_to_all_and_leaves_the_old_model():
    def load(name, report):
        if name == "bad":
            raise VisitError("no model")
        return Double()

    shelf = Shelf(2, load)
    kept = shelf.get("good")
    for _ in range(2):
        with pytest.raises(VisitError, match="no model"):
            shelf.get("bad")
    assert shelf.get("good") is kept and shelf.names == ["good"]


def test_one_load_serves_all_who_wait_and_tells_them_how_far_it_is():
    go, halfway, loads = threading.Event(), threading.Event(), []

    def load(name, report):
        loads.append(name)
        report(3, 10)
        halfway.set()
        go.wait(20)
        return Double()

    shelf, found = Shelf(2, load), []
    threads = [threading.Thread(target=lambda: found.append(shelf.get("x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert halfway.wait(20)
    loading = shelf.begin("x")
    assert (loading.done, loading.total) == (3, 10) and not loading.ended.is_set()
    go.set()
    for thread in threads:
        thread.join(20)
    assert len(set(map(id, found))) == 1 and len(found) == 8 and loads == ["x"]


def test_a_real_model_is_read_tensor_by_tensor():
    shelf = Shelf()
    loading = shelf.begin(MINI)
    model = loading.result()
    assert model.name == MINI and loading.done == loading.total > 50 and shelf.find(MINI) is model
