"""Every node and every edge of a flow graph is rebuilt here from the raw arrays of the record."""

from __future__ import annotations

import math

import models
import pandas as pd
import pytest
import torch

from visit import Keep, build_flow_graph, capture
from visit.exact.decompose import attribution, head_results
from visit.lenses.logit import final_norm, unembed

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]


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


def test_rotary_query_names_the_position_that_sees_it():
    model = models.small("llama")
    acts = capture(model, PROMPT)
    graph = build_flow_graph(model, acts, layers=[1], keep=Keep(values=3))
    for _, query in graph.nodes[graph.nodes["kind"] == "query"].iterrows():
        values = graph.nodes[(graph.nodes["kind"] == "value") & (graph.nodes["head"] == query["head"])]
        assert query["source_pos"] == values.loc[values["coefficient"].idxmax(), "source_pos"]
    plain = build_flow_graph(models.small("gpt2"), capture(models.small("gpt2"), PROMPT), layers=[1])
    assert plain.nodes.loc[plain.nodes["kind"] == "query", "source_pos"].isna().all()
