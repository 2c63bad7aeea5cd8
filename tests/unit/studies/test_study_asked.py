"""A study from what is asked to its figures: settings that are none, what is left out and said, and the whole."""

from __future__ import annotations

import models
import pytest
import torch
from studies import TEXTS, K, rows_of

import visit
from visit import VisitError, capture
from visit.runs.prompts import Row
from visit.studies.settings import ALIGNED, FIGURES, Settings, settled


def test_heads_that_have_no_place_in_the_stream_are_left_out_and_said():
    found = visit.study(models.small("llama"), list(TEXTS[:2]), figures=["2a", "19"], k=K, draws=10)
    assert set(found.tables) == {"19"} and set(found.tables["19"]["series"]) == {"circuit", "gain"}
    assert set(found.meta["figures_left_out"]) == {"2a", "19/naive"}


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
