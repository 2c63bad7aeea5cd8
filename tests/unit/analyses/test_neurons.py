"""Neurons add up, statistics are what a loop counts, two halves are the whole; and what visit-mini shows."""

from __future__ import annotations

import csv
import json
from dataclasses import fields

import models
import pandas as pd
import pytest
import torch

import visit
from visit import VisitError, __main__, capture, neuron_statistics
from visit.analyses.neuron_sets import (
    BINS,
    batch_sums,
    empty_sums,
    neuron_sums,
    rogue_dims,
    statistics_table,
)
from visit.analyses.neurons import (
    active_neurons,
    histogram,
    neuron_card,
    regularization_findings,
    regularization_table,
    regularization_verdict,
    similar_neurons,
    weight_profile,
)
from visit.exact.decompose import attribution
from visit.figures.neurons import activation_histogram, norm_entropy, weight_lines
from visit.lenses.weights import static_index
from visit.runs.prompts import shipped_set
from visit.runs.sums import merge

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
SET = [[(7 * i + 3 * j * j) % 2100 for j in range(1 + i % 9)] for i in range(40)] + [[5, 17, 3], [5, 17, 3]]
CITY = "The capital of Japan is the city of"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=models.KINDS)
def model(request):
    return models.exact(request.param)


@pytest.fixture(scope="module")
def singles(model):
    return [capture(model, ids) for ids in SET]


# ---- one prompt ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [None, 7])
@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_contributions_add_up_to_what_the_layer_writes(model, kind, top):
    acts = capture(model, PROMPT)
    whole = acts.mlp_out if kind == "mlp" else acts.attn_out
    for layer in range(model.n_layers):
        for target, distractor in ((7, None), (7, 300)):
            table = active_neurons(model, acts, layer, 5, kind, top, "norm", target, distractor)
            true = float(attribution(model, acts, 5, target, distractor).of(whole[layer, 5]))
            assert table["contribution"].sum() == pytest.approx(true, rel=1e-10, abs=1e-12)
            assert table["share"].sum() == pytest.approx(1, rel=1e-12)
            bias = model.b_out(layer) if kind == "mlp" else model.b_O(layer)
            count = (top or (model.d_mlp if kind == "mlp" else model.n_heads * model.d_head)) + (top is not None)
            assert len(table) == count + (bias is not None)


def test_neurons_read_what_the_flow_graph_reads(model):
    acts = capture(model, PROMPT)
    graph = visit.build_flow_graph(model, acts, target=7, keep=visit.Keep(mlp_neurons=6, attn_neurons=6))
    nodes = graph.nodes.set_index("id")
    for kind in ("mlp", "attention"):
        table = active_neurons(model, acts, 1, -1, kind, 6, target=7)
        rows = table[table["neuron"].notna()]
        assert set(rows["node"]) <= set(nodes.index) and rows["norm"].is_monotonic_decreasing
        for _, row in rows.iterrows():
            node = nodes.loc[row["node"]]
            assert row["coefficient"] == pytest.approx(node["coefficient"])
            assert row["contribution"] == pytest.approx(node["contribution"])
            assert row["row_norm"] == pytest.approx(node["norm"]) and row["rank"] == node["rank"]
            assert row["tokens"] == node["tokens"][:5] and row["bottom_tokens"] == node["bottom_tokens"][:5]
            if kind == "mlp":
                suffixes = {"key": ""} if model.family.w_gate is None else {"key": ".up", "gate": ".gate"}
                for name, suffix in suffixes.items():
                    key = nodes.loc[f"L1.mlp_key{row['neuron']}{suffix}"]
                    assert row[f"{name}_tokens"] == key["tokens"][:5]
                    assert row[f"{name}_coefficient"] == pytest.approx(key["coefficient"])
    assert ("gate_tokens" in active_neurons(model, acts, 0)) == (model.family.w_gate is not None)


@pytest.mark.parametrize("by", ["norm", "contribution", "coefficient"])
def test_the_top_are_the_top_of_all(model, by):
    acts = capture(model, PROMPT)
    every, few = (active_neurons(model, acts, 0, 3, "mlp", top, by, 7) for top in (None, 5))
    every = every[every["neuron"].notna()]
    order = every[by].abs().sort_values(ascending=False).index
    assert few["neuron"].dropna().tolist() == every.loc[order, "neuron"].head(5).tolist()


# ---- over a set ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["activation", "weighted"])
def test_frequency_is_what_a_loop_counts(model, singles, measure):
    table = neuron_statistics(model, SET, measure, share=0.2, threshold=0.5)
    k = round(0.2 * model.d_mlp)
    for layer in range(model.n_layers):
        weight = model.W_out(layer).norm(dim=1) if measure == "weighted" else torch.ones(model.d_mlp)
        a = torch.stack([acts.neurons[layer, -1] for acts in singles])
        times = [0] * model.d_mlp
        for row in a:
            for n in sorted(range(model.d_mlp), key=lambda n, r=row: -float(r[n].abs() * weight[n]))[:k]:
                times[n] += 1
        own = table[table["layer"] == layer]
        assert own["freq"].tolist() == pytest.approx([t / len(SET) for t in times])
        assert (own["is_regularization"] == (own["freq"] > 0.5)).all()
        assert own["mean"].tolist() == pytest.approx(a.mean(0).tolist())
        assert own["std"].tolist() == pytest.approx(a.std(0, correction=0).tolist())
        assert own["max"].tolist() == pytest.approx(a.amax(0).tolist())
        assert own["min"].tolist() == pytest.approx(a.amin(0).tolist())
        for n in range(0, model.d_mlp, 9):
            order = sorted(range(len(SET)), key=lambda i, c=n: (-round(float(a[i, c].abs()), 9), i))[:5]
            found = own.iloc[n]
            assert found["example_prompts"] == order
            assert found["example_values"] == pytest.approx(a[order, n].tolist())


def test_a_histogram_holds_every_prompt_in_its_place(model, singles):
    sums = neuron_sums(model, SET)
    for layer, n in ((0, 0), (1, 5), (1, 30)):
        values = [float(acts.neurons[layer, -1, n]) for acts in singles]
        table = histogram(sums, layer, n)
        assert table["prompts"].sum() == len(SET)
        for _, row in table.iterrows():
            assert row["prompts"] == sum(row["low"] <= v < row["high"] for v in values)
        assert len(sums.edges(layer, n)) == BINS + 1


def test_memory_does_not_grow_with_the_prompts(model):
    few, many = neuron_sums(model, SET[:6]), neuron_sums(model, SET * 3)
    for field in fields(few):
        a, b = getattr(few, field.name), getattr(many, field.name)
        assert not isinstance(a, torch.Tensor) or (a.shape == b.shape and b.untyped_storage().nbytes() <= b.nbytes)


def test_outliers_and_rogue_dimensions_are_found():
    torch.manual_seed(1)
    hf = models.small("gpt2").hf.__class__(models.small("gpt2").hf.config).double()
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_proj.weight[8] = 0.01 * torch.randn(24, dtype=torch.float64)
        hf.transformer.h[1].mlp.c_proj.weight[8, 11] = -5.0
        hf.transformer.h[1].mlp.c_proj.bias[11] += 40.0  # every prompt's stream is long in dimension 11
    hf.config._attn_implementation = "eager"
    model = visit.models.model.wrap(hf, models.tokenizer(), "rogue")
    sums = neuron_sums(model, SET)
    assert rogue_dims(sums, 1) == [11] and rogue_dims(sums, 0) == []
    row = statistics_table(model, sums, static_index(model)).set_index(["layer", "neuron"]).loc[(1, 8)]
    assert row["outlier_dims"] == [11] and row["rogue_dims"] == [11] and row["outlier_count"] == 1
    lines = weight_profile(model, statistics_table(model, sums, static_index(model)), sums, 1)
    assert lines.loc[lines["rogue"], "dim"].unique().tolist() == [11]


def test_similar_neurons_point_the_same_way(model):
    table = similar_neurons(model, static_index(model), 1, 4)
    own = model.W_out(1)[4]
    every = {
        (layer, n): float(torch.cosine_similarity(own, model.W_out(layer)[n], dim=0))
        for layer in range(model.n_layers) for n in range(model.d_mlp) if (layer, n) != (1, 4)
    }  # fmt: skip
    best = sorted(every.values(), reverse=True)[:10]
    assert table["cosine"].tolist() == pytest.approx(best)
    assert [every[r.layer, r.neuron] for r in table.itertuples()] == pytest.approx(best)


def test_function_words_can_be_ones_own(model):
    sums, index = neuron_sums(model, SET), static_index(model)
    every = statistics_table(model, sums, index, function_words=[w.upper() for w in model.vocabulary])
    none = statistics_table(model, sums, index, function_words=[])
    assert (every["function_share"] == 1).mean() > 0.9 and (none["function_share"] == 0).all()


def test_a_neuron_is_read_with_the_sign_it_is_used_with(model):
    """Its mean activation's: the words of the other sign are what it pushes away."""
    table = statistics_table(model, neuron_sums(model, SET), static_index(model))
    down = table["mean"] < 0
    assert not down.all()
    for sign, column in ((down, "negated_tokens"), (~down, "tokens")):
        assert table.loc[sign, "used_tokens"].tolist() == table.loc[sign, column].tolist()
    row = (table[down] if down.any() else table).iloc[0]  # a ReLU has no negative ones
    told = statistics_table(model, neuron_sums(model, SET), static_index(model), function_words=row["used_tokens"])
    assert told.set_index(["layer", "neuron"]).loc[(row["layer"], row["neuron"]), "function_share"] == 1


# ---- visit-mini, charts, the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def facts():
    model, prompts = visit.load_model("visit-mini"), shipped_set("facts").prompts
    sums = neuron_sums(model, prompts)
    return model, prompts, sums, statistics_table(model, sums, static_index(model))


def test_visit_mini_has_one_such_neuron_in_every_layer_but_not_the_papers_words(facts):
    model, prompts, _, stats = facts
    summary = regularization_table(stats)
    assert summary["regularization"].tolist() == [1] * model.n_layers and summary["max_freq"].min() > 0.95
    assert summary["function_share"].tail(2).max() < 0.5 and not summary["rogue"].any()
    said = regularization_findings(summary, stats, len(prompts))
    assert "8 neurons are always active" in said[0] and "here 2 of 2 have one" in said[0]
    agrees, verdict = regularization_verdict(stats)
    assert not agrees and verdict.startswith("8 neurons are always active, but none meets"), "the name is the paper's"
    assert "Here this holds in 0 of 2" in said[1] and "0 of 8 have one" in said[3]
    assert len(regularization_findings(summary.assign(regularization=0), stats.assign(is_regularization=False), 3)) == 1


@pytest.mark.parametrize(
    "lacks", ["layer", "function_share", "norm_percentile", "entropy_percentile", "rogue_dims", ""]
)
def test_the_papers_name_is_for_neurons_that_meet_all_its_criteria(lacks):
    """One neuron has all that the paper describes; without any one of it the name is not given."""
    low = {"layer": 0, "function_share": 0.4, "norm_percentile": 80.0, "entropy_percentile": 40.0, "rogue_dims": ()}
    has = {"layer": 3, "function_share": 0.6, "norm_percentile": 99.0, "entropy_percentile": 60.0, "rogue_dims": (7,)}
    row = {**has, "neuron": 5, "is_regularization": True} | ({lacks: low[lacks]} if lacks else {})
    others = [{**low, "layer": n, "neuron": 1, "is_regularization": False} for n in range(4)]
    agrees, verdict = regularization_verdict(pd.DataFrame([row, *others]))
    assert agrees == (not lacks) and ("L3 N5" in verdict) == (not lacks)
    never = regularization_verdict(pd.DataFrame(others))
    assert not never[0] and "No neuron is always active" in never[1]


def test_a_card_tells_all(facts):
    model, prompts, sums, stats = facts
    card = neuron_card(model, static_index(model), 7, 377, stats, sums, prompts)
    assert card["freq"] == 1 and card["prompts"] == len(prompts) and card["is_regularization"]
    assert set(card["tables"]) == {"words", "similar", "histogram", "examples"}
    best = card["tables"]["examples"].iloc[0]
    acts = capture(model, best["prompt"])
    assert float(acts.neurons[7, -1, 377]) == pytest.approx(best["activation"], rel=1e-4)
    assert acts.tokens[-1] == best["token"] and prompts[best["number"]] == best["prompt"]
    assert card["tables"]["words"]["role"].tolist() == ["key", "value"]
    value = card["tables"]["words"].iloc[1]
    row = stats.set_index(["layer", "neuron"]).loc[(7, 377)]
    assert value["norm_percentile"] == pytest.approx(row["norm_percentile"])
    assert value["entropy_percentile"] == pytest.approx(row["entropy_percentile"])
    bare = neuron_card(model, static_index(model), 7, 377)
    assert set(bare["tables"]) == {"words", "similar"} and "freq" not in bare


def test_charts_hold_their_tables_numbers(facts):
    model, _, sums, stats = facts
    chart = norm_entropy(stats, None, "L7.mlp_value377").to_dict()
    dots = max(chart["datasets"].values(), key=len)
    assert len(dots) == 2000 and sum(d["always"] for d in dots) == 8 and sum(d["chosen"] for d in dots) == 1
    assert any(p["name"] == "neuron" for p in chart["params"])
    layer = norm_entropy(stats, 7).to_dict()
    assert len(max(layer["datasets"].values(), key=len)) == model.d_mlp
    assert "\\u0018" not in json.dumps(layer)  # spelled, as four characters
    profile = weight_profile(model, stats, sums, 7)
    assert set(profile["kind"]) == {"regularization", "mean", "random"}
    lines = weight_lines(profile).to_dict()
    assert len(max(lines["datasets"].values(), key=len)) == 5 * model.d_model
    bars = activation_histogram(histogram(sums, 7, 377), 7.8).to_dict()
    assert sum(r["prompts"] for r in max(bars["datasets"].values(), key=len)) == sums.prompts


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, a: active_neurons(m, a, 3), "Layers of gpt2 run from 0 to 2; got 3"),
        (lambda m, a: active_neurons(m, a, 0, 9), "from 0 to 8 .* got 9"),
        (lambda m, a: active_neurons(m, a, 0, top=0), "top must be at least 1; got 0"),
        (lambda m, a: active_neurons(m, a, 0, by="size"), "by must be one of norm"),
        (lambda m, a: active_neurons(m, a, 0, kind="head"), "kind must be one of mlp"),
        (lambda m, a: active_neurons(m, a, 0, target="two words"), "exactly one token"),
        (lambda m, a: neuron_statistics(m, []), "at least one prompt"),
        (lambda m, a: neuron_statistics(m, "a prompt"), "list of at least one"),
        (lambda m, a: neuron_statistics(m, SET, "norm"), "measure must be one of activation, weighted"),
        (lambda m, a: neuron_statistics(m, SET, share=0), "share must be above 0"),
        (lambda m, a: neuron_statistics(m, SET, threshold=2), "threshold must be from 0 to 1"),
        (lambda m, a: batch_sums(m, [a], 0.1), "one position a prompt"),
        (lambda m, a: statistics_table(m, empty_sums(m, 0.1), static_index(m)), "none was run"),
        (lambda m, a: merge(empty_sums(m, 0.1), empty_sums(m, 0.2)), "their share differ"),
        (lambda m, a: neuron_card(m, static_index(m), 0, 40), "Neurons of gpt2 run from 0 to 39; got 40"),
    ],
)
def test_a_wrong_call_gets_a_sentence(call, says):
    model = models.small("gpt2")
    with pytest.raises(VisitError, match=says):
        call(model, capture(model, PROMPT))


def run(capsys, *arguments):
    status = __main__.main(["neurons", *arguments])
    return status, *capsys.readouterr()


def test_the_command_prints_and_writes(capsys, tmp_path):
    file = tmp_path / "few.txt"
    file.write_text(f"{CITY}\nMary and John went to\n")
    status, out, _ = run(capsys, "--prompt", CITY, "--layer", "6", "--top", "3")
    assert status == 0 and "L6.mlp.rest" in out and "Every sum adds up" in out
    status, out, _ = run(capsys, "--search", " Paris", "--json")
    found = json.loads(out)
    assert status == 0 and found["meta"]["search"]["token"] == " Paris" and len(found["tables"]["search"]) > 100
    status, out, _ = run(capsys, "--prompts", str(file), "--layer", "7", "--json")
    found = json.loads(out)
    assert status == 0 and found["meta"]["prompts"] == 2 and len(found["tables"]["neurons"]) == 512
    for more in ((), ("--prompt", CITY), ("--prompts", str(file))):
        status, out, _ = run(capsys, "--layer", "7", "--neuron", "377", *more)
        assert status == 0 and "similar" in out
    assert run(capsys, "--prompts", str(file), "--out", str(tmp_path / "n.csv"))[0] == 0
    with (tmp_path / "n-layers.csv").open(newline="") as lines:
        assert len(list(csv.DictReader(lines))) == 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Say what to look at"), (("--neuron", "3"), "--neuron needs --layer"),
        (("--search", "no such word"), "exactly one token"), (("--prompt", CITY, "--layer", "9"), "0 to 7; got 9"),
        (("--layer", "1", "--neuron", "512"), "0 to 511; got 512"), (("--prompts", "/none.txt"), "/none.txt"),
        (("--prompt", CITY, "--search", " a"), "not allowed with"), (("--prompt", CITY, "--out", "x.png"), "--out"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_sentence(capsys, arguments, says):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == "" and err.startswith("visit: ") and says in err and err.count("\n") == 1
