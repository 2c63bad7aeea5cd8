"""How early the model knows: every number is that of plain loops in float64, and what is said of it can be wrong."""

from __future__ import annotations

from dataclasses import replace

import models
import numpy as np
import pandas as pd
import pytest
import torch

import visit
from visit import VisitError, capture
from visit.figures.study import Run, panels
from visit.files import study_report
from visit.lenses.linear import Lens
from visit.models.fingerprint import fingerprint
from visit.runs.job import steps
from visit.runs.prompts import Row
from visit.runs.sums import merge
from visit.studies.duration import charts, counts
from visit.studies.run import StudyRun
from visit.studies.settings import DEPTHS, EARLY, EXITS, Settings, settled
from visit.studies.study import studied, study_key
from visit.studies.tables import figure_table

TEXTS = ("The capital of Japan is", "Mary and John went to the store and", "Paris is in", "She gave the book to")
ROWS = [Row(text, line=n + 1) for n, text in enumerate(TEXTS)]


def turned(model, seed=0, scale=0.5):
    """A lens of arbitrary maps near the identity, in the model's own precision: nothing is fitted, all is known."""
    generator = torch.Generator().manual_seed(seed)
    n, d = model.n_layers - 1, model.d_model
    random = torch.randn(n, d, d, generator=generator, dtype=torch.float64) / d**0.5
    meta = {"model": model.name, "fingerprint": fingerprint(model), "n_layers": model.n_layers, "tokens": 400,
            "seed": seed, "text": None}  # fmt: skip
    bias = torch.randn(n, d, generator=generator, dtype=torch.float64)
    sites = tuple(("resid_post", layer) for layer in range(n))
    none = torch.zeros(0)
    return Lens(sites, torch.eye(d, dtype=torch.float64) + scale * random, bias, none, none, meta, pd.DataFrame())


@pytest.fixture(scope="module", params=["gpt2", "llama-biased-tied", "neox", "gemma3"])
def model(request):
    return models.exact(request.param)


def job_of(model, rows=ROWS, lens=None, **settings):
    return StudyRun(model, rows, Settings(**{"figures": ("14", EARLY), "draws": 20, **settings}), lens)


def run(model, rows=ROWS, lens=None, **settings):
    job = job_of(model, rows, lens, **settings)
    for _ in steps(job):
        pass
    return job.snapshot()


def log_probs(model, x):
    """`log softmax(ln_final(x) @ W_U)`, written out in numpy."""
    norm = model.ln_final
    x = x - x.mean() if model.family.norm == "layer" else x
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    y = x / np.sqrt((x**2).mean() + eps) * model.gain(norm).detach().numpy()
    if getattr(norm, "bias", None) is not None:
        y = y + norm.bias.detach().numpy()
    logits = model.unembedding.weight.detach().numpy() @ y
    if model.logit_cap is not None:
        logits = model.logit_cap * np.tanh(logits / model.logit_cap)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def by_hand(model, text, lens):
    """One prompt through one lens: (per block a row of `DEPTHS`, a row of `EXITS`), by loops and sorts."""
    acts, n = capture(model, text), model.n_layers
    states = [x.detach().numpy() for x in acts.resid_post[:, -1]]
    if lens is not None:
        states[:-1] = [x @ lens.maps[i].numpy() + lens.bias[i].numpy() for i, x in enumerate(states[:-1])]
    read = [log_probs(model, x) for x in states]
    final = read[-1]
    word = int(np.argmax(final))
    order = [list(np.argsort(-logs, kind="stable")) for logs in read]
    places = [1 + own.index(word) for own in order]
    stays = next(i for i in range(n) if all(own[0] == word for own in order[i:]))
    stop = next(i for i in range(n) if np.exp(read[i].max()) >= 0.9 or i == n - 1)
    rows = {
        "settled": [float(i >= stays) for i in range(n)],
        "top1": [float(place == 1) for place in places],
        "precision": [float(word in own[:10]) for own in order],
        "rank": [np.log2(place) for place in places],
        "probability": [np.exp(logs[word]) for logs in read],
        "surprisal": [-np.log2(np.exp(logs[word])) for logs in read],
        "kl": [(np.exp(final) * (final - logs)).sum() / np.log(2) for logs in read],
    }
    last = {"saturation": stays, "saved": n - 1 - stays, "exit_saved": n - 1 - stop,
            "exit_same": float(order[stop][0] == word)}  # fmt: skip
    return np.array([rows[m] for m in DEPTHS]), np.array([last[m] for m in EXITS])


def test_every_number_is_that_of_plain_loops_through_either_lens(model):
    lens = turned(model)
    sums = run(model, lens=lens)
    for name, through in (("plain", None), ("fitted", lens)):
        each = [by_hand(model, text, through) for text in TEXTS]
        depths, exits = (np.mean(part, axis=0) for part in zip(*each, strict=True))
        assert np.abs(sums.cells[f"{EARLY}/{name}"].mean[0, 0, :, :, 0, 0] - depths).max() < 1e-9, name
        assert np.abs(sums.cells[f"{EARLY}/{name}: exit"].mean[0, 0, :, 0, 0, 0] - exits).max() < 1e-12, name
    fitted = sums.cells["14/fitted"].mean[0, 0, 0, :, 0, 0]
    assert np.abs(fitted - depths[DEPTHS.index("probability")]).max() < 1e-12
    plain = run(model).cells
    for name in ("14/prediction", f"{EARLY}/plain", f"{EARLY}/plain: exit"):
        assert np.array_equal(sums.cells[name].total, plain[name].total), "a lens changes nothing in the plain line"
    assert set(plain) == {"14/prediction", f"{EARLY}/plain", f"{EARLY}/plain: exit"}


def test_an_exit_stops_where_the_top_word_is_sure(monkeypatch):
    """Random small models are sure of nothing: with the limit lowered the exits stop at different blocks."""
    model, stops = models.exact("gpt2"), []
    for limit in (0.0, 0.004, 0.9):
        monkeypatch.setattr("visit.studies.early.CONFIDENT", limit)
        exits = run(model).cells[f"{EARLY}/plain: exit"].mean[0, 0, :, 0, 0, 0]
        stops.append(model.n_layers - 1 - exits[EXITS.index("exit_saved")])
        states = [capture(model, text).resid_post[:, -1].detach().numpy() for text in TEXTS]
        sure = [[np.exp(log_probs(model, x).max()) >= limit for x in own] for own in states]
        assert stops[-1] == np.mean([own.index(True) if any(own) else len(own) - 1 for own in sure])
    assert stops[0] == 0 and stops[2] == model.n_layers - 1


def test_the_last_block_is_the_prediction_and_settled_shares_only_grow(model):
    sums = run(model, lens=turned(model))
    for name in ("plain", "fitted"):
        cells = dict(zip(DEPTHS, sums.cells[f"{EARLY}/{name}"].mean[0, 0, :, :, 0, 0], strict=True))
        last = {m: float(x[-1]) for m, x in cells.items()}
        assert last["settled"] == last["top1"] == last["precision"] == 1 and last["rank"] == 0 and last["kl"] == 0
        assert (np.diff(cells["settled"]) >= 0).all() and (cells["settled"] <= cells["top1"]).all()
        exits = dict(zip(EXITS, sums.cells[f"{EARLY}/{name}: exit"].mean[0, 0, :, 0, 0, 0], strict=True))
        assert exits["saved"] == pytest.approx(cells["settled"][:-1].sum())
        assert exits["saturation"] + exits["saved"] == pytest.approx(model.n_layers - 1)


def test_thinned_layers_keep_their_numbers_and_the_saturation_is_of_all_blocks(model):
    whole, thin = run(model), run(model, layers=(1,))
    assert np.array_equal(
        thin.cells[f"{EARLY}/plain"].mean[..., 0, :, :], whole.cells[f"{EARLY}/plain"].mean[..., 1, :, :]
    )
    name = f"{EARLY}/plain: exit"
    assert np.array_equal(thin.cells[name].mean, whole.cells[name].mean)


def test_halves_merge_and_other_lenses_do_not(model):
    lens = turned(model)
    whole = run(model, lens=lens)
    parts = [run(model, rows, lens) for rows in (ROWS[:1], ROWS[1:])]
    both = merge(*parts)
    for name, cells in whole.cells.items():
        assert np.allclose(both.cells[name].total, cells.total, rtol=1e-9, atol=1e-9), name
    for other in (None, turned(model, seed=1)):
        with pytest.raises(VisitError, match="same model and settings"):
            merge(parts[0], run(model, ROWS[1:], other))


def test_a_run_is_named_by_its_lens(model):
    usable = studied(model, visit.studies.study.prompt_set(TEXTS), Settings())
    lenses = (None, turned(model), turned(model, seed=1), turned(model, scale=0.4))
    keys = {study_key(model, usable, job_of(model, lens=lens).settings) for lens in lenses}
    assert len(keys) == 4


def test_a_lens_of_another_model_is_refused(model):
    other = models.exact("olmo2")
    with pytest.raises(VisitError, match="other weights"):
        visit.study(model, TEXTS, lens=turned(other), figures=[EARLY])


def test_a_prompt_that_a_lens_cannot_read_in_numbers_is_left_out():
    model = models.exact("gpt2")
    lens = turned(model)
    lens.maps[0, 0, 0] = float("inf")
    found = run(model, lens=lens)
    assert found.prompts == 0 and found.broken == (1, 2, 3, 4)


# ---- tables, verdicts, charts ----------------------------------------------------------------------------------------
def test_the_table_says_ranks_as_places_and_numbers_of_the_whole_pass_without_a_layer(model):
    sums = run(model, lens=turned(model))
    table = figure_table(sums, EARLY)
    assert set(table["measure"]) == {*DEPTHS, *EXITS} and set(table["group"]) == {"all"}
    assert table[table["measure"].isin(EXITS)]["layer"].isna().all()
    assert table[table["measure"].isin(DEPTHS)]["layer"].notna().all()
    ranks = table[(table["measure"] == "rank") & (table["series"] == "plain")]
    each = [by_hand(model, text, None)[0][DEPTHS.index("rank")] for text in TEXTS]
    assert ranks["mean"].tolist() == pytest.approx((2 ** np.mean(each, axis=0)).tolist())
    assert (ranks["low"] <= ranks["high"]).all() and ranks["low"].min() >= 1


def test_a_study_without_a_lens_shows_the_plain_one_and_says_how_to_get_the_other(model):
    plain, both = (
        visit.study(model, TEXTS, lens=lens, figures=["14", EARLY], draws=20) for lens in (None, turned(model))
    )
    assert plain.meta["lens"] == "plain" and both.meta["lens"] == turned(model).label
    assert "visit lens fit" in plain.meta["figures_left_out"][f"{EARLY}/fitted"]
    assert f"{EARLY}/fitted" not in both.meta["figures_left_out"]
    ((names, why),) = [pair for pair in study_report.left_out(plain.meta) if "fitted" in pair[0]]
    assert names == "Fig. 14 (fitted), Early exit (fitted)" and "--lens fitted" in why
    said = [verdict.claim for verdict in both.verdicts["14"]]
    assert any(claim.startswith("Fitted lens: ") for claim in said)
    assert len(both.verdicts[EARLY]) == len(plain.verdicts[EARLY]) + 1 == 3
    page = study_report.html(both)
    assert "Others found:" in page and turned(model).label in page


def test_charts_have_a_line_a_lens_and_are_as_many_as_foretold(model):
    for lens in (None, turned(model)):
        found = visit.study(model, TEXTS, lens=lens, figures=["14", EARLY], draws=20)
        drawn = [panel for f in ("14", EARLY) for panel in panels(study_report.study_run(found, f), f)]
        settings = job_of(model, lens=lens).settings
        assert len(drawn) == charts(model, settings, [4])
        seen = counts(model, [4, 5], settings)["how early the model knows"]
        assert seen == 2 * model.n_layers * (1 if lens is None else 2)
    spec = panels(study_report.study_run(found, EARLY), EARLY)[0].chart.to_dict()
    assert "fitted lens" in str(spec) and "plain lens" in str(spec)


def table_of(curves, measure):
    return pd.DataFrame([
        {"figure": EARLY, "series": name, "group": "all", "measure": measure, "layer": i, "head": pd.NA, "rank": pd.NA,
         "mean": m, "low": m, "high": m, "prompts": 9}
        for name, own in curves.items() for i, m in enumerate(own)
    ])  # fmt: skip


def test_ranks_are_drawn_on_a_scale_on_which_the_first_places_can_be_told():
    (panel,) = panels(Run("one", table_of({"plain": [40_000.0, 900.0, 1.0]}, "rank")), EARLY)
    scales = {layer["encoding"]["y"]["scale"]["type"] for layer in panel.chart.to_dict()["layer"]}
    assert scales == {"log"}


# ---- a model that knows something ----------------------------------------------------------------------------------
def test_on_visit_mini_the_fitted_lens_knows_earlier():
    from visit.runs.prompts import shipped_set

    model = visit.load_model("visit-mini")
    lens = visit.fit_lens(model, tokens=2000)
    found = visit.study(model, shipped_set("facts").rows[::6], lens=lens, figures=["14", EARLY], draws=200)
    earlier, saves, exits = found.verdicts[EARLY]
    assert earlier.holds and "more often" in earlier.claim
    table = found.tables[EARLY].query("group == 'all' and measure == 'saturation'").set_index("series")["mean"]
    assert table["fitted: exit"] < table["plain: exit"]
    assert saves.sentence.count(" of 8 blocks") == 1 and exits.numbers
    settings = settled(Settings(figures=(EARLY,)), model)
    assert replace(settings, lens="x") != settings
