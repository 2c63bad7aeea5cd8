"""Which parts of a sum a graph shows: the largest by a measure, shares, pins; what stands for the rest."""

from __future__ import annotations

import math

import models
import pytest
import torch

from visit import Keep, VisitError, build_flow_graph, capture
from visit.exact.decompose import attribution, head_results
from visit.graph.flowgraph import sums_gap
from visit.graph.prune import chosen_terms

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]


def test_a_gap_is_a_rest_node_that_fills_it():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, layers=[0, 2])
    nodes = graph.nodes.set_index("id")
    assert nodes.loc["L1.rest", "kind"] == "rest"
    between = acts.resid_pre[2, -1] - acts.resid_post[0, -1]
    assert math.isclose(nodes.loc["L1.rest", "norm"], float(between.norm()), rel_tol=1e-12)
    incoming = graph.edges[graph.edges["target"] == "L2.resid_pre"]
    assert sorted(incoming["kind"]) == ["add", "residual"]


@pytest.mark.parametrize("by", ["norm", "contribution", "pattern"])
def test_the_largest_by_the_chosen_measure_are_kept(by):
    model = models.small("llama")
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, target=9, layers=[1], keep=Keep(heads=2, values=2, mlp_neurons=3, by=by))
    direction = attribution(model, acts, 8, 9).direction
    results = torch.stack([acts.z[1, 8, j] @ model.W_O(1)[j] for j in range(4)])
    size = (results @ direction).abs() if by == "contribution" else results.norm(dim=1)
    heads = graph.nodes.loc[graph.nodes["kind"] == "head", "head"].tolist()
    assert heads == size.argsort(descending=True)[:2].tolist()
    for j in heads:
        values = torch.stack([acts.v[1, i, j // 2] @ model.W_O(1)[j] for i in range(9)])
        pattern = acts.pattern[1, j, 8]
        sizes = {
            "norm": pattern * values.norm(dim=1), "pattern": pattern,
            "contribution": (pattern * (values @ direction)).abs(),
        }[by]  # fmt: skip
        kept = graph.nodes[(graph.nodes["kind"] == "value") & (graph.nodes["head"] == j)]["source_pos"].tolist()
        assert kept == sizes.argsort(descending=True)[:2].tolist()
    moved = acts.neurons[1, 8] * (model.W_out(1) @ direction)
    size = moved.abs() if by == "contribution" else acts.neurons[1, 8].abs() * model.W_out(1).norm(dim=1)
    neurons = graph.nodes.loc[graph.nodes["kind"] == "mlp_value", "neuron"].tolist()
    assert neurons == size.argsort(descending=True)[:3].tolist()


def test_a_pinned_node_is_shown_and_a_hidden_one_is_not():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    few = Keep(heads=1, values=1, attn_neurons=1, mlp_neurons=1)
    before = set(build_flow_graph(model, acts, keep=few).nodes["id"])
    absent = ["L1.head0.value3", "L1.head3", "L2.mlp_value7", "L0.attn_neuron5"]
    pins = [
        next(p for p in (a, a.replace("3", "2"), a.replace("7", "6"), a.replace("5", "4")) if p not in before)
        for a in absent
    ]
    shown = next(i for i in before if ".value" in i and ".mlp" not in i)
    graph = build_flow_graph(
        model, acts, keep=Keep(heads=1, values=1, attn_neurons=1, mlp_neurons=1, pin=(*pins, f"-{shown}"))
    )
    after = set(graph.nodes["id"])
    assert set(pins) <= after and shown not in after
    assert sums_gap(graph) < 1e-12
    for wrong in (
        "L9.head0",
        "L1.head9",
        "L1.head0.value99",
        "L1.head0.query5",
        "L1.head0.value",
        "nonsense",
        "L1.head0.link2",
        "L1.kv_head0.value2",
        "embed",
    ):
        with pytest.raises(VisitError, match=r"Keep\.pin names"):
            build_flow_graph(model, acts, keep=Keep(pin=wrong))


def test_pins_may_be_clicked_in_any_order():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    both = build_flow_graph(model, acts, keep=Keep(pin=("-L1.head0.value3", "-L1.head0", "L1.resid_mid", "logits")))
    assert not [i for i in both.nodes["id"] if i.startswith("L1.head0")]
    query = build_flow_graph(model, acts, keep=Keep(pin=("-L1.head0.query",)))
    assert "L1.head0" in set(query.nodes["id"])


def test_shares_say_what_is_kept():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, layers=[1], keep=Keep(heads=2, mlp_neurons=0.5, by="norm"))
    sizes = head_results(model, acts, 1, 8).norm(dim=1).sort(descending=True).values
    assert graph.meta["shares"]["L1.attn_out"] == pytest.approx(float(sizes[:2].sum() / sizes.sum()))
    assert graph.meta["shares"]["L1.mlp_out"] >= 0.5
    neurons = graph.nodes[graph.nodes["kind"] == "mlp_value"]
    one_less = (neurons["coefficient"].abs() * neurons["norm"]).iloc[:-1].sum()
    assert one_less / (acts.neurons[1, 8].abs() * model.out_row_norms[1]).sum() < 0.5


def test_select_takes_shares_pairs_pins():
    size, sign = torch.tensor([1.0, 4.0, 2.0, 3.0]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert chosen_terms(size, sign, 2) == [1, 3]
    assert chosen_terms(size, sign, None) == [1, 3, 2, 0]
    assert chosen_terms(size, sign, 0) == []
    assert (
        chosen_terms(size, sign, 0.4) == [1]
        and chosen_terms(size, sign, 0.41) == [1, 3]
        and chosen_terms(size, sign, 1.0) == [1, 3, 2, 0]
    )
    assert chosen_terms(size, sign, (1, 1)) == [1, 2]
    assert chosen_terms(size, sign, 1, pinned={0}, hidden={1}) == [0]


def test_too_many_nodes_says_what_to_lower(monkeypatch):
    model = models.small("gpt2")
    monkeypatch.setattr("visit.graph.build.MAX_NODES", 200)
    monkeypatch.setattr("visit.graph.blocks.MAX_NODES", 200)
    with pytest.raises(VisitError, match="mlp_neurons"):
        build_flow_graph(model, capture(model, PROMPT), keep=Keep(mlp_neurons=None))
    with pytest.raises(VisitError, match="more than 200 nodes"):
        build_flow_graph(model, capture(model, PROMPT), keep=Keep(mlp_neurons=1.0))


@pytest.mark.parametrize(
    "wrong", [{"heads": -1}, {"values": 1.5}, {"mlp_neurons": (1,)}, {"by": "size"}, {"heads": True}]
)
def test_a_wrong_keep_gets_a_sentence(wrong):
    with pytest.raises(VisitError, match=next(iter(wrong))):
        Keep(**wrong)
