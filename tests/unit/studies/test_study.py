"""The study's numbers are those of the method, computed again here in plain loops from one record at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import models
import numpy as np
import pandas as pd
import pytest
import torch

import visit
from visit import VisitError, capture, intersection
from visit.analyses.norm_tables import filter_test
from visit.analyses.overlap import alignment_scores
from visit.exact.circuits import as_seen
from visit.exact.decompose import post_scale
from visit.lenses.similarity import agreement, patience, rank_weights, read_tops
from visit.models.attention import vector_norm
from visit.runs.job import steps
from visit.runs.prompts import Row
from visit.runs.sums import merge
from visit.studies.duration import counts, pairs, study_forecast
from visit.studies.early import early
from visit.studies.plan import GROUPS, CellBlock
from visit.studies.run import StudyRun
from visit.studies.settings import ALIGNED, EARLY, FIGURES, Settings, settled
from visit.studies.study import studied, study_meta, study_of
from visit.studies.sums import Cells, cells_of, no_prompts, weights
from visit.studies.tables import chance, figure_table, random_pairs, tables
from visit.studies.verdicts import interval, judged, spearman, verdicts
from visit.studies.word_verdicts import filters_words

K = 12
TEXTS = (
    "The capital of Japan is", "Mary and John went to the store and", "Paris is in", "The",
    "When the boy saw his friend he", "She gave the book to",
)  # fmt: skip


def rows_of(model, texts=TEXTS):
    """Prompts: the model's own answer as target for every other one, a wrong one for the rest, none for the last."""
    found = []
    for n, text in enumerate(texts):
        answer = int(capture(model, text).logits[-1].argmax())
        target = model.vocabulary[answer if n % 2 == 0 else (answer + 1) % 500 + 10]
        found.append(Row(text, None if n == len(texts) - 1 else target, line=n + 1))
    return found


@pytest.fixture(scope="module", params=["gpt2", "llama-biased-tied", "neox", "gemma3", "olmo2"])
def model(request):
    return models.exact(request.param)


@pytest.fixture(scope="module")
def rows(model):
    return rows_of(model)


def run(model, rows, **settings):
    job = StudyRun(model, rows, Settings(**{"figures": ALIGNED, "k": K, "draws": 50, **settings}))
    for _ in steps(job):
        pass
    return job.snapshot()


@pytest.fixture(scope="module")
def sums(model, rows):
    return run(model, rows)


# ---- by hand: method.md sections 3, 4 and 8, one vector at a time --------------------------------------------------


def lens(model, x):
    """`softmax(ln_final(x) @ W_U)`, written out."""
    norm = model.ln_final
    centred = x - x.mean() if model.family.norm == "layer" else x
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    y = centred / (centred.pow(2).mean() + eps).sqrt() * model.gain(norm)
    y = y + norm.bias.detach() if getattr(norm, "bias", None) is not None else y
    logits, cap = y @ model.unembedding.weight.detach().T, model.logit_cap
    return (logits if cap is None else cap * (logits / cap).tanh()).softmax(-1)


def overlap(model, a, b, depth):
    """Σ over depths of weight · |a[:d] ∩ b[:d]| / d, with sets."""
    first, second = (lens(model, x).argsort(descending=True, stable=True)[:depth].tolist() for x in (a, b))
    p = 1 - 5 / max(depth, 10)
    total, norm = 0.0, 0.0
    for d in range(1, depth + 1):
        total += p ** (d - 1) * len(set(first[:d]) & set(second[:d])) / d
        norm += p ** (d - 1)
    return total / norm


def by_hand(model, text, measure, k=K, sources=3):
    """Every figure of one prompt: block → nested lists `[layer][…]` of numbers."""
    acts = capture(model, text)
    t, group = len(acts.tokens) - 1, model.n_heads // model.n_kv_heads
    score = {
        "intersection": lambda a, b: round(intersection(model, a, b, k) * k) / k,
        "rbo": lambda a, b: overlap(model, a, b, k),
    }[measure]
    final, found = acts.resid_post[-1, t], {}
    answer = int(acts.logits[t].argmax())
    width = model.d_model
    for layer in range(model.n_layers):
        others = {"attn_out": acts.attn_out[layer, t], "block": acts.resid_post[layer, t], "final": final}
        length = post_scale(model, acts, layer, "attn", t)  # behind a post-norm
        results = [acts.z[layer, t, j] @ model.W_O(layer)[j] * length for j in range(model.n_heads)]
        longest = sorted(range(model.n_heads), key=lambda j: -float(results[j].norm()))[:3]
        for name, other in others.items():
            scores = [score(own, other) for own in results]
            found.setdefault(f"2b/{name}", []).append(mean(scores))
            found.setdefault(f"3/{name}", []).append([scores[j] for j in longest])
            if model.n_heads * model.d_head == width:
                alone = [placed(acts.z[layer, t, j], j, width) for j in range(model.n_heads)]
                found.setdefault(f"2a/{name}", []).append(mean([score(own, other) for own in alone]))
        found.setdefault("14/prediction", []).append(float(lens(model, acts.resid_post[layer, t])[answer]))
        if acts.resid_mid is not None:
            found.setdefault("15/after", []).append(score(acts.attn_out[layer, t], acts.resid_mid[layer, t]))
        found.setdefault("15/before", []).append(score(acts.attn_out[layer, t], acts.resid_pre[layer, t]))
        found.setdefault("15/block", []).append(score(acts.attn_out[layer, t], acts.resid_post[layer, t]))
        if layer:
            found.setdefault("15/previous", []).append(score(acts.attn_out[layer, t], acts.attn_out[layer - 1, t]))
        per_head, probs, aligned = [], [], {}
        for j in range(model.n_heads):
            order = acts.pattern[layer, j, t, : t + 1].argsort(descending=True, stable=True).tolist()
            values = [acts.v[layer, i, j // group] @ model.W_O(layer)[j] for i in order]
            per_head.append([score(m, results[j]) for m in values])
            probs += [float(lens(model, m)[acts.token_ids[i]]) for m, i in zip(values, order, strict=True)]
            for i, value in zip(order[:sources], values[:sources], strict=True):
                for way, (query, key) in pair(model, acts, layer, j, t, i).items():
                    aligned.setdefault(f"19/{way}", []).append(score(query, key))
                    aligned.setdefault(f"20/{way}", []).append(score(key, value))
        for name, scores in aligned.items():
            found.setdefault(name, []).append(mean(scores))
        by_rank = [mean(column) for column in zip(*per_head, strict=True)]
        found.setdefault("16/value", []).append(by_rank)
        found.setdefault("5/value", []).append(by_rank[:3])
        found.setdefault("17/value", []).append([own[:3] for own in per_head])
        found.setdefault("18/value", []).append(mean(probs))
    return found


def mean(numbers):
    return sum(numbers) / len(numbers)


def placed(x, head, width):
    """The paper's footnote 6: the head's part of a vector of zeros."""
    whole = x.new_zeros(width)
    whole[head * len(x) : (head + 1) * len(x)] = x
    return whole


def pair(model, acts, layer, j, t, i):
    """Query and key of one head at one source, in every way: as the other side's position sees them."""
    group = model.n_heads // model.n_kv_heads
    q, k = acts.q[layer, t, j], acts.k[layer, i, j // group]
    found = {}
    if model.n_heads * model.d_head == model.d_model:
        found["naive"] = placed(q, j, model.d_model), placed(k, j, model.d_model)
    q, k = as_seen(model, acts, layer, q, t, i), as_seen(model, acts, layer, k, i, t)
    norms = vector_norm(model, "k", layer), vector_norm(model, "q", layer)
    q, k = (x if n is None else n.gain[h] * x for n, h, x in zip(norms, (j // group, j), (q, k), strict=True))
    both = q @ model.W_K(layer)[j // group].T, k @ model.W_Q(layer)[j].T
    if model.family.ln1 is None:
        return {**found, "circuit": both}
    gain = model.gain(model.block_norm("ln1", layer))
    return {**found, "circuit": both, "gain": (both[0] * gain, both[1] * gain)}


@pytest.mark.parametrize("text", TEXTS[2:4])
@pytest.mark.parametrize("measure", ["intersection", "rbo"])
def test_every_figure_of_one_prompt_is_what_plain_loops_give(model, text, measure):
    own = run(model, [Row(text)])
    expected = by_hand(model, text, measure)
    blocks = [block for block in own.blocks if block.figure != EARLY]  # tests/unit/studies/test_early.py
    assert set(expected) == {block.name for block in blocks}
    for block in blocks:
        if block.measures == ("probability",) and measure == "rbo":
            continue
        place = 0 if block.measures == ("probability",) else block.measures.index(measure)
        found = own.cells[block.name].mean[0, 0, place]
        true = np.array(expected[block.name]).reshape(found.shape)
        assert np.abs(found - true).max() < exact(model), block.name


def exact(model):
    """How near the two ways must come. The ε of the final norm sees a post-norm's factor, which a value has not."""
    return 1e-4 if model.family.post_attn else 1e-12


def test_sums_are_means_over_prompts_that_have_the_rank(model, rows, sums):
    single = [by_hand(model, row.prompt, "intersection") for row in rows]
    for block in (block for block in sums.blocks if block.figure != EARLY):
        cells = sums.cells[block.name]
        assert cells.total.shape == (51, len(block.groups), *block.shape)
        for rank in range(block.shape[-1]):
            parts = [np.array(s[block.name]) for s in single]
            if block.ranks:
                parts = [p[..., rank] for p in parts if p.shape[-1] > rank]
            assert cells.count[0, 0, rank] == len(parts)
            found = cells.mean[0, 0, 0, :, :, rank]
            assert np.abs(found - np.mean(parts, axis=0).reshape(found.shape)).max() < exact(model), block.name


def test_groups_are_those_answered_correctly_and_incorrectly(model, rows, sums):
    assert (sums.prompts, sums.correct, sums.incorrect, sums.skipped) == (6, 3, 2, 0)
    single = [by_hand(model, row.prompt, "intersection") for row in rows]
    for group, places in ((1, (0, 2, 4)), (2, (1, 3))):
        for name in ("14/prediction", "2b/block", "3/final"):
            assert sums.block(name).groups == GROUPS
            found = sums.cells[name].mean[0, group, 0, :, 0]
            true = np.mean([single[n][name] for n in places], axis=0).reshape(found.shape)
            assert np.abs(found - true).max() < exact(model)
    only = run(model, rows, correct="only")
    assert (only.prompts, only.correct, only.incorrect, only.skipped) == (3, 3, 0, 3)
    for name in ("2b/block", "16/value"):
        alone = run(model, [rows[n] for n in (0, 2, 4)], correct="all")
        assert np.abs(only.cells[name].mean[0] - alone.cells[name].mean[0]).max() < 1e-12
    assert not any(block.figure == "13" or len(block.groups) > 1 for block in only.blocks)


def test_the_run_agrees_with_the_scores_of_one_prompt(model):
    text = TEXTS[1]
    own, scores = run(model, [Row(text)]), alignment_scores(model, capture(model, text), k=K, values=None)
    heads = scores.groupby(["figure", "with_w_o", "other", "layer"])["score"].mean()
    values = scores.groupby(["figure", "layer", "source_rank"])["score"].mean()
    for layer in range(model.n_layers):
        for name in ("attn_out", "block", "final"):
            if "2a/attn_out" in own.cells:
                assert own.cells[f"2a/{name}"].mean[0, 0, 0, layer] == pytest.approx(heads[2, False, name, layer])
            assert own.cells[f"2b/{name}"].mean[0, 0, 0, layer] == pytest.approx(heads[2, True, name, layer])
            assert own.cells[f"3/{name}"].mean[0, 0, 0, layer].mean() == pytest.approx(heads[3, True, name, layer])
        for figure, shown in ((5, 3), (16, 8)):
            cells = own.cells[f"{figure}/value"].mean[0, 0, 0, layer, 0]
            assert cells[:shown].tolist() == pytest.approx(
                [values[figure, layer, r] for r in range(1, len(cells) + 1)][:shown]
            )
    single = scores[(scores["figure"] == 5)].set_index(["layer", "head", "source_rank"])["score"]
    cells = own.cells["17/value"].mean[0, 0, 0]
    for (layer, head, rank), score in single.items():
        assert cells[layer, head, rank - 1] == pytest.approx(score)


def test_thinned_runs_hold_the_same_numbers(model, rows, sums):
    """Layers, figures and ranks that are left out change nothing in those that are kept."""
    thin = run(model, rows, layers=(2,) if model.n_layers > 2 else (1,), values=2, figures=("5", "15", "16", "20"))
    assert {block.figure for block in thin.blocks} == {"5", "15", "16", "20"}
    for block in thin.blocks:
        whole = sums.block(block.name)
        at = [whole.layers.index(layer) for layer in block.layers]
        ranks = block.shape[-1]
        found, true = thin.cells[block.name].mean, sums.cells[block.name].mean[:, :1, :, at, :, :ranks]
        assert np.allclose(found, true, atol=1e-12, equal_nan=True), block.name
    assert thin.block("16/value").ranks == 2 and thin.block("5/value").ranks == 3


def test_another_position_sees_what_stands_before_it(model, rows):
    """Position 2 of a prompt is the last of the prompt cut there."""
    long = [row for row in rows if len(capture(model, row.prompt).tokens) > 3]
    cut = [Row(tuple(capture(model, row.prompt).token_ids[:3])) for row in long]
    left, right = run(model, long, pos=2, correct="all"), run(model, cut, correct="all")
    for name, cells in left.cells.items():
        assert np.abs(cells.mean[0] - right.cells[name].mean[0]).max() < 1e-9, name


# ---- sums ----------------------------------------------------------------------------------------------------------


def same(a, b):
    assert (a.prompts, a.correct, a.incorrect) == (b.prompts, b.correct, b.incorrect)
    for name, cells in a.cells.items():
        assert np.array_equal(cells.count, b.cells[name].count), name
        assert np.allclose(cells.total, b.cells[name].total, rtol=1e-9, atol=1e-9), name


def test_halves_merge_to_the_whole_and_batches_change_nothing(model, rows, sums):
    for size in (1, 2, 6):
        job = StudyRun(model, rows, Settings(figures=ALIGNED, k=K, draws=50))
        for start in range(0, len(rows), size):
            job.update(rows[start : start + size])
        same(job.snapshot(), sums)


def test_a_run_goes_on_from_its_arrays(model, rows, sums):
    first = StudyRun(model, rows, Settings(figures=(*ALIGNED, "7", "23"), k=K, draws=50))
    first.update(rows[:2])
    second = StudyRun(model, rows, Settings(figures=(*ALIGNED, "7", "23"), k=K, draws=50))
    second.load({name: array.copy() for name, array in first.state().items()})
    second.update(rows[2:])
    same(second.snapshot(), sums)
    assert model.family.ln1 is None or second.snapshot().more["shifts"].count == len(rows)
    with pytest.raises(VisitError, match="of another run: its total does not fit"):
        StudyRun(model, rows, Settings(figures=("2b",), k=K, draws=20)).load(first.state())
    with pytest.raises(VisitError, match=r"same model and settings .*: their settings differ"):
        merge(sums, run(model, rows, k=K - 1))


def test_a_snapshot_stays_as_it_is(model, rows):
    job = StudyRun(model, rows, Settings(figures=("2b",), k=K, draws=5))
    job.update(rows[:2])
    before = job.snapshot()
    total = before.cells["2b/block"].total.copy()
    job.update(rows[2:])
    assert before.prompts == 2 and np.array_equal(before.cells["2b/block"].total, total)


def test_resampled_sets_are_poisson_and_depend_on_the_prompt_alone():
    rows = [Row(f"prompt {n}") for n in range(400)]
    drawn = weights(0, rows, 200)
    assert drawn.shape == (400, 201) and (drawn[:, 0] == 1).all()
    assert drawn[:, 1:].mean() == pytest.approx(1, abs=0.02) and drawn[:, 1:].var() == pytest.approx(1, abs=0.03)
    assert np.array_equal(weights(0, rows[7:9], 200), drawn[7:9])
    assert not np.array_equal(weights(1, rows[:1], 200), drawn[:1])


def test_the_band_is_that_of_the_mean():
    """For n numbers of spread s the band of the mean is about ± 1.96 s / √n wide, and it covers as often as it says."""
    rows = [Row(f"prompt {n}") for n in range(100)]
    block = plan_block()
    generator = np.random.default_rng(5)
    x = generator.normal(0.4, 0.1, 100)
    cells = cells_of([block], {block.name: [np.full((1, 1, 1, 1), v) for v in x]}, np.ones((100, 1), int),
                        weights(0, rows, 1000))  # fmt: skip
    found, low, high = interval(cells[block.name].mean[:, 0, 0, 0, 0, 0])
    assert found == pytest.approx(x.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / 10, rel=0.12)


def plan_block():
    return CellBlock("2b", "block", ("intersection",), (0,))


# ---- no number is no number ----------------------------------------------------------------------------------------


def test_a_prompt_that_computes_no_numbers_is_left_out_and_named(model, rows, sums):
    """A NaN in one prompt must neither spread into the sums nor pass unsaid."""
    broken = replace(rows[1], line=77)
    job = StudyRun(model, rows, Settings(figures=ALIGNED, k=K, draws=50))
    module = model.module(model.family.w_o, 0)
    poisoned = len(capture(model, broken.prompt).tokens)

    def poison(_module, _args, out):
        return torch.full_like(out, math.nan) if out.shape[1] == poisoned and out.shape[0] == 1 else None

    with module.register_forward_hook(poison):
        for row in [rows[0], broken, *rows[2:]]:
            job.update([row])
    found = job.snapshot()
    same_length = [row for row in rows if len(capture(model, row.prompt).tokens) == poisoned]
    assert 77 in found.broken and len(found.broken) == len(same_length)
    rest = run(model, [row for row in rows if row not in same_length])
    for name, cells in rest.cells.items():
        ranks = cells.total.shape[-1]
        assert np.allclose(found.cells[name].total[..., :ranks], cells.total, atol=1e-9)
        assert np.isfinite(found.cells[name].total).all()
    usable = studied(model, visit.studies.study.prompt_set(rows), found.settings)
    assert any("line 77" in note and "no numbers" in note for note in study_meta(model, usable, found)["left_out"])


def test_when_no_prompt_computes_numbers_the_study_says_so(model, rows):
    module = model.module(model.family.w_o, 0)
    with (
        module.register_forward_hook(lambda _m, _a, out: torch.full_like(out, math.inf)),
        pytest.raises(VisitError, match="computes no numbers"),
    ):
        visit.study(model, rows, figures=["2b"], k=K, draws=5)


# ---- measures ------------------------------------------------------------------------------------------------------


def test_rbo_of_a_case_worked_out_by_hand():
    """a = (1 2 3), b = (2 1 4), p = 0.5: shares 0, 1, 2/3 with weights 4/7, 2/7, 1/7, so 2/7 + 2/21 = 8/21."""
    a, b = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 4]])
    assert patience(3) == 0.5
    assert agreement(a, b, ("intersection", "rbo"))[:, 0].tolist() == pytest.approx([2 / 3, 8 / 21])


def test_equal_lists_agree_wholly_and_disjoint_ones_not_at_all():
    a = torch.arange(50)[None].repeat(3, 1)
    b = torch.stack([torch.arange(50), torch.arange(50).flip(0), torch.arange(50) + 50])
    found = agreement(a, b, ("intersection", "rbo"))
    assert found[0].tolist() == pytest.approx([1, 1, 0]) and found[1, 0] == pytest.approx(1) and found[1, 2] == 0
    assert 0 < found[1, 1] < 0.2, "the same words turned round agree at the bottom only, where little weight is"


def test_most_weight_lies_within_the_words_compared():
    assert patience(50) == pytest.approx(0.9)
    for k in (10, 50, 200):
        assert 1 - patience(k) ** k > 0.98, "the cut takes off less than two hundredths"
        assert rank_weights(k).sum() == pytest.approx(1)


def test_agreement_broadcasts_and_is_chunked_without_a_seam(monkeypatch):
    monkeypatch.setattr("visit.lenses.similarity.CELLS", 100 * 999)
    generator = torch.Generator().manual_seed(0)
    a = torch.stack([torch.randperm(40, generator=generator)[:10] for _ in range(2500)]).view(50, 50, 10)
    b = a[:, :1].flip(-1)
    found = agreement(a, b, ("rbo", "intersection"))
    assert found.shape == (2, 50, 50)
    for i, j in ((0, 0), (49, 49), (40, 48), (41, 1)):
        assert found[1, i, j] == len(set(a[i, j].tolist()) & set(b[i, 0].tolist())) / 10
        assert found[0, i, j] == agreement(a[i, j][None], b[i, 0][None], ("rbo",))[0, 0]


def test_chance_is_what_random_lists_score():
    generator = torch.Generator().manual_seed(1)
    lists = torch.stack([torch.randperm(200, generator=generator)[:20] for _ in range(4000)])
    found = agreement(lists[:2000], lists[2000:], ("intersection", "rbo"))
    expected = chance(200, 20, ("intersection", "rbo"))
    assert expected["intersection"] == 0.1
    for own, name in zip(found, ("intersection", "rbo"), strict=True):
        assert own.mean().item() == pytest.approx(expected[name], abs=4 * own.std().item() / 2000**0.5)


def test_random_vectors_through_a_lens_that_favours_no_word_score_k_over_v():
    """With a plain final norm and random directions for words, the lens of random vectors is a random order."""
    model = models.small("llama")
    norm, weight = model.module(model.family.ln_final), model.unembedding.weight
    kept = norm.weight.detach().clone(), weight.detach().clone()
    with torch.no_grad():
        norm.weight.fill_(1)
        weight.copy_(torch.nn.functional.normalize(torch.randn(weight.shape, dtype=weight.dtype), dim=1))
        found = random_pairs(model, 50, ("intersection", "rbo"), seed=3)
        norm.weight.copy_(kept[0]), weight.copy_(kept[1])
    expected = chance(model.d_vocab, 50, ("intersection", "rbo"))
    for name, number in found.items():
        assert number == pytest.approx(expected[name], rel=0.35), name


def test_tops_and_probabilities_are_those_of_the_lens(model):
    x = torch.randn(70, model.d_model, dtype=torch.float64)
    words = torch.arange(50) % model.d_vocab
    found = read_tops(model, x, K, words)
    probs = torch.stack([lens(model, row) for row in x])
    assert found.ids.tolist() == probs.argsort(dim=-1, descending=True)[:, :K].tolist()
    assert torch.allclose(
        found.prob, probs[torch.arange(50), words], rtol=1e-12 if not model.family.float32_inside else 1e-5
    )
    assert bool(found.fine.all())
    x[3, 0] = math.nan
    assert read_tops(model, x, K).fine.tolist() == [n != 3 for n in range(70)]


# ---- tables --------------------------------------------------------------------------------------------------------


def test_tables_are_tidy_and_hold_the_means(model, sums):
    found = tables(model, sums)
    assert set(found) == {f for f in ALIGNED if f != "2a" or model.n_heads * model.d_head == model.d_model}
    for figure, table in found.items():
        names = "figure series group measure layer head rank mean low high prompts"
        assert table.columns.tolist() == names.split()
        assert (table["figure"] == figure).all() and (figure == EARLY or table["mean"].between(0, 1).all())
        keys = ["series", "group", "measure", "layer", "head", "rank"]
        assert not table.duplicated(keys).any() and table["layer"].dtype == "Int64"
        band = table[table["prompts"] > 1]
        assert (band["low"] <= band["mean"] + 1e-9).all() and (band["mean"] <= band["high"] + 1e-9).all()
        assert table[table["prompts"] < 2][["low", "high"]].isna().all(axis=None)
    row = found["17"].query("layer == 1 and head == 2 and rank == 1 and measure == 'rbo'").iloc[0]
    assert row["mean"] == sums.cells["17/value"].mean[0, 0, 1, 1, 2, 0]
    assert set(found["14"]["group"]) == set(GROUPS) and set(found["2b"]["group"]) == {"all"}
    longest = found["3"].query("series == 'block' and measure == 'intersection' and layer == 0")["mean"].mean()
    both = found["13"].query("series == 'longest: block' and measure == 'intersection' and layer == 0")
    assert both.set_index("group")["mean"]["all"] == pytest.approx(longest)
    assert set(both["group"]) == set(GROUPS)


def test_without_targets_what_needs_them_is_left_out_and_said(model):
    found = visit.study(model, list(TEXTS[:3]), figures=["13", "14", "2b"], k=K, draws=10)
    assert set(found.tables) == {"14", "2b"} and set(found.tables["14"]["group"]) == {"all"}
    assert set(found.meta["figures_left_out"]) == {"13", "14/split", "14/fitted"}
    assert "target" in found.meta["figures_left_out"]["13"]


def test_heads_that_have_no_place_in_the_stream_are_left_out_and_said():
    found = visit.study(models.small("llama"), list(TEXTS[:2]), figures=["2a", "19"], k=K, draws=10)
    assert set(found.tables) == {"19"} and set(found.tables["19"]["series"]) == {"circuit", "gain"}
    assert set(found.meta["figures_left_out"]) == {"2a", "19/naive"}


# ---- verdicts ------------------------------------------------------------------------------------------------------


def planted(curve, prompts=40, noise=0.01, figure="2b", series=("attn_out", "block", "final"), groups=("all",)):
    """Sums in which every prompt has this curve over layers, and some noise of its own."""
    curve = np.array(curve, float)
    blocks = [CellBlock(figure, name, ("intersection",), tuple(range(len(curve))), groups=groups) for name in series]
    generator = np.random.default_rng(0)
    rows = [Row(f"prompt {n}") for n in range(prompts)]
    numbers = {
        block.name: [(curve + generator.normal(0, noise, len(curve)))[None, :, None, None] for _ in rows]
        for block in blocks
    }
    start = no_prompts(blocks, Settings(figures=(figure,), draws=300))
    cells = cells_of(blocks, numbers, np.ones((prompts, len(groups)), int), weights(0, rows, 300))
    return replace(start, cells=cells, prompts=prompts)


META = {"random_pairs": {"intersection": 0.01}, "n_heads": 4, "d_vocab": 1000}


def test_a_planted_rise_is_a_yes_a_fall_a_no_and_noise_undecided():
    rising, falling = np.linspace(0.1, 0.6, 8), np.linspace(0.6, 0.1, 8)
    claim = "Overlap with attn_out rises with depth"
    for curve, noise, expected in ((rising, 0.01, True), (falling, 0.01, False), (np.full(8, 0.3), 0.2, None)):
        found = next(v for v in verdicts(planted(curve, noise=noise), META)["2b"] if v.claim == claim)
        assert found.holds is expected and found.sentence.startswith(claim)
        assert {True: ": yes,", False: ": no,", None: ": undecided,"}[expected] in found.sentence
    found = next(v for v in verdicts(planted(rising), META)["2b"] if v.claim == claim)
    assert (
        "ρ = 1.0" in found.sentence
        and "interval [1.0, 1.0]" in found.numbers
        and found.whole == f"{found.sentence} ({found.numbers})"
    )


def test_overlap_is_compared_with_random_vectors():
    for height, expected in ((0.3, True), (0.002, False)):
        found = verdicts(planted(np.full(8, height), noise=0.0005), META)["2b"][0]
        assert found.holds is expected and "unrelated vectors 0.5" in found.sentence
    alike = verdicts(planted(np.full(8, 0.3), figure="19", series=("naive", "circuit")), META)["19"]
    assert [v.holds for v in alike] == [False, False]
    apart = verdicts(planted(np.full(8, 0.02), figure="19", series=("naive", "circuit")), META)["19"]
    assert [v.holds for v in apart] == [True, True] and "up to 0.06 counts" in apart[0].numbers


def test_an_answer_names_its_size_in_words_beside_unrelated_vectors():
    """2 of 50 words and 0.4 by chance is a yes of another kind than 30 of 50."""
    meta = META | {"random_pairs": {"intersection": 0.4 / 50}}
    said = {height: verdicts(planted(np.full(8, height), noise=0.0005), meta)["2b"][0] for height in (0.6, 0.04, 0.02)}
    assert all(v.holds for v in said.values())
    assert said[0.6].sentence.endswith("yes, 30.0 of 50 words; unrelated vectors 0.40")
    assert said[0.04].sentence.endswith("yes, 2.0 of 50 words; unrelated vectors 0.40")
    assert said[0.02].sentence.endswith("yes, but by less than a word: 1.0 of 50 words; unrelated vectors 0.40")
    low = verdicts(planted(np.full(8, 0.01), figure="19", series=("naive",), noise=0.0005), meta)["19"][0]
    assert low.sentence.endswith("yes, 0.50 of 50 words; unrelated vectors 0.40"), "hardly any is what was claimed"


@pytest.mark.parametrize(
    ("gap", "said"),
    [(0.1, "yes, by 5.0 of 50 words"), (0.01, "yes, but by less than a word (0.50 of 50)"),
     (-0.01, "no, by less than a word the other way (0.50 of 50)"), (-0.1, "no, by 5.0 of 50 words the other way")],
)  # fmt: skip
def test_a_shift_below_one_word_is_said_to_be_one(gap, said):
    sums = planted(np.full(8, 0.3), figure="15", series=("after", "before", "block"), noise=0.0005)
    after = sums.cells["15/after"]
    sums.cells["15/before"] = replace(after, total=after.total - gap * after.count[:, :, None, None, None])
    found = verdicts(sums, META)["15"][0]
    assert found.sentence == f"Attention moves the stream towards its own words: {said}"


def probable(curve, noise, groups=("all",)):
    return planted(curve, noise=noise, figure="14", series=("prediction",), groups=groups)


def test_ranks_of_noise_do_not_hide_that_the_prediction_rises():
    """A curve that falls from 9e-8 to 4e-8 over twenty layers and then climbs to a half: what happens on SmolLM2."""
    meta = META | {"d_vocab": 50_000}
    curve = np.append(np.linspace(9e-8, 4e-8, 20), [0.002, 0.02, 0.1, 0.3, 0.4, 0.5])
    assert float(spearman(curve[None], list(range(26)))[0]) < 0.5, "its bare ranks say nothing"
    found = verdicts(probable(curve, 1e-9), meta)["14"][0]
    assert (
        found.holds is True and "half of its 0.50 after layer 25 is there from layer 23 [23, 23] on" in found.sentence
    )
    assert "below 0.0002 layers count as equal" in found.numbers
    late = np.append(np.full(28, 1e-8), [0.1, 0.5])
    assert float(spearman(np.maximum(late, 2e-4)[None], list(range(30)))[0]) < 0.5, "so many ties allow no more"
    found = verdicts(probable(late, 1e-9), meta)["14"][0]
    assert found.holds is True and "ρ = 1.0" in found.sentence, "a share of what the ties allow"
    nothing = verdicts(probable(np.linspace(1e-8, 9e-8, 8), 1e-9), meta)["14"][0]
    assert nothing.holds is None and nothing.sentence.endswith("no layer reads more than 0.0002, which is noise")
    falls = verdicts(probable(np.linspace(0.5, 0.1, 8), 1e-3), meta)["14"][0]
    assert falls.holds is False and "is there from layer 0 [0, 0] on" in falls.sentence


def test_two_probabilities_of_noise_are_not_compared():
    """Half of the layers at 1e-8, where a difference of 1e-9 would be certain with enough prompts."""
    meta, curve = META | {"d_vocab": 50_000}, np.append(np.full(4, 1e-8), [0.1, 0.3, 0.4, 0.5])
    found = verdicts(probable(curve, 0, GROUPS), meta)["14"]
    assert found[1].holds is None and "both lie below 0.0002" in found[1].sentence
    assert found[2].holds is None and "below" not in found[2].sentence, "equal, and far above noise"


def test_a_drop_at_the_end_is_seen_only_where_there_is_one():
    claim = "Overlap drops in the last layer"
    for curve, expected in (([0.1, 0.2, 0.5, 0.3], True), ([0.1, 0.2, 0.3, 0.5], False)):
        assert next(v for v in verdicts(planted(curve), META)["2b"] if v.claim == claim).holds is expected
    flat = planted(np.full(24, 0.3), noise=0.2, prompts=20)  # the highest of 24 noisy layers is high by chance
    assert next(v for v in verdicts(flat, META)["2b"] if v.claim == claim).holds is not True
    few = next(v for v in verdicts(planted([0.3]), META)["2b"] if v.claim == claim)
    assert few.holds is None and "1 layer is too few" in few.sentence


def test_few_prompts_or_layers_decide_nothing():
    few = verdicts(planted(np.linspace(0.1, 0.6, 8), prompts=4), META)["2b"]
    assert [v.holds for v in few] == [None] * len(few) and "4 prompts are too few" in few[0].sentence
    flat = verdicts(planted([0.1, 0.5, 0.6]), META)["2b"][1]
    assert flat.holds is None and "3 layers are too few" in flat.sentence


def test_nan_decides_nothing():
    draws = np.full(20, np.nan)
    found = judged("Claim", "is", [draws], 100)
    assert found.holds is None and "nan" not in found.sentence
    some = np.append(draws, np.ones(30))
    some[0] = 1.0
    assert interval(some) == (1, 1, 1), "sets without such a prompt are passed over"


def test_both_sides_of_a_limit():
    draws = np.linspace(0.4, 0.6, 101)
    draws[0] = 0.5
    cases = [({"above": 0.3}, True), ({"above": 0.7}, False), ({"above": 0.5}, None)]
    cases += [({"above": 0.3, "below": True}, False), ({"above": 0.7, "below": True}, True)]
    cases += [({"above": 0.7, "against": 0.3}, None), ({"above": 0.9, "against": 0.7}, False)]
    for how, expected in cases:
        assert judged("Claim", "is", [draws], 100, **how).holds is expected, how


def test_spearman_with_equal_values():
    curves = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [1, 1, 2, 2], [5, 5, 5, 5]])
    found = spearman(curves, [0, 1, 2, 3])
    assert found[:3] == pytest.approx([1, -1, 2 / 5**0.5]) and math.isnan(found[3])


@pytest.mark.parametrize(
    ("function", "prompts", "expected"),
    [((-0.3, -0.3), 10, True), ((-0.3, 0.01), 10, True), ((0.01, 0.01), 10, None), ((0.4, 0.5), 10, False),
     ((-0.3, -0.3), 2, None)],
)  # fmt: skip
def test_a_norm_filters_function_words_where_they_lose_not_where_they_gain_less(function, prompts, expected):
    """Two layers; content words gain 0.1 to 0.2 in both."""
    rows = [
        (layer, "ln1", kind, i, kind, 0.1, delta + 0.01 * i)
        for layer in (0, 1) for kind, deltas in (("function", [function[layer]] * 3), ("content", [0.1, 0.2, 0.15]))
        for i, delta in enumerate(deltas)
    ]  # fmt: skip
    names = ["layer", "norm", "kind", "id", "token", "before_prob", "delta"]
    found = filters_words(filter_test(pd.DataFrame(rows, columns=names).astype({"layer": "Int64"}), draws=200), prompts)
    assert found.holds is expected
    assert ("needed to decide" in found.sentence) == (prompts < 5)


# ---- asked for in the wrong way ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"figures": ["4"]}, "figures are"), ({"figures": []}, "got none"), ({"k": 0}, "k must be"),
        ({"layers": [99]}, "run from 0"), ({"layers": []}, "got none"), ({"second": "cosine"}, "second must be"),
        ({"correct": "maybe"}, "correct must be"), ({"draws": 0}, "draws must be"), ({"values": 0}, "values must be"),
        ({"heads": 3}, "settings are"), ({"pos": 99}, "no position 99"), ({"sources": 0}, "sources must be"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_sentence(settings, message):
    with pytest.raises(VisitError, match=message):
        visit.study(models.small("gpt2"), list(TEXTS[:2]), **settings)


def test_no_prompts_and_none_that_can_be_read():
    model = models.small("gpt2")
    for prompts, message in (([], "at least one"), ("a text", "list"), (["word " * 200], "no prompt")):
        with pytest.raises(VisitError, match=message):
            visit.study(model, prompts)
    with pytest.raises(VisitError, match="none is answered correctly"):
        answer = int(capture(model, TEXTS[0]).logits[-1].argmax())
        wrong = Row(TEXTS[0], model.vocabulary[(answer + 1) % 500 + 10])
        visit.study(model, [wrong], figures=["2b"], correct="only", draws=5)


def test_prompts_too_short_for_the_position_are_named():
    model = models.small("gpt2")
    found = visit.study(model, list(TEXTS[:4]), figures=["2b"], pos=3, k=K, draws=5)
    assert 0 < found.meta["prompts"] < 4 and any("no position 3" in note for note in found.meta["left_out"])


def test_k_is_lowered_to_the_vocabulary():
    model = models.small("gpt2")
    assert settled(Settings(k=10**6), model).k == model.d_vocab
    found = visit.study(model, ["The"], figures=["2b"], k=10**6, draws=5, layers=[0], second="none")
    assert (found.tables["2b"].query("measure == 'intersection'")["mean"] == 1).all()


# ---- the whole ------------------------------------------------------------------------------------------------------


def test_a_study_has_every_figure_and_says_what_it_is_of(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    model = models.small("gpt2", torch.float32)
    seen = []
    found = visit.study(model, rows_of(model), progress=seen.append, k=K, draws=20)
    assert {f.split("-")[0] for f in found.tables} == set(FIGURES) and {f"tables-{n}" for n in range(1, 7)} < set(
        found.tables
    )
    assert set(found.verdicts) == {*ALIGNED, "7", "8", "9", "21", "22", "23"} and seen[-1].share == 1
    meta = found.meta
    assert meta["prompts"] == 6 and (meta["correct"], meta["incorrect"]) == (3, 2) and meta["prompt_set"]["hash"]
    assert meta["baseline"]["intersection"] == K / model.d_vocab and meta["seconds"] > 0 < meta["seconds_expected"]
    assert set(found.tables["7"]["vectors"]) == {"real", "random"}
    assert len(found.tables["8"]) == model.n_layers * model.d_mlp


def test_the_norm_and_neuron_figures_are_those_of_their_own_analyses(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    from visit.analyses.neuron_sets import neuron_statistics
    from visit.analyses.norm_tables import set_tables

    model = models.small("gpt2", torch.float32)
    found = visit.study(model, list(TEXTS), figures=["7", "8", "21", "tables"], draws=5).tables
    own, _ = set_tables(model, list(TEXTS), "ln1", mean="vector")
    assert found["tables-1"]["before"].tolist() == own["top"]["before"].tolist()
    assert found["tables-3"]["token"].tolist() == own["falling"]["token"].tolist()
    own, _ = set_tables(model, list(TEXTS), "ln1")
    assert found["21"]["delta"].tolist() == pytest.approx(own["layers"]["delta"].tolist(), abs=1e-7)
    real = found["7"][found["7"]["vectors"] == "real"]
    assert real["id"].tolist() == own["shift"]["id"].tolist()
    stats = neuron_statistics(model, list(TEXTS))
    assert found["8"]["freq"].tolist() == stats["freq"].tolist()


def test_a_study_of_sums_half_way_has_figures_already(model, rows):
    job = StudyRun(model, rows, Settings(figures=ALIGNED, k=K, draws=20))
    job.update(rows[:2])
    usable = studied(model, visit.studies.study.prompt_set(rows), job.settings)
    found = study_of(model, usable, job.snapshot(), figures=["2b"])
    assert set(found.tables) == {"2b"} == set(found.verdicts) and found.meta["prompts"] == 2


def test_the_forecast_counts_the_vectors_that_are_read(model, rows, monkeypatch):
    read, compared = [], []

    def counted(model, x, k, asked=None):
        read.append(len(x))
        return read_tops(model, x, k, asked)

    def paired(a, b, measures):
        compared.append(torch.broadcast_shapes(a.shape[:-1], b.shape[:-1]).numel())
        return agreement(a, b, measures)

    def early_counted(model, states, lenses):
        read.append(len(states) * len(lenses))
        return early(model, states, lenses)

    monkeypatch.setattr("visit.studies.measure.early", early_counted)
    monkeypatch.setattr("visit.studies.measure.read_tops", counted)
    monkeypatch.setattr("visit.studies.measure.agreement", paired)
    for settings in (
        {}, {"figures": ("2b",)}, {"figures": ("19",)}, {"figures": ("5", "20"), "layers": (1,)},
        {"figures": ("16", "18"), "values": 2}, {"figures": ("15",)}, {"figures": ("14",)},
        {"figures": (EARLY,)},
    ):  # fmt: skip
        read.clear(), compared.clear()
        wanted = settled(Settings(**{"figures": ALIGNED, "k": K, "draws": 5, **settings}), model)
        StudyRun(model, rows, wanted).update(rows)
        seen = [len(capture(model, row.prompt).tokens) for row in rows]
        assert sum(counts(model, seen, wanted).values()) == sum(read), settings
        assert pairs(model, seen, wanted) == sum(compared), settings
    table = study_forecast(model, rows, Settings(k=K))
    assert table.columns.tolist() == ["part", "vectors", "products", "seconds"] and (table["seconds"] > 0).all()
    values = table.set_index("part").loc["memory values"]
    assert values["products"] == 2 * values["vectors"] * model.d_model * model.d_vocab


def test_cells_without_a_prompt_are_missing_not_zero():
    cells = Cells(np.zeros((2, 1, 1, 1, 1, 1)), np.zeros((2, 1, 1)))
    assert np.isnan(cells.mean).all()
    assert figure_table(no_prompts([plan_block()], Settings(figures=("2b",), draws=1)), "2b").empty
