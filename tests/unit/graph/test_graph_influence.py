"""The influence in a flow graph: that of `visit.influence`, additive at every sum, and computed only when asked for."""

from __future__ import annotations

import models
import pytest
import torch

from visit import Keep, VisitError, build_flow_graph, capture, compare, influence
from visit.exact.gradients import gradients_of
from visit.exact.question import Question, ask
from visit.graph.build import build_folded_graph, extend
from visit.graph.flowgraph import FlowGraph

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
ALL = Keep(heads=None, values=None, attn_neurons=None, mlp_neurons=None)


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("keep", [Keep(heads=2, values=1, mlp_neurons=4, attn_neurons=3, by="influence"), ALL])
def test_nodes_have_the_tables_influence_and_edges_add_up(name, keep):
    model = models.exact(name)
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, pos=-2, target=31, layers=[0, model.n_layers - 1], keep=keep, influence=True)
    question = ask(model, acts, -2, 31)
    true = influence(model, acts, -2, 31).set_index("node")["influence"]
    nodes = graph.nodes.set_index("id")
    named = nodes.loc[nodes.index.isin(true.index), "influence"]
    assert len(named) and (named - true[named.index]).abs().max() < 1e-12 * true.abs().max()
    states = nodes["kind"].str.startswith("resid_")
    assert nodes.loc[states | nodes["contribution"].isna(), "influence"].isna().all()
    assert nodes.loc[~states & nodes["contribution"].notna(), "influence"].notna().all()
    sums = graph.edges[graph.edges["kind"].isin(["add", "residual"])].groupby("target")["influence"].sum(min_count=1)
    for node, total in sums.items():
        expected = nodes["influence"][node]
        if states[node]:
            kind, layer = nodes["kind"][node], int(nodes["layer"][node])
            expected = float(getattr(acts, kind)[layer, -2] @ gradients_of(question).into(kind, layer))
        assert total == pytest.approx(expected, rel=1e-9, abs=1e-11), node


def test_rows_of_w_o_are_a_second_reading_of_the_heads():
    model = models.small("llama")
    graph = build_flow_graph(model, capture(model, PROMPT), keep=ALL, influence=True)
    nodes = graph.nodes
    for (_layer, _head), rows in nodes[nodes["kind"] == "attn_neuron"].groupby(["layer", "head"]):
        head = nodes[(nodes["kind"] == "head") & (nodes["layer"] == _layer) & (nodes["head"] == _head)]["influence"]
        assert rows["influence"].sum() == pytest.approx(float(head.iloc[0]))


def test_it_chooses_what_is_shown():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    keep = Keep(heads=2, values=(1, 1), mlp_neurons=5, attn_neurons=2, by="influence")
    graph = build_flow_graph(model, acts, target=31, layers=[1], keep=keep)
    table = influence(model, acts, target=31).query("layer == 1")
    heads = table[table["head"].notna() & table["source_pos"].isna()]
    shown = graph.nodes.query("kind == 'head'")["head"].tolist()
    assert shown == heads.sort_values("influence", key=abs, ascending=False)["head"].tolist()[:2]
    neurons = table[table["neuron"].notna()].sort_values("influence", key=abs, ascending=False)["neuron"].tolist()
    assert graph.nodes.query("kind == 'mlp_value'")["neuron"].tolist() == neurons[:5]
    assert graph.meta["shares"]["L1.attn_out"] == pytest.approx(
        heads["influence"].abs().nlargest(2).sum() / heads["influence"].abs().sum()
    )
    for head in shown:
        values = table[(table["head"] == head) & table["source_pos"].notna()].set_index("source_pos")["influence"]
        kept = graph.nodes.query("kind == 'value' and head == @head")["source_pos"].tolist()
        largest = [values[values > 0].nlargest(1), values[values < 0].nsmallest(1)]
        assert set(kept) == {i for side in largest for i in side.index}


def test_what_is_not_looked_at_is_not_computed(monkeypatch):
    model = models.small("gpt2")
    acts = capture(model, PROMPT)

    def refuse(*_args, **_named):
        raise AssertionError("a backward pass that nobody asked for")

    monkeypatch.setattr("visit.exact.gradients.gradients", refuse)
    for by in ("norm", "contribution", "pattern"):
        graph = build_flow_graph(model, acts, keep=Keep(by=by))
        assert "influence" not in graph.nodes and "influence" not in graph.edges and "influence" not in graph.meta
    with pytest.raises(AssertionError, match="nobody asked"):
        build_flow_graph(model, acts, influence=True)


def test_one_backward_pass_serves_every_graph_of_a_question(monkeypatch):
    from visit.exact.gradients import gradients

    model = models.small("gpt2")
    acts, runs = capture(model, PROMPT), []
    monkeypatch.setattr("visit.exact.gradients.gradients", lambda *a: runs.append(a[2:]) or gradients(*a))
    for layers in (None, [1]):
        build_flow_graph(model, acts, target=31, layers=layers, keep=Keep(by="influence"))
    assert len(runs) == 1
    build_flow_graph(model, acts, target=32, influence=True)
    assert len(runs) == 2
    for target in range(40):  # a bound
        assert gradients_of(Question(model, acts, 8, target)) is not None
    assert len(runs) == 42


def test_meta_says_what_the_shown_parts_have_of_all():
    model = models.small("llama")
    acts = capture(model, PROMPT)
    table = influence(model, acts)
    units = table[table["neuron"].notna() | (table["head"].notna() & table["source_pos"].isna())]
    assert build_flow_graph(model, acts, keep=ALL, influence=True).meta["influence"]["share"] == pytest.approx(1)
    graph = build_flow_graph(model, acts, layers=[1], keep=Keep(heads=1, mlp_neurons=2), influence=True)
    shown = units[units["node"].isin(graph.nodes["id"])]["influence"].abs()
    assert len(shown) == 3
    assert graph.meta["influence"]["share"] == pytest.approx(shown.sum() / units["influence"].abs().sum())
    assert graph.meta["influence"]["total"] == pytest.approx(units["influence"].abs().sum())


def test_folded_and_extended_graphs_and_tables_keep_it():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    whole = build_flow_graph(model, acts, influence=True)
    folded = build_folded_graph(model, acts, opened=[1], known=whole.by_id.values(), influence=True)
    for node in folded.by_id.values():
        if node.kind != "rest":
            assert (
                node.influence == whole.by_id[node.id].influence
                or abs(node.influence - whole.by_id[node.id].influence) < 1e-12
            )
    plain = build_flow_graph(model, acts)
    later = build_folded_graph(model, acts, opened=[1], known=plain.by_id.values(), influence=True)
    assert later.by_id["L1.head0"].influence == pytest.approx(whole.by_id["L1.head0"].influence)
    hidden = next(f"L1.mlp_value{n}" for n in range(40) if f"L1.mlp_value{n}" not in whole.by_id)
    more = extend(whole, [hidden])
    assert more.by_id[hidden].influence is not None
    assert more.meta["influence"]["share"] > whole.meta["influence"]["share"]
    again = FlowGraph.of_tables(whole.nodes, whole.edges, whole.meta)
    assert again.by_id == {i: n._replace(label=again.by_id[i].label) for i, n in whole.by_id.items()}


def test_states_are_no_parts_and_a_wrong_measure_gets_a_sentence():
    with pytest.raises(VisitError, match="'norm', 'contribution', 'influence' or 'pattern'; got 'effect'"):
        Keep(by="effect")
    model = models.small("olmo2", torch.float32)
    graph = build_flow_graph(model, capture(model, PROMPT), influence=True)
    assert graph.nodes.query("kind == 'resid_post'")["influence"].isna().all()


def test_a_comparison_has_both_sides_where_both_were_asked():
    model = models.small("gpt2")
    a, b = (build_flow_graph(model, capture(model, prompt), influence=True) for prompt in (PROMPT, [*PROMPT[:-1], 44]))
    found = compare(a, b)
    row = found.nodes.set_index("id").loc["L1.head2"]
    assert (
        row["influence_a"] == pytest.approx(a.by_id["L1.head2"].influence) and row["influence_b"] != row["influence_a"]
    )
    assert found.edges["influence_a"].notna().any()
    plain = compare(a, build_flow_graph(model, capture(model, PROMPT[::-1])))
    assert not [c for table in (plain.nodes, plain.edges) for c in table if "influence" in c]
