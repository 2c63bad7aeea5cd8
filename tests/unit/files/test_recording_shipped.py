"""What is shipped is what the model computes, and is small; the size of a large model's run follows from its shape."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import visit
from visit.files.record_run import _Pen
from visit.files.recorded_values import WrittenValues
from visit.files.recording import load_recording
from visit.files.recording_file import packed_recording
from visit.files.shipped_recordings import SHIPPED, shipped_recordings
from visit.graph.build import MAX_NODES
from visit.graph.flowgraph import Edge, FlowGraph, Node
from visit.lessons.shipped import shipped_lesson, shipped_lessons
from visit.models.catalog import MINI, REAL

ROOT = Path(__file__).parents[3]
MB = 1_000_000


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("make_recordings", ROOT / "docs" / "recordings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_lesson_and_both_opening_examples_are_there(builder):
    assert set(shipped_recordings()) == set(builder.questions().values())
    assert {file.stem for file in SHIPPED.glob("*.visit")} == set(builder.questions())
    opening = {one.model for one in shipped_recordings() if one.prompt == builder.OPENING and not any(one[2:])}
    assert opening == {MINI, REAL} and len(shipped_lessons()) == 8
    prompts = {one.prompt for one in shipped_recordings()}
    assert all(shipped_lesson(name).prompt in prompts for name in shipped_lessons())


def test_they_are_small():
    sizes = {asked: file.stat().st_size for asked, file in shipped_recordings().items()}
    assert sum(size for asked, size in sizes.items() if asked.model == MINI) < 3 * MB
    assert sum(size for asked, size in sizes.items() if asked.model == REAL) <= 2 * MB


def test_the_licence_of_a_model_is_named():
    for asked, file in shipped_recordings().items():
        note = load_recording(file).meta["note"]
        assert ("Apache License 2.0" if asked.model == REAL else "MIT") in note


@pytest.mark.parametrize("asked", [one for one in shipped_recordings() if one.model == MINI], ids=str)
def test_a_shipped_recording_holds_on_its_model(asked):
    recording = load_recording(shipped_recordings()[asked])
    found = recording.check(visit.load_model(MINI), k=60)
    assert found.attrs["holds"] and found.attrs["same_model"], found[~found["holds"]]


def test_made_again_a_shipped_recording_is_the_same_within_the_ledger(builder, tmp_path):
    asked = builder.questions()["opening"]
    builder.save(tmp_path / "again.visit", asked)
    old, new = load_recording(shipped_recordings()[asked]), load_recording(tmp_path / "again.visit")
    assert list(old.runs[0].results) == list(new.runs[0].results), "make them again: python docs/recordings.py"
    assert np.abs(old.runs[0].pattern - new.runs[0].pattern).max() < 1e-4
    for name in old.tables:
        assert list(old.tables[name].columns) == list(new.tables[name].columns), "make them again: docs/recordings.py"
    for name in ("nodes", "heads", "lens_map", "life", "effects", "norm layers"):  # their rows are no one's choice
        by = (
            ["id"]
            if name == "nodes"
            else [c for c in ("of", "depth", "pos", "layer", "head", "norm") if c in old.tables[name]]
        )
        one, two = (r.tables[name].sort_values(by, ignore_index=True).select_dtypes("float64") for r in (old, new))
        largest = two.abs().max().fillna(0).clip(lower=1).to_numpy()
        np.testing.assert_allclose(one / largest, two / largest, rtol=0, atol=1e-4, err_msg=name)


# ---- the size of a large model's run, computed from its shape --------------------------------------------------------
LAYERS, HEADS, TOKENS, VOCABULARY = 80, 64, 20, 128_000
HEADS_SHOWN, VALUES, NEURONS = 12, 2, 12


def words(random, n, k=10):
    """Random words are the worst case: those of a model repeat."""
    return [[f" word{i}" for i in row] for row in random.integers(0, VOCABULARY, (n, k)).tolist()]


def shares(random, n, k=10):
    return random.random((n, k)).astype(np.float32).astype(float).tolist()


def numbers(random, n):
    return random.normal(size=n).astype(np.float32).astype(float)


def large_graph(random) -> FlowGraph:
    """A graph of all blocks with twelve heads each, as many as can be drawn of a model of this size."""
    ids = []
    for layer in range(LAYERS):
        ids += [
            f"L{layer}.{kind}"
            for kind in (
                "resid_post",
                "resid_mid",
                "ln1_out",
                "ln2_out",
                "attn_out",
                "mlp_out",
                "heads.rest",
                "mlp.rest",
            )
        ]
        for head in range(HEADS_SHOWN):
            at = f"L{layer}.head{head}"
            ids += [
                at,
                f"{at}.query",
                f"{at}.rest",
                *(f"{at}.{kind}{i}" for kind in ("key", "value") for i in range(VALUES)),
            ]
        for n in range(NEURONS):
            ids += [f"L{layer}.attn_neuron{n}", f"L{layer}.mlp_value{n}"]
            ids += [f"L{layer}.mlp_key{n}.{path}" for path in ("gate", "up")]
    assert len(ids) <= MAX_NODES
    n = len(ids)
    columns = zip(
        words(random, n),
        shares(random, n),
        words(random, n),
        shares(random, n),
        *(numbers(random, n).tolist() for _ in range(6)),
        random.integers(1, VOCABULARY, n).tolist(),
        strict=True,
    )
    nodes = {}
    for name, (top, probs, bottom, least, *rest, rank) in zip(ids, columns, strict=True):
        nodes[name] = Node(name, "head", 1, 1, 1, " token", 1, top[0], tuple(top), tuple(probs), tuple(bottom),
                           tuple(least), abs(rest[0]) % 1, rank, *rest[1:])  # fmt: skip
    ends = random.integers(0, n, (int(1.5 * n), 2)).tolist()
    edges = [Edge(ids[a], ids[b], "add", *numbers(random, 5).tolist()) for a, b in ends]
    return FlowGraph(nodes, edges, {"layers": list(range(LAYERS)), "influence": {}})


def table(random, n, floats, integers, lists) -> pd.DataFrame:
    found = {f"number{i}": numbers(random, n) for i in range(floats)}
    found |= {f"whole{i}": random.integers(0, VOCABULARY, n) for i in range(integers)}
    found |= {f"words{i}": words(random, n, 5) for i in range(lists)} | {
        f"probs{i}": shares(random, n, 5) for i in range(lists)
    }
    return pd.DataFrame(found)


def test_a_run_of_eighty_blocks_and_sixty_four_heads_has_at_most_twenty_megabytes():
    """Every number is random, which packs worst: its real run is smaller."""
    random, out = np.random.default_rng(0), WrittenValues()
    pen = _Pen(out, "a")
    pen.graph("graph", large_graph(random))
    pen.table("lens_map", table(random, (LAYERS + 1) * TOKENS, 3, 4, 1))
    pen.table("heads", table(random, LAYERS * HEADS, 14, 6, 2))
    pen.table("predictions", table(random, 10 * TOKENS, 2, 2, 0))
    pen.stack("memory", {f"L0.head{i}": table(random, TOKENS + 1, 7, 4, 6) for i in range(64)})
    pen.table("alignment", table(random, LAYERS * HEADS * 9, 1, 6, 0))
    pen.stack("norm", {f"ln1 {i}": table(random, 40, 7, 6, 0) for i in range(2 * LAYERS + 1)})
    pen.stack("neurons", {str(i): table(random, 32, 7, 4, 4) for i in range(LAYERS)})
    pen.table("effects", table(random, LAYERS * HEADS, 8, 4, 0))
    for i in range(4):
        pen.graph(f"head graph L0.head{i}", FlowGraph({}, [], {}))
    out.arrays["a/pattern"] = random.integers(0, 65536, LAYERS * HEADS * TOKENS * (TOKENS + 1) // 2).astype(np.uint16)
    content = {"runs": [{"results": pen.results}], "texts": list(out.texts)}
    size = len(packed_recording(content, out.arrays))
    print(f"{size / MB:.1f} MB, of which the pattern {LAYERS * HEADS * TOKENS * (TOKENS + 1) / MB:.1f} MB")
    assert 2 * MB < size <= 20 * MB and math.isfinite(size)
