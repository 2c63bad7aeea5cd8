"""The store of records keeps what fits, drops the least recently used, and never the newest."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import visit
from visit.cache import Store, weight
from visit.graph.build import build_folded_graph


@dataclass
class Record:
    x: Tensor
    y: Tensor | None = None


def record(kilobytes: int) -> Record:
    return Record(torch.zeros(kilobytes * 256))


def test_the_least_recently_used_goes_first():
    store = Store(10 * 1024)
    made: list[str] = []

    def ask(key: str, size: int = 4) -> Record:
        return store.get(key, lambda: (made.append(key), record(size))[1])

    first = ask("a")
    ask("b")
    assert ask("a") is first and made == ["a", "b"]
    ask("c")  # 12 kB: b is dropped, a was used since
    assert ask("a") is first and store.bytes // 1024 == 8
    ask("b")
    assert made == ["a", "b", "c", "b"]


def test_the_newest_is_kept_however_large():
    store = Store(10 * 1024)
    store.get("small", lambda: record(4))
    big = store.get("big", lambda: record(100))
    assert store.get("big", lambda: record(1)) is big and store.bytes // 1024 == 100
    store.get("small", lambda: record(4))
    assert store.bytes // 1024 == 4, "the large one went as soon as another came"


def test_views_of_one_tensor_count_once():
    whole = torch.zeros(256)
    assert 1024 <= weight(Record(whole[:10], whole[5:])) < 1100


def test_a_graph_weighs_what_it_takes():
    """What a class looks at is thrown away early where it counts twice: words are the vocabulary's, not the graph's."""
    model = visit.load_model("visit-mini")
    acts = visit.capture(model, "The capital of France is the city of")
    build_folded_graph(model, acts, -1, opened=(3,))  # what is made once
    gc.collect()
    tracemalloc.start()
    graph = build_folded_graph(model, acts, -1, opened=(3,))
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.6 * taken < weight(replace(graph, source=None)) < 1.4 * taken
