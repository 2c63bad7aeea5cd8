"""A graph that is extended, folded or unfolded has the rows of the whole graph, and reads nothing twice."""

from __future__ import annotations

from dataclasses import replace

import models
import numpy as np
import pandas as pd
import pytest

import visit
from visit import Keep, VisitError, build_flow_graph, capture
from visit.graph.build import BEHIND_WORDS, build_folded_graph
from visit.graph.flowgraph import sums_gap

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]


@pytest.mark.parametrize("name", models.NAMES)
def test_an_extended_graph_is_the_graph_built_with_these_pins(name):
    model = models.small(name)
    acts = capture(model, PROMPT)
    keep = Keep(heads=1, values=1, attn_neurons=2, mlp_neurons=2)
    graph = build_flow_graph(model, acts, keep=keep, target=7)
    last = model.n_heads - 1
    pins = [f"L1.head{last}.value6", "L0.mlp_value3", "L1.attn_neuron1", "L0.head0"]
    extended = visit.graph.build.extend(graph, pins)
    whole = build_flow_graph(model, acts, keep=Keep(1, 1, 2, 2, pin=tuple(pins)), target=7)
    pd.testing.assert_frame_equal(extended.edges, whole.edges)
    pd.testing.assert_frame_equal(extended.nodes, whole.nodes, rtol=1e-12)
    assert set(pins) <= set(extended.nodes["id"]) and not set(pins) <= set(graph.nodes["id"])
    with pytest.raises(VisitError, match="separated from its pass"):
        visit.graph.build.extend(replace(graph, source=None), pins)


def rows_of(table, ids):
    return table[table["id"].isin(ids)].set_index("id").loc[list(ids)]


@pytest.mark.parametrize("by", ["norm", "contribution"])
@pytest.mark.parametrize("name", models.NAMES)
def test_a_folded_graph_has_the_whole_graphs_rows_of_its_open_block_and_of_what_folded_blocks_show(name, by):
    model = models.small(name)
    acts = capture(model, PROMPT)
    keep = Keep(heads=None, values=1, attn_neurons=2, mlp_neurons=2, by=by, pin=("L0.head0", "L0.mlp_value3"))
    whole = build_flow_graph(model, acts, keep=keep, target=7)
    last = model.n_layers - 1
    folded = build_folded_graph(model, acts, keep=keep, target=7, opened=[last])
    inside = [i for i in whole.nodes["id"] if i.startswith(f"L{last}.")]
    assert [i for i in folded.nodes["id"] if i.startswith(f"L{last}.")] == inside
    common = [i for i in folded.nodes["id"] if i in inside or not i.endswith(".heads.rest")]
    assert {"L0.resid_pre", "L0.resid_post", "L0.attn_out", "L0.mlp_out", "L0.head0", "logits"} <= set(common)
    assert "L0.mlp_value3" not in common and len(folded.nodes) < len(whole.nodes)
    pd.testing.assert_frame_equal(rows_of(folded.nodes, common), rows_of(whole.nodes, common), rtol=1e-12)
    edges = [g.edges[g.edges["target"].isin(inside)].reset_index(drop=True) for g in (folded, whole)]
    pd.testing.assert_frame_equal(*edges, rtol=1e-12)
    shares = {i: s for i, s in whole.meta["shares"].items() if i.startswith(f"L{last}.")}
    assert folded.meta["shares"] == pytest.approx(shares) and folded.meta["opened"] == [last]
    assert folded.meta["ledger"]["holds"] and sums_gap(folded) < 1e-6
    assert "opened" not in whole.meta


@pytest.mark.parametrize("name", models.NAMES)
def test_unfolding_reads_nothing_twice_and_opens_the_whole_graph_in_the_end(name, monkeypatch):
    model = models.small(name)
    acts = capture(model, PROMPT)
    whole = build_flow_graph(model, acts)
    folded = build_folded_graph(model, acts)
    count = []
    read = visit.graph.build.read
    monkeypatch.setattr(visit.graph.build, "read", lambda m, x, *rest: count.append(len(x)) or read(m, x, *rest))
    full = build_folded_graph(model, acts, opened=range(model.n_layers), known=folded.by_id.values())
    pd.testing.assert_frame_equal(full.nodes, whole.nodes, rtol=1e-12)
    pd.testing.assert_frame_equal(full.edges, whole.edges, rtol=1e-12)
    again = folded.nodes[(folded.nodes["kind"] != "rest") & ~folded.nodes["id"].isin(["ln_final", "logits"])]
    assert sum(count) == len(whole.nodes) - 2 - len(again)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_block_drawn_in_words_leaves_unread_what_words_do_not_show_and_the_rest_is_the_whole_graphs(
    name, monkeypatch
):
    model = models.small(name)
    acts = capture(model, PROMPT)
    whole = build_flow_graph(model, acts)
    count = []
    read = visit.graph.build.read
    monkeypatch.setattr(visit.graph.build, "read", lambda m, x, *rest: count.append(len(x)) or read(m, x, *rest))
    worded = build_folded_graph(model, acts, opened=[0, 1], worded=[1])
    behind = worded.nodes["kind"].isin(BEHIND_WORDS) & (worded.nodes["layer"] == 1)
    undrawn = (worded.nodes["kind"] == "rest") & ~worded.nodes["layer"].isin([0, 1])  # a folded block's other heads
    assert undrawn.any() and not worded.nodes["tokens"][undrawn].map(len).any()
    assert behind.sum() > 4 and sum(count) == len(worded.nodes) - behind.sum() - undrawn.sum() - 2
    unread, others = worded.nodes[behind], worded.nodes[~behind & (worded.nodes["kind"] != "rest")]
    assert not unread["tokens"].map(len).any() and unread["rank"].isna().all()
    true = whole.nodes.set_index("id").loc[unread["id"]]
    assert np.allclose(unread["norm"], true["norm"]) and np.allclose(
        unread["coefficient"], true["coefficient"], equal_nan=True
    )
    pd.testing.assert_frame_equal(rows_of(worded.nodes, others["id"]), rows_of(whole.nodes, others["id"]), rtol=1e-12)
    later = build_folded_graph(model, acts, opened=[0, 1], known=worded.by_id.values())
    inside = [i for i in whole.nodes["id"] if i.startswith(("L0.", "L1."))]
    pd.testing.assert_frame_equal(rows_of(later.nodes, inside), rows_of(whole.nodes, inside), rtol=1e-12)
