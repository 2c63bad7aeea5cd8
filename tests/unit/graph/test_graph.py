"""The flow graph keeps its one rule, its counts, and its numbers, for every family and every pruning."""

from __future__ import annotations

import math
from dataclasses import replace

import models
import numpy as np
import pandas as pd
import pytest
import torch

import visit
from visit import Keep, VisitError, build_flow_graph, capture, capture_many, ledger
from visit.activations.record import PARTS
from visit.analyses.overview import lens_map, predictions
from visit.exact.decompose import attribution, head_results
from visit.exact.question import Question
from visit.graph.blocks import GraphBuilder, add_block
from visit.graph.build import BEHIND_WORDS, build_folded_graph, parse_layers
from visit.graph.flowgraph import FlowGraph, sums_gap
from visit.graph.prune import chosen_terms
from visit.lenses.logit import final_norm, unembed

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
KEEPS = {
    "default": Keep(),
    "nothing": Keep(heads=0, values=0, attn_neurons=0, mlp_neurons=0),
    "all": Keep(heads=None, values=None, attn_neurons=None, mlp_neurons=None),
    "shares": Keep(heads=0.5, values=0.6, attn_neurons=0.2, mlp_neurons=0.4, by="contribution"),
    "pairs": Keep(heads=(1, 1), values=(1, 2), attn_neurons=(3, 2), mlp_neurons=(2, 4)),
}


@pytest.mark.parametrize("name", models.NAMES)
def test_every_sum_adds_up_in_float64(name):
    model = models.exact(name)
    acts = capture(model, PROMPT)
    for keep in KEEPS.values():
        for layers in (None, [0, model.n_layers - 1]):
            graph = build_flow_graph(model, acts, pos=-2, layers=layers, keep=keep)
            assert sums_gap(graph) < 1e-12, (keep, layers)
            assert graph.meta["ledger"]["max_rel_error"] < 1e-12, (keep, layers)


def test_the_check_of_sums_sees_a_wrong_number():
    model = models.small("gpt2")
    graph = build_flow_graph(model, capture(model, PROMPT))
    for wrong in (1e-3, float("nan")):
        edges = graph.edges.copy()
        edges.loc[edges.index[edges["kind"] == "add"][3], "contribution"] += wrong
        assert not sums_gap(FlowGraph.of_tables(graph.nodes, edges, graph.meta)) < 1e-6


def test_vectors_on_edges_add_up_not_only_their_shadow_on_one_word():
    """The contribution is one linear function of the vectors; the rule must hold for each of many of them."""
    for name in ("gpt2", "llama"):
        model = models.small(name)
        acts = capture(model, PROMPT)
        for target in range(0, model.d_vocab, model.d_vocab // 40):
            assert sums_gap(build_flow_graph(model, acts, target=target, layers=[1])) < 1e-12


# the blocks of the small models that see four positions only
WINDOWED = {
    "gpt_neo": (1, 2), "mistral-window": (0, 1, 2), "qwen2-window": (0, 2), "qwen3-window": (0, 2), "gemma2": (0, 2),
    "gemma3": (0, 2),
}  # fmt: skip


def expected(model: visit.Model, graph: FlowGraph, keep: Keep, t: int, layers: list[int]) -> tuple[int, int]:
    """Nodes and edges by the formulas of the method's section 5."""
    family = model.family
    total, g, p = model.n_heads, int(family.w_gate is not None), int(family.parallel)
    n1, n2 = int(family.ln1 is not None), int(family.ln2 is not None)
    nodes = edges = 0
    for layer in layers:
        windowed = layer in WINDOWED.get(model.name, ())
        visible = min(t + 1, 4) if windowed else t + 1
        heads = total if keep.heads is None else min(keep.heads, total)
        values = min(visible, visible if keep.values is None else keep.values)
        neurons = model.d_mlp if keep.mlp_neurons is None else min(keep.mlp_neurons, model.d_mlp)
        rows = total * model.d_head if keep.attn_neurons is None else min(keep.attn_neurons, total * model.d_head)
        biases = int(model.b_O(layer) is not None) + int(model.b_out(layer) is not None)
        first, last = int(layer == layers[0]), int(layer == model.n_layers - 1)
        rest = heads * int(values < visible) + int(heads < total) + int(neurons < model.d_mlp)
        states, ends = n1 + n2 + biases + rest, 2 * last
        nodes += states + first + (1 - p) + 3 + heads * (2 + 2 * values) + rows + (2 + g) * neurons + ends
        edges += states + (4 - p) + heads * (2 + 3 * values) + 2 * rows + (3 + 2 * g) * neurons + ends
    return nodes, edges


@pytest.mark.parametrize("name", models.NAMES)
def test_counts_are_those_of_the_method(name):
    model = models.small(name)
    acts = capture(model, PROMPT)
    for pos in (0, 8):
        for keep in (KEEPS["nothing"], KEEPS["all"], Keep(heads=2, values=3)):
            for layers in ([0], list(range(model.n_layers))):
                graph = build_flow_graph(model, acts, pos=pos, layers=layers, keep=keep)
                assert (len(graph.nodes), len(graph.edges)) == expected(model, graph, keep, pos, layers)
                assert graph.nodes["id"].is_unique


def test_published_count_of_a_gpt2_small_block():
    """The authors' first settings on GPT-2 small: 184 nodes and 267 edges in the first shown block."""
    from transformers import AutoModelForCausalLM, GPT2Config

    from visit.models.model import wrap

    config = GPT2Config(n_layer=2, n_embd=768, n_head=12, vocab_size=300, n_positions=32, **models.IDS)
    torch.manual_seed(0)
    model = wrap(AutoModelForCausalLM.from_config(config, attn_implementation="eager"), models.tokenizer(), "small")
    keep = Keep(heads=None, values=2, attn_neurons=(15, 15), mlp_neurons=(15, 15))
    acts = capture(model, list(range(1, 12)))
    graph = build_flow_graph(model, acts, layers=[0], keep=keep)
    assert (len(graph.nodes), len(graph.edges)) == (184, 267)


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


def test_a_source_outside_the_window_is_no_memory_value():
    model = models.small("mistral-window")
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, layers=[1], keep=Keep(values=None))
    values = graph.nodes[graph.nodes["kind"] == "value"]
    assert sorted(values["source_pos"].unique()) == [5, 6, 7, 8]
    with pytest.raises(VisitError, match=r"Keep\.pin names"):
        build_flow_graph(model, acts, layers=[1], keep=Keep(pin="L1.head0.value4"))


def test_contribution_of_the_last_state_plus_constant_is_the_centred_logit():
    for name in models.NAMES:
        model = models.exact(name)
        acts = capture(model, PROMPT)
        for target, distractor in ((7, None), (7, 11)):
            graph = build_flow_graph(model, acts, pos=4, target=target, distractor=distractor)
            state = graph.nodes.set_index("id").loc[f"L{model.n_layers - 1}.resid_post", "contribution"]
            logits = unembed(model, final_norm(model, acts.resid_post[-1, 4:5]))[0].detach()  # before any soft-cap
            true = logits[target] - (logits.mean() if distractor is None else logits[distractor])
            assert state + graph.meta["constant"] == pytest.approx(float(true), rel=1e-10)


def test_nodes_read_what_the_method_says():
    """Labels, ranks and probabilities of single nodes, made again by hand from the captured arrays."""
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, target=9, keep=Keep(attn_neurons=4, mlp_neurons=5, values=3))
    nodes = graph.nodes.set_index("id")
    neuron = graph.nodes[graph.nodes["kind"] == "mlp_value"].iloc[0]
    layer, n, a = int(neuron["layer"]), int(neuron["neuron"]), neuron["coefficient"]
    made = {
        "L1.head2": head_results(model, acts, 1, 8)[2],
        "L2.resid_mid": acts.resid_mid[2, 8],
        neuron["id"]: math.copysign(1, a) * model.W_out(layer)[n],
        "L0.ln1_out": acts.ln1_out[0, 8],
    }
    for name, vector in made.items():
        probs = unembed(model, final_norm(model, vector[None]))[0].softmax(-1).detach()
        row = nodes.loc[name]
        assert row["tokens"][0] == model.vocabulary[int(probs.argmax())]
        assert row["bottom_tokens"][0] == model.vocabulary[int(probs.argmin())]
        assert row["prob"] == pytest.approx(float(probs[9]), rel=1e-12)
        assert row["rank"] == 1 + int((probs > probs[9]).sum())
        assert row["entropy"] == pytest.approx(float(-(probs * probs.log2()).sum()), rel=1e-10)
        assert row["norm"] == pytest.approx(float(vector.norm()), rel=1e-12)
    direction = attribution(model, acts, 8, 9)
    assert neuron["contribution"] == pytest.approx(float(a * direction.of(model.W_out(layer)[n])), rel=1e-10)
    assert acts.neurons[layer, 8, n] == pytest.approx(a, rel=1e-12)
    assert nodes.loc["logits", "prob"] == pytest.approx(float(acts.logits[8].softmax(-1)[9]), rel=1e-12)
    assert nodes.loc["ln_final", "tokens"][0] == model.vocabulary[int(acts.logits[8].argmax())]


def rebuilt(model, acts, row, target_keys):
    """The vector that a node must read and its coefficient: by kind, from the raw arrays alone."""
    t, layer, kind = 8, row["layer"], row["kind"]
    group, d_head = model.n_heads // model.n_kv_heads, model.d_head
    if kind in ("query", "key", "value", "head"):
        j, l = int(row["head"]), int(layer)  # noqa: E741
        w_o = model.weight(model.family.w_o, l)[j * d_head : (j + 1) * d_head]
        if kind == "head":
            return past(model, acts, l, "attn", acts.z[l, t, j] @ w_o), None
        if kind == "value":
            i = int(row["source_pos"])
            return past(model, acts, l, "attn", acts.v[l, i, j // group] @ w_o), float(acts.pattern[l, j, t, i])
        seen = row["source_pos"]
        if kind == "key":
            k = acts.k[l, int(seen), j // group]
            k = turned(model, acts, l, turned(model, acts, l, k, int(seen)), t, back=True)
            return model.W_Q(l)[j] @ unnormed(model, l, "q", j, k), None
        q = acts.q[l, t, j]
        if model.family.rotary:
            q = turned(model, acts, l, turned(model, acts, l, q, t), int(seen), back=True)
        return model.W_K(l)[j // group] @ unnormed(model, l, "k", j // group, q), None
    if kind in ("attn_neuron", "mlp_value", "mlp_key"):
        n, l = int(row["neuron"]), int(layer)  # noqa: E741
        if kind == "attn_neuron":
            z = float(acts.z[l, t].flatten()[n])
            return past(model, acts, l, "attn", math.copysign(1, z) * model.weight(model.family.w_o, l)[n]), z
        if kind == "mlp_value":
            a = float(acts.neurons[l, t, n])
            return past(model, acts, l, "mlp", math.copysign(1, a) * model.weight(model.family.w_out, l)[n]), a
        gate = row["id"].endswith(".gate")
        weight = (model.W_gate(l) if gate else model.W_in(l))[:, n]
        bias = model.bias(model.family.w_gate if gate else model.family.w_in, l)
        return weight, float(weight @ acts.ln2_out[l, t] + (0 if bias is None else bias[n]))
    if kind == "attn_bias":
        return past(model, acts, int(layer), "attn", model.bias(model.family.w_o, int(layer))), None
    if kind == "mlp_bias":
        return past(model, acts, int(layer), "mlp", model.bias(model.family.w_out, int(layer))), None
    return (getattr(acts, kind)[int(layer), t], None) if kind in target_keys else (None, None)


def past(model, acts, layer, part, vector):
    """A part of what a sub-layer gives, past the post-norm with its statistics frozen."""
    family, t = model.family, 8
    path, norm = (family.w_o, family.post_attn) if part == "attn" else (family.w_out, family.post_mlp)
    if norm is None:
        return vector
    terms = acts.z[layer, t].flatten() if part == "attn" else acts.neurons[layer, t]
    raw = model.module(path, layer)(terms)
    weight = model.module(norm, layer).weight
    gain = weight + 1 if "gemma" in family.model_types[0] else weight
    return (gain * vector / (raw.pow(2).mean() + model.hf.config.rms_norm_eps).sqrt()).detach()


def unnormed(model, layer, name, head, vector):
    """A query or key past the norm of the other side's keys or queries: γ ⊙, then centred for a LayerNorm."""
    attention = model.module(model.family.attention, layer)
    norm = next((m for n, m in attention.named_children() if n in (f"{name}_norm", f"{name}_layernorm")), None)
    if norm is None:
        return vector
    if hasattr(norm, "norms"):
        norm = norm.norms[head]
    weight = norm.weight.detach()
    weight = weight if len(weight) == len(vector) else weight.unflatten(0, (-1, len(vector)))[head]
    scaled = vector * (weight + 1 if "gemma" in model.family.model_types[0] else weight)
    return scaled - scaled.mean() if isinstance(norm, torch.nn.LayerNorm) else scaled


def turned(model, acts, layer, x, pos, back=False):
    """The rotation written out pair by pair."""
    if not model.family.rotary:
        return x
    kinds = sorted(set(model.hf.config.layer_types)) if model.name == "gemma3" else [None]
    place = kinds.index(model.hf.config.layer_types[layer]) if len(kinds) > 1 else 0
    cos, sin = acts.rotary[place, :, pos]
    n, found = len(cos), x.clone()
    for i in range(n // 2):
        a, b = (2 * i, 2 * i + 1) if model.name == "gptj" else (i, i + n // 2)
        turn = -sin[a] if back else sin[a]
        found[a], found[b] = x[a] * cos[a] - x[b] * turn, x[b] * cos[b] + x[a] * turn
    return found


STATES = ("resid_pre", "ln1_out", "attn_out", "resid_mid", "ln2_out", "mlp_out", "resid_post")


@pytest.mark.parametrize(
    ("name", "by"), [(n, "norm") for n in models.NAMES] + [(n, b) for n in ("gpt2", "llama", "gemma3")
                                                           for b in ("contribution", "pattern")]
)  # fmt: skip
def test_every_node_and_edge_is_rebuilt_from_the_raw_arrays(name, by):
    """Reading, length, coefficient and contribution of every single node, and the numbers on its edges."""
    model = models.small(name)
    acts = capture(model, PROMPT)
    keep = Keep(heads=2, values=3, attn_neurons=5, mlp_neurons=6, by=by)
    graph = build_flow_graph(model, acts, target=9, keep=keep)
    direction = attribution(model, acts, 8, 9).direction
    checked = 0
    for _, row in graph.nodes.iterrows():
        vector, coefficient = rebuilt(model, acts, row, STATES)
        if vector is None:
            continue
        checked += 1
        logits = unembed(model, final_norm(model, vector[None]))[0]
        cap = model.logit_cap
        probs = (logits if cap is None else cap * (logits / cap).tanh()).softmax(-1).detach()
        assert row["prob"] == pytest.approx(float(probs[9]), rel=1e-9), row["id"]
        assert row["tokens"][0] == model.vocabulary[int(probs.argmax())], row["id"]
        assert row["norm"] == pytest.approx(float(vector.norm()), rel=1e-9), row["id"]
        assert (coefficient is None) == pd.isna(row["coefficient"]), row["id"]
        if coefficient is not None:
            assert row["coefficient"] == pytest.approx(coefficient, rel=1e-9), row["id"]
        amount = 1.0 if coefficient is None else abs(coefficient)
        if not pd.isna(row["contribution"]):
            assert row["contribution"] == pytest.approx(amount * float(vector @ direction), rel=1e-8, abs=1e-12), row[
                "id"
            ]
        own = graph.edges[(graph.edges["source"] == row["id"]) | (graph.edges["target"] == row["id"])]
        for _, edge in own.iterrows():
            source, target = edge["source"], edge["target"]
            if source == row["id"] and edge["kind"] in ("add", "residual", "norm"):
                assert edge["norm"] == edge["weight"] == pytest.approx(amount * float(vector.norm()), rel=1e-9)
            if target == row["id"] and row["kind"] in ("key", "value") and edge["kind"] == "multiply":
                assert (
                    edge["weight"]
                    == edge["coefficient"]
                    == pytest.approx(
                        float(acts.pattern[int(row["layer"]), int(row["head"]), 8, int(row["source_pos"])])
                    )
                )
    assert checked >= len(graph.nodes) - 2 - 4 * model.n_layers - model.n_layers * 2


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


def test_a_record_without_the_rotation_is_refused_not_misread():
    model = models.small("llama")
    parts = [p for p in PARTS if p != "rotary"]
    with pytest.raises(VisitError, match="rotary"):
        build_flow_graph(model, capture(model, PROMPT, parts=parts))


def test_a_record_of_one_position_is_refused_not_misread():
    model = models.small("gpt2")
    (acts,) = capture_many(model, [PROMPT], pos=-1)
    for analysis in (build_flow_graph, lens_map, predictions, ledger):
        with pytest.raises(VisitError, match="kept position 8 only"):
            analysis(model, acts)


def test_the_prediction_is_the_models_own_also_in_half_precision():
    model = models.small("gpt2", torch.bfloat16)
    for start in range(40):
        acts = capture(model, [start + 3, 2 * start + 5, 7])
        graph = build_flow_graph(model, acts, layers=[2])
        logits = graph.nodes.set_index("id").loc["logits"]
        assert logits["rank"] == 1
        assert logits["prob"] == pytest.approx(float(acts.logits[-1].float().softmax(-1).max()), rel=1e-5)


def test_a_long_prompt_holds_no_vector_of_every_head_and_source():
    model = models.small("gpt2", torch.float32)
    acts = capture(model, list(range(2, 62)))
    build = GraphBuilder(Question(model, acts, 59, 9), Keep(heads=None, values=2))
    add_block(build, 0)
    theirs = [*model.hf.parameters(), *(x for x in vars(acts).values() if torch.is_tensor(x))]
    known = {x.untyped_storage().data_ptr() for x in theirs}
    held = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in build.vectors}
    ours = sum(size for at, size in held.items() if at not in known)
    assert ours < 60 * model.n_heads * model.d_model * 4 / 2, "less than half of [source, head, d_model]"


def test_target_and_distractor_must_differ():
    model = models.small("gpt2")
    with pytest.raises(VisitError, match="must differ"):
        build_flow_graph(model, capture(model, PROMPT), target=7, distractor=7)


def test_nodes_that_add_nothing_have_no_contribution():
    graph = build_flow_graph(models.small("llama"), capture(models.small("llama"), PROMPT))
    silent = graph.nodes["contribution"].isna()
    kinds = {"ln1_out", "ln2_out", "query", "key", "mlp_key", "ln_final", "logits"}
    assert set(graph.nodes.loc[silent, "kind"]) == kinds
    assert not set(graph.nodes.loc[~silent, "kind"]) & kinds


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


def test_rotary_query_names_the_position_that_sees_it():
    model = models.small("llama")
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, layers=[1], keep=Keep(values=3))
    for _, query in graph.nodes[graph.nodes["kind"] == "query"].iterrows():
        values = graph.nodes[(graph.nodes["kind"] == "value") & (graph.nodes["head"] == query["head"])]
        assert query["source_pos"] == values.loc[values["coefficient"].idxmax(), "source_pos"]
    plain = build_flow_graph(models.small("gpt2"), capture(models.small("gpt2"), PROMPT), layers=[1])
    assert plain.nodes.loc[plain.nodes["kind"] == "query", "source_pos"].isna().all()


def test_default_target_is_the_prediction_and_the_graph_knows_what_it_is_of():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, pos=3)
    assert graph.meta["target"]["id"] == int(acts.logits[3].argmax())
    assert graph.meta["position"] == 3 and graph.meta["layers"] == [0, 1, 2]
    assert {
        "model",
        "revision",
        "dtype",
        "prompt",
        "tokens",
        "distractor",
        "keep",
        "shares",
        "constant",
        "versions",
    } <= set(graph.meta)
    assert isinstance(graph.nodes, pd.DataFrame) and isinstance(graph.edges, pd.DataFrame)
    assert graph.nodes.loc[graph.nodes["kind"] == "value", "source_token"].notna().all()
    words = graph.nodes["kind"] != "rest"
    assert (graph.nodes["label"] == graph.nodes["tokens"].str[0])[words].all()
    assert graph.nodes.loc[~words, "label"].str.startswith(("rest ", "layer")).all()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"pos": 9}, "0 to 8"), ({"pos": -10}, "got -10"), ({"layers": [3]}, "from 0 to 2"), ({"layers": []}, "none"),
        ({"layers": [-1]}, "got -1"), ({"target": 10**6}, "token id"),
        ({"target": "two words here"}, "exactly one token"),
        ({"target": ""}, "empty text"), ({"distractor": "a b"}, "distractor"),
    ],
)  # fmt: skip
def test_a_wrong_question_gets_a_sentence(wrong, says):
    model = models.small("gpt2")
    with pytest.raises(VisitError, match=says):
        build_flow_graph(model, capture(model, PROMPT), **wrong)


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


def test_layers_are_read_as_people_write_them():
    assert parse_layers("3") == [3] and parse_layers("3-5") == [3, 4, 5] and parse_layers("0, 3,7-9") == [0, 3, 7, 8, 9]
    for text in ("", "a", "5-3", "-1", "1-2-3", "9" * 30):
        with pytest.raises(VisitError):
            parse_layers(text)


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
