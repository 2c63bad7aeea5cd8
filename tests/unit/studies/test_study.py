"""The study's numbers are those of the method, computed again here in plain loops from one record at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import models
import numpy as np
import pytest
import torch
from studies import TEXTS, K, rows_of, run

import visit
from visit import VisitError, capture, intersection
from visit.analyses.overlap import alignment_scores
from visit.exact.circuits import as_seen
from visit.exact.decompose import post_scale
from visit.lenses.similarity import agreement, read_tops
from visit.models.attention import vector_norm
from visit.runs.prompts import Row
from visit.runs.sums import merge
from visit.studies.duration import counts, pairs, study_forecast
from visit.studies.early import early
from visit.studies.plan import GROUPS
from visit.studies.run import StudyRun
from visit.studies.settings import ALIGNED, EARLY, Settings, settled
from visit.studies.study import studied, study_meta, study_of
from visit.studies.tables import tables


@pytest.fixture(scope="module", params=["gpt2", "llama-biased-tied", "neox", "gemma3", "olmo2"])
def model(request):
    return models.exact(request.param)


@pytest.fixture(scope="module")
def rows(model):
    return rows_of(model)


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
