"""The flow graph keeps its one rule and its counts, for every family and pruning; what it is asked, and refuses."""

from __future__ import annotations

import models
import pandas as pd
import pytest
import torch

import visit
from visit import Keep, VisitError, build_flow_graph, capture, capture_many, ledger
from visit.activations.record import PARTS
from visit.analyses.overview import lens_map, predictions
from visit.exact.question import Question
from visit.graph.blocks import GraphBuilder, add_block
from visit.graph.build import parse_layers
from visit.graph.flowgraph import FlowGraph, sums_gap
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


def test_layers_are_read_as_people_write_them():
    assert parse_layers("3") == [3] and parse_layers("3-5") == [3, 4, 5] and parse_layers("0, 3,7-9") == [0, 3, 7, 8, 9]
    for text in ("", "a", "5-3", "-1", "1-2-3", "9" * 30):
        with pytest.raises(VisitError):
            parse_layers(text)
