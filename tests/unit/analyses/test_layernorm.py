"""A norm's steps add up to its shift, sums over prompts can be merged, and what visit-mini shows is computed."""

from __future__ import annotations

import json

import models
import numpy as np
import pandas as pd
import pytest
import torch

import visit
from visit import VisitError, capture, capture_many, read_vectors, token_shift
from visit.analyses.norm_sets import (
    MEANS_OF,
    control_sums,
    falling_words,
    layer_words,
    quarters,
    set_shift,
    shift_sums,
    top_words,
)
from visit.analyses.norm_tables import (
    class_shifts,
    class_summary,
    filter_test,
)
from visit.analyses.norms import NORMS, STEPS, extremes, norm_sites, parts_for, probs_of, target_shifts
from visit.figures import norms as figures_layernorm
from visit.runs.sums import merge

PARTS = parts_for(NORMS)
PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
PROMPTS = [PROMPT, [7, 300, 12], [44, 44, 900, 1], [2, 1000, 17, 31, 6], [1999, 5], [8]]
TOKYO = "The capital of Japan is the city of"


@pytest.fixture(scope="module", params=models.KINDS)
def model(request):
    return models.exact(request.param)


@pytest.fixture(scope="module")
def acts(model):
    return capture(model, PROMPT)


@pytest.fixture(scope="module")
def sums(model):
    return shift_sums(model, capture_many(model, PROMPTS, parts=PARTS, pos=-1))


@pytest.fixture(scope="module")
def mini():
    return visit.load_model("visit-mini")


def norms_of(model):
    """The names of the norms that blocks of this model have."""
    return sorted({norm for layer, norm in norm_sites(model, norms=NORMS) if layer is not None})


def before_after(acts, layer, norm):
    between = acts.resid_pre if acts.resid_mid is None else acts.resid_mid  # side by side, ln2 reads what ln1 reads
    pairs = {"ln1": (acts.resid_pre, acts.ln1_out), "ln2": (between, acts.ln2_out)}
    before, after = pairs[norm]
    return before[layer], after[layer]


# ---- one prompt ------------------------------------------------------------------------------------------------------


def test_the_steps_add_up_to_the_shift(model, acts):
    for layer, norm in norm_sites(model):
        for final_norm in (None, True, False):
            for pos in (0, -1):
                table = token_shift(model, acts, layer, norm, pos, k=None, final_norm=final_norm)
                assert len(table) == model.d_vocab and table["is_target"].sum() == 1
                steps = table[list(STEPS)].sum(axis=1)
                assert (steps - table["delta"]).abs().max() < 1e-12
                assert (table["after_prob"] - table["before_prob"] - table["delta"]).abs().max() < 1e-12
                assert abs(table["delta"].sum()) < 1e-12
                module = model.ln_final if norm == "final" else model.block_norm(norm, layer)
                assert table["centring"].notna().all() == (model.family.norm == "layer")
                assert table["bias"].notna().all() == (getattr(module, "bias", None) is not None)


def test_readings_are_those_of_the_captured_vectors(model, acts):
    for layer, norm in norm_sites(model, norms=("ln1", "ln2")):
        for pos in (2, -1):
            table = token_shift(model, acts, layer, norm, pos, target=9, k=12).set_index("id")
            for side, vectors in zip(("before", "after"), before_after(acts, layer, norm), strict=True):
                true = read_vectors(model, vectors[pos], target=9, k=12).iloc[0]
                top = table.nsmallest(12, f"{side}_rank")
                assert top["token"].tolist() == true["tokens"]
                assert top[f"{side}_prob"].tolist() == pytest.approx(true["probs"], abs=1e-12)
                assert table.loc[9, f"{side}_prob"] == pytest.approx(true["prob"], abs=1e-12)
                assert table.loc[9, f"{side}_rank"] == true["rank"]


def test_with_the_final_norm_in_the_lens_normalising_changes_nothing(model, acts, monkeypatch):
    """By construction, but for the norms' ε; with ε = 0 exactly. The filter is the gain and the bias."""
    for layer, norm in norm_sites(model, norms=("ln1", "ln2")):
        table = token_shift(model, acts, layer, norm, k=None)
        assert table[["centring", "scaling"]].abs().max().max() < 1e-4
        own = model.block_norm(norm, layer)
        for module in (own, model.ln_final):
            monkeypatch.setattr(module, "eps" if hasattr(module, "eps") else "variance_epsilon", 0.0)
        table = token_shift(model, acts, layer, norm, k=None)
        assert table[["centring", "scaling"]].abs().max().max() < 1e-12
        assert (table["gain"].abs().max() > 1e-3) == (own.weight is not None)
        bare = token_shift(model, acts, layer, norm, k=None, final_norm=False)
        assert bare["scaling"].abs().max() > 1e-6
        monkeypatch.undo()


def test_the_final_norm_ends_at_the_prediction_and_is_not_applied_twice(model, acts):
    table = token_shift(model, acts, None, "final", 3, k=None).sort_values("id")
    true = acts.logits[3].softmax(-1)
    assert np.abs(table["after_prob"].to_numpy() - true.numpy()).max() < 1e-12
    bare = probs_of(model, acts.resid_post[-1, 3:4], False)[0]
    assert np.abs(table["before_prob"].to_numpy() - bare.numpy()).max() < 1e-12
    asked = token_shift(model, acts, None, "final", 3, k=None, final_norm=True).sort_values("id")
    assert np.abs(asked["before_prob"].to_numpy() - true.numpy()).max() < 1e-12
    assert table.loc[table["is_target"], "id"].item() == int(true.argmax())


def test_extremes_hold_the_k_of_each_kind(model, acts):
    norm = (norms_of(model) or ["final"])[-1]
    whole = token_shift(model, acts, 0, norm, target=3, k=None)
    table = token_shift(model, acts, 0, norm, target=3, k=5)
    pd.testing.assert_frame_equal(table, extremes(whole, 5))
    assert len(table) <= 21 and table["is_target"].sum() == 1
    assert table.nsmallest(5, "falls")["delta"].tolist() == sorted(whole["delta"])[:5]
    assert table.nsmallest(5, "rises")["delta"].tolist() == sorted(whole["delta"])[::-1][:5]
    assert whole["before_rank"].tolist() == sorted(whole["before_rank"])


def test_every_norm_at_once_says_what_each_one_says(model, acts):
    for final_norm in (None, True, False):
        table = target_shifts(model, acts, 4, target=9, final_norm=final_norm)
        assert len(table) == len(norm_sites(model)) and table["node"].iloc[-1] == "ln_final"
        for row in table.to_dict("records"):
            layer = None if pd.isna(row["layer"]) else int(row["layer"])
            one = token_shift(model, acts, layer, row["norm"], 4, 9, k=None, final_norm=final_norm)
            target = one[one["is_target"]].iloc[0]
            for name in ("before_prob", "after_prob", "delta"):
                assert row[name] == pytest.approx(target[name], abs=1e-12)
            assert (row["before_rank"], row["after_rank"]) == (target["before_rank"], target["after_rank"])
            assert row["before_token"] == one["token"].iloc[0]
            assert row["after_token"] == one.nsmallest(1, "after_rank")["token"].item()


# ---- a prompt set ----------------------------------------------------------------------------------------------------


def test_both_means_are_what_their_names_say(model, sums):
    records = [capture(model, p) for p in PROMPTS]
    for layer, norm in zip((1, 0), norms_of(model), strict=False):
        pairs = [before_after(acts, layer, norm) for acts in records]
        for side in (0, 1):
            name = ("before_prob", "after_prob")[side]
            vectors = torch.stack([pair[side][-1] for pair in pairs])
            each = [token_shift(model, acts, layer, norm, k=None).sort_values("id")[name] for acts in records]
            found = set_shift(model, sums, layer, norm).sort_values("id")[name]
            assert np.allclose(found, np.mean(each, axis=0), atol=1e-8)
            top = read_vectors(model, vectors.mean(0), k=5).iloc[0]
            words = top_words(model, sums, layer, norm, k=5)
            assert words[name.removesuffix("_prob")].tolist() == top["tokens"]
            assert words[name].tolist() == pytest.approx(top["probs"], abs=1e-7)


def test_one_prompt_is_a_set(model, acts):
    norm = (norms_of(model) or ["final"])[-1]
    sums = shift_sums(model, capture_many(model, [PROMPT], parts=PARTS, pos=-1), layers=[1], norms=(norm,))
    assert sums.sites == ((None if norm == "final" else 1, norm),)
    single = token_shift(model, acts, 1, norm, k=None).sort_values("id")
    for mean in MEANS_OF:
        table = set_shift(model, sums, 1, norm, mean).sort_values("id")
        assert np.allclose(table["delta"], single["delta"], atol=1e-7)


def test_random_vectors_have_the_moments_of_the_real_ones_and_come_back_with_the_seed():
    model = models.small("gpt2")
    prompts = [[i, 3 * i + 1] for i in range(400)]
    sums = shift_sums(model, capture_many(model, prompts, parts=PARTS, pos=-1), norms=("ln1",))
    control = control_sums(model, sums, 1, seed=3)
    assert control.count == sums.count and control.sites == ((1, "ln1"),)
    real, random = sums.vectors[0, 1] / sums.count, control.vectors[0, 0] / sums.count
    spread = (sums.squares[1] / sums.count - real**2).sqrt()
    assert ((real - random) / spread).abs().max() < 0.25  # 24 dimensions, standard error 0.05
    own = (control.squares[0] / sums.count - random**2).sqrt()
    assert (own / spread - 1).abs().max() < 0.2
    assert torch.equal(control.probs, control_sums(model, sums, 1, seed=3).probs)
    assert not torch.equal(control.probs, control_sums(model, sums, 1, seed=4).probs)


def test_tables_of_layers(model, sums):
    assert quarters(24) == [5, 11, 17, 23] and quarters(2) == [0, 1] and quarters(3) == [0, 1, 2]
    assert falling_words(model, sums, "final", layers=[None])["layer"].isna().all()
    if not norms_of(model):  # norms after the sub-layers only
        with pytest.raises(VisitError, match="no ln1"):
            layer_words(model, sums, "ln1")
        return
    table = falling_words(model, sums, norms_of(model)[-1], k=4)
    assert table["layer"].unique().tolist() == quarters(model.n_layers) and (table["delta"] < 0).all()
    assert (table.groupby("layer")["delta"].diff().dropna() >= 0).all()
    words = layer_words(model, sums, "ln1", k=3)
    assert len(words) == 3 * model.n_layers and words["id"].nunique() == 3
    largest = max(set_shift(model, sums, n)["delta"].abs().max() for n in range(model.n_layers))
    assert words["delta"].abs().max() == pytest.approx(largest)


# ---- charts ----------------------------------------------------------------------------------------------------------


def test_charts_are_drawn_and_their_words_can_be_seen(mini):
    acts = capture(mini, TOKYO)
    sums = shift_sums(mini, capture_many(mini, [TOKYO, "The cat is"], parts=PARTS, pos=-1))
    table = token_shift(mini, acts, 2)
    shifts = class_shifts(mini, sums)
    control = set_shift(mini, control_sums(mini, sums, 2), 2)
    charts = {
        "lines": figures_layernorm.rank_lines(table),
        "targets": figures_layernorm.target_chart(target_shifts(mini, acts), "ln2", 3),
        "scatter": figures_layernorm.shift_scatter(set_shift(mini, sums, 2), control),
        "panels": figures_layernorm.layer_panels(layer_words(mini, sums)),
        "classes": figures_layernorm.class_distributions(class_summary(shifts)),
        "interval": figures_layernorm.interval_chart(filter_test(shifts, draws=50)),
    }
    for name, chart in charts.items():
        drawn = chart.to_dict()
        text = json.dumps(drawn, allow_nan=False)
        assert "NaN" not in text, name
        assert '"word": " ' not in text and '"label": " ' not in text, name
    points, named = charts["lines"].to_dict()["datasets"].values()
    lower = [p for p in points if not p["own"]]
    assert {p["height"] for p in lower}.isdisjoint(p["height"] for p in points if p["is_target"])
    assert [p["label"] for p in named].count("lower") == len({p["side"] for p in lower}) > 0
    assert {p["side"] for p in points} == {"before", "after"}
    assert sum(p["own"] and p["side"] == "before" for p in points) >= 10
    assert any(p["name"] == "place" for p in charts["targets"].to_dict()["params"])


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, a, s: token_shift(m, a, 0, "ln3"), "norm must be one of ln1, .*, post_mlp; got 'ln3'"),
        (lambda m, a, s: token_shift(m, a, 3), "Layers of gpt2 run from 0 to 2; got 3"),
        (lambda m, a, s: token_shift(m, a, None), "Layers of gpt2 run from 0 to 2; got None"),
        (lambda m, a, s: token_shift(m, a, 0, pos=9), "got 9"),
        (lambda m, a, s: token_shift(m, a, 0, k=0), "k must be at least 1; got 0"),
        (lambda m, a, s: token_shift(m, a, 0, target="two words"), "exactly one token"),
        (lambda m, a, s: token_shift(m, capture(m, PROMPT, parts=("logits",)), 0), "needs 'resid_pre'"),
        (lambda m, a, s: target_shifts(m, a, -10), "got -10"),
        (lambda m, a, s: shift_sums(m, [a]), "one position of each"),
        (lambda m, a, s: shift_sums(m, [], layers=[5]), "0 to 2; got 5"),
        (lambda m, a, s: shift_sums(m, [], norms=("x",)), "norm must be one of"),
        (lambda m, a, s: set_shift(m, s, 2, "ln1"), "hold no ln1 of layer 2"),
        (lambda m, a, s: set_shift(m, s, 0, mean="median"), "mean must be one of probabilities, vector"),
        (lambda m, a, s: set_shift(m, shift_sums(m, []), 0), "No prompt was added"),
        (lambda m, a, s: merge(s, shift_sums(m, [])), "their sites differ|their probs differ"),
        (lambda m, a, s: class_shifts(m, s, "ln2"), "hold no ln2"),
        (lambda m, a, s: filter_test(class_shifts(m, s, words=["zzz"])), "counts as a function word"),
        (lambda m, a, s: layer_words(m, s, "final"), "Words per layer need a block's norm"),
    ],
)
def test_a_wrong_call_gets_a_sentence(call, says):
    model = models.small("gpt2")
    sums = shift_sums(model, capture_many(model, PROMPTS, parts=PARTS, pos=-1), layers=[0], norms=("ln1",))
    with pytest.raises(VisitError, match=says):
        call(model, capture(model, PROMPT), sums)


def test_a_model_without_a_final_norm_has_the_others():
    model = models.small("opt-without-final-norm")
    acts = capture(model, PROMPT)
    assert target_shifts(model, acts)["norm"].tolist() == ["ln1", "ln2"] * 3
    assert shift_sums(model, capture_many(model, PROMPTS, parts=PARTS, pos=-1)).count == len(PROMPTS)
    with pytest.raises(VisitError, match="no final norm"):
        token_shift(model, acts, None, "final")


def test_a_shared_norm_is_ln1_alone():
    """A parallel block with one norm, as its family's row would say it."""
    shared = models.small("falcon-7b")
    acts = capture(shared, PROMPT)
    with pytest.raises(VisitError, match=r"no ln2 of its own. Ask for ln1, which attention and MLP share"):
        token_shift(shared, acts, 0, "ln2")
    assert [norm for _, norm in norm_sites(shared)] == ["ln1"] * 3 + ["final"]
    assert target_shifts(shared, acts)["norm"].tolist() == ["ln1"] * 3 + ["final"]


@pytest.mark.parametrize("name", ["gemma2", "olmo2"])
def test_a_post_norm_is_a_norm_of_what_its_sub_layer_gives(name):
    model = models.exact(name)
    acts = capture(model, PROMPT)
    assert [norm for layer, norm in norm_sites(model) if layer == 1][-1] == "post_mlp"
    for layer in range(model.n_layers):
        for norm, terms, path, after in (
            ("post_attn", acts.z.flatten(2), model.family.w_o, acts.attn_out),
            ("post_mlp", acts.neurons, model.family.w_out, acts.mlp_out),
        ):
            given = model.module(path, layer)(terms[layer, 4]).detach()
            table = token_shift(model, acts, layer, norm, 4, target=9, k=12).set_index("id")
            for side, vector in (("before", given), ("after", after[layer, 4])):
                true = read_vectors(model, vector, target=9, k=12).iloc[0]
                assert table.nsmallest(12, f"{side}_rank")["token"].tolist() == true["tokens"]
                assert table.loc[9, f"{side}_prob"] == pytest.approx(true["prob"], rel=1e-9)
    records = capture_many(model, PROMPTS, parts=parts_for(("post_mlp",)), pos=-1)
    sums = shift_sums(model, records, layers=[1], norms=("post_mlp",))
    found = set_shift(model, sums, 1, "post_mlp").sort_values("id")["after_prob"]
    each = [read_vectors(model, capture(model, p).mlp_out[1, -1], target=9)["prob"].item() for p in PROMPTS]
    assert found.iloc[9] == pytest.approx(np.mean(each), rel=1e-9)
    with pytest.raises(VisitError, match="no post_attn of its own"):
        token_shift(models.small("gpt2"), capture(models.small("gpt2"), PROMPT), 0, "post_attn")
