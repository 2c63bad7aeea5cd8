"""Models in memory: few, loaded once for all who ask, and the old one stays when a new one fails."""

from __future__ import annotations

import os
import shutil
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from visit import VisitError
from visit.app import shared
from visit.models import fingerprint, pool
from visit.models.catalog import MINI, MINI_FOLDER, TooLarge
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


def test_a_third_model_does_not_part_the_two_of_a_comparison(monkeypatch):
    loads, now = [], [1000.0]
    monkeypatch.setattr(pool.time, "monotonic", lambda: now[0])
    shelf = Shelf(2, lambda name, report: loads.append(name) or Double())

    def compare():
        shelf.get("a"), shelf.get("b"), shelf.together("a", "b")

    compare()
    for third in "cdc":
        shelf.get(third)
        compare()
        assert len(shelf.names) == 3, "a bound holds"
    assert loads == ["a", "b", "c", "d", "c"], "the comparison never loads its models again"
    now[0] += pool.RECENT + 1
    shelf.get("c")
    assert len(shelf.names) == 2, "the third place goes with the comparison"


def test_a_comparison_makes_room_where_memory_is_short():
    def load(name, report):
        if len(shelf.names) > 1 and name == "c":
            raise TooLarge("no memory")
        return Double()

    shelf = Shelf(2, load)
    shelf.get("a"), shelf.get("b"), shelf.together("a", "b")
    shelf.get("c")
    assert shelf.names == ["b", "c"]


def changed(folder):
    """Other weights in a file of the same size."""
    weights = load_file(folder / "model.safetensors")
    save_file({name: -tensor if "mlp" in name else tensor for name, tensor in weights.items()},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    os.utime(folder / "model.safetensors", (1, 1))  # a clock may be coarse


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(MINI_FOLDER, tmp_path / "model")


def test_files_are_not_looked_at_again_within_the_time_for_which_they_are_trusted(folder, monkeypatch):
    looks = []
    monkeypatch.setattr(pool, "stamp", lambda name: looks.append(name) or fingerprint.stamp(name))
    shelf = Shelf(trusted=60)
    first, known = shelf.get(str(folder)), len(looks)
    assert shelf.get(str(folder)) is first and shelf.edition(str(folder)) and len(looks) == known + 1
    shelf = Shelf(trusted=0.05)
    first = shelf.get(str(folder))
    shelf.get(str(folder)), changed(folder), time.sleep(0.06)
    assert shelf.get(str(folder)) is not first


def test_a_folder_whose_weights_change_is_read_again_and_one_that_is_gone_stays(folder):
    shelf = Shelf()
    first = shelf.get(str(folder))
    assert shelf.get(str(folder)) is first
    before = shelf.edition(str(folder))
    changed(folder)
    assert shelf.find(str(folder)) is None
    second = shelf.get(str(folder))
    assert second is not first and shelf.edition(str(folder)) != before
    shutil.rmtree(folder)
    assert shelf.get(str(folder)) is second


def test_pages_show_the_new_weights_of_a_folder(folder):
    from visit.app.cache import st_capture, st_ledger
    from visit.app.cached_flow import st_graph, st_lens_map, st_story
    from visit.graph.prune import Keep

    name, prompt = str(folder), "The capital of Japan is"

    def shown():
        return (
            st_ledger(name), st_lens_map(name, prompt, 5, (-1,)), st_story(name, prompt, -1, 5, None),
            st_graph(name, prompt, -1, None, 5, None, Keep(), (0,)),
        )  # fmt: skip

    before, again = shown(), shown()
    logits = st_capture(name, prompt).logits
    assert all(a is b for a, b in zip(before, again, strict=True)), "nothing is computed twice"
    changed(folder), time.sleep(shared.TRUSTED)
    after = shown()
    assert not torch.equal(st_capture(name, prompt).logits, logits)
    assert not any(a is b for a, b in zip(before, after, strict=True))
    assert not after[3].nodes.equals(before[3].nodes)


# ---- bounded in bytes, in turn, and said -----------------------------------------------------------------------------
def weighing(monkeypatch, size=100):
    monkeypatch.setattr(pool, "weights_bytes", lambda model: size)


def test_models_are_bounded_in_bytes_and_the_last_one_stays_however_large(monkeypatch):
    weighing(monkeypatch)
    shelf = Shelf(10, lambda name, report: Double(), room=lambda held: 250)
    for name in "abcd":
        shelf.get(name)
    assert shelf.names == ["c", "d"]
    shelf = Shelf(10, lambda name, report: Double(), room=lambda held: 50)
    assert shelf.get("a") is not None and shelf.get("b") is not None and shelf.names == ["b"]
    assert pool.memory_for_models(0) >= pool.LEAST


def test_real_models_are_weighed():
    shelf = Shelf()
    model = shelf.get(MINI)
    true = sum(p.nelement() * p.element_size() for p in model.hf.parameters())
    assert shelf.begin(MINI).bytes == true > 7_000_000


def test_who_asks_first_is_read_first(monkeypatch):
    go, order, started = threading.Event(), [], threading.Event()

    def load(name, report):
        started.set()
        go.wait(20)
        order.append(name)
        return Double()

    shelf = Shelf(20, load)
    asked = [shelf.begin(name) for name in "abcdefgh"]
    assert started.wait(20) and [one.before for one in asked] == list(range(8))
    go.set()
    assert all(one.ended.wait(20) for one in asked) and order == list("abcdefgh")
    assert {one.before for one in asked} == {0}


def test_a_model_that_comes_back_soon_says_that_too_many_are_in_use(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(pool.time, "monotonic", lambda: now[0])
    shelf = Shelf(2, lambda name, report: Double())

    def crowded(name):
        loading = shelf.begin(name)
        loading.result()
        return loading.crowded

    assert [crowded(name) for name in "abc"] == [False] * 3
    assert crowded("a"), "it went a moment ago"
    now[0] += pool.BACK_SOON + 1
    assert not crowded("b")


def test_a_load_that_fails_gives_the_turn_on():
    def load(name, report):
        if name == "bad":
            raise VisitError("no model")
        return Double()

    shelf = Shelf(2, load)
    one, other = shelf.begin("bad"), shelf.begin("good")
    assert other.ended.wait(20) and other.model is not None and isinstance(one.error, VisitError)


def test_a_model_of_the_hub_whose_cache_has_moved_is_read_again(served, hub_cache):
    from hub_double import NAME

    shelf = Shelf()
    with served():
        first = shelf.get(NAME)
        assert shelf.get(NAME) is first
    weights = next(hub_cache.rglob("model-00002-of-00006.safetensors")).resolve()
    tensors = load_file(weights)
    save_file({name: -tensor for name, tensor in tensors.items()}, weights, {"format": "pt"})
    os.utime(weights, (1, 1))
    assert shelf.find(NAME) is None
    assert shelf.get(NAME) is not first


def test_a_page_that_asks_forty_times_looks_at_free_memory_once_a_second():
    looks = []
    shelf = Shelf(2, lambda name, report: SimpleNamespace(name=name), lambda held: looks.append(held) or 10**12)
    shelf.get("a"), shelf.get("b")
    before = len(looks)
    for _ in range(40):
        shelf.get("a")
    assert len(looks) - before <= 2
